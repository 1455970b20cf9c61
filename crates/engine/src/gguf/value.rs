//! Metadata values and tensor types, as GGUF numbers them.
//!
//! In: bytes that `header` has checked. Out: typed values that borrow from the file.

use std::fmt;

/// The type of a metadata value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// An unsigned byte.
    U8,
    /// A signed byte.
    I8,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, signed.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, signed.
    I32,
    /// A float of 32 bits.
    F32,
    /// A byte that is 0 or 1.
    Bool,
    /// Bytes that should be UTF-8.
    Str,
    /// Values of one kind.
    Array,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, signed.
    I64,
    /// A float of 64 bits.
    F64,
}

impl ValueKind {
    /// Returns the kind with GGUF's number `id`.
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Str,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Returns the bytes of one value, or `None` when values of this kind differ in length.
    pub(super) fn n_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Str | Self::Array => None,
        }
    }
}

/// A metadata value; text and arrays stay in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "each name is the type's own")]
pub enum Value<'g> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// The bytes of a string, which should be UTF-8 and has not been checked to be.
    Str(&'g [u8]),
    Array(Array<'g>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of metadata values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'g> {
    /// Type of the elements.
    pub kind: ValueKind,
    /// How many elements there are.
    pub len: usize,
    // INVARIANT: holds exactly `len` whole elements; `header::read` has walked them.
    bytes: &'g [u8],
}

/// The strings of an array, in order, as bytes of the file.
#[derive(Debug, Clone)]
pub struct StrArray<'g> {
    n_left: usize,
    bytes: &'g [u8],
}

/// Returns the first `N` bytes; a shorter slice, which a checked file never gives, counts as zeros.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

impl<'g> Value<'g> {
    /// Reads the value of `kind` that fills `bytes`.
    pub(super) fn read(kind: ValueKind, bytes: &'g [u8]) -> Self {
        match kind {
            ValueKind::U8 => Self::U8(u8::from_le_bytes(first(bytes))),
            ValueKind::I8 => Self::I8(i8::from_le_bytes(first(bytes))),
            ValueKind::U16 => Self::U16(u16::from_le_bytes(first(bytes))),
            ValueKind::I16 => Self::I16(i16::from_le_bytes(first(bytes))),
            ValueKind::U32 => Self::U32(u32::from_le_bytes(first(bytes))),
            ValueKind::I32 => Self::I32(i32::from_le_bytes(first(bytes))),
            ValueKind::F32 => Self::F32(f32::from_le_bytes(first(bytes))),
            ValueKind::Bool => Self::Bool(first::<1>(bytes) == [1]),
            ValueKind::Str => Self::Str(bytes.get(8..).unwrap_or_default()),
            ValueKind::Array => {
                let id = u32::from_le_bytes(first(bytes));
                let len = u64::from_le_bytes(first(bytes.get(4..).unwrap_or_default()));
                Self::Array(Array {
                    kind: ValueKind::from_id(id).unwrap_or(ValueKind::U8),
                    len: usize::try_from(len).unwrap_or(0),
                    bytes: bytes.get(12..).unwrap_or_default(),
                })
            }
            ValueKind::U64 => Self::U64(u64::from_le_bytes(first(bytes))),
            ValueKind::I64 => Self::I64(i64::from_le_bytes(first(bytes))),
            ValueKind::F64 => Self::F64(f64::from_le_bytes(first(bytes))),
        }
    }

    /// Returns the value of an integer of any type.
    pub fn as_int(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(int) => int.into(),
            Self::I8(int) => int.into(),
            Self::U16(int) => int.into(),
            Self::I16(int) => int.into(),
            Self::U32(int) => int.into(),
            Self::I32(int) => int.into(),
            Self::U64(int) => int.into(),
            Self::I64(int) => int.into(),
            _ => return None,
        })
    }

    pub(super) fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(number) => Some(number),
            Self::F64(number) => Some(number as f32),
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<Array<'g>> {
        match self {
            Self::Array(array) => Some(*array),
            _ => None,
        }
    }
}

impl<'g> Array<'g> {
    /// Returns the strings of an array of strings.
    pub fn strings(&self) -> Option<StrArray<'g>> {
        (self.kind == ValueKind::Str).then_some(StrArray { n_left: self.len, bytes: self.bytes })
    }

    /// Returns the integers of an array of 32-bit integers that all fit an i32.
    pub fn ints(&self) -> Option<Vec<i32>> {
        let chunks = self.bytes.chunks_exact(4);
        match self.kind {
            ValueKind::I32 => Some(chunks.map(|chunk| i32::from_le_bytes(first(chunk))).collect()),
            ValueKind::U32 => chunks.map(|chunk| u32::from_le_bytes(first(chunk)).try_into().ok()).collect(),
            _ => None,
        }
    }

    /// Returns the numbers of an array of f32.
    pub fn floats(&self) -> Option<Vec<f32>> {
        (self.kind == ValueKind::F32)
            .then(|| self.bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(first(chunk))).collect())
    }
}

impl<'g> Iterator for StrArray<'g> {
    type Item = &'g [u8];

    fn next(&mut self) -> Option<&'g [u8]> {
        self.n_left = self.n_left.checked_sub(1)?;
        let (len, rest) = self.bytes.split_first_chunk()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (string, rest) = rest.split_at_checked(len)?;
        self.bytes = rest;
        Some(string)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.n_left, Some(self.n_left))
    }
}

impl ExactSizeIterator for StrArray<'_> {}

/// What an error says was found: the type, and the value where it is short.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32(number) => write!(f, "the f32 {number}"),
            Self::F64(number) => write!(f, "the f64 {number}"),
            Self::Bool(flag) => write!(f, "the bool {flag}"),
            Self::Str(bytes) => write!(f, "a string of {} bytes", bytes.len()),
            Self::Array(array) => write!(f, "an array of {} × {:?}", array.len, array.kind),
            _ => write!(f, "the integer {}", self.as_int().unwrap_or_default()),
        }
    }
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name is ggml's own")]
pub enum GgmlType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl GgmlType {
    /// Returns the type with ggml's number `id` (`enum ggml_type` in ggml.h).
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// Returns ggml's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Returns how many elements share a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Returns the bytes of one block (the `block_*` structs in ggml-common.h).
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

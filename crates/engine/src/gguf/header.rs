//! The header of a GGUF file: where each value and each tensor lies, all of it checked.
//!
//! In: the file's bytes. Out: a [`Header`] whose ranges all lie within those bytes.
//! Never: reserves memory by a count that the rest of the file could not hold.
//! Source: `docs/gguf.md` of ggml, and what its `gguf.cpp` refuses.

use std::ops::Range;

use super::{Error, GgmlType, ValueKind};

/// Most keys, and most tensors, of a file. The largest models have some thousands; the limit
/// bounds what a lying file can make us keep: under 20 MiB.
const MOST_ENTRIES: u64 = 1 << 16;
/// Longest key or tensor name, the specification's limit for keys.
const LONGEST_NAME: u64 = 65_535;
/// Arrays in arrays; no known model has even one level.
const DEEPEST_NESTING: u32 = 4;
/// Bytes of the shortest key and value: a length, a letter, a type, a byte.
const SHORTEST_ENTRY: u64 = 8 + 1 + 4 + 1;
/// Bytes of the shortest tensor record: a length, a letter, a count, a dimension, a type, an offset.
const SHORTEST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// The alignment without `general.alignment`, the specification's.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The specification's; numbers of any type can then be read in place.
const SMALLEST_ALIGNMENT: u64 = 8;
/// More than a page of any system; a larger alignment is a damaged number.
const LARGEST_ALIGNMENT: u64 = 1 << 16;

pub(super) struct Header {
    pub(super) version: u32,
    // INVARIANT: sorted by key, no key twice.
    pub(super) entries: Vec<Entry>,
    // INVARIANT: sorted by name, no name twice.
    pub(super) tensors: Vec<TensorInfo>,
}

pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) kind: ValueKind,
    pub(super) value: Range<usize>,
}

pub(super) struct TensorInfo {
    pub(super) name: Box<str>,
    n_dims: usize,
    dims: [u64; 4],
    pub(super) dtype: GgmlType,
    pub(super) data: Range<usize>,
}

impl TensorInfo {
    pub(super) fn shape(&self) -> &[u64] {
        &self.dims[..self.n_dims]
    }
}

impl Header {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        let idx = self.entries.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
        self.entries.get(idx)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let idx = self.tensors.binary_search_by(|info| (*info.name).cmp(name)).ok()?;
        self.tensors.get(idx)
    }
}

/// Reads and checks the whole header.
pub(super) fn read(bytes: &[u8]) -> Result<Header, Error> {
    let mut reader = Reader { bytes, at: 0 };
    let version = read_version(&mut reader)?;
    let n_tensors = reader.count("the number of tensors", SHORTEST_TENSOR, MOST_ENTRIES)?;
    let n_entries = reader.count("the number of metadata keys", SHORTEST_ENTRY, MOST_ENTRIES)?;

    let mut entries = Vec::new();
    for _ in 0..n_entries {
        entries.push(read_entry(&mut reader)?);
    }
    entries.sort_by(|a: &Entry, b| a.key.cmp(&b.key));
    refuse_twins("metadata key", entries.iter().map(|entry| &*entry.key))?;
    let mut header = Header { version, entries, tensors: Vec::new() };
    let alignment = alignment(&header, bytes)?;

    let mut tensors = Vec::new();
    for _ in 0..n_tensors {
        tensors.push(read_tensor(&mut reader, alignment)?);
    }
    header.tensors = place(tensors, reader.at as u64, alignment, bytes.len() as u64)?;
    Ok(header)
}

fn read_version(reader: &mut Reader<'_>) -> Result<u32, Error> {
    let found = reader.array("the magic number")?;
    if &found != b"GGUF" {
        return Err(Error::NotGguf { found });
    }
    match reader.u32("the version")? {
        version @ 2..=3 => Ok(version),
        version if (1..=3).contains(&version.swap_bytes()) => Err(Error::BigEndian),
        version => Err(Error::Version(version)),
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Error> {
    let key = reader.name("metadata key")?;
    let id = reader.u32("a value's type")?;
    let kind = ValueKind::from_id(id).ok_or_else(|| Error::ValueType { key: key.into(), id })?;
    let start = reader.at;
    skip_value(reader, key, kind, 0)?;
    Ok(Entry { key: key.into(), kind, value: start..reader.at })
}

/// Moves past one value and checks every count and length inside it.
fn skip_value(reader: &mut Reader<'_>, key: &str, kind: ValueKind, depth: u32) -> Result<(), Error> {
    match kind {
        ValueKind::Bool => match reader.array("a bool")? {
            [0 | 1] => Ok(()),
            [found] => Err(Error::Bool { key: key.to_owned(), found }),
        },
        ValueKind::Str => {
            let len = reader.u64("a string's length")?;
            reader.take("a string", len).map(drop)
        }
        ValueKind::Array => skip_array(reader, key, depth),
        fixed => {
            let n_bytes = fixed.n_bytes().unwrap_or_default() as u64;
            reader.take("a value", n_bytes).map(drop)
        }
    }
}

fn skip_array(reader: &mut Reader<'_>, key: &str, depth: u32) -> Result<(), Error> {
    if depth >= DEEPEST_NESTING {
        return Err(Error::Nested { key: key.to_owned() });
    }
    let id = reader.u32("an array's type")?;
    let kind = ValueKind::from_id(id).ok_or_else(|| Error::ValueType { key: key.to_owned(), id })?;
    let shortest = match kind {
        ValueKind::Str => 8,
        ValueKind::Array => 12,
        fixed => fixed.n_bytes().unwrap_or(1) as u64,
    };
    let len = reader.count("an array's length", shortest, u64::MAX)?;
    if let Some(n_bytes) = kind.n_bytes() {
        return reader.take("an array", len as u64 * n_bytes as u64).map(drop);
    }
    for _ in 0..len {
        skip_value(reader, key, kind, depth + 1)?;
    }
    Ok(())
}

fn alignment(header: &Header, bytes: &[u8]) -> Result<u64, Error> {
    let Some(entry) = header.entry("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let value = super::Value::read(entry.kind, &bytes[entry.value.clone()]);
    let alignment = value.as_int().and_then(|int| u64::try_from(int).ok()).ok_or_else(|| Error::Type {
        key: entry.key.to_string(),
        expected: "an unsigned integer",
        found: value.to_string(),
    })?;
    if !alignment.is_power_of_two() || !(SMALLEST_ALIGNMENT..=LARGEST_ALIGNMENT).contains(&alignment) {
        return Err(Error::Alignment(alignment));
    }
    Ok(alignment)
}

/// A tensor's record: its data begin `offset` bytes after the beginning of all data.
struct Record {
    info: TensorInfo,
    offset: u64,
    n_bytes: u64,
}

fn read_tensor(reader: &mut Reader<'_>, alignment: u64) -> Result<Record, Error> {
    let name = reader.name("tensor name")?;
    let shape_error = |shape: String| Error::Shape { tensor: name.to_owned(), shape };
    let n_dims = reader.u32("a tensor's number of dimensions")? as usize;
    if !(1..=4).contains(&n_dims) {
        return Err(shape_error(format!("of {n_dims} dimensions")));
    }
    let mut dims = [1; 4];
    for dim in &mut dims[..n_dims] {
        *dim = reader.u64("a tensor's dimension")?;
    }
    let n_elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
    let n_elements = n_elements.filter(|n_elements| *n_elements > 0);

    let id = reader.u32("a tensor's type")?;
    let dtype = GgmlType::from_id(id).ok_or_else(|| Error::Dtype { tensor: name.to_owned(), id })?;
    let block_len = dtype.block_len() as u64;
    if !dims[0].is_multiple_of(block_len) {
        return Err(Error::Block {
            tensor: name.to_owned(),
            dtype: dtype.name(),
            row_len: dims[0],
            block_len,
        });
    }
    let n_bytes = n_elements
        .and_then(|n_elements| (n_elements / block_len).checked_mul(dtype.block_bytes() as u64))
        .ok_or_else(|| shape_error(format!("{:?}", &dims[..n_dims])))?;

    let offset = reader.u64("a tensor's offset")?;
    if !offset.is_multiple_of(alignment) {
        return Err(Error::Misaligned { tensor: name.to_owned(), offset, alignment });
    }
    let info = TensorInfo { name: name.into(), n_dims, dims, dtype, data: 0..0 };
    Ok(Record { info, offset, n_bytes })
}

/// Gives each tensor its bytes and checks that these lie in the file and do not overlap.
fn place(
    mut records: Vec<Record>,
    header_end: u64,
    alignment: u64,
    n_bytes: u64,
) -> Result<Vec<TensorInfo>, Error> {
    records.sort_by(|a, b| (a.offset, &a.info.name).cmp(&(b.offset, &b.info.name)));
    for record in &mut records {
        let past_end = |end| Error::PastEnd { tensor: record.info.name.to_string(), end, n_bytes };
        let start = header_end
            .checked_next_multiple_of(alignment)
            .and_then(|data_start| data_start.checked_add(record.offset))
            .ok_or_else(|| past_end(u64::MAX))?;
        let end = start.checked_add(record.n_bytes).ok_or_else(|| past_end(u64::MAX))?;
        if end > n_bytes {
            return Err(past_end(end));
        }
        // Both are at most the length of a slice, which is a usize.
        record.info.data = start as usize..end as usize;
    }
    for pair in records.windows(2) {
        if let [first, second] = pair
            && second.info.data.start < first.info.data.end
        {
            return Err(Error::Overlap {
                first: first.info.name.to_string(),
                second: second.info.name.to_string(),
            });
        }
    }
    let mut tensors: Vec<TensorInfo> = records.into_iter().map(|record| record.info).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    refuse_twins("tensor", tensors.iter().map(|info| &*info.name))?;
    Ok(tensors)
}

/// Refuses a sorted list that has the same name twice.
fn refuse_twins<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut previous = None;
    for name in names {
        if previous.replace(name) == Some(name) {
            return Err(Error::Duplicate { what, name: name.to_owned() });
        }
    }
    Ok(())
}

/// A position in the file that only moves past bytes which are there.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn n_left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, what: &'static str, n_bytes: u64) -> Result<&'a [u8], Error> {
        let start = self.at;
        let taken = usize::try_from(n_bytes)
            .ok()
            .and_then(|n_bytes| start.checked_add(n_bytes))
            .and_then(|end| Some((end, self.bytes.get(start..end)?)));
        let Some((end, taken)) = taken else {
            return Err(Error::Truncated { what, offset: start as u64, need: n_bytes, have: self.n_left() });
        };
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N as u64)?);
        Ok(array)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Reads a count of things that take `shortest` bytes at least, and checks that they can be there.
    fn count(&mut self, what: &'static str, shortest: u64, limit: u64) -> Result<usize, Error> {
        let offset = self.at as u64;
        let count = self.u64(what)?;
        let most = (self.n_left() / shortest).min(limit);
        if count > most {
            return Err(Error::Count { what, offset, count, most });
        }
        // At most the length of a slice, which is a usize.
        Ok(count as usize)
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str, Error> {
        let offset = self.at as u64;
        let len = self.u64(what)?;
        if !(1..=LONGEST_NAME).contains(&len) {
            return Err(Error::Name { what, offset });
        }
        str::from_utf8(self.take(what, len)?).map_err(|_| Error::Name { what, offset })
    }
}

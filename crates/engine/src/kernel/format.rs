//! The formats of ggml that have kernels, as a file has them.
//!
//! Source: ggml-common.h, `block_q4_0` to `block_q6_K`, and `dequantize_row_*` in ggml-quants.c.

use super::BLOCK;
use crate::GgmlType;

/// A format with kernels: weight = scale · code + min.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `d: f16, 32 × 4 bits`.
    Q4_0,
    /// `d: f16, m: f16, 32 × 4 bits`.
    Q4_1,
    /// `d: f16, 32 high bits, 32 × 4 bits`.
    Q5_0,
    /// `d: f16, m: f16, 32 high bits, 32 × 4 bits`.
    Q5_1,
    /// `d: f16, 32 × i8`.
    Q8_0,
    /// `d: f16, dmin: f16, 8 × (6 bits of scale, 6 bits of min), 256 × 4 bits`.
    Q4K,
    /// The same with `256 high bits` before the 4 bits.
    Q5K,
    /// `256 × 4 bits, 256 × 2 high bits, 16 × i8 of scale, d: f16`.
    Q6K,
    /// Half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// Single precision.
    F32,
}

/// 32 weights read from a file's block.
pub(super) struct FileBlock {
    /// Scale of the file's block, as f16.
    pub(super) d: [u8; 2],
    /// Min of the file's block, as f16.
    pub(super) dmin: [u8; 2],
    /// Scales of these weights in the formats of 256: of all 32, or of each half.
    pub(super) scales: [u8; 2],
    /// Min of these weights in the formats of 256.
    pub(super) min: u8,
    pub(super) codes: [u8; BLOCK],
}

impl Format {
    /// The formats of codes; kernels are generic over an index into this.
    pub(super) const QUANTISED: [Self; 8] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4K, Self::Q5K, Self::Q6K];

    /// Returns the format of a tensor type, if it has kernels.
    pub(crate) fn of(dtype: GgmlType) -> Option<Self> {
        match dtype {
            GgmlType::Q4_0 => Some(Self::Q4_0),
            GgmlType::Q4_1 => Some(Self::Q4_1),
            GgmlType::Q5_0 => Some(Self::Q5_0),
            GgmlType::Q5_1 => Some(Self::Q5_1),
            GgmlType::Q8_0 => Some(Self::Q8_0),
            GgmlType::Q4K => Some(Self::Q4K),
            GgmlType::Q5K => Some(Self::Q5K),
            GgmlType::Q6K => Some(Self::Q6K),
            GgmlType::F16 => Some(Self::F16),
            GgmlType::BF16 => Some(Self::BF16),
            GgmlType::F32 => Some(Self::F32),
            GgmlType::Q2K | GgmlType::Q3K => None,
        }
    }

    /// Returns whether weights are numbers, and not codes.
    pub(super) const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32)
    }

    /// Returns the bits of a code, or of a number.
    pub(super) const fn n_bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5K => 5,
            Self::Q6K => 6,
            Self::Q8_0 => 8,
            Self::F16 | Self::BF16 => 16,
            Self::F32 => 32,
        }
    }

    /// Returns the code of weight 0 in a block whose min is 0.
    pub(super) const fn zero(self) -> u8 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            // The file has signed bytes; codes are unsigned.
            Self::Q8_0 => 128,
            _ => 0,
        }
    }

    /// Returns whether blocks have a min in the file.
    pub(super) const fn has_min(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K)
    }

    /// Returns how many blocks of 32 share a block in the file.
    pub(super) const fn n_blocks_per_super(self) -> usize {
        if matches!(self, Self::Q4K | Self::Q5K | Self::Q6K) { 8 } else { 1 }
    }

    /// Returns how many scales a block of 32 has.
    pub(super) const fn n_scales(self) -> usize {
        if matches!(self, Self::Q6K) { 2 } else { 1 }
    }

    /// Returns the weights that a file's block holds, of which a row has a whole number.
    pub(crate) const fn row_multiple(self) -> usize {
        BLOCK * self.n_blocks_per_super()
    }

    /// Returns the bytes of one block in a file, of [`Format::row_multiple`] weights.
    pub(super) const fn file_bytes(self) -> usize {
        match self {
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            _ => {
                let halves = if self.is_float() { 0 } else { 2 + if self.has_min() { 2 } else { 0 } };
                halves + BLOCK * self.n_bits() / 8
            }
        }
    }

    /// Reads 32 weights of a file's block; `at` says which, in the formats of 256.
    pub(super) fn read(self, file: &[u8], at: usize) -> FileBlock {
        match self {
            Self::Q4K | Self::Q5K => self.read_k(file, at),
            Self::Q6K => read_q6k(file, at),
            _ => self.read_32(file),
        }
    }

    fn read_32(self, file: &[u8]) -> FileBlock {
        let (dmin, rest) =
            if self.has_min() { ([file[2], file[3]], &file[4..]) } else { ([0; 2], &file[2..]) };
        let codes = match self.n_bits() {
            8 => std::array::from_fn(|idx| rest[idx] ^ 0x80),
            4 => nibbles(rest),
            _ => {
                let high = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
                let low = nibbles(&rest[4..]);
                std::array::from_fn(|idx| low[idx] | ((high >> idx & 1) as u8) << 4)
            }
        };
        FileBlock { d: [file[0], file[1]], dmin, scales: [0; 2], min: 0, codes }
    }

    fn read_k(self, file: &[u8], at: usize) -> FileBlock {
        let (head, rest) = file.split_at(16);
        let packed = &head[4..];
        // `get_scale_min_k4`: the first four have 6 bits in a byte; the others borrow the upper 2 bits of those.
        let (scale, min) = if at < 4 {
            (packed[at] & 63, packed[at + 4] & 63)
        } else {
            let low = packed[at + 4];
            (low & 15 | packed[at - 4] >> 6 << 4, low >> 4 | packed[at] >> 6 << 4)
        };
        let (high, low) = if matches!(self, Self::Q5K) { rest.split_at(BLOCK) } else { (&[][..], rest) };
        let low = &low[at / 2 * BLOCK..][..BLOCK];
        let mut codes: [u8; BLOCK] = std::array::from_fn(|idx| low[idx] >> (at % 2 * 4) & 15);
        if matches!(self, Self::Q5K) {
            codes.iter_mut().zip(high).for_each(|(code, high)| *code |= (high >> at & 1) << 4);
        }
        FileBlock { d: [head[0], head[1]], dmin: [head[2], head[3]], scales: [scale, 0], min, codes }
    }
}

fn read_q6k(file: &[u8], at: usize) -> FileBlock {
    let (low, rest) = file.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    // Half a block of 256 is 4 times 32 weights: low bits in two rows of 32 bytes, high bits in one.
    let (half, quarter) = (at / 4, at % 4);
    let low = &low[half * 64 + quarter % 2 * 32..][..BLOCK];
    let high = &high[half * 32..][..BLOCK];
    let code = |idx: usize| low[idx] >> (quarter / 2 * 4) & 15 | (high[idx] >> (quarter * 2) & 3) << 4;
    FileBlock {
        d: [d[0], d[1]],
        dmin: [0; 2],
        scales: [scales[at * 2], scales[at * 2 + 1]],
        min: 0,
        codes: std::array::from_fn(code),
    }
}

/// Returns the weights of 16 bytes whose low halves are the first 16.
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|idx| if idx < BLOCK / 2 { bytes[idx] & 15 } else { bytes[idx - BLOCK / 2] >> 4 })
}

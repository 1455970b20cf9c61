//! ggml's formats with blocks of 32 weights.
//!
//! Source: ggml-common.h, `block_q4_0` to `block_q8_0`, and `dequantize_row_*` in ggml-quants.c.

use half::f16;

use super::BLOCK;
use crate::GgmlType;

/// A block format with kernels: weight = scale · (code − zero) + min.
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
}

/// A block read from a file.
pub(super) struct FileBlock {
    pub(super) scale: f16,
    pub(super) min: f16,
    pub(super) codes: [u8; BLOCK],
}

impl Format {
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] = [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0];

    /// Returns the format of a tensor type, if it has kernels.
    pub(crate) fn of(dtype: GgmlType) -> Option<Self> {
        match dtype {
            GgmlType::Q4_0 => Some(Self::Q4_0),
            GgmlType::Q4_1 => Some(Self::Q4_1),
            GgmlType::Q5_0 => Some(Self::Q5_0),
            GgmlType::Q5_1 => Some(Self::Q5_1),
            GgmlType::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Returns the bits of a code.
    pub(super) const fn n_bits(self) -> u32 {
        match self {
            Self::Q4_0 | Self::Q4_1 => 4,
            Self::Q5_0 | Self::Q5_1 => 5,
            Self::Q8_0 => 8,
        }
    }

    /// Returns the code of weight 0 in a block whose min is 0.
    pub(super) const fn zero(self) -> i32 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            // The file has signed bytes; codes are unsigned.
            Self::Q8_0 => 128,
            Self::Q4_1 | Self::Q5_1 => 0,
        }
    }

    /// Returns whether blocks have a min.
    pub(super) const fn has_min(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1)
    }

    /// Returns the bytes of one block in a file.
    pub(super) const fn block_bytes(self) -> usize {
        2 + if self.has_min() { 2 } else { 0 } + BLOCK * self.n_bits() as usize / 8
    }

    /// Reads a file's block.
    pub(super) fn read(self, block: &[u8]) -> FileBlock {
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]);
        let (min, rest) = if self.has_min() { (half(2), &block[4..]) } else { (f16::ZERO, &block[2..]) };
        let codes = match self.n_bits() {
            8 => std::array::from_fn(|idx| rest[idx] ^ 0x80),
            4 => std::array::from_fn(|idx| nibble(rest, idx)),
            _ => {
                let high = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
                std::array::from_fn(|idx| nibble(&rest[4..], idx) | ((high >> idx & 1) as u8) << 4)
            }
        };
        FileBlock { scale: half(0), min, codes }
    }
}

/// Returns weight `idx` of 16 bytes whose low halves are the first 16 weights.
fn nibble(bytes: &[u8], idx: usize) -> u8 {
    if idx < BLOCK / 2 { bytes[idx] & 15 } else { bytes[idx - BLOCK / 2] >> 4 }
}

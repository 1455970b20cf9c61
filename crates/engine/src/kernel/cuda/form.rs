//! The forms in which a matrix lies on a GPU, and how a file's rows become them.
//!
//! In: a file's rows. Out: bytes as `matrix.cuh` describes them, for weights that are those of the file but for the
//! rounding of scales and numbers to f16.

use half::{bf16, f16};

use crate::GgmlType;
use crate::kernel::{BLOCK, Format};

/// Blocks of 32 weights in a unit of codes.
const N_UNIT_BLOCKS: usize = 4;

/// How a matrix's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// f16.
    Floats,
    /// 4 bits, a scale and a min for each 32.
    Nibbles,
    /// 8 bits, a scale and a min for each 32.
    Bytes,
    /// 8 bits, a scale for each 16.
    Halved,
}

impl Form {
    /// Returns the form that holds a file's tensor without loss of its codes.
    pub(crate) fn of(dtype: GgmlType) -> Self {
        match dtype {
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4K => Self::Nibbles,
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q8_0 | GgmlType::Q5K => Self::Bytes,
            GgmlType::Q6K => Self::Halved,
            GgmlType::F16 | GgmlType::BF16 | GgmlType::F32 | GgmlType::Q2K | GgmlType::Q3K => Self::Floats,
        }
    }

    /// Returns the name in the kernels' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floats => "floats",
            Self::Nibbles => "nibbles",
            Self::Bytes => "bytes",
            Self::Halved => "halved",
        }
    }

    /// Returns the bytes of a row of `n_in` weights.
    pub(crate) fn row_bytes(self, n_in: usize) -> usize {
        let n_units = n_in.div_ceil(N_UNIT_BLOCKS * BLOCK);
        match self {
            Self::Floats => 2 * n_in,
            Self::Nibbles => n_units * 80,
            Self::Bytes | Self::Halved => n_units * 144,
        }
    }
}

/// Writes a file's rows of a [`Form::of`] its type into `to`, each at the row of `to` that `place` gives for it.
///
/// # Panics
/// If the rows are not of `n_in` weights, or `dtype` is Q2_K or Q3_K, which are unpacked elsewhere.
pub(crate) fn pack_rows(
    dtype: GgmlType,
    rows: &[u8],
    n_in: usize,
    to: &mut [u8],
    place: impl Fn(usize) -> usize,
) {
    let format = Format::of(dtype).expect("a format with blocks of its own");
    let (n_file, n_to) =
        (n_in / format.row_multiple() * format.file_bytes(), Form::of(dtype).row_bytes(n_in));
    assert_eq!(rows.len() % n_file, 0, "no rows of {n_in} weights");
    for (idx, row) in rows.chunks_exact(n_file).enumerate() {
        let to = &mut to[place(idx) * n_to..][..n_to];
        match format {
            Format::F16 => to.copy_from_slice(row),
            Format::BF16 => pack_floats(row.as_chunks().0, to, |number| bf16::from_le_bytes(number).to_f32()),
            Format::F32 => pack_floats(row.as_chunks().0, to, f32::from_le_bytes),
            _ => pack_codes(format, row, to),
        }
    }
}

fn pack_floats<const N: usize>(from: &[[u8; N]], to: &mut [u8], number: impl Fn([u8; N]) -> f32) {
    for (from, to) in from.iter().zip(to.as_chunks_mut().0) {
        *to = half(number(*from));
    }
}

fn half(number: f32) -> [u8; 2] {
    f16::from_f32(number.clamp(f16::MIN.to_f32_const(), f16::MAX.to_f32_const())).to_le_bytes()
}

fn pack_codes(format: Format, row: &[u8], to: &mut [u8]) {
    let n_per_super = format.n_blocks_per_super();
    let form_bytes = if format.n_bits() == 4 { 80 } else { 144 };
    let n_code_bytes = form_bytes - 4 * N_UNIT_BLOCKS;
    to.fill(0);
    for block_idx in 0..row.len() / format.file_bytes() * n_per_super {
        let file = &row[block_idx / n_per_super * format.file_bytes()..];
        let read = format.read(file, block_idx % n_per_super);
        let (unit, j) =
            (&mut to[block_idx / N_UNIT_BLOCKS * form_bytes..][..form_bytes], block_idx % N_UNIT_BLOCKS);
        let (codes, pairs) = unit.split_at_mut(n_code_bytes);
        let (d, dmin) = (f16::from_le_bytes(read.d).to_f32(), f16::from_le_bytes(read.dmin).to_f32());
        let zero = format.zero();
        let (first, second) = if format.n_scales() == 2 {
            (d * f32::from(read.scales[0].cast_signed()), d * f32::from(read.scales[1].cast_signed()))
        } else if n_per_super > 1 {
            (d * f32::from(read.scales[0]), -dmin * f32::from(read.min))
        } else if format.n_bits() == 4 {
            // Codes of 4 bits have no room for their zero.
            (d, dmin - d * f32::from(zero))
        } else {
            (d, dmin)
        };
        pairs[4 * j..][..2].copy_from_slice(&half(first));
        pairs[4 * j + 2..][..2].copy_from_slice(&half(second));
        for (t, eight) in read.codes.as_chunks::<8>().0.iter().enumerate() {
            if format.n_bits() == 4 {
                let word = eight.iter().enumerate().fold(0_u32, |word, (at, &code)| {
                    word | u32::from(code) << (4 * (at / 2) + 16 * (at % 2))
                });
                codes[16 * t + 4 * j..][..4].copy_from_slice(&word.to_le_bytes());
            } else {
                let bytes = eight.map(|code| code.wrapping_sub(zero).wrapping_add(128));
                codes[32 * t + 8 * j..][..8].copy_from_slice(&bytes);
            }
        }
    }
}

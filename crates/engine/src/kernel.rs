//! Dot products of quantised weights with quantised activations, in the file's own block formats.
//!
//! In: weight rows as bytes, activations as [`Activations`]. Out: `f32` sums.
//! Never: depends on how many rows are computed together: every sum is added up in the same order (I-7).
//! Thread: any. The instruction set is chosen once, at run time.
//!
//! These cover the formats of the default model; the others still go through candle. Repacked panels and the other
//! formats are issue 3.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use crate::GgmlType;

/// Weights in a block, in both formats: ggml's `QK4_1` and `QK8_0`.
pub(crate) const BLOCK: usize = 32;

/// A block format with a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `d: f16, m: f16, 32 × 4 bits`; weight = d · q + m.
    Q4_1,
    /// `d: f16, 32 × i8`; weight = d · q.
    Q8_0,
}

impl Format {
    /// Returns the format of a tensor type, if it has a kernel.
    pub(crate) fn of(dtype: GgmlType) -> Option<Self> {
        match dtype {
            GgmlType::Q4_1 => Some(Self::Q4_1),
            GgmlType::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Returns the bytes of one block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::Q4_1 => 4 + BLOCK / 2,
            Self::Q8_0 => 2 + BLOCK,
        }
    }
}

/// Weight of a coarse quant in fine ones. 254 and not 256, so that both fit ±127 and either sign can be taken.
const COARSE: i32 = 254;
/// Largest quant: 127 coarse ones.
const MAX_QUANT: f32 = 127.0 * COARSE as f32;

/// Rows of activations, quantised to about 16 bits: per 32 values a scale, a sum, and for each value a coarse and a
/// fine byte, value = scale · (254 · coarse + fine).
///
/// One byte, as in ggml's `block_q8_1`, is not enough to compare with anything: its rounding turns the smallest
/// difference in an earlier layer into noise of the size of the rounding itself. On SmolLM2-135M logits then differ
/// from the f32 run's by an NMSE of 1e-4 to 4e-3 (llama.cpp's own: up to 2e-3), and greedy continuations part at gaps
/// of up to 0.28 (`tests/fixtures`); with two bytes it is below 1e-6. Decoding is bound by memory and hardly notices.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    n_blocks: usize,
    /// `[n_rows, n_blocks, 2, BLOCK]`: a block's coarse bytes, then its fine ones.
    quants: Vec<i8>,
    /// `[n_rows, n_blocks]`.
    scales: Vec<f32>,
    /// Sum of each block's values: `[n_rows, n_blocks]`.
    sums: Vec<f32>,
}

impl Activations {
    /// Quantises `x: [n_rows, n_in]`.
    ///
    /// # Panics
    /// If `n_in` is not a multiple of 32.
    pub(crate) fn quantise(&mut self, x: &[f32], n_in: usize) {
        assert_eq!(n_in % BLOCK, 0, "rows of {n_in} do not divide into blocks");
        self.n_blocks = n_in / BLOCK;
        self.quants.clear();
        self.scales.clear();
        self.sums.clear();
        for block in x.chunks_exact(BLOCK) {
            let max = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let scale = max / MAX_QUANT;
            // A block of zeros, or so small that its scale has no inverse, is a block of zeros.
            let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
            let mut sum = 0i32;
            let mut bytes = [0i8; 2 * BLOCK];
            for (idx, x) in block.iter().enumerate() {
                let quant = (x * inverse).round_ties_even() as i32;
                let coarse = (quant as f32 * (1.0 / COARSE as f32)).round_ties_even() as i32;
                sum += quant;
                bytes[idx] = coarse as i8;
                bytes[BLOCK + idx] = (quant - COARSE * coarse) as i8;
            }
            self.quants.extend_from_slice(&bytes);
            self.scales.push(scale);
            self.sums.push(scale * sum as f32);
        }
    }

    fn row(&self, row_idx: usize) -> Row<'_> {
        let blocks = row_idx * self.n_blocks..(row_idx + 1) * self.n_blocks;
        Row {
            quants: &self.quants[blocks.start * 2 * BLOCK..blocks.end * 2 * BLOCK],
            scales: &self.scales[blocks.clone()],
            sums: &self.sums[blocks],
        }
    }
}

/// One row of activations.
#[derive(Clone, Copy)]
struct Row<'a> {
    quants: &'a [i8],
    scales: &'a [f32],
    sums: &'a [f32],
}

/// An instruction set with kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| available().pop().unwrap_or(Isa::Scalar))
}

/// Returns the instruction sets this machine has, the best last.
fn available() -> Vec<Isa> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "only x86 adds to it so far"))]
    let mut available = vec![Isa::Scalar];
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx2() {
            available.push(Isa::Avx2);
        }
        if x86::has_avx512_vnni() {
            available.push(Isa::Avx512Vnni);
        }
    }
    available
}

/// Computes the dot product of one weight row with up to four rows of activations, from `first_row` on.
///
/// `out: [n_rows]`, at most 4; `weights` holds the row's blocks.
///
/// # Panics
/// If `weights` is not as long as the activations' blocks say.
pub(crate) fn dot(
    format: Format,
    weights: &[u8],
    activations: &Activations,
    first_row: usize,
    out: &mut [f32],
) {
    dot_with(isa(), format, weights, activations, first_row, out);
}

fn dot_with(
    isa: Isa,
    format: Format,
    weights: &[u8],
    activations: &Activations,
    first_row: usize,
    out: &mut [f32],
) {
    assert_eq!(
        weights.len(),
        activations.n_blocks * format.block_bytes(),
        "a weight row of the wrong length"
    );
    match out {
        [a] => [*a] = dot_rows(isa, format, weights, rows(activations, first_row)),
        [a, b] => [*a, *b] = dot_rows(isa, format, weights, rows(activations, first_row)),
        [a, b, c] => [*a, *b, *c] = dot_rows(isa, format, weights, rows(activations, first_row)),
        [a, b, c, d] => [*a, *b, *c, *d] = dot_rows(isa, format, weights, rows(activations, first_row)),
        _ => panic!("{} rows at once", out.len()),
    }
}

fn rows<const N: usize>(activations: &Activations, first_row: usize) -> [Row<'_>; N] {
    std::array::from_fn(|idx| activations.row(first_row + idx))
}

fn dot_rows<const N: usize>(isa: Isa, format: Format, weights: &[u8], rows: [Row<'_>; N]) -> [f32; N] {
    match isa {
        Isa::Scalar => rows.map(|row| scalar::dot(format, weights, row)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::avx2(format, weights, rows),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => x86::avx512_vnni(format, weights, rows),
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn bytes(seed: u64, n: usize) -> Vec<u8> {
        let mut state = seed | 1;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .take(n)
        .collect()
    }

    /// Random blocks with scales that a model could have.
    fn weights(format: Format, n_blocks: usize, seed: u64) -> Vec<u8> {
        let mut weights = bytes(seed, n_blocks * format.block_bytes());
        for (idx, block) in weights.chunks_exact_mut(format.block_bytes()).enumerate() {
            let scale = [0.0, 6e-8, 0.01, 3.0][(idx + seed as usize) % 4];
            block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            if format == Format::Q4_1 {
                block[2..4].copy_from_slice(&f16::from_f32(-8.0 * scale).to_le_bytes());
            }
        }
        weights
    }

    fn activations(n_rows: usize, n_blocks: usize, seed: u64) -> Activations {
        let x: Vec<f32> = bytes(seed, n_rows * n_blocks * BLOCK)
            .into_iter()
            .enumerate()
            .map(|(idx, byte)| {
                if idx / BLOCK % 5 == 3 {
                    0.0
                } else {
                    (f32::from(byte) - 128.0) * [1e-9, 0.1, 900.0][idx / BLOCK % 3]
                }
            })
            .collect();
        let mut activations = Activations::default();
        activations.quantise(&x, n_blocks * BLOCK);
        activations
    }

    #[test]
    fn i_11_every_kernel_variant_agrees_with_scalar_and_with_itself_at_any_number_of_rows() {
        for format in [Format::Q4_1, Format::Q8_0] {
            for n_blocks in [1, 2, 3, 18, 48, 49] {
                let activations = activations(4, n_blocks, 7 + n_blocks as u64);
                let weights = weights(format, n_blocks, 3 + n_blocks as u64);
                let mut expected = [0.0; 4];
                dot_with(Isa::Scalar, format, &weights, &activations, 0, &mut expected);
                for isa in available() {
                    let mut four = [0.0; 4];
                    dot_with(isa, format, &weights, &activations, 0, &mut four);
                    for (row_idx, (got, expected)) in four.iter().zip(expected).enumerate() {
                        // Only the order of the float additions differs.
                        let row = activations.row(row_idx);
                        let magnitude: f32 =
                            row.scales.iter().map(|scale| scale * MAX_QUANT * 127.0 * 32.0 * 3.0).sum();
                        assert!(
                            (got - expected).abs() <= magnitude * 1e-6,
                            "{isa:?} {format:?} {n_blocks}: {got} {expected}"
                        );
                        for n_rows in 1..=4 - row_idx {
                            let mut some = vec![0.0; n_rows];
                            dot_with(isa, format, &weights, &activations, row_idx, &mut some);
                            assert_eq!(some[0].to_bits(), got.to_bits(), "{isa:?} {format:?}: {n_rows} rows");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        for format in [Format::Q4_1, Format::Q8_0] {
            let mut weights = vec![if format == Format::Q8_0 { 0x80 } else { 0xff }; format.block_bytes()];
            weights[..2].copy_from_slice(&f16::from_f32(1.0).to_le_bytes());
            let mut offset = 0.0;
            if format == Format::Q4_1 {
                weights[2..4].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
                offset = 0.5;
            }
            let weight = if format == Format::Q8_0 { -128.0 } else { 15.0 };
            for sign in [1.0f32, -1.0] {
                let mut activations = Activations::default();
                activations.quantise(&[sign * 127.0; BLOCK], BLOCK);
                for isa in available() {
                    let mut out = [0.0];
                    dot_with(isa, format, &weights, &activations, 0, &mut out);
                    let expected = 32.0 * 127.0 * sign * (weight + offset);
                    assert!(
                        (out[0] - expected).abs() <= expected.abs() * 1e-6,
                        "{isa:?} {format:?}: {}",
                        out[0]
                    );
                }
            }
        }
    }

    #[test]
    fn quantising_matches_its_definition() {
        let mut activations = Activations::default();
        let x: Vec<f32> = (0..64).map(|i| if i < 32 { (i - 16) as f32 * 0.7 } else { 0.0 }).collect();
        activations.quantise(&x, 64);
        assert_eq!((activations.quants[0], activations.quants[BLOCK]), (-127, 0));
        for (idx, x) in x[..BLOCK].iter().enumerate() {
            let (coarse, fine) =
                (i32::from(activations.quants[idx]), i32::from(activations.quants[BLOCK + idx]));
            let value = activations.scales[0] * (COARSE * coarse + fine) as f32;
            assert!((value - x).abs() <= 0.51 * activations.scales[0], "{value} for {x}");
        }
        assert!((activations.sums[0] - x.iter().sum::<f32>()).abs() < 1e-2);
        assert_eq!((activations.scales[1], activations.sums[1]), (0.0, 0.0));
    }
}

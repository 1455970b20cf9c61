//! Rows of activations, quantised.

use rayon::prelude::*;

use super::BLOCK;

/// Weight of a coarse quant in fine ones. 254 and not 256, so that both fit ±127 and either sign can be taken.
pub(super) const COARSE: i32 = 254;
/// Largest quant: 127 coarse ones.
pub(super) const MAX_QUANT: f32 = 127.0 * COARSE as f32;
/// Rows from which quantising is shared by threads.
const N_PARALLEL: usize = 8;

/// Rows of activations, quantised to about 16 bits: per 32 values a scale, a sum, and for each value a coarse and a
/// fine byte, value = scale · (254 · coarse + fine).
///
/// One byte, as in ggml's `block_q8_1`, is not enough to compare with anything: its rounding turns the smallest
/// difference in an earlier layer into noise of the size of the rounding itself. On SmolLM2-135M logits then differ
/// from the f32 run's by an NMSE of 1e-4 to 4e-3 (llama.cpp's own: up to 2e-3), and greedy continuations part at gaps
/// of up to 0.28 (`tests/fixtures`); with two bytes it is below 1e-6. Decoding is bound by memory and hardly notices.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    n_rows: usize,
    n_blocks: usize,
    /// `[n_rows, n_blocks, 2, BLOCK]`: a block's coarse bytes, then its fine ones.
    quants: Vec<i8>,
    /// `[n_rows, n_blocks]`.
    blocks: Vec<Block>,
}

/// What is known of a block of activations besides its quants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block {
    pub(super) scale: f32,
    /// Sum of the quants.
    pub(super) n_sum: i32,
    /// Sum of the values: `scale · n_sum`.
    pub(super) sum: f32,
}

/// One row of activations.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// `[n_blocks, 2, BLOCK]`.
    pub(super) quants: &'a [i8],
    /// `[n_blocks]`.
    pub(super) blocks: &'a [Block],
}

impl Activations {
    /// Quantises `x: [n_rows, n_in]`.
    ///
    /// # Panics
    /// If `n_in` is not a multiple of 32.
    pub(crate) fn quantise(&mut self, x: &[f32], n_in: usize) {
        assert_eq!(n_in % BLOCK, 0, "rows of {n_in} do not divide into blocks");
        self.n_blocks = n_in / BLOCK;
        self.n_rows = x.len() / n_in;
        self.quants.resize(x.len() * 2, 0);
        self.blocks.resize(x.len() / BLOCK, Block::default());
        let rows = x.chunks_exact(n_in).zip(self.quants.chunks_exact_mut(2 * n_in));
        let rows = rows.zip(self.blocks.chunks_exact_mut(self.n_blocks));
        if self.n_rows < N_PARALLEL {
            rows.for_each(|((x, quants), blocks)| quantise_row(x, quants, blocks));
        } else {
            let rows: Vec<_> = rows.collect();
            rows.into_par_iter().for_each(|((x, quants), blocks)| quantise_row(x, quants, blocks));
        }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    pub(super) fn row(&self, row_idx: usize) -> Row<'_> {
        let blocks = row_idx * self.n_blocks..(row_idx + 1) * self.n_blocks;
        Row {
            quants: &self.quants[blocks.start * 2 * BLOCK..blocks.end * 2 * BLOCK],
            blocks: &self.blocks[blocks],
        }
    }
}

/// 1.5 · 2²³: what is added to it is rounded to a whole number, which then stands in its lowest bits.
const ROUNDER: f32 = 12_582_912.0;

fn quantise_row(x: &[f32], quants: &mut [i8], blocks: &mut [Block]) {
    let (x, quants) = (x.as_chunks::<BLOCK>().0, quants.as_chunks_mut::<BLOCK>().0);
    for ((x, quants), block) in x.iter().zip(quants.as_chunks_mut::<2>().0).zip(blocks) {
        *block = quantise_block(x, quants);
    }
}

fn quantise_block(x: &[f32; BLOCK], [coarse, fine]: &mut [[i8; BLOCK]; 2]) -> Block {
    let mut largest = [0.0f32; BLOCK / 2];
    for (idx, largest) in largest.iter_mut().enumerate() {
        let (a, b) = (x[idx].abs(), x[idx + BLOCK / 2].abs());
        *largest = if a > b { a } else { b };
    }
    let scale = largest.into_iter().fold(0.0, f32::max) / MAX_QUANT;
    // A block of zeros, or so small that its scale has no inverse, is a block of zeros.
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
    let mut n_sum = 0i32;
    for idx in 0..BLOCK {
        let rounded = x[idx] * inverse + ROUNDER;
        let rounded_coarse = (rounded - ROUNDER) * (1.0 / COARSE as f32) + ROUNDER;
        let whole = |rounded: f32| rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed();
        let (quant, coarse_quant) = (whole(rounded), whole(rounded_coarse));
        n_sum = n_sum.wrapping_add(quant);
        coarse[idx] = coarse_quant as i8;
        fine[idx] = quant.wrapping_sub(COARSE * coarse_quant) as i8;
    }
    Block { scale, n_sum, sum: scale * n_sum as f32 }
}

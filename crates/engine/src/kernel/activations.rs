//! Rows of activations, quantised.

use super::{BLOCK, Lanes, ROUNDER, isa, vectorised};

/// Weight of a coarse quant in fine ones, as a shift.
pub(super) const COARSE_BITS: u32 = 7;
/// Largest quant: 127 coarse ones.
pub(super) const MAX_QUANT: f32 = (127 << COARSE_BITS) as f32;

/// Rows of activations, as they are and quantised to about 15 bits: per 32 values a scale, sums, and for each value a
/// coarse and a fine byte, value = scale · (128 · coarse + fine).
///
/// One byte, as in ggml's `block_q8_1`, is not enough to compare with anything: its rounding turns the smallest
/// difference in an earlier layer into noise of the size of the rounding itself. On SmolLM2-135M logits then differ
/// from the f32 run's by an NMSE of 1e-4 to 4e-3 (llama.cpp's own: up to 2e-3), and greedy continuations part at gaps
/// of up to 0.33 (`tests/fixtures`); with two bytes it is below 1e-6. Leaving the second byte out where it matters
/// least does not pay: an NMSE of 1e-6 still needs it in 84 blocks of 100, of 2e-5 in 46.
///
/// What a kernel reads of a block together, of up to 16 rows, lies together: rows come in groups of 16, the last of as
/// many as are left, and in a group the first block of each row comes before the second of any.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    /// `[n_rows, n_in]`.
    pub(crate) x: Vec<f32>,
    n_rows: usize,
    n_blocks: usize,
    /// `[group][n_blocks][row of the group]`, as are the others.
    quants: Vec<Quants>,
    /// The same quants as words, where a kernel takes them so.
    words: Vec<Words>,
    scales: Vec<f32>,
    /// Sums of the values that the quants stand for.
    sums: Vec<f32>,
    /// The same for the first and the second half of a block.
    half_sums: Vec<[f32; 2]>,
}

/// Rows in a group: what a tile holds.
pub(crate) const N_GROUPED: usize = 16;

/// A block's quants: coarse ones, then fine ones.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Quants(pub(super) [[i8; BLOCK]; 2]);

/// A block's quants as words: of each four the first, the third, the second and the fourth.
///
/// Codes are four bytes of a row in a lane; as two words there are first the even ones of them, then the odd ones.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Words(pub(super) [i16; BLOCK]);

/// A group of rows, to be filled.
pub(crate) struct GroupMut<'a> {
    /// `[n_rows, n_in]`.
    pub(crate) x: &'a mut [f32],
    n_blocks: usize,
    quants: &'a mut [Quants],
    words: &'a mut [Words],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    half_sums: &'a mut [[f32; 2]],
}

/// Some rows of a group as kernels read them: block `b` of row `n` is at `b · stride + n`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) n_blocks: usize,
    pub(super) stride: usize,
    /// `[n_rows, n_in]`.
    pub(super) x: &'a [f32],
    pub(super) quants: &'a [Quants],
    pub(super) words: &'a [Words],
    pub(super) scales: &'a [f32],
    /// `S` numbers for each block.
    pub(super) sums: &'a [f32],
}

impl Activations {
    /// Makes room for `n_rows` rows of `n_in` values.
    ///
    /// Rows that are no whole number of blocks keep their values only and cannot be multiplied with panels.
    pub(crate) fn resize(&mut self, n_rows: usize, n_in: usize) {
        self.n_blocks = if n_in.is_multiple_of(BLOCK) { n_in / BLOCK } else { 0 };
        self.n_rows = n_rows;
        let n_blocks = n_rows * self.n_blocks;
        self.x.resize(n_rows * n_in, 0.0);
        self.quants.resize(n_blocks, Quants([[0; BLOCK]; 2]));
        self.scales.resize(n_blocks, 0.0);
        if needs_words() {
            self.words.resize(n_blocks, Words([0; BLOCK]));
        }
        self.sums.resize(n_blocks, 0.0);
        self.half_sums.resize(n_blocks, [0.0; 2]);
    }

    /// Returns the groups of rows, each to be filled and then quantised.
    pub(crate) fn groups_mut(&mut self) -> impl ExactSizeIterator<Item = GroupMut<'_>> {
        let (n_in, n_blocks) = (self.x.len() / self.n_rows.max(1), self.n_blocks);
        // Not `chunks_mut`, which makes nothing of nothing: where there are no blocks each group gets empty slices.
        let mut rest = (&mut self.quants[..], &mut self.words[..], &mut self.scales[..]);
        let mut rest_of_sums = (&mut self.sums[..], &mut self.half_sums[..]);
        self.x.chunks_mut((N_GROUPED * n_in).max(1)).map(move |x| {
            let n = x.len() / n_in * n_blocks;
            GroupMut {
                x,
                n_blocks,
                quants: rest.0.split_off_mut(..n).expect("blocks of each row"),
                words: rest.1.split_off_mut(..n.min(rest.1.len())).expect("blocks of each row, or none"),
                scales: rest.2.split_off_mut(..n).expect("blocks of each row"),
                sums: rest_of_sums.0.split_off_mut(..n).expect("blocks of each row"),
                half_sums: rest_of_sums.1.split_off_mut(..n).expect("blocks of each row"),
            }
        })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Returns `n` rows for a format with `n_scales` scales in a block.
    ///
    /// # Panics
    /// If there are not as many, or they are of two groups.
    pub(super) fn rows(&self, first: usize, n: usize, n_scales: usize) -> Rows<'_> {
        let (group, within) = (first / N_GROUPED * N_GROUPED, first % N_GROUPED);
        let stride = N_GROUPED.min(self.n_rows - group);
        assert!(within + n <= stride, "rows of two groups");
        let n_in = self.n_blocks * BLOCK;
        let blocks = group * self.n_blocks + within..(group + stride) * self.n_blocks;
        let sums = if n_scales == 1 {
            &self.sums[blocks.clone()]
        } else {
            self.half_sums[blocks.clone()].as_flattened()
        };
        Rows {
            n_blocks: self.n_blocks,
            stride,
            x: &self.x[first * n_in..(first + n) * n_in],
            quants: &self.quants[blocks.clone()],
            words: self.words.get(blocks.clone()).unwrap_or_default(),
            scales: &self.scales[blocks],
            sums,
        }
    }
}

impl GroupMut<'_> {
    /// Quantises `x`, after it was filled.
    pub(crate) fn quantise(self) {
        quantise_group(self);
    }
}

vectorised! {
    fn quantise_group<L>(group: GroupMut<'_>) {
        if group.n_blocks == 0 {
            return;
        }
        let (blocks, _) = group.x.as_chunks::<BLOCK>();
        for (row_idx, row) in blocks.chunks_exact(group.n_blocks).enumerate() {
            let n_rows = group.quants.len() / group.n_blocks;
            for (block_idx, x) in row.iter().enumerate() {
                let at = block_idx * n_rows + row_idx;
                let (scale, n_sums) = quantise_block::<L>(x, &mut group.quants[at]);
                group.scales[at] = scale;
                group.sums[at] = scale * (n_sums[0] + n_sums[1]) as f32;
                group.half_sums[at] = n_sums.map(|n_sum| scale * n_sum as f32);
                if let Some(words) = group.words.get_mut(at) {
                    *words = words_of(&group.quants[at]);
                }
            }
        }
    }
}

/// Returns whether some kernel of this process takes words: in tests all are tried.
fn needs_words() -> bool {
    cfg!(test) || isa().takes_words()
}

#[inline(always)]
fn words_of(Quants([coarse, fine]): &Quants) -> Words {
    let mut words = [0; BLOCK];
    for ((words, coarse), fine) in
        words.as_chunks_mut::<4>().0.iter_mut().zip(coarse.as_chunks::<4>().0).zip(fine.as_chunks::<4>().0)
    {
        for (word, idx) in words.iter_mut().zip([0, 2, 1, 3]) {
            *word = (i16::from(coarse[idx]) << COARSE_BITS) + i16::from(fine[idx]);
        }
    }
    Words(words)
}

/// Returns a block's scale and the sum of quants of each half.
#[inline(always)]
fn quantise_block<L: Lanes>(x: &[f32; BLOCK], Quants([coarse, fine]): &mut Quants) -> (f32, [i32; 2]) {
    let [low, high] = x.as_chunks().0 else { unreachable!("two halves of a block") };
    let (low, high) = (L::load(low), L::load(high));
    let (low_size, high_size) = (low.max(L::splat(0.0).sub(low)), high.max(L::splat(0.0).sub(high)));
    if !low_size.are_less(f32::INFINITY) || !high_size.are_less(f32::INFINITY) {
        // What is no number makes its row none, and not some number.
        (*coarse, *fine) = ([0; BLOCK], [0; BLOCK]);
        return (f32::NAN, [0; 2]);
    }
    let scale = low_size.max(high_size).largest() / MAX_QUANT;
    // A block of zeros, or so small that its scale has no inverse, is a block of zeros.
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
    let [coarse_low, coarse_high] = coarse.as_chunks_mut().0 else { unreachable!("two halves of a block") };
    let [fine_low, fine_high] = fine.as_chunks_mut().0 else { unreachable!("two halves of a block") };
    let inverse = L::splat(inverse);
    (
        scale,
        [quants(low.mul(inverse), coarse_low, fine_low), quants(high.mul(inverse), coarse_high, fine_high)],
    )
}

/// Rounds to quants, writes each as a coarse and a fine byte, and returns their sum.
#[inline(always)]
fn quants<L: Lanes>(x: L, coarse: &mut [i8; 16], fine: &mut [i8; 16]) -> i32 {
    let rounder = L::splat(ROUNDER);
    let quants = x.add(rounder).sub(rounder);
    let coarse_quants = quants.mul(L::splat(1.0 / (1 << COARSE_BITS) as f32)).add(rounder).sub(rounder);
    coarse_quants.store_bytes(coarse);
    let fine_quants = coarse_quants.mul_add(L::splat(-((1 << COARSE_BITS) as f32)), quants);
    fine_quants.store_bytes(fine);
    quants.sum_of_whole()
}

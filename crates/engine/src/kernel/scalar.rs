//! The specification: what every other variant must compute, bit by bit.

use super::activations::{COARSE_BITS, Rows};
use super::panels::{Block, LANE};
use super::{BLOCK, PANEL, Sums};

/// Adds the products of a panel's block with the same block of `N` rows to their sums.
pub(super) fn add_block<const N: usize, const S: usize>(
    block: &Block,
    rows: Rows<'_>,
    block_idx: usize,
    sums: &mut Sums<N>,
) {
    for (n, sums) in sums.iter_mut().enumerate() {
        let at = block_idx * rows.stride + n;
        let [coarse, fine] = &rows.quants[at].0;
        for part in 0..S {
            let mut dots = [0i32; PANEL];
            for idx in part * BLOCK / S..(part + 1) * BLOCK / S {
                let quant = (i32::from(coarse[idx]) << COARSE_BITS) + i32::from(fine[idx]);
                let (group, j) = (idx / LANE, idx % LANE);
                for (dot, lane) in dots.iter_mut().zip(block.codes[group].chunks_exact(LANE)) {
                    *dot += i32::from(lane[j]) * quant;
                }
            }
            for (row, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                *sum = (dot as f32).mul_add(block.scales[part][row] * rows.scales[at], *sum);
                *sum = block.mins[part][row].mul_add(rows.sums[at * S + part], *sum);
            }
        }
    }
}

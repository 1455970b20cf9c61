//! The specification: what every other variant must compute, bit by bit.

use super::panels::{LANE, Layout, N_GROUPS, codes, half};
use super::{BLOCK, COARSE, Format, PANEL, Row, Sums};

/// Returns the sums of one panel for each row of activations.
pub(super) fn panel<const N: usize>(format: Format, panel: &[u8], rows: &[Row<'_>; N]) -> Sums<N> {
    let layout = Layout::of(format);
    let mut sums = [[0.0f32; PANEL]; N];
    for (block_idx, block) in panel.chunks_exact(layout.n_bytes).enumerate() {
        let codes = codes(format, layout, block);
        for (row, sums) in rows.iter().zip(&mut sums) {
            let quants = &row.quants[block_idx * 2 * BLOCK..(block_idx + 1) * 2 * BLOCK];
            let dots = dots(&codes, quants);
            let known = &row.blocks[block_idx];
            for (panel_row, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                let dot = dot - format.zero() * known.n_sum;
                *sum = (dot as f32).mul_add(half(block, panel_row).to_f32() * known.scale, *sum);
                if format.has_min() {
                    *sum = half(&block[layout.mins..], panel_row).to_f32().mul_add(known.sum, *sum);
                }
            }
        }
    }
    sums
}

/// Returns the sums of products of a block's codes with its quants, for each row of the panel.
fn dots(codes: &[[u8; PANEL * LANE]; N_GROUPS], quants: &[i8]) -> [i32; PANEL] {
    let (coarse, fine) = quants.split_at(BLOCK);
    let mut dots = [0; PANEL];
    for (idx, (coarse, fine)) in coarse.iter().zip(fine).enumerate() {
        let quant = COARSE * i32::from(*coarse) + i32::from(*fine);
        for (dot, lane) in dots.iter_mut().zip(codes[idx / LANE].chunks_exact(LANE)) {
            *dot += i32::from(lane[idx % LANE]) * quant;
        }
    }
    dots
}

//! The specification: what every other variant must compute.

use half::f16;

use super::{BLOCK, COARSE, Format, Row};

/// Returns the dot product of one weight row with one row of activations.
pub(super) fn dot(format: Format, weights: &[u8], row: Row<'_>) -> f32 {
    let mut total = 0.0;
    for (idx, block) in weights.chunks_exact(format.block_bytes()).enumerate() {
        let (coarse, fine) = row.quants[idx * 2 * BLOCK..(idx + 1) * 2 * BLOCK].split_at(BLOCK);
        let quants: [i32; BLOCK] =
            std::array::from_fn(|at| COARSE * i32::from(coarse[at]) + i32::from(fine[at]));
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        match format {
            Format::Q4_1 => {
                let min = f16::from_le_bytes([block[2], block[3]]).to_f32();
                let (low, high) = quants.split_at(BLOCK / 2);
                let sum: i32 = block[4..]
                    .iter()
                    .zip(low.iter().zip(high))
                    .map(|(byte, (low, high))| i32::from(byte & 15) * low + i32::from(byte >> 4) * high)
                    .sum();
                total += scale * row.scales[idx] * sum as f32 + min * row.sums[idx];
            }
            Format::Q8_0 => {
                let sum: i32 = block[2..].iter().zip(quants).map(|(w, q)| i32::from(*w as i8) * q).sum();
                total += scale * row.scales[idx] * sum as f32;
            }
        }
    }
    total
}

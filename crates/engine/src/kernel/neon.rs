//! aarch64 with dot products of bytes: a panel's 16 rows are four times 4 lanes.
//!
//! rustc's intrinsics for `sdot` are unstable, so it is written as assembly.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::activations::{COARSE_BITS, Rows};
use super::panels::{Block, LANE, N_GROUPS, unpack};
use super::{BLOCK, Format, PANEL, Sums, prefetch};

/// Lanes of a register.
const LANES: usize = 4;
/// Registers for a panel's rows.
pub(super) const N_QUARTERS: usize = PANEL / LANES;
/// Rows whose dot products are kept in registers together.
const N_TOGETHER: usize = 4;

/// Returns whether these kernels run here.
pub(super) fn is_here() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Returns the sums of a packed panel for `N` rows.
///
/// # Safety
/// The machine has dot products of bytes, and `rows` was checked for `N` and `S`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn packed<const F: usize, const S: usize, const N: usize>(
    panel: &[u8],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    let mut block = Block::EMPTY;
    for block_idx in 0..rows.n_blocks {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, &mut block);
        // SAFETY: the caller has checked the rows.
        unsafe { add_block::<F, N, S>(&block, rows, block_idx, &mut sums) };
    }
    sums
}

/// Returns the sums of a panel's blocks for `N` rows.
///
/// # Safety
/// As [`packed`].
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn unpacked<const F: usize, const S: usize, const N: usize>(
    blocks: &[Block],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    for (block_idx, block) in blocks.iter().enumerate() {
        // SAFETY: the caller has checked the rows.
        unsafe { add_block::<F, N, S>(block, rows, block_idx, &mut sums) };
    }
    sums
}

/// Returns whether codes are too large for signed bytes: they are then multiplied less 128.
const fn is_signed(format_idx: usize) -> bool {
    Format::QUANTISED[format_idx].n_bits() == 8
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add_block<const F: usize, const N: usize, const S: usize>(
    block: &Block,
    rows: Rows<'_>,
    block_idx: usize,
    sums: &mut Sums<N>,
) {
    for part in 0..S {
        for first in (0..N).step_by(N_TOGETHER) {
            let n = N_TOGETHER.min(N - first);
            // SAFETY: the caller has checked that there are quants, a scale and sums for each row and block.
            unsafe {
                let at = block_idx * rows.stride + first;
                let quants = rows.quants.as_ptr().add(at).cast::<i8>();
                let mut dots = [[vdupq_n_s32(0); N_QUARTERS]; N_TOGETHER];
                multiply::<F, S>(block, part, quants, n, &mut dots);
                for dots in dots.as_flattened_mut() {
                    *dots = vshlq_n_s32::<{ COARSE_BITS as i32 }>(*dots);
                }
                multiply::<F, S>(block, part, quants.add(BLOCK), n, &mut dots);
                for (idx, mut dots) in dots.into_iter().enumerate().take(n) {
                    if is_signed(F) {
                        let quants = quants.add(idx * 2 * BLOCK + part * BLOCK / S);
                        let less = vdupq_n_s32(128 * sum_of_part::<S>(quants));
                        dots = dots.map(|dots| vaddq_s32(dots, less));
                    }
                    add_dots::<S>(block, part, dots, rows, at + idx, &mut sums[first + idx]);
                }
            }
        }
    }
}

/// Adds dot products of codes and quants to the sums of a row, in what they stand for; `at` is the row's block.
///
/// # Safety
/// There are a scale and sums at `at`.
#[inline(always)]
pub(super) unsafe fn add_dots<const S: usize>(
    block: &Block,
    part: usize,
    dots: [int32x4_t; N_QUARTERS],
    rows: Rows<'_>,
    at: usize,
    sums: &mut [f32; PANEL],
) {
    // SAFETY: a quarter of a line is 4 floats; the caller says that there are a scale and sums.
    unsafe {
        let scale = *rows.scales.get_unchecked(at);
        let sum = *rows.sums.get_unchecked(at * S + part);
        for (quarter, dots) in dots.into_iter().enumerate() {
            let line = quarter * LANES;
            let place = sums.as_mut_ptr().add(line);
            let factors = vmulq_n_f32(vld1q_f32(block.scales[part].as_ptr().add(line)), scale);
            let with_dots = vfmaq_f32(vld1q_f32(place), vcvtq_f32_s32(dots), factors);
            let mins = vld1q_f32(block.mins[part].as_ptr().add(line));
            vst1q_f32(place, vfmaq_n_f32(with_dots, mins, sum));
        }
    }
}

/// Adds the dot products of one part of a block of codes with the coarse, or fine, quants of `n` rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply<const F: usize, const S: usize>(
    block: &Block,
    part: usize,
    quants: *const i8,
    n: usize,
    dots: &mut [[int32x4_t; N_QUARTERS]; N_TOGETHER],
) {
    /// Groups whose quants fill a register.
    const N_IN_REGISTER: usize = 16 / LANE;
    let first = part * N_GROUPS / S;
    for from in (first..first + N_GROUPS / S).step_by(N_IN_REGISTER) {
        // SAFETY: a group is 64 bytes; the caller's rows have quants, 64 bytes from row to row.
        unsafe {
            let mut of_rows = [vdupq_n_s8(0); N_TOGETHER];
            for (idx, of_row) in of_rows.iter_mut().enumerate().take(n) {
                *of_row = vld1q_s8(quants.add(idx * 2 * BLOCK + from * LANE));
            }
            for quarter in 0..N_QUARTERS {
                let code = |group: usize| {
                    let codes = vld1q_u8(block.codes[group].as_ptr().add(quarter * 16));
                    vreinterpretq_s8_u8(if is_signed(F) { veorq_u8(codes, vdupq_n_u8(0x80)) } else { codes })
                };
                let codes = [code(from), code(from + 1), code(from + 2), code(from + 3)];
                for (dots, of_row) in dots.iter_mut().zip(of_rows).take(n) {
                    asm!(
                        "sdot {sum:v}.4s, {a:v}.16b, {quants:v}.4b[0]",
                        "sdot {sum:v}.4s, {b:v}.16b, {quants:v}.4b[1]",
                        "sdot {sum:v}.4s, {c:v}.16b, {quants:v}.4b[2]",
                        "sdot {sum:v}.4s, {d:v}.16b, {quants:v}.4b[3]",
                        sum = inout(vreg) dots[quarter],
                        a = in(vreg) codes[0],
                        b = in(vreg) codes[1],
                        c = in(vreg) codes[2],
                        d = in(vreg) codes[3],
                        quants = in(vreg) of_row,
                        options(pure, nomem, nostack),
                    );
                }
            }
        }
    }
}

/// Returns the sum of one row's quants in one part of a block.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sum_of_part<const S: usize>(quants: *const i8) -> i32 {
    let mut sum = 0;
    for at in (0..BLOCK / S).step_by(16) {
        // SAFETY: the caller's part has as many coarse quants, and as many fine ones a block of bytes behind.
        let (coarse, fine) = unsafe { (vld1q_s8(quants.add(at)), vld1q_s8(quants.add(BLOCK + at))) };
        sum += (i32::from(vaddlvq_s8(coarse)) << COARSE_BITS) + i32::from(vaddlvq_s8(fine));
    }
    sum
}

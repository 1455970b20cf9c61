//! aarch64 with products of matrices of bytes: 2 rows of weights by 2 of activations, 8 values each.
//!
//! In: blocks whose groups were [`pair`]ed, once for all rows, so that 8 codes of a row lie together. Codes are
//! unsigned and quants signed, as the instructions want them. One row of a packed panel takes codes as they are
//! unpacked, in dot products of 4 values: pairing them would cost as many instructions as it saves.
//!
//! rustc's intrinsics for `usmmla` and `usdot` are unstable, so they are written as assembly.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::activations::{COARSE_BITS, Rows};
use super::neon::{N_QUARTERS, add_dots};
use super::panels::{Block, LANE, N_GROUPS, unpack};
use super::{BLOCK, PANEL, Sums, prefetch};

/// Bytes of a register.
const REGISTER: usize = 16;
/// Registers for a pair of groups: each holds two of a panel's rows.
const N_TWOS: usize = PANEL / 2;
/// Rows whose products are kept in registers together.
const N_TOGETHER: usize = 4;

/// Products of the rows of a panel with a pair of rows, two by two: `[[w0·a0, w0·a1, w1·a0, w1·a1], …]`.
type Products = [int32x4_t; N_TWOS];
/// Dot products of the rows of a panel with one row.
type Dots = [int32x4_t; N_QUARTERS];

/// Does something for each [`N_TWOS`], without a loop: what is indexed then stays in registers.
macro_rules! for_twos {
    (|$two:ident| $do:expr) => { for_twos!(@each $two, $do, 0, 1, 2, 3, 4, 5, 6, 7) };
    (@each $two:ident, $do:expr, $($at:literal),*) => { $({ const $two: usize = $at; $do; })* };
}

/// Returns whether these kernels run here.
pub(super) fn is_here() -> bool {
    std::arch::is_aarch64_feature_detected!("i8mm")
}

/// Returns the sums of a packed panel for `N` rows.
///
/// # Safety
/// The machine has products of matrices of bytes, and `rows` was checked for `N` and `S`.
#[target_feature(enable = "neon,i8mm")]
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
        unsafe {
            if N == 1 {
                add_block_of_one::<S>(&block, rows, block_idx, &mut sums[0]);
            } else {
                pair(&mut block);
                add_block::<N, S>(&block, rows, block_idx, &mut sums);
            }
        }
    }
    sums
}

/// Returns the sums of a panel's paired blocks for `N` rows.
///
/// # Safety
/// As [`packed`].
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn unpacked<const S: usize, const N: usize>(blocks: &[Block], rows: Rows<'_>) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    for (block_idx, block) in blocks.iter().enumerate() {
        // SAFETY: the caller has checked the rows.
        unsafe { add_block::<N, S>(block, rows, block_idx, &mut sums) };
    }
    sums
}

/// Unpacks a panel and pairs the groups of its blocks.
///
/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack_all<const F: usize, const S: usize>(panel: &[u8], blocks: &mut [Block]) {
    for (block_idx, block) in blocks.iter_mut().enumerate() {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, block);
        // SAFETY: the caller's.
        unsafe { pair(block) };
    }
}

/// Turns a block's codes from `[group][row][4]` to `[pair of groups][row][8]`.
#[inline(always)]
unsafe fn pair(block: &mut Block) {
    for [even, odd] in block.codes.as_chunks_mut().0 {
        // SAFETY: a group is as many registers as there are quarters.
        unsafe {
            let four_of_each = |group: *const u8| -> [uint32x4_t; N_QUARTERS] {
                std::array::from_fn(|quarter| vreinterpretq_u32_u8(vld1q_u8(group.add(quarter * REGISTER))))
            };
            let (first, second) = (four_of_each(even.as_ptr()), four_of_each(odd.as_ptr()));
            for (two, to) in [even, odd].into_iter().flat_map(|group| group.as_chunks_mut().0).enumerate() {
                let (first, second) = (first[two / 2], second[two / 2]);
                let both = if two % 2 == 0 { vzip1q_u32(first, second) } else { vzip2q_u32(first, second) };
                let to: &mut [u8; REGISTER] = to;
                vst1q_u8(to.as_mut_ptr(), vreinterpretq_u8_u32(both));
            }
        }
    }
}

/// Adds the products of a panel's paired block with the same block of `N` rows to their sums.
#[inline(always)]
unsafe fn add_block<const N: usize, const S: usize>(
    block: &Block,
    rows: Rows<'_>,
    block_idx: usize,
    sums: &mut Sums<N>,
) {
    const { assert!(0 < N && N <= 2 * N_TOGETHER) };
    let at = block_idx * rows.stride;
    let first = (N - 1) / N_TOGETHER * N_TOGETHER;
    let (before, sums) = sums.split_at_mut(first);
    for part in 0..S {
        // SAFETY: the caller has checked the rows.
        unsafe {
            // None where all rows are among the last.
            if let Some(sums) = before.first_chunk_mut() {
                add_rows::<N_TOGETHER, S>(block, part, rows, at, sums);
            }
            let at = at + first;
            match N - first {
                1 => add_rows::<1, S>(block, part, rows, at, sums.first_chunk_mut().expect("a row")),
                2 => add_rows::<2, S>(block, part, rows, at, sums.first_chunk_mut().expect("2 rows")),
                3 => add_rows::<3, S>(block, part, rows, at, sums.first_chunk_mut().expect("3 rows")),
                _ => add_rows::<4, S>(block, part, rows, at, sums.first_chunk_mut().expect("4 rows")),
            }
        }
    }
}

/// The same for one part and at most [`N_TOGETHER`] rows, the first of whose blocks is at `at`; compiled once for all
/// formats.
#[target_feature(enable = "neon,i8mm")]
unsafe fn add_rows<const R: usize, const S: usize>(
    block: &Block,
    part: usize,
    rows: Rows<'_>,
    at: usize,
    sums: &mut [[f32; PANEL]; R],
) {
    // SAFETY: the caller has checked that there are quants, a scale and sums for each row and block.
    unsafe {
        let quants = rows.quants.as_ptr().add(at).cast::<i8>().add(part * BLOCK / S);
        let dots = dots::<R, S>(block, part, quants);
        for (idx, sums) in sums.iter_mut().enumerate() {
            add_dots::<S>(block, part, dots[idx / 2][idx % 2], rows, at + idx, sums);
        }
    }
}

/// Returns the dot products of one part of a paired block with that of `R` rows, whose quants are a block apart.
#[inline(always)]
unsafe fn dots<const R: usize, const S: usize>(
    block: &Block,
    part: usize,
    quants: *const i8,
) -> [[Dots; 2]; 2] {
    // SAFETY: the caller has `R` rows of quants, 32 coarse and 32 fine ones each.
    unsafe {
        let codes = block.codes.as_ptr().cast::<u8>().add(part * BLOCK / S * PANEL);
        let row = |idx: usize| quants.add(idx * 2 * BLOCK);
        let none = [[vdupq_n_s32(0); N_TWOS]; 2];
        // Coarse quants of two rows, and then their fine ones; of a row left over both at once, as if they were two.
        let mut products = match R {
            1 => multiply::<1, S>(codes, [[row(0), row(0).add(BLOCK)]; 2], none),
            2 => multiply::<1, S>(codes, [[row(0), row(1)]; 2], none),
            3 => multiply::<2, S>(codes, [[row(0), row(1)], [row(2), row(2).add(BLOCK)]], none),
            _ => multiply::<2, S>(codes, [[row(0), row(1)], [row(2), row(3)]], none),
        };
        if R >= 2 {
            for_twos!(|TWO| products[0][TWO] = vshlq_n_s32::<{ COARSE_BITS as i32 }>(products[0][TWO]));
        }
        if R >= 4 {
            for_twos!(|TWO| products[1][TWO] = vshlq_n_s32::<{ COARSE_BITS as i32 }>(products[1][TWO]));
        }
        let row = |idx: usize| quants.add(idx * 2 * BLOCK + BLOCK);
        products = match R {
            1 => products,
            2 | 3 => multiply::<1, S>(codes, [[row(0), row(1)]; 2], products),
            _ => multiply::<2, S>(codes, [[row(0), row(1)], [row(2), row(3)]], products),
        };
        let mut dots = [apart(&products[0]), apart(&products[1])];
        if R % 2 == 1 {
            let [coarse, fine] = dots[R / 2];
            dots[R / 2][0] = whole(coarse, fine);
        }
        dots
    }
}

/// Adds the products of one part of a paired block with the first `P` pairs of rows.
#[inline(always)]
unsafe fn multiply<const P: usize, const S: usize>(
    codes: *const u8,
    pairs: [[*const i8; 2]; 2],
    mut products: [Products; 2],
) -> [Products; 2] {
    for from in (0..BLOCK / S).step_by(REGISTER) {
        // SAFETY: 8 codes of each row are as many registers as twos, and the caller's rows have quants for all codes.
        unsafe {
            let ([a, b], [c, d]) = (quants_of(pairs[0], from), quants_of(pairs[1], from));
            let codes = codes.add(from * PANEL);
            for_twos!(|TWO| multiply_two::<P, TWO>(codes, [a, c], &mut products));
            let codes = codes.add(N_TWOS * REGISTER);
            for_twos!(|TWO| multiply_two::<P, TWO>(codes, [b, d], &mut products));
        }
    }
    products
}

/// Returns 8 quants of both rows of a pair, and the 8 after them.
#[inline(always)]
unsafe fn quants_of([first, second]: [*const i8; 2], from: usize) -> [int64x2_t; 2] {
    // SAFETY: the caller's rows have as many.
    unsafe {
        let (first, second) = (vld1q_s64(first.add(from).cast()), vld1q_s64(second.add(from).cast()));
        [vzip1q_s64(first, second), vzip2q_s64(first, second)]
    }
}

/// Adds the products of 8 codes of two of a panel's rows with 8 quants of each row of `P` pairs.
#[inline(always)]
unsafe fn multiply_two<const P: usize, const TWO: usize>(
    codes: *const u8,
    quants: [int64x2_t; 2],
    products: &mut [Products; 2],
) {
    // SAFETY: there are codes of all of a panel's rows, and the caller says that the instruction is here.
    unsafe {
        let codes = vld1q_u8(codes.add(TWO * REGISTER));
        let add = |sum: &mut int32x4_t, quants: int64x2_t| {
            asm!(
                "usmmla {sum:v}.4s, {codes:v}.16b, {quants:v}.16b",
                sum = inout(vreg) *sum,
                codes = in(vreg) codes,
                quants = in(vreg) quants,
                options(pure, nomem, nostack, preserves_flags),
            );
        };
        add(&mut products[0][TWO], quants[0]);
        if P > 1 {
            add(&mut products[1][TWO], quants[1]);
        }
    }
}

/// Returns the products with the first row of a pair, and those with the second.
#[inline(always)]
unsafe fn apart(products: &Products) -> [Dots; 2] {
    let [a, b, c, d, e, f, g, h] = *products;
    // SAFETY: every aarch64 has NEON.
    unsafe {
        [
            [vuzp1q_s32(a, b), vuzp1q_s32(c, d), vuzp1q_s32(e, f), vuzp1q_s32(g, h)],
            [vuzp2q_s32(a, b), vuzp2q_s32(c, d), vuzp2q_s32(e, f), vuzp2q_s32(g, h)],
        ]
    }
}

/// Returns the dot products with whole quants.
#[inline(always)]
unsafe fn whole(coarse: Dots, fine: Dots) -> Dots {
    // SAFETY: every aarch64 has NEON.
    let whole = |at: usize| unsafe { vaddq_s32(vshlq_n_s32::<{ COARSE_BITS as i32 }>(coarse[at]), fine[at]) };
    [whole(0), whole(1), whole(2), whole(3)]
}

/// Adds the products of a panel's block, as it was unpacked, with the same block of one row to its sums.
#[inline(always)]
unsafe fn add_block_of_one<const S: usize>(
    block: &Block,
    rows: Rows<'_>,
    block_idx: usize,
    sums: &mut [f32; PANEL],
) {
    let at = block_idx * rows.stride;
    for part in 0..S {
        // SAFETY: a group is as many registers as there are quarters; the caller has checked that there are quants, a
        // scale and sums for each row and block.
        unsafe {
            let (mut coarse, mut fine) = ([vdupq_n_s32(0); N_QUARTERS], [vdupq_n_s32(0); N_QUARTERS]);
            let quants = rows.quants.as_ptr().add(at).cast::<i8>();
            for from in (part * N_GROUPS / S..(part + 1) * N_GROUPS / S).step_by(REGISTER / LANE) {
                let coarse_quants = vld1q_s8(quants.add(from * LANE));
                let fine_quants = vld1q_s8(quants.add(from * LANE + BLOCK));
                for quarter in 0..N_QUARTERS {
                    let codes = |group: usize| vld1q_u8(block.codes[group].as_ptr().add(quarter * REGISTER));
                    asm!(
                        "usdot {coarse:v}.4s, {a:v}.16b, {coarse_quants:v}.4b[0]",
                        "usdot {fine:v}.4s, {a:v}.16b, {fine_quants:v}.4b[0]",
                        "usdot {coarse:v}.4s, {b:v}.16b, {coarse_quants:v}.4b[1]",
                        "usdot {fine:v}.4s, {b:v}.16b, {fine_quants:v}.4b[1]",
                        "usdot {coarse:v}.4s, {c:v}.16b, {coarse_quants:v}.4b[2]",
                        "usdot {fine:v}.4s, {c:v}.16b, {fine_quants:v}.4b[2]",
                        "usdot {coarse:v}.4s, {d:v}.16b, {coarse_quants:v}.4b[3]",
                        "usdot {fine:v}.4s, {d:v}.16b, {fine_quants:v}.4b[3]",
                        coarse = inout(vreg) coarse[quarter],
                        fine = inout(vreg) fine[quarter],
                        a = in(vreg) codes(from),
                        b = in(vreg) codes(from + 1),
                        c = in(vreg) codes(from + 2),
                        d = in(vreg) codes(from + 3),
                        coarse_quants = in(vreg) coarse_quants,
                        fine_quants = in(vreg) fine_quants,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
            add_dots::<S>(block, part, whole(coarse, fine), rows, at, sums);
        }
    }
}

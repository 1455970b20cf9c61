//! x86-64 with AVX-512 VNNI: a panel's 16 rows are the 16 lanes.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::x86_64::*;

use super::activations::{COARSE_BITS, Rows};
use super::panels::{Block, N_GROUPS, unpack};
use super::{PANEL, Sums, prefetch};

/// Most rows whose coarse and fine products are added up apart; of more there are enough sums on their way at once, and
/// no registers.
const N_APART: usize = 4;

/// Returns the sums of a packed panel for `N` rows.
///
/// # Safety
/// The machine has AVX-512 VNNI, and `rows` was checked for `N` and `S`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed<const F: usize, const S: usize, const N: usize>(
    panel: &[u8],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [_mm512_setzero_ps(); N];
    let mut block = Block::EMPTY;
    for block_idx in 0..rows.n_blocks {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, &mut block);
        // SAFETY: the caller has checked the rows.
        unsafe { add_block::<N, S>(&block, rows, block_idx, &mut sums) };
    }
    stored(sums)
}

/// Returns the sums of a panel's blocks for `N` rows.
///
/// # Safety
/// As [`packed`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn unpacked<const S: usize, const N: usize>(blocks: &[Block], rows: Rows<'_>) -> Sums<N> {
    let mut sums = [_mm512_setzero_ps(); N];
    for (block_idx, block) in blocks.iter().enumerate() {
        // SAFETY: the caller has checked the rows.
        unsafe { add_block::<N, S>(block, rows, block_idx, &mut sums) };
    }
    stored(sums)
}

/// Unpacks a panel.
///
/// # Safety
/// As [`packed`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn unpack_all<const F: usize, const S: usize>(panel: &[u8], blocks: &mut [Block]) {
    for (block_idx, block) in blocks.iter_mut().enumerate() {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, block);
    }
}

/// Adds the products of a panel's block with the same block of `N` rows to their sums.
#[inline(always)]
unsafe fn add_block<const N: usize, const S: usize>(
    block: &Block,
    rows: Rows<'_>,
    block_idx: usize,
    sums: &mut [__m512; N],
) {
    // All in registers, as they come out of unpacking, where there are enough.
    // SAFETY: a group is 64 bytes, aligned as the block is; the caller says that the instructions are here.
    let mut codes = unsafe { [_mm512_setzero_si512(); N_GROUPS] };
    for (codes, group) in codes.iter_mut().zip(&block.codes) {
        // SAFETY: as above.
        *codes = unsafe { _mm512_load_si512(group.as_ptr().cast()) };
    }
    for part in 0..S {
        // SAFETY: the caller has checked that there are quants for each row and block, 16 times 4 bytes each.
        unsafe {
            let first = part * N_GROUPS / S;
            let at = block_idx * rows.stride;
            let quants = rows.quants.as_ptr().add(at).cast::<i32>();
            // 128 · coarse + fine; at most 255 · 127 · 32 · 128 in a lane, which fits.
            let dots = if N <= N_APART {
                let coarse = dots::<N, S>([_mm512_setzero_si512(); N], &codes, first, quants);
                let fine = dots::<N, S>([_mm512_setzero_si512(); N], &codes, first, quants.add(N_GROUPS));
                let mut both = fine;
                for (both, coarse) in both.iter_mut().zip(coarse) {
                    *both = _mm512_add_epi32(_mm512_slli_epi32::<COARSE_BITS>(coarse), *both);
                }
                both
            } else {
                let mut coarse = dots::<N, S>([_mm512_setzero_si512(); N], &codes, first, quants);
                for coarse in &mut coarse {
                    *coarse = _mm512_slli_epi32::<COARSE_BITS>(*coarse);
                }
                dots::<N, S>(coarse, &codes, first, quants.add(N_GROUPS))
            };
            for (n, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                add_dots::<S>(block, part, dots, rows, at + n, sums);
            }
        }
    }
}

/// Adds the dot products of one part of a block of codes with `N` rows, whose quants are a block apart.
#[inline(always)]
unsafe fn dots<const N: usize, const S: usize>(
    mut dots: [__m512i; N],
    codes: &[__m512i; N_GROUPS],
    first: usize,
    quants: *const i32,
) -> [__m512i; N] {
    // The groups outside, the rows inside: all sums stay in registers.
    for (group, &codes) in codes.iter().enumerate().skip(first).take(N_GROUPS / S) {
        for (n, dots) in dots.iter_mut().enumerate() {
            // SAFETY: the caller's rows have quants, 16 times 4 bytes each.
            unsafe {
                let quants = quants.add(n * 2 * N_GROUPS + group).read();
                *dots = _mm512_dpbusd_epi32(*dots, codes, _mm512_set1_epi32(quants));
            }
        }
    }
    dots
}

/// Adds dot products of codes and quants to the sums of a row, in what they stand for; `at` is the row's block.
#[inline(always)]
pub(super) unsafe fn add_dots<const S: usize>(
    block: &Block,
    part: usize,
    dots: __m512i,
    rows: Rows<'_>,
    at: usize,
    sums: &mut __m512,
) {
    // SAFETY: a line is 16 floats, aligned as the block is; the caller has checked the rows.
    unsafe {
        let scales = _mm512_load_ps(block.scales[part].as_ptr());
        let mins = _mm512_load_ps(block.mins[part].as_ptr());
        let factors = _mm512_mul_ps(scales, _mm512_set1_ps(*rows.scales.get_unchecked(at)));
        *sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), factors, *sums);
        *sums = _mm512_fmadd_ps(mins, _mm512_set1_ps(*rows.sums.get_unchecked(at * S + part)), *sums);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn stored<const N: usize>(sums: [__m512; N]) -> Sums<N> {
    let mut out = [[0.0; PANEL]; N];
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: `out` is 16 floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
    }
    out
}

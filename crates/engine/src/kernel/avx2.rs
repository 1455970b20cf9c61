//! x86-64 with AVX2, with dot products of words or without: a panel's 16 rows are twice 8 lanes.
//!
//! Codes are widened to words and quants taken whole: with bytes there would be two products, and AVX2 has only such
//! that do not fit two large ones in 16 bits.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::x86_64::*;

use super::activations::Rows;
use super::panels::{Block, N_GROUPS, unpack};
use super::{PANEL, Sums, prefetch};

/// Lanes of a register.
const LANES: usize = 8;

/// How words are multiplied.
pub(super) trait WordDots {
    /// Adds to each of 8 lanes the products of its two codes with its two quants.
    ///
    /// # Safety
    /// The machine has what this needs.
    unsafe fn add(sums: __m256i, codes: __m256i, quants: __m256i) -> __m256i;
}

/// With instructions of AVX2.
pub(super) struct Avx2;

/// With those of AVX-VNNI.
pub(super) struct AvxVnni;

impl WordDots for Avx2 {
    #[inline(always)]
    unsafe fn add(sums: __m256i, codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(codes, quants)) }
    }
}

impl WordDots for AvxVnni {
    #[inline(always)]
    unsafe fn add(sums: __m256i, codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpwssd_avx_epi32(sums, codes, quants) }
    }
}

/// Defines a variant's functions: the same code, compiled for its instructions.
macro_rules! variant {
    ($name:ident, $dots:ty, $features:literal) => {
        pub(super) mod $name {
            use super::*;

            /// Returns the sums of a packed panel for `N` rows.
            ///
            /// # Safety
            /// The machine has the features, and `rows` was checked for `N` and `S`.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn packed<const F: usize, const S: usize, const N: usize>(
                panel: &[u8],
                rows: Rows<'_>,
            ) -> Sums<N> {
                // SAFETY: the caller's.
                unsafe { packed_with::<$dots, F, S, N>(panel, rows) }
            }

            /// Returns the sums of a panel's blocks for `N` rows.
            ///
            /// # Safety
            /// As [`packed`].
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn unpacked<const S: usize, const N: usize>(
                blocks: &[Block],
                rows: Rows<'_>,
            ) -> Sums<N> {
                // SAFETY: the caller's.
                unsafe { unpacked_with::<$dots, S, N>(blocks, rows) }
            }
        }
    };
}

variant!(avx2, Avx2, "avx2,fma,f16c");
variant!(avx_vnni, AvxVnni, "avx2,fma,f16c,avxvnni");

/// Unpacks a panel.
///
/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn unpack_all<const F: usize, const S: usize>(panel: &[u8], blocks: &mut [Block]) {
    for (block_idx, block) in blocks.iter_mut().enumerate() {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, block);
    }
}

#[inline(always)]
unsafe fn packed_with<D: WordDots, const F: usize, const S: usize, const N: usize>(
    panel: &[u8],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    let mut block = Block::EMPTY;
    for block_idx in 0..rows.n_blocks {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, &mut block);
        // SAFETY: the caller's.
        unsafe { add_block::<D, N, S>(&block, rows, block_idx, &mut sums) };
    }
    sums
}

#[inline(always)]
unsafe fn unpacked_with<D: WordDots, const S: usize, const N: usize>(
    blocks: &[Block],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    for (block_idx, block) in blocks.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { add_block::<D, N, S>(block, rows, block_idx, &mut sums) };
    }
    sums
}

/// Adds the products of a panel's block with the same block of `N` rows to their sums, which stay in memory: 16
/// registers are too few.
#[inline(always)]
unsafe fn add_block<D: WordDots, const N: usize, const S: usize>(
    block: &Block,
    rows: Rows<'_>,
    block_idx: usize,
    sums: &mut Sums<N>,
) {
    for part in 0..S {
        for half in 0..PANEL / LANES {
            // SAFETY: half a group is 32 bytes, half a line 8 floats; the caller has checked that there are quants, a
            // scale and sums for each row and block.
            unsafe {
                let mut dots = [_mm256_setzero_si256(); N];
                for group in part * N_GROUPS / S..(part + 1) * N_GROUPS / S {
                    let codes = _mm256_load_si256(block.codes[group].as_ptr().add(half * 4 * LANES).cast());
                    let even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
                    let odd = _mm256_srli_epi16::<8>(codes);
                    for (n, dots) in dots.iter_mut().enumerate() {
                        let words =
                            rows.words.as_ptr().add(block_idx * rows.stride + n).cast::<i32>().add(2 * group);
                        *dots = D::add(*dots, even, _mm256_set1_epi32(words.read()));
                        *dots = D::add(*dots, odd, _mm256_set1_epi32(words.add(1).read()));
                    }
                }
                let scales = _mm256_load_ps(block.scales[part].as_ptr().add(half * LANES));
                let mins = _mm256_load_ps(block.mins[part].as_ptr().add(half * LANES));
                for (n, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let at = block_idx * rows.stride + n;
                    let factors = _mm256_mul_ps(scales, _mm256_set1_ps(*rows.scales.get_unchecked(at)));
                    let sum = _mm256_set1_ps(*rows.sums.get_unchecked(at * S + part));
                    let place = sums.as_mut_ptr().add(half * LANES);
                    let with_dots =
                        _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), factors, _mm256_loadu_ps(place));
                    _mm256_storeu_ps(place, _mm256_fmadd_ps(mins, sum, with_dots));
                }
            }
        }
    }
}

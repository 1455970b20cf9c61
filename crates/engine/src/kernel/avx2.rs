//! x86-64 with AVX2: a panel's 16 rows are twice 8 lanes. With `VNNI` there are dot products of bytes besides.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::x86_64::*;

use super::activations::{COARSE_BITS, Rows};
use super::panels::{Block, N_GROUPS, unpack};
use super::{Format, PANEL, Sums, prefetch};

/// Lanes of a register.
const LANES: usize = 8;

/// How 8 rows' codes are multiplied with quants.
pub(super) trait ByteDots {
    /// Returns the sums of products of 8 rows' codes with one part of a block of quants.
    ///
    /// # Safety
    /// The machine has what this needs, and there are quants for as many groups as a part has.
    unsafe fn dot<const F: usize, const S: usize>(
        code: impl Fn(usize) -> __m256i,
        quants: *const i32,
    ) -> __m256i;

    /// Whether codes of this format are multiplied less 128.
    fn is_signed(format_idx: usize) -> bool;
}

/// With instructions of AVX2.
pub(super) struct Avx2;

/// With those of AVX-VNNI.
pub(super) struct AvxVnni;

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
            pub(in super::super) unsafe fn unpacked<const F: usize, const S: usize, const N: usize>(
                blocks: &[Block],
                rows: Rows<'_>,
            ) -> Sums<N> {
                // SAFETY: the caller's.
                unsafe { unpacked_with::<$dots, F, S, N>(blocks, rows) }
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
unsafe fn packed_with<D: ByteDots, const F: usize, const S: usize, const N: usize>(
    panel: &[u8],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    let mut block = Block::EMPTY;
    for block_idx in 0..rows.n_blocks {
        prefetch::<F>(panel, block_idx);
        unpack::<F, S>(panel, block_idx, &mut block);
        // SAFETY: the caller's.
        unsafe { add_block::<D, F, N, S>(&block, rows, block_idx, &mut sums) };
    }
    sums
}

#[inline(always)]
unsafe fn unpacked_with<D: ByteDots, const F: usize, const S: usize, const N: usize>(
    blocks: &[Block],
    rows: Rows<'_>,
) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    for (block_idx, block) in blocks.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { add_block::<D, F, N, S>(block, rows, block_idx, &mut sums) };
    }
    sums
}

/// Adds the products of a panel's block with the same block of `N` rows to their sums, which stay in memory: 16
/// registers are too few.
#[inline(always)]
unsafe fn add_block<D: ByteDots, const F: usize, const N: usize, const S: usize>(
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
                let code = |group: usize| {
                    let codes = block.codes[part * N_GROUPS / S + group].as_ptr();
                    _mm256_load_si256(codes.add(half * 4 * LANES).cast())
                };
                let scales = _mm256_load_ps(block.scales[part].as_ptr().add(half * LANES));
                let mins = _mm256_load_ps(block.mins[part].as_ptr().add(half * LANES));
                for (n, sums) in sums.iter_mut().enumerate() {
                    let at = block_idx * rows.stride + n;
                    let quants = rows.quants.as_ptr().add(at).cast::<i32>().add(part * N_GROUPS / S);
                    let coarse = D::dot::<F, S>(code, quants);
                    let fine = D::dot::<F, S>(code, quants.add(N_GROUPS));
                    let mut dots =
                        _mm256_add_epi32(_mm256_slli_epi32::<{ COARSE_BITS as i32 }>(coarse), fine);
                    if D::is_signed(F) {
                        dots =
                            _mm256_add_epi32(dots, _mm256_set1_epi32(128 * *rows.n_sums.get_unchecked(at)));
                    }
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

/// Returns how many groups' products, two in a sum already, fit 16 bits together.
const fn n_groups_in_16_bits(format_idx: usize) -> usize {
    let largest_code = (1 << Format::QUANTISED[format_idx].n_bits()) - 1;
    let n = (i16::MAX as usize) / (largest_code * 127 * 2);
    if n > 4 { 4 } else { n }
}

impl ByteDots for Avx2 {
    #[inline(always)]
    unsafe fn dot<const F: usize, const S: usize>(
        code: impl Fn(usize) -> __m256i,
        quants: *const i32,
    ) -> __m256i {
        // SAFETY: the caller has AVX2, and a quant for each code.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut sum = _mm256_setzero_si256();
            let mut pairs = _mm256_setzero_si256();
            for group in 0..N_GROUPS / S {
                let quant = _mm256_set1_epi32(quants.add(group).read());
                if Self::is_signed(F) {
                    // Unsigned times signed: the code's sign goes over to the quant. 128 · 127 · 2 fits 16 bits.
                    let codes = _mm256_xor_si256(code(group), _mm256_set1_epi8(-128));
                    let products =
                        _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(quant, codes));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
                    continue;
                }
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(code(group), quant));
                if (group + 1).is_multiple_of(const { n_groups_in_16_bits(F) }) {
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
                    pairs = _mm256_setzero_si256();
                }
            }
            sum
        }
    }

    fn is_signed(format_idx: usize) -> bool {
        Format::QUANTISED[format_idx].n_bits() == 8
    }
}

impl ByteDots for AvxVnni {
    #[inline(always)]
    unsafe fn dot<const F: usize, const S: usize>(
        code: impl Fn(usize) -> __m256i,
        quants: *const i32,
    ) -> __m256i {
        // SAFETY: the caller has AVX-VNNI, and a quant for each code.
        unsafe {
            let mut sum = _mm256_setzero_si256();
            for group in 0..N_GROUPS / S {
                sum = _mm256_dpbusd_avx_epi32(sum, code(group), _mm256_set1_epi32(quants.add(group).read()));
            }
            sum
        }
    }

    fn is_signed(_: usize) -> bool {
        false
    }
}

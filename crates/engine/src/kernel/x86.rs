//! x86-64: AVX2, and AVX-512 VNNI on 256-bit registers.
//!
//! Source: the instructions, Intel's intrinsics guide; `maddubs` cannot saturate here, since 15 · 127 · 2 and
//! 128 · 127 · 2 both fit 16 bits.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::x86_64::*;

use super::{BLOCK, Format, Row};

/// Returns whether the AVX2 kernels run here.
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Returns whether the AVX-512 VNNI kernels run here.
pub(super) fn has_avx512_vnni() -> bool {
    has_avx2() && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
}

/// Defines one variant: a safe entry that checks lengths, and the kernel for both formats.
macro_rules! variant {
    ($entry:ident, $kernel:ident, $features:literal, $has:ident, $multiply:ident) => {
        /// Returns the dot products of one weight row with each row of activations.
        pub(super) fn $entry<const N: usize>(format: Format, weights: &[u8], rows: [Row<'_>; N]) -> [f32; N] {
            let n_blocks = weights.len() / format.block_bytes();
            assert!($has(), "this machine lacks {}", $features);
            assert_eq!(weights.len(), n_blocks * format.block_bytes());
            for row in &rows {
                assert!(
                    row.quants.len() == n_blocks * 2 * BLOCK
                        && row.scales.len() == n_blocks
                        && row.sums.len() == n_blocks
                );
            }
            // SAFETY: the features and all lengths were checked right above.
            unsafe {
                match format {
                    Format::Q4_1 => $kernel::q4_1(n_blocks, weights, rows),
                    Format::Q8_0 => $kernel::q8_0(n_blocks, weights, rows),
                }
            }
        }

        mod $kernel {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn q4_1<const N: usize>(
                n_blocks: usize,
                weights: &[u8],
                rows: [Row<'_>; N],
            ) -> [f32; N] {
                let nibble = _mm_set1_epi8(15);
                let mut sums = [_mm256_setzero_ps(); N];
                let mut offsets = [0.0f32; N];
                for idx in 0..n_blocks {
                    // SAFETY: the caller checked that `weights` holds `n_blocks` blocks of 20 bytes and each row
                    // `n_blocks` blocks of 2 · 32 bytes, one scale and one sum.
                    unsafe {
                        let block = weights.as_ptr().add(idx * 20);
                        let head = _mm_cvtph_ps(_mm_cvtsi32_si128(block.cast::<i32>().read_unaligned()));
                        let scale = _mm_cvtss_f32(head);
                        let min = _mm_cvtss_f32(_mm_movehdup_ps(head));
                        let packed = _mm_loadu_si128(block.add(4).cast());
                        let low = _mm_and_si128(packed, nibble);
                        let high = _mm_and_si128(_mm_srli_epi16::<4>(packed), nibble);
                        let w = _mm256_set_m128i(high, low);
                        for n in 0..N {
                            let row = rows.get_unchecked(n);
                            let quants = row.quants.as_ptr().add(idx * 2 * BLOCK);
                            let coarse = $multiply(w, _mm256_loadu_si256(quants.cast()));
                            let fine = $multiply(w, _mm256_loadu_si256(quants.add(BLOCK).cast()));
                            let dots = _mm256_cvtepi32_ps(join(coarse, fine));
                            let factor = _mm256_set1_ps(scale * row.scales.get_unchecked(idx));
                            sums[n] = _mm256_fmadd_ps(dots, factor, sums[n]);
                            offsets[n] = min.mul_add(*row.sums.get_unchecked(idx), offsets[n]);
                        }
                    }
                }
                std::array::from_fn(|n| add_lanes(sums[n]) + offsets[n])
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn q8_0<const N: usize>(
                n_blocks: usize,
                weights: &[u8],
                rows: [Row<'_>; N],
            ) -> [f32; N] {
                let mut sums = [_mm256_setzero_ps(); N];
                for idx in 0..n_blocks {
                    // SAFETY: as in `q4_1`, with blocks of 34 bytes.
                    unsafe {
                        let block = weights.as_ptr().add(idx * 34);
                        let head = block.cast::<u16>().read_unaligned();
                        let scale = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(head))));
                        let w = _mm256_loadu_si256(block.add(2).cast());
                        let magnitude = _mm256_abs_epi8(w);
                        for n in 0..N {
                            let row = rows.get_unchecked(n);
                            let quants = row.quants.as_ptr().add(idx * 2 * BLOCK);
                            let coarse = _mm256_sign_epi8(_mm256_loadu_si256(quants.cast()), w);
                            let fine = _mm256_sign_epi8(_mm256_loadu_si256(quants.add(BLOCK).cast()), w);
                            let dots = join($multiply(magnitude, coarse), $multiply(magnitude, fine));
                            let dots = _mm256_cvtepi32_ps(dots);
                            let factor = _mm256_set1_ps(scale * row.scales.get_unchecked(idx));
                            sums[n] = _mm256_fmadd_ps(dots, factor, sums[n]);
                        }
                    }
                }
                std::array::from_fn(|n| add_lanes(sums[n]))
            }
        }
    };
}

variant!(avx2, avx2_kernel, "avx2,fma,f16c", has_avx2, multiply_avx2);
variant!(
    avx512_vnni,
    avx512_vnni_kernel,
    "avx2,fma,f16c,avx512vl,avx512vnni",
    has_avx512_vnni,
    multiply_vnni
);

/// Multiplies 32 unsigned with 32 signed bytes and adds them up in fours: 8 sums.
#[target_feature(enable = "avx2")]
fn multiply_avx2(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1))
}

/// The same in one instruction.
#[target_feature(enable = "avx512vl,avx512vnni")]
fn multiply_vnni(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed)
}

/// Returns 254 · coarse + fine; at most 128 · 127 · 4 · 254 in a lane, which fits.
#[target_feature(enable = "avx2")]
fn join(coarse: __m256i, fine: __m256i) -> __m256i {
    let coarse = _mm256_sub_epi32(_mm256_slli_epi32::<8>(coarse), _mm256_slli_epi32::<1>(coarse));
    _mm256_add_epi32(coarse, fine)
}

/// Adds up 8 lanes, always in the same order.
#[target_feature(enable = "avx2")]
fn add_lanes(x: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

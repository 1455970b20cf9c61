//! Sixteen floats at once, in whatever registers there are.
//!
//! Every operation rounds as that of one float does, so a function that is generic over [`Lanes`] gives the same bits
//! with each. What is summed up over lanes is summed up in memory, in order.
#![expect(unsafe_code, reason = "instructions of a set are unsafe to name (STYLE rule 32)")]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::{bf16, f16};

/// How many floats.
pub(crate) const N_LANES: usize = 16;

/// Sixteen floats.
///
/// Implementations need their instructions: only `vectorised!` names them, in functions compiled for these.
pub(crate) trait Lanes: Copy {
    fn splat(x: f32) -> Self;
    fn load(from: &[f32; N_LANES]) -> Self;
    fn load_f16(from: &[f16; N_LANES]) -> Self;
    fn load_bf16(from: &[bf16; N_LANES]) -> Self;
    fn load_i8(from: &[i8; N_LANES]) -> Self;
    fn store(self, to: &mut [f32; N_LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self · factor + sum`, rounded once.
    fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// `self` where it is greater, `other` elsewhere.
    fn max(self, other: Self) -> Self;
    /// `self` where it is less, `other` elsewhere.
    fn min(self, other: Self) -> Self;
    /// 2 to the power of a whole number from −126 to 127.
    ///
    /// `rounded` is that number plus 1.5 · 2²³.
    fn exp2_of_rounded(rounded: Self) -> Self;

    /// Writes whole numbers from −128 to 127 as bytes.
    fn store_bytes(self, to: &mut [i8; N_LANES]);
    /// Returns the sum of whole numbers, which is exact.
    fn sum_of_whole(self) -> i32;
    /// Returns the largest of numbers.
    fn largest(self) -> f32;
    /// Returns whether all are less than `limit`; what is no number is not.
    fn are_less(self, limit: f32) -> bool;

    /// Returns the floats.
    #[inline(always)]
    fn to_array(self) -> [f32; N_LANES] {
        let mut array = [0.0; N_LANES];
        self.store(&mut array);
        array
    }
}

/// 1.5 · 2²³: what is added to it is rounded to a whole number, which then stands in its lowest bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// Bits of [`ROUNDER`] less the exponent of 1.
const ROUNDER_OF_ONE: u32 = ROUNDER.to_bits() - 127;

/// With what the build's target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; N_LANES]);

impl Portable {
    #[inline(always)]
    fn with(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|idx| operation(self.0[idx], other.0[idx])))
    }
}

impl Lanes for Portable {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; N_LANES])
    }
    #[inline(always)]
    fn load(from: &[f32; N_LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    fn load_f16(from: &[f16; N_LANES]) -> Self {
        Self(from.map(f16::to_f32))
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16; N_LANES]) -> Self {
        Self(from.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16)))
    }
    #[inline(always)]
    fn load_i8(from: &[i8; N_LANES]) -> Self {
        Self(from.map(f32::from))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; N_LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        Self(std::array::from_fn(|idx| self.0[idx].mul_add(factor.0[idx], sum.0[idx])))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.with(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn exp2_of_rounded(rounded: Self) -> Self {
        Self(rounded.0.map(|rounded| f32::from_bits(rounded.to_bits().wrapping_sub(ROUNDER_OF_ONE) << 23)))
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [i8; N_LANES]) {
        *to = self.whole().map(|whole| whole as i8);
    }
    #[inline(always)]
    fn sum_of_whole(self) -> i32 {
        self.whole().into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().reduce(|a, b| if a > b { a } else { b }).unwrap_or(0.0)
    }
    #[inline(always)]
    fn are_less(self, limit: f32) -> bool {
        self.0.into_iter().all(|x| x < limit)
    }
}

impl Portable {
    #[inline(always)]
    fn whole(self) -> [i32; N_LANES] {
        // As instructions convert, and without the branches of `as`: what is no whole number is never asked for.
        self.0.map(|x| (x + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed())
    }
}

/// With AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Twice8([__m256; 2]);

#[cfg(target_arch = "x86_64")]
impl Twice8 {
    #[inline(always)]
    fn with(self, other: Self, operation: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self([operation(self.0[0], other.0[0]), operation(self.0[1], other.0[1])])
    }
}

// SAFETY of all blocks: the instructions are here (see `Lanes`), and arrays are as long as what is read or written.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
impl Lanes for Twice8 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([unsafe { _mm256_set1_ps(x) }; 2])
    }
    #[inline(always)]
    fn load(from: &[f32; N_LANES]) -> Self {
        Self(unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] })
    }
    #[inline(always)]
    fn load_f16(from: &[f16; N_LANES]) -> Self {
        let half = |at: usize| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().add(at).cast())) };
        Self([half(0), half(8)])
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16; N_LANES]) -> Self {
        let half = |at: usize| unsafe {
            let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(at).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper))
        };
        Self([half(0), half(8)])
    }
    #[inline(always)]
    fn load_i8(from: &[i8; N_LANES]) -> Self {
        let half = |at: usize| unsafe {
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().add(at).cast())))
        };
        Self([half(0), half(8)])
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; N_LANES]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.0[1]);
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { _mm256_div_ps(a, b) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        let half = |at: usize| unsafe { _mm256_fmadd_ps(self.0[at], factor.0[at], sum.0[at]) };
        Self([half(0), half(1)])
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { _mm256_min_ps(a, b) })
    }
    #[inline(always)]
    fn exp2_of_rounded(rounded: Self) -> Self {
        Self(rounded.0.map(|rounded| unsafe {
            let exponent = _mm256_sub_epi32(
                _mm256_castps_si256(rounded),
                _mm256_set1_epi32(ROUNDER_OF_ONE.cast_signed()),
            );
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }))
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [i8; N_LANES]) {
        unsafe {
            let [low, high] = self.0.map(|half| _mm256_cvtps_epi32(half));
            // Packed within each half of a register: 0 to 3, 8 to 11, 4 to 7, 12 to 15.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn sum_of_whole(self) -> i32 {
        unsafe {
            let [low, high] = self.0.map(|half| _mm256_cvtps_epi32(half));
            let sum = _mm256_add_epi32(low, high);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
            _mm_cvtsi128_si32(sum)
        }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe {
            let largest = _mm256_max_ps(self.0[0], self.0[1]);
            let largest = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
            let largest = _mm_max_ps(largest, _mm_movehl_ps(largest, largest));
            _mm_cvtss_f32(_mm_max_ss(largest, _mm_movehdup_ps(largest)))
        }
    }
    #[inline(always)]
    fn are_less(self, limit: f32) -> bool {
        unsafe {
            let limit = _mm256_set1_ps(limit);
            let [low, high] = self.0.map(|half| _mm256_cmp_ps::<_CMP_LT_OQ>(half, limit));
            _mm256_movemask_ps(_mm256_and_ps(low, high)) == 0xff
        }
    }
}

/// With AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Once16(__m512);

// SAFETY of all blocks: as above.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
impl Lanes for Once16 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    fn load(from: &[f32; N_LANES]) -> Self {
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }
    #[inline(always)]
    fn load_f16(from: &[f16; N_LANES]) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) })
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16; N_LANES]) -> Self {
        Self(unsafe {
            let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
        })
    }
    #[inline(always)]
    fn load_i8(from: &[i8; N_LANES]) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; N_LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, sum.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn exp2_of_rounded(rounded: Self) -> Self {
        Self(unsafe {
            let exponent = _mm512_sub_epi32(
                _mm512_castps_si512(rounded.0),
                _mm512_set1_epi32(ROUNDER_OF_ONE.cast_signed()),
            );
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [i8; N_LANES]) {
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }
    #[inline(always)]
    fn sum_of_whole(self) -> i32 {
        unsafe { _mm512_reduce_add_epi32(_mm512_cvtps_epi32(self.0)) }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn are_less(self, limit: f32) -> bool {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_set1_ps(limit)) == 0xffff }
    }
}

/// With NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(crate) struct Four4([float32x4_t; 4]);

#[cfg(target_arch = "aarch64")]
impl Four4 {
    #[inline(always)]
    fn with(self, other: Self, operation: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(std::array::from_fn(|idx| operation(self.0[idx], other.0[idx])))
    }
}

// SAFETY of all blocks: every aarch64 has NEON, and arrays are as long as what is read or written.
#[cfg(target_arch = "aarch64")]
#[expect(clippy::undocumented_unsafe_blocks, reason = "said once, above")]
impl Lanes for Four4 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([unsafe { vdupq_n_f32(x) }; 4])
    }
    #[inline(always)]
    fn load(from: &[f32; N_LANES]) -> Self {
        Self(std::array::from_fn(|idx| unsafe { vld1q_f32(from.as_ptr().add(4 * idx)) }))
    }
    #[inline(always)]
    fn load_f16(from: &[f16; N_LANES]) -> Self {
        Self(std::array::from_fn(|idx| unsafe {
            let halves = vld1_u16(from.as_ptr().add(4 * idx).cast());
            let wide: float32x4_t;
            // The intrinsic wants half-precision arithmetic, which the conversion does not need.
            std::arch::asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = out(vreg) wide, halves = in(vreg) halves,
                options(pure, nomem, nostack));
            wide
        }))
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16; N_LANES]) -> Self {
        Self(std::array::from_fn(|idx| unsafe {
            let upper = vld1_u16(from.as_ptr().add(4 * idx).cast());
            vreinterpretq_f32_u32(vshll_n_u16::<16>(upper))
        }))
    }
    #[inline(always)]
    fn load_i8(from: &[i8; N_LANES]) -> Self {
        Self(unsafe {
            let bytes = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))),
            ]
        })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; N_LANES]) {
        for (idx, quarter) in self.0.into_iter().enumerate() {
            unsafe { vst1q_f32(to.as_mut_ptr().add(4 * idx), quarter) }
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        Self(std::array::from_fn(|idx| unsafe { vfmaq_f32(sum.0[idx], self.0[idx], factor.0[idx]) }))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.with(other, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }
    #[inline(always)]
    fn exp2_of_rounded(rounded: Self) -> Self {
        Self(rounded.0.map(|rounded| unsafe {
            let exponent = vsubq_u32(vreinterpretq_u32_f32(rounded), vdupq_n_u32(ROUNDER_OF_ONE));
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(exponent))
        }))
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [i8; N_LANES]) {
        unsafe {
            let [a, b, c, d] = self.0.map(|quarter| vmovn_s32(vcvtnq_s32_f32(quarter)));
            let (low, high) = (vmovn_s16(vcombine_s16(a, b)), vmovn_s16(vcombine_s16(c, d)));
            vst1q_s8(to.as_mut_ptr(), vcombine_s8(low, high));
        }
    }
    #[inline(always)]
    fn sum_of_whole(self) -> i32 {
        unsafe {
            let [a, b, c, d] = self.0.map(|quarter| vcvtnq_s32_f32(quarter));
            vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d)))
        }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe {
            let [a, b, c, d] = self.0;
            vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d)))
        }
    }
    #[inline(always)]
    fn are_less(self, limit: f32) -> bool {
        unsafe {
            let [a, b, c, d] = self.0.map(|quarter| vcltq_f32(quarter, vdupq_n_f32(limit)));
            vminvq_u32(vandq_u32(vandq_u32(a, b), vandq_u32(c, d))) == u32::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::vectorised;

    vectorised! {
        fn floats<L>(bytes: &[i8; N_LANES]) -> [f32; N_LANES] {
            L::load_i8(bytes).to_array()
        }
    }

    #[test]
    fn every_byte_is_its_own_float() {
        for first in i8::MIN..=i8::MAX {
            let bytes: [i8; N_LANES] = std::array::from_fn(|idx| first.wrapping_add((17 * idx) as i8));
            assert_eq!(floats(&bytes), bytes.map(f32::from));
        }
    }
}

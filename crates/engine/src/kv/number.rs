//! How the KV cache stores its numbers.
//!
//! In: f32, in groups of 32 dimensions of one head at one position. Out: f16, or bytes with a scale for each group.
//! Never: depends on other positions, so that it does not matter in which step a position is written (I-7).

use std::fmt;
use std::str::FromStr;

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use crate::kernel::{Lanes, N_LANES, ROUNDER, vectorised};
use crate::{BLOCK_TOKENS, ModelSpec};

/// Dimensions that share a scale: ggml's `QK8_0`.
pub(crate) const GROUP: usize = 32;

/// Bytes of a line of the cache; each head's numbers in a block begin one.
const LINE: usize = 64;

/// Largest quant; −128 is never used, as in ggml.
const MAX_QUANT: f32 = 127.0;

/// How a KV cache stores keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Two bytes a number.
    #[default]
    F16,
    /// ggml's `q8_0`: for each 32 dimensions of a head at one position an f16 scale and 32 signed bytes, so little more
    /// than half of the memory. Where 32 does not divide the dimensions of a head, its last group is shorter.
    Q8_0,
}

impl KvType {
    /// Returns the name that [`KvType::from_str`] and `--kv` take.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Returns how many bytes one position's keys and values take in all layers of a model.
    pub fn n_bytes_per_token(self, spec: &ModelSpec) -> usize {
        let n_bytes = match self {
            Self::F16 => head_bytes::<f16>(spec.head_dim),
            Self::Q8_0 => head_bytes::<i8>(spec.head_dim),
        };
        2 * spec.n_layers * spec.n_kv_heads * n_bytes
    }
}

/// Returns the bytes of one head's keys or values at one position, with its part of what fills up a block.
fn head_bytes<T: KvNumber>(head_dim: usize) -> usize {
    head_block_bytes::<T>(head_dim) / BLOCK_TOKENS
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of a [`KvType`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no type of KV cache: there are f16 and q8_0")]
pub struct UnknownKvType(pub String);

impl FromStr for KvType {
    type Err = UnknownKvType;

    fn from_str(name: &str) -> Result<Self, UnknownKvType> {
        [Self::F16, Self::Q8_0]
            .into_iter()
            .find(|kv_type| kv_type.name() == name)
            .ok_or_else(|| UnknownKvType(name.to_owned()))
    }
}

/// Returns the bytes of one head's keys or values in a block: whole lines of the cache.
pub(super) fn head_block_bytes<T: KvNumber>(head_dim: usize) -> usize {
    let n_bytes = head_dim * size_of::<T>() + n_scales::<T>(head_dim) * size_of::<f16>();
    (BLOCK_TOKENS * n_bytes).next_multiple_of(LINE)
}

/// Returns how many scales one head has at one position.
pub(super) fn n_scales<T: KvNumber>(head_dim: usize) -> usize {
    if T::IS_SCALED { head_dim.div_ceil(GROUP) } else { 0 }
}

/// A kind of number in a KV cache.
pub(crate) trait KvNumber: bytemuck::Pod {
    const ZERO: Self;
    /// Whether a number is to be multiplied with the scale of its group.
    const IS_SCALED: bool;

    /// Returns numbers without their scales.
    fn load<L: Lanes>(from: &[Self; N_LANES]) -> L;
    /// Returns a number without its scale.
    fn to_f32(self) -> f32;
    /// Writes a group's numbers and returns their scale; it is 1 for a kind that has none.
    ///
    /// What is too large for f16 becomes its largest and not infinity, which would outlive a multiplication with 0.
    fn encode(x: &[f32; GROUP], to: &mut [Self; GROUP]) -> f16;
}

impl KvNumber for f16 {
    const ZERO: Self = Self::ZERO;
    const IS_SCALED: bool = false;

    #[inline(always)]
    fn load<L: Lanes>(from: &[Self; N_LANES]) -> L {
        L::load_f16(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }

    fn encode(x: &[f32; GROUP], to: &mut [Self; GROUP]) -> f16 {
        const LARGEST: f32 = f16::MAX.to_f32_const();
        to.convert_from_f32_slice(&x.map(|x| x.clamp(-LARGEST, LARGEST)));
        Self::ONE
    }
}

impl KvNumber for i8 {
    const ZERO: Self = 0;
    const IS_SCALED: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(from: &[Self; N_LANES]) -> L {
        L::load_i8(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    fn encode(x: &[f32; GROUP], to: &mut [Self; GROUP]) -> f16 {
        quantise(x, to)
    }
}

vectorised! {
    /// Quantises a group with the scale that is stored: ggml rounds to f16 only afterwards, which adds up to an eighth
    /// to the error. A group with a number that is none has none as its scale.
    fn quantise<L>(x: &[f32; GROUP], quants: &mut [i8; GROUP]) -> f16 {
        let zero = L::splat(0.0);
        let [low, high] = x.as_chunks().0 else { unreachable!("two halves of a group") };
        let (low, high) = (saturated::<L>(low), saturated::<L>(high));
        let (low_sizes, high_sizes) = (low.max(zero.sub(low)), high.max(zero.sub(high)));
        if !low_sizes.are_less(f32::INFINITY) || !high_sizes.are_less(f32::INFINITY) {
            *quants = [0; GROUP];
            return f16::NAN;
        }
        let scale = f16::from_f32(low_sizes.max(high_sizes).largest() / MAX_QUANT);
        // A scale too small for f16 is 0, and so are its numbers.
        let inverse = L::splat(if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() });
        for (x, quants) in [low, high].into_iter().zip(quants.as_chunks_mut().0) {
            // A scale that f16 rounded down by much, being subnormal, would make quants that are no bytes.
            let x = x.mul(inverse).max(L::splat(-MAX_QUANT)).min(L::splat(MAX_QUANT));
            x.add(L::splat(ROUNDER)).sub(L::splat(ROUNDER)).store_bytes(quants);
        }
        scale
    }
}

#[inline(always)]
fn saturated<L: Lanes>(x: &[f32; N_LANES]) -> L {
    let largest = f16::MAX.to_f32_const();
    // In this order, so that what is no number stays so.
    L::splat(largest).min(L::splat(-largest).max(L::load(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: KvNumber>(x: &[f32; GROUP]) -> [f32; GROUP] {
        let mut numbers = [T::ZERO; GROUP];
        let scale = T::encode(x, &mut numbers);
        numbers.map(|number| number.to_f32() * scale.to_f32())
    }

    /// Groups of all sizes that f16 has, the largest number in any place, of either sign.
    fn groups() -> impl Iterator<Item = [f32; GROUP]> {
        (0..2_000u32).map(|idx| {
            let size = f32::from_bits((100 + idx % 42) << 23);
            std::array::from_fn(|dim| {
                let bits = (idx * 31 + dim as u32).wrapping_mul(2_654_435_761) >> 8;
                size * (bits as f32 / (1 << 23) as f32 - 1.0)
            })
        })
    }

    #[test]
    fn q8_0_comes_back_within_half_a_quant() {
        let mut worst = 0.0f32;
        for group in groups() {
            let largest = group.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            // f16 has 11 bits; below its normal numbers 2⁻²⁵ are lost, in each of 127 quants.
            let scale = largest / 127.0;
            let bound = 0.5 * scale * (1.0 + 1.0 / 1024.0) + 127.0 * 2.0f32.powi(-25);
            for (x, got) in group.iter().zip(round_trip::<i8>(&group)) {
                assert!((x - got).abs() <= bound, "{x} came back as {got}, of {largest}");
                if scale > 1e-4 {
                    worst = worst.max((x - got).abs() / scale);
                }
            }
        }
        assert!(worst > 0.45, "the bound is far from what was seen: {worst}");
    }

    #[test]
    fn what_is_too_large_is_the_largest_and_what_is_no_number_none() {
        let check = |x: f32, expect: f32| {
            let group = std::array::from_fn(|dim| if dim == 21 { x } else { 0.0 });
            for got in [round_trip::<f16>(&group)[21], round_trip::<i8>(&group)[21]] {
                assert!((got - expect).abs() <= expect.abs() / 1024.0, "{x} became {got}");
            }
        };
        let largest = f16::MAX.to_f32_const();
        check(1e9, largest);
        check(f32::INFINITY, largest);
        check(f32::NEG_INFINITY, -largest);
        check(0.0, 0.0);
        check(-0.0, 0.0);
        for dim in [0, 15, 16, 31] {
            let mut group = [1.0; GROUP];
            group[dim] = f32::NAN;
            assert!(round_trip::<i8>(&group).iter().all(|x| x.is_nan()), "a NaN in dimension {dim} is lost");
            assert!(round_trip::<f16>(&group)[dim].is_nan());
        }
    }

    #[test]
    fn a_type_is_known_by_its_name() {
        for (kv_type, name) in [(KvType::F16, "f16"), (KvType::Q8_0, "q8_0")] {
            assert_eq!((kv_type.to_string().as_str(), name.parse()), (name, Ok(kv_type)));
        }
        assert_eq!("q4_0".parse::<KvType>(), Err(UnknownKvType("q4_0".into())));
    }
}

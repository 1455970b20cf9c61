//! Float loops over rows, written so that they vectorise and give the same bits however they are.
//!
//! In and out: slices of one row. Never: adds up in an order, or rounds in a way, that depends on the machine (I-7):
//! where a multiplication is fused with an addition it says `mul_add`.

/// Partial sums of a reduction: the lanes of a 512-bit register.
const LANES: usize = 16;

/// Replaces scores by `exp(scale · (score − largest))` and returns their sum.
pub(super) fn softmax(scores: &mut [f32], scale: f32) -> f32 {
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in &*chunks {
        for (largest, score) in largest.iter_mut().zip(chunk) {
            *largest = if score > largest { *score } else { *largest };
        }
    }
    let largest = largest.iter().chain(&*rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f32; LANES];
    for chunk in chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp((*score - largest) * scale);
            *sum += *score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(rest) {
        *score = exp((*score - largest) * scale);
        *sum += *score;
    }
    sums.iter().sum()
}

/// Replaces `gate` by `silu(gate) · up`.
pub(super) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Normalises a row to a root mean square of 1, times `weight`.
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut sums = [0.0f64; LANES];
    for chunk in x.chunks(LANES) {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let mean = sums.iter().sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// e to the power of `x`, to 2 units in the last place; where it would be subnormal or infinite, about 1e-38 or 1e38.
///
/// Source: Cephes' `expf`, with the rounding to a whole power of two by a large constant.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: what is added to it is rounded to a whole number, which then stands in its lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    // ln 2 in two parts, the first with so few bits that its product with n is exact.
    let rest = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut power = 1.987_569_1e-4_f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        power = power.mul_add(rest, coefficient);
    }
    let power = (power * rest).mul_add(rest, rest) + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127);
    power * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_f64_to_a_few_units_in_the_last_place() {
        for step in -870_000..880_000 {
            let x = step as f32 * 1e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}): {error}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(-1e30) < 2e-38);
        assert!(exp(1e30) > 1e38 && exp(1e30).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn softmax_of_any_length_adds_up() {
        for n in [1, 2, 15, 16, 17, 100] {
            let scores: Vec<f32> = (0..n).map(|i| (i * 37 % 11) as f32 - 300.0).collect();
            let mut weights = scores.clone();
            let sum = softmax(&mut weights, 0.25);
            let expected: Vec<f64> =
                scores.iter().map(|s| (0.25 * (f64::from(*s) - f64::from(largest(&scores)))).exp()).collect();
            assert!((f64::from(sum) - expected.iter().sum::<f64>()).abs() < 1e-4);
            for (weight, expected) in weights.iter().zip(expected) {
                assert!((f64::from(*weight) - expected).abs() < 1e-6);
            }
        }
    }

    fn largest(scores: &[f32]) -> f32 {
        scores.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    #[test]
    fn a_normed_row_has_a_root_mean_square_of_its_weight() {
        let x: Vec<f32> = (0..50).map(|i| (i % 7) as f32 - 2.5).collect();
        let mut out = vec![0.0; 50];
        rms_norm(&x, &[2.0; 50], 0.0, &mut out);
        let mean = out.iter().map(|x| x * x).sum::<f32>() / 50.0;
        assert!((mean - 4.0).abs() < 1e-5, "{mean}");
    }

    #[test]
    fn swiglu_is_silu_times_up() {
        let mut gate = [-30.0, -1.0, 0.0, 2.0, 40.0];
        swiglu(&mut gate, &[1.0, 2.0, 3.0, 4.0, 0.5]);
        let expected = [-30.0 * 9.357_623e-14, -2.0 * 0.268_941_43, 0.0, 8.0 * 0.880_797_1, 20.0];
        for (got, expected) in gate.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-6 * f32::abs(expected), "{got} {expected}");
        }
    }
}

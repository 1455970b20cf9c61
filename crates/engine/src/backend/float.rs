//! Float loops over rows, written so that they vectorise and give the same bits however they are.
//!
//! In and out: slices of one row. Never: adds up in an order, or rounds in a way, that depends on the machine (I-7):
//! where a multiplication is fused with an addition it says `mul_add`.

use crate::kernel::{Lanes, N_LANES, ROUNDER, vectorised};
use crate::{ModelSpec, RopePairing, YarnSpec};

/// Replaces scores by `exp(scale · (score − largest))` and returns the largest score and their sum.
#[inline(always)]
pub(super) fn softmax<L: Lanes>(scores: &mut [f32], scale: f32) -> (f32, f32) {
    let largest = largest_of::<L>(scores);
    let (chunks, rest) = scores.as_chunks_mut::<N_LANES>();
    let mut sums = L::splat(0.0);
    for chunk in chunks {
        sums = sums.add(weigh::<L>(chunk, largest, scale));
    }
    let mut sums = sums.to_array();
    let mut last = [f32::NEG_INFINITY; N_LANES];
    last[..rest.len()].copy_from_slice(rest);
    weigh::<L>(&mut last, largest, scale);
    rest.copy_from_slice(&last[..rest.len()]);
    for (sum, weight) in sums.iter_mut().zip(rest) {
        *sum += *weight;
    }
    (largest, sums.iter().sum())
}

vectorised! {
    /// Writes `exp(x[0]) · sums + exp(x[1]) · others` over `sums`, and returns the same of two weights.
    pub(super) fn rescale<L>(x: [f32; 2], weights: (f32, f32), sums: &mut [f32], others: &[f32]) -> f32 {
        let mut factors = [0.0; N_LANES];
        factors[..2].copy_from_slice(&x);
        let [own, other, ..] = exp(L::load(&factors)).to_array();
        for (sum, x) in sums.iter_mut().zip(others) {
            *sum = *sum * own + x * other;
        }
        weights.0 * own + weights.1 * other
    }
}

#[inline(always)]
fn largest_of<L: Lanes>(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<N_LANES>();
    let mut largest = L::splat(f32::NEG_INFINITY);
    for chunk in chunks {
        largest = L::load(chunk).max(largest);
    }
    largest.to_array().iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

vectorised! {
    /// Replaces logits by weights, `exp(scale · (logit − largest))`, and returns their sum. Minus infinity weighs nothing
    /// that counts, but more than 0.
    pub(crate) fn weights<L>(logits: &mut [f32], scale: f32) -> f32 {
        softmax::<L>(logits, scale).1
    }
}

vectorised! {
    /// Returns the largest of some values.
    pub(crate) fn largest<L>(values: &[f32]) -> f32 {
        largest_of::<L>(values)
    }
}

#[inline(always)]
fn weigh<L: Lanes>(scores: &mut [f32; N_LANES], largest: f32, scale: f32) -> L {
    let weights = exp(L::load(scores).sub(L::splat(largest)).mul(L::splat(scale)));
    weights.store(scores);
    weights
}

vectorised! {
    /// Writes `silu(gate) · up`.
    pub(super) fn swiglu<L>(gate: &[f32], up: &[f32], out: &mut [f32]) {
        let (gates, gate_rest) = gate.as_chunks::<N_LANES>();
        let (ups, up_rest) = up.as_chunks::<N_LANES>();
        let (outs, out_rest) = out.as_chunks_mut::<N_LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            silu::<L>(gate).mul(L::load(up)).store(out);
        }
        let mut last = [[0.0; N_LANES]; 2];
        last[0][..gate_rest.len()].copy_from_slice(gate_rest);
        last[1][..up_rest.len()].copy_from_slice(up_rest);
        let last = silu::<L>(&last[0]).mul(L::load(&last[1])).to_array();
        out_rest.copy_from_slice(&last[..out_rest.len()]);
    }
}

#[inline(always)]
fn silu<L: Lanes>(x: &[f32; N_LANES]) -> L {
    let x = L::load(x);
    x.div(L::splat(1.0).add(exp(L::splat(0.0).sub(x))))
}

vectorised! {
    /// Normalises a row to a root mean square of 1, times `weight`.
    pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = inverse_rms(x, eps);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

vectorised! {
    /// Normalises each head of a row, of as many dimensions as `weight` has.
    pub(super) fn rms_norm_heads(row: &mut [f32], weight: &[f32], eps: f32) {
        for head in row.chunks_exact_mut(weight.len()) {
            let scale = inverse_rms(head, eps);
            for (x, weight) in head.iter_mut().zip(weight) {
                *x = *x * scale * weight;
            }
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mut sums = [0.0f64; N_LANES];
    let (chunks, rest) = x.as_chunks::<N_LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    let mean = sums.iter().sum::<f64>() / x.len() as f64;
    1.0 / (mean as f32 + eps).sqrt()
}

vectorised! {
    /// Adds a row to another.
    pub(super) fn add(x: &mut [f32], branch: &[f32]) {
        for (x, branch) in x.iter_mut().zip(branch) {
            *x += branch;
        }
    }
}

vectorised! {
    /// Adds a row times `weight` to another.
    pub(super) fn add_weighted(x: &mut [f32], branch: &[f32], weight: f32) {
        for (x, branch) in x.iter_mut().zip(branch) {
            *x = branch.mul_add(weight, *x);
        }
    }
}

vectorised! {
    /// Rotates every head of a row by the angles whose (cos, sin) are given.
    pub(super) fn rotate(pairing: RopePairing, head_dim: usize, angles: &[(f32, f32)], row: &mut [f32]) {
        let turn = |a: f32, b: f32, (cos, sin): (f32, f32)| (a * cos - b * sin, a * sin + b * cos);
        for head in row.chunks_exact_mut(head_dim) {
            match pairing {
                RopePairing::Norm => {
                    for ([a, b], angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                        (*a, *b) = turn(*a, *b, *angle);
                    }
                }
                RopePairing::Neox => {
                    let (first, second) = head.split_at_mut(angles.len());
                    for ((a, b), angle) in first.iter_mut().zip(second).zip(angles) {
                        (*a, *b) = turn(*a, *b, *angle);
                    }
                }
            }
        }
    }
}

/// Returns the radians per position of each rotated pair: `[rope.n_dims / 2]`.
pub(super) fn rope_steps(spec: &ModelSpec, factors: &[f32]) -> Vec<f64> {
    let rope = &spec.rope;
    let theta = f64::from(rope.theta);
    let step = |(idx, factor): (usize, &f32)| {
        let exponent = (2 * idx) as f64 / rope.n_dims as f64;
        let step = theta.powf(-exponent) / f64::from(*factor) / f64::from(rope.position_divisor);
        step * rope.yarn.map_or(1.0, |yarn| yarn_share(&yarn, idx, rope.n_dims, theta))
    };
    factors.iter().enumerate().map(step).collect()
}

/// Returns (cos, sin) of every rotated pair at a position, times `magnitude`, by [`rope_steps`].
pub(super) fn turns(steps: &[f64], magnitude: f64, position: usize) -> impl Iterator<Item = (f32, f32)> {
    steps.iter().map(move |step| {
        let (sin, cos) = (position as f64 * step).sin_cos();
        ((cos * magnitude) as f32, (sin * magnitude) as f32)
    })
}

/// Returns what the step of pair `idx` is multiplied by: from 1 where it comes round often down to `1 / factor`.
fn yarn_share(yarn: &YarnSpec, idx: usize, n_dims: usize, theta: f64) -> f64 {
    // The pair that turns so often over the positions of training; between whole pairs, as the models were made.
    let pair_of = |n_turns: f32| {
        let n_positions = yarn.n_original as f64 / (f64::from(n_turns) * std::f64::consts::TAU);
        n_dims as f64 * n_positions.ln() / (2.0 * theta.ln())
    };
    let first = pair_of(yarn.beta[0]).floor().max(0.0);
    let last = pair_of(yarn.beta[1]).ceil().min(n_dims as f64 - 1.0);
    let stretched = ((idx as f64 - first) / (last - first).max(1e-3)).clamp(0.0, 1.0);
    (1.0 - stretched) + stretched / f64::from(yarn.factor)
}

/// e to the power of `x`, to 2 units in the last place; where it would be subnormal or infinite, about 1e-38 or 1e38.
///
/// Source: Cephes' `expf`, with the rounding to a whole power of two by a large constant.
#[inline(always)]
fn exp<L: Lanes>(x: L) -> L {
    // In this order, so that what is no number stays so.
    let x = L::splat(88.0).min(L::splat(-87.0).max(x));
    let rounded = x.mul(L::splat(std::f32::consts::LOG2_E)).add(L::splat(ROUNDER));
    let n = rounded.sub(L::splat(ROUNDER));
    // ln 2 in two parts, the first with so few bits that its product with n is exact.
    let rest = x.sub(n.mul(L::splat(0.693_359_4))).sub(n.mul(L::splat(-2.121_944_4e-4)));
    let mut power = L::splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        power = power.mul_add(rest, L::splat(coefficient));
    }
    let power = power.mul(rest).mul_add(rest, rest).add(L::splat(1.0));
    power.mul(L::exp2_of_rounded(rounded))
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn exps<L>(x: &mut [f32; N_LANES]) {
            super::exp(L::load(x)).store(x);
        }
    }

    fn exp(x: f32) -> f32 {
        let mut x = [x; N_LANES];
        exps(&mut x);
        x[0]
    }

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
            let sum = super::weights(&mut weights, 0.25);
            assert_eq!(largest(&scores), scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let expected: Vec<f64> =
                scores.iter().map(|s| (0.25 * (f64::from(*s) - f64::from(largest(&scores)))).exp()).collect();
            assert!((f64::from(sum) - expected.iter().sum::<f64>()).abs() < 1e-4);
            for (weight, expected) in weights.iter().zip(expected) {
                assert!((f64::from(*weight) - expected).abs() < 1e-6);
            }
        }
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
        let mut out = [0.0; 5];
        swiglu(&[-30.0, -1.0, 0.0, 2.0, 40.0], &[1.0, 2.0, 3.0, 4.0, 0.5], &mut out);
        let expected = [-30.0 * 9.357_623e-14, -2.0 * 0.268_941_43, 0.0, 8.0 * 0.880_797_1, 20.0];
        for (got, expected) in out.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-6 * f32::abs(expected), "{got} {expected}");
        }
    }
}

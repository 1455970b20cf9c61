//! From logits to a token.
//!
//! In: `[n_vocab] f32`. Out: a token id and its logprob. Random numbers are a function of (seed, position), so the
//! same request gives the same tokens whatever else runs and however many tokens were drafted (I-7).
//! Source: Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

use std::cell::RefCell;

use crate::backend::float;
use crate::{Sampling, TokenId};

/// Returns the token `sampling` chooses at `position`, and its logprob before temperature.
///
/// `logits: [n_vocab] f32`; minus infinity stands for a token that may not be chosen.
pub(crate) fn sample(logits: &[f32], sampling: &Sampling, position: u64) -> (TokenId, f32) {
    let token = sample_token(logits, sampling, position);
    (token, logprob(logits, token))
}

/// Returns the same token without its logprob.
pub(crate) fn sample_token(logits: &[f32], sampling: &Sampling, position: u64) -> TokenId {
    let best = argmax(logits);
    let chosen = if sampling.is_greedy() { best } else { draw(logits, sampling, position, best) };
    TokenId(chosen as u32)
}

/// Returns what a logit is more than its logprob.
pub(crate) fn log_sum(logits: &[f32]) -> f32 {
    WEIGHTS.with_borrow_mut(|weights| {
        weights.clear();
        weights.extend_from_slice(logits);
        float::largest(logits) + float::weights(weights, 1.0).ln()
    })
}

/// Returns the `n` likeliest tokens with their logprobs, best first; equal logits in the order of their ids.
pub fn top_tokens(logits: &[f32], n: usize) -> Vec<(TokenId, f32)> {
    if n == 0 || logits.is_empty() {
        return Vec::new();
    }
    let log_sum = log_sum(logits);
    top_indices(logits, n).into_iter().map(|idx| (TokenId(idx as u32), logits[idx] - log_sum)).collect()
}

/// Returns the logprob of `token`.
pub(crate) fn logprob(logits: &[f32], token: TokenId) -> f32 {
    logits[token.0 as usize] - log_sum(logits)
}

thread_local! {
    /// Room for one row's weights.
    static WEIGHTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Weights below it are of tokens that may not be chosen: the smallest that a logit can have.
const NOTHING: f32 = 2e-38;

fn draw(logits: &[f32], sampling: &Sampling, position: u64, best: usize) -> usize {
    WEIGHTS.with_borrow_mut(|weights| {
        weights.clear();
        weights.extend_from_slice(logits);
        let all = float::weights(weights, 1.0 / sampling.temperature);
        let random = uniform(sampling.seed, position);
        if sampling.top_k == 0 && sampling.top_p >= 1.0 {
            // The order is any, as long as it is always the same: that of the ids.
            let total = weights.iter().map(|&weight| counted(weight)).sum::<f64>();
            return pick(weights.iter().copied().enumerate(), random * total).unwrap_or(best);
        }
        let kept = likeliest(logits, weights, sampling, f64::from(all));
        let total = kept.iter().map(|&idx| counted(weights[idx])).sum::<f64>();
        pick(kept.iter().map(|&idx| (idx, weights[idx])), random * total).unwrap_or(best)
    })
}

/// Returns the `top_k` likeliest tokens, of those as many as reach `top_p`, the likeliest first.
fn likeliest(logits: &[f32], weights: &[f32], sampling: &Sampling, all: f64) -> Vec<usize> {
    let n_most = if sampling.top_k == 0 { logits.len() } else { sampling.top_k };
    // Where all are candidates, few are nearly always enough: more are sorted only if they are not.
    let mut n_sorted = n_most.min(256);
    loop {
        let mut kept = top_indices(logits, n_sorted);
        kept.retain(|&idx| counted(weights[idx]) > 0.0);
        let of_kept = kept.iter().map(|&idx| counted(weights[idx])).sum::<f64>();
        let total = if sampling.top_k == 0 { all } else { of_kept };
        let mut sum = 0.0;
        let is_within = |idx: &&usize| {
            let before = sum;
            sum += counted(weights[**idx]) / total;
            before < f64::from(sampling.top_p)
        };
        let n_within = kept.iter().take_while(is_within).count().max(1);
        if n_within < kept.len() || n_sorted >= n_most || kept.len() < n_sorted {
            kept.truncate(n_within);
            return kept;
        }
        n_sorted = (4 * n_sorted).min(n_most);
    }
}

/// Returns the first token at which the weights so far exceed `rest`, or the last that has any.
fn pick(weights: impl Iterator<Item = (usize, f32)>, mut rest: f64) -> Option<usize> {
    let mut last = None;
    for (idx, weight) in weights {
        if counted(weight) > 0.0 {
            rest -= f64::from(weight);
            if rest < 0.0 {
                return Some(idx);
            }
            last = Some(idx);
        }
    }
    last
}

fn counted(weight: f32) -> f64 {
    if weight > NOTHING { f64::from(weight) } else { 0.0 }
}

/// Returns the first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let largest = float::largest(logits);
    logits.iter().position(|&logit| logit == largest).unwrap_or(0)
}

fn top_indices(logits: &[f32], n: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    let mut indices: Vec<usize> = (0..logits.len()).filter(|&idx| logits[idx] > f32::NEG_INFINITY).collect();
    if n < indices.len() {
        indices.select_nth_unstable_by(n - 1, order);
        indices.truncate(n);
    }
    indices.sort_unstable_by(order);
    indices
}

/// Returns a number in [0, 1) with 53 random bits.
fn uniform(seed: u64, position: u64) -> f64 {
    let words = philox(position, seed);
    let bits = (u64::from(words[0]) << 32 | u64::from(words[1])) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

fn philox(counter: u64, seed: u64) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut x = [counter as u32, (counter >> 32) as u32, 0, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(x[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(x[2]);
        x = [(b >> 32) as u32 ^ x[1] ^ key[0], b as u32, (a >> 32) as u32 ^ x[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_its_paper() {
        // Random123's kat_vectors, philox4x32 10: counter and key of zeros.
        assert_eq!(philox(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(sample(&[0.0, 2.0, 2.0], &Sampling::greedy(), 7).0, TokenId(1));
    }

    #[test]
    fn sampling_follows_the_distribution_and_the_seed() {
        let logits = [0.0f32, (3.0f32).ln(), f32::NEG_INFINITY];
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 42 };
        let ones = (0..20_000).filter(|&p| sample(&logits, &sampling, p).0 == TokenId(1)).count();
        assert!((14_700..15_300).contains(&ones), "3 in 4 expected, got {ones} of 20000");
        assert_eq!(sample(&logits, &sampling, 5), sample(&logits, &sampling, 5));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [3.0f32, 2.0, 1.0, 0.0];
        let check = |top_k, top_p, allowed: &[u32]| {
            let sampling = Sampling { temperature: 2.0, top_k, top_p, seed: 1 };
            for position in 0..2_000 {
                let (token, _) = sample(&logits, &sampling, position);
                assert!(allowed.contains(&token.0), "{token:?} with top_k {top_k}, top_p {top_p}");
            }
        };
        check(2, 1.0, &[0, 1]);
        check(0, 0.1, &[0]);
    }

    #[test]
    fn top_tokens_are_ordered_and_sum_below_one() {
        let top = top_tokens(&[1.0, 3.0, 2.0, 3.0], 3);
        assert_eq!(top.iter().map(|(token, _)| token.0).collect::<Vec<_>>(), [1, 3, 2]);
        assert!(top.iter().map(|(_, logprob)| logprob.exp()).sum::<f32>() < 1.0);
    }
}

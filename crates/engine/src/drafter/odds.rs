//! How often drafted tokens turn out right, by what was known of them before.
//!
//! In: whether a token was right. Out: the odds that the next one is.

/// Tokens that a bucket remembers, on average.
const N_REMEMBERED: f32 = 64.0;

/// Tokens that the prior of a bucket counts for.
const PRIOR_TOKENS: f32 = 4.0;

/// The odds of each bucket before anything is known.
///
/// Measured with the suffix automaton over this repository's own files in SmolLM2's tokens (453,546 of them,
/// 2026-11-26): 0.23, 0.44, 0.53, 0.60, 0.67, 0.74, 0.78, 0.81, 0.87, 0.90 and 0.90 for one token and more. A retraced
/// original is right more often at length (0.92 from 9 tokens on, 0.98 from 17 on), and says so after a few steps.
const PRIORS: [f32; 12] = [0.10, 0.23, 0.44, 0.53, 0.60, 0.68, 0.75, 0.80, 0.83, 0.90, 0.92, 0.93];

/// How often one drafter was right of late, by the length of the match it drafted from.
///
/// The first token of a draft from `n` matching tokens has the odds of `n`. If it is right the match is one longer, so
/// the token after it has the odds of `n + 1`.
#[derive(Clone, Debug)]
pub struct MatchOdds {
    buckets: [Bucket; PRIORS.len()],
}

/// How often a draft model was right of late, by the probability that it gave its token, and all in all.
///
/// Before anything is known, a token has the odds that its model claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimedOdds {
    buckets: [Bucket; CLAIM_BOUNDS.len() + 1],
    all: Bucket,
}

/// Upper bounds of the probabilities that count as equal: finer where a long draft's worth is decided.
const CLAIM_BOUNDS: [f32; 7] = [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99];

/// The odds of any token of a draft model before it has proposed one.
///
/// Leviathan et al., "Fast inference from transformers via speculative decoding" (ICML 2023), found 0.5 to 0.8 for
/// pairs of models of one family.
const PRIOR_OF_ANY: f32 = 0.65;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    n_right: f32,
    n_tokens: f32,
}

impl Bucket {
    fn odds(self, prior: f32) -> f32 {
        (self.n_right + prior * PRIOR_TOKENS) / (self.n_tokens + PRIOR_TOKENS)
    }

    /// Counts a token; each new one makes the older ones count less.
    fn count(&mut self, is_right: bool) {
        let kept = 1.0 - 1.0 / N_REMEMBERED;
        self.n_right = self.n_right * kept + f32::from(u8::from(is_right));
        self.n_tokens = self.n_tokens * kept + 1.0;
    }
}

impl ClaimedOdds {
    /// Returns the odds that a token is right which nothing is known of yet.
    pub(crate) fn of_any(&self) -> f32 {
        self.all.odds(PRIOR_OF_ANY)
    }

    /// Returns the odds that a token is right whose model gave it `probability`.
    pub(crate) fn of(&self, probability: f32) -> f32 {
        self.buckets[claim_idx(probability)].odds(probability.clamp(0.01, 0.99))
    }

    pub(crate) fn count(&mut self, probability: f32, is_right: bool) {
        self.buckets[claim_idx(probability)].count(is_right);
        self.all.count(is_right);
    }
}

fn claim_idx(probability: f32) -> usize {
    CLAIM_BOUNDS.partition_point(|bound| *bound < probability)
}

impl MatchOdds {
    /// Returns the odds that a token is right which follows `n_matched` matching tokens.
    pub fn after(&self, n_matched: usize) -> f32 {
        let idx = bucket_idx(n_matched);
        self.buckets[idx].odds(PRIORS[idx])
    }

    /// Counts a token that followed `n_matched` matching ones.
    pub(crate) fn count(&mut self, n_matched: usize, is_right: bool) {
        self.buckets[bucket_idx(n_matched)].count(is_right);
    }
}

impl Default for MatchOdds {
    fn default() -> Self {
        Self { buckets: [Bucket::default(); PRIORS.len()] }
    }
}

fn bucket_idx(n_matched: usize) -> usize {
    match n_matched {
        0..=4 => n_matched,
        5..=6 => 5,
        7..=8 => 6,
        9..=12 => 7,
        13..=16 => 8,
        17..=32 => 9,
        33..=64 => 10,
        _ => 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_begin_at_the_prior_follow_what_happens_and_forget() {
        let mut odds = MatchOdds::default();
        assert_eq!(odds.after(2), PRIORS[2]);
        (0..400).for_each(|_| odds.count(2, true));
        assert!((0.95..1.0).contains(&odds.after(2)), "{}", odds.after(2));
        (0..400).for_each(|_| odds.count(2, false));
        assert!((0.0..0.05).contains(&odds.after(2)) && odds.after(2) > 0.0, "{}", odds.after(2));
        (0..400).for_each(|idx| odds.count(2, idx % 4 > 0));
        assert!((0.68..0.80).contains(&odds.after(2)), "{}", odds.after(2));
        assert_eq!(odds.after(3), PRIORS[3], "another length was counted");
    }

    #[test]
    fn a_draft_model_is_believed_until_it_is_known_better() {
        let mut odds = ClaimedOdds::default();
        assert_eq!((odds.of(0.6), odds.of(0.97), odds.of_any()), (0.6, 0.97, PRIOR_OF_ANY));
        assert!(odds.of(1.0) < 1.0 && odds.of(0.0) > 0.0);
        // It claims too much where it claims much.
        (0..200).for_each(|idx| odds.count(0.97, idx % 2 == 0));
        assert!((0.45..0.55).contains(&odds.of(0.96)) && (0.45..0.55).contains(&odds.of_any()), "{odds:?}");
        assert_eq!((odds.of(0.94), odds.of(0.995)), (0.94, 0.99), "other claims were counted");
    }

    #[test]
    fn longer_matches_are_trusted_more_before_anything_is_known() {
        let odds = MatchOdds::default();
        for n_matched in 0..100 {
            assert!(odds.after(n_matched) <= odds.after(n_matched + 1), "{n_matched}");
        }
        assert!(odds.after(0) < odds.after(100));
    }
}

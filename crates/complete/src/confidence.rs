//! How sure it is that an answer is what its user will type.
//!
//! In: the logprobs of its first line, how much of it was typed already; what became of answers that were shown.
//! Out: a probability.
//! Source of the first weights: fitted to 397 answers in five files of published packages (Python, JavaScript, TypeScript,
//! Rust) typed key by key with the default model: right means that the first word is what came next, as 44 in 100 were. The
//! mean logprob alone tells right from wrong as well as any further feature of the logprobs (area under the curve 0.73).
//!
//! They are where a user starts from. Each answer that was taken or turned down moves them a little, as far as they are still
//! in doubt: online Newton steps with a diagonal precision, which is Bayes' rule with each posterior made Gaussian again.

use serde::{Deserialize, Serialize};

/// Characters typed that say all there is to say.
const N_MAX_TYPED: usize = 4;
/// A mean logprob below this is as bad as this.
const MIN_MEAN: f32 = -20.0;
/// A mean logprob this good is never less likely to be right than these log-odds, 30 %.
const SURE_MEAN: f32 = -0.15;
const LEAST_SURE: f32 = -0.847;
/// A weight is never surer than after this much, so that it follows a user who changes.
const MAX_PRECISION: f32 = 200.0;

/// The weights of a logistic model, in log-odds, and how sure they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What it is to be right where every token was certain, what a mean logprob of 1 adds, what each of the first characters
    /// typed just so adds.
    weights: [f32; 3],
    /// One over the variance of each.
    precisions: [f32; 3],
    /// Answers it has learnt from.
    n_learnt: u64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { weights: [1.24, 2.05, 0.5], precisions: [4.0, 4.0, 25.0], n_learnt: 0 }
    }
}

impl Calibration {
    /// Returns the probability that an answer is right after its user has typed `n_typed` bytes of it; `mean_logprob` is its
    /// first line's.
    #[must_use]
    pub fn confidence(&self, mean_logprob: f32, n_typed: usize) -> f32 {
        let features = features(mean_logprob, n_typed);
        let log_odds: f32 = std::iter::zip(self.weights, features).map(|(w, x)| w * x).sum();
        1.0 / (1.0 + (-log_odds).exp())
    }

    /// Learns that an answer was right, or was not.
    pub fn learn(&mut self, mean_logprob: f32, n_typed: usize, was_right: bool) {
        let p = self.confidence(mean_logprob, n_typed);
        let error = f32::from(was_right) - p;
        for (idx, x) in features(mean_logprob, n_typed).into_iter().enumerate() {
            self.precisions[idx] = (self.precisions[idx] + p * (1.0 - p) * x * x).min(MAX_PRECISION);
            self.weights[idx] += error * x / self.precisions[idx];
        }
        // A likelier answer, or one of which more was typed, is never the less likely one to be right.
        self.weights[1..].iter_mut().for_each(|weight| *weight = weight.max(0.0));
        // What is not shown teaches nothing: what is all but certain is shown whatever happened, so that it can be taken again.
        let [certain, by_mean, _] = &mut self.weights;
        *certain = certain.max(LEAST_SURE - *by_mean * SURE_MEAN);
        self.n_learnt += 1;
    }

    /// Returns how many answers it has learnt from.
    #[must_use]
    pub fn n_learnt(&self) -> u64 {
        self.n_learnt
    }

    /// Returns whether its numbers can be reckoned with; those of a file may be anything.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let is_sound = |(weight, precision): (&f32, &f32)| {
            weight.abs() <= 100.0 && (f32::EPSILON..=MAX_PRECISION).contains(precision)
        };
        std::iter::zip(&self.weights, &self.precisions).all(is_sound)
    }
}

/// Returns the mean natural logarithm of the probability of tokens, 0 of none.
#[must_use]
pub fn mean_logprob(logprobs: &[f32]) -> f32 {
    logprobs.iter().sum::<f32>() / logprobs.len().max(1) as f32
}

fn features(mean_logprob: f32, n_typed: usize) -> [f32; 3] {
    // `max` makes of what is no number the least, too.
    [1.0, mean_logprob.max(MIN_MEAN), n_typed.min(N_MAX_TYPED) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_surer_the_likelier_its_tokens_are_and_the_more_of_it_was_typed() {
        let calibration = Calibration::default();
        let order = [
            calibration.confidence(-2.5, 0),
            calibration.confidence(-1.1, 0),
            calibration.confidence(-1.1, 2),
            calibration.confidence(-0.15, 0),
            calibration.confidence(-0.15, 3),
        ];
        assert!(order.is_sorted() && order[0] > 0.0 && order[4] < 1.0, "{order:?}");
        assert!((calibration.confidence(-1.24 / 2.05, 0) - 0.5).abs() < 1e-3);
    }

    /// The share of 1,000 answers, of mean logprobs from 0 to -2, that are right by `weights`; each is learnt.
    fn live(calibration: &mut Calibration, weights: [f32; 2], n: u32) {
        for idx in 0..n {
            // Equidistributed, and the same at every run.
            let [mean, chance] =
                [0.754_877_7, 0.569_840_3].map(|step: f64| (f64::from(idx) * step).fract() as f32);
            let mean = -2.0 * mean;
            let p = 1.0 / (1.0 + (-(weights[0] + weights[1] * mean)).exp());
            calibration.learn(mean, 0, chance < p);
        }
    }

    #[test]
    fn it_comes_to_what_its_user_takes() {
        for (weights, mean) in [([-0.5, 1.0], -0.5), ([2.5, 3.0], -1.0), ([1.24, 2.05], -0.3)] {
            let mut calibration = Calibration::default();
            live(&mut calibration, weights, 2000);
            let expected = 1.0 / (1.0 + (-(weights[0] + weights[1] * mean)).exp());
            let found = calibration.confidence(mean, 0);
            assert!((found - expected).abs() < 0.06, "{weights:?}: {found} for {expected}, {calibration:?}");
            assert!(calibration.is_sound() && calibration.n_learnt() == 2000);
        }
    }

    #[test]
    fn a_few_answers_do_not_turn_it_over_and_no_number_of_them_breaks_it() {
        let mut calibration = Calibration::default();
        let before = calibration.confidence(-0.2, 0);
        (0..3).for_each(|_| calibration.learn(-0.2, 0, false));
        let after = calibration.confidence(-0.2, 0);
        assert!(after < before && after > before / 2.0, "{before} to {after}");
        for idx in 0..10_000 {
            calibration.learn([f32::MIN, -1e30, f32::NAN][idx % 3], idx, idx % 2 == 0);
            calibration.learn(-20.0, 9, true);
        }
        assert!(calibration.is_sound(), "{calibration:?}");
    }

    #[test]
    fn what_is_all_but_certain_is_shown_whatever_was_turned_down() {
        let mut calibration = Calibration::default();
        (0..1000).for_each(|_| calibration.learn(-0.1, 0, false));
        assert!(calibration.confidence(-0.1, 0) > 0.25, "{calibration:?}");
        assert!(calibration.confidence(-1.0, 0) < 0.25, "{calibration:?}");
        (0..200).for_each(|_| calibration.learn(-0.1, 0, true));
        assert!(calibration.confidence(-0.1, 0) > 0.5, "{calibration:?}");
    }

    #[test]
    fn numbers_of_a_file_that_cannot_be_are_seen() {
        let check = |text: &str, expected: bool| {
            let found =
                serde_json::from_str::<Calibration>(text).is_ok_and(|calibration| calibration.is_sound());
            assert_eq!(found, expected, "{text}");
        };
        check(r#"{"weights":[1,2,0.5],"precisions":[4,4,25],"n_learnt":7}"#, true);
        check(r#"{"weights":[1e9,2,0.5],"precisions":[4,4,25],"n_learnt":7}"#, false);
        check(r#"{"weights":[1,2,0.5],"precisions":[0,4,25],"n_learnt":7}"#, false);
        check(r#"{"weights":[1,2],"precisions":[4,4,25],"n_learnt":7}"#, false);
    }
}

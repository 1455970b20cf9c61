//! What drafts may still cost one answer.
//!
//! In: proposals with their odds, what steps take, what came. Out: how many tokens of a proposal to verify.
//! Never: reads a clock or draws a random number: equal observations give equal answers.

use crate::{Draft, StepCosts, TokenId};

/// Plain steps that drafts may cost an answer before one was right: two wrong tokens, where a row costs a quarter.
const FIRST_STAKE: f64 = 0.6;

/// How deep it falls: from there on four right guesses that nobody verified bring drafts back.
const LEAST_STAKE: f64 = -2.0;

/// Odds of the first token up to which all that a draft costs is at stake; of more certain ones a part, down to none.
const CERTAIN: f32 = 0.75;

/// Plain steps that drafts have saved an answer so far, and those they are lent at its start.
///
/// [`MatchOdds`](crate::MatchOdds) remember what was right on average, over many answers; in a single answer all may be
/// wrong, and where a second row costs a quarter of a step, that soon makes it a tenth slower. Therefore a draft is
/// verified only as far as the steps are there to lose that it costs. A proposal that is not verified is compared with
/// what comes all the same, and counts as if its first token had been.
#[derive(Debug)]
pub(crate) struct Stake {
    n_steps: f64,
    /// Rows of others in the step that was planned last.
    n_others: usize,
    /// The first token of a proposal that would have paid but for the stake.
    unverified: Option<TokenId>,
}

impl Default for Stake {
    fn default() -> Self {
        Self { n_steps: FIRST_STAKE, n_others: 0, unverified: None }
    }
}

impl Stake {
    /// Returns how many tokens of `guess` to verify in a step that carries `n_others` rows anyway.
    pub(crate) fn n_to_draft(&mut self, guess: &Draft, costs: &StepCosts, n_others: usize) -> usize {
        self.n_others = n_others;
        self.unverified = None;
        let n_paying = costs.n_to_draft_beside(n_others, &guess.odds);
        let Some(&odds) = guess.odds.first() else { return 0 };
        let risk = f64::from((1.0 - odds) / (1.0 - CERTAIN)).min(1.0);
        let is_affordable = |&n: &usize| {
            // Where nobody knows what a row costs, that is what the draft is for.
            costs.extra(n_others, n).is_none_or(|extra| extra * risk <= self.n_steps)
        };
        let n_affordable = (1..=n_paying).take_while(is_affordable).count();
        // Fewer tokens may not pay where more do.
        let n_drafted = match n_affordable == n_paying {
            true => n_paying,
            false => costs.n_to_draft_beside(n_others, &guess.odds[..n_affordable]),
        };
        if n_drafted == 0 && n_paying > 0 {
            self.unverified = guess.tokens.first().copied();
        }
        n_drafted
    }

    /// Counts what became of the guess: of `n_guessed` tokens verified `n_right` were right, and `came` is the token in
    /// the place of its first one, if the answer got there.
    pub(crate) fn settle(
        &mut self,
        costs: &StepCosts,
        n_guessed: usize,
        n_right: usize,
        came: Option<TokenId>,
    ) {
        let (n_rows, n_right) = match self.unverified.take() {
            Some(unverified) if n_guessed == 0 && came.is_some() => {
                (1, usize::from(came == Some(unverified)))
            }
            _ => (n_guessed, n_right),
        };
        if let Some(extra) = costs.extra(self.n_others, n_rows) {
            self.n_steps = (self.n_steps + n_right as f64 - extra).max(LEAST_STAKE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A second row costs a quarter of a step, and so does each further one.
    fn costs() -> StepCosts {
        let mut costs = StepCosts::default();
        for n_rows in 1..=8 {
            for _ in 0..3 {
                costs.observe(n_rows, Duration::from_micros(2000 + 500 * (n_rows as u64 - 1)));
            }
        }
        costs
    }

    fn guess(odds: f32, n_tokens: u32) -> Draft {
        Draft { tokens: (0..n_tokens).map(TokenId).collect(), odds: vec![odds; n_tokens as usize] }
    }

    #[test]
    fn drafts_that_are_always_wrong_cost_an_answer_less_than_a_step() {
        let costs = costs();
        for odds in [0.4, 0.5, 0.6, 0.7] {
            let mut stake = Stake::default();
            let mut n_lost = 0.0;
            for _ in 0..100 {
                let n_drafted = stake.n_to_draft(&guess(odds, 4), &costs, 0);
                n_lost += costs.extra(0, n_drafted).expect("measured");
                stake.settle(&costs, n_drafted, 0, Some(TokenId(9)));
            }
            assert!((0.1..=0.75).contains(&n_lost), "{odds}: {n_lost}");
        }
    }

    #[test]
    fn drafts_that_are_right_grow_as_long_as_pays() {
        let costs = costs();
        let mut stake = Stake::default();
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let n_drafted = stake.n_to_draft(&guess(0.8, 7), &costs, 0);
            lengths.push(n_drafted);
            stake.settle(&costs, n_drafted, n_drafted, None);
        }
        assert_eq!(lengths.last(), Some(&costs.n_to_draft(&[0.8; 7])), "{lengths:?}");
    }

    #[test]
    fn a_guess_that_is_all_but_certain_is_verified_at_once() {
        let costs = costs();
        assert_eq!(Stake::default().n_to_draft(&guess(0.97, 7), &costs, 0), 7);
    }

    #[test]
    fn right_guesses_that_nobody_verified_bring_drafts_back() {
        let costs = costs();
        let mut stake = Stake::default();
        let doubtful = guess(0.5, 2);
        for _ in 0..20 {
            let n_drafted = stake.n_to_draft(&doubtful, &costs, 0);
            stake.settle(&costs, n_drafted, 0, Some(TokenId(9)));
        }
        assert_eq!(stake.n_to_draft(&doubtful, &costs, 0), 0);
        for _ in 0..4 {
            stake.settle(&costs, 0, 0, Some(TokenId(0)));
            stake.n_to_draft(&doubtful, &costs, 0);
        }
        assert!(stake.n_to_draft(&doubtful, &costs, 0) > 0);
    }

    #[test]
    fn a_probe_is_for_finding_out_and_needs_no_stake() {
        let mut costs = StepCosts::default();
        (0..3).for_each(|_| costs.observe(1, Duration::from_millis(2)));
        let mut stake = Stake { n_steps: LEAST_STAKE, ..Stake::default() };
        assert_eq!(stake.n_to_draft(&guess(0.6, 3), &costs, 0), 1);
    }
}

//! What drafts may still cost one answer.
//!
//! In: proposals with their odds, what steps take, what came. Out: how many tokens of a proposal to verify.
//! Never: reads a clock or draws a random number: equal observations give equal answers.

use crate::{Draft, StepCosts, TokenId};

/// Plain steps that doubtful drafts may cost an answer before one was right: one wrong token.
const FIRST_STAKE: f64 = 0.3;

/// How deep it falls: from there on four right guesses that nobody verified bring drafts back.
const LEAST_STAKE: f64 = -2.0;

/// Odds of the first token up to which all that a draft costs is at stake; of more certain ones a part, down to none.
const CERTAIN: f32 = 0.9;

/// What part of its plain steps an answer may lose by drafts, whatever they promised.
const MOST_LOST: f64 = 0.02;

/// Plain steps that MOST_LOST is a part of until an answer is longer: those of a suggestion of usual length.
const USUAL_LENGTH: f64 = 31.0;

/// Plain steps that drafts have saved an answer so far, and those they are lent at its start.
///
/// [`MatchOdds`](crate::MatchOdds) remember what was right on average, over many answers; in a single answer all may be
/// wrong, and where a second row costs a quarter of a step, that soon makes it a tenth slower. Therefore a draft is
/// verified only as far as the steps are there to lose that it costs. A proposal that is not verified is compared with
/// what comes all the same, and counts as if its first token had been: drafts come back where they would have paid. But
/// beyond [`MOST_LOST`] nothing is lost on them, and the way back is one of single tokens.
#[derive(Debug)]
pub(crate) struct Stake {
    /// With what unverified proposals would have saved.
    n_steps: f64,
    /// What drafts have really saved; less than none if they have cost more.
    n_saved: f64,
    /// Tokens that came in its steps, without those that a grammar or a draft model has added.
    n_tokens: usize,
    /// Rows of others in the step that was planned last.
    n_others: usize,
    /// The first token of a proposal that would have paid but for the stake.
    unverified: Option<TokenId>,
}

impl Default for Stake {
    fn default() -> Self {
        Self { n_steps: FIRST_STAKE, n_saved: 0.0, n_tokens: 0, n_others: 0, unverified: None }
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
        let n_left = MOST_LOST * (self.n_tokens as f64).max(USUAL_LENGTH) + self.n_saved;
        let is_affordable = |&n: &usize| {
            // Where nobody knows what a row costs, one token finds out.
            costs.extra(n_others, n).map_or(n == 1, |extra| extra * risk <= self.n_steps && extra <= n_left)
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
        self.n_tokens += n_right + 1;
        let saved = |n_guessed, n_right| {
            costs.extra(self.n_others, n_guessed).map_or(0.0, |extra| n_right as f64 - extra)
        };
        self.n_saved += saved(n_guessed, n_right);
        self.n_steps += match self.unverified {
            Some(unverified) if n_guessed == 0 && came.is_some() => {
                saved(1, usize::from(came == Some(unverified)))
            }
            _ => saved(n_guessed, n_right),
        };
        self.n_steps = self.n_steps.max(LEAST_STAKE);
        self.unverified = None;
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

    /// Returns what an answer of `n_tokens` loses by drafts whose first token is always wrong.
    fn lost_on_wrong_drafts(odds: f32, n_tokens: usize) -> f64 {
        let costs = costs();
        let mut stake = Stake::default();
        let mut n_lost = 0.0;
        for _ in 0..n_tokens {
            let n_drafted = stake.n_to_draft(&guess(odds, 7), &costs, 0);
            n_lost += costs.extra(0, n_drafted).expect("measured");
            stake.settle(&costs, n_drafted, 0, Some(TokenId(9)));
        }
        n_lost
    }

    #[test]
    fn drafts_that_are_always_wrong_cost_an_answer_a_fiftieth_at_most() {
        for odds in [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0] {
            let n_lost = lost_on_wrong_drafts(odds, 31);
            assert!((0.1..=0.62).contains(&n_lost), "{odds}: {n_lost}");
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
        assert!(lengths[0] < 3, "{lengths:?}");
        assert_eq!(lengths.last(), Some(&costs.n_to_draft(&[0.8; 7])), "{lengths:?}");
    }

    #[test]
    fn a_guess_that_is_all_but_certain_needs_to_have_been_right_once() {
        let costs = costs();
        let mut stake = Stake::default();
        assert_eq!(stake.n_to_draft(&guess(0.97, 7), &costs, 0), 2);
        stake.settle(&costs, 2, 2, Some(TokenId(0)));
        assert_eq!(stake.n_to_draft(&guess(0.97, 7), &costs, 0), 7);
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
    fn whatever_comes_of_drafts_no_more_than_a_fiftieth_is_lost() {
        let costs = costs();
        let mut state = 1u32;
        for _ in 0..200 {
            let mut stake = Stake::default();
            while stake.n_tokens < 60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let odds = (state >> 16) as f32 / 65_536.0;
                let n_drafted = stake.n_to_draft(&guess(odds, 7), &costs, 0);
                // A quarter of what was drafted is right, whatever the odds said.
                let n_right = if (state >> 8) & 3 == 0 { n_drafted } else { 0 };
                stake.settle(&costs, n_drafted, n_right, Some(TokenId(u32::from(n_right == 0))));
                let most = MOST_LOST * (stake.n_tokens as f64).max(USUAL_LENGTH);
                assert!(stake.n_saved >= -most - 1e-9, "{stake:?}");
            }
        }
    }

    #[test]
    fn beside_others_too_one_token_finds_out_what_a_row_costs() {
        let mut costs = StepCosts::default();
        for (n_rows, millis) in [(1, 2), (2, 2), (1, 2), (2, 2), (1, 2), (2, 2)] {
            costs.observe(n_rows, Duration::from_millis(millis));
        }
        assert!(Stake::default().n_to_draft(&guess(0.95, 7), &costs, 1) <= 1);
    }

    #[test]
    fn a_long_answer_has_more_to_lose() {
        let costs = costs();
        let n_drafted = |n_tokens| {
            let mut stake = Stake { n_steps: 5.0, n_tokens, ..Stake::default() };
            stake.n_to_draft(&guess(0.97, 7), &costs, 0)
        };
        assert_eq!([n_drafted(0), n_drafted(31), n_drafted(100)], [2, 2, 7]);
    }

    #[test]
    fn a_probe_is_for_finding_out_and_needs_no_stake() {
        let mut costs = StepCosts::default();
        (0..3).for_each(|_| costs.observe(1, Duration::from_millis(2)));
        let mut stake = Stake { n_steps: LEAST_STAKE, ..Stake::default() };
        assert_eq!(stake.n_to_draft(&guess(0.6, 3), &costs, 0), 1);
    }
}

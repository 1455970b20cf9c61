//! A place in a known text that an answer retraces, with detours.
//!
//! In: the known text, the answer as it grows. Out: where in the text the answer is, and how sure that is.

#[cfg(test)]
mod tests;

use super::ledger::{Growth, Ledger};
use crate::{Draft, MatchOdds, TokenId};

/// Tokens of agreement compared when a place is looked for, and enough for the place to be trusted.
///
/// Measured on 90 changed files of this repository's own history in SmolLM2's tokens (239,482 of them, teacher-forced,
/// drafts of 7, 2026-11-26): trust after 4, 8, 12, 16 and 24 tokens takes 28.0, 27.4, 25.0, 25.1 and 24.8 steps for 100
/// tokens.
const N_TRUSTED: usize = 16;

/// How far from the last trusted place a new one is looked for, in tokens, on either side.
///
/// Measured as above: 128 behind takes 26.9 steps for 100 tokens, 512 takes 25.0 and 2,048 takes 24.0; ahead, 512 does
/// as well as 8,192.
const N_WINDOW: usize = 1024;

/// How far from there a single token of agreement is believed, in tokens. Each token more allows twice the distance.
///
/// Measured as above: 4, 8, 16 and 32 take 26.4, 25.7, 25.0 and 24.4 steps for 100 tokens. Without any regard to the
/// distance the drafter is led astray by repeated code and takes 29 to 37.
const N_NEAR: f64 = 32.0;

/// What the prompt is worth at the start, in tokens of agreement: it asks for the known text.
const N_AGREED_AT_START: usize = 8;

/// Follows an answer through a known text.
#[derive(Debug)]
pub(crate) struct Retrace {
    text: Vec<TokenId>,
    /// Tokens of the sequence before the answer.
    n_prompt: usize,
    /// The index of the token expected next.
    at: usize,
    /// How many tokens before `at` the answer agrees in; 0 when the place is only supposed.
    n_agreed: usize,
    /// The last place that could be trusted; wrong turns do not move it.
    anchor: usize,
    ledger: Ledger,
}

impl Retrace {
    pub(crate) fn new(text: Vec<TokenId>, n_prompt: usize, odds: MatchOdds) -> Self {
        Self { text, n_prompt, at: 0, n_agreed: N_AGREED_AT_START, anchor: 0, ledger: Ledger::new(odds) }
    }

    pub(crate) fn sync(&mut self, tokens: &[TokenId]) {
        let n_seen = match self.ledger.sync(tokens) {
            Growth::Grown { n_seen } => n_seen,
            Growth::Other => {
                (self.at, self.n_agreed, self.anchor) = (0, N_AGREED_AT_START, 0);
                0
            }
        };
        for n_tokens in n_seen.max(self.n_prompt)..tokens.len() {
            self.follow(&tokens[self.n_prompt..=n_tokens]);
        }
    }

    pub(crate) fn propose(&mut self, n_max: usize) -> Draft {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_begun = self.ledger.seen().len() >= self.n_prompt;
        let tokens = if is_begun { rest.iter().copied().take(n_max).collect() } else { Vec::new() };
        self.ledger.draft(self.n_agreed, tokens)
    }

    pub(crate) fn odds(&self) -> &MatchOdds {
        self.ledger.odds()
    }

    /// Takes the answer's last token into account.
    fn follow(&mut self, answer: &[TokenId]) {
        if self.text.get(self.at) == answer.last() {
            self.at += 1;
            self.n_agreed += 1;
        } else if let Some((end, n_agreed)) = self.place(answer) {
            (self.at, self.n_agreed) = (end, n_agreed);
        } else {
            // As if this token had taken the place of the expected one.
            (self.at, self.n_agreed) = (self.at + 1, 0);
        }
        if self.n_agreed >= N_TRUSTED {
            self.anchor = self.at;
        }
    }

    /// Returns the end of a run near the anchor with which the answer ends, and its length: the longest unless one that
    /// is not much shorter is much nearer. Of equals the one ahead wins.
    fn place(&self, answer: &[TokenId]) -> Option<(usize, usize)> {
        let behind = self.anchor.saturating_sub(N_WINDOW) + 1..=self.anchor;
        let ahead = self.anchor + 1..=self.text.len().min(self.anchor + N_WINDOW);
        let mut best = None;
        let mut best_score = 0.0;
        for end in ahead.chain(behind) {
            let n_agreed = n_common(&self.text[..end], answer);
            let score = n_agreed as f64 - (1.0 + end.abs_diff(self.anchor) as f64 / N_NEAR).log2();
            if n_agreed > 0 && score > best_score {
                (best, best_score) = (Some((end, n_agreed)), score);
            }
        }
        best
    }
}

/// Returns how many tokens both texts end with, [`N_TRUSTED`] at most.
fn n_common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take(N_TRUSTED).take_while(|(a, b)| a == b).count()
}

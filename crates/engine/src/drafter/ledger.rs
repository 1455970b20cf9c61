//! What a drafter has seen and proposed, and what came of it.
//!
//! In: the sequence at each step, the drafter's guesses. Out: what is new in the sequence; drafts with their odds.

use crate::{Draft, MatchOdds, TokenId};

/// Keeps a drafter's books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seen: Vec<TokenId>,
    odds: MatchOdds,
    proposed: Vec<TokenId>,
    /// How long the match was from which `proposed` was drafted.
    n_matched: usize,
}

/// How a sequence differs from what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// So many of its tokens were seen, and the others are new.
    Grown { n_seen: usize },
    /// It is another sequence.
    Other,
}

impl Ledger {
    pub(crate) fn new(odds: MatchOdds) -> Self {
        Self { odds, ..Self::default() }
    }

    /// Compares a sequence with what was seen and proposed, and takes it over.
    pub(crate) fn sync(&mut self, tokens: &[TokenId]) -> Growth {
        let n_seen = self.seen.len();
        match tokens.strip_prefix(self.seen.as_slice()) {
            Some([]) => Growth::Grown { n_seen },
            Some(new) => {
                self.settle(new);
                self.seen.extend_from_slice(new);
                Growth::Grown { n_seen }
            }
            None => {
                self.proposed.clear();
                self.seen.clear();
                self.seen.extend_from_slice(tokens);
                Growth::Other
            }
        }
    }

    /// Returns a draft of `tokens`, guessed from a match of `n_matched` tokens, and remembers it.
    pub(crate) fn draft(&mut self, n_matched: usize, tokens: Vec<TokenId>) -> Draft {
        let odds = (0..tokens.len()).map(|idx| self.odds.after(n_matched + idx)).collect();
        self.proposed.clone_from(&tokens);
        self.n_matched = n_matched;
        Draft { tokens, odds }
    }

    /// Returns the sequence as last seen.
    pub(crate) fn seen(&self) -> &[TokenId] {
        &self.seen
    }

    pub(crate) fn odds(&self) -> &MatchOdds {
        &self.odds
    }

    /// Counts the proposed tokens that `new` decides: all up to the first wrong one.
    fn settle(&mut self, new: &[TokenId]) {
        for (idx, (proposed, token)) in self.proposed.iter().zip(new).enumerate() {
            self.odds.count(self.n_matched + idx, proposed == token);
            if proposed != token {
                break;
            }
        }
        self.proposed.clear();
    }
}

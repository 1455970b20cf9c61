//! The drafter that copies what followed the latest tokens when they last stood somewhere.
//!
//! In: the sequence; texts that may resemble it, such as open files and earlier answers. Out: drafts.
//! The sequence holds the document already: in its prefix, its suffix and its extras.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::automaton::{Automaton, Cursor};
use super::ledger::{Growth, Ledger};
use crate::{Draft, Drafter, DrafterKind, MatchOdds, TokenId};

/// Most tokens of a sequence, and of a corpus, that are remembered.
///
/// They take about 100 bytes each, and 256 at most: two states, three edges, vectors half empty. That is 16 MiB
/// for either at the worst.
const N_MAX_TOKENS: usize = 65_536;

/// Fewest tokens that must match.
///
/// One token says next to nothing of what comes after it.
const N_SHORTEST: usize = 2;

/// Texts that sequences may resemble: built once, then shared by all that draft from it.
#[derive(Debug)]
pub struct Corpus {
    automaton: Automaton,
}

impl Corpus {
    /// Indexes `texts`, the most relevant last.
    ///
    /// Only the last 65,536 tokens are taken, so that a corpus never holds more than 16 MiB.
    pub fn new(texts: &[&[TokenId]]) -> Self {
        Self::with_limit(texts, N_MAX_TOKENS)
    }

    fn with_limit(texts: &[&[TokenId]], n_max_tokens: usize) -> Self {
        let n_tokens: usize = texts.iter().map(|text| text.len() + 1).sum();
        let mut n_left_out = n_tokens.saturating_sub(n_max_tokens);
        let mut automaton = Automaton::with_room_for(n_tokens - n_left_out);
        for text in texts {
            for &token in text.get(n_left_out..).unwrap_or_default() {
                automaton.append(token);
            }
            automaton.end_text();
            n_left_out = n_left_out.saturating_sub(text.len() + 1);
        }
        Self { automaton }
    }

    /// Returns the memory that is held, in bytes.
    pub fn n_bytes(&self) -> usize {
        self.automaton.n_bytes()
    }
}

/// Drafts what followed the longest run that the sequence ends with, where it last stood.
///
/// It looks in the sequence itself and in a [`Corpus`]; of two matches of a length, the sequence's own wins.
#[derive(Debug)]
pub struct SuffixAutomaton {
    corpus: Arc<Corpus>,
    in_corpus: Cursor,
    sequence: Automaton,
    ledger: Ledger,
    n_max_tokens: usize,
}

impl SuffixAutomaton {
    /// Returns a drafter that has seen no sequence yet. It begins with `odds`, which
    /// [`odds`](Drafter::odds) of an earlier one may have given.
    ///
    /// Of a sequence longer than 65,536 tokens, the older half is forgotten whenever as many are reached, so that it
    /// never holds more than 16 MiB.
    pub fn new(corpus: Arc<Corpus>, odds: MatchOdds) -> Self {
        Self::with_limit(corpus, odds, N_MAX_TOKENS)
    }

    fn with_limit(corpus: Arc<Corpus>, odds: MatchOdds, n_max_tokens: usize) -> Self {
        Self {
            corpus,
            in_corpus: Cursor::default(),
            sequence: Automaton::with_room_for(0),
            ledger: Ledger::new(odds),
            n_max_tokens,
        }
    }

    /// Returns the memory that is held for the sequence, in bytes.
    pub fn n_bytes(&self) -> usize {
        self.sequence.n_bytes() + size_of_val(self.ledger.seen())
    }

    fn append(&mut self, token: TokenId) {
        if self.sequence.text().len() >= self.n_max_tokens {
            let newer = self.sequence.text()[self.n_max_tokens / 2..].to_vec();
            self.sequence.clear();
            newer.into_iter().for_each(|token| self.sequence.append(token));
        }
        self.sequence.append(token);
        self.in_corpus = self.corpus.automaton.advance(self.in_corpus, token);
    }
}

impl Drafter for SuffixAutomaton {
    fn sync(&mut self, tokens: &[TokenId]) {
        let n_seen = match self.ledger.sync(tokens) {
            Growth::Grown { n_seen } => n_seen,
            Growth::Other => {
                self.sequence.clear();
                self.in_corpus = Cursor::default();
                0
            }
        };
        tokens[n_seen..].iter().for_each(|&token| self.append(token));
    }

    fn propose(&mut self, n_max: usize) -> Draft {
        let own = self.sequence.repeat();
        let other = self.corpus.automaton.find(self.in_corpus);
        let n_matched = own.n_tokens.max(other.n_tokens);
        if n_matched < N_SHORTEST {
            return self.ledger.draft(0, Vec::new());
        }
        let tokens = if own.n_tokens >= other.n_tokens {
            // Where the sequence ends the copy goes on: what repeats itself every few tokens is drafted at length.
            self.sequence.text()[own.end..].iter().copied().cycle().take(n_max).collect()
        } else {
            self.corpus.automaton.after(other.end).iter().copied().take(n_max).collect()
        };
        self.ledger.draft(n_matched, tokens)
    }

    fn kind(&self) -> DrafterKind {
        DrafterKind::SuffixAutomaton
    }

    fn odds(&self) -> &MatchOdds {
        self.ledger.odds()
    }
}

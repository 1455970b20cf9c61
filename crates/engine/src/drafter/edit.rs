//! The drafters that know a text which the answer is likely to repeat, changed or not.
//!
//! In: the text, and how long the prompt is. Out: drafts.
//! Source: speculative edits as Cursor and Fireworks describe them; what is drafted after a change is our own.

use super::retrace::Retrace;
use crate::{Draft, Drafter, DrafterKind, MatchOdds, TokenId};

/// Drafts the original of a text that the answer rewrites.
///
/// While the model repeats the original, its next tokens are the draft. Where the model departs from it, the drafter
/// looks for the place where the answer's latest tokens stand, so that tokens put in, left out or replaced cost a few
/// steps each.
#[derive(Debug)]
pub struct EditDrafter {
    retrace: Retrace,
}

impl EditDrafter {
    /// Returns a drafter of `original`, which the answer rewrites after a prompt of `n_prompt` tokens. It begins with
    /// `odds`, which [`odds`](Drafter::odds) of an earlier one may have given.
    pub fn new(original: Vec<TokenId>, n_prompt: usize, odds: MatchOdds) -> Self {
        Self { retrace: Retrace::new(original, n_prompt, odds) }
    }
}

impl Drafter for EditDrafter {
    fn sync(&mut self, tokens: &[TokenId]) {
        self.retrace.sync(tokens);
    }

    fn propose(&mut self, n_max: usize) -> Draft {
        self.retrace.propose(n_max)
    }

    fn kind(&self) -> DrafterKind {
        DrafterKind::Edit
    }

    fn odds(&self) -> &MatchOdds {
        self.retrace.odds()
    }
}

/// Drafts what is left of an answer given before, such as ghost text of which the user has typed a part.
///
/// Where the model departs from it, it is taken up again as by [`EditDrafter`].
#[derive(Debug)]
pub struct PreviousAnswer {
    retrace: Retrace,
}

impl PreviousAnswer {
    /// Returns a drafter of `rest`, what the previous answer says from the end of the prompt of `n_prompt` tokens on.
    /// It begins with `odds`, which [`odds`](Drafter::odds) of an earlier one may have given.
    pub fn new(rest: Vec<TokenId>, n_prompt: usize, odds: MatchOdds) -> Self {
        Self { retrace: Retrace::new(rest, n_prompt, odds) }
    }
}

impl Drafter for PreviousAnswer {
    fn sync(&mut self, tokens: &[TokenId]) {
        self.retrace.sync(tokens);
    }

    fn propose(&mut self, n_max: usize) -> Draft {
        self.retrace.propose(n_max)
    }

    fn kind(&self) -> DrafterKind {
        DrafterKind::PreviousAnswer
    }

    fn odds(&self) -> &MatchOdds {
        self.retrace.odds()
    }
}

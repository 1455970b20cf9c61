//! Drafters: cheap guesses at the next tokens, which one step then verifies together.
//!
//! In: a sequence as it grows. Out: drafts, each token with the odds that it is right.
//! Never: changes an answer, only how many steps it takes (I-7); draws a random number, but for the draft model, which
//! draws those that its target will.
//! Thread: the one that steps the sequence.

mod automaton;
mod combine;
mod edges;
mod edit;
mod ledger;
mod model;
mod odds;
mod policy;
mod retrace;
mod stake;
mod suffix;
#[cfg(test)]
mod tests;

pub use combine::Combined;
pub use edit::{EditDrafter, PreviousAnswer};
pub(crate) use model::{Ask, DraftModel, ModelDraft};
pub use odds::MatchOdds;
pub use policy::StepCosts;
pub(crate) use stake::Stake;
pub use suffix::{Corpus, SuffixAutomaton};

use crate::TokenId;

/// Proposes tokens that may come next in one sequence.
///
/// A turn is [`sync`](Self::sync), [`propose`](Self::propose), a step over as much of the draft as pays
/// ([`StepCosts::n_to_draft`]), [`observe`](Self::observe).
pub trait Drafter: Send {
    /// Takes over the whole sequence so far, prompt and answer.
    ///
    /// It has usually grown by a few tokens since the last call, and that is cheap. If it has not, it is another
    /// sequence, and the drafter starts again. What came is compared with what was proposed, whether or not a step
    /// took it: a drafter that is never listened to still learns how often it is right.
    fn sync(&mut self, tokens: &[TokenId]);

    /// Returns at most `n_max` tokens that may follow what was last synced.
    fn propose(&mut self, n_max: usize) -> Draft;

    /// Hears how many tokens of the last proposal a step verified, and how many of those it kept.
    fn observe(&mut self, n_drafted: usize, n_kept: usize) {
        let _ = (n_drafted, n_kept);
    }

    /// Returns where the last proposal came from.
    fn kind(&self) -> DrafterKind;

    /// Returns how often this drafter has been right; the next one of its kind may start from it.
    fn odds(&self) -> &MatchOdds;
}

/// Tokens that may come next, the nearest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// How likely each token is right, given that those before it are; one for each token, above 0 and below 1.
    pub odds: Vec<f32>,
}

impl Draft {
    /// Keeps the first `n_tokens` tokens.
    pub fn truncate(&mut self, n_tokens: usize) {
        self.tokens.truncate(n_tokens);
        self.odds.truncate(n_tokens);
    }

    /// Returns how many of the tokens will be kept on average if all of them are verified.
    pub fn n_expected(&self) -> f32 {
        let mut all_right = 1.0;
        self.odds
            .iter()
            .map(|odds| {
                all_right *= odds;
                all_right
            })
            .sum()
    }
}

/// The kinds of drafters there are, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrafterKind {
    /// The rest of an answer given before.
    PreviousAnswer,
    /// The text that is being rewritten.
    Edit,
    /// What followed the same tokens elsewhere.
    SuffixAutomaton,
    /// What a smaller model would say; it alone takes time, and is asked where the others have nothing.
    DraftModel,
}

impl DrafterKind {
    /// All kinds, in the order of `kind as usize`.
    pub const ALL: [Self; 4] = [Self::PreviousAnswer, Self::Edit, Self::SuffixAutomaton, Self::DraftModel];

    /// Returns the kind's name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreviousAnswer => "previous_answer",
            Self::Edit => "edit",
            Self::SuffixAutomaton => "suffix_automaton",
            Self::DraftModel => "draft_model",
        }
    }
}

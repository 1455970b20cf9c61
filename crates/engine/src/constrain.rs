//! Constraints: what may come next in an answer, whatever the model would rather say.
//!
//! In: bytes the answer must begin with, a grammar. Out: masks over logits, and tokens that are forced.
//! Never: lets text make a special token (I-3); computes on a thread of its own.
//! Thread: a grammar is compiled on its caller's; the engine thread masks.
//! Source: `llguidance` decides what a grammar allows; healing as in Full Line Code Completion (arXiv 2405.08704).

mod error;
mod expansion;
mod grammar;
mod healed;
mod healing;
mod place;
mod spec;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::sync::Arc;

pub use error::GrammarError;
use grammar::Grammar;
use healed::Healed;
use healing::Healing;
pub use spec::GrammarSpec;
pub(crate) use vocabulary::GrammarVocabulary;

use crate::{TokenId, Tokenizer};

/// What an answer must be. It follows the answer token by token.
pub(crate) trait Constraint: Send {
    /// Puts minus infinity on every token that cannot come next; returns false if none can.
    ///
    /// `logits: [n_vocab] f32`. A token that ends the answer can come where [`Constraint::may_end`] says so.
    ///
    /// # Errors
    /// [`GrammarError::TooExpensive`] and [`GrammarError::DeadEnd`]: the grammar's author can fix them.
    fn mask(&mut self, logits: &mut [f32]) -> Result<bool, GrammarError>;

    /// Returns how many of `tokens`, from the first on, may come next. Cheaper than a mask, and agrees with it about
    /// the first token; of those after it, some may be let through that a mask would not.
    fn n_allowed(&mut self, tokens: &[TokenId]) -> usize;

    /// Returns whether `token` may come next.
    fn allows(&mut self, token: TokenId) -> bool {
        self.n_allowed(&[token]) == 1
    }

    /// Returns how many of `tokens` may come after all of `forced`, which is what [`Constraint::forced`] gave; none of
    /// them where the constraint cannot go back to see.
    fn n_allowed_after(&mut self, forced: &[TokenId], tokens: &[TokenId]) -> usize;

    /// Takes `token` as the answer's next.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] for a token that was not allowed; [`GrammarError::TooExpensive`].
    fn advance(&mut self, token: TokenId) -> Result<(), GrammarError>;

    /// Returns at most `n_max` tokens that are the only ones that can come next, as a draft.
    fn forced(&mut self, n_max: usize) -> Vec<TokenId>;

    /// Goes back to where the answer had `n_tokens` tokens.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`] for a Lark grammar with `max_tokens` or `stop`, which cannot go back.
    fn truncate(&mut self, n_tokens: usize) -> Result<(), GrammarError>;

    /// Returns whether the answer may end here.
    fn may_end(&mut self) -> bool;

    /// Returns whether the answer must end here.
    fn is_complete(&self) -> bool;
}

/// Returns the constraint of an answer that begins with the bytes `healed` and goes on as `grammar` says.
pub(crate) fn constraint(
    tokenizer: &Arc<Tokenizer>,
    healed: Vec<u8>,
    grammar: Option<Grammar>,
) -> Option<Box<dyn Constraint>> {
    match (healed.is_empty(), grammar) {
        (true, None) => None,
        (true, Some(grammar)) => Some(Box::new(grammar)),
        (false, None) => Some(Box::new(Healing::new(Arc::clone(tokenizer), healed))),
        (false, Some(grammar)) => {
            Some(Box::new(Healed::new(Healing::new(Arc::clone(tokenizer), healed), grammar)))
        }
    }
}

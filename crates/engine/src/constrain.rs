//! Token healing: the answer must begin with given bytes.
//!
//! In: the bytes backed up over at the cursor. Out: a mask over the next token's logits.
//! Source: JetBrains' Full Line Code Completion (arXiv 2405.08704) heals the same way.

use crate::{TokenId, Tokenizer};

/// The bytes still owed before generation is free.
#[derive(Clone, Debug, Default)]
pub(crate) struct Healing {
    owed: Vec<u8>,
}

impl Healing {
    pub(crate) fn new(owed: Vec<u8>) -> Self {
        Self { owed }
    }

    /// Returns whether the answer has begun with all the bytes it owed.
    pub(crate) fn is_done(&self) -> bool {
        self.owed.is_empty()
    }

    /// Puts minus infinity on every token that cannot come next; returns false if none can.
    pub(crate) fn apply(&self, tokenizer: &Tokenizer, logits: &mut [f32]) -> bool {
        if self.is_done() {
            return true;
        }
        let mut allowed = vec![false; logits.len()];
        if tokenizer.allowed_by_prefix(&self.owed, &mut allowed) == 0 {
            return false;
        }
        for (logit, allowed) in logits.iter_mut().zip(allowed) {
            if !allowed {
                *logit = f32::NEG_INFINITY;
            }
        }
        true
    }

    /// Takes a chosen token's bytes off what is owed.
    pub(crate) fn advance(&mut self, tokenizer: &Tokenizer, token: TokenId) {
        let n_paid = tokenizer.token_bytes(token).len().min(self.owed.len());
        self.owed.drain(..n_paid);
    }
}

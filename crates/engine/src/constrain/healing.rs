//! Token healing: the answer must begin with given bytes.
//!
//! In: the bytes backed up over at the cursor. Out: a mask over the next token's logits.
//! Source: JetBrains' Full Line Code Completion (arXiv 2405.08704) heals the same way.

use std::sync::Arc;

use super::{Constraint, GrammarError};
use crate::{TokenId, Tokenizer};

/// The bytes owed before generation is free.
pub(super) struct Healing {
    tokenizer: Arc<Tokenizer>,
    bytes: Vec<u8>,
    /// How many of `bytes` the answer had after each of the tokens that paid for them.
    n_paid: Vec<usize>,
}

impl Healing {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, bytes: Vec<u8>) -> Self {
        Self { tokenizer, bytes, n_paid: Vec::new() }
    }

    /// Returns the bytes the answer still has to begin with.
    pub(super) fn owed(&self) -> &[u8] {
        &self.bytes[self.n_paid.last().copied().unwrap_or(0)..]
    }

    /// Takes `token`'s bytes off what is owed; returns those that are more.
    pub(super) fn pay(&mut self, token: TokenId) -> Vec<u8> {
        let n_owed = self.owed().len();
        if n_owed == 0 {
            return self.tokenizer.token_bytes(token).to_vec();
        }
        let bytes = self.tokenizer.token_bytes(token);
        let n_paid = bytes.len().min(n_owed);
        let rest = bytes[n_paid..].to_vec();
        self.n_paid.push(self.bytes.len() - n_owed + n_paid);
        rest
    }

    fn fits(&self, token: TokenId) -> bool {
        let (owed, bytes) = (self.owed(), self.tokenizer.token_bytes(token));
        owed.is_empty() || !bytes.is_empty() && (bytes.starts_with(owed) || owed.starts_with(bytes))
    }
}

impl Constraint for Healing {
    fn mask(&mut self, logits: &mut [f32]) -> Result<bool, GrammarError> {
        if self.owed().is_empty() {
            return Ok(true);
        }
        let mut allowed = vec![false; logits.len()];
        if self.tokenizer.allowed_by_prefix(self.owed(), &mut allowed) == 0 {
            return Ok(false);
        }
        for (logit, allowed) in logits.iter_mut().zip(allowed) {
            if !allowed {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(true)
    }

    fn n_allowed(&mut self, tokens: &[TokenId]) -> usize {
        match tokens {
            // What comes after the first may be anything, or a later row's mask says no.
            [first, ..] if self.fits(*first) => tokens.len(),
            _ => 0,
        }
    }

    fn n_allowed_after(&mut self, _forced: &[TokenId], tokens: &[TokenId]) -> usize {
        self.n_allowed(tokens)
    }

    fn advance(&mut self, token: TokenId) -> Result<(), GrammarError> {
        self.pay(token);
        Ok(())
    }

    fn forced(&mut self, _n_max: usize) -> Vec<TokenId> {
        Vec::new()
    }

    fn truncate(&mut self, n_tokens: usize) -> Result<(), GrammarError> {
        self.n_paid.truncate(n_tokens);
        Ok(())
    }

    fn may_end(&mut self) -> bool {
        self.owed().is_empty()
    }

    fn is_complete(&self) -> bool {
        false
    }
}

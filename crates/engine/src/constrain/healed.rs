//! Healing, then a grammar: the answer begins with given bytes, and what follows them fits.
//!
//! In: both. Out: one constraint. A token may pay the last bytes owed and begin what the grammar wants.

use super::{Constraint, Grammar, GrammarError, Healing};
use crate::TokenId;

/// A grammar that begins after the healed bytes.
pub(super) struct Healed {
    healing: Healing,
    grammar: Grammar,
    n_tokens: usize,
    /// The grammar's tokens after each of the answer's that healed: the rest of such a token is none, or several.
    n_grammar: Vec<usize>,
}

impl Healed {
    pub(super) fn new(healing: Healing, grammar: Grammar) -> Self {
        Self { healing, grammar, n_tokens: 0, n_grammar: Vec::new() }
    }

    fn is_healing(&self) -> bool {
        !self.healing.owed().is_empty()
    }
}

impl Constraint for Healed {
    fn mask(&mut self, logits: &mut [f32]) -> Result<bool, GrammarError> {
        self.grammar.mask_after(self.healing.owed(), logits)
    }

    fn n_allowed(&mut self, tokens: &[TokenId]) -> usize {
        if self.is_healing() {
            // Without a mask nobody knows whether the grammar likes the rest of such a token.
            return 0;
        }
        self.grammar.n_allowed(tokens)
    }

    fn n_allowed_after(&mut self, forced: &[TokenId], tokens: &[TokenId]) -> usize {
        if self.is_healing() { 0 } else { self.grammar.n_allowed_after(forced, tokens) }
    }

    fn advance(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if self.is_healing() {
            let rest = self.healing.pay(token);
            self.grammar.advance_bytes(&rest)?;
            self.n_grammar.push(self.grammar.n_tokens());
        } else {
            self.grammar.advance(token)?;
        }
        self.n_tokens += 1;
        Ok(())
    }

    fn forced(&mut self, n_max: usize) -> Vec<TokenId> {
        if self.is_healing() { Vec::new() } else { self.grammar.forced(n_max) }
    }

    fn truncate(&mut self, n_tokens: usize) -> Result<(), GrammarError> {
        let n_healed = self.n_grammar.len();
        let n_grammar = match n_tokens.checked_sub(n_healed) {
            Some(n_after) => self.n_grammar.last().copied().unwrap_or(0) + n_after,
            None => n_tokens.checked_sub(1).map_or(0, |last| self.n_grammar[last]),
        };
        self.grammar.truncate(n_grammar)?;
        self.healing.truncate(n_tokens)?;
        self.n_grammar.truncate(n_tokens);
        self.n_tokens = n_tokens;
        Ok(())
    }

    fn may_end(&mut self) -> bool {
        !self.is_healing() && self.grammar.may_end()
    }

    fn is_complete(&self) -> bool {
        !self.is_healing() && self.grammar.is_complete()
    }
}

//! A grammar that an answer follows.
//!
//! In: the answer's tokens, one by one. Out: which may come next, which must.
//! Never: touches the model; prints (`llguidance` is told to be quiet).

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;

use super::{Constraint, GrammarError};
use crate::TokenId;

/// A compiled grammar and where the answer stands in it.
pub(crate) struct Grammar {
    parser: TokenParser,
}

impl Grammar {
    pub(super) fn new(mut parser: TokenParser) -> Self {
        if parser.is_fresh() {
            parser.start_without_prompt();
        }
        Self { parser }
    }

    /// Masks what cannot come next where the answer still has to say `owed` before the grammar goes on.
    pub(super) fn mask_after(&mut self, owed: &[u8], logits: &mut [f32]) -> Result<bool, GrammarError> {
        if self.parser.stopped() && owed.is_empty() {
            let ends = self.parser.token_env.tok_trie().eos_token_set();
            return Ok(keep_only(&ends, logits));
        }
        let allowed = if owed.is_empty() {
            match guarded(|| self.parser.compute_mask()) {
                Ok(allowed) => allowed,
                // It stops where nothing can come next, and says so by an error.
                Err(_) if self.parser.stop_reason() == StopReason::NoExtensionBias => {
                    self.parser.token_env.tok_trie().alloc_token_set()
                }
                Err(error) => return Err(self.failed(error)),
            }
        } else {
            self.allowed_after(owed)?
        };
        if keep_only(&allowed, logits) {
            Ok(true)
        } else if owed.is_empty() && self.may_end() {
            Ok(false)
        } else {
            Err(GrammarError::DeadEnd)
        }
    }

    /// Returns the tokens that are a beginning of `owed`, and those that begin with it and go on as the grammar wants.
    fn allowed_after(&mut self, owed: &[u8]) -> Result<SimpleVob, GrammarError> {
        let computer = self.parser.bias_computer.clone();
        // The parser may have been here before and have gone on over bytes that are forced.
        let start = [owed, self.parser.parser.currently_forced_bytes()].concat();
        let allowed = unpanicked(|| self.parser.parser.compute_bias(&*computer, &start))
            .map_err(|message| GrammarError::told(&message))?;
        match self.parser.parser.get_error() {
            Some(error) => Err(GrammarError::told(&error.message())),
            None => Ok(allowed),
        }
    }

    /// Takes bytes that need not be whole tokens.
    pub(super) fn advance_bytes(&mut self, bytes: &[u8]) -> Result<(), GrammarError> {
        let tokens = self.parser.token_env.tokenize_bytes(bytes);
        tokens.into_iter().try_for_each(|token| self.advance(TokenId(token)))
    }

    /// Returns how many tokens the grammar has taken.
    pub(super) fn n_tokens(&self) -> usize {
        self.parser.num_tokens()
    }

    fn failed(&self, message: String) -> GrammarError {
        match self.parser.stop_reason() {
            StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
                match GrammarError::told(&message) {
                    // A token that does not fit is told as a parser that is too complex.
                    error @ GrammarError::TooExpensive(_) => error,
                    error => GrammarError::Failed(error.to_string()),
                }
            }
            _ => GrammarError::Failed(message),
        }
    }
}

impl Constraint for Grammar {
    fn mask(&mut self, logits: &mut [f32]) -> Result<bool, GrammarError> {
        self.mask_after(&[], logits)
    }

    fn n_allowed(&mut self, tokens: &[TokenId]) -> usize {
        if self.parser.stopped() {
            let trie = self.parser.token_env.tok_trie();
            return usize::from(tokens.first().is_some_and(|token| trie.eos_tokens().contains(&token.0)));
        }
        // A mask has only the first of forced tokens, so that forced text is cut as the tokenizer cuts it.
        let forced = self.forced(usize::MAX);
        if !forced.is_empty() {
            return forced.iter().zip(tokens).take_while(|(forced, token)| forced == token).count();
        }
        let tokens: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let n_vocab = self.parser.token_env.tok_trie().vocab_size();
        let n_known = tokens.iter().take_while(|&&token| (token as usize) < n_vocab).count();
        // A failure is told by the mask that follows.
        guarded(|| self.parser.validate_tokens_raw(&tokens[..n_known])).unwrap_or(0)
    }

    fn n_allowed_after(&mut self, forced: &[TokenId], tokens: &[TokenId]) -> usize {
        if forced.is_empty() {
            return self.n_allowed(tokens);
        }
        if tokens.is_empty() || !self.parser.parser.grammar().lexer_spec().can_rollback() {
            return 0;
        }
        let n_tokens = self.n_tokens();
        let is_after = forced.iter().all(|token| self.advance(*token).is_ok());
        let n_allowed = if is_after { self.n_allowed(tokens) } else { 0 };
        // A failure is told by the mask that follows.
        self.truncate(n_tokens).map_or(0, |()| n_allowed)
    }

    fn advance(&mut self, token: TokenId) -> Result<(), GrammarError> {
        guarded(|| {
            self.parser.consume_token(token.0)?;
            self.parser.check_stop()
        })
        .map(drop)
        .map_err(|message| self.failed(message))
    }

    fn forced(&mut self, n_max: usize) -> Vec<TokenId> {
        if self.parser.stopped() || n_max == 0 {
            return Vec::new();
        }
        // A failure is told by the mask that follows.
        let forced = unpanicked(|| self.parser.compute_ff_tokens()).unwrap_or_default();
        forced.into_iter().take(n_max).map(TokenId).collect()
    }

    fn truncate(&mut self, n_tokens: usize) -> Result<(), GrammarError> {
        let n_dropped = self.parser.num_tokens().saturating_sub(n_tokens);
        // It would take another path's mask for one of the new path's (`llguidance` 1.9.1).
        self.parser.invalidate_bias_cache();
        guarded(|| self.parser.rollback(n_dropped)).map_err(|message| GrammarError::told(&message))
    }

    fn may_end(&mut self) -> bool {
        unpanicked(|| self.parser.is_accepting()).unwrap_or(false)
    }

    fn is_complete(&self) -> bool {
        self.parser.stopped() && self.parser.stop_reason().is_ok()
    }
}

/// Runs `follow`, whose panic is an error: it costs this request, not all that the engine works on.
fn guarded<T, E: ToString>(follow: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(follow)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("panic: its state is lost".to_owned()),
    }
}

fn unpanicked<T>(follow: impl FnOnce() -> T) -> Result<T, String> {
    guarded(|| Ok::<T, Infallible>(follow()))
}

/// Puts minus infinity on every logit that is not in `allowed`; returns whether any is left.
fn keep_only(allowed: &SimpleVob, logits: &mut [f32]) -> bool {
    let words = allowed.as_slice();
    let mut is_any = false;
    for (idx, logits) in logits.chunks_mut(u32::BITS as usize).enumerate() {
        let word = words.get(idx).copied().unwrap_or(0);
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word >> bit & 1 == 1 {
                is_any = true;
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    is_any
}

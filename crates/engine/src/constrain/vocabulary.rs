//! The model's vocabulary as a trie that grammars walk, built when the first grammar comes and then shared.
//!
//! In: the tokenizer. Out: compiled grammars. Special tokens are marked with a byte that no text contains (I-3).
//! Thread: any; the first caller builds, the others wait for it.

use std::sync::{Arc, OnceLock};

use llguidance::api::ParserLimits;
use llguidance::toktrie::{INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{ParserFactory, TokenParser};

use super::{Grammar, GrammarError, GrammarSpec, place};
use crate::{TokenId, Tokenizer};

/// Tokens that lie wholly inside a JSON string, whatever its schema: their part of a mask is made once.
///
/// Source: the last of `SlicedBiasComputer::json_slices`. With all four of them a mask takes 32 µs and not 39 (median of
/// random answers to a schema, the default model, debug build), and what is built 18 MiB and not 9.
const SLICES: [&str; 1] = [r#"[^"\\\x00-\x1F\x7F]+"#];

/// Longest token, in bytes, that a trie of `toktrie` can hold, less a margin.
const N_MAX_TOKEN_BYTES: usize = 1000;

/// Most tokens: `toktrie` counts them with 24 bits, and the trie's nodes with 22.
const N_MAX_TOKENS: usize = 1 << 20;

/// A model's vocabulary, ready for grammars: some 200 bytes a token, from the first grammar on (9 MiB and 70 ms for the
/// default model's 49,152).
pub(crate) struct GrammarVocabulary {
    tokenizer: Arc<Tokenizer>,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

impl GrammarVocabulary {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, factory: OnceLock::new() }
    }

    /// Compiles `spec`, on the caller's thread.
    ///
    /// # Errors
    /// All of [`GrammarError`] but `DeadEnd`: the grammar's author can fix them.
    pub(crate) fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        self.parser(spec).map(Grammar::new).map_err(|error| match spec {
            GrammarSpec::JsonSchema(schema) => {
                let place =
                    place::of(schema, &error, |part| self.parser(&GrammarSpec::JsonSchema(part)).err());
                error.at(&place)
            }
            _ => error,
        })
    }

    fn parser(&self, spec: &GrammarSpec) -> Result<TokenParser, GrammarError> {
        let factory = self.factory.get_or_init(|| build(&self.tokenizer)).as_ref().map_err(Clone::clone)?;
        let grammar = spec.to_llguidance()?;
        factory.create_parser(grammar).map_err(|error| GrammarError::told(&format!("{error:#}")))
    }
}

fn build(tokenizer: &Arc<Tokenizer>) -> Result<ParserFactory, GrammarError> {
    let n_tokens = tokenizer.n_vocab();
    if n_tokens > N_MAX_TOKENS {
        return Err(GrammarError::Vocabulary(format!("it has {n_tokens} tokens")));
    }
    let environment: TokEnv =
        Arc::new(Environment { tokenizer: Arc::clone(tokenizer), trie: trie(tokenizer) });
    // Forced tokens are asked for, never spliced in.
    let capabilities = InferenceCapabilities::default();
    let mut factory = ParserFactory::new(&environment, capabilities, &SLICES.map(str::to_owned))
        .map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
    factory.quiet();
    *factory.limits_mut() = limits();
    Ok(factory)
}

/// The library's own limits come to some 20 ms for compiling and 15 ms for a mask, and are kept. Fewer lexer states:
/// at 1 to 2 KiB each these are at most 100 MiB a request. Its errors shall not carry the answer's text.
fn limits() -> ParserLimits {
    ParserLimits { max_lexer_states: 50_000, verbose_errors: false, ..ParserLimits::default() }
}

fn trie(tokenizer: &Tokenizer) -> TokTrie {
    const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let ids = (0..tokenizer.n_vocab() as u32).map(TokenId);
    // A special token has no bytes, and an empty word is not in the trie.
    let mut words: Vec<Vec<u8>> = ids.map(|id| tokenizer.token_bytes(id).to_vec()).collect();
    for word in &mut words {
        // Text does not have the marker; a longer token that begins with it would look like a special one.
        if matches!(word[..], [MARKER, _, ..]) || word.len() > N_MAX_TOKEN_BYTES {
            word.clear();
        }
    }
    for (name, id) in tokenizer.iter_special().filter(|(name, _)| name.len() < N_MAX_TOKEN_BYTES) {
        words[id.0 as usize] = [&[MARKER], name.as_bytes()].concat();
    }
    let ends: Vec<u32> = tokenizer.specials().end_of_generation.iter().map(|id| id.0).collect();
    let trie = TokTrie::from(
        &TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN)),
        &words,
    );
    if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) }
}

/// Our tokenizer as `llguidance` wants it.
struct Environment {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokens of plain text. What follows a byte for which there is no token is left out: it cannot be said.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode_bytes(bytes);
        let mut n_bytes = 0;
        let n_whole = tokens.iter().position(|&token| {
            let is_next = bytes[n_bytes..].starts_with(self.tokenizer.token_bytes(token));
            n_bytes += self.tokenizer.token_bytes(token).len();
            !is_next
        });
        tokens.truncate(n_whole.unwrap_or(tokens.len()));
        tokens.into_iter().map(|token| token.0).collect()
    }
}

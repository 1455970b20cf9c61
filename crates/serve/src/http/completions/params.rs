//! What a completion is asked with, and what of it cannot be given.

use engine::{StopRules, TokenId, Tokenizer};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Prompt;
use crate::http::formats::Formats;
use crate::http::options::{N_MAX_TOP, Options, or_default, refuse_unsupported};
use crate::http::refusal::Refusal;

/// Most tokens of an answer unless the caller says otherwise, as OpenAI has it.
const N_DEFAULT_TOKENS: usize = 16;

/// The body of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    pub(super) prompt: Prompts,
    #[serde(flatten)]
    pub(super) options: Options,
    #[serde(flatten)]
    pub(super) formats: Formats,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) echo: bool,
    pub(super) logprobs: Option<usize>,
    max_tokens: Option<usize>,
    suffix: Option<String>,
    best_of: Option<usize>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompts {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

impl Params {
    /// Refuses what would not be done, rather than doing something else in silence.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.options.check()?;
        refuse_unsupported(&self.others)?;
        let refusal = match () {
            () if self.logprobs.is_some_and(|n| n > N_MAX_TOP) => {
                Refusal::of("logprobs", format!("it goes from 0 to {N_MAX_TOP}"))
            }
            () if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) => {
                Refusal::of("suffix", "use POST /infill to fill in a middle")
            }
            () if self.best_of.is_some_and(|best_of| best_of != self.options.n()) => {
                Refusal::of("best_of", "it is not supported; `n` gives several answers")
            }
            () if self.max_tokens == Some(0) && !self.echo => {
                Refusal::of("max_tokens", "0 tokens make an answer only with `echo`")
            }
            () => return Ok(()),
        };
        Err(refusal)
    }

    pub(super) fn stop_rules(&self) -> StopRules {
        self.options.stop_rules(self.max_tokens.unwrap_or(N_DEFAULT_TOKENS))
    }
}

impl Prompts {
    pub(super) fn into_prompts(self, tokenizer: &Tokenizer) -> Result<Vec<Prompt>, Refusal> {
        let prompts: Vec<Prompt> = match self {
            Self::Text(text) => vec![Prompt::from_text(tokenizer, text)],
            Self::Texts(texts) => texts.into_iter().map(|text| Prompt::from_text(tokenizer, text)).collect(),
            Self::Tokens(tokens) => vec![Prompt::from_tokens(tokenizer, tokens)],
            Self::TokenLists(lists) => {
                lists.into_iter().map(|tokens| Prompt::from_tokens(tokenizer, tokens)).collect()
            }
        };
        if prompts.is_empty() || prompts.iter().any(|prompt| prompt.tokens.is_empty()) {
            return Err(Refusal::of("prompt", "it is empty"));
        }
        Ok(prompts)
    }
}

impl Prompt {
    fn from_text(tokenizer: &Tokenizer, text: String) -> Self {
        let specials = tokenizer.specials();
        let mut tokens = tokenizer.encode_first(&text);
        // A model that has no beginning-of-text token was trained on texts that follow an end.
        let first = specials.bos.or(specials.eos);
        if specials.add_bos || tokens.is_empty() {
            tokens.splice(0..0, first);
        }
        Self { tokens, text }
    }

    fn from_tokens(tokenizer: &Tokenizer, tokens: Vec<u32>) -> Self {
        let tokens: Vec<TokenId> = tokens.into_iter().map(TokenId).collect();
        let text = String::from_utf8_lossy(&tokenizer.decode(&tokens)).into_owned();
        Self { tokens, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        let params: Params = serde_json::from_str(body).expect(body);
        let refused = params.check().err().map(|refusal| refusal.json()["error"]["param"].to_string());
        assert_eq!(refused.as_deref().map(|param| param.trim_matches('"')), expected, "{body}");
    }

    #[test]
    fn what_would_not_be_done_is_refused_by_its_name() {
        check(r#"{"prompt": "a"}"#, None);
        check(r#"{"prompt": ["a"], "seed": -1, "best_of": 1, "user": "x", "echo": null}"#, None);
        check(r#"{"prompt": "a", "temperature": 2.5}"#, Some("temperature"));
        check(r#"{"prompt": "a", "logit_bias": {"5": 1}}"#, Some("logit_bias"));
        check(r#"{"prompt": "a", "logprobs": 21}"#, Some("logprobs"));
        check(r#"{"prompt": "a", "suffix": "b"}"#, Some("suffix"));
        check(r#"{"prompt": "a", "best_of": 2}"#, Some("best_of"));
        check(r#"{"prompt": "a", "best_of": 2, "n": 2}"#, None);
        check(r#"{"prompt": "a", "max_tokens": 0}"#, Some("max_tokens"));
        check(r#"{"prompt": "a", "max_tokens": 0, "echo": true}"#, None);
    }
}

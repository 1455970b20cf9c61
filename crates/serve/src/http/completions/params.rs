//! What a completion is asked with, and what of it cannot be given.

use std::hash::{BuildHasher as _, Hasher as _};

use engine::{Sampling, StopRules, TokenId, Tokenizer};
use serde::Deserialize;

use super::Prompt;
use crate::http::refusal::Refusal;

/// Most answers of one request.
pub(super) const N_MAX_CHOICES: usize = 32;
/// Most stop texts; OpenAI takes 4.
const N_MAX_STOPS: usize = 16;
/// Most of the likeliest tokens at a place; OpenAI gives 5.
const N_MAX_TOP: usize = 20;

/// The body of a request. Fields that change nothing here (`user`, `model`) are not looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    pub(super) prompt: Prompts,
    #[serde(default)]
    pub(super) stream: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stream_options: StreamOptions,
    #[serde(default = "one")]
    pub(super) n: usize,
    #[serde(default)]
    pub(super) echo: bool,
    pub(super) logprobs: Option<usize>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    #[serde(default)]
    top_k: usize,
    seed: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    stop: Stops,
    suffix: Option<String>,
    best_of: Option<usize>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompts {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Stops {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

fn one() -> usize {
    1
}

/// `null` means what a missing field means.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Params {
    /// Refuses what would not be done, rather than doing something else in silence.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let within = |value: Option<f32>, least: f32, most: f32| {
            value.is_none_or(|value| (least..=most).contains(&value))
        };
        let is_zero = |value: Option<f32>| value.is_none_or(|value| value == 0.0);
        let stops = self.stops();
        let refusal = match () {
            () if self.n == 0 => Refusal::of("n", "it must be at least 1"),
            () if !within(self.temperature, 0.0, 2.0) => Refusal::of("temperature", "it goes from 0 to 2"),
            () if !within(self.top_p, f32::MIN_POSITIVE, 1.0) => Refusal::of("top_p", "it goes up to 1"),
            () if self.logprobs.is_some_and(|n| n > N_MAX_TOP) => {
                Refusal::of("logprobs", format!("it goes from 0 to {N_MAX_TOP}"))
            }
            () if stops.len() > N_MAX_STOPS || stops.iter().any(String::is_empty) => {
                Refusal::of("stop", format!("at most {N_MAX_STOPS} texts, none of them empty"))
            }
            () if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) => {
                Refusal::of("suffix", "use POST /infill to fill in a middle")
            }
            () if self.best_of.is_some_and(|best_of| best_of != self.n) => {
                Refusal::of("best_of", "it is not supported; `n` gives several answers")
            }
            () if !is_zero(self.presence_penalty) => Refusal::of("presence_penalty", "it is not supported"),
            () if !is_zero(self.frequency_penalty) => Refusal::of("frequency_penalty", "it is not supported"),
            () if self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()) => {
                Refusal::of("logit_bias", "it is not supported")
            }
            () if self.max_tokens == Some(0) && !self.echo => {
                Refusal::of("max_tokens", "0 tokens make an answer only with `echo`")
            }
            () => return Ok(()),
        };
        Err(refusal)
    }

    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k,
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed.map_or_else(random, i64::cast_unsigned),
        }
    }

    pub(super) fn stop_rules(&self) -> StopRules {
        StopRules {
            n_max_tokens: self.max_tokens.unwrap_or(16),
            texts: self.stops().to_vec(),
            decode_time: None,
        }
    }

    fn stops(&self) -> &[String] {
        match &self.stop {
            Stops::None => &[],
            Stops::One(stop) => std::slice::from_ref(stop),
            Stops::Many(stops) => stops,
        }
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
        let mut tokens = tokenizer.encode(&text);
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

/// Returns a number that nobody chose. The standard library's hasher is seeded by the system.
pub(super) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
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
        check(r#"{"prompt": ["a"], "stop": null, "stream_options": null, "seed": -1, "best_of": 1}"#, None);
        check(r#"{"prompt": "a", "temperature": 2.5}"#, Some("temperature"));
        check(r#"{"prompt": "a", "temperature": -1}"#, Some("temperature"));
        check(r#"{"prompt": "a", "top_p": 0}"#, Some("top_p"));
        check(r#"{"prompt": "a", "n": 0}"#, Some("n"));
        check(r#"{"prompt": "a", "stop": ["", "b"]}"#, Some("stop"));
        check(r#"{"prompt": "a", "logprobs": 21}"#, Some("logprobs"));
        check(r#"{"prompt": "a", "suffix": "b"}"#, Some("suffix"));
        check(r#"{"prompt": "a", "best_of": 2}"#, Some("best_of"));
        check(r#"{"prompt": "a", "logit_bias": {"5": 1}}"#, Some("logit_bias"));
        check(r#"{"prompt": "a", "max_tokens": 0}"#, Some("max_tokens"));
        check(r#"{"prompt": "a", "max_tokens": 0, "echo": true}"#, None);
    }
}

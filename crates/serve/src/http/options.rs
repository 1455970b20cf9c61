//! What OpenAI's two routes are asked alike: how to sample, when to stop, how to hand the answer over.
//!
//! In: fields of a body. Out: the engine's rules, or a refusal that names the field.
//! Never: passes over in silence what would change the answer.
//! Source: OpenAI API reference, "Create completion" and "Create chat completion".

use std::hash::{BuildHasher as _, Hasher as _};

use engine::{Sampling, StopRules};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Most answers of one request.
pub(super) const N_MAX_CHOICES: usize = 32;
/// Most of the likeliest tokens at a place; OpenAI gives 5, and 20 in a chat.
pub(super) const N_MAX_TOP: usize = 20;
/// Most stop texts; OpenAI takes 4.
const N_MAX_STOPS: usize = 16;

/// Fields of both bodies. Those that change nothing here (`user`, `model`, `store`) are not looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stream: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stream_options: StreamOptions,
    n: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    seed: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    stop: Stops,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) include_usage: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Stops {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

/// `null` means what a missing field means.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Options {
    /// Refuses what cannot be done.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let within = |value: Option<f32>, least: f32, most: f32| {
            value.is_none_or(|value| (least..=most).contains(&value))
        };
        let stops = self.stops();
        let refusal = match () {
            () if self.n() == 0 => Refusal::of("n", "it must be at least 1"),
            () if self.n() > N_MAX_CHOICES => {
                Refusal::of("n", format!("at most {N_MAX_CHOICES} answers at once"))
            }
            () if !within(self.temperature, 0.0, 2.0) => Refusal::of("temperature", "it goes from 0 to 2"),
            () if !within(self.top_p, f32::MIN_POSITIVE, 1.0) => Refusal::of("top_p", "it goes up to 1"),
            () if stops.len() > N_MAX_STOPS || stops.iter().any(String::is_empty) => {
                Refusal::of("stop", format!("at most {N_MAX_STOPS} texts, none of them empty"))
            }
            () => return Ok(()),
        };
        Err(refusal)
    }

    /// Returns how many answers each prompt gets.
    pub(super) fn n(&self) -> usize {
        self.n.unwrap_or(1)
    }

    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            // 0 and -1 are how others say "all".
            top_k: self.top_k.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed.map_or_else(random, i64::cast_unsigned),
        }
    }

    pub(super) fn stop_rules(&self, n_max_tokens: usize) -> StopRules {
        StopRules { n_max_tokens, texts: self.stops().to_vec(), decode_time: None }
    }

    fn stops(&self) -> &[String] {
        match &self.stop {
            Stops::None => &[],
            Stops::One(stop) => std::slice::from_ref(stop),
            Stops::Many(stops) => stops,
        }
    }
}

/// Fields that would change the answer and are not supported, each with the value that asks for nothing, as JSON.
const UNSUPPORTED: [(&str, &str); 16] = [
    ("presence_penalty", "0"),
    ("frequency_penalty", "0"),
    ("repetition_penalty", "1"),
    ("repeat_penalty", "1"),
    ("min_p", "0"),
    ("logit_bias", "{}"),
    ("bad_words", "[]"),
    ("min_tokens", "0"),
    ("functions", "[]"),
    ("function_call", "\"none\""),
    ("modalities", "[\"text\"]"),
    ("audio", "{}"),
    ("web_search_options", "null"),
    ("verbosity", "\"medium\""),
    ("continue_final_message", "false"),
    ("guided_whitespace_pattern", "null"),
];

/// Refuses fields that nobody has read and that would change the answer.
pub(super) fn refuse_unsupported(others: &Map<String, Value>) -> Result<(), Refusal> {
    for (name, neutral) in UNSUPPORTED {
        let Some(value) = others.get(name).filter(|value| !value.is_null()) else { continue };
        let neutral: Value = serde_json::from_str(neutral).unwrap_or_default();
        // 0 and 0.0 are the same wish.
        let is_neutral = match value.as_f64() {
            Some(number) => neutral.as_f64() == Some(number),
            None => *value == neutral,
        };
        if !is_neutral {
            let hint = if name.starts_with("function") { "; use `tools` and `tool_choice`" } else { "" };
            return Err(Refusal::of(name, format!("`{name}` is not supported{hint}")));
        }
    }
    Ok(())
}

/// Returns a number that nobody chose. The standard library's hasher is seeded by the system.
pub(super) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_is_refused_by_its_name() {
        let check = |body: &str, expected: Option<&str>| {
            let options: Options = serde_json::from_str(body).expect(body);
            let others: Map<String, Value> = serde_json::from_str(body).expect(body);
            let checked = options.check().and_then(|()| refuse_unsupported(&others));
            let refused = checked.err().map(|refusal| refusal.json()["error"]["param"].clone());
            assert_eq!(refused, expected.map(Value::from), "{body}");
        };
        check("{}", None);
        check(
            r#"{"n": null, "stop": null, "stream": null, "stream_options": null, "seed": -1, "top_k": -1}"#,
            None,
        );
        check(r#"{"temperature": 2.5}"#, Some("temperature"));
        check(r#"{"temperature": -1}"#, Some("temperature"));
        check(r#"{"top_p": 0}"#, Some("top_p"));
        check(r#"{"n": 0}"#, Some("n"));
        check(r#"{"n": 33}"#, Some("n"));
        check(r#"{"stop": ["", "b"]}"#, Some("stop"));
        check(r#"{"presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}"#, None);
        check(r#"{"presence_penalty": 0.5}"#, Some("presence_penalty"));
        check(r#"{"repetition_penalty": 1.1}"#, Some("repetition_penalty"));
        check(r#"{"logit_bias": {}, "modalities": ["text"], "functions": [], "audio": null}"#, None);
        check(r#"{"logit_bias": {"5": 1}}"#, Some("logit_bias"));
        check(r#"{"modalities": ["text", "audio"]}"#, Some("modalities"));
        check(r#"{"function_call": "auto"}"#, Some("function_call"));
    }
}

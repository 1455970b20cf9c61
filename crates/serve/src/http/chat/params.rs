//! What a chat's answer is asked with, and what of it cannot be given.

use engine::StopRules;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::messages::MessageParam;
use super::tools::ToolParam;
use crate::http::formats::Formats;
use crate::http::options::{N_MAX_TOP, Options, or_default, refuse_unsupported};
use crate::http::refusal::Refusal;

/// The body of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    pub(super) messages: Vec<MessageParam>,
    #[serde(flatten)]
    pub(super) options: Options,
    #[serde(flatten)]
    pub(super) formats: Formats,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tools: Vec<ToolParam>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    logprobs: bool,
    top_logprobs: Option<usize>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    reasoning_effort: Option<String>,
    /// Variables of the template, as vLLM and llama.cpp name them.
    #[serde(default, deserialize_with = "or_default")]
    chat_template_kwargs: Map<String, Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Params {
    /// Refuses what would not be done, rather than doing something else in silence.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.options.check()?;
        refuse_unsupported(&self.others)?;
        let refusal = match () {
            () if self.top_logprobs.is_some_and(|n| n > N_MAX_TOP) => {
                Refusal::of("top_logprobs", format!("it goes from 0 to {N_MAX_TOP}"))
            }
            () if self.top_logprobs.is_some_and(|n| n > 0) && !self.logprobs => {
                Refusal::of("top_logprobs", "it needs `logprobs`")
            }
            () if self.max_tokens == Some(0) => Refusal::of("max_tokens", "it must be at least 1"),
            () if self.max_completion_tokens == Some(0) => {
                Refusal::of("max_completion_tokens", "it must be at least 1")
            }
            () if self.reasoning_effort.as_ref().is_some_and(|effort| effort != "none") => {
                let message = "only `none` is supported; without it the model thinks as long as it likes";
                Refusal::of("reasoning_effort", message)
            }
            () => return Ok(()),
        };
        Err(refusal)
    }

    /// Returns how many of the likeliest tokens are wanted beside each; `None` if no probabilities are.
    pub(super) fn n_top(&self) -> Option<usize> {
        self.logprobs.then(|| self.top_logprobs.unwrap_or(0))
    }

    /// Returns when to stop; a chat's answer is as long as the model likes where nothing is said.
    pub(super) fn stop_rules(&self, n_ctx: usize) -> StopRules {
        self.options.stop_rules(self.max_completion_tokens.or(self.max_tokens).unwrap_or(n_ctx))
    }

    pub(super) fn enable_thinking(&self) -> bool {
        let asked = self.chat_template_kwargs.get("enable_thinking").and_then(Value::as_bool);
        asked.unwrap_or(self.reasoning_effort.is_none())
    }

    pub(super) fn variables(&self) -> Map<String, Value> {
        self.chat_template_kwargs.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(fields: &str) -> Params {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "a"}}]{fields}}}"#);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[test]
    fn what_would_not_be_done_is_refused_by_its_name() {
        let check = |fields: &str, expected: Option<&str>| {
            let refused =
                params(fields).check().err().map(|refusal| refusal.json()["error"]["param"].clone());
            assert_eq!(refused, expected.map(Value::from), "{fields}");
        };
        check("", None);
        check(r#", "model": "m", "user": "u", "store": false, "metadata": {}, "service_tier": "auto""#, None);
        check(r#", "logprobs": true, "top_logprobs": 20"#, None);
        check(r#", "logprobs": true, "top_logprobs": 21"#, Some("top_logprobs"));
        check(r#", "top_logprobs": 2"#, Some("top_logprobs"));
        check(r#", "max_tokens": 0"#, Some("max_tokens"));
        check(r#", "max_completion_tokens": 0"#, Some("max_completion_tokens"));
        check(r#", "reasoning_effort": "none""#, None);
        check(r#", "reasoning_effort": "high""#, Some("reasoning_effort"));
        check(r#", "temperature": 3"#, Some("temperature"));
        check(r#", "frequency_penalty": 1"#, Some("frequency_penalty"));
        check(r#", "audio": {"voice": "x"}"#, Some("audio"));
        check(r#", "functions": [{"name": "f"}]"#, Some("functions"));
    }

    #[test]
    fn the_newer_name_of_a_limit_goes_before_the_older_and_without_both_the_context_is_the_limit() {
        let n_max = |fields: &str| params(fields).stop_rules(4096).n_max_tokens;
        assert_eq!(n_max(""), 4096);
        assert_eq!(n_max(r#", "max_tokens": 5"#), 5);
        assert_eq!(n_max(r#", "max_tokens": 5, "max_completion_tokens": 6"#), 6);
    }

    #[test]
    fn a_model_thinks_unless_it_is_told_not_to() {
        assert!(params("").enable_thinking());
        assert!(!params(r#", "reasoning_effort": "none""#).enable_thinking());
        assert!(!params(r#", "chat_template_kwargs": {"enable_thinking": false}"#).enable_thinking());
    }
}

//! An answer, put together from its pieces.
//!
//! In: the JSON of each piece, or of the whole. Out: [`Answer`].
//! Never: takes an answer that broke off for a whole one.

use serde_json::Value;

/// What an endpoint answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text, without what a server tells apart as the model's reasoning.
    pub text: String,
    /// Why it ended.
    pub stop: Stop,
    /// What it cost, where the endpoint says so.
    pub usage: Option<Usage>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model, or a stop text, ended it.
    End,
    /// The most tokens were reached, or the model's context is full.
    Length,
    /// The caller's sink has seen enough.
    Enough,
    /// The caller cancelled.
    Cancelled,
}

/// Tokens of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub n_prompt: u64,
    /// Prompt tokens the server had computed before.
    pub n_reused: u64,
    /// Of the answer, reasoning included.
    pub n_answer: u64,
}

/// An answer on its way.
#[derive(Default)]
pub(crate) struct Growing {
    text: String,
    finish: Option<String>,
    usage: Option<Usage>,
}

impl Growing {
    /// Takes a piece, or the whole, and returns the text it adds; `None` if it is no part of an answer.
    pub(crate) fn push<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        let choices = value.get("choices")?.as_array()?;
        if let Some(usage) = value.get("usage").filter(|usage| usage.is_object()) {
            let count = |place: &str| usage.pointer(place).and_then(Value::as_u64).unwrap_or_default();
            self.usage = Some(Usage {
                n_prompt: count("/prompt_tokens"),
                n_reused: count("/prompt_tokens_details/cached_tokens"),
                n_answer: count("/completion_tokens"),
            });
        }
        // The piece with the usage has no choice.
        let Some(choice) = choices.first() else {
            return Some("");
        };
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
        let text = ["/delta/content", "/message/content", "/text"]
            .into_iter()
            .find_map(|place| choice.pointer(place)?.as_str())
            .unwrap_or_default();
        self.text.push_str(text);
        Some(text)
    }

    /// Returns whether the model has ended its answer.
    pub(crate) fn is_whole(&self) -> bool {
        self.finish.is_some()
    }

    pub(crate) fn end(self) -> Answer {
        let stop = if self.finish.as_deref() == Some("length") { Stop::Length } else { Stop::End };
        self.stopped(stop)
    }

    pub(crate) fn stopped(self, stop: Stop) -> Answer {
        Answer { text: self.text, stop, usage: self.usage }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_of_chat_and_of_completions_make_an_answer() {
        let check = |pieces: &[Value], text: &str, stop: Stop, usage: Option<Usage>| {
            let mut growing = Growing::default();
            let said: String = pieces.iter().map(|piece| growing.push(piece).expect("a piece")).collect();
            assert!(growing.is_whole());
            assert_eq!(said, text);
            assert_eq!(growing.end(), Answer { text: text.into(), stop, usage });
        };
        check(
            &[
                json!({"choices": [{"delta": {"role": "assistant", "content": null}}]}),
                json!({"choices": [{"delta": {"reasoning_content": "hm"}}]}),
                json!({"choices": [{"delta": {"content": "a"}, "finish_reason": null}], "usage": null}),
                json!({"choices": [{"delta": {"content": "b"}}]}),
                json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
                json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2,
                    "prompt_tokens_details": {"cached_tokens": 5}}}),
            ],
            "ab",
            Stop::End,
            Some(Usage { n_prompt: 7, n_reused: 5, n_answer: 2 }),
        );
        check(&[json!({"choices": [{"text": "x", "finish_reason": "length"}]})], "x", Stop::Length, None);
        check(
            &[json!({"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]})],
            "whole",
            Stop::End,
            None,
        );
    }

    #[test]
    fn what_is_no_piece_is_told() {
        let mut growing = Growing::default();
        for value in [json!({}), json!([]), json!("x"), json!({"choices": "none"})] {
            assert_eq!(growing.push(&value), None, "{value}");
        }
        assert_eq!(growing.push(&json!({"choices": [{"delta": {"content": 7}}]})), Some(""));
        assert!(!growing.is_whole());
    }
}

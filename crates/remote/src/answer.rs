//! An answer, put together from its pieces.
//!
//! In: the JSON of each piece, or of the whole. Out: [`Answer`].
//! Never: takes an answer that broke off for a whole one.

use serde_json::Value;

/// What an endpoint answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text, without what a server tells apart as the model's reasoning.
    pub text: String,
    /// Why it ended.
    pub stop: Stop,
    /// What it cost, where the endpoint says so.
    pub usage: Option<Usage>,
    /// Natural logarithm of the probability of each token of its first line, as far as that was asked for and is said.
    pub logprobs: Vec<f32>,
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
    logprobs: Vec<f32>,
    /// Whether the first line's logprobs are all there.
    is_line_over: bool,
}

impl Growing {
    /// Takes a piece, or the whole, and returns the text it adds; `None` if it is no part of an answer.
    pub(crate) fn push<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        let Some(choices) = value.get("choices") else {
            return self.push_infill(value);
        };
        let choices = choices.as_array()?;
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
        self.hear_logprobs(&choice["logprobs"]);
        self.text.push_str(text);
        Some(text)
    }

    /// Takes a piece of llama.cpp's `/infill`, which has no choices.
    fn push_infill<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        let text = value.get("content")?.as_str()?;
        if value["stop"] == true {
            // Until the end of 2024 it said `stopped_limit`.
            let is_limit = value["stop_type"] == "limit" || value["stopped_limit"] == true;
            self.finish = Some(if is_limit { "length" } else { "stop" }.to_owned());
            if let Some(n_answer) = value["tokens_predicted"].as_u64() {
                let count = |place: &str| value.pointer(place).and_then(Value::as_u64);
                let n_prompt = count("/tokens_evaluated").unwrap_or_default();
                let n_computed = count("/timings/prompt_n").unwrap_or(n_prompt);
                let n_reused = n_prompt.saturating_sub(n_computed);
                self.usage = Some(Usage { n_prompt, n_reused, n_answer });
            }
        }
        self.text.push_str(text);
        Some(text)
    }

    /// Takes the logprobs of a piece: OpenAI's older shape, or the chat's, which llama.cpp has for both. A server may say
    /// them with the text or all at the end, so the first line's end is looked for in the tokens.
    fn hear_logprobs(&mut self, value: &Value) {
        let token = |value: &Value| value.as_str().map(|token| token.contains('\n'));
        let number = |value: &Value| value.as_f64().map(|number| number as f32);
        let pairs: Vec<(Option<bool>, Option<f32>)> =
            match (value["token_logprobs"].as_array(), value["content"].as_array()) {
                (Some(logprobs), _) => {
                    let logprobs = logprobs.iter().enumerate();
                    logprobs.map(|(idx, logprob)| (token(&value["tokens"][idx]), number(logprob))).collect()
                }
                (None, Some(tokens)) => {
                    tokens.iter().map(|entry| (token(&entry["token"]), number(&entry["logprob"]))).collect()
                }
                (None, None) => return,
            };
        for (ends_line, logprob) in pairs {
            if self.is_line_over {
                return;
            }
            self.is_line_over = ends_line == Some(true);
            self.logprobs.extend(logprob);
        }
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
        Answer { text: self.text, stop, usage: self.usage, logprobs: self.logprobs }
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
            let logprobs = Vec::new();
            assert_eq!(growing.end(), Answer { text: text.into(), stop, usage, logprobs });
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
    fn pieces_of_infill_make_an_answer() {
        let mut growing = Growing::default();
        assert_eq!(growing.push(&json!({"content": "a", "stop": false})), Some("a"));
        assert!(!growing.is_whole());
        let end = json!({"content": "", "stop": true, "stop_type": "limit", "tokens_predicted": 3,
            "tokens_evaluated": 9, "timings": {"prompt_n": 2}});
        assert_eq!(growing.push(&end), Some(""));
        assert!(growing.is_whole());
        let usage = Some(Usage { n_prompt: 9, n_reused: 7, n_answer: 3 });
        assert_eq!(
            growing.end(),
            Answer { text: "a".into(), stop: Stop::Length, usage, logprobs: Vec::new() }
        );
    }

    #[test]
    fn an_older_llama_cpp_says_otherwise_why_it_ended() {
        let stop = |end: &Value| {
            let mut growing = Growing::default();
            growing.push(end).expect("a piece");
            growing.end().stop
        };
        let end = |is_limit: bool| json!({"content": "", "stop": true, "stopped_limit": is_limit});
        assert_eq!((stop(&end(true)), stop(&end(false))), (Stop::Length, Stop::End));
    }

    #[test]
    fn the_logprobs_of_the_first_line_are_heard_in_both_shapes() {
        let check = |pieces: &[Value], expected: &[f32]| {
            let mut growing = Growing::default();
            for logprobs in pieces {
                growing.push(&json!({"choices": [{"text": "x", "logprobs": logprobs}]})).expect("a piece");
            }
            assert_eq!(growing.end().logprobs, expected, "{pieces:?}");
        };
        check(&[json!(null)], &[]);
        check(&[json!({"tokens": ["a", "b"], "token_logprobs": [null, -0.5]})], &[-0.5]);
        check(
            &[
                json!({"tokens": ["a"], "token_logprobs": [-1.0]}),
                json!({"tokens": ["\n", "b"], "token_logprobs": [-2.0, -3.0]}),
                json!({"tokens": ["c"], "token_logprobs": [-4.0]}),
            ],
            &[-1.0, -2.0],
        );
        check(
            &[json!({"content": [{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": -1.0}]})],
            &[-0.25, -1.0],
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

//! Events dressed as a chat's chunks.
//!
//! In: text as it comes. Out: deltas: the role first, then thoughts, content and whole tool calls, at the end the reason
//! and all probabilities, which are known when the text is.

use engine::{ChatDelta, ChatParser};
use serde_json::{Value, json};

use super::{Job, Usage, call_object, chat_finish_reason};
use crate::http::answer::Event;
use crate::http::refusal::Refusal;
use crate::http::sse;

/// Dresses events as chunks.
pub(super) struct Dress {
    choices: Vec<Choice>,
    usage: Usage,
    job: Job,
    include_usage: bool,
}

/// One answer on its way.
struct Choice {
    /// Nothing once it has ended.
    parser: Option<ChatParser>,
    has_begun: bool,
    n_calls: usize,
}

impl Dress {
    pub(super) fn new(job: Job, include_usage: bool) -> Self {
        let choice = |_| Choice { parser: Some(job.parser()), has_begun: false, n_calls: 0 };
        Self { choices: (0..job.n).map(choice).collect(), usage: job.usage(), job, include_usage }
    }

    fn chunk(&self, choice: Value) -> String {
        let choices = if choice.is_null() { Vec::new() } else { vec![choice] };
        let mut chunk = self.job.envelope.object("chat.completion.chunk", &choices);
        if self.include_usage {
            chunk["usage"] = if choices.is_empty() { self.usage.json() } else { Value::Null };
        }
        chunk.to_string()
    }

    fn deltas(&mut self, idx: usize, deltas: Vec<ChatDelta>) -> Vec<String> {
        let choice = &mut self.choices[idx];
        let mut objects = Vec::with_capacity(deltas.len() + 1);
        if !choice.has_begun {
            choice.has_begun = true;
            objects.push(json!({"role": "assistant", "content": ""}));
        }
        objects.extend(deltas.into_iter().map(|delta| match delta {
            ChatDelta::Reasoning(text) => json!({"reasoning_content": text}),
            ChatDelta::Content(text) => json!({"content": text}),
            ChatDelta::ToolCall(call) => {
                let mut object = call_object(&call);
                object["index"] = choice.n_calls.into();
                choice.n_calls += 1;
                json!({"tool_calls": [object]})
            }
        }));
        let chunk = |delta| {
            self.chunk(json!({"index": idx, "delta": delta, "logprobs": null, "finish_reason": null}))
        };
        objects.into_iter().map(chunk).collect()
    }
}

impl sse::Dress for Dress {
    fn event(&mut self, event: Event) -> Vec<String> {
        match event {
            Event::Text { idx, text } => {
                let deltas = self.choices[idx].parser.as_mut().map(|parser| parser.push(&text));
                self.deltas(idx, deltas.unwrap_or_default())
            }
            Event::Done { idx, result } => match *result {
                Ok(answer) => {
                    let rest = self.choices[idx].parser.take().map(ChatParser::finish);
                    let mut chunks = self.deltas(idx, rest.unwrap_or_default());
                    self.usage.add(&answer.generation);
                    let reason = chat_finish_reason(&answer.generation, self.choices[idx].n_calls);
                    let logprobs = self.job.logprobs(&answer);
                    chunks.push(self.chunk(
                        json!({"index": idx, "delta": {}, "logprobs": logprobs, "finish_reason": reason}),
                    ));
                    chunks
                }
                Err(error) => vec![Refusal::from(error).json().to_string()],
            },
        }
    }

    fn end(&mut self) -> Vec<String> {
        let usage = self.include_usage.then(|| self.chunk(Value::Null));
        usage.into_iter().chain(["[DONE]".to_owned()]).collect()
    }
}

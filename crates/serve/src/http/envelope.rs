//! The object that an answer of OpenAI's two routes stands in.
//!
//! In: choices, what was generated. Out: `{"id", "object", "created", "model", "choices", "usage"}`.
//! Source: OpenAI API reference, "The completion object" and "The chat completion object".

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{Generation, StopReason};
use serde_json::{Value, json};

use super::State;
use super::options::random;

/// What all objects of one request have alike.
pub(super) struct Envelope {
    id: String,
    created: u64,
    model: String,
}

impl Envelope {
    /// Returns that of a new request; `prefix` tells what kind it is.
    pub(super) fn new(state: &State, prefix: &str) -> Self {
        Self {
            id: format!("{prefix}-{:016x}", random()),
            created: now().as_secs(),
            model: state.model_name.clone(),
        }
    }

    pub(super) fn object(&self, kind: &str, choices: &[Value]) -> Value {
        json!({"id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": concat!("tandem-", env!("CARGO_PKG_VERSION")), "choices": choices})
    }
}

/// Returns the time since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Tokens as they are billed elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    n_prompt: usize,
    n_completion: usize,
    n_reused: usize,
}

impl Usage {
    /// Returns the usage before any answer.
    pub(super) fn of_prompt(n_prompt: usize) -> Self {
        Self { n_prompt, ..Self::default() }
    }

    pub(super) fn add(&mut self, generation: &Generation) {
        self.n_completion += generation.tokens.len();
        self.n_reused += generation.n_reused;
    }

    pub(super) fn json(self) -> Value {
        // Each further answer finds the prompt there; it is counted once all the same.
        let n_cached = self.n_reused.min(self.n_prompt);
        json!({"prompt_tokens": self.n_prompt, "completion_tokens": self.n_completion,
            "total_tokens": self.n_prompt + self.n_completion, "prompt_tokens_details": {"cached_tokens": n_cached}})
    }
}

pub(super) fn finish_reason(generation: &Generation) -> &'static str {
    match generation.stop {
        StopReason::EndOfGeneration | StopReason::StopText => "stop",
        StopReason::MaxTokens | StopReason::Time | StopReason::Enough | StopReason::Cancelled => "length",
    }
}

/// Returns a logprob as JSON has it, where there is no infinity: OpenAI shows what is never chosen so.
pub(super) fn logprob(logprob: f32) -> Value {
    json!(logprob.max(-9999.0))
}

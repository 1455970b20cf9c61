//! The protocol between a client and the server, as it stands in the frames.
//!
//! In: calls, each with an id of the client's choice. Out: replies with the same id, in any order among the ids; each
//! call of work gets exactly one last reply (I-5). Below `from_wire` and `to_wire` nothing names these types.
//! Never: probabilities in decimal; the 32 bits of each travel, so that an answer is the one the engine gave.

pub(crate) mod from_wire;
pub(crate) mod to_wire;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The protocol's version: another one is not understood.
pub(crate) const PROTOCOL: u32 = 2;
/// The program's version: another one may give other answers.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Must come first.
    Hello(Hello),
    Generate(Box<Generate>),
    Score(Score),
    /// The answer to the call of this id is not wanted any more; it still comes, shortened.
    Cancel,
    /// Enough of one of the answers to the call of this id has come.
    Enough {
        answer_idx: usize,
    },
    Status,
    /// The server shall leave; also understood from a client of another version.
    Shutdown,
}

/// What the server sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) tell: Tell,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tell {
    Hello(Welcome),
    /// More of one answer's text; the last reply is still to come.
    Text {
        answer_idx: usize,
        text: String,
    },
    /// All answers, in their order.
    Generated(Vec<Generated>),
    Scored(Option<Vec<Scored>>),
    Failed(Failed),
    Status(serde_json::Value),
    /// The server leaves.
    Closing,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    /// The model's file, as `ModelFile::identity` has it; empty from who wants no work done.
    pub(crate) model: String,
    pub(crate) pid: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    pub(crate) model: String,
    pub(crate) model_path: String,
    pub(crate) pid: u32,
    pub(crate) n_ctx: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Generate {
    pub(crate) n_answers: usize,
    pub(crate) prompt: Vec<u32>,
    pub(crate) healed: Vec<u8>,
    pub(crate) grammar: Option<Grammar>,
    pub(crate) shown: Vec<u32>,
    pub(crate) draft_extent: DraftExtent,
    pub(crate) original: Vec<u32>,
    pub(crate) previous: Vec<u32>,
    pub(crate) temperature_bits: u32,
    pub(crate) top_k: usize,
    pub(crate) top_p_bits: u32,
    pub(crate) seed: u64,
    pub(crate) n_max_tokens: usize,
    pub(crate) stop_texts: Vec<String>,
    pub(crate) decode_time_us: Option<u64>,
    pub(crate) n_top: usize,
    pub(crate) priority: Priority,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grammar {
    JsonSchema(serde_json::Value),
    JsonObject,
    Regex(String),
    Lark(String),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DraftExtent {
    Off,
    WhatPays,
    All,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Priority {
    Interactive,
    Background,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Generated {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprob_bits: Vec<u32>,
    pub(crate) top: Vec<Vec<(u32, u32)>>,
    pub(crate) stop: Reason,
    pub(crate) n_prompt: usize,
    pub(crate) n_reused: usize,
    pub(crate) n_drafted: usize,
    pub(crate) n_kept: usize,
    pub(crate) queue_us: u64,
    pub(crate) prefill_us: u64,
    pub(crate) decode_us: u64,
    pub(crate) ttft_us: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    EndOfGeneration,
    StopText,
    MaxTokens,
    Time,
    Enough,
    Cancelled,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Score {
    pub(crate) tokens: Vec<u32>,
    pub(crate) from: usize,
    pub(crate) n_top: usize,
    pub(crate) asked: Vec<(usize, Vec<u32>)>,
    pub(crate) priority: Priority,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scored {
    pub(crate) token: u32,
    pub(crate) logprob_bits: u32,
    pub(crate) top: Vec<(u32, u32)>,
    pub(crate) asked_bits: Vec<u32>,
}

/// An error of the engine's. Those that a caller can act on keep their kind.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Failed {
    PromptTooLong {
        n_tokens: usize,
        n_ctx: usize,
    },
    EmptyPrompt,
    UnknownToken {
        token: u32,
    },
    KvFull {
        n_blocks: usize,
    },
    Busy {
        n_waiting: usize,
    },
    Grammar {
        fault: GrammarFault,
        what: String,
    },
    /// A frame that is not understood, or a call out of turn: the client's fault.
    Malformed {
        message: String,
    },
    Other {
        message: String,
        hint: Option<String>,
    },
}

/// What is wrong with a grammar; an engine's caller can mend it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrammarFault {
    Syntax,
    Unsupported,
    Unsatisfiable,
    TooExpensive,
    DeadEnd,
    Vocabulary,
    Failed,
}

/// Returns a duration as it travels.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

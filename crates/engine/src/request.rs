//! What is asked of the engine and what comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{GrammarSpec, TokenId};

/// Who waits for the answer. Interactive work is always stepped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody is typing.
    Interactive,
    /// An agent run.
    Background,
}

/// How the next token is chosen from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 chooses the likeliest token; 1 samples from the model's own distribution.
    pub temperature: f32,
    /// Keeps only so many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens until their probabilities reach this sum.
    pub top_p: f32,
    /// Random numbers come from (seed, position), so they do not depend on what else runs.
    pub seed: u64,
}

impl Sampling {
    /// Returns the choice of the likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }

    /// Returns whether the likeliest token is chosen, always.
    pub(crate) fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }
}

/// When generation ends, besides the model's own end-of-generation tokens.
#[derive(Clone, Debug)]
pub struct StopRules {
    /// Most tokens to generate.
    pub n_max_tokens: usize,
    /// Texts that end generation; they are not part of the answer.
    pub texts: Vec<String>,
    /// Longest time to spend on decoding, counted from the first decoded token.
    pub decode_time: Option<Duration>,
}

/// How much of a draft is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DraftExtent {
    /// Nothing.
    Off,
    /// As much as pays by what steps take here and how often drafts were right.
    #[default]
    WhatPays,
    /// All of it, whatever it costs: tests show with it that drafts do not change answers.
    All,
}

/// Texts in which the answer's coming tokens may be found, so that several of them are verified in one step.
///
/// The answer is the same without, only later.
#[derive(Clone, Debug, Default)]
pub struct Drafting {
    /// How much of what is found is verified.
    pub extent: DraftExtent,
    /// A text that the answer rewrites.
    pub original: Vec<TokenId>,
    /// What is left of an earlier answer to nearly the same prompt.
    pub previous: Vec<TokenId>,
}

/// A prompt to continue.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The prompt's ids. Specials are in it only because a caller put them there by id (I-3).
    pub prompt: Vec<TokenId>,
    /// Bytes the answer must begin with: the text of the tokens backed up over at the cursor.
    pub healed: Vec<u8>,
    /// What the answer must be, after the healed bytes; anything when not set.
    pub grammar: Option<GrammarSpec>,
    /// Special tokens whose names stand in the answer's text, such as the markers of a tool call; of the others
    /// nothing is seen there. They are names in a text, which no tokenizer makes special tokens of (I-3).
    pub shown: Vec<TokenId>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// When to stop.
    pub stop: StopRules,
    /// Where to look for what comes next.
    pub drafting: Drafting,
    /// How many of the likeliest tokens to return for each of the answer's places; may be 0.
    pub n_top: usize,
    /// Who waits.
    pub priority: Priority,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model gave an end-of-generation token, or the answer is all that its grammar allows.
    EndOfGeneration,
    /// One of [`StopRules::texts`] appeared.
    StopText,
    /// [`StopRules::n_max_tokens`] was reached, or the model's context is full.
    MaxTokens,
    /// [`StopRules::decode_time`] was spent.
    Time,
    /// The caller's sink said that it has seen enough.
    Enough,
    /// The caller cancelled. What was generated so far is in the answer.
    Cancelled,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From the call to the first step.
    pub queue: Duration,
    /// Steps over the prompt.
    pub prefill: Duration,
    /// Steps over the answer.
    pub decode: Duration,
    /// From the call to the first token.
    pub ttft: Duration,
}

/// A finished generation.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The answer's bytes as text, without the healed bytes and without a stop text.
    pub text: String,
    /// The answer's ids, the healed part included.
    pub tokens: Vec<TokenId>,
    /// Natural logarithm of each token's probability under the model, before temperature and whatever a grammar
    /// forbids. A healed token's is among those that fit the healed bytes.
    pub logprobs: Vec<f32>,
    /// The likeliest tokens at each token's place, best first, with their logprobs, counted as in `logprobs`; empty where
    /// none were asked for.
    pub top: Vec<Vec<(TokenId, f32)>>,
    /// Why it ended.
    pub stop: StopReason,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Prompt tokens already in the KV cache.
    pub n_reused: usize,
    /// Tokens a drafter proposed.
    pub n_drafted: usize,
    /// Drafted tokens that were kept.
    pub n_kept: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Tokens whose probability is asked for.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// The whole sequence.
    pub tokens: Vec<TokenId>,
    /// Index of the first token to score; at least 1, since the first has nothing before it.
    pub from: usize,
    /// How many of the likeliest tokens to return for each position; may be 0.
    pub n_top: usize,
    /// Other tokens whose logprobs are wanted, by the index at which they would stand.
    pub asked: BTreeMap<usize, Vec<TokenId>>,
    /// Who waits.
    pub priority: Priority,
}

/// How likely the model finds one token after those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The token that stands there.
    pub token: TokenId,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens there, best first, with their logprobs.
    pub top: Vec<(TokenId, f32)>,
    /// The logprobs of the tokens asked for at this index, in the order of the request.
    pub asked: Vec<f32>,
}

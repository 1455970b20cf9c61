//! The engine's requests, answers and errors as they stand in frames.

use std::error::Error as _;

use engine::{
    DraftExtent, GenerateRequest, Generation, GrammarError, GrammarSpec, ScoreRequest, StopReason, TokenId,
};

use crate::wire;

use super::{Failed, Generate, Generated, GrammarFault, Priority, Reason, Score, Scored, micros};

pub(crate) fn generate(request: GenerateRequest, n_answers: usize) -> Generate {
    Generate {
        n_answers,
        prompt: ids(&request.prompt),
        healed: request.healed,
        grammar: request.grammar.map(|spec| match spec {
            GrammarSpec::JsonSchema(schema) => wire::Grammar::JsonSchema(schema),
            GrammarSpec::JsonObject => wire::Grammar::JsonObject,
            GrammarSpec::Regex(regex) => wire::Grammar::Regex(regex),
            GrammarSpec::Lark(lark) => wire::Grammar::Lark(lark),
        }),
        shown: ids(&request.shown),
        draft_extent: match request.drafting.extent {
            DraftExtent::Off => wire::DraftExtent::Off,
            DraftExtent::WhatPays => wire::DraftExtent::WhatPays,
            DraftExtent::All => wire::DraftExtent::All,
        },
        original: ids(&request.drafting.original),
        previous: ids(&request.drafting.previous),
        temperature_bits: request.sampling.temperature.to_bits(),
        top_k: request.sampling.top_k,
        top_p_bits: request.sampling.top_p.to_bits(),
        seed: request.sampling.seed,
        n_max_tokens: request.stop.n_max_tokens,
        stop_texts: request.stop.texts,
        decode_time_us: request.stop.decode_time.map(micros),
        n_top: request.n_top,
        priority: priority(request.priority),
    }
}

pub(crate) fn score(request: ScoreRequest) -> Score {
    Score {
        tokens: ids(&request.tokens),
        from: request.from,
        n_top: request.n_top,
        asked: request.asked.into_iter().map(|(at, tokens)| (at, ids(&tokens))).collect(),
        priority: priority(request.priority),
    }
}

pub(crate) fn generated(generation: Generation) -> Generated {
    Generated {
        tokens: ids(&generation.tokens),
        logprob_bits: bits(&generation.logprobs),
        top: generation.top.into_iter().map(top).collect(),
        text: generation.text,
        stop: match generation.stop {
            StopReason::EndOfGeneration => Reason::EndOfGeneration,
            StopReason::StopText => Reason::StopText,
            StopReason::MaxTokens => Reason::MaxTokens,
            StopReason::Time => Reason::Time,
            StopReason::Enough => Reason::Enough,
            StopReason::Cancelled => Reason::Cancelled,
        },
        n_prompt: generation.n_prompt,
        n_reused: generation.n_reused,
        n_drafted: generation.n_drafted,
        n_kept: generation.n_kept,
        queue_us: micros(generation.timings.queue),
        prefill_us: micros(generation.timings.prefill),
        decode_us: micros(generation.timings.decode),
        ttft_us: micros(generation.timings.ttft),
    }
}

pub(crate) fn scored(score: engine::Score) -> Scored {
    Scored {
        token: score.token.0,
        logprob_bits: score.logprob.to_bits(),
        top: top(score.top),
        asked_bits: bits(&score.asked),
    }
}

pub(crate) fn failed(error: &engine::Error) -> Failed {
    match error {
        engine::Error::PromptTooLong { n_tokens, n_ctx } => {
            Failed::PromptTooLong { n_tokens: *n_tokens, n_ctx: *n_ctx }
        }
        engine::Error::EmptyPrompt => Failed::EmptyPrompt,
        engine::Error::UnknownToken(token) => Failed::UnknownToken { token: *token },
        engine::Error::KvFull(full) => Failed::KvFull { n_blocks: full.n_blocks },
        engine::Error::Busy { n_waiting } => Failed::Busy { n_waiting: *n_waiting },
        engine::Error::Grammar(error) => grammar(error),
        error => {
            let mut message = error.to_string();
            if let Some(source) = error.source() {
                message = format!("{message}: {source}");
            }
            Failed::Other { message, hint: error.hint().map(str::to_owned) }
        }
    }
}

fn grammar(error: &GrammarError) -> Failed {
    let (fault, what) = match error {
        GrammarError::Syntax(what) => (GrammarFault::Syntax, what.as_str()),
        GrammarError::Unsupported(what) => (GrammarFault::Unsupported, what.as_str()),
        GrammarError::Unsatisfiable(what) => (GrammarFault::Unsatisfiable, what.as_str()),
        GrammarError::TooExpensive(what) => (GrammarFault::TooExpensive, what.as_str()),
        GrammarError::DeadEnd => (GrammarFault::DeadEnd, ""),
        GrammarError::Vocabulary(what) => (GrammarFault::Vocabulary, what.as_str()),
        GrammarError::Failed(what) => (GrammarFault::Failed, what.as_str()),
    };
    Failed::Grammar { fault, what: what.to_owned() }
}

fn priority(priority: engine::Priority) -> Priority {
    match priority {
        engine::Priority::Interactive => Priority::Interactive,
        engine::Priority::Background => Priority::Background,
    }
}

fn top(top: Vec<(TokenId, f32)>) -> Vec<(u32, u32)> {
    top.into_iter().map(|(token, logprob)| (token.0, logprob.to_bits())).collect()
}

fn ids(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}

fn bits(logprobs: &[f32]) -> Vec<u32> {
    logprobs.iter().map(|logprob| logprob.to_bits()).collect()
}

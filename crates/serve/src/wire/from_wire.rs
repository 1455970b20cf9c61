//! What stands in frames as the engine's requests, answers and errors.

use std::time::Duration;

use engine::{
    DraftExtent, Drafting, GenerateRequest, Generation, GrammarError, GrammarSpec, KvFull, Sampling,
    ScoreRequest, StopReason, StopRules, TokenId,
};

use crate::wire;

use super::{Failed, Generate, Generated, GrammarFault, Priority, Reason, Score, Scored};

pub(crate) fn generate(request: Generate) -> GenerateRequest {
    GenerateRequest {
        prompt: ids(request.prompt),
        healed: request.healed,
        grammar: request.grammar.map(grammar),
        shown: ids(request.shown),
        drafting: Drafting {
            extent: match request.draft_extent {
                wire::DraftExtent::Off => DraftExtent::Off,
                wire::DraftExtent::WhatPays => DraftExtent::WhatPays,
                wire::DraftExtent::All => DraftExtent::All,
            },
            original: ids(request.original),
            previous: ids(request.previous),
        },
        sampling: Sampling {
            temperature: f32::from_bits(request.temperature_bits),
            top_k: request.top_k,
            top_p: f32::from_bits(request.top_p_bits),
            seed: request.seed,
        },
        stop: StopRules {
            n_max_tokens: request.n_max_tokens,
            texts: request.stop_texts,
            decode_time: request.decode_time_us.map(Duration::from_micros),
        },
        n_top: request.n_top,
        priority: priority(request.priority),
    }
}

fn grammar(grammar: wire::Grammar) -> GrammarSpec {
    match grammar {
        wire::Grammar::JsonSchema(schema) => GrammarSpec::JsonSchema(schema),
        wire::Grammar::JsonObject => GrammarSpec::JsonObject,
        wire::Grammar::Regex(regex) => GrammarSpec::Regex(regex),
        wire::Grammar::Lark(lark) => GrammarSpec::Lark(lark),
    }
}

pub(crate) fn score(request: Score) -> ScoreRequest {
    ScoreRequest {
        tokens: ids(request.tokens),
        from: request.from,
        n_top: request.n_top,
        asked: request.asked.into_iter().map(|(at, tokens)| (at, ids(tokens))).collect(),
        priority: priority(request.priority),
    }
}

pub(crate) fn generated(generated: Generated) -> Generation {
    Generation {
        text: generated.text,
        tokens: ids(generated.tokens),
        logprobs: floats(generated.logprob_bits),
        top: generated.top.into_iter().map(top).collect(),
        stop: match generated.stop {
            Reason::EndOfGeneration => StopReason::EndOfGeneration,
            Reason::StopText => StopReason::StopText,
            Reason::MaxTokens => StopReason::MaxTokens,
            Reason::Time => StopReason::Time,
            Reason::Enough => StopReason::Enough,
            Reason::Cancelled => StopReason::Cancelled,
        },
        n_prompt: generated.n_prompt,
        n_reused: generated.n_reused,
        n_drafted: generated.n_drafted,
        n_kept: generated.n_kept,
        timings: engine::Timings {
            queue: Duration::from_micros(generated.queue_us),
            prefill: Duration::from_micros(generated.prefill_us),
            decode: Duration::from_micros(generated.decode_us),
            ttft: Duration::from_micros(generated.ttft_us),
        },
    }
}

pub(crate) fn scored(scored: Scored) -> engine::Score {
    engine::Score {
        token: TokenId(scored.token),
        logprob: f32::from_bits(scored.logprob_bits),
        top: top(scored.top),
        asked: floats(scored.asked_bits),
    }
}

pub(crate) fn failed(failed: Failed) -> engine::Error {
    match failed {
        Failed::PromptTooLong { n_tokens, n_ctx } => engine::Error::PromptTooLong { n_tokens, n_ctx },
        Failed::EmptyPrompt => engine::Error::EmptyPrompt,
        Failed::UnknownToken { token } => engine::Error::UnknownToken(token),
        Failed::KvFull { n_blocks } => engine::Error::KvFull(KvFull { n_blocks }),
        Failed::Busy { n_waiting } => engine::Error::Busy { n_waiting },
        Failed::Grammar { fault, what } => engine::Error::Grammar(grammar_error(fault, what)),
        Failed::Malformed { message } => {
            engine::Error::Link { message: format!("the server did not understand: {message}"), hint: None }
        }
        Failed::Other { message, hint } => engine::Error::Link { message, hint },
    }
}

fn grammar_error(fault: GrammarFault, what: String) -> GrammarError {
    match fault {
        GrammarFault::Syntax => GrammarError::Syntax(what),
        GrammarFault::Unsupported => GrammarError::Unsupported(what),
        GrammarFault::Unsatisfiable => GrammarError::Unsatisfiable(what),
        GrammarFault::TooExpensive => GrammarError::TooExpensive(what),
        GrammarFault::DeadEnd => GrammarError::DeadEnd,
        GrammarFault::Vocabulary => GrammarError::Vocabulary(what),
        GrammarFault::Failed => GrammarError::Failed(what),
    }
}

fn priority(priority: Priority) -> engine::Priority {
    match priority {
        Priority::Interactive => engine::Priority::Interactive,
        Priority::Background => engine::Priority::Background,
    }
}

fn top(top: Vec<(u32, u32)>) -> Vec<(TokenId, f32)> {
    top.into_iter().map(|(token, bits)| (TokenId(token), f32::from_bits(bits))).collect()
}

fn ids(tokens: Vec<u32>) -> Vec<TokenId> {
    tokens.into_iter().map(TokenId).collect()
}

fn floats(bits: Vec<u32>) -> Vec<f32> {
    bits.into_iter().map(f32::from_bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::to_wire;

    #[test]
    fn an_error_keeps_what_its_caller_can_act_on() {
        let check = |error: engine::Error| {
            let frame = serde_json::to_string(&to_wire::failed(&error)).expect("it can be written");
            let back = failed(serde_json::from_str(&frame).expect("it can be read"));
            assert_eq!((back.to_string(), back.hint()), (error.to_string(), error.hint()), "{frame}");
            std::mem::discriminant(&back) == std::mem::discriminant(&error)
        };
        assert!(check(engine::Error::PromptTooLong { n_tokens: 9, n_ctx: 8 }));
        assert!(check(engine::Error::EmptyPrompt));
        assert!(check(engine::Error::UnknownToken(7)));
        assert!(check(engine::Error::KvFull(KvFull { n_blocks: 3 })));
        assert!(check(engine::Error::Busy { n_waiting: 64 }));
        assert!(check(engine::Error::Grammar(GrammarError::Unsupported("`not`".to_owned()))));
        assert!(check(engine::Error::Grammar(GrammarError::DeadEnd)));
        assert!(!check(engine::Error::Inconsistent("a tensor".to_owned())));
        assert!(!check(engine::Error::Gone));
    }

    #[test]
    fn a_probability_keeps_its_bits() {
        for logprob in [-0.1_f32, f32::NEG_INFINITY, f32::MIN_POSITIVE, -0.0] {
            let score = engine::Score {
                token: TokenId(1),
                logprob,
                top: vec![(TokenId(2), logprob)],
                asked: vec![logprob],
            };
            let frame = serde_json::to_string(&to_wire::scored(score)).expect("it can be written");
            let back = scored(serde_json::from_str(&frame).expect("it can be read"));
            for bits in [back.logprob, back.top[0].1, back.asked[0]].map(f32::to_bits) {
                assert_eq!(bits, logprob.to_bits());
            }
        }
    }
}

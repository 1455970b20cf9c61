//! A cursor becomes ghost text. Knows no LSP.
//!
//! In: a document's snapshot and a cursor. Out: [`Completion`], or the reason why there is none.
//! Never: writes anything, opens a socket (I-13).
//! Thread: the caller's; the engine computes on its own.
//!
//! The keystroke's path is a straight line: [`gate`] → [`window`] → [`prompt`] → engine → [`trim`].

#![forbid(unsafe_code)]

pub mod gate;
pub mod prompt;
pub mod trim;
pub mod window;

mod request;

pub use request::{Completion, GhostText, NoneReason, Options, Request, Statistics, Trigger};

use engine::{CancelToken, Drafting, Engine, GenerateRequest, Priority, Sampling, StopReason, StopRules};

/// Returns the ghost text for a cursor, or why there is none.
///
/// Cancelling is not an error: the completion says [`NoneReason::Cancelled`].
///
/// # Errors
/// Only those of the engine that are nobody's choice: see [`engine::Error`].
pub fn complete(
    engine: &Engine,
    request: &Request<'_>,
    options: &Options,
    cancel: &CancelToken,
) -> Result<Completion, engine::Error> {
    let span =
        tracing::info_span!("complete", version = request.document.version(), offset = request.offset.0);
    let _entered = span.enter();

    let around = gate::around(request);
    if let Some(reason) = gate::gate(request, &around) {
        return Ok(Completion::none(reason));
    }
    let window = window::window(request, options.n_max_prefix_bytes);
    let prompt = prompt::prompt(engine.tokenizer(), &window.prefix);
    let mut stop = trim::StopRule::new(&around);
    let generate = GenerateRequest {
        prompt: prompt.tokens,
        healed: prompt.healed,
        grammar: None,
        sampling: Sampling::greedy(),
        stop: StopRules {
            n_max_tokens: options.n_max_tokens,
            texts: Vec::new(),
            decode_time: Some(options.decode_time),
        },
        drafting: Drafting::default(),
        n_top: 0,
        priority: Priority::Interactive,
    };
    let generation = engine.generate(generate, &mut |text| stop.wants_more(text), cancel)?;
    let statistics = Statistics::from(&generation);
    if generation.stop == StopReason::Cancelled {
        return Ok(Completion { result: Err(NoneReason::Cancelled), statistics });
    }
    let is_cut = matches!(generation.stop, StopReason::MaxTokens | StopReason::Time);
    let result = trim::trim(&generation.text, &around, is_cut).map(|insert| GhostText {
        insert: window.line_ends(insert),
        range: request.offset..request.offset,
        version: request.document.version(),
    });
    Ok(Completion { result, statistics })
}

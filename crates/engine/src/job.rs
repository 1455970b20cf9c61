//! A request being worked on, one step at a time.
//!
//! In: a request and the engine's parts. Out: events on the request's own channel, exactly one of them `Done` (I-5).
//! Thread: the engine thread.

mod generate;
mod score;

pub(crate) use generate::GenerateJob;
pub(crate) use score::ScoreJob;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::retained::Retained;
use crate::{
    Backend, CancelToken, Drafter, Error, Generation, KvPool, Logits, Priority, RowSpan, Score, Sequence,
    StepBatch, StepControl, StepEnd, TokenId, Tokenizer,
};

/// What a generation tells its caller.
pub(crate) enum Event {
    /// More of the answer; never part of a character, never a stop text.
    Text(String),
    /// The end.
    Done(Result<Generation, Error>),
}

/// Where a job's result goes.
pub(crate) struct Caller<T> {
    pub(crate) reply: Sender<T>,
    pub(crate) cancel: CancelToken,
    /// Raised when the caller has seen enough.
    pub(crate) enough: Arc<AtomicBool>,
    pub(crate) since: Instant,
}

/// What the engine thread owns.
pub(crate) struct Parts {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) kv: KvPool,
    pub(crate) retained: Retained,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) drafter: Option<Box<dyn Drafter>>,
    pub(crate) is_forced_undrafted: bool,
    pub(crate) logits: Logits,
    pub(crate) pace: Pace,
}

impl Parts {
    /// Runs `tokens` at the end of `sequence` and commits them; `wanted` rows' logits are in `self.logits` then.
    fn step(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        wanted: &[usize],
        should_stop: &dyn Fn() -> bool,
    ) -> Result<StepEnd, Error> {
        self.retained.reserve(&mut self.kv, sequence, tokens.len())?;
        let span =
            RowSpan { blocks: sequence.blocks(), start: sequence.tokens().len(), n_tokens: tokens.len() };
        let batch = StepBatch { tokens, spans: &[span], logits: wanted };
        let started = Instant::now();
        let end =
            self.backend.forward(&batch, &mut self.kv, &mut self.logits, &StepControl { should_stop })?;
        if end == StepEnd::Done {
            // A decoding step says nothing of how long a prompt's rows take: it waits for the weights, not for them.
            if tokens.len() >= N_MIN_OBSERVED {
                self.pace.observe(tokens.len(), started.elapsed());
            }
            sequence.commit(tokens);
        }
        Ok(end)
    }

    /// Starts a sequence with what is already known of `prompt`, leaving at least its last token to compute.
    fn begin(&mut self, prompt: &[TokenId], n_max_reused: usize) -> Sequence {
        self.retained.begin(&mut self.kv, prompt, n_max_reused)
    }

    fn keep(&mut self, sequence: Sequence) {
        self.retained.keep(&mut self.kv, sequence);
    }
}

/// Fewest rows of a step that tell the pace of a prompt.
const N_MIN_OBSERVED: usize = 16;

/// How many prompt rows make a step of about a tenth of a second, so that a keystroke never waits longer for an
/// agent's prefill.
#[derive(Debug)]
pub(crate) struct Pace {
    rows_per_second: f64,
}

impl Pace {
    const CHUNK: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        Self { rows_per_second: 160.0 }
    }

    fn observe(&mut self, n_rows: usize, elapsed: Duration) {
        let rate = n_rows as f64 / elapsed.as_secs_f64().max(1e-6);
        self.rows_per_second += 0.2 * (rate - self.rows_per_second);
    }

    fn chunk_rows(&self) -> usize {
        ((self.rows_per_second * Self::CHUNK.as_secs_f64()) as usize).clamp(N_MIN_OBSERVED, 256)
    }
}

/// Whether a job has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Step it again.
    More,
    /// It has answered.
    Done,
}

/// One request's work.
pub(crate) trait Job: Send {
    fn priority(&self) -> Priority;
    /// Does one step and answers if it was the last.
    fn step(&mut self, parts: &mut Parts) -> Progress;
    /// Answers with an error; nothing was or will be answered otherwise.
    fn fail(&mut self, error: Error);
}

/// The reply of a [`ScoreJob`]: `None` when it was cancelled.
pub(crate) type ScoreReply = Result<Option<Vec<Score>>, Error>;

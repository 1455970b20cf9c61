//! A request being worked on, step by step, beside others.
//!
//! In: a request and the engine's parts. Out: rows for the next step; events on the request's own channel, exactly one of
//! them `Done` (I-5).
//! Thread: the engine thread.

mod branch;
mod generate;
mod score;

pub(crate) use generate::GenerateJob;
pub(crate) use score::ScoreJob;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::drafter::DraftModel;
use crate::retained::Retained;
use crate::{
    Backend, BlockId, CancelToken, DrafterKind, Error, Generation, KvPool, Logits, MatchOdds, Metrics,
    Priority, Score, Sequence, StepCosts, TokenId, Tokenizer,
};

/// What a generation tells its caller.
pub(crate) enum Event {
    /// More of one answer; never part of a character, never a stop text.
    Text {
        /// Which of the answers asked for.
        answer_idx: usize,
        text: String,
    },
    /// The end: all answers, in their order.
    Done(Result<Vec<Generation>, Error>),
}

/// Where a job's result goes.
pub(crate) struct Caller<T> {
    pub(crate) reply: Sender<T>,
    pub(crate) cancel: CancelToken,
    /// Raised when the caller has seen enough of an answer; one for each.
    pub(crate) enough: Arc<[AtomicBool]>,
    pub(crate) since: Instant,
}

/// What the engine thread owns.
pub(crate) struct Parts {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) kv: KvPool,
    pub(crate) retained: Retained,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// How often each kind of drafter has been right of late, by `DrafterKind as usize`.
    pub(crate) odds: [MatchOdds; DrafterKind::ALL.len()],
    pub(crate) logits: Logits,
    pub(crate) pace: Pace,
    pub(crate) costs: StepCosts,
    /// A smaller model that drafts.
    pub(crate) draft_model: Option<DraftModel>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Parts {
    /// Starts a sequence with what is already known of `prompt`, leaving at least its last token to compute.
    fn begin(&mut self, prompt: &[TokenId], n_max_reused: usize) -> Sequence {
        let sequence = self.retained.begin(&mut self.kv, prompt, n_max_reused);
        self.metrics.n_reused.add(sequence.tokens().len());
        sequence
    }

    /// Makes room for `n_more` positions, at the cost of what ended requests left behind.
    fn reserve(&mut self, sequence: &mut Sequence, n_more: usize) -> Result<(), Error> {
        Ok(self.retained.reserve(&mut self.kv, sequence, n_more)?)
    }

    fn keep(&mut self, sequence: Sequence) {
        self.retained.keep(&mut self.kv, sequence);
    }

    /// Lets other requests begin with the whole blocks of a sequence that is still running.
    fn publish(&mut self, sequence: &Sequence) {
        let n_whole = sequence.tokens().len() / crate::BLOCK_TOKENS * crate::BLOCK_TOKENS;
        let shared = self.kv.fork(sequence, n_whole);
        self.retained.keep(&mut self.kv, shared);
    }
}

/// The rows of one step, of all jobs that take part in it.
#[derive(Debug, Default)]
pub(crate) struct StepPlan {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) spans: Vec<PlannedSpan>,
    /// Rows whose logits are wanted.
    pub(crate) wanted: Vec<usize>,
    /// Rows that are of prompts.
    pub(crate) n_prompt_rows: usize,
    /// Whether some rows are of interactive requests.
    pub(crate) has_interactive: bool,
    /// Whether somebody types: what is slow is overtaken soon.
    pub(crate) is_typing: bool,
}

/// A run of positions of one sequence.
#[derive(Debug)]
pub(crate) struct PlannedSpan {
    pub(crate) blocks: Vec<BlockId>,
    pub(crate) start: usize,
    pub(crate) n_tokens: usize,
}

impl StepPlan {
    /// Adds tokens at the end of a sequence that has room for them; `wanted` says of which the logits are wanted.
    /// Returns where these will be among all.
    fn add(&mut self, sequence: &Sequence, tokens: &[TokenId], wanted: Range<usize>) -> usize {
        let (first_row, first_logits) = (self.tokens.len(), self.wanted.len());
        self.tokens.extend_from_slice(tokens);
        self.wanted.extend(wanted.map(|row_idx| first_row + row_idx));
        self.spans.push(PlannedSpan {
            blocks: sequence.blocks().to_vec(),
            start: sequence.tokens().len(),
            n_tokens: tokens.len(),
        });
        first_logits
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.tokens.len()
    }
}

/// Fewest rows of a step that tell the pace of a prompt.
const N_MIN_OBSERVED: usize = 16;

/// How many rows of a prompt a machine computes in a time.
#[derive(Debug)]
pub(crate) struct Pace {
    rows_per_second: f64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { rows_per_second: 160.0 }
    }

    /// Returns the pace of a machine that computed `n_rows` rows in `elapsed`.
    pub(crate) fn measured(n_rows: usize, elapsed: Duration) -> Self {
        Self { rows_per_second: n_rows as f64 / elapsed.as_secs_f64().max(1e-6) }
    }

    /// Returns how many seconds `n_rows` rows take.
    pub(crate) fn seconds(&self, n_rows: usize) -> f64 {
        n_rows as f64 / self.rows_per_second
    }

    /// Learns from a step. A decoding step says nothing of how long a prompt's rows take: it waits for the weights, not
    /// for them.
    pub(crate) fn observe(&mut self, n_rows: usize, elapsed: Duration) {
        if n_rows >= N_MIN_OBSERVED {
            let rate = n_rows as f64 / elapsed.as_secs_f64().max(1e-6);
            self.rows_per_second += 0.2 * (rate - self.rows_per_second);
        }
    }

    /// Returns how many rows take about `time`.
    pub(crate) fn n_rows_in(&self, time: Duration) -> usize {
        ((self.rows_per_second * time.as_secs_f64()) as usize).clamp(N_MIN_OBSERVED, 512)
    }
}

/// Whether a job has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    More,
    /// It has answered.
    Done,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was computed yet.
    Waiting,
    /// Its prompt is computed, many rows at a time.
    Prefill,
    /// Its answers grow, a row or a draft at a time.
    Decode,
}

/// One request's work.
pub(crate) trait Job: Send {
    fn priority(&self) -> Priority;

    /// Returns whether its caller wants nothing of it any more.
    fn is_unwanted(&self) -> bool;

    fn phase(&self) -> Phase;

    fn prompt(&self) -> &[TokenId];

    /// Returns whether it has places in the KV cache.
    fn holds_kv(&self) -> bool;

    /// Returns how many rows it added to the step that is planned.
    fn n_planned_rows(&self) -> usize;

    /// Adds the rows it wants next, `n_max_rows` at most, or answers.
    ///
    /// A step that is given up is planned again: planning changes nothing but where sequences have room, and what a
    /// draft model has seen of them.
    ///
    /// # Errors
    /// [`Error::KvFull`] when there is no room; nothing was added then.
    fn plan(&mut self, parts: &mut Parts, n_max_rows: usize, plan: &mut StepPlan) -> Result<Progress, Error>;

    /// Takes the logits of the rows it added, and how long the step took; answers if it was the last.
    ///
    /// # Errors
    /// The caller's answer, by way of [`Job::fail`].
    fn absorb(&mut self, parts: &mut Parts, elapsed: Duration) -> Result<Progress, Error>;

    /// Gives its places in the KV cache up, to be computed again when there is room.
    fn suspend(&mut self, parts: &mut Parts);

    /// Answers with an error; nothing was or will be answered otherwise.
    fn fail(&mut self, parts: Option<&mut Parts>, error: Error);
}

/// The reply of a [`ScoreJob`]: `None` when it was cancelled.
pub(crate) type ScoreReply = Result<Option<Vec<Score>>, Error>;

//! Who hears of every request: what was asked, when, and what came of it.
//!
//! In: requests that have ended. Out: the same, to a [`Recorder`].
//! Thread: the one that asked; the engine thread has others to serve.

use std::time::Instant;

use crate::{CancelToken, Engine, Error, GenerateRequest, Generation, GivenUp, Score, ScoreRequest};

/// Hears of every request that an engine has answered.
pub trait Recorder: Send + Sync {
    /// Takes one request. Its caller waits for this to return.
    fn record(&self, ended: Ended<'_>);
}

/// A request that has ended.
pub struct Ended<'a> {
    /// What was asked.
    pub asked: Asked,
    /// When.
    pub arrived: Instant,
    /// When it was cancelled, if its answer says that it was.
    pub cancelled: Option<Instant>,
    /// How many bytes of each answer its caller had seen when it had enough, if it had.
    pub enough_after: Vec<Option<usize>>,
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// Pre-emptions since the engine's start, where it runs in this process.
    pub n_overtaken: u64,
}

/// What may be asked of an engine.
#[derive(Clone, Debug)]
pub enum Asked {
    /// One or several answers.
    Generate {
        /// The prompt and what is wished.
        request: Box<GenerateRequest>,
        /// How many answers.
        n_answers: usize,
    },
    /// The probability of tokens.
    Score(ScoreRequest),
}

/// What may come of it.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Answers, in their order.
    Generated(&'a [Generation]),
    /// Scores; none when cancelled.
    Scored(Option<&'a [Score]>),
    /// No answer.
    Failed(&'a Error),
}

impl Outcome<'_> {
    /// Returns whether its caller cancelled it.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Generated(answers) => {
                answers.iter().any(|answer| answer.stop == crate::StopReason::Cancelled)
            }
            Self::Scored(scores) => scores.is_none(),
            Self::Failed(_) => false,
        }
    }
}

/// Generates, and tells the recorder.
pub(crate) fn generate(
    engine: &Engine,
    recorder: &dyn Recorder,
    request: GenerateRequest,
    n_answers: usize,
    on_text: &mut dyn FnMut(usize, &str) -> bool,
    cancel: &CancelToken,
) -> Result<Vec<Generation>, Error> {
    let arrived = Instant::now();
    let asked = Asked::Generate { request: Box::new(request.clone()), n_answers };
    let mut n_seen = vec![0; n_answers];
    let mut enough_after = vec![None; n_answers];
    let mut watched = |answer_idx: usize, text: &str| {
        n_seen[answer_idx] += text.len();
        let wants_more = on_text(answer_idx, text);
        if !wants_more {
            enough_after[answer_idx].get_or_insert(n_seen[answer_idx]);
        }
        wants_more
    };
    let result = engine.generate_unrecorded(request, n_answers, &mut watched, cancel);
    let outcome = result.as_ref().map_or_else(Outcome::Failed, |answers| Outcome::Generated(answers));
    record(engine, recorder, Ended::new(asked, arrived, enough_after, outcome), cancel);
    result
}

/// Scores, and tells the recorder.
pub(crate) fn score(
    engine: &Engine,
    recorder: &dyn Recorder,
    request: ScoreRequest,
    cancel: &CancelToken,
) -> Result<Option<Vec<Score>>, Error> {
    let arrived = Instant::now();
    let asked = Asked::Score(request.clone());
    let result = engine.score_unrecorded(request, cancel);
    let outcome = result.as_ref().map_or_else(Outcome::Failed, |scores| Outcome::Scored(scores.as_deref()));
    record(engine, recorder, Ended::new(asked, arrived, Vec::new(), outcome), cancel);
    result
}

fn record(engine: &Engine, recorder: &dyn Recorder, ended: Ended<'_>, cancel: &CancelToken) {
    let n_overtaken = engine.metrics().map_or(0, |metrics| metrics.n_given_up(GivenUp::Overtaken));
    let cancelled = cancel.cancelled_at().filter(|_| ended.outcome.is_cancelled());
    recorder.record(Ended { cancelled, n_overtaken, ..ended });
}

impl<'a> Ended<'a> {
    fn new(asked: Asked, arrived: Instant, enough_after: Vec<Option<usize>>, outcome: Outcome<'a>) -> Self {
        Self { asked, arrived, cancelled: None, enough_after, outcome, n_overtaken: 0 }
    }
}

//! Asks the engine for one or more answers, and hands over what comes as it comes.
//!
//! In: wishes. Out: events; the last of each answer is its end.
//! Never: goes on for a caller that has gone away: dropping [`Answers`] cancels; waits for one that does not read.
//! Thread: each answer waits for the engine on a blocking thread of the runtime's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use engine::{CancelToken, Engine, GenerateRequest, Generation, Score, ScoreRequest, StopReason};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::State;
use super::refusal::Refusal;
use crate::metrics::Metrics;

/// How long a caller may leave events unread before it is taken for gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has read some.
const SEND_POLL: Duration = Duration::from_millis(5);
/// Events on their way at most; enough that a burst of drafted tokens does not wait.
const N_MAX_EVENTS: usize = 256;

/// One answer that is asked for.
pub(super) struct Wish {
    pub(super) request: GenerateRequest,
    /// Whether the prompt's probabilities are wanted too, the answer's with them, and how many of the likeliest tokens. The
    /// answer's alone come with it.
    pub(super) n_top_of_all: Option<usize>,
    /// Sees the text before the caller does.
    pub(super) shape: Box<dyn Shape>,
}

/// Cuts an answer's text to its caller's taste while it comes.
pub(super) trait Shape: Send {
    /// Takes text and returns what may be shown of it.
    fn push(&mut self, text: &str) -> String;
    /// Returns whether the answer may go on.
    fn wants_more(&self) -> bool;
    /// Returns what was held back, now that nothing follows.
    fn finish(&mut self) -> String;
}

/// The text as it is.
pub(super) struct AsItIs;

impl Shape for AsItIs {
    fn push(&mut self, text: &str) -> String {
        text.to_owned()
    }

    fn wants_more(&self) -> bool {
        true
    }

    fn finish(&mut self) -> String {
        String::new()
    }
}

/// What comes of the wish with this index.
pub(super) enum Event {
    Text { idx: usize, text: String },
    Done { idx: usize, result: Box<Result<Answer, engine::Error>> },
}

/// A finished answer.
pub(super) struct Answer {
    pub(super) generation: Generation,
    /// All its text, shaped.
    pub(super) text: String,
    /// Whether the shape ended it.
    pub(super) is_cut: bool,
    pub(super) scores: Option<Vec<Score>>,
}

/// Does work that may take some milliseconds where no other request waits for it.
pub(super) async fn prepare<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        tracing::error!("preparing a request panicked");
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request was lost in a panic of the server"))
    })
}

/// Answers on their way; dropping it cancels them.
pub(super) struct Answers {
    events: mpsc::Receiver<Event>,
    first: Option<Event>,
    cancel: CancelToken,
}

impl Answers {
    /// Starts to answer, or says that too many are asking.
    pub(super) fn start(state: &State, wishes: Vec<Wish>) -> Result<Self, Refusal> {
        let n_wishes = wishes.len();
        let admitted = state.admission.enter(n_wishes).inspect_err(|_| state.metrics.busy());
        let permit = Arc::new(admitted?);
        let (sender, events) = mpsc::channel(N_MAX_EVENTS);
        let cancel = CancelToken::new();
        for (idx, wish) in wishes.into_iter().enumerate() {
            let worker =
                Worker { idx, engine: state.engine.clone(), cancel: cancel.clone(), sender: sender.clone() };
            let (metrics, here, permit) =
                (Arc::clone(&state.metrics), state.presence.enter(), Arc::clone(&permit));
            tokio::task::spawn_blocking(move || {
                let result = Box::new(worker.work(wish, &metrics));
                // Before the last event: who has its answer may ask again at once.
                drop((permit, here));
                worker.send(Event::Done { idx, result });
            });
        }
        Ok(Self { events, first: None, cancel })
    }

    /// Waits until something came, so that a refusal can still have a status of its own.
    pub(super) async fn begin(&mut self) -> Result<(), Refusal> {
        match self.events.recv().await {
            Some(Event::Done { result, idx }) => {
                let answer = (*result)?;
                self.first = Some(Event::Done { idx, result: Box::new(Ok(answer)) });
                Ok(())
            }
            event => {
                self.first = event;
                Ok(())
            }
        }
    }

    /// Returns the next event, or nothing when all answers have ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        match self.first.take() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// Waits for all answers, in the order of their wishes.
    pub(super) async fn all(mut self, n_wishes: usize) -> Result<Vec<Answer>, Refusal> {
        let mut answers: Vec<Option<Answer>> = (0..n_wishes).map(|_| None).collect();
        while let Some(event) = self.next().await {
            if let Event::Done { idx, result } = event {
                answers[idx] = Some((*result)?);
            }
        }
        let lost = || Refusal::from(engine::Error::Gone);
        answers.into_iter().map(|answer| answer.ok_or_else(lost)).collect()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Works on one wish.
struct Worker {
    idx: usize,
    engine: Engine,
    cancel: CancelToken,
    sender: mpsc::Sender<Event>,
}

impl Worker {
    fn work(&self, wish: Wish, metrics: &Metrics) -> Result<Answer, engine::Error> {
        let mut shape = wish.shape;
        let mut shown = String::new();
        let prompt = wish.request.prompt.clone();
        let result = if wish.request.stop.n_max_tokens == 0 {
            Ok(nothing(prompt.len()))
        } else {
            let mut on_text = |text: &str| {
                let text = shape.push(text);
                shown.push_str(&text);
                shape.wants_more() && (text.is_empty() || self.send(Event::Text { idx: self.idx, text }))
            };
            let result = self.engine.generate(wish.request, &mut on_text, &self.cancel);
            match &result {
                Ok(generation) => metrics.generated(generation),
                Err(_) => metrics.failed(),
            }
            result
        };
        let generation = result?;
        let rest = shape.finish();
        if !rest.is_empty() {
            shown.push_str(&rest);
            self.send(Event::Text { idx: self.idx, text: rest });
        }
        let scores = match wish.n_top_of_all {
            Some(n_top) => {
                let result = self.score(prompt, &generation, n_top);
                metrics.scored(&result);
                result?
            }
            None => Some(scores_of(&generation)),
        };
        Ok(Answer { generation, text: shown, is_cut: !shape.wants_more(), scores })
    }

    fn score(
        &self,
        prompt: Vec<engine::TokenId>,
        generation: &Generation,
        n_top: usize,
    ) -> Result<Option<Vec<Score>>, engine::Error> {
        let mut tokens = prompt;
        tokens.extend(&generation.tokens);
        let request = ScoreRequest {
            tokens,
            from: 1,
            n_top,
            asked: BTreeMap::new(),
            priority: engine::Priority::Background,
        };
        self.engine.score(request, &self.cancel)
    }

    /// Sends an event; returns whether anybody still reads.
    fn send(&self, event: Event) -> bool {
        let started = Instant::now();
        let mut event = event;
        loop {
            match self.sender.try_send(event) {
                Ok(()) => return true,
                Err(TrySendError::Full(unsent)) if started.elapsed() < SEND_TIMEOUT => event = unsent,
                Err(_) => return false,
            }
            std::thread::sleep(SEND_POLL);
        }
    }
}

/// Returns the probabilities that came with an answer.
fn scores_of(generation: &Generation) -> Vec<Score> {
    let mut top = generation.top.iter();
    let tokens = generation.tokens.iter().zip(&generation.logprobs);
    let score = |(token, logprob): (&engine::TokenId, &f32)| Score {
        token: *token,
        logprob: *logprob,
        top: top.next().cloned().unwrap_or_default(),
        asked: Vec::new(),
    };
    tokens.map(score).collect()
}

/// The answer to who wants no token, only the prompt's probabilities.
fn nothing(n_prompt: usize) -> Generation {
    Generation {
        text: String::new(),
        tokens: Vec::new(),
        logprobs: Vec::new(),
        top: Vec::new(),
        stop: StopReason::MaxTokens,
        n_prompt,
        n_reused: 0,
        n_drafted: 0,
        n_kept: 0,
        timings: engine::Timings::default(),
    }
}

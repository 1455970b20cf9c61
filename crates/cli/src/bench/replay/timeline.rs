//! Asks an engine what a trace says, when it says.
//!
//! In: requests in the order in which they came. Out: what came of each.
//! Thread: the caller's keeps the time; each request has a `replay` thread, as it had one of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ::serve::{TracedOutcome, TracedRequest};
use engine::{Asked, CancelToken, Engine, Outcome};

use super::Speed;
use crate::failure::{Failure, code};

/// What happens at a moment of the recording.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(usize),
    Cancel(usize),
}

/// Runs all requests; returns what came of each, and how long all took.
pub(super) fn run(
    engine: &Engine,
    requests: &[(usize, TracedRequest)],
    speed: Speed,
) -> Result<(Vec<TracedOutcome>, Duration), Failure> {
    let cancels: Vec<CancelToken> = requests.iter().map(|_| CancelToken::new()).collect();
    let events = events(requests);
    let (tell, told) = mpsc::channel();
    let mut clock = Clock::new(requests, speed, told);
    std::thread::scope(|scope| {
        for (at, event) in events {
            match event {
                Event::Ask(idx) => {
                    clock.wait_to_ask(idx, at);
                    let (request, cancel, tell) = (&requests[idx].1, &cancels[idx], tell.clone());
                    let work = move || answer(engine, idx, request, cancel, &tell);
                    std::thread::Builder::new().name("replay".to_owned()).spawn_scoped(scope, work).map_err(
                        |error| {
                            // The scope waits for those that run.
                            cancels.iter().for_each(CancelToken::cancel);
                            Failure::new(code::INTERNAL, &error)
                        },
                    )?;
                }
                Event::Cancel(idx) => {
                    clock.wait_to_cancel(idx, at);
                    cancels[idx].cancel();
                }
            }
        }
        drop(tell);
        clock.wait_for_all();
        Ok::<(), Failure>(())
    })?;
    let wall = clock.started.elapsed();
    let outcomes: Option<Vec<TracedOutcome>> = clock.outcomes.into_iter().collect();
    let outcomes = outcomes.ok_or_else(|| Failure::from(engine::Error::Gone))?;
    Ok((outcomes, wall))
}

/// Returns what happens in the recording, in its order.
fn events(requests: &[(usize, TracedRequest)]) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for (idx, (_, request)) in requests.iter().enumerate() {
        events.push((request.arrived, Event::Ask(idx)));
        if let Some(after) = request.cancelled_after {
            events.push((request.arrived.saturating_add(after), Event::Cancel(idx)));
        }
    }
    // It is stable: a request that was cancelled at once is asked first.
    events.sort_by_key(|(at, _)| *at);
    events
}

fn answer(
    engine: &Engine,
    idx: usize,
    request: &TracedRequest,
    cancel: &CancelToken,
    tell: &Sender<(usize, TracedOutcome)>,
) {
    let outcome = match &request.asked {
        Asked::Generate { request: asked, n_answers } => {
            let n_seen: Vec<AtomicUsize> = (0..*n_answers).map(|_| AtomicUsize::new(0)).collect();
            let mut on_text = |answer_idx: usize, text: &str| {
                let n_seen = n_seen[answer_idx].fetch_add(text.len(), Ordering::Relaxed) + text.len();
                request.enough_after[answer_idx].is_none_or(|n_enough| n_seen < n_enough)
            };
            let result = engine.generate_many((**asked).clone(), *n_answers, &mut on_text, cancel);
            TracedOutcome::new(
                result.as_ref().map_or_else(Outcome::Failed, |answers| Outcome::Generated(answers)),
            )
        }
        Asked::Score(asked) => {
            let result = engine.score(asked.clone(), cancel);
            let scored = result.as_ref().map(|scores| scores.as_deref());
            TracedOutcome::new(scored.map_or_else(Outcome::Failed, Outcome::Scored))
        }
    };
    // Nobody waits any more where another request's thread could not be had.
    let _ = tell.send((idx, outcome));
}

/// Says when it is time.
struct Clock<'r> {
    requests: &'r [(usize, TracedRequest)],
    speed: Speed,
    started: Instant,
    asked_at: Vec<Option<Instant>>,
    told: Receiver<(usize, TracedOutcome)>,
    outcomes: Vec<Option<TracedOutcome>>,
}

impl<'r> Clock<'r> {
    fn new(
        requests: &'r [(usize, TracedRequest)],
        speed: Speed,
        told: Receiver<(usize, TracedOutcome)>,
    ) -> Self {
        Self {
            requests,
            speed,
            started: Instant::now(),
            asked_at: vec![None; requests.len()],
            told,
            outcomes: requests.iter().map(|_| None).collect(),
        }
    }

    fn wait_to_ask(&mut self, idx: usize, at: Duration) {
        match self.speed {
            Speed::Times(factor) => self.wait_until(self.started + self.since_first(at).div_f64(factor)),
            // Who asked had seen what had ended by then.
            Speed::Max => {
                let requests = self.requests;
                while (0..idx).any(|other| requests[other].1.ended <= at && self.outcomes[other].is_none()) {
                    self.hear();
                }
            }
        }
        self.asked_at[idx] = Some(Instant::now());
    }

    fn wait_to_cancel(&mut self, idx: usize, at: Duration) {
        let until = match (self.speed, self.asked_at[idx], self.requests[idx].1.cancelled_after) {
            (Speed::Times(factor), ..) => self.started + self.since_first(at).div_f64(factor),
            (Speed::Max, Some(asked_at), Some(after)) => asked_at + after,
            (Speed::Max, ..) => return,
        };
        while self.outcomes[idx].is_none() && Instant::now() < until {
            self.hear_until(until);
        }
    }

    /// Waits until nobody is left who could tell anything.
    fn wait_for_all(&mut self) {
        while let Ok((idx, outcome)) = self.told.recv() {
            self.outcomes[idx] = Some(outcome);
        }
    }

    /// Nothing happens before the first request comes.
    fn since_first(&self, at: Duration) -> Duration {
        self.requests.first().map_or(at, |(_, first)| at.saturating_sub(first.arrived))
    }

    fn wait_until(&mut self, until: Instant) {
        while Instant::now() < until {
            self.hear_until(until);
        }
    }

    /// Waits for the next outcome until then.
    fn hear_until(&mut self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        if let Ok((idx, outcome)) = self.told.recv_timeout(left) {
            self.outcomes[idx] = Some(outcome);
        }
    }

    /// Waits for the next outcome.
    fn hear(&mut self) {
        if let Ok((idx, outcome)) = self.told.recv() {
            self.outcomes[idx] = Some(outcome);
        }
    }
}

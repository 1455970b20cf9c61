//! The thread that asks the model.
//!
//! In: jobs of the main loop, one at a time. Out: [`Event::Ready`], then one outcome for each job.
//! Never: answers the editor; that is the main loop's. Keeps a queue; what waits may be cancelled and is the main loop's.
//! Thread: completion. It loads the model first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use complete::clean::Seen;
use complete::text_model::{self, Unavailable};
use complete::{Answer, Completion, Model, NoneReason, Options, Request, Trigger};
use crossbeam_channel::{Receiver, Sender};
use engine::CancelToken;
use text::{ByteOffset, Snapshot};

use crate::context::Slot;
use crate::main_loop::Event;
use crate::progress::{self, Handle};

/// Gets the model into memory; may take minutes, and says how far it is. The error is for the user, hint included.
pub type LoadModel = Box<dyn FnOnce(&mut dyn FnMut(LoadStep)) -> Result<Model, String> + Send>;

/// What [`LoadModel`] tells while it works.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadStep {
    /// Something the user should know: what is fetched, how large it is, under which licence.
    Announce(String),
    /// How far a phase is.
    Progress {
        /// The phase.
        phase: LoadPhase,
        /// The part that is done, 0 to 1.
        fraction: f32,
    },
}

/// The parts of getting a model into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadPhase {
    /// It is fetched from its source; only where it is not on the disk yet.
    Fetching,
    /// It is unpacked from the package it came in.
    Unpacking,
    /// Its sha256 is computed.
    Checking,
    /// Its weights are read.
    Loading,
}

/// Progress faster than this is not seen and costs the editor.
const BETWEEN_REPORTS: Duration = Duration::from_millis(100);

/// One place where ghost text is wanted.
pub(crate) struct Job {
    pub(crate) key: u64,
    pub(crate) document: Snapshot,
    pub(crate) offset: ByteOffset,
    pub(crate) trigger: Trigger,
    pub(crate) options: Options,
    /// What is known of the document's syntax; it comes back up to date.
    pub(crate) seen: Option<Seen>,
    /// Where the document's context is, if it may have one.
    pub(crate) context: Option<Arc<Slot>>,
    pub(crate) work: Work,
    /// Where others see what is written so far.
    pub(crate) heard: Arc<Mutex<String>>,
    pub(crate) cancel: CancelToken,
}

/// What is to be done there.
pub(crate) enum Work {
    Complete {
        /// What is left of an earlier answer nearby.
        previous: String,
    },
    /// Lines behind an answer.
    Ahead(Answer),
}

/// What became of a job.
pub(crate) enum Outcome {
    Completed(Completion),
    Ahead(Answer),
    Failed(engine::Error),
    Panicked,
}

/// Loads the model, then works until the main loop is gone.
pub(crate) fn run(load: LoadModel, jobs: &Receiver<Job>, events: &Sender<Event>, progress: &Handle) {
    let model = match load_model(load, events, progress) {
        Ok(model) => model,
        Err(reason) => {
            let _ = events.send(Event::NoModel(reason));
            return;
        }
    };
    if events.send(Event::Ready).is_err() {
        return;
    }
    for mut job in jobs {
        let outcome = attempt(|| work(&model, &mut job, events, progress));
        if events.send(Event::Done { key: job.key, outcome, seen: job.seen }).is_err() {
            return;
        }
    }
}

fn work(
    model: &Model,
    job: &mut Job,
    events: &Sender<Event>,
    progress: &Handle,
) -> Result<Outcome, engine::Error> {
    let tree = job.seen.as_mut().and_then(|seen| seen.update(&job.document));
    let context = job.context.as_ref().map(|slot| match job.work {
        Work::Complete { .. } => slot.take(),
        Work::Ahead(_) => slot.in_use(),
    });
    let request = Request {
        document: &job.document,
        offset: job.offset,
        trigger: job.trigger,
        tree,
        context: context.as_deref(),
    };
    let mut hear = |text: &str| {
        job.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        // It fails only when the session is over.
        let _ = events.send(Event::Heard);
        true
    };
    let options = &job.options;
    let unavailable = |why: Unavailable| {
        if let Unavailable::Failed(error) = why {
            tracing::warn!("the model is unavailable");
            progress.warn(format!("Tandem: {error}"));
        }
    };
    match (model, &job.work) {
        (Model::Engine(engine), Work::Complete { previous }) => {
            complete::complete(engine, &request, options, previous, &mut hear, &job.cancel)
                .map(Outcome::Completed)
        }
        (Model::Engine(engine), Work::Ahead(answer)) => {
            complete::look_ahead(engine, &request, options, answer, &mut hear, &job.cancel)
                .map(Outcome::Ahead)
        }
        (Model::Text(model), Work::Complete { .. }) => {
            let completion = text_model::complete(&**model, &request, options, &mut hear, &job.cancel);
            Ok(Outcome::Completed(completion.unwrap_or_else(|why| {
                unavailable(why);
                Completion::none(NoneReason::Unavailable)
            })))
        }
        (Model::Text(model), Work::Ahead(answer)) => {
            let more = text_model::look_ahead(&**model, &request, options, answer, &mut hear, &job.cancel);
            Ok(Outcome::Ahead(more.unwrap_or_else(|why| {
                unavailable(why);
                answer.clone()
            })))
        }
    }
}

/// A panic costs the request it happened in, not the server.
fn attempt(work: impl FnOnce() -> Result<Outcome, engine::Error>) -> Outcome {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Panicked,
    }
}

fn load_model(load: LoadModel, events: &Sender<Event>, progress: &Handle) -> Result<Model, String> {
    let started = Instant::now();
    let mut last: Option<(LoadPhase, Instant)> = None;
    let mut hear = |step: LoadStep| {
        if let LoadStep::Progress { phase, fraction } = step {
            let is_soon = |(seen, at): (LoadPhase, Instant)| seen == phase && at.elapsed() < BETWEEN_REPORTS;
            if last.is_some_and(is_soon) {
                return;
            }
            last = Some((phase, Instant::now()));
            let _ = events.send(Event::Loaded(progress::fraction_of(phase, fraction)));
        }
        progress.load_step(step);
    };
    let result = catch_unwind(AssertUnwindSafe(|| load(&mut hear))).unwrap_or_else(|_| {
        Err("loading the model panicked: this is a bug of ours, please report it".to_owned())
    });
    let load_ms = started.elapsed().as_millis() as u64;
    match result {
        Ok(model) => {
            tracing::info!(load_ms, "model ready");
            progress.load_ended(Ok(()));
            Ok(model)
        }
        Err(message) => {
            tracing::error!(load_ms, reason = message, "no model: there will be no ghost text");
            progress.load_ended(Err(message.clone()));
            Err(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_outcome() {
        assert!(matches!(attempt(|| panic!("on purpose")), Outcome::Panicked));
        assert!(matches!(
            attempt(|| Err(engine::Error::EmptyPrompt)),
            Outcome::Failed(engine::Error::EmptyPrompt)
        ));
    }
}

//! The one loop that owns the session: its documents and its open requests.
//!
//! In: [`Event`]s, in order. Out: one [`Answer`] for each request (I-5); jobs for the completion thread.
//! Never: waits. A turn over 50 ms logs its event.
//! Thread: main.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use complete::{Completion, GhostText, Options};
use crossbeam_channel::{Receiver, Sender};
use engine::CancelToken;
use text::{ByteOffset, Document, Position, PositionEncoding, Snapshot};
use tokio::sync::oneshot;
use tower_lsp::jsonrpc::Id;

use crate::completion::{self, Job, LoadModel, Outcome};
use crate::documents::{Changed, Documents};
use crate::from_proto::{Asked, Cursor, Selected, Told};
use crate::progress;

/// A turn longer than this is felt while typing.
const SLOW_TURN: Duration = Duration::from_millis(50);

/// What the main loop hears, from the service and from the completion thread.
pub(crate) enum Event {
    /// The editor and we agreed how to count characters.
    Encoding(PositionEncoding),
    Told(Told),
    Asked {
        id: Id,
        asked: Asked,
        reply: oneshot::Sender<Answer>,
    },
    /// The model is loaded: the completion thread waits for its first job.
    Ready,
    /// A job is over: the completion thread waits for the next one.
    Done {
        key: u64,
        outcome: Outcome,
    },
    /// The model cannot be had.
    NoModel,
    /// The editor shuts the session down: nobody wants what is still open.
    AnswerAll,
    /// The transport has ended.
    End,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ghost(Shown),
    /// There is nothing to show: the editor shows nothing, and no error.
    Nothing,
    Text {
        text: String,
        version: i32,
        is_in_sync: bool,
    },
    /// The editor cancelled the request.
    Cancelled,
    /// The request asks for what cannot be.
    Refused(String),
    /// The request's id is that of an open one.
    Duplicate,
    /// Our fault.
    Failed(String),
}

/// Ghost text in the editor's coordinates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) insert: String,
    pub(crate) start: Position,
    pub(crate) end: Position,
}

/// A request the completion thread works on, or will.
struct InFlight {
    // INVARIANT: what is answered is dropped with its job, so that no queue holds the texts of requests nobody wants.
    waiting: Option<Job>,
    id: Id,
    uri: String,
    /// The document as the request saw it, before a selected item is put in.
    version: i32,
    /// The text the job works on.
    snapshot: Snapshot,
    selected: Option<Selected>,
    cancel: CancelToken,
    reply: oneshot::Sender<Answer>,
    since: Instant,
}

enum Model {
    /// Not asked for before `initialized`.
    Unloaded(Box<(LoadModel, Receiver<Job>)>),
    /// The completion thread loads it or works on a job.
    Busy,
    /// The completion thread waits for a job.
    Free,
    None,
}

/// The session.
pub(crate) struct MainLoop {
    encoding: PositionEncoding,
    documents: Documents,
    // INVARIANT: a request is answered by taking it out of here, so exactly once (I-5); at most one for each document.
    in_flight: HashMap<u64, InFlight>,
    next_key: u64,
    model: Model,
    options: Options,
    jobs: Sender<Job>,
    /// For the completion thread, to answer to.
    events: Sender<Event>,
    progress: progress::Handle,
}

impl MainLoop {
    pub(crate) fn new(
        load: LoadModel,
        options: Options,
        events: Sender<Event>,
        progress: progress::Handle,
    ) -> Self {
        let (jobs, job_queue) = crossbeam_channel::bounded(1);
        Self {
            encoding: PositionEncoding::default(),
            documents: Documents::default(),
            in_flight: HashMap::new(),
            next_key: 0,
            model: Model::Unloaded(Box::new((load, job_queue))),
            options,
            jobs,
            events,
            progress,
        }
    }

    /// Works until the transport has ended.
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        for event in events {
            if matches!(event, Event::End) {
                break;
            }
            let name = event.name();
            let changed = match &event {
                Event::Told(Told::Changed { uri, .. }) => Some(uri.clone()),
                _ => None,
            };
            let started = Instant::now();
            if catch_unwind(AssertUnwindSafe(|| self.turn(event))).is_err() {
                tracing::error!(event = name, "a panic in the main loop cost this event");
                if let Some(uri) = changed {
                    self.documents.distrust(&uri);
                }
            }
            if started.elapsed() > SLOW_TURN {
                tracing::warn!(event = name, ms = started.elapsed().as_millis() as u64, "slow turn");
            }
        }
        self.answer_all("end");
    }

    fn turn(&mut self, event: Event) {
        match event {
            Event::Encoding(encoding) => self.encoding = encoding,
            Event::Told(told) => self.hear(told),
            Event::Asked { id, asked, reply } => match asked {
                Asked::InlineCompletion(cursor) => self.complete(id, cursor, reply),
                Asked::DocumentText { uri } => self.document_text(&uri, reply),
            },
            Event::Ready => self.thread_is_free(),
            Event::Done { key, outcome } => {
                self.thread_is_free();
                self.done(key, outcome);
            }
            Event::NoModel => self.no_model(),
            Event::AnswerAll => self.answer_all("shutdown"),
            Event::End => {}
        }
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Initialized => self.load(),
            Told::Opened { uri, document } => {
                self.abandon(&uri, "opened");
                tracing::debug!(
                    uri,
                    version = document.version(),
                    n_bytes = document.snapshot().len_bytes(),
                    "didOpen"
                );
                if self.documents.open(uri.clone(), document) {
                    tracing::warn!(uri, "the document was open already; its new text counts");
                }
            }
            Told::Changed { uri, version, changes } => {
                self.abandon(&uri, "changed");
                match self.documents.change(&uri, version, &changes, self.encoding) {
                    Changed::Applied => tracing::debug!(uri, version, n_changes = changes.len(), "didChange"),
                    Changed::NotOpen => {
                        tracing::debug!(uri, version, "didChange of a document that is not open")
                    }
                    Changed::StillOutOfSync => {
                        tracing::debug!(uri, version, "didChange out of sync, ignored")
                    }
                    Changed::Refused(error) => self.out_of_sync(&uri, &error.to_string()),
                }
            }
            Told::Closed { uri } => {
                self.abandon(&uri, "closed");
                let was_open = self.documents.close(&uri);
                tracing::debug!(uri, was_open, "didClose");
            }
            Told::Lost { uri, reason } => self.lost(uri, &reason),
            Told::Cancelled(id) => {
                let key = self.in_flight.iter().find(|(_, open)| open.id == id).map(|(key, _)| *key);
                // An answer may cross the cancellation on the wire.
                if let Some(key) = key {
                    self.finish(key, Answer::Cancelled, "cancelled");
                }
            }
        }
    }

    /// Believes no text any more that a lost change may have been for.
    fn lost(&mut self, uri: Option<String>, reason: &str) {
        tracing::warn!(uri = uri.as_deref(), reason, "a change may be lost");
        if let Some(uri) = uri {
            self.abandon(&uri, "lost");
            if self.documents.distrust(&uri) {
                self.out_of_sync(&uri, reason);
            }
            return;
        }
        self.answer_all("lost");
        let n_documents = self.documents.distrust_all();
        if n_documents > 0 {
            tracing::warn!(n_documents, "no document is believed any more");
            self.progress.log_warning(format!(
                "Tandem cannot read a message of the editor, which may have been a change of any file: {reason}. \
                 There is no ghost text in a file that is open now until it is opened again."
            ));
        }
    }

    fn out_of_sync(&self, uri: &str, reason: &str) {
        tracing::warn!(uri, reason, "a change was refused: the document is out of sync");
        self.progress.log_warning(format!(
            "Tandem and the editor disagree about {uri}: {reason}. There is no ghost text in it until it is opened again."
        ));
    }

    fn load(&mut self) {
        match std::mem::replace(&mut self.model, Model::Busy) {
            Model::Unloaded(unloaded) => {
                // Here, so that the end always has a beginning, whatever fails.
                self.progress.load_begins();
                let (load, job_queue) = *unloaded;
                let (options, events, progress) = (self.options, self.events.clone(), self.progress.clone());
                let spawned = std::thread::Builder::new()
                    .name("completion".to_owned())
                    .spawn(move || completion::run(load, options, &job_queue, &events, &progress));
                if let Err(error) = spawned {
                    self.progress.load_ended(Err(format!("cannot start a thread: {error}")));
                    self.no_model();
                }
            }
            loaded => self.model = loaded,
        }
    }

    fn complete(&mut self, id: Id, cursor: Cursor, reply: oneshot::Sender<Answer>) {
        let answer_now = |reply: oneshot::Sender<Answer>, answer: Answer, why: &str| {
            tracing::debug!(%id, why, "inlineCompletion");
            let _ = reply.send(answer);
        };
        if self.in_flight.values().any(|open| open.id == id) {
            return answer_now(reply, Answer::Duplicate, "duplicate id");
        }
        self.abandon(&cursor.uri, "superseded");
        let Some(document) = self.documents.get(&cursor.uri) else {
            return answer_now(reply, Answer::Nothing, "not open or out of sync");
        };
        let version = document.version();
        let (snapshot, offset) = match place(document, &cursor, self.encoding) {
            Ok(place) => place,
            Err(error) => return answer_now(reply, Answer::Refused(error.to_string()), "position"),
        };
        // An editor that forgets `initialized` must not wait for ever.
        self.load();
        if matches!(self.model, Model::None) {
            return answer_now(reply, Answer::Nothing, "no model");
        }
        let key = self.next_key;
        self.next_key += 1;
        let cancel = CancelToken::new();
        let job =
            Job { key, document: snapshot.clone(), offset, trigger: cursor.trigger, cancel: cancel.clone() };
        let Cursor { uri, selected, .. } = cursor;
        let since = Instant::now();
        self.in_flight.insert(
            key,
            InFlight { waiting: Some(job), id, uri, version, snapshot, selected, cancel, reply, since },
        );
        self.hand_out();
    }

    fn thread_is_free(&mut self) {
        if matches!(self.model, Model::Busy) {
            self.model = Model::Free;
        }
        self.hand_out();
    }

    /// Gives a completion thread that waits for a job the newest one.
    ///
    /// The user looks at the newest request. A document has at most one, so none starves for long.
    fn hand_out(&mut self) {
        if !matches!(self.model, Model::Free) {
            return;
        }
        let waiting = self.in_flight.iter_mut().filter(|(_, open)| open.waiting.is_some());
        let newest = waiting.max_by_key(|(key, _)| **key);
        let Some(job) = newest.and_then(|(_, open)| open.waiting.take()) else {
            return;
        };
        self.model = Model::Busy;
        if let Err(refused) = self.jobs.try_send(job) {
            // The thread is gone: it panicked where it must not.
            let key = refused.into_inner().key;
            self.finish(key, Answer::Nothing, "no thread");
        }
    }

    fn document_text(&self, uri: &str, reply: oneshot::Sender<Answer>) {
        let answer = match self.documents.get_any(uri) {
            Some((document, is_in_sync)) => {
                Answer::Text { text: document.snapshot().text(), version: document.version(), is_in_sync }
            }
            None => Answer::Nothing,
        };
        let _ = reply.send(answer);
    }

    fn done(&mut self, key: u64, outcome: Outcome) {
        // Whoever is not in flight any more has had its answer.
        let Some(open) = self.in_flight.get(&key) else {
            return;
        };
        match outcome {
            Outcome::Completed(completion) => {
                let (answer, why) = self.judge(open, completion);
                self.finish(key, answer, why);
            }
            Outcome::Failed(engine::Error::Gone) => {
                self.finish(key, Answer::Failed("the engine stopped".to_owned()), "engine gone");
                self.progress.load_ended(Err("the engine stopped: restart the language server".to_owned()));
                self.no_model();
            }
            Outcome::Failed(error) => {
                tracing::error!(id = %open.id, %error, "the engine failed");
                self.finish(key, Answer::Failed(error.to_string()), "failed");
            }
            Outcome::Panicked => {
                tracing::error!(id = %open.id, "a panic cost this request");
                self.finish(key, Answer::Failed("the request was lost in a panic".to_owned()), "panicked");
            }
        }
    }

    /// Returns what of a completion is shown: nothing of what was made for another version (I-8).
    fn judge(&self, open: &InFlight, completion: Completion) -> (Answer, &'static str) {
        let statistics = completion.statistics;
        tracing::debug!(
            id = %open.id,
            n_prompt = statistics.n_prompt,
            n_reused = statistics.n_reused,
            n_generated = statistics.n_generated,
            n_insert_bytes = completion.result.as_ref().map_or(0, |ghost| ghost.insert.len()),
            "completion"
        );
        let version = self.documents.get(&open.uri).map(Document::version);
        match completion.result {
            Ok(_) if version != Some(open.version) => (Answer::Nothing, "another version"),
            Ok(ghost) => (Answer::Ghost(self.shown(open, ghost)), "shown"),
            Err(reason) => (Answer::Nothing, reason.name()),
        }
    }

    fn shown(&self, open: &InFlight, ghost: GhostText) -> Shown {
        match &open.selected {
            Some(selected) => Shown {
                insert: selected.text.clone() + &ghost.insert,
                start: selected.start,
                end: selected.end,
            },
            None => Shown {
                insert: ghost.insert,
                start: open.snapshot.position(ghost.range.start, self.encoding),
                end: open.snapshot.position(ghost.range.end, self.encoding),
            },
        }
    }

    fn no_model(&mut self) {
        self.model = Model::None;
        self.answer_all("no model");
    }

    /// Answers what is open for a document with nothing: null, not an error, because an editor shows errors.
    fn abandon(&mut self, uri: &str, why: &'static str) {
        let key = self.in_flight.iter().find(|(_, open)| open.uri == uri).map(|(key, _)| *key);
        if let Some(key) = key {
            self.finish(key, Answer::Nothing, why);
        }
    }

    fn answer_all(&mut self, why: &'static str) {
        let keys: Vec<u64> = self.in_flight.keys().copied().collect();
        for key in keys {
            self.finish(key, Answer::Nothing, why);
        }
    }

    fn finish(&mut self, key: u64, answer: Answer, why: &str) {
        let Some(open) = self.in_flight.remove(&key) else {
            return;
        };
        open.cancel.cancel();
        let ms = open.since.elapsed().as_millis() as u64;
        tracing::debug!(id = %open.id, version = open.version, ms, why, "inlineCompletion");
        // It fails only when the session is over.
        let _ = open.reply.send(answer);
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "initialize",
            Self::Told(Told::Initialized) => "initialized",
            Self::Told(Told::Opened { .. }) => "didOpen",
            Self::Told(Told::Changed { .. }) => "didChange",
            Self::Told(Told::Closed { .. }) => "didClose",
            Self::Told(Told::Lost { .. }) => "lost",
            Self::Told(Told::Cancelled(_)) => "cancelRequest",
            Self::Asked { asked: Asked::InlineCompletion(_), .. } => "inlineCompletion",
            Self::Asked { asked: Asked::DocumentText { .. }, .. } => "documentText",
            Self::Ready => "ready",
            Self::Done { .. } => "done",
            Self::NoModel => "no model",
            Self::AnswerAll => "shutdown",
            Self::End => "end",
        }
    }
}

/// Returns the text to complete and where: with the selected item put in, if there is one.
fn place(
    document: &Document,
    cursor: &Cursor,
    encoding: PositionEncoding,
) -> Result<(Snapshot, ByteOffset), text::Error> {
    let snapshot = document.snapshot();
    let Some(selected) = &cursor.selected else {
        let offset = snapshot.offset(cursor.position, encoding)?;
        return Ok((snapshot, offset));
    };
    let (start, end) = (snapshot.offset(selected.start, encoding)?, snapshot.offset(selected.end, encoding)?);
    if end < start {
        return Err(text::Error::RangeReversed { start: selected.start, end: selected.end });
    }
    let before = snapshot.slice(ByteOffset(0)..start);
    let after = snapshot.slice(end..ByteOffset(snapshot.len_bytes()));
    let offset = ByteOffset(before.len() + selected.text.len());
    let with_selected = Document::open(&(before + &selected.text + &after), document.version());
    Ok((with_selected.snapshot(), offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use complete::{NoneReason, Statistics, Trigger};

    const URIS: [&str; 2] = ["file:///a", "file:///b"];

    /// Returns a main loop with two open documents whose model is being loaded, and what its thread would take.
    fn main_loop() -> (MainLoop, Receiver<Job>) {
        let load: LoadModel = Box::new(|_| Err("not called".to_owned()));
        let (events, _) = crossbeam_channel::unbounded();
        let (progress, _) = progress::channel();
        let mut main_loop = MainLoop::new(load, Options::default(), events, progress);
        let Model::Unloaded(unloaded) = std::mem::replace(&mut main_loop.model, Model::Busy) else {
            panic!("nothing was asked yet");
        };
        for uri in URIS.map(str::to_owned) {
            let document = Document::open("x = ", 1);
            main_loop.turn(Event::Told(Told::Opened { uri, document }));
        }
        (main_loop, unloaded.1)
    }

    fn ask(main_loop: &mut MainLoop, id: i64, uri: &str) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let position = Position { line: 0, character: 4 };
        let cursor = Cursor { uri: uri.to_owned(), position, trigger: Trigger::Automatic, selected: None };
        main_loop.turn(Event::Asked { id: Id::Number(id), asked: Asked::InlineCompletion(cursor), reply });
        answer
    }

    fn done(key: u64) -> Event {
        let outcome = Outcome::Completed(Completion {
            result: Err(NoneReason::NothingToAdd),
            statistics: Statistics::default(),
        });
        Event::Done { key, outcome }
    }

    #[test]
    fn while_the_model_loads_only_the_newest_request_of_each_document_is_kept() {
        let (mut main_loop, jobs) = main_loop();
        for id in 0..1000 {
            ask(&mut main_loop, id, URIS[id as usize % 2]);
        }
        assert_eq!((main_loop.in_flight.len(), jobs.len()), (2, 0));
        main_loop.turn(Event::Told(Told::Cancelled(Id::Number(999))));
        assert_eq!((main_loop.in_flight.len(), jobs.len()), (1, 0));
        main_loop.turn(Event::Ready);
        assert_eq!(jobs.try_recv().map(|job| job.key), Ok(998));
        main_loop.turn(done(998));
        assert!(main_loop.in_flight.is_empty() && jobs.is_empty());
    }

    #[test]
    fn the_thread_gets_one_job_at_a_time_and_the_newest_wanted_one_first() {
        let (mut main_loop, jobs) = main_loop();
        main_loop.turn(Event::Ready);
        let first = ask(&mut main_loop, 10, URIS[0]);
        let running = jobs.try_recv().expect("a job for a free thread");
        let superseded = ask(&mut main_loop, 11, URIS[1]);
        ask(&mut main_loop, 12, URIS[1]);
        ask(&mut main_loop, 13, URIS[0]);
        assert!(running.cancel.is_cancelled() && jobs.is_empty());
        for mut answer in [first, superseded] {
            assert_eq!(answer.try_recv(), Ok(Answer::Nothing));
        }
        let mut keys = Vec::new();
        let mut over = running.key;
        for _ in 0..2 {
            main_loop.turn(done(over));
            over = jobs.try_recv().expect("the next job").key;
            keys.push(over);
        }
        assert_eq!(keys, [3, 2]);
        main_loop.turn(done(over));
        assert!(main_loop.in_flight.is_empty() && jobs.is_empty());
    }

    #[test]
    fn a_cancellation_reaches_the_job_that_runs() {
        let (mut main_loop, jobs) = main_loop();
        main_loop.turn(Event::Ready);
        let mut answer = ask(&mut main_loop, 7, URIS[0]);
        let running = jobs.try_recv().expect("a job for a free thread");
        assert!(!running.cancel.is_cancelled());
        main_loop.turn(Event::Told(Told::Cancelled(Id::Number(7))));
        assert!(running.cancel.is_cancelled());
        assert_eq!(answer.try_recv(), Ok(Answer::Cancelled));
    }
}

//! Open requests for ghost text, and what the completion thread does for them.
//!
//! In: requests with their documents, outcomes of the thread, the passing of time. Out: one [`Answer`] for each request
//! (I-5), a job at a time for the thread.
//! Never: asks the model for what an earlier answer still says, or throws away what is being written while the user types
//! just that.
//! Thread: main.

mod account;
mod answer;
mod record;
mod waiting;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use complete::cache::Cache;
use complete::clean::{Seen, Trees};
use complete::rejected::Rejected;
use complete::{Answer as Written, Completion, NoneReason, Options, gate};
use crossbeam_channel::{Receiver, Sender};
use engine::CancelToken;
use text::{Document, PositionEncoding};
use tokio::sync::oneshot;
use tower_lsp::jsonrpc::Id;

use crate::completion::{self, Job, LoadModel, Outcome, Work};
use crate::context::Contexts;
use crate::fate::{Evidence, Fates, OnFate};
use crate::from_proto::Cursor;
use crate::main_loop::{Answer, Event};
use crate::memory::Note;
use crate::permit::Permit;
use crate::progress;
use crate::settings::Settings;
use crate::status::{Pace, State};
use answer::{Origin, finish};
use record::Records;
use waiting::{Ahead, Place, Running, Waiting};

/// How long an answer that nobody waits for any more is written on: a key cancels its predecessor's request before its own
/// arrives, and wants the same answer if it is the key that was expected.
const GRACE: Duration = Duration::from_millis(60);
/// How long nobody types before lines are written ahead.
const IDLE: Duration = Duration::from_millis(150);

enum Model {
    /// Not asked for before `initialized`.
    Unloaded(Box<(LoadModel, Receiver<Job>)>),
    /// The completion thread loads it.
    Loading {
        /// The part of it that is here, 0 to 1.
        fraction: f32,
    },
    Ready,
    /// There will be none, and why.
    None(String),
}

/// All that is open.
pub(crate) struct Ghosts {
    encoding: PositionEncoding,
    // INVARIANT: a request is answered by taking it out of here, so exactly once (I-5); at most one for each document.
    waiting: Vec<Waiting>,
    running: Option<Running>,
    ahead: Option<Ahead>,
    cache: Cache,
    rejected: Rejected,
    trees: Trees,
    fates: Fates,
    permit: Permit,
    pace: Pace,
    records: Records,
    pub(crate) contexts: Contexts,
    next_key: u64,
    /// Whether the editor's settings are on their way: nothing is asked before they are known.
    awaits_settings: bool,
    model: Model,
    options: Options,
    jobs: Sender<Job>,
    /// For the completion thread, to answer to.
    events: Sender<Event>,
    progress: progress::Handle,
}

impl Ghosts {
    pub(crate) fn new(
        load: LoadModel,
        options: Options,
        on_fate: OnFate,
        events: Sender<Event>,
        progress: progress::Handle,
    ) -> Self {
        let (jobs, job_queue) = crossbeam_channel::bounded(1);
        Self {
            encoding: PositionEncoding::default(),
            waiting: Vec::new(),
            running: None,
            ahead: None,
            cache: Cache::default(),
            rejected: Rejected::default(),
            trees: Trees::default(),
            fates: Fates::new(on_fate),
            permit: Permit::default(),
            pace: Pace::default(),
            records: Records::default(),
            contexts: Contexts::default(),
            next_key: 0,
            awaits_settings: false,
            model: Model::Unloaded(Box::new((load, job_queue))),
            options,
            jobs,
            events,
            progress,
        }
    }

    pub(crate) fn set_encoding(&mut self, encoding: PositionEncoding) {
        self.encoding = encoding;
    }

    /// Nothing is asked before the settings are known; [`Self::load`] must follow.
    pub(crate) fn await_settings(&mut self) {
        self.awaits_settings = true;
    }

    /// Starts the completion thread, unless it was started.
    pub(crate) fn load(&mut self) {
        self.awaits_settings = false;
        match std::mem::replace(&mut self.model, Model::Loading { fraction: 0.0 }) {
            Model::Unloaded(unloaded) => {
                // Here, so that the end always has a beginning, whatever fails.
                self.progress.load_begins();
                let (load, job_queue) = *unloaded;
                let (events, progress) = (self.events.clone(), self.progress.clone());
                let spawned = std::thread::Builder::new()
                    .name("completion".to_owned())
                    .spawn(move || completion::run(load, &job_queue, &events, &progress));
                if let Err(error) = spawned {
                    let reason = format!("cannot start a thread: {error}");
                    self.progress.load_ended(Err(reason.clone()));
                    self.no_model(reason);
                }
            }
            loaded => self.model = loaded,
        }
    }

    /// So much of the model is here.
    pub(crate) fn loaded(&mut self, part: f32) {
        if let Model::Loading { fraction } = &mut self.model {
            *fraction = fraction.max(part);
        }
    }

    /// The model is loaded: the thread waits for its first job.
    pub(crate) fn ready(&mut self) {
        if matches!(self.model, Model::Loading { .. }) {
            self.model = Model::Ready;
        }
        self.hand_out();
    }

    /// The model cannot be had.
    pub(crate) fn no_model(&mut self, reason: String) {
        self.model = Model::None(reason);
        self.running = None;
        self.ahead = None;
        self.answer_all("no model");
    }

    /// Takes a request for a document as it is now, or one that is not open or not believed.
    pub(crate) fn ask(
        &mut self,
        id: Id,
        cursor: Cursor,
        document: Option<&Document>,
        reply: oneshot::Sender<Answer>,
    ) {
        let answer_now = |reply: oneshot::Sender<Answer>, answer: Answer, why: &str| {
            tracing::debug!(%id, why, "inlineCompletion");
            let _ = reply.send(answer);
        };
        if self.waiting.iter().any(|open| open.id == id) {
            return answer_now(reply, Answer::Duplicate, "duplicate id");
        }
        self.abandon(&cursor.uri, "superseded");
        let Some(document) = document else {
            return answer_now(reply, Answer::Nothing, "not open or out of sync");
        };
        let place = match Place::new(document, &cursor, self.encoding) {
            Ok(place) => place,
            Err(error) => return answer_now(reply, Answer::Refused(error.to_string()), "position"),
        };
        // An editor that forgets `initialized` must not wait for ever; one whose settings are on their way waits for them.
        if !self.awaits_settings {
            self.load();
        }
        if matches!(self.model, Model::None(_)) {
            return answer_now(reply, Answer::Nothing, "no model");
        }
        let key = self.next_key;
        self.next_key += 1;
        let (version, since) = (document.version(), Instant::now());
        let Cursor { uri, selected, .. } = cursor;
        self.ahead = None;
        self.learn(&uri, &place);
        let open = Waiting { key, id, uri, version, place, selected, reply, since };
        if let Some(open) = self.answer_without_model(open) {
            self.waiting.push(open);
        }
        self.hand_out();
    }

    /// Takes note of what was shown and not wanted.
    fn learn(&mut self, uri: &str, place: &Place) {
        for (head, insert) in self.fates.rejected(uri, &place.request()) {
            self.rejected.insert(uri, &head, &insert);
        }
    }

    /// Answers a request for which the model need not be asked; gives it back if it must.
    fn answer_without_model(&mut self, open: Waiting) -> Option<Waiting> {
        if let Some(reason) = self.permit.refuses(&open.uri, open.place.trigger) {
            self.answer(open, Err(reason), &Origin::Gate);
            return None;
        }
        let request = open.place.request();
        let around = gate::around(&request);
        if let Some(reason) = gate::gate(&request, &around) {
            self.answer(open, Err(reason), &Origin::Gate);
            return None;
        }
        let options = self.options(&open.uri);
        let Some(found) = self.cache.find(&open.uri, &request, &around, &options) else {
            return Some(open);
        };
        // Of a line that is not whole nothing may be left to show, where of the whole one there would be.
        if found.n_typed > 0 && found.answer.is_unfinished(found.n_typed) {
            let is_lost = match &found.result {
                Ok(ghost) if self.fates.is_rest(&open.uri, &request, &ghost.insert) => false,
                Ok(ghost) => self.trees.clean(&open.uri, &request, ghost.clone()).is_err(),
                Err(reason) => *reason == NoneReason::NothingToAdd,
            };
            if is_lost {
                return Some(open);
            }
        }
        let rest = found.answer.rest(found.n_typed);
        let evidence = Evidence::new(found.answer, found.n_typed, &options.calibration);
        let origin = Origin::Cache { n_typed: found.n_typed, evidence };
        let result = found.result;
        self.plan_ahead(&open.uri, &open.place, rest);
        self.answer(open, result, &origin);
        None
    }

    /// More of an answer is written: it may not be what waits for it any more.
    pub(crate) fn heard(&mut self) {
        if !self.waiting.is_empty() {
            self.hand_out();
        }
    }

    /// Takes what became of a job.
    pub(crate) fn done(&mut self, key: u64, outcome: Outcome, seen: Option<Seen>) {
        let Some(running) = self.running.take_if(|running| running.key == key) else {
            return self.hand_out();
        };
        if let Some(seen) = seen {
            self.trees.keep(&running.uri, seen);
        }
        let asker =
            self.waiting.iter().position(|open| open.key == key).map(|idx| self.waiting.swap_remove(idx));
        match outcome {
            Outcome::Completed(completion) => self.completed(running, asker, completion),
            Outcome::Ahead(answer) => self.keep(&running, answer),
            Outcome::Failed(engine::Error::Gone) => {
                self.fail(asker, "the engine stopped".to_owned(), "engine gone");
                let reason = "the engine stopped: restart the language server".to_owned();
                self.progress.load_ended(Err(reason.clone()));
                return self.no_model(reason);
            }
            Outcome::Failed(error) => {
                tracing::error!(key, %error, "the engine failed");
                self.fail(asker, error.to_string(), "failed");
            }
            Outcome::Panicked => {
                tracing::error!(key, "a panic cost this request");
                self.fail(asker, "the request was lost in a panic".to_owned(), "panicked");
            }
        }
        self.hand_out();
    }

    fn completed(&mut self, running: Running, asker: Option<Waiting>, completion: Completion) {
        let Completion { result, answer, prompt, statistics } = completion;
        let logprobs = answer.as_ref().map(|answer| answer.logprobs.clone()).unwrap_or_default();
        let evidence = answer.as_ref().map(|answer| Evidence::new(answer, 0, &self.options.calibration));
        let evidence = evidence.unwrap_or_default();
        if let Some(answer) = answer.filter(|_| !matches!(result, Err(NoneReason::Cancelled))) {
            if let Some(open) = &asker {
                self.plan_ahead(&open.uri, &open.place, answer.clone());
            }
            self.keep(&running, answer);
        }
        if let Some(open) = asker {
            self.pace.add(open.since.elapsed(), &statistics);
            self.answer(open, result, &Origin::Model { statistics, prompt, logprobs, evidence });
        }
    }

    /// Keeps an answer, and answers who else waited for it.
    fn keep(&mut self, running: &Running, answer: Written) {
        self.cache.insert(&running.uri, &running.place.document, running.place.offset, answer);
        self.retry(|open| open.uri == running.uri);
    }

    /// Answers of the requests that wait what can be answered by now.
    fn retry(&mut self, may_be: impl Fn(&Waiting) -> bool) {
        for open in std::mem::take(&mut self.waiting) {
            let may_hold = may_be(&open);
            let unanswered = if may_hold { self.answer_without_model(open) } else { Some(open) };
            self.waiting.extend(unanswered);
        }
    }

    /// Means to write lines ahead of an answer that has none, once nobody types.
    fn plan_ahead(&mut self, uri: &str, place: &Place, answer: Written) {
        let n_whole = answer.text.matches('\n').count();
        if n_whole <= 1 && !answer.repeats && self.options(uri).n_lines_ahead > 0 {
            let at = Instant::now() + IDLE;
            self.ahead = Some(Ahead { at, uri: uri.to_owned(), place: place.clone(), answer });
        }
    }

    /// Gives the thread the newest request, unless it works on something that is wanted.
    ///
    /// The user looks at the newest request. A document has at most one, so none starves for long.
    fn hand_out(&mut self) {
        if let Some(running) = &mut self.running {
            let is_wanted = self.waiting.iter().any(|open| open.key == running.key || running.is_for(open));
            match (is_wanted, self.waiting.is_empty()) {
                (true, _) => running.unwanted = None,
                (false, true) if running.is_ahead => {}
                (false, true) => {
                    running.unwanted.get_or_insert_with(Instant::now);
                }
                (false, false) => running.cancel.cancel(),
            }
            return;
        }
        if !matches!(self.model, Model::Ready) {
            return;
        }
        let Some(newest) = self.newest().filter(|newest| newest.due(&self.options) <= Instant::now()) else {
            return;
        };
        let (key, uri, place) = (newest.key, newest.uri.clone(), newest.place.clone());
        let previous = self.cache.last_text(&uri, place.offset);
        self.start(key, uri, place, Work::Complete { previous });
    }

    fn newest(&self) -> Option<&Waiting> {
        self.waiting.iter().max_by_key(|open| open.key)
    }

    fn start(&mut self, key: u64, uri: String, place: Place, work: Work) {
        let cancel = CancelToken::new();
        let is_ahead = matches!(work, Work::Ahead(_));
        let heard = match &work {
            Work::Ahead(answer) => answer.text.clone(),
            Work::Complete { .. } => String::new(),
        };
        let heard = Arc::new(Mutex::new(heard));
        let seen = self.trees.seen(&uri);
        let Place { document, offset, trigger } = place.clone();
        let job = Job {
            key,
            document,
            offset,
            trigger,
            options: self.options(&uri),
            seen,
            context: self.contexts.slot(&uri),
            work,
            heard: Arc::clone(&heard),
            cancel: cancel.clone(),
        };
        let since = Instant::now();
        self.running = Some(Running { key, uri, place, heard, cancel, is_ahead, since, unwanted: None });
        if self.jobs.try_send(job).is_err() {
            // It panicked where it must not.
            self.no_model("the completion thread is gone: restart the language server".to_owned());
        }
    }

    /// Returns when there is something to do though nothing happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.running {
            Some(running) => running.unwanted.map(|since| since + GRACE),
            None => match self.newest().filter(|_| self.is_ready()) {
                Some(newest) => Some(newest.due(&self.options)),
                None => self.ahead.as_ref().map(|ahead| ahead.at),
            },
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        if self.deadline().is_none_or(|at| Instant::now() < at) {
            return;
        }
        match &mut self.running {
            Some(running) => {
                running.unwanted = None;
                running.cancel.cancel();
            }
            None if !self.waiting.is_empty() => self.hand_out(),
            None => {
                if let Some(Ahead { uri, place, answer, .. }) = self.ahead.take().filter(|_| self.is_ready())
                {
                    let key = self.next_key;
                    self.next_key += 1;
                    self.start(key, uri, place, Work::Ahead(answer));
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.model, Model::Ready)
    }

    /// The editor does not want the answer any more.
    pub(crate) fn cancel(&mut self, id: &Id) {
        // An answer may cross the cancellation on the wire.
        if let Some(idx) = self.waiting.iter().position(|open| open.id == *id) {
            let open = self.waiting.swap_remove(idx);
            finish(open, Answer::Cancelled, "cancelled");
            self.hand_out();
        }
    }

    /// Answers what is open for a document with nothing: null, not an error, because an editor shows errors.
    pub(crate) fn abandon(&mut self, uri: &str, why: &str) {
        if let Some(idx) = self.waiting.iter().position(|open| open.uri == uri) {
            finish(self.waiting.swap_remove(idx), Answer::Nothing, why);
            self.hand_out();
        }
    }

    /// A document is open from now on.
    pub(crate) fn open(&mut self, uri: &str, language_id: &str) {
        self.forget(uri, "opened");
        self.trees.open(uri, language_id);
        self.permit.open(uri, language_id);
    }

    /// A document is closed.
    pub(crate) fn close(&mut self, uri: &str) {
        self.forget(uri, "closed");
        self.trees.close(uri);
        self.contexts.close(uri);
        self.permit.close(uri);
    }

    /// A document's text is another one now.
    pub(crate) fn changed(&mut self, uri: &str, document: &Document) {
        self.fates.changed(uri, &document.snapshot());
    }

    /// What is allowed where; [`Self::permit_changed`] must follow a change of it.
    pub(crate) fn permit(&mut self) -> &mut Permit {
        &mut self.permit
    }

    /// What waits may be refused now.
    pub(crate) fn permit_changed(&mut self) {
        self.ahead = None;
        if let Some(running) = &self.running
            && self.permit.refuses(&running.uri, complete::Trigger::Automatic).is_some()
        {
            running.cancel.cancel();
        }
        self.retry(|_| true);
        self.hand_out();
    }

    /// Returns what the server is about.
    pub(crate) fn state(&self) -> State {
        match &self.model {
            Model::None(reason) => State::Error(reason.clone()),
            _ if self.permit.folders.are_off() => State::Off("the settings say so"),
            _ if self.permit.snoozed_until().is_some() => State::Off("it is snoozed"),
            Model::Unloaded(_) => State::Loading(0.0),
            Model::Loading { fraction } => State::Loading(*fraction),
            Model::Ready => self.pace.why_slow().map_or(State::Ready, State::Slow),
        }
    }

    /// Returns what its user wants for a document.
    pub(crate) fn settings(&self, uri: &str) -> &Settings {
        self.permit.settings(uri)
    }

    /// Returns the limits that count for a document.
    pub(crate) fn options(&self, uri: &str) -> Options {
        self.permit.settings(uri).options(self.options)
    }

    /// How sure an answer is.
    pub(crate) fn set_calibration(&mut self, calibration: complete::Calibration) {
        self.options.calibration = calibration;
    }

    /// Returns how long the engine has worked on a job, and on which language, if it is the one that runs.
    pub(crate) fn worked(&self, key: u64) -> Option<Note> {
        let running = self.running.as_ref().filter(|running| running.key == key)?;
        let language_id = self.permit.language_id(&running.uri).to_owned();
        Some(Note::Worked { language_id, time: running.since.elapsed() })
    }

    /// What becomes of what is shown.
    pub(crate) fn fates(&mut self) -> &mut Fates {
        &mut self.fates
    }

    /// The document is another one, or its text is not believed: what was made for it is of no use.
    pub(crate) fn forget(&mut self, uri: &str, why: &str) {
        self.abandon(uri, why);
        self.cache.forget(uri);
        self.rejected.forget(uri);
        self.fates.forget(uri);
        self.records.forget(uri);
        self.ahead = None;
        if let Some(running) = self.running.as_ref().filter(|running| running.uri == uri) {
            running.cancel.cancel();
        }
    }

    pub(crate) fn answer_all(&mut self, why: &str) {
        for open in std::mem::take(&mut self.waiting) {
            finish(open, Answer::Nothing, why);
        }
        if let Some(running) = &self.running {
            running.cancel.cancel();
        }
    }

    /// Returns how the last request for a document was answered.
    pub(crate) fn why(&self, uri: &str) -> Option<serde_json::Value> {
        self.records.why(uri)
    }
}

#[cfg(test)]
mod tests;

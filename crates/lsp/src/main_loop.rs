//! The one loop that owns the session: its documents and, in [`Ghosts`], its open requests.
//!
//! In: [`Event`]s, in order. Out: one [`Answer`] for each request (I-5).
//! Never: waits for anything else. A turn over 50 ms logs its event.
//! Thread: main.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use complete::clean::Seen;
use complete::{Calibration, Options};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::{Value, json};
use text::{Document, Position, PositionEncoding};
use tokio::sync::oneshot;
use tower_lsp::jsonrpc::Id;

use crate::completion::{LoadModel, Outcome};
use crate::documents::{Changed, Documents};
use crate::editor::Can;
use crate::fate::{FateEvent, OnFate};
use crate::from_proto::{self, Asked, Client, Command, Told};
use crate::ghost::Ghosts;
use crate::kept::Keeping;
use crate::memory::{Note, Remembering};
use crate::progress;
use crate::status::State;

/// A turn longer than this is felt while typing.
const SLOW_TURN: Duration = Duration::from_millis(50);

/// What the main loop hears, from the service and from the completion thread.
pub(crate) enum Event {
    /// The editor has said who it is.
    Started(Box<Client>),
    Told(Told),
    Asked {
        id: Id,
        asked: Asked,
        reply: oneshot::Sender<Answer>,
    },
    /// What the editor's settings are, where it says them: everywhere, and in folders by their URIs.
    Configured {
        everywhere: Option<Value>,
        by_folder: Vec<(String, Value)>,
    },
    /// So much of the model is here, 0 to 1.
    Loaded(f32),
    /// The model is loaded: the completion thread waits for its first job.
    Ready,
    /// More of an answer is written.
    Heard,
    /// A job is over: the completion thread waits for the next one.
    Done {
        key: u64,
        outcome: Outcome,
        /// What the thread came to know of the document's syntax.
        seen: Option<Seen>,
    },
    /// The model cannot be had, and why.
    NoModel(String),
    /// What was learnt of how sure an answer is.
    Calibrated(Calibration),
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
    /// What one of our own requests asks for.
    Json(Value),
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
    /// What the editor calls it when it says what became of it.
    pub(crate) id: String,
    pub(crate) insert: String,
    pub(crate) start: Position,
    pub(crate) end: Position,
    /// The word before the cursor, and where it starts.
    pub(crate) word: String,
    pub(crate) word_start: Position,
}

/// The session.
pub(crate) struct MainLoop {
    encoding: PositionEncoding,
    documents: Documents,
    ghosts: Ghosts,
    can: Can,
    is_initialized: bool,
    /// What the editor was last told that we are about.
    state: Option<State>,
    /// What became of ghost text in this turn.
    fates: mpsc::Receiver<FateEvent>,
    keeping: Keeping,
    /// `None` where nothing is to be remembered.
    memory: Option<Remembering>,
    on_fate: OnFate,
    progress: progress::Handle,
}

impl MainLoop {
    pub(crate) fn new(
        load: LoadModel,
        options: Options,
        memory: Option<Remembering>,
        on_fate: OnFate,
        events: Sender<Event>,
        progress: progress::Handle,
    ) -> Self {
        let (sender, fates) = mpsc::channel();
        let note_fate = Box::new(move |event: &FateEvent| {
            // It fails only when the session is over.
            let _ = sender.send(event.clone());
        });
        Self {
            encoding: PositionEncoding::default(),
            documents: Documents::default(),
            ghosts: Ghosts::new(load, options, note_fate, events, progress.clone()),
            fates,
            keeping: Keeping::default(),
            memory,
            on_fate,
            can: Can::default(),
            is_initialized: false,
            state: None,
            progress,
        }
    }

    /// Works until the transport has ended.
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        loop {
            let snoozed_until = self.ghosts.permit().snoozed_until();
            let deadlines = [self.ghosts.deadline(), snoozed_until, self.keeping.deadline()];
            let event = match deadlines.into_iter().flatten().min() {
                Some(at) => events.recv_deadline(at),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let event = match event {
                Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    self.ghosts.tick();
                    self.look_for_kept();
                    self.tell_state();
                    continue;
                }
            };
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
            self.hear_fates();
            self.tell_state();
            if started.elapsed() > SLOW_TURN {
                tracing::warn!(event = name, ms = started.elapsed().as_millis() as u64, "slow turn");
            }
        }
        self.ghosts.answer_all("end");
    }

    fn note(&self, note: Note) {
        if let Some(memory) = &self.memory {
            memory.note(note);
        }
    }

    /// Takes note of what became of ghost text.
    fn hear_fates(&mut self) {
        while let Ok(event) = self.fates.try_recv() {
            self.keeping.hear(&event, Instant::now());
            (self.on_fate)(&event);
            self.note(Note::Fate(event));
        }
    }

    /// Looks whether what was taken a while ago still stands.
    fn look_for_kept(&mut self) {
        let documents = &self.documents;
        for kept in self.keeping.due(Instant::now(), |uri| documents.get(uri).map(Document::snapshot)) {
            self.note(Note::Kept(kept));
        }
    }

    fn turn(&mut self, event: Event) {
        match event {
            Event::Started(client) => self.start(&client),
            Event::Configured { everywhere, by_folder } => {
                if let Some(everywhere) = everywhere {
                    self.ghosts.permit().folders.configure(&everywhere, &by_folder);
                    self.settings_changed();
                }
                self.ghosts.load();
            }
            Event::Told(told) => self.hear(told),
            Event::Asked { id, asked, reply } => match asked {
                Asked::InlineCompletion(cursor) | Asked::Completion(cursor) => {
                    let document = self.documents.get(&cursor.uri);
                    if let Some(snapshot) = document.map(Document::snapshot)
                        && let Ok(offset) = snapshot.offset(cursor.position, self.encoding)
                    {
                        let options = self.ghosts.options(&cursor.uri);
                        let secrets = self.ghosts.settings(&cursor.uri).secrets();
                        let contexts = &mut self.ghosts.contexts;
                        contexts.ask(&cursor.uri, &snapshot, offset, &self.documents, options, secrets);
                    }
                    self.ghosts.ask(id, cursor, document, reply);
                }
                Asked::Why { uri } => {
                    let _ = reply.send(self.ghosts.why(&uri).map_or(Answer::Nothing, Answer::Json));
                }
                Asked::Status { uri } => {
                    let _ = reply.send(Answer::Json(self.status(uri.as_deref())));
                }
                Asked::DocumentText { uri } => self.document_text(&uri, reply),
                Asked::Execute(command) => {
                    self.execute(command);
                    // What is answered is noted.
                    self.hear_fates();
                    let _ = reply.send(Answer::Nothing);
                }
            },
            Event::Loaded(fraction) => self.ghosts.loaded(fraction),
            Event::Ready => self.ghosts.ready(),
            Event::Heard => self.ghosts.heard(),
            Event::Done { key, outcome, seen } => {
                if let Some(worked) = self.ghosts.worked(key) {
                    self.note(worked);
                }
                self.ghosts.done(key, outcome, seen);
            }
            Event::Calibrated(calibration) => self.ghosts.set_calibration(calibration),
            Event::NoModel(reason) => self.ghosts.no_model(reason),
            Event::AnswerAll => self.ghosts.answer_all("shutdown"),
            Event::End => {}
        }
    }

    fn start(&mut self, client: &Client) {
        self.encoding = client.encoding;
        self.ghosts.set_encoding(client.encoding);
        self.can = client.can;
        let folders = &mut self.ghosts.permit().folders;
        folders.add(&client.folders);
        folders.begin(&client.options);
        let roots = folders.paths();
        self.ghosts.contexts.set_roots(roots);
    }

    /// The model is loaded when the settings are known: the first request must not be answered against them.
    fn initialized(&mut self) {
        self.is_initialized = true;
        self.settings_changed();
        self.progress.register(self.can);
        if self.can.configuration {
            self.ghosts.await_settings();
            self.ask_configuration();
        } else {
            self.ghosts.load();
        }
    }

    fn ask_configuration(&mut self) {
        if self.can.configuration && self.is_initialized {
            self.progress.ask_configuration(self.ghosts.permit().folders.uris());
        }
    }

    fn settings_changed(&mut self) {
        for warning in self.ghosts.permit().folders.take_warnings() {
            tracing::warn!(warning, "settings");
            self.progress.warn(format!("Tandem: {warning}"));
        }
        self.ghosts.permit_changed();
    }

    /// Returns what the server is about, and what counts for a document.
    fn status(&mut self, uri: Option<&str>) -> Value {
        let mut status = self.ghosts.state().to_json();
        if let Some(uri) = uri {
            let permit = self.ghosts.permit();
            let refused = permit.refuses(uri, complete::Trigger::Automatic);
            status["document"] = json!({
                "languageId": permit.language_id(uri),
                "refused": refused.map(complete::NoneReason::name),
                "settings": permit.settings(uri).to_json(),
            });
        }
        status
    }

    /// Tells the editor what the server is about, if that has changed.
    fn tell_state(&mut self) {
        let state = self.ghosts.state();
        if self.is_initialized && self.state.as_ref() != Some(&state) {
            self.progress.status(state.to_json());
            self.state = Some(state);
        }
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Initialized => self.initialized(),
            Told::Opened { uri, language_id, document } => {
                self.ghosts.open(&uri, &language_id);
                tracing::debug!(
                    uri,
                    version = document.version(),
                    n_bytes = document.snapshot().len_bytes(),
                    "didOpen"
                );
                if self.documents.open(uri.clone(), document) {
                    tracing::warn!(uri, "the document was open already; its new text counts");
                }
                let is_secret = |path: &PathBuf| self.ghosts.settings(&uri).is_secret(path);
                let path = from_proto::path(&uri).filter(|path| !is_secret(path));
                let options = self.ghosts.options(&uri);
                let secrets = self.ghosts.settings(&uri).secrets();
                self.ghosts.contexts.open(&uri, path, &language_id, &self.documents, options, secrets);
            }
            Told::Changed { uri, version, changes } => {
                self.ghosts.abandon(&uri, "changed");
                match self.documents.change(&uri, version, &changes, self.encoding) {
                    Changed::Applied => {
                        tracing::debug!(uri, version, n_changes = changes.len(), "didChange");
                        if let Some(document) = self.documents.get(&uri) {
                            self.ghosts.changed(&uri, document);
                        }
                    }
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
                self.ghosts.close(&uri);
                let was_open = self.documents.close(&uri);
                tracing::debug!(uri, was_open, "didClose");
            }
            Told::Lost { uri, reason } => self.lost(uri, &reason),
            Told::FoldersChanged { added, removed } => {
                let folders = &mut self.ghosts.permit().folders;
                folders.remove(&removed);
                folders.add(&added);
                let roots = folders.paths();
                self.ghosts.contexts.set_roots(roots);
                self.ask_configuration();
                self.settings_changed();
            }
            Told::ConfigurationChanged(pushed) => {
                if self.can.configuration {
                    self.ask_configuration();
                } else {
                    self.ghosts.permit().folders.configure(&pushed, &[]);
                    self.settings_changed();
                }
            }
            Told::FilesChanged(changes) => {
                tracing::debug!(n_changes = changes.len(), "didChangeWatchedFiles");
                for (uri, _) in changes {
                    self.ghosts.permit().folders.file_changed(&uri);
                }
                self.settings_changed();
            }
            Told::Cancelled(id) => self.ghosts.cancel(&id),
            Told::Showed { item } => self.ghosts.fates().did_show(&item),
            Told::PartlyAccepted { item, n_utf16 } => self.ghosts.fates().partly_accepted(&item, n_utf16),
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Accepted { item } => self.ghosts.fates().accepted(&item),
            Command::Snooze(duration) => {
                self.ghosts.permit().snooze(duration);
                self.ghosts.permit_changed();
            }
        }
    }

    /// Believes no text any more that a lost change may have been for.
    fn lost(&mut self, uri: Option<String>, reason: &str) {
        tracing::warn!(uri = uri.as_deref(), reason, "a change may be lost");
        if let Some(uri) = uri {
            self.ghosts.forget(&uri, "lost");
            if self.documents.distrust(&uri) {
                self.out_of_sync(&uri, reason);
            }
            return;
        }
        self.ghosts.answer_all("lost");
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

    fn document_text(&self, uri: &str, reply: oneshot::Sender<Answer>) {
        let answer = match self.documents.get_any(uri) {
            Some((document, is_in_sync)) => {
                Answer::Text { text: document.snapshot().text(), version: document.version(), is_in_sync }
            }
            None => Answer::Nothing,
        };
        let _ = reply.send(answer);
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Started(_) => "initialize",
            Self::Configured { .. } => "configuration",
            Self::Loaded(_) => "loaded",
            Self::Told(Told::FoldersChanged { .. }) => "didChangeWorkspaceFolders",
            Self::Told(Told::ConfigurationChanged(_)) => "didChangeConfiguration",
            Self::Told(Told::FilesChanged(_)) => "didChangeWatchedFiles",
            Self::Told(Told::Initialized) => "initialized",
            Self::Told(Told::Opened { .. }) => "didOpen",
            Self::Told(Told::Changed { .. }) => "didChange",
            Self::Told(Told::Closed { .. }) => "didClose",
            Self::Told(Told::Lost { .. }) => "lost",
            Self::Told(Told::Showed { .. }) => "didShowCompletion",
            Self::Told(Told::PartlyAccepted { .. }) => "didPartiallyAcceptCompletion",
            Self::Told(Told::Cancelled(_)) => "cancelRequest",
            Self::Asked { asked: Asked::Status { .. }, .. } => "status",
            Self::Asked { asked: Asked::Completion(_), .. } => "completion",
            Self::Asked { asked: Asked::InlineCompletion(_), .. } => "inlineCompletion",
            Self::Asked { asked: Asked::DocumentText { .. }, .. } => "documentText",
            Self::Asked { asked: Asked::Execute(_), .. } => "executeCommand",
            Self::Asked { asked: Asked::Why { .. }, .. } => "why",
            Self::Ready => "ready",
            Self::Heard => "heard",
            Self::Done { .. } => "done",
            Self::Calibrated(_) => "calibrated",
            Self::NoModel(_) => "no model",
            Self::AnswerAll => "shutdown",
            Self::End => "end",
        }
    }
}

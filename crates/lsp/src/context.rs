//! What the model sees of other files: when it is looked for, and when a document's prompt takes it.
//!
//! In: the open documents, and where their user is. Out: a [`Slot`] for each document, filled by a thread of its own.
//! Never: makes a key wait that could do without: a prompt takes another context only where its beginning changes
//! anyway, and then waits for it a moment at most. Reads a file on the main thread.
//! Thread: main, `context` (files, parsing) and completion ([`Slot::take`]).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use complete::context::{Context, ContextScope, Index, OpenFile, Secrets};
use complete::window::window_start;
use complete::{Options, Request, Trigger};
use crossbeam_channel::{Receiver, Sender};
use text::{ByteOffset, Snapshot};

use crate::documents::Documents;

/// Lines from one place to another one.
const N_FAR_LINES: u32 = 10;
/// How long nobody asks before a key may be the first of another thought.
const PAUSE: Duration = Duration::from_secs(3);
/// Longest wait for a context where the prompt is computed anew in any case, which takes ten times as long.
const PATIENCE: Duration = Duration::from_millis(20);

/// The contexts of all open documents.
#[derive(Default)]
pub(crate) struct Contexts {
    roots: Arc<[PathBuf]>,
    by_uri: HashMap<String, Open>,
    /// URIs, the one that was asked for last first.
    recent: Vec<String>,
    /// To the thread, once there was something to look for.
    wants: Option<Sender<Want>>,
}

struct Open {
    path: PathBuf,
    language_id: String,
    slot: Arc<Slot>,
    last: Option<Last>,
    options: Options,
    secrets: Secrets,
}

/// Where the last request was.
#[derive(Clone, Copy)]
struct Last {
    window_start: usize,
    line: u32,
    at: Instant,
}

/// A context to be made.
struct Want {
    slot: Arc<Slot>,
    /// Which of the slot's wants it is.
    n_wanted: u64,
    roots: Arc<[PathBuf]>,
    /// The document first.
    open: Vec<OpenFile>,
    offset: ByteOffset,
    options: Options,
    secrets: Secrets,
}

/// The context of one document, between the threads.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    made: Condvar,
}

#[derive(Debug, Default)]
struct State {
    // INVARIANT: changes only where `n_wanted` was raised: there the prompt is computed anew in any case.
    in_use: Arc<Context>,
    newest: Arc<Context>,
    n_wanted: u64,
    n_made: u64,
    n_taken: u64,
}

impl Contexts {
    /// Says which folders are the workspace.
    pub(crate) fn set_roots(&mut self, roots: Vec<PathBuf>) {
        self.roots = roots.into();
    }

    /// A document is open; its imports can be looked at before anybody asks. Without a path there is no context for it,
    /// and it is in no other's.
    pub(crate) fn open(
        &mut self,
        uri: &str,
        path: Option<PathBuf>,
        language_id: &str,
        documents: &Documents,
        options: Options,
        secrets: Secrets,
    ) {
        self.close(uri);
        let Some(path) = path else { return };
        let open = Open {
            path,
            language_id: language_id.to_owned(),
            slot: Arc::default(),
            last: None,
            options,
            secrets,
        };
        self.by_uri.insert(uri.to_owned(), open);
        self.recent.insert(0, uri.to_owned());
        self.want(uri, ByteOffset(0), documents);
    }

    pub(crate) fn close(&mut self, uri: &str) {
        self.by_uri.remove(uri);
        self.recent.retain(|recent| recent != uri);
    }

    /// Takes note of a request, and looks for a context where one costs little.
    pub(crate) fn ask(
        &mut self,
        uri: &str,
        document: &Snapshot,
        offset: ByteOffset,
        documents: &Documents,
        options: Options,
        secrets: Secrets,
    ) {
        let Some(open) = self.by_uri.get_mut(uri) else { return };
        if let Some(at) = self.recent.iter().position(|recent| recent == uri) {
            self.recent[..=at].rotate_right(1);
        }
        if open.options.context != options.context {
            (open.slot, open.last) = (Arc::default(), None);
        }
        (open.options, open.secrets) = (options, secrets);
        if options.context == ContextScope::Off {
            return;
        }
        let request = Request { document, offset, trigger: Trigger::Automatic, tree: None, context: None };
        let here = Last {
            window_start: window_start(&request, &options, 0),
            line: document.line_of(offset),
            at: Instant::now(),
        };
        let last = open.last.replace(here);
        if last.is_none_or(|last| here.costs_little_after(last)) {
            self.want(uri, offset, documents);
        }
    }

    /// Returns what the completion thread takes a document's context from.
    pub(crate) fn slot(&self, uri: &str) -> Option<Arc<Slot>> {
        self.by_uri.get(uri).map(|open| Arc::clone(&open.slot))
    }

    fn want(&mut self, uri: &str, offset: ByteOffset, documents: &Documents) {
        let Some(Open { options, secrets, .. }) = self.by_uri.get(uri) else { return };
        let (options, secrets) = (*options, secrets.clone());
        let Some(slot) = self.slot(uri).filter(|_| options.context != ContextScope::Off) else { return };
        // A document without a language has no context.
        let Some(document) = self.file(uri, documents) else { return };
        let others = self.recent.iter().filter(|recent| *recent != uri);
        let others = others.filter_map(|uri| self.file(uri, documents));
        let open = std::iter::once(document).chain(others).collect();
        let n_wanted = {
            let mut state = slot.state();
            state.n_wanted += 1;
            state.n_wanted
        };
        let want = Want { slot, n_wanted, roots: Arc::clone(&self.roots), open, offset, options, secrets };
        let wants = self.wants.get_or_insert_with(start);
        if wants.send(want).is_err() {
            tracing::error!("the context thread is gone");
        }
    }

    fn file(&self, uri: &str, documents: &Documents) -> Option<OpenFile> {
        let open = self.by_uri.get(uri)?;
        OpenFile::new(&open.path, &open.language_id, documents.get(uri)?.snapshot())
    }
}

impl Last {
    /// Returns whether most of the prompt is another one than the last request's, or nobody is in the middle of a thought.
    fn costs_little_after(self, last: Self) -> bool {
        self.window_start != last.window_start
            || self.line.abs_diff(last.line) > N_FAR_LINES
            || self.at - last.at >= PAUSE
    }
}

impl Slot {
    /// Returns the context to use, which is the same one while a place is typed at; empty if there is none yet.
    pub(crate) fn take(&self) -> Arc<Context> {
        let state = self.state();
        let is_missing = |state: &mut State| state.n_made < state.n_wanted && state.n_taken < state.n_wanted;
        let waited = self.made.wait_timeout_while(state, PATIENCE, is_missing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.n_taken < state.n_wanted {
            state.n_taken = state.n_wanted;
            state.in_use = Arc::clone(&state.newest);
        }
        Arc::clone(&state.in_use)
    }

    /// Returns the context that the last prompt began with.
    pub(crate) fn in_use(&self) -> Arc<Context> {
        Arc::clone(&self.state().in_use)
    }

    fn put(&self, context: Context, n_wanted: u64) {
        let mut state = self.state();
        // The same one keeps its token ids.
        if *state.newest != context {
            state.newest = Arc::new(context);
        }
        state.n_made = n_wanted;
        self.made.notify_all();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start() -> Sender<Want> {
    let (sender, wants) = crossbeam_channel::unbounded();
    let spawned = std::thread::Builder::new().name("context".to_owned()).spawn(move || run(&wants));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for context: the model sees the window alone");
    }
    sender
}

/// Makes contexts until the session is over.
fn run(wants: &Receiver<Want>) {
    let mut index = (Arc::default(), Index::default());
    while let Ok(first) = wants.recv() {
        let waiting: Vec<Want> = std::iter::once(first).chain(wants.try_iter()).collect();
        for (idx, want) in waiting.iter().enumerate() {
            if waiting[idx + 1..].iter().any(|later| Arc::ptr_eq(&later.slot, &want.slot)) {
                continue;
            }
            if index.0 != want.roots {
                index = (Arc::clone(&want.roots), Index::new(want.roots.to_vec()));
            }
            let so_far = Arc::clone(&want.slot.state().newest);
            index.1.set_secrets(want.secrets.clone());
            let started = Instant::now();
            let made = catch_unwind(AssertUnwindSafe(|| {
                index.1.context(&so_far, &want.open, want.offset, &want.options)
            }));
            match made {
                Ok(context) => {
                    let (n_bytes, us) = (context.n_bytes(), started.elapsed().as_micros() as u64);
                    tracing::debug!(n_bytes, us, "context");
                    want.slot.put(context, want.n_wanted);
                }
                Err(_) => {
                    tracing::error!("a panic cost a context");
                    index = (Arc::default(), Index::default());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The way from a client to the server: requests over one connection, told apart by their ids.
//!
//! In: requests from any thread. Out: their answers, one each.
//! Never: asks twice for what has begun to come; starts a server again and again that dies again and again.
//! Thread: any asks; `link` reads the replies.

use std::collections::{BTreeSet, HashMap};
use std::io::BufReader;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use engine::{CancelToken, GenerateRequest, Generation, Link, Score, ScoreRequest};

use crate::socket::Socket;
use crate::start::Starter;
use crate::wire::{Ask, Call, Hello, PROTOCOL, Reply, Tell, VERSION, Welcome, from_wire, to_wire};
use crate::{Error, ModelFile, frame};

/// How often a waiting request looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(3);
/// A server that dies sooner than this after it was started again is not started once more.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(30);

/// A model that a server runs, seen from another process.
pub(crate) struct Client {
    starter: Starter,
    state: Mutex<State>,
    next_id: AtomicU64,
}

struct State {
    connection: Arc<Connection>,
    restarted: Option<Instant>,
}

/// The connection ended before the answer came.
struct Ended;

impl Client {
    /// Returns a client over an open connection; the starter finds the next one, should it end.
    pub(crate) fn new(starter: Starter, connection: Connection) -> Self {
        let state = State { connection: Arc::new(connection), restarted: None };
        Self { starter, state: Mutex::new(state), next_id: AtomicU64::new(1) }
    }

    /// Asks, and asks once more if the server died before it had told anything.
    fn ask(
        &self,
        ask: &Ask,
        on_text: &mut dyn FnMut(usize, &str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Tell, engine::Error> {
        let mut n_texts = 0;
        for is_last in [false, true] {
            let connection = self.connection()?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let mut count = |answer_idx: usize, text: &str| {
                n_texts += 1;
                on_text(answer_idx, text)
            };
            match connection.ask(id, ask, &mut count, cancel) {
                Ok(Tell::Failed(failed)) => return Err(from_wire::failed(failed)),
                Ok(tell) => return Ok(tell),
                Err(Ended) if is_last || n_texts > 0 || cancel.is_cancelled() => break,
                Err(Ended) => {}
            }
        }
        tracing::warn!(
            "the engine's process ended while it worked on a request; the next one starts it again"
        );
        Err(lost("the engine's process ended while it worked on this request".to_owned()))
    }

    /// Returns the connection, or a new one if it has ended.
    fn connection(&self) -> Result<Arc<Connection>, engine::Error> {
        // Others wait here while one starts the server: it is started once for all of them.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.connection.has_ended() {
            return Ok(Arc::clone(&state.connection));
        }
        if state.restarted.is_some_and(|at| at.elapsed() < BETWEEN_RESTARTS) {
            return Err(lost("the engine's process ended twice in a short time".to_owned()));
        }
        state.restarted = Some(Instant::now());
        tracing::warn!("the engine's process has ended; starting it again");
        let connection = self.starter.reach().map_err(|error| engine::Error::Link {
            message: format!("the engine's process cannot be started again: {error}"),
            hint: error.hint().map(str::to_owned),
        })?;
        if connection.welcome.n_ctx != state.connection.welcome.n_ctx {
            return Err(lost("the engine's process came back with another length of context".to_owned()));
        }
        tracing::warn!(pid = connection.welcome.pid, "the engine's process runs again");
        state.connection = Arc::new(connection);
        Ok(Arc::clone(&state.connection))
    }
}

impl Link for Client {
    fn generate(
        &self,
        request: GenerateRequest,
        n_answers: usize,
        on_text: &mut dyn FnMut(usize, &str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Vec<Generation>, engine::Error> {
        match self.ask(&Ask::Generate(Box::new(to_wire::generate(request, n_answers))), on_text, cancel)? {
            Tell::Generated(answers) if answers.len() == n_answers => {
                Ok(answers.into_iter().map(from_wire::generated).collect())
            }
            _ => Err(lost("the server answered another question".to_owned())),
        }
    }

    fn score(
        &self,
        request: ScoreRequest,
        cancel: &CancelToken,
    ) -> Result<Option<Vec<Score>>, engine::Error> {
        match self.ask(&Ask::Score(to_wire::score(request)), &mut |_, _| true, cancel)? {
            Tell::Scored(scores) => {
                Ok(scores.map(|scores| scores.into_iter().map(from_wire::scored).collect()))
            }
            _ => Err(lost("the server answered another question".to_owned())),
        }
    }
}

fn lost(message: String) -> engine::Error {
    engine::Error::Link { message, hint: Some("try again; `agent serve` keeps a log".to_owned()) }
}

/// One open connection.
pub(crate) struct Connection {
    pub(crate) welcome: Welcome,
    writer: Mutex<Socket>,
    waiting: Arc<Waiting>,
}

/// Who waits for replies; `None` once there will be none any more.
struct Waiting(Mutex<Option<HashMap<u64, Sender<Tell>>>>);

impl Connection {
    /// Says hello on a stream to the server of `model`, and waits for its answer until `deadline`.
    pub(crate) fn open(stream: Socket, model: &ModelFile, deadline: Instant) -> Result<Self, Error> {
        let lost = |error: std::io::Error| Error::Lost { reason: error.to_string() };
        // A server that loads its model answers when that is done.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).map_err(lost)?;
        let hello = Hello {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            model: model.identity().to_owned(),
            pid: std::process::id(),
        };
        let mut writer = stream.try_clone().map_err(lost)?;
        frame::write(&mut writer, &Call { id: 0, ask: Ask::Hello(hello) }).map_err(lost)?;
        let mut reader = BufReader::new(stream);
        let welcome = match frame::read::<Reply>(&mut reader).map_err(lost)? {
            Some(Reply { tell: Tell::Hello(welcome), .. }) => welcome,
            Some(_) => return Err(Error::Lost { reason: "it did not answer a hello".to_owned() }),
            None => return Err(Error::Lost { reason: "it ended".to_owned() }),
        };
        check(&welcome, model)?;
        reader.get_ref().set_read_timeout(None).map_err(lost)?;
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let told = Arc::clone(&waiting);
        std::thread::Builder::new().name("link".to_owned()).spawn(move || told.hear(reader)).map_err(lost)?;
        Ok(Self { welcome, writer: Mutex::new(writer), waiting })
    }

    fn has_ended(&self) -> bool {
        self.waiting.lock().is_none()
    }

    fn ask(
        &self,
        id: u64,
        ask: &Ask,
        on_text: &mut dyn FnMut(usize, &str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Tell, Ended> {
        let (sender, replies) = crossbeam_channel::unbounded();
        match self.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(Ended),
        };
        self.send(id, ask);
        let mut has_cancelled = false;
        let mut had_enough = BTreeSet::new();
        loop {
            if !has_cancelled && cancel.is_cancelled() {
                has_cancelled = true;
                self.send(id, &Ask::Cancel);
            }
            match next(&replies, has_cancelled) {
                Ok(Tell::Text { answer_idx, text }) => {
                    if !on_text(answer_idx, &text) && had_enough.insert(answer_idx) {
                        self.send(id, &Ask::Enough { answer_idx });
                    }
                }
                Ok(tell) => return Ok(tell),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
        }
    }

    fn send(&self, id: u64, ask: &Ask) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if frame::write(&mut *writer, &CallRef { id, ask }).is_err() {
            // Nobody will answer: the reading side ends now and tells all who wait.
            let _ = writer.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends the `link` thread; it fails where the server is gone, which ends it too.
        let _ = writer.shutdown(Shutdown::Both);
    }
}

/// A [`Call`] whose question is kept for a second try.
#[derive(serde::Serialize)]
struct CallRef<'a> {
    id: u64,
    ask: &'a Ask,
}

fn next(replies: &Receiver<Tell>, has_cancelled: bool) -> Result<Tell, RecvTimeoutError> {
    if has_cancelled {
        replies.recv().map_err(|_| RecvTimeoutError::Disconnected)
    } else {
        replies.recv_timeout(CANCEL_POLL)
    }
}

/// Tells a server of another version, or of another model, from the one that is wanted.
fn check(welcome: &Welcome, model: &ModelFile) -> Result<(), Error> {
    let named = |version: &str, protocol: u32| format!("{version} (protocol {protocol})");
    if welcome.protocol != PROTOCOL || welcome.version != VERSION {
        return Err(Error::Version {
            theirs: named(&welcome.version, welcome.protocol),
            ours: named(VERSION, PROTOCOL),
            pid: welcome.pid,
        });
    }
    if welcome.model != model.identity() {
        // Not `Lost`, after which it would be called again.
        return Err(Error::Start { reason: format!("the one that is there serves {}", welcome.model_path) });
    }
    Ok(())
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, Sender<Tell>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out replies until the server ends or sends what is no reply.
    fn hear(&self, mut reader: BufReader<Socket>) {
        loop {
            match frame::read::<Reply>(&mut reader) {
                Ok(Some(Reply { tell: Tell::Closing, .. })) => {}
                Ok(Some(reply)) => self.hand_out(reply),
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "the server was lost");
                    break;
                }
            }
        }
        // Dropping the senders tells all who wait.
        *self.lock() = None;
        let _ = reader.get_ref().shutdown(Shutdown::Both);
    }

    fn hand_out(&self, reply: Reply) {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        let sender = match reply.tell {
            Tell::Text { .. } => waiting.get(&reply.id).cloned(),
            _ => waiting.remove(&reply.id),
        };
        if let Some(sender) = sender {
            // Who does not wait any more has had its last reply.
            let _ = sender.send(reply.tell);
        }
    }
}

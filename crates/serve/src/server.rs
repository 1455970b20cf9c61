//! The server from its first client to the idle time after its last.
//!
//! In: a claimed address and a loaded engine. Out: nothing; it returns when it is told to leave or nobody is here.
//! Never: waits for a client: whoever does not read or send is cut off.
//! Thread: the caller's watches; `accept` takes connections; each connection has a `client` thread.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use engine::{ChatError, ChatTemplate, Engine, Gguf};
use serde_json::json;

use crate::admission::{Admission, Presence};
use crate::http::{self, HttpOptions};
use crate::metrics::{Metrics, resident_bytes};
use crate::socket::{self, Socket};
use crate::{Claim, Error, ModelFile, connection};

/// Most clients at once; each has two threads at most beside its requests.
const N_MAX_CLIENTS: usize = 256;
/// How long running requests may take to end when the server leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server is started with.
pub struct ServeOptions {
    /// The loaded model.
    pub engine: Engine,
    /// Its file.
    pub model: ModelFile,
    /// The address, unless another process serves it: then this one has only its HTTP face.
    pub claim: Option<Claim>,
    /// How long to stay when nobody is here; for ever when not set.
    pub idle: Option<Duration>,
    /// Where to answer HTTP, if at all.
    pub http: Option<HttpOptions>,
}

/// Tells a server to leave, from any thread.
#[derive(Clone, Debug)]
pub struct StopFlag {
    stop: Sender<()>,
    stopped: Receiver<()>,
}

impl StopFlag {
    /// Returns a flag that is down.
    #[expect(clippy::new_without_default, reason = "it makes a channel")]
    pub fn new() -> Self {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        Self { stop, stopped }
    }

    /// Raises the flag.
    pub fn raise(&self) {
        // Full means that it is up.
        let _ = self.stop.try_send(());
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) model: ModelFile,
    pub(crate) admission: Admission,
    pub(crate) presence: Presence,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: StopFlag,
    started: Instant,
    is_leaving: AtomicBool,
    next_key: AtomicU64,
    /// To wake their threads when the server leaves.
    streams: Mutex<HashMap<u64, Socket>>,
}

/// Serves until the flag is raised, a client asks to stop, or the idle time is over. `on_ready` hears when it begins,
/// and where HTTP is answered.
///
/// # Errors
/// [`Error::Io`] before the first client: the user's to fix.
pub fn serve(
    options: ServeOptions,
    on_ready: &mut dyn FnMut(Option<SocketAddr>),
    stop: &StopFlag,
) -> Result<(), Error> {
    let shared = Arc::new(Shared {
        engine: options.engine,
        model: options.model,
        admission: Admission::default(),
        presence: Presence::new(),
        metrics: Arc::default(),
        stop: stop.clone(),
        started: Instant::now(),
        is_leaving: AtomicBool::new(false),
        next_key: AtomicU64::new(0),
        streams: Mutex::default(),
    });
    let face = match options.http {
        Some(http_options) => Some(http::start(http_options, shared.http_state()?)?),
        None => None,
    };
    let accepting = match options.claim {
        Some(claim) => Some(Accepting::start(claim, &shared)?),
        None => None,
    };
    let http_address = face.as_ref().map(http::Face::address);
    tracing::info!(
        pid = std::process::id(),
        model = shared.model.name(),
        n_ctx = shared.engine.n_ctx(),
        http = ?http_address,
        "serving"
    );
    on_ready(http_address);
    let why = wait(&shared, options.idle, stop);
    tracing::info!(why, uptime_s = shared.started.elapsed().as_secs(), "leaving");
    // Nobody new from here on; then those who are here.
    shared.is_leaving.store(true, Ordering::Release);
    drop(accepting);
    drop(face);
    shared.send_away();
    Ok(())
}

/// Returns why the server leaves, when it does.
fn wait(shared: &Shared, idle: Option<Duration>, stop: &StopFlag) -> &'static str {
    loop {
        let left = match (idle, shared.presence.empty_for()) {
            (Some(idle), Some(empty_for)) if empty_for >= idle => return "idle",
            (Some(idle), Some(empty_for)) => idle - empty_for,
            // Somebody is here; who leaves starts the time anew, so a late look costs at most this much.
            (Some(idle), None) => idle.min(Duration::from_secs(10)),
            (None, _) => Duration::from_secs(3600),
        };
        if stop.stopped.recv_timeout(left.max(Duration::from_millis(1))).is_ok() {
            return "told to";
        }
    }
}

impl Shared {
    /// Returns what the HTTP face needs.
    fn http_state(&self) -> Result<http::State, Error> {
        Ok(http::State {
            engine: self.engine.clone(),
            model_name: self.model.name().to_owned(),
            chat: Arc::new(self.chat_template()?),
            admission: self.admission.clone(),
            presence: self.presence.clone(),
            metrics: Arc::clone(&self.metrics),
            started: self.started,
        })
    }

    /// Reads the chat template from the model's file. A model that has none can do everything else.
    fn chat_template(&self) -> Result<Result<ChatTemplate, ChatError>, Error> {
        let gguf = Gguf::open(self.model.path())
            .map_err(|source| engine::Error::Gguf { path: self.model.path().to_owned(), source })?;
        Ok(ChatTemplate::from_gguf(&gguf, self.engine.tokenizer()))
    }

    /// Returns what `agent serve --status` shows.
    pub(crate) fn status(&self) -> serde_json::Value {
        json!({
            "version": crate::wire::VERSION,
            "protocol": crate::wire::PROTOCOL,
            "pid": std::process::id(),
            "model": self.model.name(),
            "model_path": self.model.path(),
            "n_ctx": self.engine.n_ctx(),
            "n_clients": self.presence.n_here(),
            "n_running": self.admission.n_inside(),
            "uptime_s": self.started.elapsed().as_secs(),
            "resident_bytes": resident_bytes(),
            "kv_used_bytes": self.engine.metrics().map(|metrics| metrics.kv_used_bytes.get() as u64),
            "weights_bytes": self.engine.metrics().map(|metrics| metrics.n_weight_bytes),
            "draft_weights_bytes": self.engine.metrics().map(|metrics| metrics.n_draft_weight_bytes),
            "counts": self.metrics.counts(&self.engine),
        })
    }

    /// Remembers a client's stream until the guard is dropped, or returns `None` when it must go at once.
    fn remember(&self, stream: &Socket) -> Option<u64> {
        let stream = stream.try_clone().ok()?;
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let is_welcome = streams.len() < N_MAX_CLIENTS && !self.is_leaving.load(Ordering::Acquire);
        is_welcome.then(|| {
            streams.insert(key, stream);
            key
        })
    }

    fn forget(&self, key: u64) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Ends all connections, which cancels their requests, and waits for them.
    fn send_away(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
            // It fails for a stream whose client is gone, which is as good.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while self.presence.n_here() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The thread that takes connections; dropping it ends it.
struct Accepting {
    claim: Arc<Claim>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Accepting {
    fn start(claim: Claim, shared: &Arc<Shared>) -> Result<Self, Error> {
        let path = claim.address().socket();
        let claim = Arc::new(claim);
        let (listener, shared) = (Arc::clone(&claim), Arc::clone(shared));
        let thread = std::thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, &shared))
            .map_err(|source| Error::Io { action: "start the thread of", path, source })?;
        Ok(Self { claim, thread: Some(thread) })
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        // A call of our own wakes it, and it sees that the server is leaving.
        let is_awake = socket::connect(&self.claim.address().socket()).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_awake) {
            let _ = thread.join();
        }
    }
}

fn accept(claim: &Claim, shared: &Arc<Shared>) {
    loop {
        let accepted = claim.listener().accept();
        if shared.is_leaving.load(Ordering::Acquire) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Out of file descriptors, mostly: some come back when a client leaves.
                tracing::warn!(%error, "a client could not be taken");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let Some(key) = shared.remember(&stream) else {
            tracing::warn!(n_max = N_MAX_CLIENTS, "a client was sent away");
            continue;
        };
        let here = shared.presence.enter();
        let client_shared = Arc::clone(shared);
        let started = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
            connection::run(&client_shared, stream);
            client_shared.forget(key);
            drop(here);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a client");
            shared.forget(key);
        }
    }
}

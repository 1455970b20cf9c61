//! One client of the server, from its hello to its end.
//!
//! In: frames. Out: replies; a client that goes away cancels what it asked for.
//! Never: works for another user's process; answers a call twice (I-5); logs a prompt or an answer (I-9).
//! Thread: `client` reads; each call of work has a `request` thread, which ends with its answer.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::CancelToken;

use crate::admission::Permit;
use crate::frame;
use crate::server::Shared;
use crate::socket::Socket;
use crate::wire::{Ask, Call, Failed, Hello, PROTOCOL, Reply, Tell, VERSION, Welcome, from_wire, to_wire};

/// How long a client may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Most answers to one request.
const N_MAX_ANSWERS: usize = 64;
/// How long a client may leave what it is sent unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Talks with one client until it is gone.
pub(crate) fn run(shared: &Arc<Shared>, stream: Socket) {
    if !is_owners(&stream) {
        tracing::warn!("a process of another user was refused");
        return;
    }
    let reader = stream
        .set_read_timeout(Some(HELLO_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
        .and_then(|()| stream.try_clone());
    let Ok(reader) = reader else { return };
    let client = Client {
        shared: Arc::clone(shared),
        writer: Mutex::new(stream),
        running: Mutex::default(),
        is_gone: AtomicBool::new(false),
    };
    let client = Arc::new(client);
    let ended = client.listen(reader);
    client.is_gone.store(true, Ordering::Release);
    client.cancel_all();
    if let Err(error) = ended {
        tracing::debug!(%error, "a client ended");
    }
}

/// The folder of the socket is the owner's alone; where the system tells who calls, that is looked at too.
fn is_owners(stream: &Socket) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|caller| caller.uid.as_raw() == crate::address::own_uid());
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        true
    }
}

struct Client {
    shared: Arc<Shared>,
    writer: Mutex<Socket>,
    running: Mutex<HashMap<u64, Running>>,
    is_gone: AtomicBool,
}

/// How a call that is worked on is reached.
#[derive(Clone)]
struct Running {
    cancel: CancelToken,
    /// One for each answer.
    enough: Arc<[AtomicBool]>,
}

/// A call that is worked on; it is forgotten when this is dropped.
struct Work {
    client: Arc<Client>,
    id: u64,
    running: Running,
    _permit: Permit,
}

impl Client {
    /// Reads calls until the client ends, or sends what is no call.
    fn listen(self: &Arc<Self>, stream: Socket) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut is_known = false;
        loop {
            let call = match frame::read::<Call>(&mut reader) {
                Ok(Some(call)) => call,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let message = error.to_string();
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.tell(0, Tell::Failed(Failed::Malformed { message }));
                    }
                    return Err(error);
                }
            };
            match call.ask {
                Ask::Shutdown => {
                    self.tell(call.id, Tell::Closing);
                    self.shared.stop.raise();
                }
                Ask::Status => self.tell(call.id, Tell::Status(self.shared.status())),
                Ask::Hello(hello) => {
                    is_known = self.welcome(call.id, &hello);
                    // From here on a client may be silent for as long as it likes.
                    reader.get_ref().set_read_timeout(None)?;
                }
                Ask::Cancel => self.reach(call.id, |running| running.cancel.cancel()),
                Ask::Enough { answer_idx } => self.reach(call.id, |running| {
                    if let Some(enough) = running.enough.get(answer_idx) {
                        enough.store(true, Ordering::Release);
                    }
                }),
                Ask::Generate(_) | Ask::Score(_) if !is_known => {
                    let message = "a request before a hello that fits".to_owned();
                    self.tell(call.id, Tell::Failed(Failed::Malformed { message }));
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                Ask::Generate(_) | Ask::Score(_) => self.begin(call),
            }
        }
    }

    /// Answers a hello; returns whether client and server fit each other.
    fn welcome(&self, id: u64, hello: &Hello) -> bool {
        let model = &self.shared.model;
        self.tell(
            id,
            Tell::Hello(Welcome {
                protocol: PROTOCOL,
                version: VERSION.to_owned(),
                model: model.identity().to_owned(),
                model_path: model.path().display().to_string(),
                pid: std::process::id(),
                n_ctx: self.shared.engine.n_ctx(),
            }),
        );
        tracing::info!(client = hello.pid, version = hello.version, "a client came");
        hello.protocol == PROTOCOL && hello.version == VERSION && hello.model == model.identity()
    }

    /// Starts to work on a call, or says why not.
    fn begin(self: &Arc<Self>, call: Call) {
        let id = call.id;
        let n_answers = match &call.ask {
            Ask::Generate(request) => request.n_answers,
            _ => 1,
        };
        if n_answers > N_MAX_ANSWERS {
            let message = format!("more than {N_MAX_ANSWERS} answers to one request");
            return self.tell(id, Tell::Failed(Failed::Malformed { message }));
        }
        let permit = match self.shared.admission.enter(1) {
            Ok(permit) => permit,
            Err(error) => {
                self.shared.metrics.busy();
                return self.tell(id, Tell::Failed(to_wire::failed(&error)));
            }
        };
        let running = Running {
            cancel: CancelToken::new(),
            enough: (0..n_answers).map(|_| AtomicBool::new(false)).collect(),
        };
        let is_new = {
            let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            // A cancel that comes at the same moment finds it: the map is filled before the thread starts.
            let is_new = !all.contains_key(&id);
            if is_new {
                all.insert(id, running.clone());
            }
            is_new
        };
        if !is_new {
            let message = "two calls with one id".to_owned();
            return self.tell(id, Tell::Failed(Failed::Malformed { message }));
        }
        let work = Work { client: Arc::clone(self), id, running, _permit: permit };
        let started =
            std::thread::Builder::new().name("request".to_owned()).spawn(move || work.run(call.ask));
        if let Err(error) = started {
            // The work was dropped with the thread that never was, and so forgotten.
            let message = format!("the server has no thread for it: {error}");
            self.tell(id, Tell::Failed(Failed::Other { message, hint: None }));
        }
    }

    /// Sends one reply. A client that does not read is cut off, which ends its reading side too.
    fn tell(&self, id: u64, tell: Tell) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_gone.load(Ordering::Acquire) {
            return;
        }
        let mut written = frame::write(&mut *writer, &Reply { id, tell });
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            let failed =
                Failed::Other { message: "the answer is too large for a frame".to_owned(), hint: None };
            written = frame::write(&mut *writer, &Reply { id, tell: Tell::Failed(failed) });
        }
        if let Err(error) = written {
            tracing::debug!(%error, "a client does not read");
            self.is_gone.store(true, Ordering::Release);
            let _ = writer.shutdown(std::net::Shutdown::Both);
        }
    }

    fn reach(&self, id: u64, act: impl FnOnce(&Running)) {
        // A call that has been answered already is nobody's concern.
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            act(running);
        }
    }

    fn cancel_all(&self) {
        for running in self.running.lock().unwrap_or_else(PoisonError::into_inner).values() {
            running.cancel.cancel();
        }
    }
}

impl Work {
    fn run(self, ask: Ask) {
        // A panic costs this request, not the server.
        let tell = catch_unwind(AssertUnwindSafe(|| self.answer(ask))).unwrap_or_else(|_| {
            tracing::error!("a request panicked");
            let message = "the request was lost in a panic of the server".to_owned();
            Tell::Failed(Failed::Other { message, hint: None })
        });
        let (client, id) = (Arc::clone(&self.client), self.id);
        // Before the answer: the client may use the id again as soon as it has it.
        drop(self);
        client.tell(id, tell);
    }

    fn answer(&self, ask: Ask) -> Tell {
        let (shared, running) = (&self.client.shared, &self.running);
        if self.client.is_gone.load(Ordering::Acquire) {
            running.cancel.cancel();
        }
        match ask {
            Ask::Generate(request) => {
                let mut on_text = |answer_idx: usize, text: &str| {
                    self.client.tell(self.id, Tell::Text { answer_idx, text: text.to_owned() });
                    !running.enough[answer_idx].load(Ordering::Acquire)
                };
                let (n_answers, request) = (request.n_answers, from_wire::generate(*request));
                match shared.engine.generate_many(request, n_answers, &mut on_text, &running.cancel) {
                    Ok(answers) => Tell::Generated(
                        answers
                            .into_iter()
                            .map(|answer| {
                                shared.metrics.generated(&answer);
                                log(&answer);
                                to_wire::generated(answer)
                            })
                            .collect(),
                    ),
                    Err(error) => {
                        shared.metrics.failed();
                        tracing::warn!(%error, "a request failed");
                        Tell::Failed(to_wire::failed(&error))
                    }
                }
            }
            Ask::Score(request) => {
                let result = shared.engine.score(from_wire::score(request), &running.cancel);
                shared.metrics.scored(&result);
                match result {
                    Ok(scores) => {
                        Tell::Scored(scores.map(|scores| scores.into_iter().map(to_wire::scored).collect()))
                    }
                    Err(error) => Tell::Failed(to_wire::failed(&error)),
                }
            }
            // `begin` gets no other.
            _ => Tell::Failed(Failed::Malformed { message: "no request".to_owned() }),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.client.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A line for each generation, without a word of it.
fn log(generation: &engine::Generation) {
    tracing::debug!(
        n_prompt = generation.n_prompt,
        n_reused = generation.n_reused,
        n_tokens = generation.tokens.len(),
        stop = ?generation.stop,
        queue_ms = generation.timings.queue.as_millis() as u64,
        ttft_ms = generation.timings.ttft.as_millis() as u64,
        decode_ms = generation.timings.decode.as_millis() as u64,
        "generated"
    );
}

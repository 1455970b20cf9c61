//! The point of order: every message passes here once, as it arrived, before anything waits.
//!
//! In: the transport's requests. Out: events for the main loop, and futures that wait for its answers.
//! Never: waits in `call`.
//! Thread: the transport's task.
//!
//! tower-lsp's handlers are futures that run concurrently, so that a `didChange` may overtake another one and a
//! document is corrupted for good. What touches documents is therefore converted and enqueued inside `call`, which
//! the transport makes in order of arrival; everything else goes on to tower-lsp.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use crossbeam_channel::Sender;
use tokio::sync::{Notify, oneshot};
use tower::Service;
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Request, Response};
use tower_lsp::{ExitedError, LanguageServer, LspService};

use crate::from_proto::{self, Asked, Told};
use crate::main_loop::{Answer, Event};
use crate::{progress, to_proto};

/// Where the session stands; tower-lsp knows it too, but only for what passes through it.
#[derive(Default)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    const NEW: u8 = 0;
    const RUNNING: u8 = 1;
    const SHUT_DOWN: u8 = 2;

    fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Release);
    }

    /// Returns whether the editor said `shutdown`.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.get() == Self::SHUT_DOWN
    }
}

/// tower-lsp's service with the ordered messages taken out.
pub(crate) struct Ordered<L> {
    inner: LspService<L>,
    phase: Arc<Phase>,
    events: Sender<Event>,
    progress: progress::Handle,
    gone: Arc<Notify>,
}

type Answering = Pin<Box<dyn Future<Output = Result<Option<Response>, ExitedError>> + Send>>;

impl<L: LanguageServer> Ordered<L> {
    pub(crate) fn new(
        inner: LspService<L>,
        phase: Arc<Phase>,
        events: Sender<Event>,
        progress: progress::Handle,
        gone: Arc<Notify>,
    ) -> Self {
        Self { inner, phase, events, progress, gone }
    }

    fn initialize(&mut self, request: Request) -> Answering {
        // Parameters that do not parse are tower-lsp's to refuse.
        let client = from_proto::client(request.params());
        let is_first = self.phase.get() == Phase::NEW;
        let answer = self.inner.call(request);
        if let Some(client) = client
            && is_first
        {
            tracing::info!(encoding = ?client.encoding, name = client.name, "initialize");
            self.progress.supports_progress(client.supports_progress);
            if let Some(process_id) = client.process_id {
                tokio::spawn(watch(process_id, Arc::clone(&self.gone)));
            }
            self.send(Event::Started(Box::new(client)));
        }
        let phase = Arc::clone(&self.phase);
        Box::pin(async move {
            let response = answer.await?;
            if is_first && response.as_ref().is_some_and(Response::is_ok) {
                phase.set(Phase::RUNNING);
            }
            Ok(response)
        })
    }

    fn shutdown(&mut self, request: Request) -> Answering {
        if self.phase.get() == Phase::RUNNING {
            self.phase.set(Phase::SHUT_DOWN);
            self.send(Event::AnswerAll);
        }
        self.inner.call(request)
    }

    fn told(&mut self, told: Result<Told, String>, method: &str) {
        match told {
            // A notification before `initialize` or after `shutdown` is dropped, says LSP.
            Ok(told) if self.phase.get() == Phase::RUNNING => self.send(Event::Told(told)),
            Ok(_) => tracing::debug!(method, "outside the session, dropped"),
            Err(reason) => tracing::warn!(method, reason, "the notification cannot be understood"),
        }
    }

    fn asked(&mut self, asked: Result<Asked, String>, id: Id) -> Answering {
        let refusal = match (self.phase.get(), asked) {
            (Phase::RUNNING, Ok(asked)) => return self.enqueue(asked, id),
            (Phase::RUNNING, Err(reason)) => Error::invalid_params(reason),
            (Phase::NEW, _) => {
                to_proto::error(ErrorCode::ServerError(-32002), "the server is not initialized".into())
            }
            _ => to_proto::error(ErrorCode::InvalidRequest, "the server is shut down".into()),
        };
        Box::pin(std::future::ready(Ok(Some(Response::from_error(id, refusal)))))
    }

    fn enqueue(&mut self, asked: Asked, id: Id) -> Answering {
        let (reply, answer) = oneshot::channel();
        let is_list = matches!(asked, Asked::Completion(_));
        self.send(Event::Asked { id: id.clone(), asked, reply });
        Box::pin(async move {
            // A reply that is dropped was lost in a panic: the request still gets its one response (I-5).
            let answer = answer.await.unwrap_or(Answer::Failed("the request was lost in a panic".to_owned()));
            Ok(Some(if is_list { to_proto::list(id, answer) } else { to_proto::response(id, answer) }))
        })
    }

    fn send(&self, event: Event) {
        // The main loop ends after the transport does; before that it fails only if it panicked.
        if self.events.send(event).is_err() {
            tracing::error!("the main loop is gone");
        }
    }
}

impl<L: LanguageServer> Service<Request> for Ordered<L> {
    type Response = Option<Response>;
    type Error = ExitedError;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match (request.method(), request.id()) {
            ("initialize", Some(_)) => self.initialize(request),
            ("shutdown", Some(_)) => self.shutdown(request),
            ("$/cancelRequest", None) => {
                self.told(from_proto::told(&request), request.method());
                // It may also be for one of tower-lsp's own handlers.
                self.inner.call(request)
            }
            (method, None) if from_proto::is_told(method) => {
                self.told(from_proto::told(&request), method);
                Box::pin(std::future::ready(Ok(None)))
            }
            (method, Some(id)) if from_proto::is_asked(method) => {
                self.asked(from_proto::asked(&request), id.clone())
            }
            _ => self.inner.call(request),
        }
    }
}

/// Tells when the editor's process is gone: LSP wants the server to end then, also where its input stays open.
#[cfg(unix)]
async fn watch(process_id: u32, gone: Arc<Notify>) {
    use rustix::process::{Pid, test_kill_process};
    use std::time::Duration;

    let Some(pid) = i32::try_from(process_id).ok().and_then(Pid::from_raw) else {
        return;
    };
    let is_gone = || test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    if is_gone() {
        // The editor runs in another container or machine, where this number means nothing.
        tracing::info!(
            process_id,
            "the editor's process cannot be seen from here; only its streams say when it ends"
        );
        return;
    }
    let mut timer = tokio::time::interval(Duration::from_secs(1));
    loop {
        timer.tick().await;
        if is_gone() {
            tracing::warn!(process_id, "the editor's process is gone");
            gone.notify_one();
            return;
        }
    }
}

/// On other systems the closed input alone says it.
#[cfg(not(unix))]
async fn watch(_process_id: u32, _gone: Arc<Notify>) {}

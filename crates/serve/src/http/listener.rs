//! The one place that opens a network socket besides `models`: a listener on loopback (I-13).
//!
//! In: an address on loopback. Out: each connection's requests, to the router.
//! Never: waits for a caller that does not finish its headers; holds more connections than it can serve.
//! Thread: `http`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, oneshot};

use crate::Error;
use crate::admission::N_MAX_REQUESTS;

/// How long a caller may take for its headers, and be silent between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Most connections at once: each request may have one, and some may be idle.
const N_MAX_CONNECTIONS: usize = 2 * N_MAX_REQUESTS;
/// Most requests that are made ready at once, while all others wait for the engine.
const N_MAX_PREPARING: usize = 4;
/// Most bytes of a request's headers.
const N_MAX_HEADER_BYTES: usize = 32 << 10;
/// How long requests may take to end when the face is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A listener and the thread that serves it.
pub(crate) struct Face {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Face {
    pub(super) fn start(address: SocketAddr, router: Router) -> Result<Self, Error> {
        let io =
            |action| move |source| Error::Io { action, path: PathBuf::from(address.to_string()), source };
        let listener = std::net::TcpListener::bind(address).map_err(io("listen at"))?;
        listener.set_nonblocking(true).map_err(io("listen at"))?;
        let bound = listener.local_addr().map_err(io("listen at"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("http-engine")
            .max_blocking_threads(N_MAX_REQUESTS + N_MAX_PREPARING)
            .build()
            .map_err(io("start the runtime of"))?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                runtime.block_on(accept(listener, router, stopped));
                // Dropping the requests' tasks cancels what the blocking threads wait for.
                runtime.shutdown_timeout(CLOSE_TIMEOUT);
            })
            .map_err(io("start the thread of"))?;
        Ok(Self { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the address it listens at, with the port it was given.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Face {
    fn drop(&mut self) {
        // Dropping the sender says the same.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "no HTTP"),
    };
    let places = Arc::new(Semaphore::new(N_MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Beyond the bound a connection is closed at once; a queue would only hide it.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(N_MAX_HEADER_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}

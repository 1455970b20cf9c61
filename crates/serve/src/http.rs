//! The HTTP face: OpenAI's chat and completions and llama.cpp's `/infill`, on loopback, for who has the key.
//!
//! In: HTTP/1.1 requests. Out: JSON, or server-sent events.
//! Never: listens where another machine could call; answers a page of a browser; reads without a bound.
//! Thread: `http` runs the requests' tasks; what waits for the engine does so on its blocking threads.
//!
//! To add a route: a module with a handler that takes [`State`], and a line in [`router`].

mod about;
mod answer;
mod body;
mod chat;
mod completions;
mod envelope;
mod formats;
mod guard;
mod infill;
mod listener;
mod options;
mod refusal;
mod sse;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::{get, post};
use engine::{ChatError, ChatTemplate, Engine};

use crate::Error;
use crate::admission::{Admission, Presence};
use crate::metrics::{Gauges, Metrics};

/// Where to answer HTTP, and to whom.
#[derive(Clone)]
pub struct HttpOptions {
    // INVARIANT I-13: an address of loopback.
    address: SocketAddr,
    key: String,
}

impl HttpOptions {
    /// Returns the options for an address of loopback (port 0 takes a free one) and what callers must send as their
    /// bearer token.
    ///
    /// # Errors
    /// [`Error::NotLoopback`] and [`Error::NoKey`]: the user's to fix.
    pub fn new(address: SocketAddr, key: String) -> Result<Self, Error> {
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        let is_key = (1..=256).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key { Ok(Self { address, key }) } else { Err(Error::NoKey) }
    }
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) model_name: String,
    /// How the model is talked to, or why it cannot be.
    pub(crate) chat: Arc<Result<ChatTemplate, ChatError>>,
    pub(crate) admission: Admission,
    pub(crate) presence: Presence,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
}

impl State {
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            n_clients: self.presence.n_here(),
            n_running: self.admission.n_inside(),
            uptime: self.started.elapsed(),
        }
    }
}

/// The listening face; dropping it ends it and cancels what it works on.
pub(crate) use listener::Face;

/// Starts to answer.
///
/// # Errors
/// [`Error::Io`]: the address is in use, mostly.
pub(crate) fn start(options: HttpOptions, state: State) -> Result<Face, Error> {
    let guard = guard::Guard::new(options.key, state.presence.clone());
    Face::start(
        options.address,
        router(state).layer(axum::middleware::from_fn_with_state(guard, guard::check)),
    )
}

fn router(state: State) -> Router {
    Router::new()
        .route("/health", get(about::health))
        .route("/metrics", get(about::metrics))
        .route("/v1/models", get(about::models))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/chat/completions", post(chat::handle))
        .route("/infill", post(infill::handle))
        .fallback(refusal::no_such_route)
        .method_not_allowed_fallback(refusal::wrong_method)
        .with_state(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_only_with_a_key() {
        let check = |address: &str, key: &str| {
            let address = address.parse().expect("an address");
            HttpOptions::new(address, key.to_owned()).err().map(|error| error.to_string())
        };
        assert_eq!(check("127.0.0.1:0", "k"), None);
        assert_eq!(check("[::1]:8012", "k"), None);
        let refused = check("0.0.0.0:8012", "k").expect("others could call");
        assert_eq!(refused, "0.0.0.0:8012 is not a loopback address");
        assert!(check("192.168.1.2:8012", "k").is_some());
        for key in ["", "a key", "\n", "schlüssel"] {
            assert!(check("127.0.0.1:0", key).is_some(), "{key:?}");
        }
    }
}

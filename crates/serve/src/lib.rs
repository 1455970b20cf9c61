//! One engine for the whole machine: a process of its own, a Unix socket to it, and HTTP by option.
//!
//! In: a loaded [`engine::Engine`] to serve, or the file of a model that a server may run already.
//! Out: a server that leaves when nobody needs it; an `Engine` whose model the server runs.
//! A trace of requests that can be run again, where its user asks for one.
//! Never: opens a network socket unless asked for HTTP, and then only on loopback (I-13); logs source text (I-9).
//! On Windows as on Unix: what differs is marked by `cfg` in `address`, `claim`, `model` and `start`.
//! Thread: `accept` takes connections, `client` reads one's frames, `request` works on one request, `http` is the
//! HTTP face's runtime; at a client's end `link` reads the server's frames; `trace` writes a trace.
//!
//! ```no_run
//! use serve::{Address, ModelFile, Starter, connect_or_start};
//!
//! let model = ModelFile::at("model.gguf".as_ref(), "a model")?;
//! let address = Address::of(&model, std::env::var_os("XDG_RUNTIME_DIR").as_deref(), "data".as_ref())?;
//! let args = ["serve", "--detached", "--model", "model.gguf"].map(Into::into).to_vec();
//! let engine = connect_or_start(Starter { model, address, program: "agent".into(), args })?;
//! println!("{} tokens fit", engine.n_ctx());
//! # Ok::<(), serve::Error>(())
//! ```

#![forbid(unsafe_code)]

mod address;
mod admission;
mod claim;
mod client;
mod connection;
mod error;
mod frame;
mod http;
mod log;
mod metrics;
mod model;
mod server;
mod socket;
mod start;
mod trace;
mod wire;

pub use address::Address;
pub use claim::Claim;
pub use error::Error;
pub use http::HttpOptions;
pub use log::BoundedLog;
pub use model::ModelFile;
pub use server::{ServeOptions, StopFlag, serve};
pub use start::{
    Starter, ask_status, ask_to_stop, become_detached, connect_or_start, program_of_this_process,
};
pub use trace::{Trace, TraceEnd, TraceHeader, TraceWriter, TracedOutcome, TracedRequest};

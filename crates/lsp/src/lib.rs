//! JSON-RPC in, JSON-RPC out: the language server, and the only crate that knows LSP (I-1).
//!
//! In: an editor's messages. Out: one response for each of its requests (I-5), notifications, logs.
//! Never: prints to stdout (I-12), opens a socket (I-13), logs source text above TRACE (I-9).
//! Thread: the caller's runs the transport; `main` owns the documents; `completion` asks the engine; `context` looks at
//! other files.
//! Source: LSP 3.17, and `textDocument/inlineCompletion` of 3.18.
//!
//! A message's path is a straight line: [`transport`] → [`service`] → [`main_loop`] → [`ghost`] → [`completion`] and
//! back. The
//! point of order is `service`: it is called once for each message, in order of arrival, and enqueues at once.

#![forbid(unsafe_code)]

mod completion;
mod context;
mod documents;
mod editor;
mod error;
mod fate;
mod folders;
mod from_proto;
mod ghost;
mod kept;
mod main_loop;
mod memory;
mod permit;
mod progress;
mod server;
mod service;
mod settings;
mod status;
mod to_proto;
mod transport;

pub use completion::{LoadModel, LoadPhase, LoadStep};
pub use error::Error;
pub use memory::{Counts, Memory, Still};
pub use server::{ServerOptions, SessionEnd, serve, serve_on};
pub use settings::Settings;

#[cfg(test)]
mod tests;

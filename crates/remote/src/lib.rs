//! A model behind somebody's HTTP: the client of any endpoint that speaks OpenAI's API.
//!
//! In: an [`Endpoint`], messages. Out: the answer, as it grows, or an [`Error`] with a hint.
//! Never: follows a redirect, sends the key or a text anywhere but to the endpoint; listens.
//! Thread: calls block; each exchange has a thread of its own, which ends when the call has ended.
//! Source: OpenAI's API reference, and what llama.cpp's server, vLLM and ollama make of it.

#![forbid(unsafe_code)]

mod answer;
mod client;
mod endpoint;
mod error;
mod events;
mod exchange;
mod retry;
mod said;

pub use answer::{Answer, Stop, Usage};
pub use client::{ChatRequest, Client, CompletionRequest, InfillRequest};
pub use endpoint::{Endpoint, Key};
pub use error::Error;
pub use exchange::Limits;

//! The real binary, from outside.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod broken_models;
mod complete;
mod editors;
mod fix;
mod killed;
mod remote;
mod serve;
mod trace;
mod why;

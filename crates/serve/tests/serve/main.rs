//! The server and its clients on the real default model: `TANDEM_TEST_MODEL` is its path (`cargo xtask model`), and
//! `TANDEM_AGENT` the binary that is started where a test needs a process of its own.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![cfg(unix)]

mod chat;
mod fixture;
mod fuzz;
mod http;
mod lifecycle;
mod sharing;

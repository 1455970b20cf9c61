//! The client against servers that misbehave, one way each.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod faults;
mod script;

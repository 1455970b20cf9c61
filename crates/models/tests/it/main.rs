//! The crate from outside: the user's real pip and hf-hub, against a small server on loopback.

mod bench;
mod hub;
mod local;
mod pypi;
mod server;

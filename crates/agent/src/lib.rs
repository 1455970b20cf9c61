//! A task becomes a proposal. Knows no LSP.
//!
//! In: a repository, a test command, the models that may be asked. Out: a proposal that waits for a human, or why there is none.
//! Never: writes the user's tree, index or HEAD, but in [`accept`], from a human's decisions (I-4).
//! Thread: the caller's.

#![forbid(unsafe_code)]

pub mod accept;
pub mod author;
pub mod candidate;
pub mod evidence;
pub mod function;
pub mod locate;
pub mod mutate;
pub mod proposal;
pub mod repo;
pub mod run;
pub mod sandbox;
pub mod search;

mod confined;
mod error;
#[cfg(test)]
mod fixture;

pub use error::{ConflictAt, Error};

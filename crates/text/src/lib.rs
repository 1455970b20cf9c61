//! Text as bytes, positions, edits, hunks and patches: the leaf every other crate stands on.
//!
//! In: UTF-8 text, LSP positions, patch bytes.
//! Out: text again, byte for byte, or an [`Error`] or [`Conflict`] and nothing.
//! Never: I/O, global state, guessing where a change belongs.
//! Thread: any; a [`Snapshot`] may be sent to and shared between threads.
#![forbid(unsafe_code)]

mod document;
mod edit;
mod error;
mod hunk;
mod patch;
mod position;
mod rebase;

pub use document::{ContentChange, Document, Snapshot};
pub use edit::{Edit, apply};
pub use error::Error;
pub use hunk::{Hunk, apply_hunks, diff, hunk_edits};
pub use patch::{ContextLine, FilePatch, parse, to_unified};
pub use position::{ByteOffset, Position, PositionEncoding};
pub use rebase::{Conflict, ConflictReason, rebase};

//! The one thing that travels against the stream.
//!
//! In: a cancel from any thread. Out: a flag read at every layer, decode step and prefill chunk.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A flag that whoever asked may raise, once, to say that the answer is no longer wanted.
///
/// Clones share the flag. A cancelled request still gets its one response (I-5).
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<OnceLock<Instant>>);

impl CancelToken {
    /// Returns a token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag; there is no way back.
    pub fn cancel(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// Returns whether the flag is up.
    pub fn is_cancelled(&self) -> bool {
        self.0.get().is_some()
    }

    /// Returns when the flag was raised, if it was.
    pub fn cancelled_at(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

//! The one thing that travels against the stream.
//!
//! In: a cancel from any thread. Out: a flag read at every layer, decode step and prefill chunk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that whoever asked may raise, once, to say that the answer is no longer wanted.
///
/// Clones share the flag. A cancelled request still gets its one response (I-5).
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Returns a token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag; there is no way back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns whether the flag is up.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

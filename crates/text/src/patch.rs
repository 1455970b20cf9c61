//! Hunks as text: git's unified patches, written and read.
//!
//! In: hunks and their base; or the bytes of any patch.
//! Out: a patch that `git apply` takes; or each file's hunks.
//! Never: trusts a count or a path a patch claims.
//! Source: git's `diff-generate-patch` page; `apply.c` where the page is silent.

mod parse;
mod write;

pub use parse::parse;
pub use write::to_unified;

use crate::hunk::lines;
use crate::{Error, Hunk, apply_hunks};

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch {
    /// The file's path before, relative to the repository; `None` if the patch makes the file.
    pub old_path: Option<String>,
    /// The file's path after; `None` if the patch deletes the file.
    pub new_path: Option<String>,
    /// The file's mode after, such as `0o100755`, if the patch sets it.
    pub new_mode: Option<u32>,
    /// The changes, without context.
    pub hunks: Vec<Hunk>,
    /// The lines around them that the patch expects.
    pub context: Vec<ContextLine>,
}

/// A line that a patch expects and leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextLine {
    /// Its number in the base, 0-based.
    pub base_line: usize,
    /// Its text, with its line end.
    pub text: String,
}

impl FilePatch {
    /// Returns `base` with this file's hunks applied, where hunks and context are exactly `base`'s.
    ///
    /// # Errors
    ///
    /// [`Error::ContextMismatch`], and those of [`apply_hunks`]: the patch is not of `base`.
    pub fn apply(&self, base: &str) -> Result<String, Error> {
        let base_lines = lines(base);
        for context in &self.context {
            if base_lines.get(context.base_line) != Some(&context.text.as_str()) {
                let base_line = context.base_line;
                return Err(Error::ContextMismatch { base_line });
            }
        }
        apply_hunks(base, &self.hunks)
    }
}

#[cfg(test)]
mod tests;

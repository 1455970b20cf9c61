//! Chosen hunks onto the file as it is now.
//!
//! In: a file's change, the hunks a human accepts, its text now. Out: the new text, or where it does not fit.
//! Never: writes.

use std::collections::BTreeSet;

use text::{Conflict, Hunk};

use crate::error::ConflictAt;
use crate::proposal::{Decision, FileChange};

/// Returns the file's text with the chosen hunks; `first_number` is the number of its first hunk.
pub(super) fn rebased(
    file: &FileChange,
    first_number: usize,
    chosen: &BTreeSet<usize>,
    current: &str,
) -> Result<String, ConflictAt> {
    let numbered = || file.hunks.iter().zip(first_number..);
    let wanted: Vec<(&Hunk, usize)> = numbered()
        .filter(|(_, number)| chosen.contains(number))
        .map(|(hunk, number)| (&hunk.hunk, number))
        .collect();
    let accepted = accepted(file);
    // Hunks accepted before are no change of the user's: they belong to the base by now, unless undone.
    if let Some(text) = onto_accepted(file, &accepted, &wanted, current) {
        return Ok(text);
    }
    let hunks: Vec<&Hunk> = wanted.iter().map(|(hunk, _)| *hunk).collect();
    text::rebase(&file.base_text, current, &hunks)
        .map_err(|conflict| located(file, &wanted, current, &conflict))
}

/// Returns whether the file's text now is the base, or what was accepted before made of it.
pub(super) fn is_untouched(file: &FileChange, current: &str) -> bool {
    current == file.base_text || text::apply_hunks(&file.base_text, accepted(file)).as_deref() == Ok(current)
}

fn accepted(file: &FileChange) -> Vec<&Hunk> {
    let hunks = file.hunks.iter();
    hunks.filter(|hunk| hunk.decision == Some(Decision::Accept)).map(|hunk| &hunk.hunk).collect()
}

fn onto_accepted(
    file: &FileChange,
    accepted: &[&Hunk],
    wanted: &[(&Hunk, usize)],
    current: &str,
) -> Option<String> {
    if accepted.is_empty() {
        return None;
    }
    let base = text::apply_hunks(&file.base_text, accepted.iter().copied()).ok()?;
    let moved: Vec<Hunk> = wanted
        .iter()
        .map(|(hunk, _)| Hunk {
            base_start: line_after(accepted.iter().copied(), hunk.base_start),
            ..(*hunk).clone()
        })
        .collect();
    text::rebase(&base, current, &moved.iter().collect::<Vec<_>>()).ok()
}

fn located(file: &FileChange, wanted: &[(&Hunk, usize)], current: &str, conflict: &Conflict) -> ConflictAt {
    let changes = text::diff(&file.base_text, current);
    let last_line = current.lines().count().saturating_sub(1);
    ConflictAt {
        path: file.path.clone(),
        hunk: wanted.get(conflict.hunk_idx).map_or(0, |(_, number)| *number),
        line: Some(line_after(&changes, conflict.base_line).min(last_line)),
        why: conflict.reason.to_string(),
    }
}

/// Returns where a line lies once `hunks` are applied; inside one, the line where it starts.
fn line_after<'a>(hunks: impl IntoIterator<Item = &'a Hunk>, line: usize) -> usize {
    let (mut n_added, mut n_removed) = (0, 0);
    for hunk in hunks {
        if hunk.base_end() <= line {
            n_added += hunk.new_lines.len();
            n_removed += hunk.base_lines.len();
        } else if hunk.base_start < line {
            return hunk.base_start + n_added - n_removed;
        }
    }
    line + n_added - n_removed
}

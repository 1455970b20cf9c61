//! The smallest groups of edits a human decides on.
//!
//! In: two texts, or a text and hunks of it.
//! Out: hunks, or the text they make.
//! Never: applies a hunk to lines that are not exactly its base lines.
//!
//! Lines here end at `\n` alone, as in git: a lone `\r` is part of its line, so the line numbers
//! of a file that has one differ from LSP's. [`hunk_edits`] leads from hunks to byte offsets.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::{ByteOffset, Edit, Error, apply};

/// One replacement of whole lines; all lines keep their line ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hunk {
    /// The first base line replaced, 0-based; with no base lines, the line to insert ahead of.
    pub base_start: usize,
    /// The base lines replaced.
    pub base_lines: Vec<String>,
    /// The lines that replace them.
    pub new_lines: Vec<String>,
}

impl Hunk {
    /// Returns the line after the last base line replaced, 0-based.
    #[must_use]
    pub fn base_end(&self) -> usize {
        self.base_start.saturating_add(self.base_lines.len())
    }
}

/// Returns the hunks that make `new` of `base`, in order; at least one equal line lies between two.
///
/// ```
/// let hunks = text::diff("a\nb\nc\n", "a\nB\nc\n");
/// assert_eq!(hunks[0].base_start, 1);
/// assert_eq!(text::apply_hunks("a\nb\nc\n", &hunks), Ok("a\nB\nc\n".to_owned()));
/// ```
#[must_use]
pub fn diff(base: &str, new: &str) -> Vec<Hunk> {
    let (base_lines, new_lines) = (lines(base), lines(new));
    let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    spans(&base_lines, &new_lines)
        .into_iter()
        .map(|span| Hunk {
            base_start: span.base_start,
            base_lines: owned(&base_lines[span.base_start..span.base_end]),
            new_lines: owned(&new_lines[span.new_start..span.new_end]),
        })
        .collect()
}

/// Returns `base` with `hunks` applied; they may come in any order.
///
/// # Errors
///
/// [`Error::HunkMismatch`] if base lines differ, [`Error::HunksOverlap`], and
/// [`Error::HunkLines`] if a hunk would join lines it does not name: the hunks are not of `base`,
/// or not made by [`diff`].
pub fn apply_hunks<'a>(base: &str, hunks: impl IntoIterator<Item = &'a Hunk>) -> Result<String, Error> {
    apply(base, &hunk_edits(base, hunks)?)
}

/// Returns `hunks` as edits of `base`, in its order.
///
/// # Errors
///
/// As [`apply_hunks`].
pub fn hunk_edits<'a>(base: &str, hunks: impl IntoIterator<Item = &'a Hunk>) -> Result<Vec<Edit>, Error> {
    let base_lines = lines(base);
    let mut line_starts = vec![0];
    line_starts.extend(base_lines.iter().scan(0, |offset, line| {
        *offset += line.len();
        Some(*offset)
    }));
    let mut ordered: Vec<(usize, &Hunk)> = hunks.into_iter().enumerate().collect();
    // An insertion ahead of a line comes before the replacement of that line.
    ordered.sort_by_key(|(_, hunk)| (hunk.base_start, hunk.base_lines.len()));

    let mut edits = Vec::with_capacity(ordered.len());
    for (place, &(hunk_idx, hunk)) in ordered.iter().enumerate() {
        check_base(&base_lines, hunk_idx, hunk)?;
        let ahead = place.checked_sub(1).map(|place| ordered[place].1);
        let is_last = place + 1 == ordered.len();
        check_order(ahead, hunk_idx, hunk)?;
        check_line_ends(&base_lines, ahead, hunk_idx, hunk, is_last)?;
        let (start, end) = (line_starts[hunk.base_start], line_starts[hunk.base_end()]);
        edits.push(Edit { range: ByteOffset(start)..ByteOffset(end), new_text: hunk.new_lines.concat() });
    }
    Ok(edits)
}

fn check_base(base_lines: &[&str], hunk_idx: usize, hunk: &Hunk) -> Result<(), Error> {
    let found = base_lines.get(hunk.base_start..).unwrap_or(&[]);
    let n_equal = (found.iter().zip(&hunk.base_lines)).take_while(|(found, line)| *found == line).count();
    if n_equal < hunk.base_lines.len() || hunk.base_start > base_lines.len() {
        let base_line = hunk.base_start.saturating_add(n_equal);
        return Err(Error::HunkMismatch { hunk_idx, base_line });
    }
    Ok(())
}

fn check_order(ahead: Option<&Hunk>, hunk_idx: usize, hunk: &Hunk) -> Result<(), Error> {
    let Some(ahead) = ahead else { return Ok(()) };
    let both_insert_here =
        ahead.base_end() == hunk.base_start && ahead.base_lines.is_empty() && hunk.base_lines.is_empty();
    if ahead.base_end() > hunk.base_start || both_insert_here {
        return Err(Error::HunksOverlap { hunk_idx });
    }
    Ok(())
}

/// Refuses a hunk after which a line without a line end would be followed by another.
fn check_line_ends(
    base_lines: &[&str],
    ahead: Option<&Hunk>,
    hunk_idx: usize,
    hunk: &Hunk,
    is_last: bool,
) -> Result<(), Error> {
    let n_lines = base_lines.len();
    let are_lines = (hunk.new_lines.iter()).all(|line| lines(line).len() == 1);
    let n_open = (hunk.new_lines.iter()).filter(|line| !line.ends_with('\n')).count();
    let ends_open = (hunk.new_lines.last()).is_some_and(|line| !line.ends_with('\n'));
    let may_end_open = is_last && hunk.base_end() == n_lines;
    let base_ends_open = base_lines.last().is_some_and(|line| !line.ends_with('\n'));
    let follows_open = base_ends_open
        && hunk.base_start == n_lines
        && !hunk.new_lines.is_empty()
        && ahead.is_none_or(|ahead| ahead.base_end() < n_lines);
    let open_is_at_end = n_open == 0 || (n_open == 1 && ends_open && may_end_open);
    if !are_lines || !open_is_at_end || follows_open {
        return Err(Error::HunkLines { hunk_idx });
    }
    Ok(())
}

/// Returns the lines of `text` with their line ends.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Base lines and the new lines that stand for them; both sides are half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub base_start: usize,
    pub base_end: usize,
    pub new_start: usize,
    pub new_end: usize,
}

/// Returns what differs between two lists of lines, in order, touching differences merged.
pub(crate) fn spans(base_lines: &[&str], new_lines: &[&str]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, base_lines, new_lines) {
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        let (base, new) = (op.old_range(), op.new_range());
        match spans.last_mut() {
            Some(last) if last.base_end == base.start && last.new_end == new.start => {
                last.base_end = base.end;
                last.new_end = new.end;
            }
            _ => spans.push(Span {
                base_start: base.start,
                base_end: base.end,
                new_start: new.start,
                new_end: new.end,
            }),
        }
    }
    spans
}

#[cfg(test)]
pub(crate) mod tests;

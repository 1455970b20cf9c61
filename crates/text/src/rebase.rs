//! Hunks of a base move onto what the file has become since.
//!
//! In: the base, the current text, the hunks a human accepted.
//! Out: the merged text, or the first [`Conflict`] and nothing.
//! Never: searches for a hunk's lines; they go where the user's own changes moved them.
//!
//! This is a three-way merge by lines, stricter than git's: where the user's change may be read in
//! more than one way (one of two equal lines went) and a reading touches the hunk, it is a conflict.

use crate::hunk::{Span, lines, spans};
use crate::{Error, Hunk, apply_hunks};

/// A hunk that cannot be put onto the current text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hunk {hunk_idx} (0-based) conflicts at base line {}: {reason}", base_line.saturating_add(1))]
pub struct Conflict {
    /// Which of the hunks, in the order given.
    pub hunk_idx: usize,
    /// The first base line in dispute, 0-based.
    pub base_line: usize,
    /// Why.
    #[source]
    pub reason: ConflictReason,
}

/// Why a hunk cannot be put onto the current text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConflictReason {
    /// The user changed the hunk's lines or the lines next to them.
    #[error("these lines or their neighbours have changed since")]
    Changed,
    /// The user's change may be read in several ways, and one of them touches the hunk.
    #[error("a change since may be read in several ways and one touches these lines")]
    Ambiguous,
    /// The hunks do not fit the base or each other.
    #[error(transparent)]
    Invalid(#[from] Error),
}

/// Returns `current` with `hunks`, which were made from `base`, put onto it.
///
/// A hunk moves with the lines around it; one that the user has made already changes nothing.
///
/// ```
/// let hunks = text::diff("a\nb\nc\n", "a\nb\nC\n");
/// let merged = text::rebase("a\nb\nc\n", "0\na\nb\nc\n", &[&hunks[0]]);
/// assert_eq!(merged, Ok("0\na\nb\nC\n".to_owned()));
/// ```
///
/// # Errors
///
/// [`Conflict`] if the user changed a hunk's lines or the lines next to it, which a human must
/// sort out, or if the hunks are not of `base`, which is the caller's to fix.
pub fn rebase(base: &str, current: &str, hunks: &[&Hunk]) -> Result<String, Conflict> {
    let on_base = apply_hunks(base, hunks.iter().copied()).map_err(|error| invalid(hunks, error))?;
    if base == current || on_base == current {
        return Ok(on_base);
    }
    let (base_lines, current_lines) = (lines(base), lines(current));
    let changes = Changes::between(&base_lines, &current_lines);
    let (mut moved, mut chosen, mut moved_idx) = (Vec::new(), Vec::new(), Vec::new());
    for (hunk_idx, hunk) in hunks.iter().enumerate() {
        if changes.contain(hunk) {
            continue;
        }
        let base_start =
            (changes.place(hunk)).map_err(|(base_line, reason)| Conflict { hunk_idx, base_line, reason })?;
        moved.push(Hunk { base_start, ..(*hunk).clone() });
        chosen.push(*hunk);
        moved_idx.push(hunk_idx);
    }
    apply_hunks(current, &moved).map_err(|error| {
        let mut conflict = invalid(&chosen, error);
        conflict.hunk_idx = moved_idx.get(conflict.hunk_idx).copied().unwrap_or(0);
        conflict
    })
}

fn invalid(hunks: &[&Hunk], error: Error) -> Conflict {
    let hunk_idx = hunk_idx(&error);
    Conflict {
        hunk_idx,
        base_line: hunks.get(hunk_idx).map_or(0, |hunk| hunk.base_start),
        reason: error.into(),
    }
}

fn hunk_idx(error: &Error) -> usize {
    match *error {
        Error::HunkMismatch { hunk_idx, .. }
        | Error::HunksOverlap { hunk_idx }
        | Error::HunkLines { hunk_idx } => hunk_idx,
        _ => 0,
    }
}

/// What the user changed.
struct Changes<'a> {
    base_lines: &'a [&'a str],
    /// The changes, in one reading.
    spans: Vec<Span>,
    /// The same as hunks, settled so that equal changes are equal hunks.
    settled: Vec<Hunk>,
    /// The changes, in the reading from the end of the file.
    backward: Vec<Span>,
    /// Start and end of the base lines that another reading may say were changed.
    doubtful: Vec<(usize, usize)>,
}

impl<'a> Changes<'a> {
    fn between(base_lines: &'a [&'a str], current_lines: &[&str]) -> Self {
        let spans = spans(base_lines, current_lines);
        let backward = spans_backward(base_lines, current_lines);
        let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        let settled = (spans.iter())
            .map(|span| Hunk {
                base_start: span.base_start,
                base_lines: owned(&base_lines[span.base_start..span.base_end]),
                new_lines: owned(&current_lines[span.new_start..span.new_end]),
            })
            .map(|hunk| settle(base_lines, hunk))
            .collect();
        let doubtful = (spans.iter())
            .map(|span| slide_range(base_lines, current_lines, span))
            .chain(backward.iter().map(|span| (span.base_start, span.base_end)))
            .collect();
        Self { base_lines, spans, settled, backward, doubtful }
    }

    /// Returns whether the user has made `hunk`'s change already.
    fn contain(&self, hunk: &Hunk) -> bool {
        let is_made = |hunk: Hunk| self.settled.contains(&settle(self.base_lines, hunk));
        if is_made(hunk.clone()) {
            return true;
        }
        // A hunk not made by our diff may hold several changes with equal lines between them.
        let parts = crate::diff(&hunk.base_lines.concat(), &hunk.new_lines.concat());
        parts.into_iter().all(|mut part| {
            part.base_start += hunk.base_start;
            is_made(part)
        })
    }

    /// Returns the current line at which `hunk` starts, if nothing touches it.
    fn place(&self, hunk: &Hunk) -> Result<usize, (usize, ConflictReason)> {
        let (start, end) = (hunk.base_start, hunk.base_end());
        // Touching counts: a change that ends where the hunk starts has changed its neighbour.
        let touches = |from: usize, to: usize| from <= end && start <= to;
        for span in &self.spans {
            if touches(span.base_start, span.base_end) {
                return Err((start.max(span.base_start), ConflictReason::Changed));
            }
        }
        for &(from, to) in &self.doubtful {
            if touches(from, to) {
                return Err((start.max(from), ConflictReason::Ambiguous));
            }
        }
        let place = moved(&self.spans, start);
        if place != moved(&self.backward, start) {
            return Err((start, ConflictReason::Ambiguous));
        }
        Ok(place)
    }
}

/// Returns where `base_line`, which no span touches, lies in the other text.
fn moved(spans: &[Span], base_line: usize) -> usize {
    match spans.iter().rfind(|span| span.base_end <= base_line) {
        Some(span) => span.new_end + (base_line - span.base_end),
        None => base_line,
    }
}

/// Returns what differs, read from the end: where several readings are as good, the last one.
fn spans_backward(base_lines: &[&str], current_lines: &[&str]) -> Vec<Span> {
    let base: Vec<&str> = base_lines.iter().rev().copied().collect();
    let current: Vec<&str> = current_lines.iter().rev().copied().collect();
    let mut spans: Vec<Span> = spans(&base, &current)
        .into_iter()
        .map(|span| Span {
            base_start: base.len() - span.base_end,
            base_end: base.len() - span.base_start,
            new_start: current.len() - span.new_end,
            new_end: current.len() - span.new_start,
        })
        .collect();
    spans.reverse();
    spans
}

/// Returns the base lines that `span` may be moved over with the same text as the result.
fn slide_range(base_lines: &[&str], current_lines: &[&str], span: &Span) -> (usize, usize) {
    let (up, down) = slide(base_lines, span.base_start, span.base_end);
    let (new_up, new_down) = slide(current_lines, span.new_start, span.new_end);
    let (up, down) = (up.max(new_up), down.max(new_down));
    (span.base_start.saturating_sub(up), span.base_end.saturating_add(down).min(base_lines.len()))
}

/// Returns how far up and down lines `start..end` may move if taken out of, or put into, `lines`.
fn slide(lines: &[&str], start: usize, end: usize) -> (usize, usize) {
    if start == end {
        return (0, 0);
    }
    let up = (lines[..start].iter().rev())
        .zip(lines[..end].iter().rev())
        .take_while(|(left, right)| left == right)
        .count();
    let down = (lines[start..].iter()).zip(&lines[end..]).take_while(|(left, right)| left == right).count();
    (up, down)
}

/// Returns `hunk` without equal lines at its ends, moved down as far as its result stays the same.
fn settle(base_lines: &[&str], mut hunk: Hunk) -> Hunk {
    let is_equal = |(left, right): &(&String, &String)| left == right;
    let n_head = (hunk.base_lines.iter().zip(&hunk.new_lines)).take_while(is_equal).count();
    hunk.base_lines.drain(..n_head);
    hunk.new_lines.drain(..n_head);
    hunk.base_start += n_head;
    let n_tail = (hunk.base_lines.iter().rev().zip(hunk.new_lines.iter().rev())).take_while(is_equal).count();
    hunk.base_lines.truncate(hunk.base_lines.len() - n_tail);
    hunk.new_lines.truncate(hunk.new_lines.len() - n_tail);
    let n_base = hunk.base_lines.len();

    let (sliding, next) = match (hunk.base_lines.is_empty(), hunk.new_lines.is_empty()) {
        (true, false) => (&mut hunk.new_lines, hunk.base_start),
        (false, true) => (&mut hunk.base_lines, hunk.base_start + n_base),
        _ => return hunk,
    };
    let n_down = (base_lines.iter().skip(next))
        .zip(sliding.iter().cycle())
        .take_while(|(line, sliding)| *line == sliding)
        .count();
    let n_turned = n_down % sliding.len();
    sliding.rotate_left(n_turned);
    hunk.base_start += n_down;
    hunk
}

#[cfg(test)]
mod tests;

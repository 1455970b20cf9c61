//! A text as tree-sitter reads it: in pieces, with one stretch of it replaced.
//!
//! In: a snapshot and a replacement that need not have been made. Out: pieces, and offsets as tree-sitter wants them.
//! Never: copies the text.

use std::ops::Range;

use text::{ByteOffset, Snapshot};
use tree_sitter::{InputEdit, Point};

/// A text with one stretch replaced.
#[derive(Clone, Debug)]
pub(crate) struct Replaced<'a> {
    snapshot: &'a Snapshot,
    bytes: Range<usize>,
    insert: &'a str,
}

impl<'a> Replaced<'a> {
    /// Returns the text with `bytes` replaced by `insert`, the bounds moved back to the text or a character's start.
    pub(crate) fn new(snapshot: &'a Snapshot, bytes: &Range<ByteOffset>, insert: &'a str) -> Self {
        let end = char_start(snapshot, bytes.end.0);
        let start = char_start(snapshot, bytes.start.0).min(end);
        Self { snapshot, bytes: start..end, insert }
    }

    /// Returns the text as it is.
    pub(crate) fn whole(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, bytes: 0..0, insert: "" }
    }

    pub(crate) fn len(&self) -> usize {
        self.snapshot.len_bytes() - self.bytes.len() + self.insert.len()
    }

    /// Returns the bytes that the inserted text takes.
    pub(crate) fn inserted(&self) -> Range<usize> {
        self.bytes.start..self.bytes.start + self.insert.len()
    }

    /// Returns the bytes of the snapshot that are replaced.
    pub(crate) fn replaced(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// Returns the text from `at` to the end of its piece; empty only at the text's end.
    pub(crate) fn piece_from(&self, at: usize) -> &'a [u8] {
        let inserted = self.inserted();
        if at < inserted.start {
            let piece = piece_from(self.snapshot, at);
            &piece[..piece.len().min(inserted.start - at)]
        } else if at < inserted.end {
            &self.insert.as_bytes()[at - inserted.start..]
        } else {
            piece_from(self.snapshot, at - inserted.end + self.bytes.end)
        }
    }

    /// Returns the text from the start of its piece to `at`; empty only at the text's start.
    fn piece_to(&self, at: usize) -> &'a [u8] {
        let inserted = self.inserted();
        if at <= inserted.start {
            piece_to(self.snapshot, at)
        } else if at <= inserted.end {
            &self.insert.as_bytes()[..at - inserted.start]
        } else {
            let piece = piece_to(self.snapshot, at - inserted.end + self.bytes.end);
            &piece[piece.len().saturating_sub(at - inserted.end)..]
        }
    }

    /// Returns the text in `range` as pieces.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = &'a [u8]> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let piece = if at < range.end { self.piece_from(at) } else { &[] };
            let piece = &piece[..piece.len().min(range.end.saturating_sub(at))];
            at += piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// Returns all bytes.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.pieces(0..self.len()).flatten().copied()
    }

    /// Returns the text in `range`, whose bounds are those of tokens.
    pub(crate) fn text(&self, range: Range<usize>) -> String {
        String::from_utf8_lossy(&self.pieces(range).collect::<Vec<_>>().concat()).into_owned()
    }

    /// Returns where the line that holds `at` starts; lines end at `\n`.
    pub(crate) fn line_start(&self, mut at: usize) -> usize {
        loop {
            let piece = self.piece_to(at);
            if let Some(newline) = piece.iter().rposition(|byte| *byte == b'\n') {
                return at - piece.len() + newline + 1;
            }
            at -= piece.len();
            if piece.is_empty() {
                return at;
            }
        }
    }

    /// Returns where the line that holds `at` ends, before its `\n`.
    pub(crate) fn line_end(&self, mut at: usize) -> usize {
        loop {
            let piece = self.piece_from(at);
            if let Some(newline) = piece.iter().position(|byte| *byte == b'\n') {
                return at + newline;
            }
            at += piece.len();
            if piece.is_empty() {
                return at;
            }
        }
    }

    /// Returns the replacement for a tree of the snapshot.
    pub(crate) fn edit(&self) -> InputEdit {
        let whole = Self::whole(self.snapshot);
        let start_position = whole.advanced(Point::new(0, 0), 0..self.bytes.start);
        InputEdit {
            start_byte: self.bytes.start,
            old_end_byte: self.bytes.end,
            new_end_byte: self.inserted().end,
            start_position,
            old_end_position: whole.advanced(start_position, self.bytes.clone()),
            new_end_position: self.advanced(start_position, self.inserted()),
        }
    }

    /// Returns the point at the end of `range`, which begins at `point`.
    fn advanced(&self, mut point: Point, range: Range<usize>) -> Point {
        for piece in self.pieces(range) {
            point.row += piece.iter().filter(|byte| **byte == b'\n').count();
            match piece.iter().rposition(|byte| *byte == b'\n') {
                Some(newline) => point.column = piece.len() - newline - 1,
                None => point.column += piece.len(),
            }
        }
        point
    }
}

/// Returns the one stretch in which `new` differs from `old`, as bytes of each; `None` if they are equal.
pub(crate) fn difference(old: &Snapshot, new: &Snapshot) -> Option<(Range<usize>, Range<usize>)> {
    let (n_old, n_new) = (old.len_bytes(), new.len_bytes());
    let n_common = n_old.min(n_new);
    let n_head = n_equal(
        |n| (piece_from(old, n), piece_from(new, n)),
        n_common,
        |a, b| a.iter().zip(b).take_while(|(a, b)| a == b).count(),
        |piece, n| &piece[..n],
    );
    if n_head == n_old && n_head == n_new {
        return None;
    }
    let start = char_start(old, n_head).min(char_start(new, n_head));
    let mut n_tail = n_equal(
        |n| (piece_to(old, n_old - n), piece_to(new, n_new - n)),
        n_common - start,
        |a, b| a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count(),
        |piece, n| &piece[piece.len() - n..],
    );
    // Equal bytes may begin inside of a character.
    while char_start(old, n_old - n_tail) != n_old - n_tail
        || char_start(new, n_new - n_tail) != n_new - n_tail
    {
        n_tail -= 1;
    }
    Some((start..n_old - n_tail, start..n_new - n_tail))
}

/// Returns how many bytes are equal, `n_most` at most: whole pieces while those are, then byte by byte.
fn n_equal<'a>(
    pieces: impl Fn(usize) -> (&'a [u8], &'a [u8]),
    n_most: usize,
    count: impl Fn(&[u8], &[u8]) -> usize,
    cut: impl Fn(&'a [u8], usize) -> &'a [u8],
) -> usize {
    let mut n_done = 0;
    while n_done < n_most {
        let (a, b) = pieces(n_done);
        let n = a.len().min(b.len()).min(n_most - n_done);
        let (a, b) = (cut(a, n), cut(b, n));
        if a != b {
            return n_done + count(a, b);
        }
        n_done += n;
    }
    n_done
}

/// Returns the text from `at`, inside a character or not, to the end of its piece.
fn piece_from(snapshot: &Snapshot, at: usize) -> &[u8] {
    let (piece, start) = snapshot.piece(ByteOffset(at));
    &piece.as_bytes()[(at - start.0).min(piece.len())..]
}

/// Returns the text from the start of its piece to `at`, inside a character or not.
fn piece_to(snapshot: &Snapshot, at: usize) -> &[u8] {
    let Some(last) = at.checked_sub(1) else { return &[] };
    let (piece, start) = snapshot.piece(ByteOffset(last));
    &piece.as_bytes()[..at - start.0]
}

/// Returns the start of the character that holds `at`; past the end that is the end.
fn char_start(snapshot: &Snapshot, at: usize) -> usize {
    let mut at = at.min(snapshot.len_bytes());
    let (piece, start) = snapshot.piece(ByteOffset(at));
    while !piece.is_char_boundary(at - start.0) {
        at -= 1;
    }
    at
}

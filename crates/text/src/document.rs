//! An open document: the editor's text, its version, and what may change it.
//!
//! In: LSP's content changes, in order.
//! Out: [`Snapshot`]s to read from.
//! Never: applies half of a change; on any error the document is as it was.
//! Thread: the owner changes a document; its snapshots go anywhere.
//! Source: LSP 3.17, "Text Documents" and "DidChangeTextDocument Notification".

use std::ops::Range;

use ropey::Rope;

use crate::{ByteOffset, Error, Position, PositionEncoding};

/// The text of one open file at its latest version.
#[derive(Debug, Clone)]
pub struct Document {
    snapshot: Snapshot,
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentChange {
    /// What to replace; `None` is the whole document.
    pub range: Option<(Position, Position)>,
    /// The text to put there.
    pub text: String,
}

/// An immutable view of a document at one version; cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    rope: Rope,
    version: i32,
}

impl Document {
    /// Returns a document that holds `text` at `version`.
    #[must_use]
    pub fn open(text: &str, version: i32) -> Self {
        let rope = Rope::from_str(text);
        Self { snapshot: Snapshot { rope, version } }
    }

    /// Returns the version the last change made.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.snapshot.version
    }

    /// Returns the text as it is now, in constant time.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Applies `edits` one after the other, each to what the one ahead of it left, and sets `version`.
    ///
    /// A character past its line's end means the line's end; one inside a character means its start; the line after
    /// the last means the text's end, as for [`Snapshot::offset`].
    ///
    /// ```
    /// use text::{ContentChange, Document, Position, PositionEncoding};
    /// let mut document = Document::open("a😀b\n", 1);
    /// let range = Some((Position { line: 0, character: 3 }, Position { line: 0, character: 4 }));
    /// let edit = ContentChange { range, text: "c".to_owned() };
    /// document.change(&[edit], 2, PositionEncoding::Utf16)?;
    /// assert_eq!(document.snapshot().text(), "a😀c\n");
    /// # Ok::<(), text::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::StaleVersion`] if `version` is not greater than the present one,
    /// [`Error::LineOutOfRange`] and [`Error::RangeReversed`] for a range that is none: in all
    /// three the editor and we disagree, and only the editor's whole text mends it.
    pub fn change(
        &mut self,
        edits: &[ContentChange],
        version: i32,
        encoding: PositionEncoding,
    ) -> Result<(), Error> {
        let have = self.snapshot.version;
        if version <= have {
            return Err(Error::StaleVersion { have, got: version });
        }
        let mut changed = self.snapshot();
        changed.version = version;
        for edit in edits {
            changed.replace(edit, encoding)?;
        }
        self.snapshot = changed;
        Ok(())
    }
}

impl From<&str> for Snapshot {
    /// Returns a text that no editor holds, at version 0.
    fn from(text: &str) -> Self {
        Self { rope: Rope::from_str(text), version: 0 }
    }
}

impl Snapshot {
    /// Returns the version this is the text of.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Returns the whole text.
    #[must_use]
    pub fn text(&self) -> String {
        self.rope.to_string()
    }

    /// Returns the text's length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.rope.len_bytes()
    }

    /// Returns the text in `range`, its bounds moved back to the text's end or a character's start.
    #[must_use]
    pub fn slice(&self, range: Range<ByteOffset>) -> String {
        match self.rope.get_slice(self.chars_of(range)) {
            Some(slice) => slice.to_string(),
            None => String::new(),
        }
    }

    /// Returns whether `range` holds the same text as `other_range` of `other`.
    #[must_use]
    pub fn is_equal(&self, range: Range<ByteOffset>, other: &Self, other_range: Range<ByteOffset>) -> bool {
        self.rope.slice(self.chars_of(range)) == other.rope.slice(other.chars_of(other_range))
    }

    /// Returns whether the whole text is the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.rope == other.rope
    }

    /// Returns the piece of memory that holds `offset`, and where in the text it starts.
    ///
    /// A document lies in memory in pieces of about a KiB, each of whole characters; this reads one without copying
    /// it. At the text's end it is the last one.
    ///
    /// ```
    /// use text::{ByteOffset, Snapshot};
    /// let snapshot = Snapshot::from("let x = 1;");
    /// assert_eq!(snapshot.piece(ByteOffset(4)), ("let x = 1;", ByteOffset(0)));
    /// ```
    #[must_use]
    pub fn piece(&self, offset: ByteOffset) -> (&str, ByteOffset) {
        let (piece, start, ..) = self.rope.chunk_at_byte(offset.0.min(self.rope.len_bytes()));
        (piece, ByteOffset(start))
    }

    /// Returns how many lines there are; the text after the last line break is one, even if empty.
    #[must_use]
    pub fn n_lines(&self) -> u32 {
        to_u32(self.rope.len_lines())
    }

    /// Returns the line that holds `offset`; past the end that is the last.
    #[must_use]
    pub fn line_of(&self, offset: ByteOffset) -> u32 {
        to_u32(self.rope.char_to_line(self.char_of(offset)))
    }

    /// Returns where `line` starts.
    ///
    /// # Errors
    ///
    /// [`Error::LineOutOfRange`] if there is no such line.
    pub fn line_start(&self, line: u32) -> Result<ByteOffset, Error> {
        let chars = self.line_chars(line)?;
        Ok(ByteOffset(self.rope.char_to_byte(chars.start)))
    }

    /// Returns the text of `line` without its line break.
    ///
    /// # Errors
    ///
    /// [`Error::LineOutOfRange`] if there is no such line.
    pub fn line_text(&self, line: u32) -> Result<String, Error> {
        let chars = self.line_chars(line)?;
        Ok(self.rope.slice(chars).to_string())
    }

    /// Returns the offset of `position`, clamped to its line and to the character's start.
    ///
    /// The line after the last is the text's end: an editor to which every line has a line break (Neovim, also where
    /// the last has none) names it, and so do ranges that take in the last line.
    ///
    /// # Errors
    ///
    /// [`Error::LineOutOfRange`] if the line lies beyond even that.
    pub fn offset(&self, position: Position, encoding: PositionEncoding) -> Result<ByteOffset, Error> {
        let char_idx = self.char_at(position, encoding)?;
        Ok(ByteOffset(self.rope.char_to_byte(char_idx)))
    }

    /// Returns the position of `offset`, moved back to the text's end or a character's start.
    ///
    /// An offset between `\r` and `\n` is the line's end: no position lies inside a line break.
    #[must_use]
    pub fn position(&self, offset: ByteOffset, encoding: PositionEncoding) -> Position {
        let line = self.line_of(offset);
        let Ok(chars) = self.line_chars(line) else {
            // Only a text of more than u32::MAX lines gets here, which no position can name.
            return Position { line, character: 0 };
        };
        let char_idx = self.char_of(offset).min(chars.end);
        let character = self.units(char_idx, encoding) - self.units(chars.start, encoding);
        Position { line, character: to_u32(character) }
    }

    fn replace(&mut self, edit: &ContentChange, encoding: PositionEncoding) -> Result<(), Error> {
        let Some((start, end)) = edit.range else {
            self.rope = Rope::from_str(&edit.text);
            return Ok(());
        };
        if start > end {
            return Err(Error::RangeReversed { start, end });
        }
        let (start, end) = (self.char_at(start, encoding)?, self.char_at(end, encoding)?);
        self.rope.remove(start..end);
        self.rope.insert(start, &edit.text);
        Ok(())
    }

    fn char_at(&self, position: Position, encoding: PositionEncoding) -> Result<usize, Error> {
        if position.line == self.n_lines() {
            return Ok(self.rope.len_chars());
        }
        let chars = self.line_chars(position.line)?;
        let n_units = self
            .units(chars.start, encoding)
            .saturating_add(to_usize(position.character))
            .min(self.units(chars.end, encoding));
        // Both conversions of ropey's round down to the start of a character.
        Ok(match encoding {
            PositionEncoding::Utf8 => self.rope.byte_to_char(n_units),
            PositionEncoding::Utf16 => self.rope.utf16_cu_to_char(n_units),
            PositionEncoding::Utf32 => n_units,
        })
    }

    /// Returns how many units of `encoding` come before `char_idx`.
    fn units(&self, char_idx: usize, encoding: PositionEncoding) -> usize {
        match encoding {
            PositionEncoding::Utf8 => self.rope.char_to_byte(char_idx),
            PositionEncoding::Utf16 => self.rope.char_to_utf16_cu(char_idx),
            PositionEncoding::Utf32 => char_idx,
        }
    }

    /// Returns the character that holds `offset`.
    fn char_of(&self, offset: ByteOffset) -> usize {
        self.rope.byte_to_char(offset.0.min(self.rope.len_bytes()))
    }

    /// Returns the characters in `range`, its bounds moved as in [`Snapshot::slice`].
    fn chars_of(&self, range: Range<ByteOffset>) -> Range<usize> {
        let (start, end) = (self.char_of(range.start), self.char_of(range.end));
        start..end.max(start)
    }

    /// Returns the characters of `line`, its line break left out.
    fn line_chars(&self, line: u32) -> Result<Range<usize>, Error> {
        let line_idx = to_usize(line);
        if line_idx >= self.rope.len_lines() {
            let n_lines = self.n_lines();
            return Err(Error::LineOutOfRange { line, n_lines });
        }
        let start = self.rope.line_to_char(line_idx);
        let mut end = self.rope.line_to_char(line_idx + 1);
        for line_break in ['\n', '\r'] {
            if end > start && self.rope.char(end - 1) == line_break {
                end -= 1;
            }
        }
        Ok(start..end)
    }
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

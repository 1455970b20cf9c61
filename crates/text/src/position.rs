//! Where in a text: a byte offset of ours, or a position of the editor's.
//!
//! Never: converts; only a [`Snapshot`](crate::Snapshot) knows the lines that takes.
//! Source: LSP 3.17, "Position" and "PositionEncodingKind".

use std::fmt;

/// An offset in bytes of UTF-8 from the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteOffset(pub usize);

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.0)
    }
}

/// The unit of [`Position::character`], agreed on when the editor connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PositionEncoding {
    /// Bytes of UTF-8.
    Utf8,
    /// Code units of UTF-16: what LSP means when nothing was agreed.
    #[default]
    Utf16,
    /// Unicode scalar values.
    Utf32,
}

/// A place between two characters, as LSP counts it.
///
/// Ordered as the text is: by line, then by character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The line, 0-based; lines end at `\n`, `\r\n` or `\r`.
    pub line: u32,
    /// The offset in the line, 0-based, in units of the agreed [`PositionEncoding`].
    pub character: u32,
}

impl fmt::Display for Position {
    /// Writes the position as people count, 1-based.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_based = |n: u32| u64::from(n) + 1;
        write!(f, "{}:{}", one_based(self.line), one_based(self.character))
    }
}

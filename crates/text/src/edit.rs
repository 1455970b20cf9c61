//! Replacements of byte ranges in a text.
//!
//! In: a text and edits against that text, in its order.
//! Out: the edited text, or an [`Error`].

use std::ops::Range;

use crate::{ByteOffset, Error};

/// One replacement of a byte range.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Edit {
    /// The bytes to replace; empty to insert.
    pub range: Range<ByteOffset>,
    /// The text to put there.
    pub new_text: String,
}

/// Returns `text` with `edits` applied; all their ranges are offsets in `text` itself.
///
/// Edits may touch; insertions at one place come out in the order given.
///
/// ```
/// use text::{ByteOffset, Edit};
/// let edit = Edit { range: ByteOffset(0)..ByteOffset(1), new_text: "J".to_owned() };
/// assert_eq!(text::apply("hello", &[edit]), Ok("Jello".to_owned()));
/// ```
///
/// # Errors
///
/// [`Error::EditOutOfOrder`] if edits are unsorted, overlap or end before they start, and
/// [`Error::EditOffBoundary`] if one leaves the text or cuts a character; both are the caller's to fix.
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, Error> {
    let mut new_text = String::with_capacity(text.len());
    let mut done = 0;
    for (edit_idx, edit) in edits.iter().enumerate() {
        let (start, end) = (edit.range.start.0, edit.range.end.0);
        if start < done || end < start {
            return Err(Error::EditOutOfOrder { edit_idx });
        }
        let off_boundary = |offset| Error::EditOffBoundary { edit_idx, offset: ByteOffset(offset) };
        new_text.push_str(text.get(done..start).ok_or_else(|| off_boundary(start))?);
        if !text.is_char_boundary(end) {
            return Err(off_boundary(end));
        }
        new_text.push_str(&edit.new_text);
        done = end;
    }
    new_text.push_str(&text[done..]);
    Ok(new_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, edits: &[(usize, usize, &str)], expect: Result<&str, Error>) {
        let edits: Vec<Edit> = edits
            .iter()
            .map(|&(start, end, new_text)| Edit {
                range: ByteOffset(start)..ByteOffset(end),
                new_text: new_text.to_owned(),
            })
            .collect();
        assert_eq!(apply(text, &edits), expect.map(str::to_owned));
    }

    #[test]
    fn edits_in_order_are_applied_against_the_original_text() {
        check("", &[], Ok(""));
        check("abc", &[], Ok("abc"));
        check("abc", &[(0, 1, "xy"), (2, 3, "")], Ok("xyb"));
        check("abc", &[(0, 1, "x"), (1, 2, "y")], Ok("xyc"));
        check("abc", &[(1, 1, "1"), (1, 1, "2"), (3, 3, "!")], Ok("a12bc!"));
        check("a😀b", &[(1, 5, "e\u{301}")], Ok("ae\u{301}b"));
    }

    #[test]
    fn edits_that_are_unsorted_overlap_or_are_reversed_are_refused() {
        let out_of_order = |edit_idx| Err(Error::EditOutOfOrder { edit_idx });
        check("abc", &[(2, 3, ""), (0, 1, "")], out_of_order(1));
        check("abc", &[(0, 2, ""), (1, 3, "")], out_of_order(1));
        check("abc", &[(2, 1, "")], out_of_order(0));
    }

    #[test]
    fn edits_that_leave_the_text_or_cut_a_character_are_refused() {
        let off = |offset| Err(Error::EditOffBoundary { edit_idx: 0, offset: ByteOffset(offset) });
        check("abc", &[(4, 4, "")], off(4));
        check("abc", &[(0, 4, "")], off(4));
        check("😀", &[(1, 4, "")], off(1));
        check("😀", &[(0, 3, "")], off(3));
    }
}

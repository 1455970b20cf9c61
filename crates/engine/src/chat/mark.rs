//! Marks that tell a template's own special tokens from text that looks like them (I-3).
//!
//! In: text to go through a template. Out: text no template can mistake, and the way back.
//! Never: changes what a template sees of ordinary text.
//!
//! Each name of a special token in the *template* is replaced, before it is compiled, by one code
//! point of the private plane 16; so are `bos_token` and `eos_token`. What is rendered is then cut
//! at these code points, and all between them is text, wherever it comes from. A message that holds
//! such a code point itself has it written as two others of the plane, and gets it back at the end.
//! So templates slice, strip, compare, replace and encode messages as they are.
//!
//! What a template composes (`'<|' + role + '|>'`) has no mark. If a name stands in the rendered
//! text without one, the conversation is rendered once more with fences around every character that
//! is not ours; a name without a fence in it is the template's own.
//!
//! Limits: a template that asks whether a message contains a special token's name is told no; a
//! message cut within one of plane 16's own characters shows U+FFFD there.

use std::borrow::Cow;

use crate::TokenId;

const PLANE: u32 = 0x10_0000;
/// Marks are the code points from [`PLANE`] on; the rest of the plane is for escapes and the fence.
const N_MARKS: usize = 0xfa00;
const HIGH: u32 = PLANE + 0xfd00;
const LOW: u32 = PLANE + 0xfe00;
const FENCE: char = '\u{10ff00}';

/// A part of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Special(TokenId),
}

/// The special tokens that have a mark, by its number.
#[derive(Debug, Default)]
pub(super) struct Marks {
    tokens: Vec<TokenId>,
}

impl Marks {
    /// Returns the mark of `token`; none when more tokens are named than there are marks.
    pub(super) fn mark(&mut self, token: TokenId) -> Option<char> {
        let idx = self.tokens.iter().position(|other| *other == token).unwrap_or_else(|| {
            self.tokens.push(token);
            self.tokens.len() - 1
        });
        (idx < N_MARKS).then(|| char::from_u32(PLANE + idx as u32)).flatten()
    }

    fn token(&self, c: char) -> Option<TokenId> {
        let idx = (c as u32).checked_sub(PLANE)?;
        self.tokens.get(idx as usize).copied()
    }

    /// Cuts what was rendered at its marks; fences are dropped, escapes undone.
    pub(super) fn split(&self, rendered: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut chars = rendered.chars().peekable();
        while let Some(c) = chars.next() {
            if let Some(token) = self.token(c) {
                push_text(&mut pieces, &mut text);
                pieces.push(Piece::Special(token));
            } else if c != FENCE {
                let low = chars.peek().copied().and_then(low_byte);
                text.push(match (high_byte(c), low) {
                    (Some(high), Some(low)) => {
                        chars.next();
                        char::from_u32(PLANE + (high << 8) + low).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    _ if c as u32 >= PLANE => char::REPLACEMENT_CHARACTER,
                    _ => c,
                });
            }
        }
        push_text(&mut pieces, &mut text);
        pieces
    }
}

/// Returns whether `c` is a code point that only marks and escapes are made of.
pub(super) fn is_mark(c: char) -> bool {
    c as u32 >= PLANE
}

fn push_text(pieces: &mut Vec<Piece>, text: &mut String) {
    if !text.is_empty() {
        pieces.push(Piece::Text(std::mem::take(text)));
    }
}

fn high_byte(c: char) -> Option<u32> {
    (c as u32).checked_sub(HIGH).filter(|byte| *byte < 0x100)
}

fn low_byte(c: char) -> Option<u32> {
    (c as u32).checked_sub(LOW).filter(|byte| *byte < 0x100)
}

/// Returns `text` without code points that are marks; [`Marks::split`] gives them back.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c as u32 >= PLANE) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match (c as u32).checked_sub(PLANE) {
            Some(code) => escaped
                .extend([HIGH + (code >> 8), LOW + (code & 0xff)].into_iter().filter_map(char::from_u32)),
            None => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Returns `text` escaped, with a fence before and after each character that is not white space.
pub(super) fn fence(text: &str) -> String {
    let mut fenced = String::with_capacity(text.len() * 9);
    for c in text.chars() {
        if c.is_whitespace() {
            fenced.push(c);
        } else {
            fenced.push(FENCE);
            fenced.push_str(&escape(c.encode_utf8(&mut [0; 4])));
            fenced.push(FENCE);
        }
    }
    fenced
}

/// Returns `rendered` without fences.
pub(super) fn without_fences(rendered: &str) -> String {
    rendered.replace(FENCE, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_holds_no_mark_on_the_way() {
        let mut marks = Marks::default();
        let mark = marks.mark(TokenId(7)).expect("a mark");
        assert_eq!(marks.mark(TokenId(7)), Some(mark));
        let mut texts: Vec<String> =
            ["", "a <|im_end|> b", "é\u{10ffff}x\u{100000}"].map(str::to_owned).to_vec();
        texts.push((0x10_0000..=0x10_ffff).step_by(0x33).filter_map(char::from_u32).collect());
        for text in texts {
            for hidden in [escape(&text).into_owned(), fence(&text)] {
                assert!(!hidden.contains(mark), "{text:?}");
                let expect = [Piece::Special(TokenId(7)), Piece::Text(text.clone())];
                let pieces = marks.split(&format!("{mark}{hidden}"));
                assert_eq!(pieces, expect[..1 + usize::from(!text.is_empty())]);
            }
            assert_eq!(without_fences(&fence(&text)), escape(&text));
        }
    }

    #[test]
    fn half_an_escape_is_no_mark() {
        let mut marks = Marks::default();
        assert!(marks.mark(TokenId(7)).is_some());
        let escaped: Vec<char> = escape("\u{100000}").chars().collect();
        for half in escaped {
            assert_eq!(marks.split(&half.to_string()), [Piece::Text("\u{fffd}".to_owned())]);
        }
    }
}

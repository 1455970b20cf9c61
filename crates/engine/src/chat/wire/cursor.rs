//! Reads a text that may still grow.
//!
//! In: what is there of a text. Out: its parts, or [`Stop`]. Never: says `Bad` where more text could mend it.

use serde_json::Value;

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text ends before it can be told.
    More,
    /// The text is something else.
    Bad,
}

/// A place in a text.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'t> {
    text: &'t str,
    at: usize,
    is_final: bool,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str, is_final: bool) -> Self {
        Self { text, at: 0, is_final }
    }

    /// Returns the bytes taken so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn text(&self, from: usize, to: usize) -> &'t str {
        &self.text[from..to]
    }

    pub(super) fn back(&mut self, n_bytes: usize) {
        self.at -= n_bytes;
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn more(&self) -> Stop {
        if self.is_final { Stop::Bad } else { Stop::More }
    }

    pub(super) fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes exactly `literal`.
    pub(super) fn literal(&mut self, literal: &str) -> Result<(), Stop> {
        self.either(&[literal]).map(|_| ())
    }

    /// Takes one of `literals`, none of which begins another, and returns which.
    pub(super) fn either(&mut self, literals: &[&str]) -> Result<usize, Stop> {
        let rest = self.rest();
        if let Some(idx) = literals.iter().position(|literal| rest.starts_with(literal)) {
            self.at += literals[idx].len();
            return Ok(idx);
        }
        if literals.iter().any(|literal| literal.starts_with(rest)) {
            Err(self.more())
        } else {
            Err(Stop::Bad)
        }
    }

    /// Returns whether the whole rest is a beginning of `literal`.
    pub(super) fn is_at_partial(&self, literal: &str) -> bool {
        literal.starts_with(self.rest())
    }

    pub(super) fn take_all(&mut self) {
        self.at = self.text.len();
    }

    /// Takes what comes before `end`, at most `n_max` bytes, and `end`.
    pub(super) fn until(&mut self, end: &str, n_max: usize) -> Result<&'t str, Stop> {
        let rest = self.rest();
        match rest.find(end) {
            Some(at) if at <= n_max => {
                self.at += at + end.len();
                Ok(&rest[..at])
            }
            None if rest.len() < n_max.saturating_add(end.len()) => Err(self.more()),
            _ => Err(Stop::Bad),
        }
    }

    /// Takes letters, digits and underscores, at least one, up to something else.
    pub(super) fn word(&mut self) -> Result<&'t str, Stop> {
        let rest = self.rest();
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
        match end {
            Some(0) => Err(Stop::Bad),
            Some(end) => {
                self.at += end;
                Ok(&rest[..end])
            }
            None if rest.len() > super::N_MAX_NAME => Err(Stop::Bad),
            None => Err(self.more()),
        }
    }

    /// Takes a JSON object, array or string.
    pub(super) fn json(&mut self) -> Result<Value, Stop> {
        let rest = self.rest();
        let Some(end) = json_end(rest)? else {
            return Err(self.more());
        };
        let value = serde_json::from_str(&rest[..end]).map_err(|_| Stop::Bad)?;
        self.at += end;
        Ok(value)
    }
}

/// Returns where the brackets of a JSON value close; `None` if they have not yet.
fn json_end(text: &str) -> Result<Option<usize>, Stop> {
    let mut open = Vec::new();
    let mut is_string = false;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if is_string {
            is_string = is_escaped || byte != b'"';
            is_escaped = byte == b'\\' && !is_escaped;
        } else {
            match byte {
                b'"' => is_string = true,
                b'{' => open.push(b'}'),
                b'[' => open.push(b']'),
                b'}' | b']' if open.pop() != Some(byte) => return Err(Stop::Bad),
                _ if open.is_empty() && !matches!(byte, b'}' | b']') => return Err(Stop::Bad),
                _ => {}
            }
        }
        if open.is_empty() && !is_string {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_json_is_found_as_soon_as_it_is_there() {
        let check = |text: &str, expect| assert_eq!(json_end(text), expect, "{text:?}");
        check("", Ok(None));
        check("{\"a\": [1, \"}\\\"]\"]} x", Ok(Some(18)));
        check("{\"a\": [1, \"}\\\"]\"]", Ok(None));
        check("\"a\\\\\"b", Ok(Some(5)));
        check("[}", Err(Stop::Bad));
        check("x", Err(Stop::Bad));
        check("]", Err(Stop::Bad));
    }

    #[test]
    fn more_text_is_asked_for_only_where_it_can_help() {
        let cursor = |text| Cursor::new(text, false);
        assert_eq!(cursor("<to").literal("<tool>"), Err(Stop::More));
        assert_eq!(cursor("<tx").literal("<tool>"), Err(Stop::Bad));
        assert_eq!(Cursor::new("<to", true).literal("<tool>"), Err(Stop::Bad));
        assert_eq!(cursor("ab>c").until(">", 2), Ok("ab"));
        assert_eq!(cursor("abc>").until(">", 2), Err(Stop::Bad));
        assert_eq!(cursor("abc").until(">", 2), Err(Stop::Bad));
        assert_eq!(cursor("ab").until(">", 2), Err(Stop::More));
        assert_eq!(cursor("ab").until(">", usize::MAX), Err(Stop::More));
        assert_eq!(cursor("ab.").word(), Ok("ab"));
        assert_eq!(cursor("ab").word(), Err(Stop::More));
        assert_eq!(cursor("{1}").json(), Err(Stop::Bad));
    }
}

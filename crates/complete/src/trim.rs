//! Where ghost text ends.
//!
//! In: what the model generates. Out: what is worth showing. Ghost text ends with its line; only on a blank line may
//! it be a block, unless the line below goes on in the same one; it then ends where the indentation falls back or a blank line comes.

use crate::NoneReason;
use crate::gate::{Around, indentation};

/// Most lines of a block.
const N_MAX_LINES: usize = 6;

/// Decides while text streams in whether more of it could be shown.
#[derive(Debug)]
pub struct StopRule<'a> {
    around: &'a Around,
    text: String,
}

impl<'a> StopRule<'a> {
    /// Returns a rule for one completion.
    pub fn new(around: &'a Around) -> Self {
        Self { around, text: String::new() }
    }

    /// Hears more of the answer and returns whether the rest of it matters.
    pub fn wants_more(&mut self, text: &str) -> bool {
        self.text.push_str(text);
        end(&self.text, self.around).is_none()
    }
}

/// Returns what of an answer is shown; `is_cut` says that the model was stopped before its end.
///
/// # Errors
/// The reason why nothing is.
pub fn trim(answer: &str, around: &Around, is_cut: bool) -> Result<String, NoneReason> {
    let shown = match end(answer, around) {
        Some(end) => &answer[..end],
        None if is_cut => whole_words(answer),
        None => answer,
    };
    let shown = shown.trim_end();
    if shown.trim().is_empty() {
        return Err(NoneReason::NothingToAdd);
    }
    let first_line = format!("{}{}", around.head, shown.lines().next().unwrap_or_default());
    let below = around.below.as_deref().map(str::trim);
    if below == Some(first_line.trim()) {
        return Err(NoneReason::AlreadyThere);
    }
    let shown = without_tail(shown, around);
    let shown = match shown.rsplit_once('\n') {
        // Enter between two brackets has put the closing one on the next line.
        Some((before, last)) if closes_block(last) && below == Some(last.trim()) => before.trim_end(),
        _ => shown,
    };
    if shown.trim().is_empty() {
        return Err(NoneReason::AlreadyThere);
    }
    Ok(shown.to_owned())
}

/// Returns an answer that the model had no time to end up to its last whole line, or else word.
fn whole_words(answer: &str) -> &str {
    // A character of several tokens may have lost its end.
    let answer = answer.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if let Some(at) = answer.rfind('\n') {
        return &answer[..at];
    }
    let words = answer.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
    // One long word is better than nothing.
    if words.trim().is_empty() { answer } else { words }
}

/// Returns the byte at which the shown part is known to end.
fn end(answer: &str, around: &Around) -> Option<usize> {
    let is_block = around.head.trim().is_empty() && around.tail.trim().is_empty() && !around.is_followed();
    if !is_block {
        return answer.find('\n');
    }
    let indent = indentation(&around.head);
    let mut at = 0;
    for (line_idx, line) in answer.split_inclusive('\n').enumerate() {
        let is_whole = line.ends_with('\n');
        let is_blank = line.trim().is_empty();
        // The first line continues the cursor's; the others must stay in its block.
        let is_over = line_idx >= N_MAX_LINES
            || line_idx > 0
                && (is_blank && is_whole || !is_blank && indentation(line) < indent && !closes_block(line));
        if is_over {
            return Some(at);
        }
        at += line.len();
        if line_idx > 0 && indentation(line) < indent && !is_blank && is_whole {
            return Some(at);
        }
    }
    None
}

/// Returns whether a line only closes brackets, so that it belongs to the block above it.
fn closes_block(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && line.chars().all(|c| matches!(c, '}' | ')' | ']' | ';' | ','))
}

/// Returns the part of `shown`, one line, that the rest of the cursor's line does not hold already.
///
/// Editors close a bracket or a quote as soon as it is typed, so the answer's own closing one may be there.
pub(crate) fn without_tail<'s>(shown: &'s str, around: &Around) -> &'s str {
    let tail = around.tail.trim();
    let Some(next) = tail.chars().next() else {
        return shown;
    };
    if matches!(next, '"' | '\'' | '`')
        && around.head.matches(next).count() % 2 == 1
        && let Some(at) = shown.find(next)
    {
        return &shown[..at];
    }
    let mut open = Vec::new();
    // What brackets of the answer's own enclose is no part of the tail.
    let mut n_own = 0;
    for (at, c) in shown.char_indices() {
        match c {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.last() == Some(&c) => {
                open.pop();
                n_own = at + 1;
            }
            ')' | ']' | '}' if c == next => return &shown[..at],
            _ => {}
        }
    }
    let n_same = (1..=tail.len().min(shown.len() - n_own))
        .rev()
        .filter(|&n| tail.is_char_boundary(n))
        .find(|&n| shown.ends_with(&tail[..n]));
    &shown[..shown.len() - n_same.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(head: &str, tail: &str, below: Option<&str>) -> Around {
        Around {
            head: head.into(),
            tail: tail.into(),
            below: below.map(Into::into),
            next_indent: None,
            has_text_before: true,
        }
    }

    #[test]
    fn ghost_text_ends_where_it_should() {
        let check = |head: &str,
                     tail: &str,
                     below: Option<&str>,
                     answer: &str,
                     expected: Result<&str, NoneReason>| {
            let around = around(head, tail, below);
            assert_eq!(
                trim(answer, &around, false),
                expected.map(str::to_owned),
                "{head:?} $0 {tail:?} {answer:?}"
            );
        };
        check("x = ", "", None, "1\ny = 2\n", Ok("1"));
        check("f(", ")", None, "a, b)\n", Ok("a, b"));
        check("f(", ")", None, ")\n", Err(NoneReason::AlreadyThere));
        check("def add(", ")", None, "a, b):\n", Ok("a, b"));
        check("foo(", ")", None, "a, g(b));\n", Ok("a, g(b)"));
        check("if (", ") {", None, "x > 3) {\n", Ok("x > 3"));
        check("a[", "]", None, "x[i]\n", Ok("x[i]"));
        check("a = ", "  # why", None, "b  # why\n", Ok("b  "));
        check("s = \"hello ", "\"", None, "world\")\n", Ok("world"));
        check("f('a', ", ")", None, "'b')\n", Ok("'b'"));
        check("f(", "", None, "   \n", Err(NoneReason::NothingToAdd));
        check("    ", "", None, "a = 1\n    b = 2\n\n    c\n", Ok("a = 1\n    b = 2"));
        check("    ", "", None, "a = 1\nb = 2\n", Ok("a = 1"));
        check("    ", "", None, "a();\n}\nfn b() {}\n", Ok("a();\n}"));
        check("    ", "", Some("}"), "a();\n}\nfn b() {}\n", Ok("a();"));
        check("    ", "", Some("    a = 0"), "a = 0\n    return a\n", Err(NoneReason::AlreadyThere));
        check("ret", "", Some("return x"), "urn x\n", Err(NoneReason::AlreadyThere));
        check("", "", None, "a\nb\nc\nd\ne\nf\ng\nh\n", Ok("a\nb\nc\nd\ne\nf"));
    }

    #[test]
    fn an_answer_without_its_end_is_shown_up_to_a_whole_line_or_word() {
        let check = |head: &str, answer: &str, expected: &str| {
            assert_eq!(trim(answer, &around(head, "", None), true), Ok(expected.to_owned()));
        };
        check("    ", "a = 1\n    for i in ran", "a = 1");
        check("x = ", "first + sec", "first +");
        check("x = ", "a_long_na", "a_long_na");
        check("s = '", "\u{1F600} \u{FFFD}", "\u{1F600}");
        // The rule ended it, not the budget.
        check("x = ", "foo\nbar", "foo");
    }

    #[test]
    fn a_stream_is_stopped_as_soon_as_the_end_is_known() {
        let line = around("x = ", "", None);
        let mut rule = StopRule::new(&line);
        assert!(rule.wants_more("foo"));
        assert!(!rule.wants_more("()\ny"));
        let block = around("    ", "", None);
        let mut rule = StopRule::new(&block);
        assert!(rule.wants_more("a = 1\n    b"));
        assert!(rule.wants_more(" = 2\n"));
        assert!(!rule.wants_more("done"));
    }
}

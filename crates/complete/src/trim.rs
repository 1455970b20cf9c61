//! Where ghost text ends.
//!
//! In: what the model generates. Out: what is worth showing. Ghost text ends with its line, or with the statement that the
//! line only begins; on a blank line it may be a block, unless the line below goes on in the same one; it then ends where the
//! indentation falls back, a blank line comes, or the line that the document goes on with.

use crate::clean::TRY;
use crate::gate::{Around, indentation};
use crate::{NoneReason, Request};

/// Most lines of a block.
const N_MAX_LINES: usize = 6;

/// Decides while text streams in whether more of it could be shown.
#[derive(Debug)]
pub struct StopRule<'a> {
    request: &'a Request<'a>,
    around: &'a Around,
    text: String,
    /// Whether the first line only begins a statement, once that is known.
    is_begun: Option<bool>,
    /// Bytes of that statement, 0 as long as it has no end.
    n_statement: usize,
}

impl<'a> StopRule<'a> {
    /// Returns a rule for one completion.
    pub fn new(request: &'a Request<'a>, around: &'a Around) -> Self {
        Self { request, around, text: String::new(), is_begun: None, n_statement: 0 }
    }

    /// Returns a text behind which nothing matters, for a model that can stop at one.
    pub fn stop_text(&self) -> &'static str {
        if is_block(self.around) { "\n\n" } else { "\n" }
    }

    /// Hears more of the answer and returns whether the rest of it matters.
    pub fn wants_more(&mut self, text: &str) -> bool {
        self.text.push_str(text);
        let Some(end) = end(&self.text, self.around, 0) else { return true };
        if is_block(self.around)
            || !*self.is_begun.get_or_insert_with(|| begins(self.request, self.around, &self.text[..end]))
        {
            return false;
        }
        if let Some(tree) = self.request.tree.filter(|_| text.contains('\n')) {
            let cursor = self.request.offset..self.request.offset;
            self.n_statement = tree.statement_end(cursor, &self.text, TRY).unwrap_or(0);
        }
        self.n_statement == 0 && self.text.matches('\n').count() < N_MAX_LINES
    }

    /// Returns the bytes of the statement that the first line only begins, if there is one and it has an end; else 0.
    pub fn n_statement(&self) -> usize {
        self.n_statement
    }
}

/// Returns whether a line at the cursor is sound only with lines behind it.
fn begins(request: &Request<'_>, around: &Around, line: &str) -> bool {
    let cursor = request.offset..request.offset;
    around.tail.trim().is_empty()
        && request.tree.is_some_and(|tree| tree.adds_error(cursor, line, TRY) == Some(true))
}

/// Returns what of an answer is shown; `is_cut` says that the model was stopped before its end. Where the cursor's is to be
/// one line, a statement that goes on for `n_statement` bytes is shown whole.
///
/// # Errors
/// The reason why nothing is.
pub fn trim(answer: &str, around: &Around, is_cut: bool, n_statement: usize) -> Result<String, NoneReason> {
    let shown = match end(answer, around, n_statement) {
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
        Some((before, last))
            if meets_below(last, around) || closes_block(last) && below == Some(last.trim()) =>
        {
            before.trim_end()
        }
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

/// Returns whether more than the cursor's line may be shown.
fn is_block(around: &Around) -> bool {
    around.head.trim().is_empty() && around.tail.trim().is_empty() && !around.is_followed()
}

/// Returns the byte at which the shown part is known to end.
fn end(answer: &str, around: &Around, n_statement: usize) -> Option<usize> {
    if !is_block(around) {
        // Nothing but whole lines belongs to a statement.
        let is_end = |&n: &usize| n <= answer.len() && answer.is_char_boundary(n);
        let statement_end = Some(n_statement).filter(is_end).unwrap_or(0);
        return answer.find('\n').map(|line_end| line_end.max(statement_end));
    }
    let indent = indentation(&around.head);
    let mut at = 0;
    for (line_idx, line) in answer.split_inclusive('\n').enumerate() {
        let is_whole = line.ends_with('\n');
        let is_blank = line.trim().is_empty();
        // The first line continues the cursor's; the others must stay in its block.
        let is_over = line_idx >= N_MAX_LINES
            || line_idx > 0
                && (is_whole && (is_blank || meets_below(line, around))
                    || !is_blank && indentation(line) < indent && !closes_block(line));
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

/// Returns whether a line is the one that the document goes on with.
fn meets_below(line: &str, around: &Around) -> bool {
    around.below.as_deref().is_some_and(|below| below.trim_end() == line.trim_end())
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
    use std::time::Duration;

    use super::*;
    use crate::{Trigger, gate};
    use syntax::{Language, SyntaxTree};
    use text::{ByteOffset, Document};

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
                trim(answer, &around, false, 0),
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
        check("    ", "", Some("    for a in b:"), "a = 0\n    for a in b:\n        c()\n", Ok("a = 0"));
        check(
            "    ",
            "",
            Some("    return a"),
            "if a:\n        return a\n    return a",
            Ok("if a:\n        return a"),
        );
        check("ret", "", Some("return x"), "urn x\n", Err(NoneReason::AlreadyThere));
        check("", "", None, "a\nb\nc\nd\ne\nf\ng\nh\n", Ok("a\nb\nc\nd\ne\nf"));
    }

    #[test]
    fn an_answer_without_its_end_is_shown_up_to_a_whole_line_or_word() {
        let check = |head: &str, answer: &str, expected: &str| {
            assert_eq!(trim(answer, &around(head, "", None), true, 0), Ok(expected.to_owned()));
        };
        check("    ", "a = 1\n    for i in ran", "a = 1");
        check("x = ", "first + sec", "first +");
        check("x = ", "a_long_na", "a_long_na");
        check("s = '", "\u{1F600} \u{FFFD}", "\u{1F600}");
        // What is said of a statement's end is believed only where it can be one.
        assert_eq!(trim("a\né = 1\n", &around("x = ", "", None), false, 3), Ok("a".to_owned()));
        assert_eq!(trim("a\nb", &around("x = ", "", None), false, 99), Ok("a".to_owned()));
        // The rule ended it, not the budget.
        check("x = ", "foo\nbar", "foo");
    }

    #[test]
    fn a_stream_is_stopped_as_soon_as_the_end_is_known() {
        let wants_more = |marked: &str, pieces: &[&str], n_statement: usize| {
            let offset = ByteOffset(marked.find("$0").expect("a cursor"));
            let document = Document::open(&marked.replace("$0", ""), 1).snapshot();
            let tree = SyntaxTree::parse(Language::Python, &document, Duration::MAX).expect("no end of time");
            let request = Request {
                document: &document,
                offset,
                trigger: Trigger::Automatic,
                tree: Some(&tree),
                context: None,
            };
            let around = gate::around(&request);
            let mut rule = StopRule::new(&request, &around);
            for (idx, piece) in pieces.iter().enumerate() {
                assert_eq!(rule.wants_more(piece), idx + 1 < pieces.len(), "{marked:?} {pieces:?} {idx}");
            }
            assert_eq!(rule.n_statement(), n_statement, "{marked:?} {pieces:?}");
            let answer = pieces.concat();
            trim(&answer, &around, false, n_statement).expect("something")
        };
        assert_eq!(wants_more("x = $0", &["foo", "()\ny"], 0), "foo()");
        assert_eq!(wants_more("if x:\n    $0", &["a = 1\n    b", " = 2\n", "done"], 0), "a = 1\n    b = 2");
        // The line is no statement by itself: the ones that end it belong to it.
        let call = ["foo(\n", "    1,\n", "    2,\n", ")\n"];
        assert_eq!(wants_more("x = $0\ny = 2\n", &call, 20), "foo(\n    1,\n    2,\n)");
        let endless = ["foo(\n", "1,\n", "2,\n", "3,\n", "4,\n", "5,\n"];
        assert_eq!(wants_more("x = $0\ny = 2\n", &endless, 0), "foo(");
    }
}

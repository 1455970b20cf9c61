//! Whether to ask the model at all.
//!
//! In: a request. Out: a reason not to, if there is one.

use crate::{NoneReason, Request, Trigger};

/// The text right around the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// The cursor's line before the cursor.
    pub head: String,
    /// The cursor's line after the cursor, without its line end.
    pub tail: String,
    /// The first line below that is not blank, without its line end.
    pub below: Option<String>,
    /// The indentation in bytes of the next line, if that is not blank.
    pub next_indent: Option<usize>,
    /// Whether anything but white space stands before the cursor in the document.
    pub has_text_before: bool,
}

/// How far below the cursor a line that is not blank is looked for.
const N_MAX_LINES_BELOW: u32 = 3;

/// Most characters behind the cursor in its line, brackets, quotes and the like at the end not counted, for ghost text
/// that nobody pressed a key for. llama.vim and llama.vscode allow 8, all counted; a last argument and a short comment are
/// more often completed.
const N_MAX_BEHIND: usize = 24;

/// Returns what stands around the cursor.
pub fn around(request: &Request<'_>) -> Around {
    let line_idx = request.document.line_of(request.offset);
    let line = request.line(line_idx);
    let n_head = (request.offset.0 - request.line_start(line_idx)).min(line.len());
    let (head, tail) = line.split_at(n_head);
    let is_blank = |idx: &u32| request.line(*idx).trim().is_empty();
    let has_text_before = !head.trim().is_empty() || (0..line_idx).rev().any(|idx| !is_blank(&idx));
    let n_lines = request.document.n_lines();
    let below = (line_idx + 1..n_lines.min(line_idx + 1 + N_MAX_LINES_BELOW)).find(|idx| !is_blank(idx));
    let next = request.line(line_idx + 1);
    Around {
        head: head.to_owned(),
        tail: tail.to_owned(),
        below: below.map(|idx| request.line(idx)),
        next_indent: (!next.trim().is_empty()).then(|| indentation(&next)),
        has_text_before,
    }
}

impl Around {
    /// Returns whether the line below goes on in the cursor's block: then one line is missing here, not a block.
    pub(crate) fn is_followed(&self) -> bool {
        self.next_indent.is_some_and(|next| next >= indentation(&self.head))
    }

    /// Returns whether the cursor stands behind the indentation of a line that has nothing else before it.
    pub(crate) fn is_indented(&self) -> bool {
        !self.head.is_empty() && self.head.trim().is_empty()
    }
}

/// Returns the length of a line's indentation in bytes.
pub(crate) fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// Returns why the model should not be asked, if so.
pub fn gate(request: &Request<'_>, around: &Around) -> Option<NoneReason> {
    if !around.has_text_before {
        return Some(NoneReason::NothingBefore);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if request.trigger == Trigger::Automatic && around.tail.chars().next().is_some_and(is_word) {
        return Some(NoneReason::InsideWord);
    }
    let behind = around.tail.trim().trim_end_matches(|c: char| !is_word(c));
    if request.trigger == Trigger::Automatic && behind.chars().nth(N_MAX_BEHIND).is_some() {
        return Some(NoneReason::TextBehind);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use text::{ByteOffset, Document};

    /// `$0` is the cursor.
    fn check(marked: &str, trigger: Trigger, expected: Option<NoneReason>) {
        let offset = ByteOffset(marked.find("$0").expect("a cursor"));
        let document = Document::open(&marked.replace("$0", ""), 1).snapshot();
        let request = Request { document: &document, offset, trigger, tree: None, context: None };
        assert_eq!(gate(&request, &around(&request)), expected, "{marked:?}");
    }

    #[test]
    fn the_model_is_asked_where_something_can_follow() {
        check("$0", Trigger::Invoked, Some(NoneReason::NothingBefore));
        check("  \n\t$0", Trigger::Automatic, Some(NoneReason::NothingBefore));
        check("x = $0", Trigger::Automatic, None);
        check("pri$0nt", Trigger::Automatic, Some(NoneReason::InsideWord));
        check("pri$0nt", Trigger::Invoked, None);
        check("f($0)", Trigger::Automatic, None);
        let long = "a_name_of_24_characters_";
        check(&format!("f($0, {}))); ", &long[2..]), Trigger::Automatic, None);
        check(&format!("f($0, {long}));"), Trigger::Automatic, Some(NoneReason::TextBehind));
        check(&format!("f($0, {long}));"), Trigger::Invoked, None);
        check("x\r\n$0\r\ny", Trigger::Automatic, None);
    }

    #[test]
    fn around_sees_line_ends_of_every_kind() {
        let document = Document::open("ab\r\ncé d\r\n\r\nef", 1).snapshot();
        let around = around(&Request {
            document: &document,
            offset: ByteOffset(7),
            trigger: Trigger::Invoked,
            tree: None,
            context: None,
        });
        let expected = Around {
            head: "cé".into(),
            tail: " d".into(),
            below: Some("ef".into()),
            next_indent: None,
            has_text_before: true,
        };
        assert_eq!(around, expected);
    }
}

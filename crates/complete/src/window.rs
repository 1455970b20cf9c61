//! The part of the document the model sees.
//!
//! In: a request and budgets in bytes. Out: [`Window`]. The window's start moves in steps of 16 lines, so that the
//! prompt's beginning, and with it the KV cache, stays the same from keystroke to keystroke.

use text::ByteOffset;

use crate::{Options, Request};

/// Lines by which the window's start moves.
const STEP_LINES: usize = 16;

/// What stands before the cursor, as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The text before the cursor, lines ended by `\n`.
    pub prefix: String,
    /// The text after the cursor, lines ended by `\n`.
    pub after: String,
    /// Whether the document ends its lines by `\r\n`.
    pub is_crlf: bool,
}

impl Window {
    /// Gives a generated text the document's line ends.
    pub fn line_ends(&self, text: String) -> String {
        if self.is_crlf { text.replace('\n', "\r\n") } else { text }
    }
}

/// Returns the window for a cursor that leaves room for `n_more_bytes` behind it.
pub fn window(request: &Request<'_>, options: &Options, n_more_bytes: usize) -> Window {
    let start = window_start(request, options, n_more_bytes);
    let raw = request.document.slice(ByteOffset(start)..request.offset);
    let end = ByteOffset(request.offset.0.saturating_add(options.n_max_after_bytes));
    let after = request.document.slice(request.offset..end);
    Window {
        prefix: raw.replace("\r\n", "\n"),
        after: after.replace("\r\n", "\n"),
        is_crlf: is_crlf(request),
    }
}

/// Returns the byte at which the window starts.
pub fn window_start(request: &Request<'_>, options: &Options, n_more_bytes: usize) -> usize {
    let n_max_bytes = options.n_max_prefix_bytes.saturating_sub(n_more_bytes);
    let cursor = request.offset.0;
    let cursor_line = request.document.line_of(request.offset);
    let fits = |line_idx: &u32| cursor - request.line_start(*line_idx) <= n_max_bytes;
    (0..=cursor_line).step_by(STEP_LINES).find(fits).or_else(|| (0..=cursor_line).find(fits)).map_or_else(
        || boundary_after(request, cursor - n_max_bytes),
        |line_idx| request.line_start(line_idx),
    )
}

/// Returns whether the document ends its lines by `\r\n`.
pub(crate) fn is_crlf(request: &Request<'_>) -> bool {
    let end = request.line_start(1);
    request.document.slice(ByteOffset(end.saturating_sub(2))..ByteOffset(end)) == "\r\n"
}

/// Returns the first character boundary at or after `offset`; only a line longer than the budget is cut inside.
fn boundary_after(request: &Request<'_>, offset: usize) -> usize {
    let line_idx = request.document.line_of(request.offset);
    let line_start = request.line_start(line_idx);
    let line = request.line(line_idx);
    let within =
        (offset - line_start..line.len()).find(|&at| line.is_char_boundary(at)).unwrap_or(line.len());
    line_start + within
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trigger;
    use text::Document;

    fn prefix(text: &str, n_max_bytes: usize) -> String {
        let document = Document::open(text, 1).snapshot();
        let request = Request {
            document: &document,
            offset: ByteOffset(text.len()),
            trigger: Trigger::Automatic,
            tree: None,
            context: None,
        };
        window(&request, &Options { n_max_prefix_bytes: n_max_bytes, ..Options::default() }, 0).prefix
    }

    #[test]
    fn the_start_moves_in_steps() {
        let lines = |n: usize| (0..n).map(|i| format!("line {i:03}\n")).collect::<String>();
        // 9 bytes a line; 40 lines fit in 360 bytes.
        assert!(prefix(&lines(40), 360).starts_with("line 000\n"));
        for n in 41..=56 {
            assert!(prefix(&lines(n), 360).starts_with("line 016\n"), "{n} lines");
        }
        assert!(prefix(&lines(57), 360).starts_with("line 032\n"));
    }

    #[test]
    fn a_line_longer_than_the_budget_is_cut_at_a_character() {
        assert_eq!(prefix("é".repeat(100).as_str(), 11), "é".repeat(5));
        assert_eq!(prefix("", 10), "");
    }

    #[test]
    fn the_model_sees_plain_line_ends_and_the_document_gets_its_own() {
        let document = Document::open("a\r\nb", 1).snapshot();
        let request = Request {
            document: &document,
            offset: ByteOffset(4),
            trigger: Trigger::Automatic,
            tree: None,
            context: None,
        };
        let window = window(&request, &Options::default(), 0);
        assert_eq!(window.prefix, "a\nb");
        assert_eq!(window.line_ends("c\nd".into()), "c\r\nd");
    }
}

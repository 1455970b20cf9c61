//! Where an infill ends: at a line that is indented less than the cursor's, or when its time is over.
//!
//! In: the text as it comes. Out: the part of it that may be shown.
//! Source: llama.cpp, `tools/server/README.md`, `n_indent` and `t_max_predict_ms`: both count after a first new line.

use std::time::{Duration, Instant};

use crate::http::answer::Shape;

/// Watches the indentation of new lines.
pub(super) struct Indent {
    n_indent: usize,
    time: Option<Duration>,
    started: Option<Instant>,
    is_shown: bool,
    has_new_line: bool,
    is_over: bool,
    /// White space since the last new line, of which it is not known yet what follows; with that new line.
    held: String,
}

impl Indent {
    /// Returns a watch for lines of at least `n_indent` columns; `is_shown` is false when nothing is to be shown.
    pub(super) fn new(n_indent: usize, time: Option<Duration>, is_shown: bool) -> Self {
        Self {
            n_indent,
            time,
            started: None,
            is_shown,
            has_new_line: false,
            is_over: false,
            held: String::new(),
        }
    }

    fn take(&mut self, char: char, shown: &mut String) {
        match char {
            '\n' => {
                self.has_new_line = true;
                shown.push_str(&std::mem::take(&mut self.held));
                self.held.push('\n');
            }
            ' ' | '\t' if !self.held.is_empty() => self.held.push(char),
            _ if !self.held.is_empty() && self.held.len() - 1 < self.n_indent => {
                self.is_over = true;
                self.held.clear();
            }
            _ => {
                shown.push_str(&std::mem::take(&mut self.held));
                shown.push(char);
            }
        }
    }
}

impl Shape for Indent {
    fn push(&mut self, text: &str) -> String {
        if !self.is_shown {
            return String::new();
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        let mut shown = String::new();
        for char in text.chars() {
            if self.is_over {
                break;
            }
            self.take(char, &mut shown);
        }
        if self.has_new_line && self.time.is_some_and(|time| started.elapsed() > time) {
            self.is_over = true;
        }
        shown
    }

    fn wants_more(&self) -> bool {
        !self.is_over
    }

    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(n_indent: usize, text: &str, expected: &str, goes_on: bool) {
        for n_bytes in [1, 2, 5, 100] {
            let mut indent = Indent::new(n_indent, None, true);
            let mut shown = String::new();
            let chars: Vec<char> = text.chars().collect();
            for chunk in chars.chunks(n_bytes) {
                shown.push_str(&indent.push(&chunk.iter().collect::<String>()));
            }
            shown.push_str(&indent.finish());
            assert_eq!((shown.as_str(), indent.wants_more()), (expected, goes_on), "{text:?} by {n_bytes}");
        }
    }

    #[test]
    fn an_answer_ends_at_a_line_that_is_indented_less() {
        check(4, "a\n    b\n\n    c", "a\n    b\n\n    c", true);
        check(4, "a\n    b\n  c\n    d", "a\n    b", false);
        check(4, "a\n\n\nb", "a\n\n", false);
        check(1, "\tx\n\ty\nz", "\tx\n\ty", false);
        check(0, "a\nb", "a\nb", true);
        check(2, "a\n ", "a\n ", true);
    }

    #[test]
    fn time_counts_only_after_a_new_line() {
        let mut indent = Indent::new(0, Some(Duration::ZERO), true);
        indent.push("a");
        std::thread::sleep(Duration::from_millis(2));
        assert!(indent.wants_more());
        indent.push("b\n");
        assert!(!indent.wants_more());
    }

    #[test]
    fn a_warm_up_shows_nothing() {
        let mut indent = Indent::new(0, None, false);
        assert_eq!(indent.push("a") + &indent.finish(), "");
    }
}

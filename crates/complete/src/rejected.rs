//! Ghost text that its user did not want, so that it is not shown there again.
//!
//! In: what was shown where a line was ended with something else. Out: whether some ghost text was turned down before.

use std::collections::VecDeque;

/// Most lines remembered.
const N_MAX_LINES: usize = 256;

/// Lines as they would have become, by document; the newest last.
#[derive(Debug, Default)]
pub struct Rejected {
    lines: VecDeque<(String, String)>,
}

impl Rejected {
    /// Takes note that ghost text was shown behind `head`, the cursor's line up to the cursor, and that the line
    /// was ended with something else.
    pub fn insert(&mut self, uri: &str, head: &str, ghost: &str) {
        let line = (uri.to_owned(), line(head, ghost));
        if self.lines.contains(&line) {
            return;
        }
        if self.lines.len() >= N_MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Returns whether ghost text would make the line what its user did not want.
    pub fn holds(&self, uri: &str, head: &str, ghost: &str) -> bool {
        let line = line(head, ghost);
        self.lines.iter().any(|(of, rejected)| of == uri && *rejected == line)
    }

    /// Forgets what was turned down in a document.
    pub fn forget(&mut self, uri: &str) {
        self.lines.retain(|(of, _)| of != uri);
    }
}

fn line(head: &str, ghost: &str) -> String {
    format!("{head}{}", ghost.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_turned_down_is_known_wherever_in_its_line_it_comes_again() {
        let mut rejected = Rejected::default();
        rejected.insert("file:///a", "    x = ", "foo(1)\n    y = 2");
        assert!(rejected.holds("file:///a", "    x = ", "foo(1)"));
        assert!(rejected.holds("file:///a", "    x = f", "oo(1)\n    z = 3"));
        assert!(!rejected.holds("file:///a", "    x = ", "foo(2)"));
        assert!(!rejected.holds("file:///b", "    x = ", "foo(1)"));
        for idx in 0..N_MAX_LINES {
            rejected.insert("file:///a", "", &idx.to_string());
        }
        assert!(!rejected.holds("file:///a", "    x = ", "foo(1)"), "the oldest is forgotten");
        rejected.forget("file:///a");
        assert!(rejected.lines.is_empty());
    }
}

//! Whether an insertion adds a syntax error, and how much of it does not.
//!
//! In: a tree, a stretch of its text and what would stand there instead. Out: a verdict, or `None` past the budget.
//!
//! While somebody types, the text before an insertion is often incomplete at the cursor (`x = `, `foo(`), so the texts
//! before and after are compared, by [`Marks`]: a token that no rule took, or one that had to be thought of.
//!
//! 1. After has no mark: nothing is added.
//! 2. Before had none: something is added.
//! 3. There are more than before outside of the lines being typed: something is added.
//! 4. Those lines have none: nothing is added.
//! 5. They have some and had none: something is added, unless they stand inside of an error, where there is no telling.
//! 6. They have some and had some: what was begun may go on beyond the insertion. Something is added if closing what is
//!    open at its end leaves a mark there, or leaves one before the cursor that was not there to stay: putting another
//!    word in would have cleared it.

use std::ops::Range;
use std::time::Duration;

use text::ByteOffset;
use tree_sitter::{Node, Tree};

use crate::language::{BlockForm, Language};
use crate::source::Replaced;
use crate::tree::{Deadline, SyntaxTree};

impl SyntaxTree {
    /// Returns whether putting `insert` in place of `range` adds a syntax error; `None` if `budget` runs out.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// use text::ByteOffset;
    /// let tree = SyntaxTree::parse(Language::Python, &"x = foo(\n".into(), Duration::MAX).unwrap();
    /// let cursor = ByteOffset(8)..ByteOffset(8);
    /// assert_eq!(tree.adds_error(cursor.clone(), "a, b)", Duration::MAX), Some(false));
    /// assert_eq!(tree.adds_error(cursor, "a, b]", Duration::MAX), Some(true));
    /// ```
    #[must_use]
    pub fn adds_error(&self, range: Range<ByteOffset>, insert: &str, budget: Duration) -> Option<bool> {
        self.adds_error_until(&range, insert, Deadline::after(budget))
    }

    /// Returns the longest start of `insert` that adds no syntax error in place of `range`: all of it, or whole lines,
    /// or the first line's first statements, or nothing; `None` if `budget` runs out.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// use text::ByteOffset;
    /// let tree = SyntaxTree::parse(Language::Rust, &"fn f() {\n    \n}\n".into(), Duration::MAX).unwrap();
    /// let cursor = ByteOffset(13)..ByteOffset(13);
    /// assert_eq!(tree.shorten(cursor, "a();\n    if b {", Duration::MAX), Some("a();"));
    /// ```
    #[must_use]
    pub fn shorten<'i>(
        &self,
        range: Range<ByteOffset>,
        insert: &'i str,
        budget: Duration,
    ) -> Option<&'i str> {
        let deadline = Deadline::after(budget);
        let first_line = insert.lines().next().unwrap_or_default();
        let lines = insert.match_indices('\n').map(|(at, _)| insert[..at].trim_end_matches('\r'));
        let statements =
            first_line.match_indices([';', '}', ')', ',']).map(|(at, end)| &insert[..at + end.len()]);
        let starts = statements.chain([first_line]).chain(lines).chain([insert]).collect::<Vec<_>>();
        for start in starts.into_iter().rev().filter(|start| !start.trim().is_empty()) {
            if !self.adds_error_until(&range, start, deadline)? {
                return Some(start);
            }
        }
        Some("")
    }

    fn adds_error_until(&self, range: &Range<ByteOffset>, insert: &str, deadline: Deadline) -> Option<bool> {
        let replaced = Replaced::new(self.snapshot(), range, insert);
        let after = self.with(&replaced, deadline)?;
        if !after.root_node().has_error() {
            return Some(false);
        }
        if self.is_valid() {
            return Some(true);
        }
        let before = Replaced::whole(self.snapshot());
        let was = Marks::of(self.tree(), &before, &replaced.replaced(), deadline)?;
        let is = Marks::of(&after, &replaced, &replaced.inserted(), deadline)?;
        if is.n_elsewhere > was.n_elsewhere {
            return Some(true);
        }
        if is.n_head + is.n_typed == 0 {
            return Some(false);
        }
        if was.n_head + was.n_typed == 0 {
            return Some(!self.is_inside_error(&replaced));
        }
        let is = self.closed(range, insert, is, &was, deadline)?;
        if is.n_typed > 0 || is.n_head == 0 {
            return Some(is.n_typed > 0);
        }
        // The line may have been wrong before the cursor, whatever follows.
        let word = "a";
        let other = Replaced::new(self.snapshot(), range, word);
        let marks = Marks::of(&self.with(&other, deadline)?, &other, &other.inserted(), deadline)?;
        Some(self.closed(range, word, marks, &was, deadline)?.n_head == 0)
    }

    /// Returns the marks left once what is open at the end of `insert` is closed in the best way.
    fn closed(
        &self,
        range: &Range<ByteOffset>,
        insert: &str,
        open: Marks,
        was: &Marks,
        deadline: Deadline,
    ) -> Option<Marks> {
        let mut best = open;
        for closing in closings(self.language(), &Replaced::new(self.snapshot(), range, insert)) {
            if best.n_head + best.n_typed == 0 {
                break;
            }
            let closed = format!("{insert}{closing}");
            let closed = Replaced::new(self.snapshot(), range, &closed);
            let marks = Marks::of(&self.with(&closed, deadline)?, &closed, &closed.inserted(), deadline)?;
            if marks.n_elsewhere <= was.n_elsewhere
                && (marks.n_typed, marks.n_head) < (best.n_typed, best.n_head)
            {
                best = marks;
            }
        }
        Some(best)
    }

    /// Returns whether the replaced stretch stands where no rule says what may come.
    fn is_inside_error(&self, replaced: &Replaced<'_>) -> bool {
        let range = replaced.replaced();
        let node = self.root().named_descendant_for_byte_range(range.start, range.end);
        node.is_some_and(|node| node.is_error())
    }
}

/// The errors of a tree, counted where they show.
///
/// A token that no rule took is a mark, and so is one that had to be thought of, at its place. What a rule did take
/// within an error is none, so that one error does not count for all that it encloses, unless it encloses nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    /// Before the cursor in its line.
    n_head: usize,
    /// In what is put in, and in the rest of its last line.
    n_typed: usize,
    n_elsewhere: usize,
}

impl Marks {
    /// Counts the marks of a tree into whose text `inserted` was put.
    fn of(tree: &Tree, text: &Replaced<'_>, inserted: &Range<usize>, deadline: Deadline) -> Option<Self> {
        let head = text.line_start(inserted.start);
        let end = text.line_end(inserted.end);
        let mut marks = Self::default();
        let mut cursor = tree.walk();
        // Whether each node around the cursor's is an error that holds tokens.
        let mut around = Vec::new();
        for n_nodes in 1_usize.. {
            if n_nodes.is_multiple_of(1000) && deadline.is_over() {
                return None;
            }
            let node = cursor.node();
            let is_token = node.child_count() == 0 && around.last() == Some(&true) && !node.is_extra();
            let holds_tokens = node.is_error() && has_tokens(node);
            if node.is_missing() || is_token || node.is_error() && !holds_tokens {
                if node.start_byte() > end || node.end_byte() < head {
                    marks.n_elsewhere += 1;
                } else if node.end_byte() > inserted.start || node.is_missing() {
                    marks.n_typed += 1;
                } else {
                    marks.n_head += 1;
                }
            }
            if node.has_error() && cursor.goto_first_child() {
                around.push(holds_tokens);
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return Some(marks);
                }
                around.pop();
            }
        }
        None
    }
}

/// Returns whether an error has a token of its own.
fn has_tokens(error: Node<'_>) -> bool {
    let mut cursor = error.walk();
    error.children(&mut cursor).any(|child| child.child_count() == 0 && !child.is_extra())
}

/// Returns what may close what is open at the insertion's end, so that only the rest of its lines is judged.
fn closings(language: Language, text: &Replaced<'_>) -> Vec<String> {
    let inserted = text.inserted();
    let open = open_at_end(language, &text.text(text.line_start(inserted.start)..inserted.end));
    let ends: &[&str] = match (language, language.block_form()) {
        (Language::Bash, _) => &["", "; then :; fi", "; do :; done", "\nfi\n", "\ndone\n"],
        (Language::Lua, _) => &["", " then end", " do end", "\nend\n"],
        (Language::Ruby, _) => &["", "\nend\n"],
        (Language::Python, _) => &["", ": pass"],
        (_, BlockForm::Braces) => &["", ";", " {}"],
        _ => &[""],
    };
    ends.iter().map(|end| format!("{open}{end}")).filter(|closing| !closing.is_empty()).collect()
}

/// Returns what closes the quotes and brackets that lines leave open, the innermost first.
///
/// Read from the text and not from the tree, which is a guess where there is an error.
fn open_at_end(language: Language, lines: &str) -> String {
    let mut quote = "";
    let mut brackets = Vec::new();
    let mut at = 0;
    while let Some(c) = lines[at..].chars().next() {
        let found = language.quotes().iter().find(|quote| lines[at..].starts_with(**quote));
        let is_comment = language.line_comment().is_some_and(|comment| lines[at..].starts_with(comment));
        at += match found {
            _ if c == '\\' => 1 + lines[at + 1..].chars().next().map_or(0, char::len_utf8),
            Some(found) if quote.is_empty() || quote == *found => {
                quote = if quote.is_empty() { found } else { "" };
                found.len()
            }
            _ if !quote.is_empty() => c.len_utf8(),
            _ if is_comment => lines[at..].find('\n').unwrap_or(lines.len() - at),
            _ => {
                match c {
                    '(' => brackets.push(')'),
                    '[' => brackets.push(']'),
                    '{' => brackets.push('}'),
                    _ if brackets.last() == Some(&c) => {
                        brackets.pop();
                    }
                    _ => {}
                }
                c.len_utf8()
            }
        };
    }
    let brackets: String = brackets.into_iter().rev().collect();
    format!("{quote}{brackets}")
}

#[cfg(test)]
mod tests;

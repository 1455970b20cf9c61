//! A text's syntax tree, kept up to date.
//!
//! In: snapshots of one text, in order. Out: the tree of each, parsed again only where it changed.
//! Never: copies the text, or takes longer than its budget by much more than a hundred steps of the parser.
//! Thread: any; a parse takes the caller's thread.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use text::{ByteOffset, Snapshot};
use tree_sitter::{Node, ParseOptions, Parser, Tree};

use crate::Language;
use crate::hazard::is_safe;
use crate::source::{Replaced, difference};

/// A text and its tree.
#[derive(Clone, Debug)]
pub struct SyntaxTree {
    tree: Tree,
    language: Language,
    snapshot: Snapshot,
}

impl SyntaxTree {
    /// Parses a text; `None` if that takes longer than `budget`, or it is longer than 4 GiB, or nested
    /// so deep that its grammar's scanner would end the process.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// let tree = SyntaxTree::parse(Language::Python, &"x = (1 +".into(), Duration::MAX).unwrap();
    /// assert!(!tree.is_valid());
    /// ```
    #[must_use]
    pub fn parse(language: Language, snapshot: &Snapshot, budget: Duration) -> Option<Self> {
        let tree = parse(language, &Replaced::whole(snapshot), None, Deadline::after(budget))?;
        Some(Self { tree, language, snapshot: snapshot.clone() })
    }

    /// Returns the tree of what the text has become, parsed only where it differs; `None` if the budget runs out.
    ///
    /// The two texts are compared, so it does not matter how many edits lie between them.
    /// Of a text without an error it is the tree that [`Self::parse`] gives; how an error is mended may differ.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// let tree = SyntaxTree::parse(Language::Rust, &"fn f() {".into(), Duration::MAX).unwrap();
    /// let tree = tree.updated(&"fn f() {}".into(), Duration::MAX).unwrap();
    /// assert!(tree.is_valid());
    /// ```
    #[must_use]
    pub fn updated(&self, snapshot: &Snapshot, budget: Duration) -> Option<Self> {
        let deadline = Deadline::after(budget);
        let Some((old, new)) = difference(&self.snapshot, snapshot) else {
            return Some(Self { snapshot: snapshot.clone(), ..self.clone() });
        };
        let insert = snapshot.slice(offsets(new));
        let replaced = Replaced::new(&self.snapshot, &offsets(old), &insert);
        let tree = self.with(&replaced, deadline)?;
        Some(Self { tree, language: self.language, snapshot: snapshot.clone() })
    }

    /// Returns the tree of the text with a stretch of it replaced.
    pub(crate) fn with(&self, replaced: &Replaced<'_>, deadline: Deadline) -> Option<Tree> {
        let mut old = self.tree.clone();
        old.edit(&replaced.edit());
        parse(self.language, replaced, Some(&old), deadline)
    }

    /// Returns the language it was parsed as.
    #[must_use]
    pub fn language(&self) -> Language {
        self.language
    }

    /// Returns the text it is the tree of.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the node of the whole text.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        self.tree.root_node()
    }

    /// Returns whether the text has no syntax error.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.root().has_error()
    }

    /// Visits every node, parents first.
    pub fn visit<'t>(&'t self, mut visit: impl FnMut(Node<'t>)) {
        walk(self.root(), |node| {
            visit(node);
            true
        });
    }
}

/// When a budget runs out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    budget: Duration,
}

impl Deadline {
    pub(crate) fn after(budget: Duration) -> Self {
        Self { start: Instant::now(), budget }
    }

    pub(crate) fn is_over(self) -> bool {
        self.start.elapsed() >= self.budget
    }
}

fn parse(language: Language, text: &Replaced<'_>, old: Option<&Tree>, deadline: Deadline) -> Option<Tree> {
    // The offsets of tree-sitter are 32 bits wide.
    u32::try_from(text.len()).ok()?;
    if !is_safe(language, text) {
        return None;
    }
    let mut parser = Parser::new();
    parser.set_language(&language.grammar()).ok()?;
    let mut progress = |_: &tree_sitter::ParseState| {
        if deadline.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ParseOptions::new().progress_callback(&mut progress);
    parser.parse_with_options(&mut |at, _| text.piece_from(at), old, Some(options))
}

/// Returns a node's bytes as offsets.
pub(crate) fn offsets(bytes: Range<usize>) -> Range<ByteOffset> {
    ByteOffset(bytes.start)..ByteOffset(bytes.end)
}

/// Visits a node and all below it, parents first, without recursion; what `visit` says `false` to is not entered.
pub(crate) fn walk<'t>(node: Node<'t>, mut visit: impl FnMut(Node<'t>) -> bool) {
    walk_deep(node, |node, _| visit(node));
}

/// Visits as [`walk`] does, and says how deep below the first a node is.
pub(crate) fn walk_deep<'t>(node: Node<'t>, mut visit: impl FnMut(Node<'t>, usize) -> bool) {
    let mut cursor = node.walk();
    let mut depth = 0;
    loop {
        if visit(cursor.node(), depth) && cursor.goto_first_child() {
            depth += 1;
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            depth -= 1;
        }
    }
}

#[cfg(test)]
mod tests;

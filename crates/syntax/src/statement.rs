//! Where a statement ends that an insertion goes on with or begins.
//!
//! In: a tree, a stretch of its text and what is decoded so far to stand there. Out: where decoding may stop.
//!
//! A statement is what stands directly in a *list*: in brackets, in an indented block, in the text itself, opened
//! before the cursor's line. So it may as well be a method, a match arm, a field or an argument.

use std::ops::Range;
use std::time::Duration;

use text::ByteOffset;
use tree_sitter::{Node, Tree};

use crate::language::BlockForm;
use crate::source::Replaced;
use crate::tree::{Deadline, SyntaxTree, walk};

impl SyntaxTree {
    /// Returns the byte of `insert` at which the statement that `insert` in place of `range` goes on with, or else the
    /// first it begins, is over; `None` if it is not yet, or not for sure, or `budget` runs out.
    ///
    /// Where indentation makes the blocks, one is over only once a line with less follows it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// use text::ByteOffset;
    /// let tree = SyntaxTree::parse(Language::Rust, &"fn f() {\n    if a \n}\n".into(), Duration::MAX).unwrap();
    /// let cursor = ByteOffset(18)..ByteOffset(18);
    /// let end = |insert| tree.statement_end(cursor.clone(), insert, Duration::MAX);
    /// assert_eq!(end("{\n        b();\n"), None);
    /// assert_eq!(end("{\n        b();\n    }\n"), Some(20));
    /// ```
    #[must_use]
    pub fn statement_end(&self, range: Range<ByteOffset>, insert: &str, budget: Duration) -> Option<usize> {
        let replaced = Replaced::new(self.snapshot(), &range, insert);
        let tree = self.with(&replaced, Deadline::after(budget))?;
        let inserted = replaced.inserted();
        let statement = Self::statement(&tree, &replaced)?;
        let is_whole = statement.start_byte() < inserted.end
            && statement.end_byte() <= inserted.end
            && !statement.has_error();
        if !is_whole {
            return None;
        }
        let end = statement.end_byte() - inserted.start;
        let end = insert[..end].trim_end().len();
        // Its `;` or `,` may be no part of it.
        let rest = &insert[end..];
        let line = rest.split('\n').next().unwrap_or_default();
        let end = end + if matches!(line.trim(), ";" | "," | ")" | ");") { line.trim_end().len() } else { 0 };
        let rest = &insert[end..];
        let is_over = match self.language().block_form() {
            BlockForm::Indentation if holds_block(statement) => !rest.trim().is_empty(),
            // HTML lets an element end where another begins, so only its end tag is sure.
            BlockForm::Tags if statement.kind() == "element" => last_kind(statement) == "end_tag",
            _ => rest.contains('\n'),
        };
        is_over.then_some(end)
    }

    /// Returns the statement in the cursor's line if it goes on beyond the cursor, or else the one after the cursor.
    fn statement<'t>(tree: &'t Tree, text: &Replaced<'_>) -> Option<Node<'t>> {
        let inserted = text.inserted();
        let first = |from: usize| {
            let code = text.text(from..inserted.end);
            let from = from + code.bytes().position(|byte| !byte.is_ascii_whitespace())?;
            statement_of(&path_to(tree, from), from)
        };
        let line = text.line_start(inserted.start);
        if !text.text(line..inserted.start).trim().is_empty() {
            let statement = first(line)?;
            if statement.end_byte() > inserted.start {
                return Some(statement);
            }
        }
        first(inserted.start)
    }
}

/// Returns the nodes around a byte, the whole text's first, its token's last.
fn path_to(tree: &Tree, at: usize) -> Vec<Node<'_>> {
    let mut cursor = tree.walk();
    let mut path = vec![cursor.node()];
    // `Node::parent` begins at the root each time, which is too often where a text is nested deep.
    while cursor.goto_first_child_for_byte(at).is_some() && cursor.node().start_byte() <= at {
        path.push(cursor.node());
    }
    path
}

/// Returns the last node of `path` that stands directly in a list opened before `from`.
fn statement_of<'t>(path: &[Node<'t>], from: usize) -> Option<Node<'t>> {
    for idx in (1..path.len()).rev() {
        let (parent, statement) = (path[idx - 1], path[idx]);
        // The token that closes a list belongs to what the list belongs to.
        let closes = statement.child_count() == 0 && statement.end_byte() == parent.end_byte();
        if parent.is_error() {
            return is_statement(statement.kind()).then_some(statement);
        }
        if idx == 1 || is_list(parent, from) && !closes {
            return Some(statement);
        }
    }
    None
}

/// Returns whether what is named so is whole, even where nobody knows what it stands in.
fn is_statement(kind: &str) -> bool {
    ["_statement", "_declaration", "_definition", "_item"].iter().any(|end| kind.ends_with(end))
}

fn is_list(node: Node<'_>, from: usize) -> bool {
    let first = node.child(0).map_or("", |child| if child.is_named() { "" } else { child.kind() });
    match node.kind() {
        // Python and Lua; Ruby; Go; YAML: nothing opens it, so it begins where its first statement does.
        "block" | "body_statement" | "block_body" | "then" | "statement_list" | "block_mapping"
        | "block_sequence"
            if first.is_empty() =>
        {
            true
        }
        // Bash and HTML.
        "do_group" | "element" => node.start_byte() < from,
        _ => matches!(first, "{" | "[" | "(") && node.start_byte() < from,
    }
}

fn holds_block(node: Node<'_>) -> bool {
    let mut found = last_kind(node) == ":";
    walk(node, |node| {
        found |= matches!(node.kind(), "block" | "block_node");
        !found
    });
    found
}

fn last_kind(node: Node<'_>) -> &'static str {
    let mut cursor = node.walk();
    if cursor.goto_last_child() { cursor.node().kind() } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Language;

    /// Checks the end, marked with `$1` in the insertion; none means that decoding goes on.
    fn check(language: Language, before: &str, insert: &str) {
        let at = before.find("$0").expect("the case has a cursor");
        let text = before.replacen("$0", "", 1);
        let tree = SyntaxTree::parse(language, &text.as_str().into(), Duration::MAX).expect("no limit");
        let expected = insert.find("$1");
        let insert = insert.replacen("$1", "", 1);
        let found = tree.statement_end(ByteOffset(at)..ByteOffset(at), &insert, Duration::MAX);
        let after = format!("{}{insert}{}", &text[..at], &text[at..]);
        let after = SyntaxTree::parse(language, &after.as_str().into(), Duration::MAX).expect("no limit");
        assert_eq!(found, expected, "{language:?} {before:?} + {insert:?}\n  {}", after.root().to_sexp());
    }

    #[test]
    fn a_block_in_braces_is_over_where_it_is_closed() {
        for (language, before) in [
            (Language::Rust, "fn f() {\n    $0\n}\n"),
            (Language::Go, "package a\n\nfunc f() {\n    $0\n}\n"),
            (Language::C, "int f(void) {\n    $0\n}\n"),
            (Language::Java, "class A {\n    void f() {\n    $0\n    }\n}\n"),
            (Language::TypeScript, "function f() {\n    $0\n}\n"),
        ] {
            for insert in [
                "a();$1\n",
                "a();$1\n    b();\n",
                "a(b,\n",
                "a(b,\n      c);$1\n",
                "if (a) {\n",
                "if (a) {\n        b();\n",
                "if (a) {\n        b();\n    }$1\n",
                "if (a) {\n        b();\n    }$1\n    c();\n",
                "if (a) {\n        b();\n    } else {\n",
                "if (a) {\n        b();\n    } else {\n        c();\n    }$1\n",
                "\n    a();$1\n",
            ] {
                check(language, before, insert);
            }
        }
        check(Language::Rust, "fn f() {\n    if a {$0\n}\n", "\n        b();\n");
        check(Language::Rust, "fn f() {\n    if a {$0\n}\n", "\n        b();\n    }$1\n");
        check(Language::Rust, "fn f$0\n\nfn g() {}\n", "(a: u8) -> u8 {\n    a\n}$1\n");
        check(Language::Rust, "fn f$0\n\nfn g() {}\n", "(a: u8) -> u8 {\n    a\n");
        check(Language::Rust, "fn f() {\n    match x {\n        $0\n    }\n}\n", "A => b(),$1\n");
        check(
            Language::Rust,
            "fn f() {\n    match x {\n        $0\n    }\n}\n",
            "A => {\n            b()\n        }$1\n        B => 1,\n",
        );
        check(Language::Rust, "fn f() {\n    let x = y$0\n}\n", "\n        .a()\n");
        check(Language::Rust, "fn f() {\n    let x = y$0\n}\n", "\n        .a()\n        .b();$1\n");
        check(
            Language::Rust,
            "impl A {\n    $0\n}\n",
            "fn f(&self) {\n        a();\n    }$1\n\n    fn g() {}\n",
        );
        check(
            Language::Rust,
            "fn f() {\n    if a {\n        b();\n    } else {$0\n}\n",
            "\n        c();\n    }$1\n",
        );
        check(Language::Rust, "let v = vec![\n    $0\n];\n", "1,$1\n");
        check(Language::TypeScript, "const a = {\n  $0\n};\n", "b: 1,$1\n");
        check(Language::TypeScript, "const a = {\n  $0\n};\n", "b: () => {\n    c();\n  },$1\n");
        check(Language::TypeScript, "items.forEach($0\n", "(a) => {\n  b(a);\n});$1\n");
        check(Language::Java, "class A {\n    $0\n}\n", "int a;$1\n");
        check(Language::CSharp, "class A {\n    $0\n}\n", "int A() {\n        return 1;\n    }$1\n");
        check(Language::Php, "<?php\nfunction f() {\n    $0\n}\n", "if ($a) {\n        b();\n    }$1\n");
        check(Language::Css, "$0\n", "a {\n  color: red;\n}$1\n");
        // An unclosed block around it does not matter.
        check(Language::Rust, "fn f() {\n    $0\n", "let a = 1;$1\n    b();\n");
        check(Language::Java, "class A {\n    void f() {\n        $0\n", "if (a) {\n            b();\n");
        check(Language::Json, "{\n  \"a\": 1,\n  $0\n}\n", "\"b\": [\n    2\n  ]$1\n");
    }

    #[test]
    fn an_indented_block_is_over_where_a_line_has_less() {
        let python = "class A:\n    def f(self):\n        $0\n";
        for insert in [
            "x = 1$1\n",
            "x = 1$1\n        y = 2\n",
            "x = foo(\n",
            "x = foo(\n            1,\n        )$1\n",
            "if a:\n",
            "if a:\n            b()\n",
            "if a:\n            b()\n\n            c()\n",
            "if a:\n            b()$1\n        c()\n",
            "if a:\n            b()\n        else:\n",
            "if a:\n            b()\n        else:\n            c()$1\n        d()\n",
            "if a:\n            b()$1\n\n    def g(self):\n",
            "with a:\n            b()$1\n\n\nclass B:\n",
        ] {
            check(Language::Python, python, insert);
        }
        check(Language::Python, "def f$0\n\ndef g(): pass\n", "(a):\n    return a\n");
        check(Language::Python, "def f$0\n\ndef g(): pass\n", "(a):\n    return a$1\n\nx = 1\n");
        check(Language::Python, "x = [\n    $0\n]\n", "1,$1\n");
        check(Language::Yaml, "a:\n  $0\n", "b: 1$1\n");
        check(Language::Yaml, "a:\n  $0\n", "b:\n    c: 1$1\n  d: 2\n");
    }

    #[test]
    fn a_block_of_words_is_over_at_its_last_word() {
        check(Language::Ruby, "class A\n  $0\nend\n", "def f\n    a\n");
        check(Language::Ruby, "class A\n  $0\nend\n", "def f\n    a\n  end$1\n");
        check(Language::Ruby, "def f\n  $0\nend\n", "a = 1$1\n");
        check(Language::Ruby, "def f\n  $0\nend\n", "a.each do |b|\n    c\n  end$1\n");
        check(Language::Lua, "function f()\n  $0\nend\n", "if a then\n    b()\n");
        check(Language::Lua, "function f()\n  $0\nend\n", "if a then\n    b()\n  end$1\n  c()\n");
        check(Language::Lua, "function f()\n  $0\nend\n", "local a = 1$1\n");
        check(Language::Bash, "f() {\n  $0\n}\n", "if a; then\n    b\n");
        check(Language::Bash, "f() {\n  $0\n}\n", "if a; then\n    b\n  fi$1\n");
        check(Language::Bash, "f() {\n  $0\n}\n", "a b$1\n");
        check(Language::Html, "<div>\n  $0\n</div>\n", "<p>\n    a\n");
        check(Language::Html, "<div>\n  $0\n</div>\n", "<p>\n    a\n  </p>$1\n");
    }
}

//! The functions of a source text, and what in it is words rather than code.
//!
//! In: a text in one of the languages that can be mended. Out: its functions, strings and prose.
//! Never: an error; of another language nothing is known.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use syntax::{Language, Node, SyntaxTree};
use text::ByteOffset;

/// A function in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name; empty for one without.
    pub name: String,
    /// Its bytes, signature included.
    pub bytes: Range<usize>,
    /// Its lines, counted from 0.
    pub lines: Range<usize>,
    /// Whether it is a test: the suspect's accuser, never the suspect.
    pub is_test: bool,
}

/// Returns the tree of a file in a language whose mistakes [`mutate`](crate::mutate) knows.
pub(crate) fn tree_of(path: &Path, text: &str) -> Option<SyntaxTree> {
    let language = Language::of(path).filter(|language| is_known(*language))?;
    SyntaxTree::parse(language, &text.into(), Duration::MAX)
}

/// Returns whether a language's mistakes are known.
pub(crate) fn is_known(language: Language) -> bool {
    matches!(language, Language::JavaScript | Language::Python | Language::Rust)
}

/// Returns all functions, outer before inner, in the order of the text.
pub fn functions(tree: &SyntaxTree, text: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    tree.visit(|node| {
        if is_function(tree.language(), node.kind()) {
            functions.push(Function {
                name: name_of(node, text),
                bytes: node.byte_range(),
                lines: node.start_position().row..node.end_position().row + 1,
                is_test: is_test(tree.language(), node, text),
            });
        }
    });
    functions
}

fn is_function(language: Language, kind: &str) -> bool {
    match language {
        Language::Python => kind == "function_definition",
        Language::Rust => kind == "function_item",
        Language::JavaScript => matches!(
            kind,
            "function_declaration"
                | "function_expression"
                | "generator_function_declaration"
                | "arrow_function"
                | "method_definition"
        ),
        _ => false,
    }
}

fn is_test(language: Language, function: Node<'_>, text: &str) -> bool {
    match language {
        Language::Python => name_of(function, text).starts_with("test"),
        Language::Rust => {
            std::iter::successors(function.prev_named_sibling(), |node| node.prev_named_sibling())
                .take_while(|node| node.kind() == "attribute_item" || node.kind().contains("comment"))
                .any(|node| text[node.byte_range()].trim_end_matches(']').ends_with("test"))
        }
        Language::JavaScript => std::iter::successors(Some(function), |node| node.parent())
            .filter(|node| node.kind() == "call_expression")
            .filter_map(|call| call.child_by_field_name("function"))
            .any(|callee| {
                matches!(text[callee.byte_range()].split('.').next(), Some("test" | "it" | "describe"))
            }),
        _ => false,
    }
}

/// Returns the bytes of all names, in the order of the text.
pub(crate) fn identifiers(tree: &SyntaxTree) -> Vec<Range<usize>> {
    let all = ByteOffset(0)..ByteOffset(tree.snapshot().len_bytes());
    tree.identifiers(all).into_iter().map(|name| name.start.0..name.end.0).collect()
}

/// Returns the bytes of all string literals, docstrings included.
pub(crate) fn strings(tree: &SyntaxTree) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    tree.visit(|node| {
        if is_string(node) {
            ranges.push(node.byte_range());
        }
    });
    ranges
}

/// Returns the bytes of all comments and docstrings: places where an edit cannot mend a program.
pub(crate) fn prose(tree: &SyntaxTree) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    tree.visit(|node| {
        let is_docstring = node.kind() == "string"
            && node.parent().is_some_and(|parent| parent.kind() == "expression_statement");
        if node.kind().contains("comment") || is_docstring {
            ranges.push(node.byte_range());
        }
    });
    ranges
}

/// Returns whether a node is a whole string literal.
pub(crate) fn is_string(node: Node<'_>) -> bool {
    matches!(
        node.kind(),
        "string" | "string_literal" | "raw_string_literal" | "char_literal" | "template_string"
    )
}

fn name_of(node: Node<'_>, text: &str) -> String {
    let named = node.child_by_field_name("name").or_else(|| {
        // `const f = () => …` has its name outside.
        node.parent().filter(|parent| parent.kind() == "variable_declarator")?.child_by_field_name("name")
    });
    named.map(|name| text[name.byte_range()].to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(language: Language, text: &str) -> SyntaxTree {
        SyntaxTree::parse(language, &text.into(), Duration::MAX).expect("there is no limit")
    }

    fn names(language: Language, text: &str) -> Vec<String> {
        functions(&parse(language, text), text).into_iter().map(|function| function.name).collect()
    }

    #[test]
    fn functions_are_found_with_their_names() {
        assert_eq!(
            names(Language::Python, "def a():\n    def b(): pass\nclass C:\n    def d(self): pass\n"),
            ["a", "b", "d"]
        );
        assert_eq!(names(Language::Rust, "impl X { fn a(&self) {} }\nfn b() {}\n"), ["a", "b"]);
        assert_eq!(
            names(Language::JavaScript, "const a = (x) => x;\nfunction b() {}\ntest('n', () => {});\n"),
            ["a", "b", ""]
        );
    }

    #[test]
    fn tests_are_told_from_what_they_test() {
        let check = |language, text: &str, expected: &[bool]| {
            let found: Vec<bool> = functions(&parse(language, text), text)
                .into_iter()
                .map(|function| function.is_test)
                .collect();
            assert_eq!(found, expected, "{text:?}");
        };
        check(Language::Python, "def test_a(): pass\ndef a(): pass\n", &[true, false]);
        check(
            Language::Rust,
            "#[test]\n// why\nfn a() {}\n#[inline]\nfn b() {}\n#[tokio::test]\nfn c() {}\n",
            &[true, false, true],
        );
        check(
            Language::JavaScript,
            "it('x', () => { run(() => 1) });\nconst a = () => 1;\n",
            &[true, true, false],
        );
    }

    #[test]
    fn broken_texts_are_not_valid() {
        let check = |language, text, expected| {
            assert_eq!(parse(language, text).is_valid(), expected, "{text:?}");
        };
        check(Language::Python, "def a(:\n", false);
        check(Language::Python, "x = (1 +\n", false);
        check(Language::Python, "x = 1\n", true);
        check(Language::Rust, "fn a( {}", false);
        check(Language::JavaScript, "let = = 3", false);
        check(Language::JavaScript, "let a = 3", true);
    }

    #[test]
    fn names_and_prose_are_told_apart() {
        let text = "def f(a):\n    \"\"\"Docs.\"\"\"\n    # note\n    return g(a, 'x')\n";
        let tree = parse(Language::Python, text);
        let names: Vec<&str> = identifiers(&tree).into_iter().map(|bytes| &text[bytes]).collect();
        assert_eq!(names, ["f", "a", "g", "a"]);
        let prose: Vec<&str> = prose(&tree).into_iter().map(|bytes| &text[bytes]).collect();
        assert_eq!(prose, ["\"\"\"Docs.\"\"\"", "# note"]);
    }
}

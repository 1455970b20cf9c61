//! What tree-sitter knows about a source text.
//!
//! In: a text and its language. Out: whether it parses, its functions, the names used in a stretch of it.
//! Never: an error; a language without a grammar simply knows nothing.

use std::ops::Range;
use std::path::Path;

use tree_sitter::{Node, Parser, Tree};

/// A language with a grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Python 3.
    Python,
    /// Rust.
    Rust,
    /// JavaScript, modules and JSX included.
    JavaScript,
}

impl Language {
    /// Returns the language a file's extension says.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "py" | "pyi" => Some(Self::Python),
            "rs" => Some(Self::Rust),
            "js" | "mjs" | "cjs" | "jsx" => Some(Self::JavaScript),
            _ => None,
        }
    }

    fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
        }
    }

    fn is_function(self, kind: &str) -> bool {
        match self {
            Self::Python => kind == "function_definition",
            Self::Rust => kind == "function_item",
            Self::JavaScript => matches!(
                kind,
                "function_declaration"
                    | "function_expression"
                    | "generator_function_declaration"
                    | "arrow_function"
                    | "method_definition"
            ),
        }
    }
}

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

/// A parsed text.
pub struct Syntax {
    tree: Tree,
    language: Language,
}

impl Syntax {
    /// Parses a text; `None` only if tree-sitter gives up, which it does not without a time limit.
    pub fn parse(language: Language, text: &str) -> Option<Self> {
        let mut parser = Parser::new();
        parser.set_language(&language.grammar()).ok()?;
        Some(Self { tree: parser.parse(text, None)?, language })
    }

    /// Returns whether the text has no syntax error.
    pub fn is_valid(&self) -> bool {
        !self.tree.root_node().has_error()
    }

    /// Returns all functions, outer before inner, in the order of the text.
    pub fn functions(&self, text: &str) -> Vec<Function> {
        let mut functions = Vec::new();
        self.visit(|node| {
            if self.language.is_function(node.kind()) {
                functions.push(Function {
                    name: name_of(node, text),
                    bytes: node.byte_range(),
                    lines: node.start_position().row..node.end_position().row + 1,
                    is_test: self.is_test(node, text),
                });
            }
        });
        functions
    }

    fn is_test(&self, function: Node<'_>, text: &str) -> bool {
        match self.language {
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
        }
    }

    /// Returns the bytes of all names, in the order of the text.
    pub fn identifiers(&self) -> Vec<Range<usize>> {
        let mut identifiers = Vec::new();
        self.visit(|node| {
            if node.child_count() == 0 && node.kind().ends_with("identifier") {
                identifiers.push(node.byte_range());
            }
        });
        identifiers
    }

    /// Returns the bytes of all string literals, docstrings included.
    pub fn strings(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        self.visit(|node| {
            if is_string(node) {
                ranges.push(node.byte_range());
            }
        });
        ranges
    }

    /// Returns the bytes of all comments and docstrings: places where an edit cannot mend a program.
    pub fn prose(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        self.visit(|node| {
            let is_docstring = node.kind() == "string"
                && node.parent().is_some_and(|parent| parent.kind() == "expression_statement");
            if node.kind().contains("comment") || is_docstring {
                ranges.push(node.byte_range());
            }
        });
        ranges
    }

    /// Returns the language it was parsed as.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Visits every node, parents first.
    pub(crate) fn visit<'t>(&'t self, mut visit: impl FnMut(Node<'t>)) {
        let mut cursor = self.tree.walk();
        loop {
            visit(cursor.node());
            if cursor.goto_first_child() {
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return;
                }
            }
        }
    }
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

    fn names(language: Language, text: &str) -> Vec<String> {
        let syntax = Syntax::parse(language, text).expect("tree-sitter parses");
        syntax.functions(text).into_iter().map(|function| function.name).collect()
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
            let syntax = Syntax::parse(language, text).expect("parses");
            let found: Vec<bool> =
                syntax.functions(text).into_iter().map(|function| function.is_test).collect();
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
            assert_eq!(Syntax::parse(language, text).expect("parses").is_valid(), expected, "{text:?}");
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
        let syntax = Syntax::parse(Language::Python, text).expect("parses");
        let names: Vec<&str> = syntax.identifiers().into_iter().map(|bytes| &text[bytes]).collect();
        assert_eq!(names, ["f", "a", "g", "a"]);
        let prose: Vec<&str> = syntax.prose().into_iter().map(|bytes| &text[bytes]).collect();
        assert_eq!(prose, ["\"\"\"Docs.\"\"\"", "# note"]);
    }
}

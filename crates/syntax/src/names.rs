//! The names a text uses, and where it has them from.
//!
//! In: a tree. Out: names in a stretch of it, and imports as they are written.
//! Never: looks for the file that an import means.

use std::ops::Range;

use text::ByteOffset;
use tree_sitter::Node;

use crate::Language;
use crate::tree::{SyntaxTree, offsets, walk};

/// Names that a text has from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The module, package or file as it is written, without quotes.
    pub module: String,
    /// The names taken from it, as they are called there; `*` is all, none is the module itself.
    pub names: Vec<String>,
}

impl SyntaxTree {
    /// Returns where in `range` names stand, in the order of the text.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// use text::ByteOffset;
    /// let tree = SyntaxTree::parse(Language::Python, &"a = f(b.c, 'd')".into(), Duration::MAX).unwrap();
    /// let names = tree.identifiers(ByteOffset(2)..ByteOffset(15));
    /// let names: Vec<_> = names.into_iter().map(|name| tree.snapshot().slice(name)).collect();
    /// assert_eq!(names, ["f", "b", "c"]);
    /// ```
    #[must_use]
    pub fn identifiers(&self, range: Range<ByteOffset>) -> Vec<Range<ByteOffset>> {
        let mut identifiers = Vec::new();
        walk(self.root(), |node| {
            if node.child_count() == 0
                && is_identifier(self.language(), node.kind())
                && range.start.0 <= node.start_byte()
                && node.end_byte() <= range.end.0
            {
                identifiers.push(offsets(node.byte_range()));
            }
            node.start_byte() < range.end.0 && range.start.0 < node.end_byte()
        });
        identifiers
    }

    /// Returns what Python, Rust, JavaScript, TypeScript, Go, Java, C and C++ import or include, in order.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{Language, SyntaxTree};
    /// let tree = SyntaxTree::parse(Language::Python, &"from .a import b, c".into(), Duration::MAX).unwrap();
    /// let imports = tree.imports();
    /// assert_eq!((imports[0].module.as_str(), imports[0].names.join(" ")), (".a", "b c".to_owned()));
    /// ```
    #[must_use]
    pub fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        walk(self.root(), |node| {
            let n_before = imports.len();
            match self.language() {
                Language::Python => self.python_imports(node, &mut imports),
                Language::Rust if node.kind() == "use_declaration" => self.rust_imports(node, &mut imports),
                Language::JavaScript | Language::Tsx | Language::TypeScript => {
                    imports.extend(self.javascript_import(node));
                }
                Language::Go if node.kind() == "import_spec" => {
                    imports.extend(node.child_by_field_name("path").map(|path| self.module(path)));
                }
                Language::Java if node.kind() == "import_declaration" => {
                    imports.extend(self.java_import(node))
                }
                Language::C | Language::Cpp if node.kind() == "preproc_include" => {
                    imports.extend(node.child_by_field_name("path").map(|path| self.module(path)));
                }
                _ => {}
            }
            imports.len() == n_before
        });
        imports
    }

    fn python_imports(&self, node: Node<'_>, imports: &mut Vec<Import>) {
        let names = || {
            let mut cursor = node.walk();
            node.children_by_field_name("name", &mut cursor)
                .map(|name| self.word(name.child_by_field_name("name").unwrap_or(name)))
                .collect::<Vec<_>>()
        };
        match node.kind() {
            "import_statement" => {
                imports.extend(names().into_iter().map(|module| Import { module, names: Vec::new() }));
            }
            "import_from_statement" => {
                let Some(module) = node.child_by_field_name("module_name") else { return };
                let mut cursor = node.walk();
                let is_all = node.children(&mut cursor).any(|child| child.kind() == "wildcard_import");
                let names = if is_all { vec!["*".to_owned()] } else { names() };
                imports.push(Import { module: self.word(module), names });
            }
            _ => {}
        }
    }

    /// Adds what `use` takes, a module at a time: `a::{b, c::d}` is `b` of `a` and `d` of `a::c`.
    fn rust_imports(&self, node: Node<'_>, imports: &mut Vec<Import>) {
        let mut open: Vec<(String, Node<'_>)> = Vec::new();
        open.extend(node.child_by_field_name("argument").map(|argument| (String::new(), argument)));
        while let Some((module, tree)) = open.pop() {
            let within = |path: Node<'_>| join(&module, &self.word(path));
            let mut add = |module: String, name: String| match imports.last_mut() {
                Some(last) if last.module == module && !module.is_empty() => last.names.push(name),
                _ if module.is_empty() => imports.push(Import { module: name, names: Vec::new() }),
                _ => imports.push(Import { module, names: vec![name] }),
            };
            match tree.kind() {
                "scoped_use_list" => {
                    let list = tree.child_by_field_name("list");
                    let module = tree.child_by_field_name("path").map_or(module.clone(), within);
                    open.extend(list.map(|list| (module, list)));
                }
                "use_list" => {
                    let mut cursor = tree.walk();
                    let parts: Vec<_> = tree.named_children(&mut cursor).collect();
                    open.extend(parts.into_iter().rev().map(|part| (module.clone(), part)));
                }
                "use_as_clause" => {
                    open.extend(tree.child_by_field_name("path").map(|path| (module.clone(), path)));
                }
                "use_wildcard" => {
                    let module = tree.named_child(0).map_or(module.clone(), within);
                    add(module, "*".to_owned());
                }
                "scoped_identifier" => {
                    let Some(name) = tree.child_by_field_name("name") else { continue };
                    let module = tree.child_by_field_name("path").map_or(module.clone(), within);
                    add(module, self.word(name));
                }
                _ if tree.kind().contains("comment") => {}
                _ => add(module.clone(), self.word(tree)),
            }
        }
    }

    fn javascript_import(&self, node: Node<'_>) -> Option<Import> {
        if node.kind() == "call_expression" {
            let is_require = self.word(node.child_by_field_name("function")?) == "require";
            let path = node.child_by_field_name("arguments")?.named_child(0)?;
            return (is_require && path.kind() == "string").then(|| self.module(path));
        }
        if !matches!(node.kind(), "import_statement" | "export_statement") {
            return None;
        }
        let mut import = self.module(node.child_by_field_name("source")?);
        let source = node.child_by_field_name("source")?.start_byte();
        walk(node, |inner| {
            match inner.kind() {
                "import_specifier" | "export_specifier" => {
                    import.names.extend(inner.child_by_field_name("name").map(|name| self.word(name)));
                    return false;
                }
                "namespace_import" | "namespace_export" | "*" => import.names.push("*".to_owned()),
                "identifier" => import.names.push("default".to_owned()),
                _ => return inner.start_byte() < source,
            }
            false
        });
        Some(import)
    }

    fn java_import(&self, node: Node<'_>) -> Option<Import> {
        let mut cursor = node.walk();
        let is_all = node.children(&mut cursor).any(|child| child.kind() == "asterisk");
        let path = node.children(&mut cursor).find(|child| child.kind().ends_with("identifier"))?;
        if is_all {
            return Some(Import { module: self.word(path), names: vec!["*".to_owned()] });
        }
        let module = path.child_by_field_name("scope")?;
        let name = path.child_by_field_name("name")?;
        Some(Import { module: self.word(module), names: vec![self.word(name)] })
    }

    /// Returns a quoted module as a whole.
    fn module(&self, path: Node<'_>) -> Import {
        let path = self.word(path);
        let module = path.trim_matches(['"', '\'', '`']).trim_start_matches('<').trim_end_matches('>');
        Import { module: module.to_owned(), names: Vec::new() }
    }

    fn word(&self, node: Node<'_>) -> String {
        self.snapshot().slice(offsets(node.byte_range()))
    }
}

fn join(module: &str, path: &str) -> String {
    if module.is_empty() { path.to_owned() } else { format!("{module}::{path}") }
}

fn is_identifier(language: Language, kind: &str) -> bool {
    kind.ends_with("identifier")
        || match language {
            Language::Bash => matches!(kind, "variable_name" | "word"),
            Language::Css => matches!(kind, "class_name" | "id_name" | "property_name"),
            Language::Php => kind == "name",
            Language::Ruby => matches!(kind, "constant" | "global_variable" | "instance_variable"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Checks imports as `module: names`.
    fn check(language: Language, text: &str, expected: &[&str]) {
        let tree = SyntaxTree::parse(language, &text.into(), Duration::MAX).expect("there is no limit");
        let found: Vec<String> = tree
            .imports()
            .into_iter()
            .map(|import| format!("{}: {}", import.module, import.names.join(" ")).trim_end().to_owned())
            .collect();
        assert_eq!(found, expected, "{text:?} {}", tree.root().to_sexp());
    }

    #[test]
    fn imports_are_found_as_they_are_written() {
        check(
            Language::Python,
            "import os, a.b as c\nfrom . import d\nfrom ..e.f import g as h, i\nfrom j import *\nfrom __future__ import k\n",
            &["os:", "a.b:", ".: d", "..e.f: g i", "j: *"],
        );
        check(
            Language::Rust,
            "use std::fmt;\npub use a::{b, c as d, e::{self, f}};\nuse g::*;\nuse {h, i::j};\nuse k as l;\nuse crate::m::{n};\n",
            &["std: fmt", "a: b c", "a::e: self f", "g: *", "h:", "i: j", "k:", "crate::m: n"],
        );
        let javascript = "import a, { b as c, d } from './e';\nimport * as f from \"f\";\nimport 'g';\nexport { h } from '../i';\nexport * from 'j';\nconst k = require('l');\n";
        let expected = ["./e: default b d", "f: *", "g:", "../i: h", "j: *", "l:"];
        for language in [Language::JavaScript, Language::TypeScript, Language::Tsx] {
            check(language, javascript, &expected);
        }
        check(Language::TypeScript, "import type { A } from 'a';\n", &["a: A"]);
        check(
            Language::Go,
            "package a\n\nimport \"fmt\"\n\nimport (\n\tb \"c/d\"\n\t_ `e`\n)\n",
            &["fmt:", "c/d:", "e:"],
        );
        check(
            Language::Java,
            "import java.util.List;\nimport static a.B.*;\n",
            &["java.util: List", "a.B: *"],
        );
        for language in [Language::C, Language::Cpp] {
            check(language, "#include <a/b.h>\n#include \"c.h\"\n", &["a/b.h:", "c.h:"]);
        }
        check(Language::Json, "{ \"import\": 1 }", &[]);
    }

    #[test]
    fn names_are_told_from_other_words() {
        let check = |language, text: &str, expected: &[&str]| {
            let tree = SyntaxTree::parse(language, &text.into(), Duration::MAX).expect("there is no limit");
            let names = tree.identifiers(ByteOffset(0)..ByteOffset(text.len()));
            let names: Vec<String> = names.into_iter().map(|name| tree.snapshot().slice(name)).collect();
            assert_eq!(names, expected, "{text:?} {}", tree.root().to_sexp());
        };
        check(Language::Python, "def f(a):\n    # note\n    return g(a, 'x')\n", &["f", "a", "g", "a"]);
        check(Language::Rust, "fn f(a: A) -> u8 { a.b(\"c\") }", &["f", "a", "A", "a", "b"]);
        check(Language::TypeScript, "let a: B = { c, d: e };", &["a", "B", "c", "d", "e"]);
        check(Language::Go, "package a\n\nvar b = c.D\n", &["a", "b", "c", "D"]);
        check(Language::Cpp, "int a = b::c->d;", &["a", "b", "c", "d"]);
        check(Language::Java, "class A { B c = d.e(); }", &["A", "B", "c", "d", "e"]);
        check(Language::CSharp, "class A { B c = d.E(); }", &["A", "B", "c", "d", "E"]);
        check(Language::Ruby, "A = b + @c\n", &["A", "b", "@c"]);
        check(Language::Php, "<?php f($a, B::c());", &["f", "a", "B", "c"]);
        check(Language::Lua, "local a = b.c('d')\n", &["a", "b", "c"]);
        check(Language::Bash, "a=$b; c \"$d\"\n", &["a", "b", "c", "d"]);
    }
}

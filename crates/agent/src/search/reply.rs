//! A model's reply becomes the function it was asked for.
//!
//! In: a reply, whatever is in it. Out: text for the function's place, or nothing.
//! Never: an error: a reply that makes no sense is no candidate.

use std::ops::Range;

use std::time::Duration;

use syntax::{Language, SyntaxTree};

use crate::function::{Function, functions};

/// The function that a reply is to replace.
pub(super) struct Original<'a> {
    /// Of its file; none without a grammar.
    pub(super) language: Option<Language>,
    /// Empty for one without.
    pub(super) name: &'a str,
    /// The text of its file.
    pub(super) text: &'a str,
    /// Its bytes there, from its first word on.
    pub(super) bytes: Range<usize>,
}

impl Original<'_> {
    /// Returns the function's text.
    pub(super) fn function(&self) -> &str {
        &self.text[self.bytes.clone()]
    }

    /// Returns the white space before it on its line.
    pub(super) fn indent(&self) -> &str {
        let line = self.text[..self.bytes.start].rfind('\n').map_or(0, |at| at + 1);
        indent_of(&self.text[line..self.bytes.start])
    }

    /// Returns the function as a reply has it, indented as it stood; `None` if it is not there, or as it was.
    ///
    /// The last code block that has it counts: before it a model may quote what is wrong.
    pub(super) fn rewritten(&self, reply: &str) -> Option<String> {
        let answer = reply.rfind("</think>").map_or(reply, |at| &reply[at + "</think>".len()..]);
        let blocks = blocks(answer);
        let found = match blocks.as_slice() {
            [] => self.find(answer),
            blocks => blocks.iter().rev().find_map(|block| self.find(block)),
        };
        found.filter(|function| function.trim() != self.function().trim())
    }

    fn find(&self, code: &str) -> Option<String> {
        // A method of JavaScript is one only within a class.
        let in_class =
            || (self.language == Some(Language::JavaScript)).then(|| format!("class A {{\n{code}\n}}"));
        let named = self.named(code).or_else(|| self.named(&in_class()?));
        let is_nameless = !self.function().contains(self.name) || self.name.is_empty();
        let (indent, function) = match named {
            Some(found) => found,
            // Code without a name to go by: all of the block, which the grammar of the whole file will judge.
            None if is_nameless || self.language.is_none() => {
                let code = code.trim_matches(['\r', '\n']).trim_end();
                let indent = indent_of(code);
                (indent.to_owned(), code[indent.len()..].trim_end_matches(';').to_owned())
            }
            None => return None,
        };
        let function = self.reindented(&function, &indent);
        let function = if self.text.contains("\r\n") { function.replace('\n', "\r\n") } else { function };
        (!function.trim().is_empty()).then_some(function)
    }

    /// Returns the function of this name in `code`, with the white space before it.
    fn named(&self, code: &str) -> Option<(String, String)> {
        if self.name.is_empty() {
            return None;
        }
        let code = code.replace("\r\n", "\n");
        let tree = SyntaxTree::parse(self.language?, &code.as_str().into(), Duration::MAX)?;
        let functions = functions(&tree, &code);
        let Function { bytes, .. } = functions.into_iter().find(|function| function.name == self.name)?;
        let line = code[..bytes.start].rfind('\n').map_or(0, |at| at + 1);
        Some((indent_of(&code[line..bytes.start]).to_owned(), code[bytes].to_owned()))
    }

    /// Moves a function from the indentation `from` to the original's.
    fn reindented(&self, function: &str, from: &str) -> String {
        let to = self.indent();
        let is_copied = from.is_empty() && least_indent(function) >= least_indent(self.function());
        if from == to || is_copied {
            return function.to_owned();
        }
        let mut lines = function.split('\n');
        let mut moved = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            moved.push('\n');
            if !line.trim().is_empty() {
                let n_common = line.bytes().zip(from.bytes()).take_while(|(byte, from)| byte == from).count();
                moved.push_str(to);
                moved.push_str(&line[n_common..]);
            }
        }
        moved
    }
}

/// Returns the code blocks of a reply; the last one may lack its end.
fn blocks(reply: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, &str, String)> = None;
    for line in reply.split_inclusive('\n') {
        let fence = fence_of(line);
        match (&mut open, fence) {
            (None, Some(fence)) => open = Some((fence, indent_of(line), String::new())),
            (Some((opening, _, block)), Some(fence))
                if fence.starts_with(*opening) && line.trim().len() == fence.len() =>
            {
                blocks.push(std::mem::take(block));
                open = None;
            }
            // In a list the code is indented as its fence is.
            (Some((_, indent, block)), _) => block.push_str(line.strip_prefix(*indent).unwrap_or(line)),
            (None, None) => {}
        }
    }
    blocks.extend(open.map(|(_, _, block)| block));
    blocks
}

/// Returns the three or more backticks or tildes that a line begins with.
fn fence_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let fence = &line[..line.len() - line.trim_start_matches(mark).len()];
    (fence.len() >= 3).then_some(fence)
}

fn indent_of(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// Returns the least indentation of a text's lines behind the first.
fn least_indent(text: &str) -> usize {
    let lines = text.split('\n').skip(1).filter(|line| !line.trim().is_empty());
    lines.map(|line| indent_of(line).len()).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, name: &str, reply: &str, expected: Option<&str>) {
        let language = Language::of(std::path::Path::new(path)).filter(|l| crate::function::is_known(*l));
        let bytes = match crate::function::tree_of(std::path::Path::new(path), text) {
            Some(tree) => {
                let functions = functions(&tree, text);
                let found = functions.iter().find(|function| function.name == name).expect("the function");
                found.bytes.clone()
            }
            None => 0..text.len(),
        };
        let original = Original { language, name, text, bytes };
        assert_eq!(original.rewritten(reply).as_deref(), expected, "{reply:?}");
    }

    const ADD: &str = "def add(a, b):\n    return a - b\n";
    const MENDED: Option<&str> = Some("def add(a, b):\n    return a + b");

    #[test]
    fn a_function_is_found_in_whatever_a_model_says() {
        let python = |reply: &str, expected| check("a.py", ADD, "add", reply, expected);
        python("```python\ndef add(a, b):\n    return a + b\n```", MENDED);
        python("Sure!\n\n```\ndef add(a, b):\n    return a + b\n```\nThat mends it.", MENDED);
        python("~~~~py\r\ndef add(a, b):\r\n    return a + b\r\n~~~~\r\n", MENDED);
        python("1. So:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n", MENDED);
        python("def add(a, b):\n    return a + b\n", MENDED);
        python(
            "```python\nimport math\n\ndef sub(a):\n    pass\n\ndef add(a, b):\n    return a + b\n\nadd(1, 2)\n```",
            MENDED,
        );
        python(
            "```\ndef add(a, b):\n    return a - b\n```\nshould be\n```\ndef add(a, b):\n    return a + b\n```",
            MENDED,
        );
        python("```\ndef add(a, b):\n    return a + b\n```\nTry it:\n```\nadd(1, 2)\n```", MENDED);
        python(
            "<think>\n```\ndef add(a, b):\n    return 0\n```\n</think>\n```\ndef add(a, b):\n    return a + b\n```",
            MENDED,
        );
        python("```python\ndef add(a, b):\n    return a + b", MENDED);
        // A fence of other marks within is code.
        python(
            "````\ndef add(a, b):\n    '''\n```\n    '''\n    return a + b\n````",
            Some("def add(a, b):\n    '''\n```\n    '''\n    return a + b"),
        );
    }

    #[test]
    fn what_is_no_rewrite_is_nothing() {
        let python = |reply: &str| check("a.py", ADD, "add", reply, None);
        python("");
        python("I cannot help with that.");
        python("```python\ndef add(a, b):\n    return a - b\n```");
        python("```python\ndef plus(a, b):\n    return a + b\n```");
        python("```python\nreturn a + b\n```");
        python("```python\n```");
        python("```");
    }

    #[test]
    fn indentation_becomes_the_originals() {
        let text = "class A:\n    def add(self, b):\n        if b:\n            return 1\n        return 2\n";
        let expected = Some("def add(self, b):\n        if b:\n            return 3\n\n        return 2");
        let method = |reply: &str| check("a.py", text, "add", reply, expected);
        method("```\n    def add(self, b):\n        if b:\n            return 3\n\n        return 2\n```");
        method("```\ndef add(self, b):\n    if b:\n        return 3\n\n    return 2\n```");
        method(
            "```\nclass A:\n    def add(self, b):\n        if b:\n            return 3\n\n        return 2\n```",
        );
        // The first line without its indentation, as the function was cut out.
        method("```\ndef add(self, b):\n        if b:\n            return 3\n\n        return 2\n```");
        method(
            "```\n        def add(self, b):\n            if b:\n                return 3\n\n            return 2\n```",
        );
        let tabs = "class A:\n\tdef one(self):\n\t\treturn 2\n";
        check(
            "a.py",
            tabs,
            "one",
            "```\ndef one(self):\n\treturn 1\n```",
            Some("def one(self):\n\t\treturn 1"),
        );
    }

    #[test]
    fn other_languages_have_their_ways() {
        let rust = "impl X {\n    pub fn one(&self) -> u8 {\n        2\n    }\n}\n";
        check(
            "a.rs",
            rust,
            "one",
            "```rust\npub fn one(&self) -> u8 {\n    1\n}\n```",
            Some("pub fn one(&self) -> u8 {\n        1\n    }"),
        );
        let script = "class A {\n  one() {\n    return 2;\n  }\n}\nconst two = (x) => x;\n";
        check(
            "a.js",
            script,
            "one",
            "```js\none() {\n  return 1;\n}\n```",
            Some("one() {\n    return 1;\n  }"),
        );
        check("a.js", script, "two", "```js\nconst two = (x) => x + x;\n```", Some("(x) => x + x"));
        check("a.js", script, "two", "```js\n(x) => x + x;\n```", Some("(x) => x + x"));
        check(
            "a.zig",
            "fn one() u8 {\r\n  return 2;\r\n}\r\n",
            "",
            "```\nfn one() u8 {\n  return 1;\n}\n```",
            Some("fn one() u8 {\r\n  return 1;\r\n}"),
        );
    }
}

//! What a text defines that other texts may use.
//!
//! In: a tree. Out: its functions, types and constants with their signatures, in the order of the text.
//! Never: what is local to a function. A language without definitions has none.
//! Source: the node types of each grammar (`node-types.json`); the grammars' own tag queries leave out constants,
//! C++'s methods and all of Bash.

use std::ops::Range;

use text::ByteOffset;
use tree_sitter::Node;

use crate::Language;
use crate::tree::{SyntaxTree, offsets, walk_deep};

mod kinds;

/// Something a text defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its own name.
    pub name: String,
    /// What it is.
    pub kind: DefinitionKind,
    /// The name of the type it is defined in, or for, if there is one.
    pub container: Option<String>,
    /// All of it, with its decorators, without its comments.
    pub bytes: Range<ByteOffset>,
    /// What its user must know: all before its body, or its first line.
    pub signature: Range<ByteOffset>,
    /// The comments right above it, or its docstring.
    pub doc: Option<Range<ByteOffset>>,
}

/// What a definition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefinitionKind {
    /// A function or a macro that looks like one.
    Function,
    /// A function of a type.
    Method,
    /// A class, a record, or Ruby's module.
    Class,
    /// A struct or a union.
    Struct,
    /// An enumeration.
    Enum,
    /// A trait.
    Trait,
    /// An interface.
    Interface,
    /// Another name for a type.
    Type,
    /// A constant.
    Constant,
}

/// How deep definitions are looked for: a method in a class in a namespace is at about 10.
const N_MAX_DEPTH: usize = 256;

impl SyntaxTree {
    /// Returns what the text defines, in its order.
    ///
    /// ```
    /// use std::time::Duration;
    /// use syntax::{DefinitionKind, Language, SyntaxTree};
    /// let tree = SyntaxTree::parse(Language::Python, &"def f(a):\n    return a\n".into(), Duration::MAX).unwrap();
    /// let found = tree.definitions();
    /// assert_eq!((found[0].name.as_str(), found[0].kind), ("f", DefinitionKind::Function));
    /// assert_eq!(tree.snapshot().slice(found[0].signature.clone()), "def f(a):");
    /// ```
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        let mut definitions = Vec::new();
        // The types around the node, with their ends.
        let mut types: Vec<(usize, String)> = Vec::new();
        walk_deep(self.root(), |node, depth| {
            if depth > N_MAX_DEPTH {
                return false;
            }
            while types.last().is_some_and(|(end, _)| *end <= node.start_byte()) {
                types.pop();
            }
            if let Some(name) = kinds::implemented(self.language(), node) {
                types.push((node.end_byte(), self.text_of(name)));
                return true;
            }
            let Some((kind, name)) = kinds::defined(self.language(), node) else {
                return true;
            };
            let definition = self.definition(node, kind, name, types.last().map(|(_, name)| name.as_str()));
            let is_function = matches!(definition.kind, DefinitionKind::Function | DefinitionKind::Method);
            if !is_function {
                types.push((node.end_byte(), definition.name.clone()));
            }
            definitions.push(definition);
            // What a function defines is its own business.
            !is_function
        });
        definitions
    }

    fn definition(
        &self,
        node: Node<'_>,
        kind: DefinitionKind,
        name: Node<'_>,
        around: Option<&str>,
    ) -> Definition {
        let name = self.text_of(name);
        let receiver = kinds::receiver(node).map(|receiver| self.text_of(receiver));
        // C++'s and Lua's methods may stand outside of their type.
        let (container, name) = match name.rsplit_once("::").or_else(|| name.rsplit_once([':', '.'])) {
            Some((container, name)) => (Some(container.to_owned()), name.to_owned()),
            None => (receiver.or_else(|| around.map(str::to_owned)), name),
        };
        let kind = match kind {
            DefinitionKind::Function if container.is_some() => DefinitionKind::Method,
            kind => kind,
        };
        let item = kinds::item(node);
        Definition {
            name,
            kind,
            container,
            bytes: offsets(item.byte_range()),
            signature: self.signature(node, item),
            doc: self.doc(node, item),
        }
    }

    /// Returns all before the body, or the first line of what has none.
    fn signature(&self, node: Node<'_>, item: Node<'_>) -> Range<ByteOffset> {
        let start = if item.kind() == "template_declaration" { item } else { node }.start_byte();
        let text = match kinds::body(node) {
            Some(body) => self.slice(start..body.start_byte()),
            None => self.slice(start..node.end_byte()).lines().next().unwrap_or_default().to_owned(),
        };
        offsets(start..start + text.trim_end().trim_end_matches("=>").trim_end().len())
    }

    /// Returns the comments right above an item, or the string its body begins with.
    fn doc(&self, node: Node<'_>, item: Node<'_>) -> Option<Range<ByteOffset>> {
        if self.language() == Language::Python {
            let first = kinds::body(node)?.named_child(0)?;
            let string = if first.kind() == "expression_statement" { first.named_child(0)? } else { first };
            return (string.kind() == "string").then(|| offsets(string.byte_range()));
        }
        let mut doc: Option<Range<usize>> = None;
        let mut below = item.start_position().row;
        let mut above = item.prev_sibling();
        while let Some(comment) = above {
            let end = comment.end_position();
            // A comment may take its line break in.
            let last = if end.column == 0 { end.row.saturating_sub(1) } else { end.row };
            let is_comment = comment.kind().contains("comment");
            if !is_comment && comment.kind() != "attribute_item" || last + 1 < below {
                break;
            }
            if is_comment {
                doc = Some(comment.start_byte()..doc.map_or(comment.end_byte(), |doc| doc.end));
            }
            below = comment.start_position().row;
            above = comment.prev_sibling();
        }
        doc.map(offsets)
    }

    fn slice(&self, range: Range<usize>) -> String {
        self.snapshot().slice(offsets(range))
    }

    fn text_of(&self, node: Node<'_>) -> String {
        self.slice(node.byte_range())
    }
}

#[cfg(test)]
mod tests;

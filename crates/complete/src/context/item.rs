//! What a file defines, as another file's reader must know it.
//!
//! In: a tree. Out: [`File`]: for each of its types, functions and constants a few lines.
//! Never: a body. The lines depend on the file alone, so that they are the same each time they are shown.

use std::collections::HashSet;
use std::ops::Range;

use syntax::{BlockForm, Definition, DefinitionKind, SyntaxTree};
use text::ByteOffset;

/// Longest signature; more is cut off.
const N_MAX_SIGNATURE_BYTES: usize = 240;
/// Most bytes of a type's methods.
const N_MAX_MEMBERS_BYTES: usize = 480;

/// What a file defines.
#[derive(Debug, Default)]
pub(super) struct File {
    /// In the order of the text.
    pub(super) items: Vec<Item>,
}

/// A type with its methods, a function or a constant.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    pub(super) name: String,
    /// The names of its methods.
    pub(super) members: HashSet<String>,
    /// Where in the file it stands.
    pub(super) bytes: Range<ByteOffset>,
    /// What is shown of it, lines ended by `\n`.
    pub(super) text: String,
}

impl File {
    pub(super) fn of(tree: &SyntaxTree) -> Self {
        let definitions = tree.definitions();
        let (tops, members): (Vec<_>, Vec<_>) =
            definitions.into_iter().partition(|definition| definition.container.is_none());
        let mut taken = HashSet::new();
        let item = |top: Definition| {
            // A method stands in its type, or in an `impl` of it further on.
            let mine = members.iter().filter(|member| member.container.as_ref() == Some(&top.name));
            let mine: Vec<_> =
                if is_type(top.kind) && taken.insert(top.name.clone()) { mine.collect() } else { Vec::new() };
            Item {
                text: text(tree, &top, &mine),
                members: mine.iter().map(|member| member.name.clone()).collect(),
                name: top.name,
                bytes: top.bytes,
            }
        };
        Self { items: tops.into_iter().map(item).collect() }
    }
}

impl Item {
    /// Returns whether the file's own reader means it for others.
    pub(super) fn is_public(&self) -> bool {
        !self.name.starts_with('_')
    }
}

fn is_type(kind: DefinitionKind) -> bool {
    !matches!(kind, DefinitionKind::Function | DefinitionKind::Method | DefinitionKind::Constant)
}

fn text(tree: &SyntaxTree, top: &Definition, members: &[&Definition]) -> String {
    let mut text = line(tree, top, "");
    let n_head = text.len();
    for member in members.iter().filter(|member| is_interface(member)) {
        let line = line(tree, member, "    ");
        if text.len() + line.len() > n_head + N_MAX_MEMBERS_BYTES {
            break;
        }
        text.push_str(&line);
    }
    text
}

/// Returns whether a method is of use from outside of its type.
fn is_interface(member: &Definition) -> bool {
    !member.name.starts_with('_') || member.name == "__init__"
}

/// Returns a signature on one line, as if there were a body behind it.
fn line(tree: &SyntaxTree, definition: &Definition, indentation: &str) -> String {
    let signature = tree.snapshot().slice(definition.signature.clone());
    let words = signature.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = words.replace("( ", "(").replace(", )", ")").replace(" )", ")");
    if line.len() > N_MAX_SIGNATURE_BYTES {
        let end = (0..=N_MAX_SIGNATURE_BYTES).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or_default());
    }
    let body = match tree.language().block_form() {
        BlockForm::Indentation if line.ends_with(':') && !is_type(definition.kind) => " ...",
        _ => "",
    };
    format!("{indentation}{line}{body}\n")
}

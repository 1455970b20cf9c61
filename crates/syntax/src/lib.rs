//! What tree-sitter knows about a source text, in 20 languages.
//!
//! In: a text's snapshot and its language. Out: a tree that follows the text, and what can be read off it: whether
//! an insertion adds a syntax error, where a statement ends, definitions, imports and names.
//! Never: an error; what has no grammar, or takes longer than its budget, is simply not known.
//! Thread: any; a tree may be sent to and shared between threads.
#![forbid(unsafe_code)]

mod definition;
mod errors;
mod hazard;
mod language;
mod names;
mod source;
mod statement;
mod tree;

pub use definition::{Definition, DefinitionKind};
pub use language::{BlockForm, Language};
pub use names::Import;
pub use tree::SyntaxTree;

/// A node of a tree, for what only its user wants to know.
pub use tree_sitter::Node;

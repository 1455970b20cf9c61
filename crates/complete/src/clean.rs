//! Ghost text that leaves a document's syntax as sound as it was.
//!
//! In: ghost text and the document's language. Out: as much of it as adds no syntax error.
//! Never: takes longer than its budget; a document that is too large for it is shown what the model says.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use syntax::{Language, SyntaxTree};
use text::Snapshot;

use crate::{GhostText, NoneReason, Request};

/// Longest time for a document's first parse: 10,000 lines.
const FIRST: Duration = Duration::from_millis(100);
/// Longest time to catch up with what was typed.
const UPDATE: Duration = Duration::from_millis(20);
/// Longest time to try what of an insertion is sound.
const TRY: Duration = Duration::from_millis(20);

/// The trees of the open documents.
#[derive(Debug, Default)]
pub struct Trees {
    by_uri: HashMap<String, Kept>,
}

#[derive(Debug)]
struct Kept {
    language: Language,
    /// The tree of what the document was when it was last looked at.
    tree: Option<SyntaxTree>,
}

impl Trees {
    /// Takes note of a document's language, as its editor calls it or as its name says; others have no tree.
    pub fn open(&mut self, uri: &str, language_id: &str) {
        match Language::of_id(language_id).or_else(|| Language::of(Path::new(uri))) {
            Some(language) => self.by_uri.insert(uri.to_owned(), Kept { language, tree: None }),
            None => self.by_uri.remove(uri),
        };
    }

    /// Forgets a document.
    pub fn close(&mut self, uri: &str) {
        self.by_uri.remove(uri);
    }

    /// Parses a document as far as it has changed; who has time does so before it matters.
    pub fn update(&mut self, uri: &str, document: &Snapshot) -> Option<&SyntaxTree> {
        let kept = self.by_uri.get_mut(uri)?;
        kept.tree = match kept.tree.take() {
            Some(tree) => tree.updated(document, UPDATE),
            None => SyntaxTree::parse(kept.language, document, FIRST),
        };
        kept.tree.as_ref()
    }

    /// Returns as much of ghost text as adds no syntax error.
    ///
    /// # Errors
    /// [`NoneReason::AddsError`] if that is nothing.
    pub fn clean(
        &mut self,
        uri: &str,
        request: &Request<'_>,
        ghost: GhostText,
    ) -> Result<GhostText, NoneReason> {
        let Some(tree) = self.update(uri, request.document) else { return Ok(ghost) };
        match tree.shorten(ghost.range.clone(), &ghost.insert, TRY) {
            Some("") => Err(NoneReason::AddsError),
            Some(sound) => Ok(GhostText { insert: sound.trim_end().to_owned(), ..ghost }),
            None => Ok(ghost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trigger;
    use text::{ByteOffset, Document};

    /// `$0` is the cursor.
    fn check(uri: &str, language_id: &str, marked: &str, insert: &str, expected: Result<&str, NoneReason>) {
        let offset = ByteOffset(marked.find("$0").expect("a cursor"));
        let document = Document::open(&marked.replace("$0", ""), 1).snapshot();
        let request = Request { document: &document, offset, trigger: Trigger::Automatic };
        let mut trees = Trees::default();
        trees.open(uri, language_id);
        let ghost = GhostText { insert: insert.to_owned(), range: offset..offset, version: 1 };
        let clean = trees.clean(uri, &request, ghost).map(|ghost| ghost.insert);
        assert_eq!(clean, expected.map(str::to_owned), "{marked:?} {insert:?}");
    }

    #[test]
    fn what_adds_a_syntax_error_is_cut_off_or_not_shown() {
        check("file:///a", "python", "def f(x):\n    $0\n", "return x", Ok("return x"));
        check("file:///a", "python", "def f(x):\n    $0\n", "return x)", Err(NoneReason::AddsError));
        check("file:///a.py", "?", "def f(x):\n    $0\n", "return (x", Err(NoneReason::AddsError));
        check("file:///a", "rust", "fn f() {\n    $0\n}\n", "a();\n    if b {", Ok("a();"));
        check("file:///a", "klingon", "fn f() {\n    $0\n}\n", "a();\n    if b {", Ok("a();\n    if b {"));
    }
}

//! Ghost text that leaves a document's syntax as sound as it was.
//!
//! In: ghost text and the document's language. Out: as much of it as adds no syntax error.
//! Never: takes longer than its budget; a document that is too large for it is shown what the model says.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use syntax::{BlockForm, Language, SyntaxTree};
use text::{ByteOffset, Snapshot};

use crate::gate::{self, Around, indentation};
use crate::{GhostText, NoneReason, Request};

/// Longest time for a document's first parse: 10,000 lines.
const FIRST: Duration = Duration::from_millis(100);
/// Longest time to catch up with what was typed.
const UPDATE: Duration = Duration::from_millis(10);
/// Longest time to try what of an insertion is sound.
pub(crate) const TRY: Duration = Duration::from_millis(10);

/// The trees of the open documents.
#[derive(Debug, Default)]
pub struct Trees {
    by_uri: HashMap<String, Seen>,
}

impl Trees {
    /// Takes note of a document's language, as its editor calls it or as its name says; others have no tree.
    pub fn open(&mut self, uri: &str, language_id: &str) {
        match Language::of_id(language_id).or_else(|| Language::of(Path::new(uri))) {
            Some(language) => self.by_uri.insert(uri.to_owned(), Seen::new(language)),
            None => self.by_uri.remove(uri),
        };
    }

    /// Forgets a document.
    pub fn close(&mut self, uri: &str) {
        self.by_uri.remove(uri);
    }

    /// Returns what is known of a document, for a thread that brings it up to date.
    pub fn seen(&self, uri: &str) -> Option<Seen> {
        self.by_uri.get(uri).cloned()
    }

    /// Takes what another thread came to know of a document, if that is still open and in the same language.
    pub fn keep(&mut self, uri: &str, seen: Seen) {
        if let Some(kept) = self.by_uri.get_mut(uri).filter(|kept| kept.language == seen.language) {
            *kept = seen;
        }
    }

    /// Parses a document as far as it has changed.
    pub fn update(&mut self, uri: &str, document: &Snapshot) -> Option<&SyntaxTree> {
        self.by_uri.get_mut(uri)?.update(document)
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
        match fit(tree, request, &gate::around(request), &ghost.insert) {
            "" => Err(NoneReason::AddsError),
            fit => Ok(GhostText { insert: fit.trim_end().to_owned(), ..ghost }),
        }
    }
}

/// Returns as much of an insertion at the cursor as goes with the lines around it.
fn fit<'i>(tree: &SyntaxTree, request: &Request<'_>, around: &Around, insert: &'i str) -> &'i str {
    let mut fit = sound(tree, request.offset..request.offset, insert, TRY);
    while !is_indented_right(tree.language(), around, fit) {
        fit = fit.rsplit_once('\n').map_or("", |(before, _)| before.trim_end());
    }
    fit
}

/// Returns as much of an insertion as adds no syntax error, as far as that is known in time.
fn sound<'i>(tree: &SyntaxTree, range: Range<ByteOffset>, insert: &'i str, budget: Duration) -> &'i str {
    match tree.shorten(range, insert, budget) {
        Some(sound) => sound,
        // A tree without errors takes long only where what follows comes to mean something else, as behind a quotation
        // mark: hardly anybody wants that.
        None if tree.is_valid() => "",
        // All its errors are counted, which says nothing of the insertion.
        None => insert,
    }
}

/// A document's language, and its tree as it was last seen.
#[derive(Clone, Debug)]
pub struct Seen {
    language: Language,
    tree: Option<SyntaxTree>,
    /// Whether its first parse did not come to an end. It is not tried again at every key.
    is_too_large: bool,
}

impl Seen {
    fn new(language: Language) -> Self {
        Self { language, tree: None, is_too_large: false }
    }

    /// Returns the tree of what the document has become.
    pub fn update(&mut self, document: &Snapshot) -> Option<&SyntaxTree> {
        self.tree = match self.tree.take() {
            Some(tree) => tree.updated(document, UPDATE),
            None if self.is_too_large => None,
            None => {
                let tree = SyntaxTree::parse(self.language, document, FIRST);
                self.is_too_large = tree.is_none();
                tree
            }
        };
        self.tree.as_ref()
    }
}

/// Returns whether some of a text at the cursor goes with the lines around it, as far as is known.
pub(crate) fn adds_some(request: &Request<'_>, around: &Around, text: &str) -> bool {
    request.tree.is_none_or(|tree| !fit(tree, request, around, text).is_empty())
}

/// Returns whether a line at the cursor goes with the lines around it, as far as is known.
pub(crate) fn goes_with(request: &Request<'_>, around: &Around, line: &str) -> bool {
    let Some(tree) = request.tree else { return true };
    is_indented_right(tree.language(), around, line)
        && tree.adds_error(request.offset..request.offset, line, TRY) != Some(true)
}

/// Returns whether the last line of `text` at the cursor opens a block just if the next line is in one: in a language whose
/// blocks are indented that is an error, which its grammar overlooks.
fn is_indented_right(language: Language, around: &Around, text: &str) -> bool {
    let next = around.below.as_deref().filter(|_| around.tail.trim().is_empty());
    let (Some(next), BlockForm::Indentation) = (next, language.block_form()) else { return true };
    let is_code = |line: &str| {
        let line = line.trim();
        !line.is_empty() && language.line_comment().is_none_or(|mark| !line.starts_with(mark))
    };
    // Comments are in no block.
    if !is_code(next) {
        return true;
    }
    let Some((idx, last)) = text.lines().enumerate().filter(|(_, line)| is_code(line)).last() else {
        return true;
    };
    let is_first = idx == 0;
    let last = if is_first { format!("{}{last}", around.head) } else { last.to_owned() };
    if !is_code(&last) {
        return true;
    }
    let is_deeper = indentation(next) > indentation(&last);
    match last.trim_end().chars().next_back() {
        Some(':') => is_deeper,
        // What is open goes on in any way.
        Some('(' | '[' | '{' | ',' | '\\') => true,
        _ => !(is_deeper && is_first && around.next_indent.is_some()),
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
        let request =
            Request { document: &document, offset, trigger: Trigger::Automatic, tree: None, context: None };
        let mut trees = Trees::default();
        trees.open(uri, language_id);
        let ghost = GhostText { insert: insert.to_owned(), range: offset..offset, version: 1 };
        let clean = trees.clean(uri, &request, ghost).map(|ghost| ghost.insert);
        assert_eq!(clean, expected.map(str::to_owned), "{marked:?} {insert:?}");
    }

    #[test]
    fn what_a_thread_saw_of_a_document_is_kept_while_that_is_open() {
        let document = Document::open("x = 1\n", 1).snapshot();
        let mut trees = Trees::default();
        trees.open("file:///a", "python");
        let mut seen = trees.seen("file:///a").expect("it is open");
        assert!(seen.update(&document).is_some());
        trees.keep("file:///a", seen.clone());
        assert!(trees.seen("file:///a").expect("it is open").tree.is_some());
        // Opened again in another language, or closed, since the thread began.
        trees.open("file:///a", "rust");
        trees.keep("file:///a", seen.clone());
        assert!(trees.seen("file:///a").expect("it is open").tree.is_none());
        trees.close("file:///a");
        trees.keep("file:///a", seen);
        assert!(trees.seen("file:///a").is_none());
    }

    #[test]
    fn a_document_that_cannot_be_parsed_in_time_is_not_tried_at_every_key() {
        let mut seen = Seen { is_too_large: true, ..Seen::new(Language::Python) };
        assert!(seen.update(&Document::open("x = 1\n", 1).snapshot()).is_none());
    }

    #[test]
    fn what_takes_too_long_is_shown_only_in_a_document_that_has_errors() {
        let lines = "x = [1, 2]\n".repeat(5_000);
        // The quotation mark makes code of all that follows.
        let (valid, ends) = (format!("\"\"\"a\n{lines}\"\"\"\n"), "b\"\"\"");
        let (invalid, word) = (format!("x = )\n{lines}"), "y");
        for (text, insert, expected) in [(valid, ends, ""), (invalid, word, word)] {
            let tree =
                SyntaxTree::parse(Language::Python, &Document::open(&text, 1).snapshot(), Duration::MAX);
            let tree = tree.expect("no limit");
            let cursor = ByteOffset(4)..ByteOffset(4);
            assert_eq!(sound(&tree, cursor, insert, Duration::ZERO), expected, "{insert}");
        }
    }

    #[test]
    fn what_adds_a_syntax_error_is_cut_off_or_not_shown() {
        check("file:///a", "python", "def f(x):\n    $0\n", "return x", Ok("return x"));
        check("file:///a", "python", "def f(x):\n    $0\n", "return x)", Err(NoneReason::AddsError));
        check("file:///a.py", "?", "def f(x):\n    $0\n", "return (x", Err(NoneReason::AddsError));
        check("file:///a", "rust", "fn f() {\n    $0\n}\n", "a();\n    if b {", Ok("a();"));
        check("file:///a", "python", "def f(x):\n    $0\n    y = 1\n", "if x:", Err(NoneReason::AddsError));
        check("file:///a", "python", "def f(x):\n    $0\n        y = 1\n", "if x:", Ok("if x:"));
        check(
            "file:///a",
            "python",
            "def f(x):\n    $0\n        y = 1\n",
            "z = 2",
            Err(NoneReason::AddsError),
        );
        check("file:///a", "python", "def f(x):\n    $0\n\ng()\n", "z = 2\n    if z:", Ok("z = 2"));
        check("file:///a", "python", "def f(x):\n    $0", "if x:", Ok("if x:"));
        let ends_in_comment = "y = x\n    if x:\n        # odd";
        check("file:///a", "python", "def f(x):\n    $0\n\ng()\n", ends_in_comment, Ok("y = x"));
        check("file:///a", "klingon", "fn f() {\n    $0\n}\n", "a();\n    if b {", Ok("a();\n    if b {"));
    }
}

//! The open documents, and whether their text can be believed.
//!
//! In: what the editor says it did. Out: snapshots of texts that are surely the editor's.
//! Never: guesses at a text.
//! Thread: main.
//!
//! LSP has no answer to a `didChange` that cannot be right (an old version, a line that does not exist): the two
//! sides have lost each other, and every later edit would be applied to another text than the editor's. So the
//! document is left as it was and marked: no ghost text is shown for it (I-8) until the editor sends the whole text,
//! by `didOpen` or by a change without a range. So it is with a change that could not be read at all.

use std::collections::HashMap;

use text::{ContentChange, Document, PositionEncoding};

/// All documents the editor has open, by URI.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    by_uri: HashMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    document: Document,
    // INVARIANT: while false, nothing made from `document` reaches the editor as ghost text.
    is_in_sync: bool,
}

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// The document is the editor's again.
    Applied,
    /// Nobody opened the document.
    NotOpen,
    /// The document is out of sync from now on.
    Refused(text::Error),
    /// It was out of sync before.
    StillOutOfSync,
}

impl Documents {
    /// Returns whether the document was open already, which an editor must not do but which is harmless.
    pub(crate) fn open(&mut self, uri: String, document: Document) -> bool {
        self.by_uri.insert(uri, Open { document, is_in_sync: true }).is_some()
    }

    /// Applies an editor's changes, or none of them.
    pub(crate) fn change(
        &mut self,
        uri: &str,
        version: i32,
        changes: &[ContentChange],
        encoding: PositionEncoding,
    ) -> Changed {
        let Some(open) = self.by_uri.get_mut(uri) else {
            return Changed::NotOpen;
        };
        // What stands ahead of a whole text does not matter, whether or not it can be applied.
        let whole = changes.iter().rposition(|change| change.range.is_none());
        if !open.is_in_sync && whole.is_none() {
            return Changed::StillOutOfSync;
        }
        match open.document.change(&changes[whole.unwrap_or(0)..], version, encoding) {
            Ok(()) => {
                open.is_in_sync = true;
                Changed::Applied
            }
            Err(_) if !open.is_in_sync => Changed::StillOutOfSync,
            Err(error) => {
                open.is_in_sync = false;
                Changed::Refused(error)
            }
        }
    }

    /// Marks a document as not the editor's; returns whether it was believed until now.
    pub(crate) fn distrust(&mut self, uri: &str) -> bool {
        let open = self.by_uri.get_mut(uri);
        open.is_some_and(|open| std::mem::replace(&mut open.is_in_sync, false))
    }

    /// Marks all documents as not the editor's; returns how many were believed until now.
    pub(crate) fn distrust_all(&mut self) -> usize {
        let believed = self.by_uri.values_mut().filter(|open| open.is_in_sync);
        believed.map(|open| open.is_in_sync = false).count()
    }

    /// Returns whether the document was open.
    pub(crate) fn close(&mut self, uri: &str) -> bool {
        self.by_uri.remove(uri).is_some()
    }

    /// Returns a document that is surely the editor's.
    pub(crate) fn get(&self, uri: &str) -> Option<&Document> {
        self.by_uri.get(uri).filter(|open| open.is_in_sync).map(|open| &open.document)
    }

    /// Returns a document as it is here and whether it is in sync.
    pub(crate) fn get_any(&self, uri: &str) -> Option<(&Document, bool)> {
        self.by_uri.get(uri).map(|open| (&open.document, open.is_in_sync))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use text::{Error, Position};

    const URI: &str = "file:///a";

    fn open() -> Documents {
        let mut documents = Documents::default();
        documents.open(URI.to_owned(), Document::open("one\n", 5));
        documents
    }

    fn insert(line: u32, text: &str) -> ContentChange {
        let at = Position { line, character: 0 };
        ContentChange { range: Some((at, at)), text: text.to_owned() }
    }

    fn whole(text: &str) -> ContentChange {
        ContentChange { range: None, text: text.to_owned() }
    }

    fn text(documents: &Documents) -> Option<String> {
        documents.get(URI).map(|document| document.snapshot().text())
    }

    #[test]
    fn a_stale_version_is_refused_once_and_the_document_not_believed_any_more() {
        let mut documents = open();
        let change = |documents: &mut Documents, version| {
            documents.change(URI, version, &[insert(0, "x")], PositionEncoding::Utf16)
        };
        assert_eq!(change(&mut documents, 6), Changed::Applied);
        assert_eq!(change(&mut documents, 6), Changed::Refused(Error::StaleVersion { have: 6, got: 6 }));
        assert_eq!(text(&documents), None);
        assert_eq!(change(&mut documents, 7), Changed::StillOutOfSync);
        let (kept, is_in_sync) = documents.get_any(URI).expect("open");
        assert_eq!((kept.snapshot().text().as_str(), kept.version(), is_in_sync), ("xone\n", 6, false));
    }

    #[test]
    fn half_of_a_change_is_never_applied() {
        let mut documents = open();
        let changed = documents.change(URI, 6, &[insert(0, "x"), insert(9, "y")], PositionEncoding::Utf8);
        assert!(matches!(changed, Changed::Refused(Error::LineOutOfRange { line: 9, .. })), "{changed:?}");
        assert_eq!(documents.get_any(URI).expect("open").0.snapshot().text(), "one\n");
    }

    #[test]
    fn the_whole_text_mends_a_document() {
        let mut documents = open();
        documents.change(URI, 1, &[], PositionEncoding::Utf16);
        assert_eq!(text(&documents), None);
        let changes = [insert(9, "nonsense"), whole("two\n"), insert(0, "x")];
        assert_eq!(documents.change(URI, 8, &changes, PositionEncoding::Utf16), Changed::Applied);
        assert_eq!(text(&documents).as_deref(), Some("xtwo\n"));
        assert!(documents.distrust(URI) && !documents.distrust(URI));
        assert_eq!(documents.change(URI, 8, &[whole("")], PositionEncoding::Utf16), Changed::StillOutOfSync);
        assert!(documents.open(URI.to_owned(), Document::open("three", 1)));
        assert_eq!(text(&documents).as_deref(), Some("three"));
    }

    #[test]
    fn all_documents_are_distrusted_and_mended_one_by_one() {
        let mut documents = open();
        for uri in ["file:///b", "file:///c"] {
            documents.open(uri.to_owned(), Document::open("", 1));
        }
        documents.distrust("file:///c");
        assert_eq!((documents.distrust_all(), documents.distrust_all()), (2, 0));
        documents.change(URI, 6, &[whole("two\n")], PositionEncoding::Utf16);
        assert_eq!(text(&documents).as_deref(), Some("two\n"));
        assert!(documents.get("file:///b").is_none());
    }

    #[test]
    fn a_document_that_is_not_open_is_not_changed() {
        let mut documents = open();
        assert!(!documents.distrust("file:///z"));
        assert!(documents.close(URI) && !documents.close(URI));
        assert_eq!(documents.change(URI, 9, &[whole("x")], PositionEncoding::Utf16), Changed::NotOpen);
        assert_eq!(text(&documents), None);
    }
}

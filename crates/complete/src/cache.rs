//! Answers that still hold: ghost text for a cursor without asking the model.
//!
//! In: answers, each with the document and the cursor it was made for. Out: what of one is left when its user has typed,
//! or accepted, a part of it, or come back to where it was.
//! Never: ghost text for a document that differs elsewhere.

use std::collections::VecDeque;

use text::{ByteOffset, Snapshot};

use crate::gate::Around;
use crate::window::is_crlf;
use crate::{Answer, GhostText, NoneReason, Options, Request, Trigger};

/// Most answers kept. A snapshot shares its text with its neighbours, so an answer is a few kilobytes.
const N_MAX_ENTRIES: usize = 128;
/// Most bytes typed since an answer was made for it to be looked at.
const N_MAX_TYPED: usize = 4096;
/// Most characters an editor has put behind the cursor by itself: brackets and quotes it closes.
const N_MAX_CLOSERS: usize = 4;

/// The last answers, the newest last.
#[derive(Debug, Default)]
pub struct Cache {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    uri: String,
    document: Snapshot,
    offset: ByteOffset,
    answer: Answer,
}

/// An answer that still holds.
#[derive(Debug)]
pub struct Found<'a> {
    /// Ghost text or why there is none.
    pub result: Result<GhostText, NoneReason>,
    /// The answer it is from.
    pub answer: &'a Answer,
    /// Bytes of the answer that stand before the cursor by now.
    pub n_typed: usize,
}

impl Cache {
    /// Takes an answer for a cursor in a document; it replaces an older one for the same.
    pub fn insert(&mut self, uri: &str, document: &Snapshot, offset: ByteOffset, answer: Answer) {
        self.entries.retain(|entry| {
            !(entry.uri == uri && entry.offset == offset && entry.document.is_same(document))
        });
        if self.entries.len() >= N_MAX_ENTRIES {
            self.entries.pop_front();
        }
        let (uri, document) = (uri.to_owned(), document.clone());
        self.entries.push_back(Entry { uri, document, offset, answer });
    }

    /// Forgets what was made for a document that is closed.
    pub fn forget(&mut self, uri: &str) {
        self.entries.retain(|entry| entry.uri != uri);
    }

    /// Returns what the newest answer made a little before a cursor says from there on, right or wrong.
    pub fn last_text(&self, uri: &str, offset: ByteOffset) -> String {
        let last = self.entries.iter().rev().find(|entry| entry.uri == uri);
        let rest = last.and_then(|entry| entry.answer.text.get(offset.0.checked_sub(entry.offset.0)?..));
        rest.unwrap_or_default().to_owned()
    }

    /// Returns the newest answer that still holds for a cursor and says something about it. `around` is the request's.
    pub fn find(
        &self,
        uri: &str,
        request: &Request<'_>,
        around: &Around,
        options: &Options,
    ) -> Option<Found<'_>> {
        let entries = self.entries.iter().rev().filter(|entry| entry.uri == uri);
        entries
            .filter_map(|entry| {
                let typed = entry.typed(request)?;
                let result = left(&entry.answer, typed.len(), around, request.trigger, options)?;
                let result = result.map(|insert| GhostText {
                    insert: if is_crlf(request) { insert.replace('\n', "\r\n") } else { insert },
                    range: request.offset..request.offset,
                    version: request.document.version(),
                });
                Some(Found { result, answer: &entry.answer, n_typed: typed.len() })
            })
            .next()
    }
}

impl Entry {
    /// Returns what was typed of the answer since it was made.
    fn typed(&self, request: &Request<'_>) -> Option<String> {
        let typed = between(self.offset, request)?;
        // Most entries end here, before the documents are compared.
        let is_of_it = self.answer.text.starts_with(&typed);
        (is_of_it && is_otherwise_same(&self.document, self.offset, request)).then_some(typed)
    }
}

/// Returns what was typed at `offset` of a document to make it the one of a request, cursor after it; nothing if more than
/// that has changed. Line ends become `\n`, and what an editor closes by itself does not count.
pub fn typed_since(then: &Snapshot, offset: ByteOffset, request: &Request<'_>) -> Option<String> {
    between(offset, request).filter(|_| is_otherwise_same(then, offset, request))
}

/// Returns whether a text is nothing but what an editor has put behind the cursor by itself.
#[must_use]
pub fn is_closed(text: &str) -> bool {
    let is_closer = |c| matches!(c, ')' | ']' | '}' | '>' | '"' | '\'' | '`');
    text.len() <= N_MAX_CLOSERS && text.chars().all(is_closer)
}

/// Returns what stands between `offset` and a request's cursor, not far after it.
fn between(offset: ByteOffset, request: &Request<'_>) -> Option<String> {
    request.offset.0.checked_sub(offset.0).filter(|&n| n <= N_MAX_TYPED)?;
    Some(request.document.slice(offset..request.offset).replace("\r\n", "\n"))
}

/// Returns whether a request's document is another one but for what stands between `offset` and the cursor, and for what an
/// editor has closed behind that.
fn is_otherwise_same(then: &Snapshot, offset: ByteOffset, request: &Request<'_>) -> bool {
    let (now, cursor) = (request.document, request.offset);
    let n_after = then.len_bytes() - offset.0;
    let n_closers = (now.len_bytes() - cursor.0).checked_sub(n_after).filter(|&n| n <= N_MAX_CLOSERS);
    let Some(n_closers) = n_closers else { return false };
    let after = ByteOffset(cursor.0 + n_closers);
    // Closers are there because something was typed.
    (n_closers == 0 || cursor > offset)
        && is_closed(&now.slice(cursor..after))
        && now.is_equal(after..ByteOffset(now.len_bytes()), then, offset..ByteOffset(then.len_bytes()))
        && now.is_equal(ByteOffset(0)..offset, then, ByteOffset(0)..offset)
}

/// Returns what an answer of which `n_typed` bytes are typed still says, if it says anything.
fn left(
    answer: &Answer,
    n_typed: usize,
    around: &Around,
    trigger: Trigger,
    options: &Options,
) -> Option<Result<String, NoneReason>> {
    let rest = &answer.text[n_typed..];
    if rest.is_empty() && !answer.repeats && (answer.is_cut || answer.text.ends_with('\n')) {
        return None;
    }
    Some(answer.shown(n_typed, around, trigger, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate;
    use text::Document;

    /// Asks in `now` for what was answered with `text` in `then`; `$0` is the cursor.
    fn check(then: &str, text: &str, now: &str, expected: Option<Result<&str, NoneReason>>) {
        let place = |marked: &str| {
            let offset = ByteOffset(marked.find("$0").expect("a cursor"));
            (Document::open(&marked.replace("$0", ""), 1).snapshot(), offset)
        };
        let mut cache = Cache::default();
        let (document, offset) = place(then);
        let answer = Answer { text: text.to_owned(), ..Answer::default() };
        cache.insert("file:///a", &document, offset, answer);
        let (document, offset) = place(now);
        let request =
            Request { document: &document, offset, trigger: Trigger::Automatic, tree: None, context: None };
        let (around, options) = (gate::around(&request), Options::default());
        let found = cache.find("file:///a", &request, &around, &options);
        let found = found.map(|found| found.result.map(|ghost| ghost.insert));
        assert_eq!(found, expected.map(|result| result.map(str::to_owned)), "{then:?} {text:?} {now:?}");
        assert!(cache.find("file:///b", &request, &around, &options).is_none());
    }

    #[test]
    fn what_is_typed_of_an_answer_leaves_the_rest() {
        check("x = $0", "foo(1)\n", "x = $0", Some(Ok("foo(1)")));
        check("x = $0", "foo(1)\n", "x = fo$0", Some(Ok("o(1)")));
        check("x = $0", "foo(1)\n", "x = fa$0", None);
        check("x = $0", "foo(1)\n", "x = foo($0)", Some(Ok("1")));
        check("x = $0", "foo(1)\n", "x = foo(1)$0", Some(Err(NoneReason::NothingToAdd)));
        check("x = $0", "foo(1)\n", "x = foo(1)\n$0", None);
        check("x = $0", "foo(1)\n  y = 2\n", "x = foo(1)\n  $0", Some(Ok("y = 2")));
        check("x = $0\r\n", "foo(1)\n  y = 2\n", "x = foo(1)\r\n  $0\r\n", Some(Ok("y = 2")));
    }

    #[test]
    fn a_document_that_differs_elsewhere_has_no_answer() {
        check("a\nx = $0\nb", "1\n", "a\nx = $0\nb", Some(Ok("1")));
        check("a\nx = $0\nb", "1\n", "A\nx = $0\nb", None);
        check("a\nx = $0\nb", "1\n", "a\nx = $0\nB", None);
        check("a\nx = $0\nb", "1\n", "a\nx =$0\nb", None);
        // Not closed by the editor: what was typed since.
        check("x = $0", "foo(1)\n", "x = $0)", None);
        check("x = $0", "foo(1)\n", "x = f$0 + 1", None);
    }
}

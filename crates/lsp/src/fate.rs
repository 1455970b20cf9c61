//! What became of ghost text: shown, accepted, accepted in part, turned down.
//!
//! In: what was shown and where, what the editor says of it, what the documents became. Out: a [`FateEvent`] for each thing
//! that became of it.
//! Never: logs a text (I-9); asks an editor to say anything, since most say nothing.
//! Thread: main.
//! Source: `textDocument/didShowCompletion`, `textDocument/didPartiallyAcceptCompletion` and a command on each item, as
//! Copilot's language server has them.
//!
//! What is left of a ghost text after a part was typed is the same ghost text, though it is another item to the editor: it
//! is shown once, and accepted once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use complete::cache::{is_closed, typed_since};
use complete::{Answer, Calibration, Request};
use text::{ByteOffset, Snapshot};

/// Ghost texts of which it is not known yet what becomes of them.
const N_MAX_SHOWN: usize = 16;
/// Most bytes that a document has grown by since it was shown for it to be looked at.
const N_MAX_GROWN: usize = 16 << 10;

/// One thing that becomes of a ghost text.
///
/// First [`Fate::Shown`]; then [`Fate::PartlyAccepted`] each time more of it is taken; then at most one of
/// [`Fate::Accepted`] and [`Fate::Rejected`]. One that has neither was passed over: its user went elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was put before the user's eyes.
    Shown,
    /// A word or a line of it was taken, or it was typed so far and left then.
    PartlyAccepted {
        /// Characters of it that stand in the document now, counted from its start.
        n_chars: usize,
    },
    /// All of it stands in the document.
    Accepted {
        /// Its characters.
        n_chars: usize,
    },
    /// Its line was ended with something else.
    Rejected,
}

/// What the model thought of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Evidence {
    /// The probability of being right that it was shown with, 0 to 1.
    pub(crate) confidence: f32,
    /// Mean natural logarithm of the probabilities of its first line's tokens.
    pub(crate) mean_logprob: f32,
    /// Tokens of its first line.
    pub(crate) n_tokens: usize,
    /// Bytes of the answer that had been typed when it was shown.
    pub(crate) n_typed: usize,
}

/// Characters of a ghost text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) n_standing_chars: usize,
    pub(crate) n_typed_chars: usize,
}

/// What became of which ghost text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FateEvent {
    /// What became of it.
    pub(crate) fate: Fate,
    /// The document's URI.
    pub(crate) uri: String,
    /// The document's language, in the editor's word.
    pub(crate) language_id: String,
    /// The cursor's line, from 0.
    pub(crate) line: u32,
    /// The cursor.
    pub(crate) offset: ByteOffset,
    /// The whole text that was shown, with the document's line ends.
    pub(crate) insert: String,
    /// Characters of it that stand in the document.
    pub(crate) n_standing_chars: usize,
    /// Characters of it that were typed key by key. Less than all of it, where it was accepted, is what was saved.
    pub(crate) n_typed_chars: usize,
    /// What the last event that told of a part said of both: 0 before the first.
    pub(crate) told_before: Told,
    /// What the model thought of it.
    pub(crate) evidence: Evidence,
    /// How long ago it was shown.
    pub(crate) since_shown: Duration,
}

/// Hears what becomes of ghost text, on the main loop: it must not wait.
pub(crate) type OnFate = Box<dyn FnMut(&FateEvent) + Send>;

/// The ghost texts that may still be typed, accepted or turned down.
pub(crate) struct Fates {
    /// The newest last.
    shown: VecDeque<Shown>,
    next_id: u64,
    /// Whether this editor says what it has shown; then only that was.
    says_shown: bool,
    on_fate: OnFate,
}

/// What there is to know of ghost text that is shown.
pub(crate) struct Showing<'a> {
    pub(crate) uri: &'a str,
    pub(crate) language_id: &'a str,
    pub(crate) request: &'a Request<'a>,
    /// The cursor's line up to the cursor.
    pub(crate) head: String,
    /// The item selected in the editor's list, with which its item's text begins.
    pub(crate) selected: &'a str,
    pub(crate) insert: &'a str,
    pub(crate) evidence: Evidence,
}

struct Shown {
    event: FateEvent,
    document: Snapshot,
    head: String,
    /// What was shown, its lines ended by `\n`.
    text: String,
    /// The items that it was to the editor.
    items: Vec<Item>,
    at: Instant,
    is_seen: bool,
    /// Bytes of `text` that are known to stand in the document, and those of them that were told of.
    n_stands: usize,
    n_told: usize,
    /// Whether it was accepted.
    is_over: bool,
}

struct Item {
    id: u64,
    /// UTF-16 units of a selected item that it begins with.
    n_selected: usize,
    /// What follows that.
    insert: String,
}

impl Evidence {
    /// Returns what the model thought of an answer of which `n_typed` bytes are typed.
    pub(crate) fn new(answer: &Answer, n_typed: usize, calibration: &Calibration) -> Self {
        let n_tokens = answer.logprobs.len();
        Self {
            confidence: answer.confidence(n_typed, calibration),
            mean_logprob: complete::mean_logprob(&answer.logprobs),
            n_tokens,
            n_typed: answer.n_typed_before + n_typed,
        }
    }
}

impl Fates {
    pub(crate) fn new(on_fate: OnFate) -> Self {
        Self { shown: VecDeque::new(), next_id: 0, says_shown: false, on_fate }
    }

    /// Takes ghost text that the editor gets, and returns the id of its item.
    pub(crate) fn show(&mut self, showing: Showing<'_>) -> String {
        let id = self.next_id;
        self.next_id += 1;
        let insert = showing.insert.to_owned();
        let item = Item { id, n_selected: showing.selected.encode_utf16().count(), insert };
        if let Some(idx) = self.whose_rest(showing.uri, showing.request, showing.insert) {
            self.shown[idx].items.push(item);
        } else {
            if self.shown.len() >= N_MAX_SHOWN
                && let Some(oldest) = self.shown.pop_front()
            {
                self.settle(oldest);
            }
            self.shown.push_back(Shown::new(showing, item));
            if !self.says_shown {
                self.seen(self.shown.len() - 1);
            }
        }
        name(id)
    }

    /// Returns whether `insert` is what is left of something shown, once what stands before the cursor was typed.
    pub(crate) fn is_rest(&self, uri: &str, request: &Request<'_>, insert: &str) -> bool {
        self.whose_rest(uri, request, insert).is_some()
    }

    fn whose_rest(&self, uri: &str, request: &Request<'_>, insert: &str) -> Option<usize> {
        let insert = lines_of(insert);
        (0..self.shown.len()).rev().find(|&idx| {
            let shown = &self.shown[idx];
            let is_rest = |typed: String| shown.text.strip_prefix(&typed) == Some(&insert);
            shown.event.uri == uri && shown.typed(request).is_some_and(is_rest)
        })
    }

    /// The editor says that an item is before its user's eyes.
    pub(crate) fn did_show(&mut self, item: &str) {
        self.says_shown = true;
        if let Some((idx, _)) = self.find(item) {
            self.seen(idx);
        }
    }

    /// The editor says that an item was accepted.
    pub(crate) fn accepted(&mut self, item: &str) {
        if let Some((idx, _)) = self.find(item) {
            self.stands(idx, self.shown[idx].text.len(), true);
        }
    }

    /// The editor says that an item was accepted up to so many UTF-16 units of its text.
    pub(crate) fn partly_accepted(&mut self, item: &str, n_utf16: usize) {
        let Some((idx, item_idx)) = self.find(item) else { return };
        let shown = &self.shown[idx];
        let item = &shown.items[item_idx];
        let mut n_left = n_utf16.saturating_sub(item.n_selected);
        let taken = item.insert.chars().take_while(|c| {
            let is_taken = c.len_utf16() <= n_left;
            n_left = n_left.saturating_sub(c.len_utf16());
            is_taken
        });
        let n_taken = lines_of(&taken.collect::<String>()).len();
        let n_ahead = shown.text.len() - lines_of(&item.insert).len();
        self.stands(idx, n_ahead + n_taken, true);
    }

    /// A document has become another one: what it has gained may be ghost text.
    pub(crate) fn changed(&mut self, uri: &str, now: &Snapshot) {
        for idx in 0..self.shown.len() {
            let shown = &self.shown[idx];
            if shown.event.uri == uri
                && !shown.is_over
                && shown.is_seen
                && let Some(n_stands) = shown.n_stands_in(now)
            {
                let is_part = is_boundary(&shown.text, n_stands);
                self.stands(idx, n_stands, is_part);
            }
        }
    }

    /// Looks at a request's document for what was shown and not wanted, since its line was ended with something else.
    /// Returns the line up to the cursor, and the ghost text that was there.
    pub(crate) fn rejected(&mut self, uri: &str, request: &Request<'_>) -> Vec<(String, String)> {
        let mut rejected = Vec::new();
        for mut shown in std::mem::take(&mut self.shown) {
            if shown.event.uri != uri {
                self.shown.push_back(shown);
                continue;
            }
            let typed = shown.typed(request);
            // What its editor has not shown nobody turned down.
            if shown.is_seen && typed.as_ref().is_some_and(|typed| ends_otherwise(typed, &shown.text)) {
                rejected.push((shown.head.clone(), shown.event.insert.clone()));
                if !shown.is_over && shown.n_told == 0 {
                    let typed = typed.as_deref().unwrap_or_default();
                    let n_same = n_common(typed, &shown.text);
                    shown.event.n_standing_chars = shown.text[..n_same].chars().count();
                    self.tell(&mut shown, Fate::Rejected);
                    continue;
                }
            }
            if typed.is_some_and(|typed| !typed.contains('\n')) {
                self.shown.push_back(shown);
            } else {
                self.settle(shown);
            }
        }
        rejected
    }

    /// Nothing that was shown in a document counts any more.
    pub(crate) fn forget(&mut self, uri: &str) {
        for shown in std::mem::take(&mut self.shown) {
            if shown.event.uri == uri {
                self.settle(shown);
            } else {
                self.shown.push_back(shown);
            }
        }
    }

    /// Returns where an item's ghost text is, and the item in it.
    fn find(&self, item: &str) -> Option<(usize, usize)> {
        (0..self.shown.len()).find_map(|idx| {
            let item_idx = self.shown[idx].items.iter().position(|of| name(of.id) == item)?;
            Some((idx, item_idx))
        })
    }

    fn seen(&mut self, idx: usize) {
        let shown = &mut self.shown[idx];
        if !shown.is_seen {
            shown.is_seen = true;
            shown.at = Instant::now();
            shown.event.fate = Fate::Shown;
            told(&shown.event);
            (self.on_fate)(&shown.event);
        }
    }

    /// The first `n_stands` bytes of a ghost text stand in the document; `is_part` if that is a part one would take.
    fn stands(&mut self, idx: usize, n_stands: usize, is_part: bool) {
        if self.shown[idx].is_over || n_stands <= self.shown[idx].n_stands {
            return;
        }
        // What is accepted was before somebody's eyes.
        self.seen(idx);
        let Some(mut shown) = self.shown.remove(idx) else { return };
        let n_new_chars = shown.text[shown.n_stands..n_stands].chars().count();
        shown.event.n_typed_chars += usize::from(n_new_chars == 1);
        shown.n_stands = n_stands;
        let n_chars = shown.text[..n_stands].chars().count();
        if n_stands == shown.text.len() {
            shown.is_over = true;
            self.tell(&mut shown, Fate::Accepted { n_chars });
        } else if is_part && n_new_chars > 1 {
            shown.n_told = n_stands;
            self.tell(&mut shown, Fate::PartlyAccepted { n_chars });
        }
        self.shown.insert(idx, shown);
    }

    /// Says what was typed of a ghost text that is gone.
    fn settle(&mut self, mut shown: Shown) {
        if !shown.is_over && shown.n_stands > shown.n_told {
            let n_chars = shown.text[..shown.n_stands].chars().count();
            self.tell(&mut shown, Fate::PartlyAccepted { n_chars });
        }
    }

    fn tell(&mut self, shown: &mut Shown, fate: Fate) {
        shown.event.fate = fate;
        shown.event.since_shown = shown.at.elapsed();
        told(&shown.event);
        if let Fate::Accepted { n_chars } | Fate::PartlyAccepted { n_chars } = fate {
            shown.event.n_standing_chars = n_chars;
        }
        (self.on_fate)(&shown.event);
        shown.event.told_before =
            Told { n_standing_chars: shown.event.n_standing_chars, n_typed_chars: shown.event.n_typed_chars };
    }
}

impl Shown {
    fn new(showing: Showing<'_>, item: Item) -> Self {
        let Request { document, offset, .. } = *showing.request;
        let event = FateEvent {
            fate: Fate::Shown,
            uri: showing.uri.to_owned(),
            language_id: showing.language_id.to_owned(),
            line: document.line_of(offset),
            offset,
            insert: showing.insert.to_owned(),
            n_standing_chars: 0,
            n_typed_chars: 0,
            told_before: Told::default(),
            evidence: showing.evidence,
            since_shown: Duration::ZERO,
        };
        Self {
            event,
            document: document.clone(),
            head: showing.head,
            text: lines_of(showing.insert),
            items: vec![item],
            at: Instant::now(),
            is_seen: false,
            n_stands: 0,
            n_told: 0,
            is_over: false,
        }
    }

    /// Returns what was typed since it was shown, if nothing else changed.
    fn typed(&self, request: &Request<'_>) -> Option<String> {
        typed_since(&self.document, self.event.offset, request)
    }

    /// Returns how many bytes of it stand in a document by now, if they are more than was known and nothing else changed.
    fn n_stands_in(&self, now: &Snapshot) -> Option<usize> {
        let (then, at) = (&self.document, self.event.offset);
        let n_grown = now.len_bytes().checked_sub(then.len_bytes()).filter(|&n| n <= N_MAX_GROWN)?;
        let end = ByteOffset(at.0 + n_grown);
        let grown = lines_of(&now.slice(at..end));
        let n_stands = n_common(&grown, &self.text);
        let is_rest_ours = n_stands == self.text.len() || is_closed(&grown[n_stands..]);
        (n_stands > self.n_stands
            && is_rest_ours
            && now.is_equal(end..ByteOffset(now.len_bytes()), then, at..ByteOffset(then.len_bytes()))
            && now.is_equal(ByteOffset(0)..at, then, ByteOffset(0)..at))
        .then_some(n_stands)
    }
}

/// Returns an item's id as the editor gets it. It tells nothing, and is no other process's.
fn name(id: u64) -> String {
    format!("{:x}-{id:x}", std::process::id())
}

fn lines_of(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Returns how many bytes two texts have in common at their start.
fn n_common(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
}

/// Returns whether a word or a line ends at a byte.
fn is_boundary(text: &str, at: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (before, after) = text.split_at(at);
    !(before.ends_with(is_word) && after.starts_with(is_word))
}

/// Returns whether the line was ended with something else than what was shown. What is only begun may be a slip of the
/// finger.
fn ends_otherwise(typed: &str, shown: &str) -> bool {
    let shown = shown.lines().next().unwrap_or_default();
    typed.split_once('\n').is_some_and(|(line, _)| !line.starts_with(shown))
}

fn told(event: &FateEvent) {
    let ms = event.since_shown.as_millis() as u64;
    tracing::debug!(fate = ?event.fate, n_bytes = event.insert.len(), ms, "ghost text");
}

#[cfg(test)]
mod tests;

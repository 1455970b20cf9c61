//! Whether ghost text that was taken still stands a while later.
//!
//! In: fates, the documents' texts when it is time. Out: [`Kept`].
//! Never: keeps the text of more than the last few; holds a document.
//! Thread: main.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use text::Snapshot;

use crate::fate::{Fate, FateEvent};

/// Ghost texts that are looked for.
const N_MAX_PENDING: usize = 64;

/// When it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// 30 s.
    HalfMinute,
    /// 300 s.
    FiveMinutes,
}

/// What still stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) language_id: String,
    pub(crate) after: After,
    /// Characters that were taken, white space aside.
    pub(crate) n_chars: usize,
    /// Those of them in lines that stand.
    pub(crate) n_chars_kept: usize,
}

/// Ghost texts that were taken lately.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// The one that is due first at the front, for each `After`.
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    uri: String,
    language_id: String,
    offset: usize,
    /// What was taken.
    text: String,
    at: Instant,
    after: After,
}

impl After {
    fn time(self) -> Duration {
        match self {
            Self::HalfMinute => Duration::from_secs(30),
            Self::FiveMinutes => Duration::from_secs(300),
        }
    }
}

impl Keeping {
    /// Takes what was taken.
    pub(crate) fn hear(&mut self, event: &FateEvent, now: Instant) {
        let (Fate::Accepted { n_chars } | Fate::PartlyAccepted { n_chars }) = event.fate else { return };
        let text: String = event.insert.chars().take(n_chars).collect();
        // More of the same ghost text: the longer one is looked for.
        let is_same = |one: &Pending| {
            one.after == After::HalfMinute && one.uri == event.uri && one.offset == event.offset.0
        };
        if let Some(same) = self.pending.iter_mut().find(|one| is_same(one)) {
            same.text = text;
            return;
        }
        if self.pending.len() >= N_MAX_PENDING {
            self.pending.pop_front();
        }
        let (uri, language_id, offset) = (event.uri.clone(), event.language_id.clone(), event.offset.0);
        let after = After::HalfMinute;
        self.insert(Pending { uri, language_id, offset, text, at: now + after.time(), after });
    }

    fn insert(&mut self, pending: Pending) {
        let idx = self.pending.partition_point(|one| one.at <= pending.at);
        self.pending.insert(idx, pending);
    }

    /// Returns when the next one is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.front().map(|one| one.at)
    }

    /// Returns what stands of those that are due; `document` gives the text of one that is open.
    pub(crate) fn due(&mut self, now: Instant, document: impl Fn(&str) -> Option<Snapshot>) -> Vec<Kept> {
        let mut found = Vec::new();
        while self.deadline().is_some_and(|at| at <= now)
            && let Some(one) = self.pending.pop_front()
        {
            let Some(document) = document(&one.uri) else { continue };
            found.push(one.look(&document.text()));
            if one.after == After::HalfMinute {
                let after = After::FiveMinutes;
                let at = one.at + after.time() - one.after.time();
                self.insert(Pending { at, after, ..one });
            }
        }
        found
    }
}

impl Pending {
    /// Looks for its lines, wherever they are by now.
    fn look(&self, now: &str) -> Kept {
        let (mut n_chars, mut n_chars_kept) = (0, 0);
        for line in self.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let n_in_line = line.chars().count();
            n_chars += n_in_line;
            n_chars_kept += if now.contains(line) { n_in_line } else { 0 };
        }
        Kept { language_id: self.language_id.clone(), after: self.after, n_chars, n_chars_kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fate::Evidence;
    use text::{ByteOffset, Document};

    fn taken(fate: Fate, offset: usize) -> FateEvent {
        FateEvent {
            fate,
            uri: "file:///a".into(),
            language_id: "python".into(),
            line: 0,
            offset: ByteOffset(offset),
            insert: "total += x\n    return total".into(),
            n_standing_chars: 0,
            n_typed_chars: 0,
            told_before: Default::default(),
            evidence: Evidence::default(),
            since_shown: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_taken_is_looked_for_twice_while_its_document_is_open() {
        let start = Instant::now();
        let mut keeping = Keeping::default();
        keeping.hear(&taken(Fate::Shown, 0), start);
        keeping.hear(&taken(Fate::Rejected, 0), start);
        assert_eq!(keeping.deadline(), None);
        keeping.hear(&taken(Fate::PartlyAccepted { n_chars: 5 }, 0), start);
        keeping.hear(&taken(Fate::Accepted { n_chars: 27 }, 0), start + Duration::from_secs(1));

        let document = |text: &'static str| move |_: &str| Some(Document::open(text, 1).snapshot());
        let due = |keeping: &mut Keeping, seconds, text| {
            keeping.due(start + Duration::from_secs(seconds), document(text))
        };
        assert_eq!(due(&mut keeping, 29, "total += x"), []);
        let kept =
            |after, n_chars_kept| Kept { language_id: "python".into(), after, n_chars: 22, n_chars_kept };
        assert_eq!(
            due(&mut keeping, 30, "y\n\ttotal += x\n\treturn total # !"),
            [kept(After::HalfMinute, 22)]
        );
        assert_eq!(due(&mut keeping, 299, "total += x"), []);
        assert_eq!(due(&mut keeping, 300, "total += x\nreturn"), [kept(After::FiveMinutes, 10)]);
        assert_eq!(keeping.deadline(), None);

        keeping.hear(&taken(Fate::Accepted { n_chars: 27 }, 9), start);
        assert_eq!(keeping.due(start + Duration::from_secs(31), |_| None), [], "it was closed");
        assert_eq!(keeping.deadline(), None);
        for offset in 0..200 {
            keeping.hear(&taken(Fate::Accepted { n_chars: 27 }, offset), start);
        }
        assert_eq!(keeping.pending.len(), N_MAX_PENDING);
    }
}

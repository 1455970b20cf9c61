//! The last step before the editor: whether a ghost text may be shown, and what is noted of it.
//!
//! In: what the gate, the cache or the model said to a request. Out: its [`Answer`]; a fate to hear of, a record for who asks
//! why.
//! Never: shows what was rejected here, adds an error or repeats what is there.

use complete::{GhostText, NoneReason};
use text::ByteOffset;

use super::Ghosts;
use super::waiting::Waiting;
use crate::fate::{Evidence, Showing};
use crate::main_loop::{Answer, Shown};

/// Where an answer is from.
pub(super) enum Origin {
    Gate,
    Cache { n_typed: usize, evidence: Evidence },
    Model { statistics: complete::Statistics, prompt: String, logprobs: Vec<f32>, evidence: Evidence },
}

impl Origin {
    pub(super) fn evidence(&self) -> Evidence {
        match self {
            Self::Gate => Evidence::default(),
            Self::Cache { evidence, .. } | Self::Model { evidence, .. } => *evidence,
        }
    }
}

impl Ghosts {
    pub(super) fn fail(&mut self, asker: Option<Waiting>, reason: String, why: &str) {
        if let Some(open) = asker {
            finish(open, Answer::Failed(reason), why);
        }
    }

    pub(super) fn answer(&mut self, open: Waiting, result: Result<GhostText, NoneReason>, origin: &Origin) {
        let is_rejected = |ghost: &GhostText| {
            open.place.trigger == complete::Trigger::Automatic
                && self.rejected.holds(&open.uri, &open.place.head(), &ghost.insert)
        };
        let result = match result {
            Ok(ghost) if is_rejected(&ghost) => Err(NoneReason::Rejected),
            // The document would become what it would have become with the last key's: that is sound.
            Ok(ghost) if self.fates.is_rest(&open.uri, &open.place.request(), &ghost.insert) => Ok(ghost),
            Ok(ghost) => self.trees.clean(&open.uri, &open.place.request(), ghost),
            Err(reason) => Err(reason),
        };
        let result = result.map(|ghost| {
            let insert = self.permit.settings(&open.uri).cut(&ghost.insert).to_owned();
            GhostText { insert, ..ghost }
        });
        let why = result.as_ref().err().map_or("shown", |reason| reason.name());
        let options = self.options(&open.uri);
        self.records.insert(&open, result.as_ref().map_err(|reason| *reason), origin, &options);
        let answer = match result {
            Ok(ghost) => Answer::Ghost(self.shown(&open, ghost, origin.evidence())),
            Err(_) => Answer::Nothing,
        };
        finish(open, answer, why);
    }

    fn shown(&mut self, open: &Waiting, ghost: GhostText, evidence: Evidence) -> Shown {
        let head = open.place.head();
        let id = self.fates.show(Showing {
            uri: &open.uri,
            language_id: self.permit.language_id(&open.uri),
            request: &open.place.request(),
            head: head.clone(),
            selected: open.selected.as_ref().map_or("", |selected| &selected.text),
            insert: &ghost.insert,
            evidence,
        });
        let word = head.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
        let word = head[word.len()..].to_owned();
        match &open.selected {
            Some(selected) => Shown {
                id,
                insert: selected.text.clone() + &ghost.insert,
                start: selected.start,
                end: selected.end,
                word: String::new(),
                word_start: selected.start,
            },
            None => Shown {
                id,
                insert: ghost.insert,
                start: open.place.document.position(ghost.range.start, self.encoding),
                end: open.place.document.position(ghost.range.end, self.encoding),
                word_start: open
                    .place
                    .document
                    .position(ByteOffset(ghost.range.start.0 - word.len()), self.encoding),
                word,
            },
        }
    }
}

pub(super) fn finish(open: Waiting, answer: Answer, why: &str) {
    let ms = open.since.elapsed().as_millis() as u64;
    tracing::debug!(id = %open.id, version = open.version, ms, why, "inlineCompletion");
    // It fails only when the session is over.
    let _ = open.reply.send(answer);
}

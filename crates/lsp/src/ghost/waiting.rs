//! What is asked for and what is being written: a request, its place in a text, the completion thread's work.
//!
//! In: documents and cursors. Out: requests to `complete`; whether what is being written is what somebody wants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use complete::cache::typed_since;
use complete::{Answer as Written, Options, Request};
use engine::CancelToken;
use text::{ByteOffset, Document, PositionEncoding, Snapshot};
use tokio::sync::oneshot;
use tower_lsp::jsonrpc::Id;

use crate::from_proto::{Cursor, Selected};
use crate::main_loop::Answer;

/// A request that is not answered yet.
pub(super) struct Waiting {
    pub(super) key: u64,
    pub(super) id: Id,
    pub(super) uri: String,
    /// The document's version, before a selected item is put in.
    pub(super) version: i32,
    pub(super) place: Place,
    pub(super) selected: Option<Selected>,
    pub(super) reply: oneshot::Sender<Answer>,
    pub(super) since: Instant,
}

impl Waiting {
    /// Returns when the model may be asked: once nobody types, if that is wanted.
    pub(super) fn due(&self, options: &Options) -> Instant {
        match self.place.trigger {
            complete::Trigger::Invoked => self.since,
            complete::Trigger::Automatic => self.since + options.pause,
        }
    }
}

/// A cursor in a text.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) document: Snapshot,
    pub(super) offset: ByteOffset,
    pub(super) trigger: complete::Trigger,
}

/// What the completion thread works on.
pub(super) struct Running {
    pub(super) key: u64,
    pub(super) uri: String,
    pub(super) place: Place,
    /// What is written so far.
    pub(super) heard: Arc<Mutex<String>>,
    pub(super) cancel: CancelToken,
    pub(super) is_ahead: bool,
    pub(super) since: Instant,
    /// Since when nobody waits for it.
    pub(super) unwanted: Option<Instant>,
}

/// Lines to write when nobody types.
pub(super) struct Ahead {
    pub(super) at: Instant,
    pub(super) uri: String,
    pub(super) place: Place,
    pub(super) answer: Written,
}

impl Running {
    /// Returns whether what is being written is, as far as anybody knows, what a request wants.
    pub(super) fn is_for(&self, open: &Waiting) -> bool {
        if open.uri != self.uri || self.cancel.is_cancelled() {
            return false;
        }
        let request = open.place.request();
        let Some(typed) = typed_since(&self.place.document, self.place.offset, &request) else {
            return false;
        };
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.starts_with(&typed) || typed.starts_with(heard.as_str())
    }
}

impl Place {
    /// Returns the text to complete and where: with the selected item put in, if there is one.
    pub(super) fn new(
        document: &Document,
        cursor: &Cursor,
        encoding: PositionEncoding,
    ) -> Result<Self, text::Error> {
        let (document, trigger) = (document.snapshot(), cursor.trigger);
        let Some(selected) = &cursor.selected else {
            let offset = document.offset(cursor.position, encoding)?;
            return Ok(Self { document, offset, trigger });
        };
        let start = document.offset(selected.start, encoding)?;
        let end = document.offset(selected.end, encoding)?;
        if end < start {
            return Err(text::Error::RangeReversed { start: selected.start, end: selected.end });
        }
        let before = document.slice(ByteOffset(0)..start);
        let after = document.slice(end..ByteOffset(document.len_bytes()));
        let offset = ByteOffset(before.len() + selected.text.len());
        let with_selected = Document::open(&(before + &selected.text + &after), document.version());
        Ok(Self { document: with_selected.snapshot(), offset, trigger })
    }

    /// Returns the cursor's line up to the cursor.
    pub(super) fn head(&self) -> String {
        let start = self.document.line_start(self.document.line_of(self.offset));
        self.document.slice(start.unwrap_or(self.offset)..self.offset)
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            document: &self.document,
            offset: self.offset,
            trigger: self.trigger,
            tree: None,
            context: None,
        }
    }
}

//! Whether ghost text may be made for a document now.
//!
//! In: its URI and language, the settings that count for it, a snooze. Out: [`Settings`], or the reason why not.
//! Never: looks at the document's text; that is `complete::gate`'s.
//! Thread: main.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use complete::{NoneReason, Trigger};

use crate::folders::Folders;
use crate::from_proto;
use crate::settings::Settings;

/// Longest snooze: a day.
const MAX_SNOOZE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is allowed where.
#[derive(Default)]
pub(crate) struct Permit {
    pub(crate) folders: Folders,
    open: HashMap<String, Open>,
    snoozed_until: Option<Instant>,
}

struct Open {
    language_id: String,
    /// For a document that is no file, what its URI says instead.
    path: PathBuf,
}

impl Permit {
    pub(crate) fn open(&mut self, uri: &str, language_id: &str) {
        let path = from_proto::path(uri).unwrap_or_else(|| PathBuf::from(uri));
        self.open.insert(uri.to_owned(), Open { language_id: language_id.to_owned(), path });
    }

    pub(crate) fn close(&mut self, uri: &str) {
        self.open.remove(uri);
    }

    /// Returns the editor's word for a document's language.
    pub(crate) fn language_id(&self, uri: &str) -> &str {
        self.open.get(uri).map_or("", |open| &open.language_id)
    }

    /// Returns what counts for a document.
    pub(crate) fn settings(&self, uri: &str) -> &Settings {
        match self.open.get(uri) {
            Some(open) => self.folders.settings(&open.path),
            None => self.folders.settings(&from_proto::path(uri).unwrap_or_default()),
        }
    }

    /// Returns why no ghost text may be made, if so.
    pub(crate) fn refuses(&self, uri: &str, trigger: Trigger) -> Option<NoneReason> {
        let open = self.open.get(uri)?;
        let refuses = self.folders.settings(&open.path).refuses(&open.path, &open.language_id);
        // Who presses a key for it is awake.
        let is_snoozed = || trigger == Trigger::Automatic && self.snoozed_until().is_some();
        refuses.or_else(|| is_snoozed().then_some(NoneReason::Snoozed))
    }

    /// Stays silent for some time, except to who asks; for none, it ends the silence.
    pub(crate) fn snooze(&mut self, duration: Duration) {
        let until = Instant::now() + duration.min(MAX_SNOOZE);
        self.snoozed_until = (duration > Duration::ZERO).then_some(until);
    }

    /// Returns until when it is silent, if it is.
    pub(crate) fn snoozed_until(&self) -> Option<Instant> {
        self.snoozed_until.filter(|&until| until > Instant::now())
    }
}

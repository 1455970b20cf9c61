//! What became of ghost text on this machine, and what is learnt from it, in a file of the data directory.
//!
//! In: fates, what was kept, how long the engine worked. Out: [`Memory`], for `agent stats`; the calibration.
//! Never: holds a text or a file's name; leaves the machine; makes the main loop wait.
//! Thread: memory; it writes half a minute after there is something to write, and at the session's end.
//!
//! Several sessions write one file: each adds what is new under a lock, to what the others have written meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use complete::Calibration;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde::{Deserialize, Serialize};

use crate::fate::{Evidence, Fate, FateEvent};
use crate::kept::{After, Kept};

/// How long what is new waits for more before it is written.
const WRITE_AFTER: Duration = Duration::from_secs(30);
/// Answers to learn from that wait to be written.
const N_MAX_LEARNT: usize = 4096;
const DAY: u64 = 24 * 60 * 60;

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Days since 1970 → a language's id → what became of its ghost text on that day.
    pub days: BTreeMap<u64, BTreeMap<String, Counts>>,
    /// How sure an answer is, as learnt here.
    pub calibration: Calibration,
}

/// What became of ghost text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Ghost texts shown; one that is typed into is shown once.
    pub n_shown: u64,
    /// Those accepted whole.
    pub n_accepted: u64,
    /// Those of which a part was taken; some of them whole in the end.
    pub n_partly: u64,
    /// Those whose line was ended with something else.
    pub n_rejected: u64,
    /// Characters that were taken and not typed.
    pub n_chars_saved: u64,
    /// Ghost texts taken that were looked for 30 s later, and those that still stood for the most part.
    pub kept_30_s: Still,
    /// The same 300 s later.
    pub kept_300_s: Still,
    /// Seconds the engine worked for all of it.
    pub engine_s: f64,
}

/// What of taken ghost text still stands after a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Still {
    /// Ghost texts looked for.
    pub n_looked: u64,
    /// Those of which at least half stands.
    pub n_kept: u64,
    /// Characters that stand.
    pub n_chars_kept: u64,
}

impl Counts {
    /// Adds what another count has.
    pub fn add(&mut self, other: &Self) {
        self.n_shown += other.n_shown;
        self.n_accepted += other.n_accepted;
        self.n_partly += other.n_partly;
        self.n_rejected += other.n_rejected;
        self.n_chars_saved += other.n_chars_saved;
        for (still, other) in
            [(&mut self.kept_30_s, &other.kept_30_s), (&mut self.kept_300_s, &other.kept_300_s)]
        {
            still.n_looked += other.n_looked;
            still.n_kept += other.n_kept;
            still.n_chars_kept += other.n_chars_kept;
        }
        self.engine_s += other.engine_s;
    }
}

impl Memory {
    /// Reads a file; one that is not there remembers nothing.
    ///
    /// # Errors
    /// What the file system says, and [`io::ErrorKind::InvalidData`] for a file that is none of ours.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let memory: Self = serde_json::from_slice(&text).map_err(invalid)?;
        let is_sound = memory.calibration.is_sound();
        is_sound
            .then_some(memory)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "numbers that cannot be"))
    }

    /// Returns today, as [`Memory::days`] counts.
    #[must_use]
    pub fn today() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY)
    }

    /// Returns the counts of the last `n_days` days, today's with them, by language.
    #[must_use]
    pub fn last(&self, n_days: u64) -> BTreeMap<String, Counts> {
        let mut sum: BTreeMap<String, Counts> = BTreeMap::new();
        let first = (Self::today() + 1).saturating_sub(n_days);
        for (language, counts) in self.days.range(first..).flat_map(|(_, languages)| languages) {
            sum.entry(language.clone()).or_default().add(counts);
        }
        sum
    }

    /// Forgets all that a file remembers.
    ///
    /// # Errors
    /// What the file system says.
    pub fn forget(path: &Path) -> io::Result<()> {
        let _lock = lock(path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets what a file remembers of how sure an answer is.
    ///
    /// # Errors
    /// As [`Memory::read`], and what the file system says.
    pub fn forget_calibration(path: &Path) -> io::Result<()> {
        let _lock = lock(path)?;
        let memory = Self { calibration: Calibration::default(), ..Self::read(path)? };
        memory.write(path)
    }

    /// Writes it so that a reader or a crash sees the old file or the new one.
    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn add(&mut self, day: u64, news: &News) {
        let languages = self.days.entry(day).or_default();
        for (language, counts) in &news.counts {
            languages.entry(language.clone()).or_default().add(counts);
        }
        for &Learnt { mean_logprob, n_typed, was_right } in &news.learnt {
            self.calibration.learn(mean_logprob, n_typed, was_right);
        }
    }
}

/// What is not written yet.
#[derive(Debug, Default)]
struct News {
    counts: BTreeMap<String, Counts>,
    learnt: Vec<Learnt>,
}

/// What became of one answer, as far as there is something to learn from it.
#[derive(Clone, Copy, Debug)]
struct Learnt {
    mean_logprob: f32,
    n_typed: usize,
    was_right: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.learnt.is_empty()
    }

    fn of(&mut self, language: &str) -> &mut Counts {
        self.counts.entry(language.to_owned()).or_default()
    }

    fn hear(&mut self, note: Note) {
        match note {
            Note::Fate(event) => self.fate(&event),
            Note::Kept(kept) => {
                let counts = self.of(&kept.language_id);
                let still = match kept.after {
                    After::HalfMinute => &mut counts.kept_30_s,
                    After::FiveMinutes => &mut counts.kept_300_s,
                };
                still.n_looked += 1;
                still.n_kept += u64::from(2 * kept.n_chars_kept >= kept.n_chars);
                still.n_chars_kept += kept.n_chars_kept as u64;
            }
            Note::Worked { language_id, time } => self.of(&language_id).engine_s += time.as_secs_f64(),
        }
    }

    fn fate(&mut self, event: &FateEvent) {
        let counts = self.of(&event.language_id);
        let is_first = event.told_before.n_standing_chars == 0;
        match event.fate {
            Fate::Shown => {
                counts.n_shown += 1;
                return;
            }
            Fate::PartlyAccepted { .. } => counts.n_partly += u64::from(is_first),
            Fate::Accepted { .. } => counts.n_accepted += 1,
            Fate::Rejected => counts.n_rejected += 1,
        }
        if !matches!(event.fate, Fate::Rejected) {
            let n_new = event.n_standing_chars - event.told_before.n_standing_chars;
            let n_typed = event.n_typed_chars - event.told_before.n_typed_chars;
            counts.n_chars_saved += n_new.saturating_sub(n_typed) as u64;
        }
        // Right is what the first weights mean by it: the first word came. Of less than that there is nothing to learn
        // before the line is ended.
        let was_right = event.n_standing_chars >= n_first_word(&event.insert);
        let is_known = was_right || matches!(event.fate, Fate::Rejected);
        let was_known = !is_first && event.told_before.n_standing_chars >= n_first_word(&event.insert);
        if event.evidence.n_tokens > 0 && is_known && !was_known && self.learnt.len() < N_MAX_LEARNT {
            let Evidence { mean_logprob, n_typed, .. } = event.evidence;
            self.learnt.push(Learnt { mean_logprob, n_typed, was_right });
        }
    }
}

/// Returns the characters of a text up to the end of its first word.
fn n_first_word(text: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let start = text.find(is_word).unwrap_or(text.len());
    let end = text[start..].find(|c| !is_word(c)).map_or(text.len(), |n| start + n);
    text[..end].chars().count()
}

/// One thing to remember.
#[derive(Debug)]
pub(crate) enum Note {
    Fate(FateEvent),
    Kept(Kept),
    /// The engine worked so long for a document's ghost text.
    Worked {
        language_id: String,
        time: Duration,
    },
}

/// The thread that remembers.
pub(crate) struct Remembering {
    notes: Option<Sender<Note>>,
    thread: Option<JoinHandle<()>>,
}

impl Remembering {
    /// Starts it; `on_calibration` hears what was learnt before, and each time more is.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(crate) fn start(
        path: PathBuf,
        on_calibration: impl Fn(Calibration) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, notes) = crossbeam_channel::unbounded();
        let remember = move || remember(&path, &notes, &on_calibration);
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(remember)?;
        Ok(Self { notes: Some(sender), thread: Some(thread) })
    }

    /// Remembers one thing more.
    pub(crate) fn note(&self, note: Note) {
        if let Some(notes) = &self.notes {
            let _ = notes.send(note);
        }
    }
}

impl Drop for Remembering {
    /// Waits until all is written.
    fn drop(&mut self) {
        drop(self.notes.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remember(path: &Path, notes: &Receiver<Note>, on_calibration: &dyn Fn(Calibration)) {
    let mut news = News::default();
    let mut write_at = None;
    match update(path, &news) {
        Ok(calibration) => on_calibration(calibration),
        Err(error) => tracing::warn!(%error, "what became of ghost text cannot be read"),
    }
    loop {
        let note = match write_at {
            Some(at) => notes.recv_deadline(at),
            None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match note {
            Ok(note) => {
                news.hear(note);
                write_at.get_or_insert_with(|| Instant::now() + WRITE_AFTER);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => write_at = None,
            Err(RecvTimeoutError::Disconnected) if news.is_empty() => return,
            Err(RecvTimeoutError::Disconnected) => {}
        }
        match update(path, &news) {
            Ok(calibration) => {
                news = News::default();
                on_calibration(calibration);
            }
            // What is new is kept for the next time.
            Err(error) => tracing::warn!(%error, "what became of ghost text cannot be written"),
        }
        if note.is_err_and(|error| error == RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Keeps the other sessions from a file until what is returned is dropped.
fn lock(path: &Path) -> io::Result<File> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let lock = File::create(path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Adds what is new to the file, and returns the calibration that it holds then.
fn update(path: &Path, news: &News) -> io::Result<Calibration> {
    let _lock = lock(path)?;
    let mut memory = match Memory::read(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let aside = path.with_extension("bad");
            tracing::warn!(%error, aside = %aside.display(), "what was remembered cannot be read, and is put aside");
            std::fs::rename(path, aside)?;
            Memory::default()
        }
        memory => memory?,
    };
    if !news.is_empty() {
        memory.add(Memory::today(), news);
        memory.write(path)?;
    }
    Ok(memory.calibration)
}

#[cfg(test)]
mod tests;

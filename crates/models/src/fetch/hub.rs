//! A file of a repository on the Hugging Face hub, fetched through hf-hub.
//!
//! In: repository, file, revision; `HF_ENDPOINT`, the user's token.
//! Out: the file, hashed. What has arrived when a run ends early is kept and gone on from.
//! Never: the user's own hub cache written to.
//! Thread: the caller's; hf-hub sets no time limit on a read, so that a stop is noticed only when
//! the next bytes arrive.
//! Source: hf-hub 0.5.

use std::cell::Cell;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::{Fetched, Tools};
use crate::sha256::hash_file;
use crate::{CancelFlag, Entry, Error, Progress};

const N_RETRIES: usize = 3;
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The parts of an `hf:` source.
#[derive(Clone, Copy)]
pub(crate) struct HubFile<'a> {
    pub(crate) repo: &'a str,
    pub(crate) file: &'a str,
    pub(crate) revision: &'a str,
}

/// Downloads the file into `folder`, going on with what an earlier run left there.
pub(crate) fn fetch(
    entry: &Entry,
    hub_file: HubFile<'_>,
    folder: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<Fetched, Error> {
    let mut n_retries = N_RETRIES;
    let path = loop {
        let received = Cell::new(0);
        match download(entry, hub_file, folder, tools, &received, progress, cancel) {
            Ok(path) => break path,
            // What was left is whole already, or of another file: the hub refuses to go on.
            Err(Error::Hub { reason, .. })
                if n_retries > 0 && (reason.contains("status: 416") || reason.contains("Invalid part")) =>
            {
                fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
                fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
            }
            // A line that broke is worth another try; a hub that does not answer is not.
            Err(Error::Hub { .. }) if n_retries > 0 && received.get() > 0 => {}
            Err(error) => return Err(error),
        }
        n_retries -= 1;
    };
    let total = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
    let mut on_bytes = |done| progress(Progress::Checking { done, total });
    let (bytes, sha256) = hash_file(&path, &mut on_bytes, cancel)?;
    // Opened for writing: some systems refuse to sync a file opened for reading only.
    let file = File::options().append(true).open(&path).map_err(Error::io("open", &path))?;
    file.sync_all().map_err(Error::io("write", &path))?;
    Ok(Fetched { path, bytes, sha256 })
}

fn download(
    entry: &Entry,
    hub_file: HubFile<'_>,
    folder: &Path,
    tools: &Tools,
    received: &Cell<u64>,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<PathBuf, Error> {
    let failed = |reason: String| Error::Hub { from: Box::new(entry.source.clone()), reason };
    let mut builder = ApiBuilder::from_cache(Cache::new(folder.to_owned()))
        .with_token(tools.hub_token.clone())
        // hf-hub 0.5 goes on from the wrong place when it retries a download that it resumed.
        .with_retries(0);
    if let Some(endpoint) = &tools.hub_endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let api = builder.build().map_err(|error| failed(error.to_string()))?;
    let repo = Repo::with_revision(hub_file.repo.to_owned(), RepoType::Model, hub_file.revision.to_owned());
    // An earlier run may have stopped between the last byte and the final name. Only with something
    // to check it by is that file as good as one from the hub.
    let is_checked = entry.bytes.is_some() || entry.sha256.is_some();
    let kept =
        is_checked.then(|| Cache::new(folder.to_owned()).repo(repo.clone()).get(hub_file.file)).flatten();
    if let Some(path) = kept {
        return fs::canonicalize(&path).map_err(Error::io("find", &path));
    }
    let wrong_size =
        |expected, found| Error::WrongSize { from: Box::new(entry.source.clone()), expected, found };
    let stop = Cell::new(None);
    let promised = Cell::new(0);
    let bridge = Bridge {
        expected: entry.bytes,
        done: 0,
        received,
        promised: &promised,
        reported: None,
        progress,
        cancel,
        stop: &stop,
    };
    let outcome =
        catch_unwind(AssertUnwindSafe(|| api.repo(repo).download_with_progress(hub_file.file, bridge)));
    let error = match (outcome, stop.take()) {
        // hf-hub gives a link to where the bytes are.
        (Ok(Ok(link)), _) => {
            let path = fs::canonicalize(&link).map_err(Error::io("find", &link))?;
            let found = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
            if found != promised.get() {
                return Err(wrong_size(promised.get(), found));
            }
            return Ok(path);
        }
        (Err(_), Some(Stop::Cancelled)) => return Err(Error::Cancelled),
        (Err(_), Some(Stop::WrongSize { expected, found })) => {
            return Err(wrong_size(expected, found));
        }
        // hf-hub asserts what it expects of the hub's answers.
        (Err(_), None) => return Err(failed("the hub gave an unexpected answer".to_owned())),
        (Ok(Err(error)), _) => error,
    };
    Err(match innermost(error) {
        ApiError::IoError(error) => match Error::io("write", folder)(error) {
            full @ Error::DiskFull { .. } => full,
            other => failed(other.to_string()),
        },
        error => failed(error.to_string()),
    })
}

fn innermost(error: ApiError) -> ApiError {
    match error {
        ApiError::TooManyRetries(error) => innermost(*error),
        error => error,
    }
}

enum Stop {
    Cancelled,
    WrongSize { expected: u64, found: u64 },
}

/// hf-hub's progress has no way to say stop: it is left by unwinding, past no lock but its own
/// file lock, which the unwinding releases.
struct Bridge<'a, 'p> {
    expected: Option<u64>,
    done: u64,
    received: &'a Cell<u64>,
    promised: &'a Cell<u64>,
    reported: Option<Instant>,
    progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
    cancel: &'a CancelFlag,
    stop: &'a Cell<Option<Stop>>,
}

impl Bridge<'_, '_> {
    fn stop(&self, stop: Stop) -> ! {
        self.stop.set(Some(stop));
        // Not `panic!`: this prints nothing.
        resume_unwind(Box::new(()));
    }

    fn check(&self) {
        if self.cancel.is_cancelled() {
            self.stop(Stop::Cancelled);
        }
        let expected = self.expected.unwrap_or(self.promised.get());
        let found = self.promised.get().max(self.done);
        if found != expected {
            self.stop(Stop::WrongSize { expected, found });
        }
    }
}

impl hf_hub::api::Progress for Bridge<'_, '_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.promised.set(size as u64);
        self.done = 0;
        self.check();
    }

    fn update(&mut self, size: usize) {
        // The first update is what an earlier run left.
        if self.reported.is_some() {
            self.received.set(self.received.get() + size as u64);
        }
        self.done += size as u64;
        self.check();
        if self.reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            (self.progress)(Progress::Downloading { done: self.done, total: Some(self.promised.get()) });
        }
    }

    fn finish(&mut self) {
        (self.progress)(Progress::Downloading { done: self.done, total: Some(self.promised.get()) });
    }
}

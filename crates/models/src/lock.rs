//! One pull of a model at a time, and the folders pulls work in.
//!
//! In: a model's name. Out: [`NameLock`], held until dropped, also by a killed process.
//! Never: a folder of a live pull removed: it belongs to whoever holds the name's lock.
//! Thread: the lock excludes threads as well as processes, since each opens the file anew.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::{CancelFlag, Error};

const POLL: Duration = Duration::from_millis(100);
const RUN_PREFIX: &str = "run-";

/// The right to change one model's files.
#[derive(Debug)]
pub(crate) struct NameLock {
    _file: File,
    partial: PathBuf,
}

impl NameLock {
    /// Waits for the lock; `on_wait` is called once if another holds it.
    pub(crate) fn acquire(
        models: &Path,
        name: &str,
        on_wait: &mut dyn FnMut(),
        cancel: &CancelFlag,
    ) -> Result<Self, Error> {
        let path = lock_path(models, name);
        let file = open(&path)?;
        let mut is_waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    cancel.check()?;
                    if !is_waiting {
                        is_waiting = true;
                        on_wait();
                    }
                    std::thread::sleep(POLL);
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
        Ok(Self { _file: file, partial: models.join(".partial").join(name) })
    }

    /// Returns a fresh folder on the disk of the final file, removed when dropped.
    pub(crate) fn fresh_folder(&self) -> Result<TempDir, Error> {
        let partial = &self.partial;
        fs::create_dir_all(partial).map_err(Error::io("make", partial))?;
        tempfile::Builder::new()
            .prefix(RUN_PREFIX)
            .tempdir_in(partial)
            .map_err(Error::io("make a folder in", partial))
    }

    /// Returns a folder that outlives a killed run, so that the next goes on where it stopped.
    pub(crate) fn lasting_folder(&self, tag: &str) -> Result<PathBuf, Error> {
        let folder = self.partial.join(tag);
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        Ok(folder)
    }

    /// Removes what earlier runs of this name left, except the folder `kept`; returns how much.
    pub(crate) fn sweep(&self, kept: Option<&str>) -> usize {
        let n_removed = remove_inside(&self.partial, |name| Some(name) != kept.map(OsStr::new));
        // Only removed when empty.
        let _ = fs::remove_dir(&self.partial);
        n_removed
    }
}

/// Removes what killed runs of other names left; those of live ones are locked and stay.
pub(crate) fn sweep_others(models: &Path, own_name: &str) {
    let Ok(folders) = fs::read_dir(models.join(".partial")) else {
        return;
    };
    for folder in folders.flatten() {
        let name = folder.file_name();
        let Some(name) = name.to_str().filter(|name| *name != own_name) else {
            continue;
        };
        let Ok(file) = open(&lock_path(models, name)) else {
            continue;
        };
        if file.try_lock().is_ok() {
            let is_run = |name: &OsStr| name.to_string_lossy().starts_with(RUN_PREFIX);
            remove_inside(&folder.path(), is_run);
            let _ = fs::remove_dir(folder.path());
        }
    }
}

/// Returns how many folders it removed.
fn remove_inside(folder: &Path, is_stale: impl Fn(&OsStr) -> bool) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let mut n_removed = 0;
    for entry in entries.flatten().filter(|entry| is_stale(&entry.file_name())) {
        // A pip whose parent was killed may still write here: what it adds falls to the next sweep.
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => n_removed += 1,
            Err(error) => {
                tracing::warn!(folder = %entry.path().display(), %error, "stale folder not removed");
            }
        }
    }
    n_removed
}

fn lock_path(models: &Path, name: &str) -> PathBuf {
    models.join(".locks").join(format!("{name}.lock"))
}

fn open(path: &Path) -> Result<File, Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    // Never removed: a lock on a file that another process has unlinked would exclude nobody.
    File::options().create(true).write(true).truncate(false).open(path).map_err(Error::io("open", path))
}

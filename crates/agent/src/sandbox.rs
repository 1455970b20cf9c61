//! A throw-away copy of the work tree in which candidates are tried.
//!
//! In: a repository, then candidates' bytes and the test command. Out: [`TestOutcome`]s and the base's bytes.
//! Never: writes the user's tree, index or HEAD; leaves a process or, if it can, a file behind.
//! Thread: one at a time; several sandboxes may live at once.
//!
//! The copy holds no `.git`, and `GIT_CEILING_DIRECTORIES` keeps a test that calls git from finding one above.
//! Nothing ignored is copied, and no link that leads out. The command is not yet confined by the operating
//! system: it runs with the user's own rights.

mod capture;
mod copy;
mod environment;
mod leftovers;
mod processes;
mod run;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::CancelToken;

use crate::Error;
use crate::confined::{Folder, Rights};
use crate::error::io_error;
use crate::evidence::TestOutcome;
use crate::repo::{BlobId, FileKind, Repo, RepoPath};

pub use leftovers::sweep;

/// The files a run starts from.
#[derive(Debug, Clone)]
pub struct Base {
    /// HEAD's commit id, for the record; the files may differ from it.
    pub head: String,
    /// Every file that a candidate may change: regular, with a plain UTF-8 path, at most 8 MiB.
    pub files: BTreeMap<RepoPath, BaseFile>,
}

/// One file of the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseFile {
    /// What git calls its bytes.
    pub blob: BlobId,
    /// Whether it is executable.
    pub kind: FileKind,
    /// Its length.
    pub n_bytes: u64,
}

/// A copy of a work tree; dropping it removes it.
pub struct Sandbox {
    base: Base,
    // INVARIANT: holds the original of every file `write` has touched.
    originals: BTreeMap<RepoPath, Vec<u8>>,
    /// Where the originals came from.
    source: PathBuf,
    folder: PathBuf,
    tree: PathBuf,
    prefix: PathBuf,
    /// Its lock says that the sandbox lives; see [`sweep`].
    _lock: File,
}

impl Sandbox {
    /// Copies the work tree as it is now into a new folder below `scratch`, after removing dead ones there.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Io`], and those of [`Repo::list_files`]; the user can fix all of them.
    pub fn create(repo: &Repo, scratch: &Path) -> Result<Self, Error> {
        fs::create_dir_all(scratch).map_err(io_error("create", scratch))?;
        let scratch = scratch.canonicalize().map_err(io_error("open", scratch))?;
        sweep(&scratch);
        let (folder, lock) = make_folder(&scratch).map_err(io_error("create a sandbox in", &scratch))?;
        let name = repo.root().file_name().unwrap_or("root".as_ref());
        let tree = folder.join("tree").join(name);
        // From here on a failure drops this value, which removes the folder.
        let mut sandbox = Self {
            base: Base { head: repo.head()?, files: BTreeMap::new() },
            originals: BTreeMap::new(),
            source: repo.root().to_owned(),
            folder,
            tree,
            prefix: repo.prefix().to_owned(),
            _lock: lock,
        };
        for dir in [&sandbox.tree, &sandbox.tree.join(&sandbox.prefix), &sandbox.temp_dir()] {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        sandbox.base.files = copy::copy_tree(repo, &scratch, &sandbox.tree)?;
        Ok(sandbox)
    }

    /// Returns the files the run starts from.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Returns the top of the copy.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Returns a base file's bytes, whatever has happened to the copy since.
    ///
    /// # Errors
    /// [`Error::NotProposable`] if the file is not in the base; [`Error::BaseLost`] if a command changed it
    /// before it was first read and the user did so too.
    pub fn read_base(&mut self, path: &RepoPath) -> Result<&[u8], Error> {
        let Some(file) = self.base.files.get(path) else {
            return Err(Error::NotProposable { path: path.clone(), why: "it is not a file of the base" });
        };
        if !self.originals.contains_key(path) {
            let is_base = |bytes: &Vec<u8>| BlobId::of(bytes) == file.blob;
            let read = |root: &Path| {
                let bytes = Folder::holding(root, path).and_then(|folder| folder.read(path.split().1));
                bytes.ok().flatten().map(|(bytes, _)| bytes).filter(is_base)
            };
            let bytes = read(&self.tree).or_else(|| read(&self.source));
            self.originals.insert(path.clone(), bytes.ok_or_else(|| Error::BaseLost { path: path.clone() })?);
        }
        Ok(&self.originals[path])
    }

    /// Replaces a base file's content in the copy.
    ///
    /// # Errors
    /// As [`Sandbox::read_base`], and [`Error::Io`] if a command has put a link or a folder in the way.
    pub fn write(&mut self, path: &RepoPath, bytes: &[u8]) -> Result<(), Error> {
        self.read_base(path)?;
        self.replace(path, bytes).map_err(io_error("write", &self.tree.join(path.as_path())))
    }

    /// Puts a base file's own content back into the copy.
    ///
    /// Its time of change becomes now, not what it was: build tools must see that it changed again.
    ///
    /// # Errors
    /// As [`Sandbox::write`].
    pub fn restore(&mut self, path: &RepoPath) -> Result<(), Error> {
        let bytes = self.read_base(path)?.to_vec();
        self.replace(path, &bytes).map_err(io_error("write", &self.tree.join(path.as_path())))
    }

    /// Runs `sh -c COMMAND` in the copy and kills all it started, at the latest when `timeout` is over.
    ///
    /// # Errors
    /// [`Error::Command`] if it cannot be started or stopped. A failing test, a time-out and a cancellation are
    /// outcomes.
    pub fn run(
        &mut self,
        command: &str,
        timeout: Duration,
        cancel: &CancelToken,
    ) -> Result<TestOutcome, Error> {
        run::run(self, command, timeout, cancel)
    }

    fn replace(&self, path: &RepoPath, bytes: &[u8]) -> io::Result<()> {
        let (_, name) = path.split();
        let mode = match self.base.files.get(path).map(|file| file.kind) {
            Some(FileKind::Executable) => 0o755,
            _ => 0o644,
        };
        let rights = Rights {
            mode,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        let folder = Folder::holding(&self.tree, path)?;
        let temp = format!(".{name}.tandem");
        folder.remove(&temp)?;
        folder.create(&temp, bytes, rights)?;
        folder.rename(&temp, name)
    }

    fn temp_dir(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    fn target_dir(&self) -> PathBuf {
        self.folder.join("target")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        processes::kill_marked(&self.folder);
        if let Err(error) = leftovers::remove_tree(&self.folder) {
            // The next start's sweep tries again.
            tracing::warn!(folder = %self.folder.display(), %error, "sandbox not removed");
        }
    }
}

/// Makes a folder that no other process has, and the lock that says we live.
fn make_folder(scratch: &Path) -> io::Result<(PathBuf, File)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let folder = scratch.join(format!("{}-{now}", std::process::id()));
    fs::create_dir(&folder)?;
    let lock = File::create_new(folder.join(leftovers::LOCK))?;
    lock.lock()?;
    Ok((folder, lock))
}

#[cfg(test)]
mod tests;

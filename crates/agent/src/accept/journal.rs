//! What a call is about to write, kept in `.git/tandem/` so that a killed one can be undone.
//!
//! In: a plan. Out: a file that names every blob and temporary file, gone once the decisions are recorded.
//! Never: puts back bytes over a file that has become something else since.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::write::{Plan, put_back};
use crate::Error;
use crate::confined::Folder;
use crate::error::{Doing, io_error};
use crate::proposal::{self, ProposalId};
use crate::repo::{BlobId, Repo, RepoPath};

/// A written journal.
pub(super) struct Journal(PathBuf);

#[derive(Serialize, Deserialize)]
struct Stored {
    proposal: String,
    /// The commit of the proposal before the decisions.
    revision: String,
    files: Vec<StoredFile>,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    path: RepoPath,
    old: BlobId,
    new: BlobId,
    temp: String,
}

impl Journal {
    /// Stores the files' old bytes as blobs, then the plan.
    pub(super) fn write(
        repo: &Repo,
        id: &ProposalId,
        revision: git2::Oid,
        plan: &Plan,
    ) -> Result<Self, Error> {
        let mut files = Vec::with_capacity(plan.files.len());
        for file in &plan.files {
            let old = BlobId(repo.git().blob(&file.old).doing("keep the files' old content")?);
            let (path, temp) = (file.path.clone(), file.temp.clone());
            files.push(StoredFile { path, old, new: BlobId::of(&file.new), temp });
        }
        let stored = Stored { proposal: id.to_string(), revision: revision.to_string(), files };
        let json = serde_json::to_vec(&stored).expect("the journal has only text keys, so it can be JSON");
        let path = path(repo);
        write_whole(&path, &json).map_err(io_error("write", &path))?;
        Ok(Self(path))
    }

    /// Says that the call is over.
    pub(super) fn clear(&self) -> Result<(), Error> {
        fs::remove_file(&self.0).map_err(io_error("remove", &self.0))
    }
}

pub(super) fn exists(repo: &Repo) -> bool {
    path(repo).exists()
}

/// Undoes what a killed call has written, unless it had come to its end; the caller holds the lock.
pub(super) fn recover(repo: &Repo) -> Result<Vec<RepoPath>, Error> {
    let path = path(repo);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::Io { action: "read", path, source });
        }
    };
    let stored: Stored = serde_json::from_slice(&json).map_err(|error| Error::Io {
        action: "understand",
        path: path.clone(),
        source: error.into(),
    })?;
    let mut put_back_paths = Vec::new();
    if !is_recorded(repo, &stored) {
        for file in stored.files {
            if undo(repo, &file)? {
                tracing::info!(path = %file.path, "a killed accept was undone");
                put_back_paths.push(file.path);
            }
        }
    }
    fs::remove_file(&path).map_err(io_error("remove", &path))?;
    Ok(put_back_paths)
}

/// Returns whether the decisions were stored: then the files are as the human wants them.
fn is_recorded(repo: &Repo, stored: &Stored) -> bool {
    let proposal = ProposalId::parse(&stored.proposal).map(|id| proposal::load(repo, &id));
    matches!(proposal, Some(Ok(proposal)) if proposal.revision.to_string() != stored.revision)
}

fn undo(repo: &Repo, file: &StoredFile) -> Result<bool, Error> {
    let place = repo.root().join(file.path.as_path());
    // The journal lies where only the user writes, but a name with a slash would lead elsewhere.
    if file.temp.contains('/') {
        let source = io::Error::from(io::ErrorKind::InvalidData);
        return Err(Error::Io { action: "understand the journal of", path: place, source });
    }
    let folder = match Folder::holding(repo.root(), &file.path) {
        Ok(folder) => folder,
        // Whoever moved the folder away has decided what becomes of the file.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(source) => {
            return Err(Error::Io { action: "open the folder of", path: place, source });
        }
    };
    let is_ours = |now: &[u8]| BlobId::of(now) == file.new;
    let old = || {
        repo.read_blob(file.old)
            .ok_or_else(|| io::Error::other(format!("git has lost the old content, blob {}", file.old)))
    };
    put_back(&folder, &file.path, &file.temp, is_ours, old).map_err(io_error("write", &place))
}

fn path(repo: &Repo) -> PathBuf {
    repo.private_dir().join("accept-journal.json")
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("new");
    let mut file = fs::File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

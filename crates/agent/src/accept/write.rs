//! All files or none.
//!
//! In: new bytes for some files. Out: the files replaced, each at once; or all as they were.
//! Never: replaces a file whose bytes are not those the plan was made from.
//! Source: rename(2) within a directory replaces a file at once.

use std::collections::BTreeSet;
use std::io;

use super::rebased::{is_untouched, rebased};
use crate::Error;
use crate::confined::{Folder, Rights};
use crate::error::ConflictAt;
use crate::proposal::{FileChange, Proposal, ProposalId};
use crate::repo::{Repo, RepoPath};

/// What is to be written.
pub(super) struct Plan {
    pub files: Vec<Planned>,
    pub rebased: Vec<RepoPath>,
    root: std::path::PathBuf,
}

/// One file to replace.
pub(super) struct Planned {
    pub path: RepoPath,
    pub old: Vec<u8>,
    pub new: Vec<u8>,
    /// The name its new content has until it takes the file's place.
    pub temp: String,
    rights: Rights,
}

impl Plan {
    /// Works out every file's new bytes; writes nothing.
    pub(super) fn make(repo: &Repo, proposal: &Proposal, chosen: &BTreeSet<usize>) -> Result<Self, Error> {
        let mut plan = Self { files: Vec::new(), rebased: Vec::new(), root: repo.root().to_owned() };
        let mut conflicts = Vec::new();
        let mut first_number = 1;
        for file in &proposal.draft.files {
            let end = first_number + file.hunks.len();
            if chosen.range(first_number..end).next().is_some() {
                match plan.add(&proposal.id, file, first_number, chosen) {
                    Ok(()) => {}
                    Err(Error::Conflict { conflicts: more }) => conflicts.extend(more),
                    Err(error) => return Err(error),
                }
            }
            first_number = end;
        }
        if conflicts.is_empty() { Ok(plan) } else { Err(Error::Conflict { conflicts }) }
    }

    fn add(
        &mut self,
        id: &ProposalId,
        file: &FileChange,
        first_number: usize,
        chosen: &BTreeSet<usize>,
    ) -> Result<(), Error> {
        let path = &file.path;
        let whole = |why: &str| {
            let at = ConflictAt { path: path.clone(), hunk: 0, line: None, why: why.to_owned() };
            Error::Conflict { conflicts: vec![at] }
        };
        let (old, rights) = match Folder::holding(&self.root, path)
            .and_then(|folder| folder.read(path.split().1))
        {
            Ok(Some(read)) => read,
            Ok(None) => return Err(Error::NotARegularFile { path: path.clone() }),
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => whole("the file is gone"),
                    // A link or a file stands where a folder was.
                    io::ErrorKind::NotADirectory => Error::NotARegularFile { path: path.clone() },
                    _ => Error::Io { action: "read", path: self.root.join(path.as_path()), source: error },
                });
            }
        };
        let current = std::str::from_utf8(&old).map_err(|_| whole("the file is not UTF-8 text any more"))?;
        let new = rebased(file, first_number, chosen, current)
            .map_err(|conflict| Error::Conflict { conflicts: vec![conflict] })?;
        if !is_untouched(file, current) {
            self.rebased.push(path.clone());
        }
        // The user may have made the same change.
        if new == current {
            return Ok(());
        }
        if rights.mode & 0o200 == 0 {
            return Err(Error::ReadOnly { path: path.clone() });
        }
        let temp = format!(".tandem-{id}-{}", self.files.len());
        self.files.push(Planned { path: path.clone(), old, new: new.into_bytes(), temp, rights });
        Ok(())
    }

    /// Writes every file's new content beside it: what can fail for want of room or rights fails here.
    pub(super) fn stage(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| {
            let folder = self.folder(file)?;
            folder
                .create(&file.temp, &file.new, file.rights)
                .map_err(|source| self.error("write", file, source))
        })
    }

    /// Puts every new content in its file's place.
    pub(super) fn replace(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| self.replace_one(file))
    }

    pub(super) fn replace_one(&self, file: &Planned) -> Result<(), Error> {
        let folder = self.folder(file)?;
        let (_, name) = file.path.split();
        let now = folder.read(name).map_err(|source| self.error("read", file, source))?;
        if now.is_none_or(|(bytes, _)| bytes != file.old) {
            let why = "the file changed while the proposal was being written".to_owned();
            let at = ConflictAt { path: file.path.clone(), hunk: 0, line: None, why };
            return Err(Error::Conflict { conflicts: vec![at] });
        }
        folder.rename(&file.temp, name).map_err(|source| self.error("replace", file, source))?;
        folder.sync().map_err(|source| self.error("write", file, source))
    }

    /// Puts the old bytes back wherever the new ones are, and returns a file where that failed.
    pub(super) fn undo(&self) -> Result<(), &Planned> {
        let mut failed = None;
        // All are tried before one is named.
        for file in &self.files {
            let undone = Folder::holding(&self.root, &file.path).and_then(|folder| {
                let old = || Ok(file.old.clone());
                put_back(&folder, &file.path, &file.temp, |now| now == file.new, old)
            });
            if undone.is_err() {
                failed = Some(file);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn folder(&self, file: &Planned) -> Result<Folder, Error> {
        Folder::holding(&self.root, &file.path)
            .map_err(|source| self.error("open the folder of", file, source))
    }

    fn error(&self, action: &'static str, file: &Planned, source: io::Error) -> Error {
        Error::Io { action, path: self.root.join(file.path.as_path()), source }
    }
}

/// Removes the temporary file and, if the file's bytes are ours, puts the old ones in their place.
///
/// Returns whether it did the latter; anything else there is the user's and stays.
pub(super) fn put_back(
    folder: &Folder,
    path: &RepoPath,
    temp: &str,
    is_ours: impl FnOnce(&[u8]) -> bool,
    old: impl FnOnce() -> io::Result<Vec<u8>>,
) -> io::Result<bool> {
    let (_, name) = path.split();
    folder.remove(temp)?;
    let rights = match folder.read(name) {
        Ok(Some((now, rights))) if is_ours(&now) => rights,
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    folder.create(temp, &old()?, rights)?;
    folder.rename(temp, name)?;
    folder.sync()?;
    Ok(true)
}

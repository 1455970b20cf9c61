//! The user's repository and its work tree as it is, read only.
//!
//! In: a directory. Out: a [`Repo`]; the list of files that matter; their bytes.
//! Never: writes the work tree, the index or HEAD (I-10); needs the `git` program.
//! Thread: any, one at a time; libgit2's handle is not shared.
//!
//! What is fixed is what the user sees: tracked files with their uncommitted changes and untracked files
//! that are not ignored. HEAD is only noted.

mod init;
mod path;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Oid, Repository, RepositoryState, StatusOptions, StatusShow};

use crate::Error;
use crate::error::Doing;

pub use init::init_with_everything;
pub use path::{PathProblem, RepoPath};

/// git's mode of a link to a submodule's commit.
const MODE_SUBMODULE: u32 = 0o160_000;

/// An open repository with a work tree.
pub struct Repo {
    git: Repository,
    root: PathBuf,
    prefix: PathBuf,
}

/// How git sees a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// An ordinary file.
    Regular,
    /// A file its owner may execute.
    Executable,
    /// A symbolic link; its content is its target.
    Link,
}

/// A git blob's id, written in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobId(pub(crate) Oid);

impl Repo {
    /// Opens the repository that `dir` lies in, fit to start a run on.
    ///
    /// # Errors
    /// [`Error::NotARepository`]; [`Error::RepositoryState`] where it is bare, has no commit, is in the middle
    /// of a merge, a rebase or the like, ignores `dir`, or has a format libgit2 does not read. The user can
    /// change all of these.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let repo = Self::open_for_review(dir)?;
        repo.head()?;
        check_settled(&repo.git)?;
        repo.check_prefix()?;
        Ok(repo)
    }

    /// Opens the repository that `dir` lies in, fit to look at its proposals and to decide on them.
    ///
    /// # Errors
    /// As [`Repo::open`], but a merge or a missing commit does not matter.
    pub fn open_for_review(dir: &Path) -> Result<Self, Error> {
        let dir = dir.canonicalize().map_err(crate::error::io_error("open", dir))?;
        let git = Repository::discover(&dir).map_err(|source| open_error(&dir, source))?;
        let Some(root) = git.workdir() else {
            return Err(Error::RepositoryState {
                what: format!("{} is a bare repository, it has no work tree", git.path().display()),
                hint: "run it in a clone that has a work tree",
            });
        };
        let root = root.canonicalize().map_err(crate::error::io_error("open", root))?;
        let prefix = match dir.strip_prefix(&root) {
            Ok(prefix) if !dir.starts_with(git.path()) => prefix.to_owned(),
            _ => {
                return Err(Error::RepositoryState {
                    what: format!("{} is not in the work tree {}", dir.display(), root.display()),
                    hint: "run it in the work tree",
                });
            }
        };
        Ok(Self { git, root, prefix })
    }

    /// Returns the top of the work tree, without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory asked for, relative to [`Repo::root`]; empty for the root itself.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Returns HEAD's commit id in hexadecimal.
    ///
    /// # Errors
    /// [`Error::RepositoryState`] where there is no commit yet.
    pub fn head(&self) -> Result<String, Error> {
        match self.git.head().and_then(|head| head.peel_to_commit()) {
            Ok(commit) => Ok(commit.id().to_string()),
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
                Err(Error::RepositoryState {
                    what: "the repository has no commit yet".to_owned(),
                    hint: "commit once: `git add -A && git commit -m start`",
                })
            }
            Err(source) => Err(Error::Git { what: "read HEAD", source }),
        }
    }

    /// Returns the files that matter, in order: tracked ones and untracked ones that are not ignored.
    ///
    /// Files deleted on disk and everything in submodules and nested repositories is left out. Names need not be
    /// UTF-8.
    ///
    /// # Errors
    /// [`Error::RepositoryState`] if the index cannot be read.
    pub fn list_files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut paths = BTreeSet::new();
        let index = self.git.index().map_err(unreadable_index)?;
        for entry in index.iter().filter(|entry| entry.mode != MODE_SUBMODULE) {
            paths.insert(PathBuf::from(OsStr::from_bytes(&entry.path)));
        }
        let mut options = StatusOptions::new();
        // Without `update_index(false)` a status may write the refreshed index back (I-10).
        options
            .show(StatusShow::Workdir)
            .include_untracked(true)
            .recurse_untracked_dirs(true)
            .include_ignored(false)
            .exclude_submodules(true)
            .update_index(false);
        let statuses = self.git.statuses(Some(&mut options)).map_err(unreadable_index)?;
        for entry in statuses.iter().filter(|entry| entry.status().is_wt_new()) {
            let path = entry.path_bytes();
            // A trailing slash marks a nested repository: its own, not ours.
            if !path.ends_with(b"/") {
                paths.insert(PathBuf::from(OsStr::from_bytes(path)));
            }
        }
        let mut is_real_dir = HashMap::new();
        paths.retain(|path| {
            let is_file = self.root.join(path).symlink_metadata().is_ok_and(|meta| !meta.is_dir());
            is_file && path.parent().is_none_or(|dir| self.is_inside(dir, &mut is_real_dir))
        });
        Ok(paths.into_iter().collect())
    }

    pub(crate) fn git(&self) -> &Repository {
        &self.git
    }

    /// Returns our own folder in this work tree's git directory; it may not exist yet.
    pub(crate) fn private_dir(&self) -> PathBuf {
        self.git.path().join("tandem")
    }

    /// Returns the bytes of a blob, if the repository has it.
    pub(crate) fn read_blob(&self, id: BlobId) -> Option<Vec<u8>> {
        self.git.find_blob(id.0).ok().map(|blob| blob.content().to_vec())
    }

    /// Returns whether no part of `dir` is a link: what the index has below one is not in the work tree.
    fn is_inside(&self, dir: &Path, known: &mut HashMap<PathBuf, bool>) -> bool {
        if dir.as_os_str().is_empty() {
            return true;
        }
        if let Some(&known) = known.get(dir) {
            return known;
        }
        let is_real = self.root.join(dir).symlink_metadata().is_ok_and(|meta| meta.is_dir())
            && dir.parent().is_none_or(|above| self.is_inside(above, known));
        known.insert(dir.to_owned(), is_real);
        is_real
    }

    fn check_prefix(&self) -> Result<(), Error> {
        if self.prefix.as_os_str().is_empty() {
            return Ok(());
        }
        // A path below an ignored folder is asked for as a folder's, so that `folder/` patterns match too.
        let is_ignored = self.git.is_path_ignored(self.prefix.join("")).doing("read .gitignore")?;
        let has_tracked = || {
            let index = self.git.index().map_err(unreadable_index)?;
            let mut folder = self.prefix.as_os_str().as_bytes().to_vec();
            folder.push(b'/');
            Ok(index.iter().any(|entry| entry.path.starts_with(&folder)))
        };
        if is_ignored && !has_tracked()? {
            return Err(Error::RepositoryState {
                what: format!(
                    "{} is ignored by the repository {}",
                    self.prefix.display(),
                    self.root.display()
                ),
                hint: "make the folder its own repository: `git init && git add -A && git commit -m start`",
            });
        }
        Ok(())
    }
}

impl BlobId {
    /// Returns the id that git gives these bytes as they are, with no filter applied.
    pub fn of(bytes: &[u8]) -> Self {
        // INVARIANT: hashing bytes in memory does not fail in libgit2 for a valid object type.
        Self(Oid::hash_object(ObjectType::Blob, bytes).expect("a blob in memory can be hashed"))
    }
}

impl std::fmt::Display for BlobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl TryFrom<String> for BlobId {
    type Error = git2::Error;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        Oid::from_str(&hex).map(Self)
    }
}

impl From<BlobId> for String {
    fn from(id: BlobId) -> Self {
        id.to_string()
    }
}

impl FileKind {
    /// Returns the mode of a tree entry of this kind.
    pub(crate) fn git_mode(self) -> u32 {
        match self {
            Self::Regular => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_000,
        }
    }
}

fn check_settled(git: &Repository) -> Result<(), Error> {
    let what = match git.state() {
        // A bisection leaves ordinary files to fix.
        RepositoryState::Clean | RepositoryState::Bisect => {
            let index = git.index().map_err(unreadable_index)?;
            if !index.has_conflicts() {
                return Ok(());
            }
            "an unresolved conflict"
        }
        RepositoryState::Merge => "a merge",
        RepositoryState::Revert | RepositoryState::RevertSequence => "a revert",
        RepositoryState::CherryPick | RepositoryState::CherryPickSequence => "a cherry-pick",
        RepositoryState::Rebase | RepositoryState::RebaseInteractive | RepositoryState::RebaseMerge => {
            "a rebase"
        }
        RepositoryState::ApplyMailbox | RepositoryState::ApplyMailboxOrRebase => "a `git am`",
    };
    Err(Error::RepositoryState {
        what: format!("the repository is in the middle of {what}"),
        hint: "finish or abort it first; `git status` says how",
    })
}

fn open_error(dir: &Path, source: git2::Error) -> Error {
    match source.code() {
        ErrorCode::NotFound => Error::NotARepository { dir: dir.to_owned() },
        ErrorCode::Owner => Error::RepositoryState {
            what: format!("the repository at {} belongs to another user", dir.display()),
            hint: "if you trust it: `git config --global --add safe.directory PATH`",
        },
        _ => Error::RepositoryState {
            what: format!("the repository at {} cannot be opened: {}", dir.display(), source.message()),
            hint: "`git fsck` and `git status` may say more",
        },
    }
}

fn unreadable_index(source: git2::Error) -> Error {
    Error::RepositoryState {
        what: format!("the repository's index cannot be read: {}", source.message()),
        hint: "if it is a split or sparse index, `git update-index --no-split-index` or `git sparse-checkout disable`",
    }
}

#[cfg(test)]
mod tests;

//! What can go wrong between a task and an accepted hunk, one variant per thing a caller can do about it.
//!
//! In: failures of git, the file system and the human's choice. Out: a message and a hint.
//! Never: decides an exit code; that is the command line's business.

use std::fmt;
use std::path::PathBuf;

use crate::repo::{PathProblem, RepoPath};

/// A failure of the agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is in no git repository; the user can make one.
    #[error("{} is not in a git repository", dir.display())]
    NotARepository {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// The repository is in a state the agent does not work on; the user can change it.
    #[error("{what}")]
    RepositoryState {
        /// What stands in the way.
        what: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// The shell could not run the test command; the user can name another.
    #[error("the test command cannot be run (exit code {exit}): {command}\n{}", output.trim_end())]
    CannotRun {
        /// What was to be run.
        command: String,
        /// The shell's exit code, 126 or 127.
        exit: i32,
        /// What the shell said.
        output: String,
    },
    /// The engine failed; its own error says who can fix it.
    #[error(transparent)]
    Engine(engine::Error),
    /// The model that writes functions, and is not the engine's, failed; it says itself who can fix it.
    #[error("{source}")]
    Author {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// git refused an operation on a repository that looked sound.
    #[error("git: {what}")]
    Git {
        /// What was being done.
        what: &'static str,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// The file system refused; the user can fix rights or room.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path that no proposal may name.
    #[error("the path {path:?} {problem}")]
    Path {
        /// The path as given.
        path: String,
        /// Why it was refused.
        problem: PathProblem,
    },
    /// The work tree is too large to copy.
    #[error(
        "the work tree is too large to copy: more than {n_files} files or {n_bytes} bytes outside .gitignore"
    )]
    TooLarge {
        /// Most files copied.
        n_files: usize,
        /// Most bytes copied.
        n_bytes: u64,
    },
    /// The bytes a proposal would start from are gone: a command changed them before they were read.
    #[error("the base of {path} is lost: a command changed the file before it was read")]
    BaseLost {
        /// The file.
        path: RepoPath,
    },
    /// A change that cannot become a proposal, so it must not be offered as one.
    #[error("cannot propose this change to {path}: {why}")]
    NotProposable {
        /// The file.
        path: RepoPath,
        /// The reason.
        why: &'static str,
    },
    /// No proposal has this id.
    #[error("there is no proposal {0:?}")]
    NoSuchProposal(String),
    /// More than one proposal starts with this.
    #[error("{prefix:?} may be any of {}", ids.join(", "))]
    AmbiguousId {
        /// What the user typed.
        prefix: String,
        /// The proposals it may mean.
        ids: Vec<String>,
    },
    /// No id was given and there is not exactly one pending proposal.
    #[error("{}", if *n_pending == 0 { "no proposal is waiting for a decision".to_owned() } else { format!("{n_pending} proposals are waiting for a decision: name one") })]
    NotOnePending {
        /// Proposals with an undecided hunk.
        n_pending: usize,
    },
    /// The stored proposal cannot be read.
    #[error("the proposal {id} is damaged: {what}")]
    Damaged {
        /// The proposal.
        id: String,
        /// What is wrong with it.
        what: String,
    },
    /// The proposal has no such hunk.
    #[error("there is no hunk {number}: the proposal has {n_hunks}")]
    NoSuchHunk {
        /// What the user asked for.
        number: usize,
        /// Hunks in the proposal.
        n_hunks: usize,
    },
    /// A human has decided on this hunk before.
    #[error("hunk {number} is already {state}")]
    AlreadyDecided {
        /// The hunk.
        number: usize,
        /// `accepted` or `rejected`.
        state: &'static str,
    },
    /// The files are not the base any more and the hunks do not fit; nothing was written.
    #[error("{}", Conflicts(conflicts))]
    Conflict {
        /// Every place that does not fit.
        conflicts: Vec<ConflictAt>,
    },
    /// A file the user has protected against writing; nothing was written.
    #[error("{path} is read-only")]
    ReadOnly {
        /// The file.
        path: RepoPath,
    },
    /// The path now leads through a symbolic link or to something that is no regular file; nothing was written.
    #[error("{path} is not a regular file inside the work tree any more")]
    NotARegularFile {
        /// The file.
        path: RepoPath,
    },
    /// Another accept is running in this work tree.
    #[error("another accept is running in this work tree")]
    Busy,
    /// Writing failed half-way, and so did putting the old bytes back.
    #[error("writing failed and {} could not be put back; the old content is the git blob {blob}", path.display())]
    RollbackFailed {
        /// The file with the new content.
        path: PathBuf,
        /// Blob id of its old content.
        blob: String,
        /// The first failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system did not start or stop the test command as asked.
    #[error("cannot {action} the test command")]
    Command {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A place where a hunk does not fit the file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictAt {
    /// The file.
    pub path: RepoPath,
    /// The hunk's number in the proposal, from 1; 0 where the whole file stands in the way.
    pub hunk: usize,
    /// The line in the file as it is now, from 0; none where there is no such file or no text.
    pub line: Option<usize>,
    /// Why it does not fit.
    pub why: String,
}

impl fmt::Display for ConflictAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(line) = self.line {
            write!(f, ":{}", line + 1)?;
        }
        if self.hunk > 0 {
            write!(f, ": hunk {}", self.hunk)?;
        }
        write!(f, ": {}", self.why)
    }
}

struct Conflicts<'a>(&'a [ConflictAt]);

impl fmt::Display for Conflicts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conflict, nothing was written")?;
        for conflict in self.0 {
            write!(f, "\n  {conflict}")?;
        }
        Ok(())
    }
}

impl Error {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotARepository { .. } => Some(
                "run it inside a git repository, or make one: `git init && git add -A && git commit -m start`",
            ),
            Self::RepositoryState { hint, .. } => Some(hint),
            Self::Engine(source) => source.hint(),
            Self::TooLarge { .. } => Some("add large generated folders to .gitignore"),
            Self::BaseLost { .. } => Some("run it again"),
            Self::CannotRun { .. } => {
                Some("it runs in a copy without the files git ignores; say another with `--test CMD`")
            }
            Self::NoSuchProposal(_) | Self::AmbiguousId { .. } | Self::NotOnePending { .. } => {
                Some("`agent proposals list` shows them")
            }
            Self::Damaged { .. } => {
                Some("`agent proposals prune` removes decided ones; a new run makes a new one")
            }
            Self::NoSuchHunk { .. } | Self::AlreadyDecided { .. } => {
                Some("`agent proposals show` prints every hunk with its number")
            }
            Self::Conflict { .. } => Some(
                "undo your change at these lines, or accept the other hunks with `--hunk`, or run the fix again",
            ),
            Self::ReadOnly { .. } => Some("make the file writable, then accept again"),
            Self::NotARegularFile { .. } => Some("put the file back as it was, or reject the proposal"),
            Self::Busy => Some("wait for it to end"),
            Self::RollbackFailed { .. } => Some("`git cat-file blob BLOB` prints the old content"),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("make room on the disk")
            }
            Self::Git { .. }
            | Self::Io { .. }
            | Self::Path { .. }
            | Self::NotProposable { .. }
            | Self::Author { .. }
            | Self::Command { .. } => None,
        }
    }
}

/// Says what was being done when git or the file system refused.
pub(crate) trait Doing<T> {
    /// Turns the failure into an [`Error`] that names the action.
    fn doing(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, git2::Error> {
    fn doing(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Git { what, source })
    }
}

/// Returns the mapping from a system error to [`Error::Io`] for this action and path.
pub(crate) fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

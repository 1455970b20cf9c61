//! A tested change that waits for a human's decisions.
//!
//! In: a base and the files a candidate made of it. Out: a [`Proposal`] kept as git objects in the user's own
//! repository under `refs/tandem/proposals/ID`.
//! Never: touches the work tree, the index or HEAD; names a path outside the work tree.
//!
//! Only the blobs that change are kept. Git's own garbage collection spares what the ref leads to and takes
//! everything once it is pruned.

mod id;
mod store;
mod stored;

use text::Hunk;

use crate::Error;
use crate::evidence::Evidence;
use crate::repo::{BlobId, FileKind, RepoPath};

pub use id::ProposalId;
pub use store::{Listing, Prune, create, delete, find, list, load, prune};

pub(crate) use store::record;

/// Lines of context around a hunk in a patch, as git has it.
const N_CONTEXT_LINES: usize = 3;

/// What a run ends with.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Its name.
    pub id: ProposalId,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What it is made of.
    pub draft: Draft,
    /// The commit it was read from.
    pub(crate) revision: git2::Oid,
}

/// All of a proposal but its name: what a run knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What was asked.
    pub task: Task,
    /// HEAD when the run began; the base may differ from it.
    pub head: String,
    /// The changes, in the order of their paths.
    pub files: Vec<FileChange>,
    /// What the tests said.
    pub evidence: Evidence,
    /// What wrote it.
    pub model: Model,
    /// The seed of its sampling.
    pub seed: u64,
    /// The version of the engine that ran the model.
    pub engine_version: String,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// In the user's words, if there are any.
    pub words: Option<String>,
    /// The command that must pass.
    pub test_command: String,
}

/// The model that was asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Model {
    /// A pinned file, on the machine that ran it.
    Local {
        /// Its name in the catalogue.
        name: String,
        /// Its file's checksum, in hexadecimal.
        sha256: String,
    },
    /// One behind an endpoint, of which only this is known.
    Remote {
        /// What the endpoint calls it.
        name: String,
        /// The endpoint's URL.
        endpoint: String,
    },
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { name, .. } => f.write_str(name),
            Self::Remote { name, endpoint } => write!(f, "{name} at {endpoint}"),
        }
    }
}

/// What becomes of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileChange {
    /// Which file.
    pub path: RepoPath,
    /// What kind it was in the base; accepting keeps the rights the file has then.
    pub kind: FileKind,
    /// The base's text, byte for byte.
    pub base_text: String,
    /// The hunks, in order; never empty.
    // INVARIANT: all of them apply to `base_text`.
    pub hunks: Vec<ReviewHunk>,
}

/// A hunk and what a human said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewHunk {
    /// The change.
    pub hunk: Hunk,
    /// The decision, once there is one.
    pub decision: Option<Decision>,
}

/// What a human says of a hunk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Write it.
    Accept,
    /// Do not write it.
    Reject {
        /// Why, for a later task.
        reason: Option<String>,
    },
}

/// How far a proposal is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A hunk waits.
    Pending,
    /// Every hunk is accepted.
    Accepted,
    /// Every hunk is rejected.
    Rejected,
    /// Every hunk is decided on, not all the same way.
    Mixed,
}

impl Proposal {
    /// Returns the hunks with their numbers, from 1, in the order of the files.
    pub fn hunks(&self) -> impl Iterator<Item = (usize, &FileChange, &ReviewHunk)> {
        let hunks = self.draft.files.iter().flat_map(|file| file.hunks.iter().map(move |hunk| (file, hunk)));
        hunks.enumerate().map(|(hunk_idx, (file, hunk))| (hunk_idx + 1, file, hunk))
    }

    /// Returns how far it is decided on.
    pub fn state(&self) -> State {
        let (mut n_hunks, mut n_accepted, mut n_rejected) = (0, 0, 0);
        for (_, _, hunk) in self.hunks() {
            n_hunks += 1;
            match hunk.decision {
                Some(Decision::Accept) => n_accepted += 1,
                Some(Decision::Reject { .. }) => n_rejected += 1,
                None => {}
            }
        }
        match () {
            () if n_accepted + n_rejected < n_hunks => State::Pending,
            () if n_rejected == 0 => State::Accepted,
            () if n_accepted == 0 => State::Rejected,
            () => State::Mixed,
        }
    }

    /// Returns the whole proposal as JSON, as it is stored; without the base's text.
    pub fn to_json(&self) -> serde_json::Value {
        stored::to_json(self)
    }

    /// Returns all hunks as a patch that `git apply` takes, whatever was decided.
    pub fn to_patch(&self) -> String {
        self.draft.files.iter().map(FileChange::to_patch).collect()
    }
}

impl FileChange {
    /// Returns the change that makes `new` of `base`.
    ///
    /// # Errors
    /// [`Error::NotProposable`] if either is no UTF-8, or if nothing changes.
    pub fn new(path: RepoPath, kind: FileKind, base: &[u8], new: &[u8]) -> Result<Self, Error> {
        let (Ok(base_text), Ok(new_text)) = (std::str::from_utf8(base), std::str::from_utf8(new)) else {
            return Err(Error::NotProposable { path, why: "it is not UTF-8 text" });
        };
        let hunks: Vec<ReviewHunk> = text::diff(base_text, new_text)
            .into_iter()
            .map(|hunk| ReviewHunk { hunk, decision: None })
            .collect();
        if hunks.is_empty() {
            return Err(Error::NotProposable { path, why: "nothing changes" });
        }
        Ok(Self { path, kind, base_text: base_text.to_owned(), hunks })
    }

    /// Returns the text with every hunk applied.
    pub fn new_text(&self) -> String {
        let hunks = self.hunks.iter().map(|hunk| &hunk.hunk);
        text::apply_hunks(&self.base_text, hunks).expect("FileChange: all hunks apply to the base")
    }

    /// Returns the hunks as a patch of this file.
    pub fn to_patch(&self) -> String {
        let hunks: Vec<Hunk> = self.hunks.iter().map(|hunk| hunk.hunk.clone()).collect();
        text::to_unified(self.path.as_str(), &self.base_text, &hunks, N_CONTEXT_LINES)
    }

    /// Returns the base's blob id.
    pub fn base_blob(&self) -> BlobId {
        BlobId::of(self.base_text.as_bytes())
    }
}

impl State {
    /// Returns the state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Mixed => "mixed",
        }
    }
}

impl Decision {
    /// Returns what a hunk with this decision is.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Accept => "accepted",
            Self::Reject { .. } => "rejected",
        }
    }
}

#[cfg(test)]
mod tests;

//! A proposal as JSON, the form that outlives this version of the program.
//!
//! In: a [`Proposal`], or bytes from the repository. Out: the other, or what is wrong with it.
//! Never: trusts what it reads: anyone who can push a ref can write one.

use serde::{Deserialize, Serialize};
use text::Hunk;

use super::{Decision, Draft, FileChange, Model, Proposal, ProposalId, ReviewHunk, Task};
use crate::evidence::Evidence;
use crate::repo::{BlobId, FileKind, RepoPath};

/// Changes when an older version could misread what a newer one writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    id: String,
    created_ms: u64,
    task: Task,
    head: String,
    files: Vec<StoredFile>,
    evidence: Evidence,
    model: Model,
    seed: u64,
    engine_version: String,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    path: RepoPath,
    kind: FileKind,
    base_blob: BlobId,
    hunks: Vec<StoredHunk>,
}

#[derive(Serialize, Deserialize)]
struct StoredHunk {
    /// From 1 over all files, for readers of the JSON.
    number: usize,
    /// 0-based.
    base_start: usize,
    base_lines: Vec<String>,
    new_lines: Vec<String>,
    decision: Option<Decision>,
}

pub(super) fn to_json(proposal: &Proposal) -> serde_json::Value {
    let draft = &proposal.draft;
    let mut numbers = 1..;
    let files = draft.files.iter().map(|file| StoredFile {
        path: file.path.clone(),
        kind: file.kind,
        base_blob: file.base_blob(),
        hunks: file
            .hunks
            .iter()
            .zip(&mut numbers)
            .map(|(hunk, number)| StoredHunk::new(number, hunk))
            .collect(),
    });
    let stored = Stored {
        format: FORMAT,
        id: proposal.id.to_string(),
        created_ms: proposal.created_ms,
        task: draft.task.clone(),
        head: draft.head.clone(),
        files: files.collect(),
        evidence: draft.evidence.clone(),
        model: draft.model.clone(),
        seed: draft.seed,
        engine_version: draft.engine_version.clone(),
    };
    serde_json::to_value(stored).expect("a proposal has only text keys, so it can be JSON")
}

/// Reads a proposal back; `base` finds a base file's bytes by its path.
pub(super) fn from_json(
    json: &[u8],
    id: &ProposalId,
    revision: git2::Oid,
    base: impl Fn(&RepoPath) -> Option<Vec<u8>>,
) -> Result<Proposal, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let Head { format } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Err(format!("its format is {format} and this version reads {FORMAT}"));
    }
    let stored: Stored = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if stored.id != id.as_str() {
        return Err(format!("it calls itself {:?}", stored.id));
    }
    let mut files: Vec<FileChange> = Vec::with_capacity(stored.files.len());
    for file in stored.files {
        if files.iter().any(|other| other.path == file.path) {
            return Err(format!("it names {} twice", file.path));
        }
        let bytes = base(&file.path).ok_or_else(|| format!("the base of {} is missing", file.path))?;
        files.push(file.read(bytes)?);
    }
    if files.is_empty() {
        return Err("it changes nothing".to_owned());
    }
    let draft = Draft {
        task: stored.task,
        head: stored.head,
        files,
        evidence: stored.evidence,
        model: stored.model,
        seed: stored.seed,
        engine_version: stored.engine_version,
    };
    Ok(Proposal { id: id.clone(), created_ms: stored.created_ms, draft, revision })
}

impl StoredFile {
    fn read(self, base: Vec<u8>) -> Result<FileChange, String> {
        let Self { path, kind, base_blob, hunks } = self;
        if BlobId::of(&base) != base_blob {
            return Err(format!("the base of {path} is not the one named"));
        }
        let base_text = String::from_utf8(base).map_err(|_| format!("the base of {path} is not UTF-8"))?;
        let hunks: Vec<ReviewHunk> = hunks.into_iter().map(StoredHunk::read).collect();
        if hunks.is_empty() {
            return Err(format!("it has no hunk for {path}"));
        }
        let place = |hunk: &ReviewHunk| (hunk.hunk.base_start, hunk.hunk.base_lines.len());
        if !hunks.is_sorted_by_key(place) {
            return Err(format!("the hunks of {path} are not in order"));
        }
        text::apply_hunks(&base_text, hunks.iter().map(|hunk| &hunk.hunk))
            .map_err(|error| format!("the hunks of {path} do not fit its base: {error}"))?;
        Ok(FileChange { path, kind, base_text, hunks })
    }
}

impl StoredHunk {
    fn new(number: usize, ReviewHunk { hunk, decision }: &ReviewHunk) -> Self {
        Self {
            number,
            base_start: hunk.base_start,
            base_lines: hunk.base_lines.clone(),
            new_lines: hunk.new_lines.clone(),
            decision: decision.clone(),
        }
    }

    fn read(self) -> ReviewHunk {
        let Self { number: _, base_start, base_lines, new_lines, decision } = self;
        ReviewHunk { hunk: Hunk { base_start, base_lines, new_lines }, decision }
    }
}

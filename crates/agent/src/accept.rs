//! A human's decisions become bytes in the work tree: the only module that writes it (I-4).
//!
//! In: a proposal, one decision per hunk, the files as they are now. Out: every file written, or none.
//! Never: decides anything; writes without a decision; follows a symbolic link; touches the index or HEAD.
//! Thread: one in a work tree, held by a lock file; others are told [`Error::Busy`].
//!
//! ```text
//! lock → recover → load → plan (rebase all, no write) → journal → stage (temporary files) → replace → record → clear
//! ```
//! Killed anywhere before `record` the next call puts the old bytes back; after it everything is done.

mod journal;
mod rebased;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};

use crate::Error;
use crate::error::io_error;
use crate::proposal::{self, Decision, Proposal, ProposalId};
use crate::repo::{BlobId, Repo, RepoPath};

use journal::Journal;
use write::Plan;

/// What was done.
#[derive(Debug)]
pub struct Accepted {
    /// The proposal with the decisions in it.
    pub proposal: Proposal,
    /// The files that were written.
    pub written: Vec<RepoPath>,
    /// Those of the files accepted from that someone else has changed since, so the hunks were rebased.
    pub rebased: Vec<RepoPath>,
}

/// Carries out a human's decisions, by hunk number from 1: writes what is accepted and records all of them.
///
/// # Errors
/// Whatever the error, no file has changed, but for [`Error::RollbackFailed`]. [`Error::Conflict`],
/// [`Error::ReadOnly`] and [`Error::NotARegularFile`]: the user can change the files. [`Error::NoSuchHunk`] and
/// [`Error::AlreadyDecided`]: the user can name other hunks. [`Error::Busy`]: later. And those of
/// [`proposal::load`].
pub fn decide(
    repo: &Repo,
    id: &ProposalId,
    decisions: &BTreeMap<usize, Decision>,
) -> Result<Accepted, Error> {
    let _lock = lock(repo)?;
    journal::recover(repo)?;
    let mut proposal = proposal::load(repo, id)?;
    let chosen = check(&proposal, decisions)?;
    let plan = Plan::make(repo, &proposal, &chosen)?;
    let revision = proposal.revision;
    set_decisions(&mut proposal, decisions);
    if plan.files.is_empty() {
        proposal::record(repo, &mut proposal)?;
    } else {
        let journal = Journal::write(repo, id, revision, &plan)?;
        let done =
            plan.stage().and_then(|()| plan.replace()).and_then(|()| proposal::record(repo, &mut proposal));
        if let Err(error) = done {
            // If this fails the journal stays, and the next call tries again.
            plan.undo().map_err(|file| Error::RollbackFailed {
                path: repo.root().join(file.path.as_path()),
                blob: BlobId::of(&file.old).to_string(),
                source: error.to_string().into(),
            })?;
            journal.clear()?;
            return Err(error);
        }
        journal.clear()?;
    }
    let written = plan.files.into_iter().map(|file| file.path).collect();
    Ok(Accepted { proposal, written, rebased: plan.rebased })
}

/// Finishes what a killed call left, and returns the files whose old bytes were put back.
///
/// [`decide`] does this by itself; commands that read the files first call it before.
///
/// # Errors
/// [`Error::Busy`] while another call runs; [`Error::Io`] and [`Error::RollbackFailed`] if the bytes cannot be put
/// back, which the user can make possible.
pub fn recover(repo: &Repo) -> Result<Vec<RepoPath>, Error> {
    if !journal::exists(repo) {
        return Ok(Vec::new());
    }
    let _lock = lock(repo)?;
    journal::recover(repo)
}

fn lock(repo: &Repo) -> Result<File, Error> {
    let folder = repo.private_dir();
    fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    let path = folder.join("accept.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy),
        Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
    }
}

/// Returns the numbers to accept if every decision is about an undecided hunk.
fn check(proposal: &Proposal, decisions: &BTreeMap<usize, Decision>) -> Result<BTreeSet<usize>, Error> {
    let before: BTreeMap<usize, Option<&Decision>> =
        proposal.hunks().map(|(number, _, hunk)| (number, hunk.decision.as_ref())).collect();
    for &number in decisions.keys() {
        match before.get(&number) {
            None => {
                return Err(Error::NoSuchHunk { number, n_hunks: before.len() });
            }
            Some(Some(decision)) => {
                return Err(Error::AlreadyDecided { number, state: decision.state() });
            }
            Some(None) => {}
        }
    }
    Ok(decisions
        .iter()
        .filter(|(_, decision)| **decision == Decision::Accept)
        .map(|(number, _)| *number)
        .collect())
}

fn set_decisions(proposal: &mut Proposal, decisions: &BTreeMap<usize, Decision>) {
    let hunks = proposal.draft.files.iter_mut().flat_map(|file| &mut file.hunks);
    for (hunk, number) in hunks.zip(1..) {
        if let Some(decision) = decisions.get(&number) {
            hunk.decision = Some(decision.clone());
        }
    }
}

#[cfg(test)]
mod tests;

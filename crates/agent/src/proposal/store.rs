//! Proposals as git objects.
//!
//! In: a [`Draft`], or a name. Out: a [`Proposal`] that survives a crash, a restart and `git gc`.
//! Never: leaves half a proposal: blobs first, then trees, then the commit, and the ref that makes it one last.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use git2::{Commit, ErrorCode, Index, IndexEntry, IndexTime, Oid, Signature, Time};

use super::{Draft, FileChange, Proposal, ProposalId, State, id, stored};
use crate::Error;
use crate::error::Doing;
use crate::repo::{FileKind, Repo, RepoPath};

/// Where the refs are.
const REFS: &str = "refs/tandem/proposals/";

const JSON: &str = "proposal.json";
const PATCH: &str = "proposal.patch";

/// What [`list`] found.
#[derive(Debug)]
pub struct Listing {
    /// The oldest first.
    pub proposals: Vec<Proposal>,
    /// Those that cannot be read, each with the reason.
    pub damaged: Vec<Error>,
}

/// Which proposals [`prune`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Those with a decision on every hunk.
    Decided,
    /// Those made longer ago than this, decided or not.
    OlderThan(Duration),
}

/// Stores a run's result and returns it with its name.
///
/// # Errors
/// [`Error::Git`] if the repository cannot be written to.
///
/// # Panics
/// If no file changes: what would be stored could not be read back.
pub fn create(repo: &Repo, mut draft: Draft) -> Result<Proposal, Error> {
    assert!(!draft.files.is_empty(), "a draft changes a file");
    draft.files.sort_by(|left, right| left.path.cmp(&right.path));
    let created_ms = now_ms();
    loop {
        let id = ProposalId::new(created_ms);
        let mut proposal = Proposal { id, created_ms, draft, revision: Oid::ZERO_SHA1 };
        proposal.revision = write_commit(repo, &proposal, &[])?;
        let name = ref_name(&proposal.id);
        match repo.git().reference(&name, proposal.revision, false, "tandem: proposal") {
            Ok(_) => return Ok(proposal),
            // Two proposals of one minute met by chance; what was written stays for `git gc`.
            Err(error) if error.code() == ErrorCode::Exists => draft = proposal.draft,
            Err(source) => {
                return Err(Error::Git { what: "store the proposal", source });
            }
        }
    }
}

/// Returns all proposals.
///
/// # Errors
/// [`Error::Git`] if the refs cannot be read. A damaged proposal is part of the answer.
pub fn list(repo: &Repo) -> Result<Listing, Error> {
    let mut listing = Listing { proposals: Vec::new(), damaged: Vec::new() };
    for id in ids(repo)? {
        match load(repo, &id) {
            Ok(proposal) => listing.proposals.push(proposal),
            // Deleted since the refs were listed.
            Err(Error::NoSuchProposal(_)) => {}
            Err(error) => listing.damaged.push(error),
        }
    }
    listing.proposals.sort_by(|left, right| (left.created_ms, &left.id).cmp(&(right.created_ms, &right.id)));
    Ok(listing)
}

/// Returns the proposal a user means: by the start of its name, or, without one, the only pending one.
///
/// # Errors
/// [`Error::NoSuchProposal`], [`Error::AmbiguousId`] or [`Error::NotOnePending`] if it is not clear which; and those
/// of [`load`].
pub fn find(repo: &Repo, typed: Option<&str>) -> Result<Proposal, Error> {
    let Some(typed) = typed else {
        let mut pending: Vec<Proposal> =
            list(repo)?.proposals.into_iter().filter(|proposal| proposal.state() == State::Pending).collect();
        return match (pending.len(), pending.pop()) {
            (1, Some(proposal)) => Ok(proposal),
            (n_pending, _) => Err(Error::NotOnePending { n_pending }),
        };
    };
    let prefix = id::normalise(typed);
    let mut found: Vec<ProposalId> =
        ids(repo)?.into_iter().filter(|id| id.as_str().starts_with(&prefix)).collect();
    match (found.len(), found.pop()) {
        (1, Some(id)) => load(repo, &id),
        (0, _) | (_, None) => Err(Error::NoSuchProposal(typed.to_owned())),
        (_, Some(last)) => {
            found.push(last);
            let ids = found.iter().map(ProposalId::to_string).collect();
            Err(Error::AmbiguousId { prefix: typed.to_owned(), ids })
        }
    }
}

/// Reads a proposal.
///
/// # Errors
/// [`Error::NoSuchProposal`]; [`Error::Damaged`] if what is stored is not what this version would store.
pub fn load(repo: &Repo, id: &ProposalId) -> Result<Proposal, Error> {
    let damaged = |what: String| Error::Damaged { id: id.to_string(), what };
    let from_git = |error: git2::Error| damaged(error.message().to_owned());
    let reference = match repo.git().find_reference(&ref_name(id)) {
        Ok(reference) => reference,
        Err(error) if error.code() == ErrorCode::NotFound => {
            return Err(Error::NoSuchProposal(id.to_string()));
        }
        Err(source) => {
            return Err(Error::Git { what: "read the proposal", source });
        }
    };
    let commit = reference.peel_to_commit().map_err(from_git)?;
    let tree = commit.tree().map_err(from_git)?;
    let read = |path: &Path| {
        let blob = tree.get_path(path)?.to_object(repo.git())?.peel_to_blob()?;
        Ok(blob.content().to_vec())
    };
    let json = read(Path::new(JSON)).map_err(from_git)?;
    let base = |path: &RepoPath| read(&Path::new("base").join(path.as_path())).ok();
    stored::from_json(&json, id, commit.id(), base).map_err(damaged)
}

/// Removes a proposal, damaged or not.
///
/// # Errors
/// [`Error::NoSuchProposal`]; [`Error::Git`] if the ref cannot be removed.
pub fn delete(repo: &Repo, id: &ProposalId) -> Result<(), Error> {
    let mut reference =
        repo.git().find_reference(&ref_name(id)).map_err(|_| Error::NoSuchProposal(id.to_string()))?;
    reference.delete().doing("remove the proposal")
}

/// Removes the proposals the rule names, and returns their names.
///
/// # Errors
/// As [`list`] and [`delete`]. A damaged proposal stays: a newer version may read it.
pub fn prune(repo: &Repo, rule: Prune) -> Result<Vec<ProposalId>, Error> {
    let now = now_ms();
    let is_meant = |proposal: &Proposal| match rule {
        Prune::Decided => proposal.state() != State::Pending,
        Prune::OlderThan(age) => u128::from(now.saturating_sub(proposal.created_ms)) > age.as_millis(),
    };
    let mut removed = Vec::new();
    for proposal in list(repo)?.proposals.into_iter().filter(is_meant) {
        delete(repo, &proposal.id)?;
        removed.push(proposal.id);
    }
    Ok(removed)
}

/// Stores a proposal's decisions as a new commit on its ref, unless someone else has stored some since it was read.
pub(crate) fn record(repo: &Repo, proposal: &mut Proposal) -> Result<(), Error> {
    let parent = repo.git().find_commit(proposal.revision).doing("read the proposal")?;
    let revision = write_commit(repo, proposal, &[&parent])?;
    repo.git()
        .reference_matching(&ref_name(&proposal.id), revision, true, proposal.revision, "tandem: decision")
        .doing("store the decision")?;
    proposal.revision = revision;
    Ok(())
}

fn ref_name(id: &ProposalId) -> String {
    format!("{REFS}{id}")
}

fn ids(repo: &Repo) -> Result<Vec<ProposalId>, Error> {
    let mut ids = Vec::new();
    for reference in repo.git().references_glob(&format!("{REFS}*")).doing("list the proposals")? {
        let reference = reference.doing("list the proposals")?;
        // What is named otherwise is not ours.
        let name = reference.name().ok().and_then(|name| name.strip_prefix(REFS)).and_then(ProposalId::parse);
        ids.extend(name);
    }
    ids.sort();
    Ok(ids)
}

fn write_commit(repo: &Repo, proposal: &Proposal, parents: &[&Commit<'_>]) -> Result<Oid, Error> {
    let what = "store the proposal";
    let git = repo.git();
    // An index in memory turns paths into trees; the user's own is not opened.
    let mut index = Index::new().doing(what)?;
    let mut add = |path: &str, bytes: &[u8], kind: FileKind| {
        let id = git.blob(bytes).doing(what)?;
        index.add(&entry(path, id, kind)).doing(what)
    };
    add(JSON, format!("{:#}\n", proposal.to_json()).as_bytes(), FileKind::Regular)?;
    add(PATCH, proposal.to_patch().as_bytes(), FileKind::Regular)?;
    for file in &proposal.draft.files {
        let FileChange { path, kind, base_text, .. } = file;
        add(&format!("base/{path}"), base_text.as_bytes(), *kind)?;
        add(&format!("new/{path}"), file.new_text().as_bytes(), *kind)?;
    }
    let tree_id = index.write_tree_to(git).doing(what)?;
    let tree = git.find_tree(tree_id).doing(what)?;
    let seconds = i64::try_from(proposal.created_ms / 1000).unwrap_or(i64::MAX);
    // Not the user's name: the user has not made this.
    let author = Signature::new("Tandem", "tandem@localhost", &Time::new(seconds, 0)).doing(what)?;
    let title = format!("tandem: proposal {}, {}\n", proposal.id, proposal.state().as_str());
    git.commit(None, &author, &author, &title, &tree, parents).doing(what)
}

fn entry(path: &str, id: Oid, kind: FileKind) -> IndexEntry {
    let never = IndexTime::new(0, 0);
    IndexEntry {
        ctime: never,
        mtime: never,
        dev: 0,
        ino: 0,
        mode: kind.git_mode(),
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

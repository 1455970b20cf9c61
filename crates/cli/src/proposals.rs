//! `agent proposals`: what waits for a human, and the human's decisions.
//!
//! In: a repository, a proposal's name, hunk numbers. Out: lists and diffs on stdout; what was written on stderr.
//! Never: writes a file that no `accept` names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::accept;
use agent::proposal::{self, Decision, Listing, Proposal, Prune};
use agent::repo::Repo;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::diff_view;
use crate::failure::{Failure, code};

/// Look at proposals, accept or reject their hunks
#[derive(Args, Debug)]
pub(crate) struct ProposalsArgs {
    /// Folder of the repository
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    #[command(subcommand)]
    command: ProposalsCommand,
}

#[derive(Subcommand, Debug)]
enum ProposalsCommand {
    /// List the proposals, the oldest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a proposal with its hunks numbered
    Show {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long, conflicts_with = "patch")]
        json: bool,
        /// Print a patch that `git apply` takes
        #[arg(long)]
        patch: bool,
    },
    /// Write hunks to the files; all undecided ones, or those named
    Accept {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        hunks: Hunks,
    },
    /// Decide against hunks; all undecided ones, or those named
    Reject {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        hunks: Hunks,
        /// Why, kept with the proposal
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Remove proposals with a decision on every hunk
    Prune {
        /// Remove those older than this many days instead, decided or not
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Start of the proposal's name; may be left out if one waits
    id: Option<String>,
}

#[derive(Args, Debug)]
struct Hunks {
    /// Number of a hunk, as `show` prints it; several are separated by commas
    #[arg(long = "hunk", value_name = "N", value_delimiter = ',')]
    numbers: Vec<usize>,
}

pub(crate) fn run(args: &ProposalsArgs) -> Result<u8, Failure> {
    if !args.dir.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", args.dir.display())));
    }
    let repo = Repo::open_for_review(&args.dir)?;
    for path in accept::recover(&repo)? {
        say!("An accept was interrupted before its end: {path} is as it was.");
    }
    match &args.command {
        ProposalsCommand::List { json } => list(&repo, *json),
        ProposalsCommand::Show { which, json, patch } => {
            let proposal = proposal::find(&repo, which.id.as_deref())?;
            let mut stdout = std::io::stdout();
            match () {
                () if *json => writeln!(stdout, "{:#}", to_json(&proposal))?,
                () if *patch => write!(stdout, "{}", proposal.to_patch())?,
                () => diff_view::show(&mut stdout, &proposal)?,
            }
            Ok(code::OK)
        }
        ProposalsCommand::Accept { which, hunks } => decide(&repo, which, hunks, &Decision::Accept),
        ProposalsCommand::Reject { which, hunks, reason } => {
            decide(&repo, which, hunks, &Decision::Reject { reason: reason.clone() })
        }
        ProposalsCommand::Prune { older_than } => {
            let rule = match older_than {
                Some(days) => Prune::OlderThan(Duration::from_secs(u64::from(*days) * 24 * 60 * 60)),
                None => Prune::Decided,
            };
            let removed = proposal::prune(&repo, rule)?;
            for id in &removed {
                say!("Removed {id}.");
            }
            if removed.is_empty() {
                say!("Nothing to remove.");
            }
            Ok(code::OK)
        }
    }
}

fn decide(repo: &Repo, which: &Which, hunks: &Hunks, decision: &Decision) -> Result<u8, Failure> {
    let proposal = proposal::find(repo, which.id.as_deref())?;
    let undecided =
        proposal.hunks().filter(|(_, _, hunk)| hunk.decision.is_none()).map(|(number, _, _)| number);
    let numbers: Vec<usize> =
        if hunks.numbers.is_empty() { undecided.collect() } else { hunks.numbers.clone() };
    if numbers.is_empty() {
        let message = format!("proposal {} is already {}", proposal.id, proposal.state().as_str());
        return Err(Failure::usage(message).hint("`agent proposals prune` removes it"));
    }
    let decisions: BTreeMap<usize, Decision> =
        numbers.into_iter().map(|number| (number, decision.clone())).collect();
    let done = accept::decide(repo, &proposal.id, &decisions)?;
    match decision {
        Decision::Accept => diff_view::report(&done),
        Decision::Reject { .. } => {
            say!("Proposal {} is {}.", done.proposal.id, done.proposal.state().as_str());
        }
    }
    Ok(code::OK)
}

fn list(repo: &Repo, is_json: bool) -> Result<u8, Failure> {
    let Listing { proposals, damaged } = proposal::list(repo)?;
    for error in &damaged {
        say!("warning: {error}");
    }
    let mut stdout = std::io::stdout();
    if is_json {
        let values: Vec<Value> = proposals.iter().map(summary).collect();
        writeln!(stdout, "{:#}", json!(values))?;
        return Ok(code::OK);
    }
    if proposals.is_empty() {
        say!("No proposals.");
    }
    for proposal in &proposals {
        let paths: Vec<&str> = proposal.draft.files.iter().map(|file| file.path.as_str()).collect();
        let (id, state, n_hunks) = (&proposal.id, proposal.state().as_str(), proposal.hunks().count());
        let hunks = if n_hunks == 1 { "hunk" } else { "hunks" };
        let age = age(proposal.created_ms);
        writeln!(stdout, "{id}  {state:8}  {age:>8}  {n_hunks} {hunks} in {}", paths.join(", "))?;
    }
    Ok(code::OK)
}

fn summary(proposal: &Proposal) -> Value {
    let paths: Vec<&str> = proposal.draft.files.iter().map(|file| file.path.as_str()).collect();
    json!({
        "id": proposal.id.as_str(),
        "state": proposal.state(),
        "created_ms": proposal.created_ms,
        "task": proposal.draft.task,
        "n_hunks": proposal.hunks().count(),
        "files": paths,
    })
}

/// Returns the stored JSON and what follows from it: the state and the patch.
fn to_json(proposal: &Proposal) -> Value {
    let mut value = proposal.to_json();
    value["state"] = json!(proposal.state());
    value["patch"] = json!(proposal.to_patch());
    value
}

/// Returns how long ago this was, in the largest unit that is at least one.
fn age(created_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.saturating_sub(Duration::from_millis(created_ms)).as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

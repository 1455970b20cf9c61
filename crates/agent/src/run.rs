//! A task becomes a proposal, in a straight line: repo → sandbox → locate → search → validate → proposal.
//!
//! In: a [`Task`](crate::proposal::Task), a repository, the models that may be asked. Out: [`Outcome`]. Here the run ends; only a human's
//! decisions go on from here, in [`accept`](crate::accept).
//! Never: writes the user's tree, index or HEAD (I-4, I-10).
//! Thread: the caller's, for as long as the budget says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::CancelToken;
use globset::GlobMatcher;
use syntax::Language;

use crate::Error;
use crate::author::Models;
use crate::candidate::Candidate;
use crate::evidence::{Evidence, TestOutcome};
use crate::function;
use crate::locate::{Place, SourceFile, is_test_file, locate};
use crate::proposal::{self, Draft, FileChange, Model, Proposal, Task};
use crate::repo::{Repo, RepoPath};
use crate::sandbox::Sandbox;
use crate::search::{Failure, Search};

/// How a run is done.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What is asked.
    pub task: Task,
    /// Which files may be changed, by their path from the repository's root; all that are not tests when not set.
    pub scope: Option<GlobMatcher>,
    /// When the run ends, whatever it has found.
    pub deadline: Instant,
    /// Seed of the sampling.
    pub seed: u64,
    /// The model, for the record.
    pub model: Model,
    /// Where sandboxes are made.
    pub scratch: PathBuf,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Folders that git ignores and tests often need; the copy has none of them.
    LeftOut(&'a [&'static str]),
    /// The test command is being run on the base.
    Testing,
    /// It fails, so there is something to mend.
    Failing(&'a TestOutcome),
    /// The files looked at, and the functions that are suspected.
    Located(&'a [SourceFile], &'a [Place]),
    /// So many edits are ranked; they are tried in order.
    Ranked {
        /// Edits.
        n_candidates: usize,
    },
    /// A model is being asked to write a function again.
    Asking {
        /// The function's file.
        path: &'a str,
        /// Where it is.
        place: &'a Place,
    },
    /// A candidate is being validated.
    Trying {
        /// Counted from 1.
        n_tried: usize,
        /// Its file.
        path: &'a str,
        /// The candidate.
        candidate: &'a Candidate,
    },
    /// A candidate passed; the base must still fail, and the candidate pass once more.
    Confirming,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// A proposal waits for a human.
    Proposed {
        /// The proposal.
        proposal: Box<Proposal>,
        /// Candidates validated.
        n_tried: usize,
    },
    /// The test passes on the base: there is nothing to fix.
    Passes(TestOutcome),
    /// The test fails, then passes, on the same base: nothing can be learnt from it.
    Flaky {
        /// What the test said on the base at first.
        before: TestOutcome,
    },
    /// Every candidate failed.
    NoFix {
        /// Candidates that were validated.
        tried: Tried,
        /// What the test said on the base.
        before: TestOutcome,
    },
    /// The budget was spent first.
    BudgetSpent {
        /// Candidates that were validated.
        tried: Tried,
        /// What the test said on the base, if it ended.
        before: TestOutcome,
    },
    /// The caller cancelled.
    Cancelled,
}

/// Candidates that were validated, in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// All of them.
    pub n_tried: usize,
    /// Those whose test was ended because it took too long.
    pub n_timed_out: usize,
}

/// Folders that git ignores and tests often need.
const OFTEN_NEEDED: [&str; 5] = ["node_modules", ".venv", "venv", "vendor", ".env"];
/// What a shell exits with for a command it cannot run or find.
const NOT_RUN: [i32; 2] = [126, 127];
/// Longest time for the test on the base, which may have to build everything.
const MAX_FIRST_RUN: Duration = Duration::from_secs(600);
/// A candidate's test may take this many times as long as the base's, since it may get further.
const SLOWER: u32 = 3;
/// Shortest time limit for a candidate's test: the base may have failed before it built or ran anything.
const MIN_LIMIT: Duration = Duration::from_secs(10);
/// Largest source file that is looked at.
const N_MAX_FILE_BYTES: u64 = 512 * 1024;
/// Most bytes of source files that are looked at, ten seconds of parsing; the nearest to the failure come first.
const N_MAX_SOURCE_BYTES: u64 = 32 << 20;

/// Runs one task to its end.
///
/// # Errors
/// [`Error::RepositoryState`] and its like are the user's to fix, [`Error::Engine`] is ours, [`Error::Author`] says.
pub fn run(
    repo: &Repo,
    models: Models<'_>,
    options: &RunOptions,
    events: &mut dyn FnMut(Event<'_>),
    cancel: &CancelToken,
) -> Result<Outcome, Error> {
    // The clock ends the model's work too, not only the tests'.
    let timer = CancelAt::new(options.deadline, cancel.clone());
    let mut sandbox = Sandbox::create(repo, &options.scratch)?;
    let left_out: Vec<&str> = OFTEN_NEEDED
        .into_iter()
        .filter(|name| repo.root().join(name).exists() && !sandbox.tree().join(name).exists())
        .collect();
    if !left_out.is_empty() {
        events(Event::LeftOut(&left_out));
    }
    events(Event::Testing);
    let mut validator = Validator { options, limit: MAX_FIRST_RUN, cancel: timer.token() };
    let before = validator.run(&mut sandbox)?;
    if before.is_pass() {
        return Ok(Outcome::Passes(before));
    }
    if let Some(exit) = before.exit.filter(|exit| NOT_RUN.contains(exit)) {
        let command = options.task.test_command.clone();
        return Err(Error::CannotRun { command, exit, output: before.output });
    }
    let mut tried = Tried::default();
    if cancel.is_cancelled() {
        return Ok(Outcome::Cancelled);
    }
    if timer.token().is_cancelled() || Instant::now() >= options.deadline {
        return Ok(Outcome::BudgetSpent { tried, before });
    }
    events(Event::Failing(&before));

    let files = source_files(&mut sandbox, options.scope.as_ref(), &before.output)?;
    let suspects = locate(&files, &before.output, timer.token());
    events(Event::Located(&files, &suspects.places));

    let failure = Failure { test_command: &options.task.test_command, output: &before.output };
    let mut search = Search::new(models, &files, &suspects, failure, options.seed, timer.token())?;
    events(Event::Ranked { n_candidates: search.n_ranked() });
    validator.limit = (Duration::from_millis(before.duration_ms) * SLOWER).max(MIN_LIMIT);
    loop {
        let mut asking = |place: &Place| events(Event::Asking { path: &files[place.file_idx].path, place });
        let Some((candidate, new_text)) = search.next(&mut asking, timer.token())? else {
            break;
        };
        let path = RepoPath::new(&files[candidate.file_idx].path)?;
        tried.n_tried += 1;
        events(Event::Trying { n_tried: tried.n_tried, path: path.as_str(), candidate: &candidate });
        match validator.check(&mut sandbox, &path, &new_text, &mut || events(Event::Confirming))? {
            Checked::Fails(outcome) => {
                tried.n_timed_out += usize::from(outcome.timed_out);
                search.learn(&candidate, &outcome);
            }
            Checked::BasePassesToo => return Ok(Outcome::Flaky { before }),
            Checked::Passes(after) => {
                let draft = draft(&mut sandbox, options, path, &new_text, Evidence { before, after })?;
                let proposal = proposal::create(repo, draft)?;
                return Ok(Outcome::Proposed { proposal: Box::new(proposal), n_tried: tried.n_tried });
            }
        }
    }
    if cancel.is_cancelled() {
        Ok(Outcome::Cancelled)
    } else if Instant::now() >= options.deadline {
        Ok(Outcome::BudgetSpent { tried, before })
    } else {
        Ok(Outcome::NoFix { tried, before })
    }
}

/// Runs the test command, never past the deadline.
struct Validator<'a> {
    options: &'a RunOptions,
    limit: Duration,
    cancel: &'a CancelToken,
}

/// What became of a candidate.
enum Checked {
    /// The test fails with it.
    Fails(TestOutcome),
    /// The test passes with it, and without it.
    BasePassesToo,
    /// The test passes with it, twice, and fails without it.
    Passes(TestOutcome),
}

impl Validator<'_> {
    /// Tries one candidate; `confirming` is called once it has passed.
    fn check(
        &self,
        sandbox: &mut Sandbox,
        path: &RepoPath,
        new_text: &str,
        confirming: &mut dyn FnMut(),
    ) -> Result<Checked, Error> {
        sandbox.write(path, new_text.as_bytes())?;
        let first = self.run(sandbox)?;
        sandbox.restore(path)?;
        if !first.is_pass() {
            return Ok(Checked::Fails(first));
        }
        // A test that passes now and then, or ever after its first run, has not been mended by anyone.
        confirming();
        if self.run(sandbox)?.is_pass() {
            return Ok(Checked::BasePassesToo);
        }
        sandbox.write(path, new_text.as_bytes())?;
        let after = self.run(sandbox)?;
        sandbox.restore(path)?;
        Ok(if after.is_pass() { Checked::Passes(after) } else { Checked::Fails(after) })
    }

    fn run(&self, sandbox: &mut Sandbox) -> Result<TestOutcome, Error> {
        let left = self.options.deadline.saturating_duration_since(Instant::now());
        sandbox.run(&self.options.task.test_command, self.limit.min(left), self.cancel)
    }
}

/// Reads the files that may hold the fault, and the tests, which lead to it.
fn source_files(
    sandbox: &mut Sandbox,
    scope: Option<&GlobMatcher>,
    output: &str,
) -> Result<Vec<SourceFile>, Error> {
    let is_source = |path: &RepoPath| Language::of(Path::new(path.as_str())).is_some_and(function::is_known);
    let is_in_scope = |path: &RepoPath| scope.is_none_or(|scope| scope.is_match(path.as_str()));
    let found = sandbox.base().files.iter().filter(|(path, file)| {
        file.n_bytes <= N_MAX_FILE_BYTES
            && (is_source(path) || scope.is_some() && is_in_scope(path))
            && (is_in_scope(path) || is_test_file(path.as_str()))
    });
    let paths = nearest(found.map(|(path, file)| (path.clone(), file.n_bytes)).collect(), output);
    let mut files = Vec::new();
    for path in paths {
        // A file that is not UTF-8 cannot be proposed, so it is not looked at.
        if let Ok(text) = String::from_utf8(sandbox.read_base(&path)?.to_vec()) {
            files.push(SourceFile { path: path.as_str().to_owned(), text });
        }
    }
    Ok(files)
}

/// Returns the files that are looked at: all, or as many as fit, those nearest to what the output names.
fn nearest(mut files: Vec<(RepoPath, u64)>, output: &str) -> Vec<RepoPath> {
    let mut n_bytes: u64 = files.iter().map(|(_, n_bytes)| n_bytes).sum();
    if n_bytes > N_MAX_SOURCE_BYTES {
        let named: Vec<RepoPath> = files
            .iter()
            .filter(|(path, _)| output.contains(path.as_str()))
            .map(|(path, _)| path.clone())
            .collect();
        // Folders shared with the nearest named file; a named one shares its own name too.
        files.sort_by_cached_key(|(path, _)| {
            std::cmp::Reverse(named.iter().map(|named| n_shared(path, named)).max())
        });
        n_bytes = 0;
        files.retain(|(_, file_bytes)| {
            n_bytes += file_bytes;
            n_bytes <= N_MAX_SOURCE_BYTES
        });
        files.sort();
    }
    files.into_iter().map(|(path, _)| path).collect()
}

fn n_shared(left: &RepoPath, right: &RepoPath) -> usize {
    let (left, right) = (left.as_str().split('/'), right.as_str().split('/'));
    left.zip(right).take_while(|(left, right)| left == right).count()
}

fn draft(
    sandbox: &mut Sandbox,
    options: &RunOptions,
    path: RepoPath,
    new_text: &str,
    evidence: Evidence,
) -> Result<Draft, Error> {
    let head = sandbox.base().head.clone();
    let kind = sandbox.base().files[&path].kind;
    let base = sandbox.read_base(&path)?.to_vec();
    Ok(Draft {
        task: options.task.clone(),
        head,
        files: vec![FileChange::new(path, kind, &base, new_text.as_bytes())?],
        evidence,
        model: options.model.clone(),
        seed: options.seed,
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Cancels a token of its own when a deadline comes or the caller's token is cancelled.
struct CancelAt {
    token: CancelToken,
    // Dropping it ends the thread.
    _stop: std::sync::mpsc::Sender<()>,
}

impl CancelAt {
    fn new(deadline: Instant, callers: CancelToken) -> Self {
        let token = CancelToken::new();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let timer_token = token.clone();
        let watch = move || {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match stopped.recv_timeout(left.min(Duration::from_millis(20))) {
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
                if callers.is_cancelled() || Instant::now() >= deadline {
                    timer_token.cancel();
                    return;
                }
            }
        };
        // Without the thread the budget still ends every test, and with it the run.
        let _ = std::thread::Builder::new().name("budget".into()).spawn(watch);
        Self { token, _stop: stop }
    }

    fn token(&self) -> &CancelToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_files_the_nearest_to_the_failure_are_looked_at() {
        let file = |path: &str, n_mib: u64| (RepoPath::new(path).expect("a plain path"), n_mib << 20);
        let files = || {
            vec![
                file("a/far.py", 20),
                file("b/c/near.py", 10),
                file("b/c/test_near.py", 1),
                file("b/x.py", 12),
            ]
        };
        let names = |output: &str| -> Vec<String> {
            nearest(files(), output).iter().map(|path| path.as_str().to_owned()).collect()
        };
        let output = "File \"b/c/test_near.py\", line 3";
        assert_eq!(names(output), ["b/c/near.py", "b/c/test_near.py", "b/x.py"]);
        assert_eq!(names("nothing is named"), ["a/far.py", "b/c/near.py", "b/c/test_near.py"]);
        let few = vec![file("z.py", 1), file("a.py", 1)];
        assert_eq!(nearest(few.clone(), output), few.into_iter().map(|(path, _)| path).collect::<Vec<_>>());
    }
}

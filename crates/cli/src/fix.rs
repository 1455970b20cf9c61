//! `agent fix`: a failing test in, a tested proposal out.
//!
//! In: a repository and a test command. Out: the diff and the proposal's id on stdout, or JSON lines; on a terminal
//! the question whether to accept. Progress goes to stderr.
//! Never: writes the user's files without an answer to that question.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::author::{Author, EngineAuthor, Models};
use agent::evidence::TestOutcome;
use agent::proposal::{Model, Task};
use agent::repo::Repo;
use agent::run::{Event, Outcome, RunOptions, Tried, run as run_agent};
use clap::Args;
use engine::{CancelToken, Engine};
use globset::Glob;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::endpoint::{EndpointArgs, RemoteAuthor};
use crate::failure::{Failure, code};
use crate::settings::{Settings, suggested_test};
use crate::{diff_view, model, template};

/// Mend a failing test: try edits in a throw-away copy, propose the one that passes, and ask
#[derive(Args, Debug)]
pub(crate) struct FixArgs {
    /// Folder of the repository to work on
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Command that fails now and must pass; without it, `[fix] test` of tandem.toml or what the build files suggest
    #[arg(long, value_name = "CMD")]
    test: Option<String>,
    /// Change only files whose path in the repository matches, for example `src/**/*.py`
    #[arg(long, value_name = "GLOB")]
    scope: Option<String>,
    /// Longest time for the run, from when the model is loaded or the endpoint has answered
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    budget_seconds: u64,
    /// Seed of the sampling; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON lines; the last is always `run.completed`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: model::EngineArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// Suspected functions that a human is told.
const N_PLACES_SHOWN: usize = 4;
/// Lines of the failing test's output that a human is shown.
const N_OUTPUT_LINES: usize = 12;

pub(crate) fn run(args: &FixArgs) -> Result<u8, Failure> {
    let result = work(args);
    if let Err(failure) = &result
        && args.json
    {
        let line = json!({"event": "run.completed", "status": "error", "exit_code": failure.code,
            "message": failure.message, "hint": failure.hint});
        writeln!(std::io::stdout(), "{line}")?;
    }
    result
}

fn work(args: &FixArgs) -> Result<u8, Failure> {
    if !args.dir.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", args.dir.display())));
    }
    let settings = Settings::read(&args.dir)?;
    let scope = match &args.scope {
        Some(glob) => {
            Some(Glob::new(glob).map_err(|error| Failure::usage(error.to_string()))?.compile_matcher())
        }
        None => None,
    };
    let test_command = test_command(args, &settings)?;
    let dir = if settings.template && !args.dir.join(".git").exists() {
        let copy = template::copy(&args.dir)?;
        say!("{} is a template; working on a copy in {}", args.dir.display(), copy.display());
        copy
    } else {
        args.dir.clone()
    };
    let repo = Repo::open(&dir).map_err(Failure::from)?;
    agent::accept::recover(&repo).map_err(Failure::from)?;
    let (asked, interrupt) = match args.endpoint.choose(&args.engine)? {
        Some(endpoint) => {
            let interrupt = Interrupt::watch()?;
            match RemoteAuthor::meet(endpoint, &args.endpoint, &interrupt.cancel)? {
                Some(author) => (Asked::remote(author), interrupt),
                None => return conclude(args, &repo, &dir, Outcome::Cancelled),
            }
        }
        // Until the model is loaded, one signal is enough to end us.
        None => (Asked::local(&args.engine)?, Interrupt::watch()?),
    };
    let options = RunOptions {
        task: Task { words: None, test_command },
        scope,
        deadline: Instant::now() + Duration::from_secs(args.budget_seconds),
        seed: args.seed,
        model: asked.model.clone(),
        scratch: scratch()?,
    };
    let mut reporter = Reporter::new(args.json, &options);
    let outcome =
        run_agent(&repo, asked.models(), &options, &mut |event| reporter.on(&event), &interrupt.cancel);
    interrupt.run_is_over();
    reporter.end();
    conclude(args, &repo, &dir, outcome.map_err(Failure::from)?)
}

/// Who is asked in a run.
struct Asked {
    engine: Option<Engine>,
    author: Option<Box<dyn Author>>,
    model: Model,
}

impl Asked {
    /// A model of this machine, which may be one that can be talked to.
    fn local(args: &model::EngineArgs) -> Result<Self, Failure> {
        let (engine, installed) = model::load(args)?;
        let author = EngineAuthor::of(&engine, &installed.path);
        Ok(Self {
            engine: Some(engine),
            author: author.map(|author| Box::new(author) as Box<dyn Author>),
            model: Model::Local { name: installed.entry.name.clone(), sha256: installed.sha256.to_string() },
        })
    }

    /// An endpoint's model; none of this machine is loaded then.
    fn remote(author: RemoteAuthor) -> Self {
        Self { engine: None, model: author.model(), author: Some(Box::new(author)) }
    }

    fn models(&self) -> Models<'_> {
        Models { engine: self.engine.as_ref(), author: self.author.as_deref() }
    }
}

fn test_command(args: &FixArgs, settings: &Settings) -> Result<String, Failure> {
    let known = args.test.clone().or_else(|| settings.fix.test.clone());
    known.or_else(|| suggested_test(&args.dir).map(str::to_owned)).ok_or_else(|| {
        Failure::usage("which test fails?")
            .hint("say it with `--test CMD`, or write it to tandem.toml under [fix]")
    })
}

/// Returns where sandboxes are made.
fn scratch() -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os("TANDEM_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("sandboxes"));
    }
    use etcetera::BaseStrategy as _;
    let base = etcetera::choose_base_strategy().map_err(|_| {
        Failure::usage("there is no home directory")
            .hint("set HOME, or TANDEM_CACHE_DIR, TANDEM_DATA_DIR and TANDEM_CONFIG_DIR")
    })?;
    Ok(base.cache_dir().join("tandem").join("sandboxes"))
}

/// Says how the run ended, asks if somebody is there to answer, and returns the exit code.
fn conclude(args: &FixArgs, repo: &Repo, dir: &Path, outcome: Outcome) -> Result<u8, Failure> {
    let mut stdout = std::io::stdout();
    let (status, exit_code) = match &outcome {
        Outcome::Proposed { .. } => ("proposed", code::OK),
        Outcome::Passes(_) => ("passes", code::NO_FIX),
        Outcome::Flaky { .. } => ("flaky", code::NO_FIX),
        Outcome::NoFix { .. } => ("no_fix", code::NO_FIX),
        Outcome::BudgetSpent { .. } => ("budget_spent", code::BUDGET_SPENT),
        Outcome::Cancelled => ("cancelled", code::INTERRUPTED),
    };
    if args.json {
        writeln!(stdout, "{}", completed(&outcome, status, exit_code))?;
        return Ok(exit_code);
    }
    match outcome {
        Outcome::Proposed { proposal, n_tried } => {
            diff_view::show(&mut stdout, &proposal)?;
            say!("Found after {}.", candidates(n_tried));
            if std::io::stdin().is_terminal() && stdout.is_terminal() {
                return diff_view::ask(repo, &proposal);
            }
            say!(
                "Proposal {} waits: agent proposals accept {} --dir {}",
                proposal.id,
                proposal.id,
                dir.display()
            );
        }
        Outcome::Passes(_) => say!("The test passes already: there is nothing to fix."),
        Outcome::Flaky { .. } => {
            say!("No fix found: the test fails and then passes on the same code, so a pass means nothing.");
            say!(
                "hint: a test that leaves files behind, or depends on time or chance, cannot be worked with"
            );
        }
        Outcome::NoFix { tried, .. } => {
            say!("No fix found: {}.", none_passed(tried));
            if tried.n_tried == 0 {
                say!(
                    "hint: Python, Rust and JavaScript are looked at, `--scope GLOB` names other files; tests are never changed"
                );
            }
        }
        Outcome::BudgetSpent { tried, .. } => {
            say!("The budget of {} s is spent: {}.", args.budget_seconds, none_passed(tried));
            say!("hint: `--budget-seconds N` gives more time, `--scope GLOB` fewer places to look at");
        }
        Outcome::Cancelled => say!("Cancelled."),
    }
    Ok(exit_code)
}

/// Returns the last JSON line of a run.
fn completed(outcome: &Outcome, status: &str, exit_code: u8) -> Value {
    let mut line = json!({"event": "run.completed", "status": status, "exit_code": exit_code});
    match outcome {
        Outcome::Proposed { proposal, n_tried } => {
            line["proposal"] = proposal.to_json();
            line["n_tried"] = json!(n_tried);
        }
        Outcome::NoFix { tried, before } | Outcome::BudgetSpent { tried, before } => {
            line["n_tried"] = json!(tried.n_tried);
            line["n_timed_out"] = json!(tried.n_timed_out);
            line["before"] = json!(before);
        }
        Outcome::Flaky { before } => line["before"] = json!(before),
        Outcome::Passes(_) | Outcome::Cancelled => {}
    }
    line
}

fn none_passed(tried: Tried) -> String {
    let mut text = format!("none of {} passed", candidates(tried.n_tried));
    if tried.n_timed_out > 0 {
        text.push_str(&format!(", {} did not end in time", tried.n_timed_out));
    }
    text
}

fn candidates(n: usize) -> String {
    if n == 1 { "1 candidate".to_owned() } else { format!("{n} candidates") }
}

/// Ctrl-C, or a polite kill: the first ends the run so that nothing is left behind, the second ends us.
struct Interrupt {
    cancel: CancelToken,
    is_over: Arc<AtomicBool>,
}

impl Interrupt {
    fn watch() -> Result<Self, Failure> {
        let interrupt = Self { cancel: CancelToken::new(), is_over: Arc::default() };
        let (cancel, is_over) = (interrupt.cancel.clone(), Arc::clone(&interrupt.is_over));
        ctrlc::set_handler(move || {
            if cancel.is_cancelled() || is_over.load(Ordering::SeqCst) {
                std::process::exit(code::INTERRUPTED.into());
            }
            cancel.cancel();
        })
        .map_err(|error| Failure::new(code::INTERNAL, &error))?;
        Ok(interrupt)
    }

    /// From here on one signal is enough: a human may be reading the question.
    fn run_is_over(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// Tells a human or a program how the run goes.
struct Reporter {
    is_json: bool,
    bar: ProgressBar,
    n_candidates: usize,
}

impl Reporter {
    fn new(is_json: bool, options: &RunOptions) -> Self {
        let bar = if is_json || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        };
        bar.enable_steady_tick(Duration::from_millis(120));
        let reporter = Self { is_json, bar, n_candidates: 0 };
        reporter.json(|| {
            json!({"event": "run.started", "test_command": options.task.test_command, "seed": options.seed,
                "model": options.model})
        });
        reporter
    }

    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::LeftOut(names) => {
                self.print(&format!("Not in the copy, because git ignores it: {}", names.join(", ")));
                self.json(|| json!({"event": "left_out", "names": names}));
            }
            Event::Testing => self.say("Running the test …"),
            Event::Failing(before) => {
                self.print(&failure_summary(before));
                self.say("Looking for suspicious lines …");
                self.json(|| json!({"event": "test.failed", "before": before}));
            }
            Event::Located(files, places) => {
                let shown = places.iter().take(N_PLACES_SHOWN).map(|place| {
                    let path = &files[place.file_idx].path;
                    format!("{path}:{} {}", place.function.lines.start + 1, place.function.name)
                });
                let shown: Vec<String> = shown.map(|place| place.trim_end().to_owned()).collect();
                self.print(&format!("Suspected: {}", shown.join(", ")));
                self.json(|| {
                    let places = places.iter().map(|place| {
                        json!({"path": files[place.file_idx].path, "line": place.function.lines.start + 1,
                            "name": place.function.name, "depth": place.depth})
                    });
                    json!({"event": "located", "places": places.collect::<Vec<_>>()})
                });
            }
            Event::Ranked { n_candidates } => {
                self.n_candidates = *n_candidates;
                self.print(&format!("{n_candidates} edits to try, the likeliest first."));
                self.json(|| json!({"event": "ranked", "n_candidates": n_candidates}));
            }
            Event::Asking { path, place } => {
                let name = Some(place.function.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(path);
                self.say(&format!("Asking the model to write {name} again …"));
                self.json(|| {
                    json!({"event": "asking", "path": path, "line": place.function.lines.start + 1,
                        "name": place.function.name})
                });
            }
            Event::Trying { n_tried, path, candidate } => {
                let of = self.n_candidates.max(*n_tried);
                let kind = candidate.kind.as_str().replace('_', " ");
                self.say(&format!("{n_tried} of {of}: {path}:{}, {kind}", candidate.line + 1));
                self.json(|| {
                    json!({"event": "candidate", "n_tried": n_tried, "path": path, "line": candidate.line + 1,
                        "kind": candidate.kind.as_str(), "score": candidate.score})
                });
            }
            Event::Confirming => self.say("It passes; making sure that the test fails without it …"),
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    fn print(&self, message: &str) {
        if !self.is_json {
            self.bar.suspend(|| say!("{message}"));
        }
    }

    fn json(&self, line: impl FnOnce() -> Value) {
        if self.is_json {
            // A reader that has gone away does not stop the run; the proposal is kept all the same.
            let _ = writeln!(std::io::stdout(), "{}", line());
        }
    }
}

/// Returns how the test failed, with the end of what it printed.
fn failure_summary(before: &TestOutcome) -> String {
    let how = match before.exit {
        _ if before.timed_out => "did not end in time".to_owned(),
        Some(exit) => format!("fails with exit code {exit}"),
        None => "was ended by a signal".to_owned(),
    };
    let lines: Vec<&str> = before.output.lines().filter(|line| !line.trim().is_empty()).collect();
    // The first line that speaks of a failure, with what led to it, says more than the summary at the end.
    let speaks = |line: &&str| {
        let line = line.to_lowercase();
        ["error", "panicked", "assert", "not ok", "fail:"].iter().any(|word| line.contains(word))
    };
    let first = lines.iter().position(speaks).unwrap_or(lines.len()).saturating_sub(2);
    let from = first.min(lines.len().saturating_sub(N_OUTPUT_LINES));
    let shown = lines[from..].iter().take(N_OUTPUT_LINES);
    let output: String = shown.map(|line| format!("  | {line}\n")).collect();
    format!("The test {how} after {} ms:\n{}", before.duration_ms, output.trim_end())
}

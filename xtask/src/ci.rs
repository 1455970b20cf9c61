//! Everything CI runs, step by step, the same here and there.
//!
//! In: which steps to run. Out: each step's own output as it comes, a table of wall times, and last the
//! test runner's closing lines. Stops at the first step that fails.

mod eval;
mod needs;
mod runner;
mod training;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::{model, tidy, tools, vocabularies};

/// One step: its name on the command line and what it does.
struct Step {
    name: &'static str,
    run: fn(&Path) -> Result<Closing, String>,
}

/// What a step wants said again at the very end.
type Closing = Vec<String>;

const STEPS: &[Step] = &[
    Step { name: "needs", run: |_| needs::install_missing().map(|()| Closing::new()) },
    Step { name: "fmt", run: |root| cargo(root, &["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: run_tidy },
    Step {
        name: "clippy",
        run: |root| cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Step { name: "tools", run: |root| run_tools(root) },
    Step { name: "build", run: |root| cargo(root, &["build", "--package", "cli"]) },
    Step { name: "model", run: run_model },
    Step { name: "test", run: runner::run },
    Step { name: "eval", run: eval::run },
    Step { name: "training", run: training::run_data },
    Step { name: "remote", run: run_remote },
    Step { name: "vocabularies", run: run_vocabularies },
    Step { name: "windows", run: run_windows },
    Step { name: "cuda", run: run_cuda },
    Step { name: "metal", run: run_metal },
    Step { name: "train", run: training::run_tiny },
];

/// The steps that run only where they are named: one builds llama.cpp, 8 minutes of one core, one fetches its sources, 80 MB,
/// one PyTorch, 3 GB; the others check all dependencies again.
const ON_REQUEST: &[&str] = &["remote", "vocabularies", "windows", "cuda", "metal", "train"];
/// The target that Debian has a C compiler for.
const WINDOWS: &str = "x86_64-pc-windows-gnu";
/// The Macs whose GPU candle knows.
const MAC: &str = "aarch64-apple-darwin";

/// Which steps to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    only: Vec<String>,
    skip: Vec<String>,
}

impl Selection {
    /// Reads `--only STEP` and `--skip STEP`, each as often as wanted.
    pub fn parse(args: &[&str]) -> Result<Selection, String> {
        let mut selection = Selection::default();
        let mut args = args.iter();
        while let Some(&flag) = args.next() {
            let list = match flag {
                "--only" => &mut selection.only,
                "--skip" => &mut selection.skip,
                _ => return Err(format!("`ci` does not know `{flag}`")),
            };
            let step = args.next().ok_or_else(|| format!("{flag} wants the name of a step"))?;
            if !STEPS.iter().any(|known| known.name == *step) {
                let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
                return Err(format!("no step `{step}`; the steps are {}", names.join(", ")));
            }
            list.push((*step).to_owned());
        }
        Ok(selection)
    }

    fn includes(&self, step: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == step);
        let is_wanted = if self.only.is_empty() { !ON_REQUEST.contains(&step) } else { named(&self.only) };
        is_wanted && !named(&self.skip)
    }
}

/// Tests `agent fix` against llama.cpp's own server.
fn run_remote(root: &Path) -> Result<Closing, String> {
    tools::install_llama(root).map_err(|error| error.to_string())?;
    let mut command = cargo_command(root);
    command.args(["test", "--package", "e2e", "--test", "e2e", "remote::", "--", "--ignored"]);
    command.env("TANDEM_AGENT", model::agent_binary(root)?).env("TANDEM_TEST_MODEL", model::path(root)?);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(Closing::new()) } else { Err(format!("cargo test: {status}")) }
}

/// Compares the tokenizer with those of models that users bring.
fn run_vocabularies(root: &Path) -> Result<Closing, String> {
    let [of_llama_cpp, of_mistral] = vocabularies::fetch(root)?;
    let mut command = cargo_command(root);
    command.args(["test", "--locked", "--package", "engine", "--test", "engine", "--"]);
    command.args(["--ignored", "vocabularies::"]);
    command.env("TANDEM_TEST_VOCABULARIES", of_llama_cpp).env("TANDEM_TEST_MISTRAL_VOCABULARIES", of_mistral);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(Closing::new()) } else { Err(format!("cargo test: {status}")) }
}

/// Checks that the program and the server's tests compile for Windows; it runs nothing.
fn run_windows(root: &Path) -> Result<Closing, String> {
    needs::install_missing_for_windows()?;
    add_target(root, WINDOWS)?;
    cargo(root, &["check", "--locked", "--target", WINDOWS, "--package", "cli"])?;
    cargo(root, &["check", "--locked", "--target", WINDOWS, "--package", "serve", "--lib", "--tests"])
}

/// Builds and tests what runs on a GPU of NVIDIA, on one that the CPU plays: nothing of CUDA is needed.
fn run_cuda(root: &Path) -> Result<Closing, String> {
    let clippy = ["clippy", "--locked", "--features", "cuda", "--package", "cli", "--package", "engine"];
    cargo(root, &[&clippy[..], &["--all-targets", "--", "--deny", "warnings"]].concat())?;
    let mut command = cargo_command(root);
    command.args(["test", "--locked", "--features", "cuda", "--package", "engine", "--", "gpu::", "cuda::"]);
    let status = command.env("TANDEM_TEST_MODEL", model::path(root)?).status();
    match status.map_err(|error| format!("cannot run cargo: {error}"))? {
        status if status.success() => Ok(Closing::new()),
        status => Err(format!("cargo test: {status}")),
    }
}

/// Checks that the engine compiles with the GPU of a Mac; it runs nothing. The other crates want a Mac's C headers.
fn run_metal(root: &Path) -> Result<Closing, String> {
    add_target(root, MAC)?;
    let clippy = ["clippy", "--locked", "--target", MAC, "--features", "metal", "--package", "engine"];
    cargo(root, &[&clippy[..], &["--", "--deny", "warnings"]].concat())
}

fn add_target(root: &Path, target: &str) -> Result<(), String> {
    let status = Command::new("rustup").current_dir(root).args(["target", "add", target]).status();
    if status.map_err(|error| format!("cannot run rustup: {error}"))?.success() {
        return Ok(());
    }
    Err(format!("rustup cannot install {target}"))
}

/// Runs the selected steps.
pub fn run(root: &Path, selection: &Selection) -> ExitCode {
    let started = Instant::now();
    let mut table = Vec::new();
    let mut closing = Closing::new();
    let mut failure = None;
    for step in STEPS {
        if !selection.includes(step.name) {
            table.push((step.name, "skipped", Duration::ZERO));
            continue;
        }
        if failure.is_some() {
            table.push((step.name, "not run", Duration::ZERO));
            continue;
        }
        println!("\n== {} ==", step.name);
        let step_started = Instant::now();
        let result = (step.run)(root);
        let wall = step_started.elapsed();
        println!("== {}: {:.1} s ==", step.name, wall.as_secs_f64());
        match result {
            Ok(lines) => {
                closing.extend(lines);
                table.push((step.name, "ok", wall));
            }
            Err(message) => {
                table.push((step.name, "FAILED", wall));
                failure = Some(format!("step `{}` failed: {message}", step.name));
            }
        }
    }
    println!("\n| step | result | wall, s |\n|---|---|---|");
    for (name, result, wall) in &table {
        println!("| {name} | {result} | {:.1} |", wall.as_secs_f64());
    }
    println!("| all | | {:.1} |\n", started.elapsed().as_secs_f64());
    for line in &closing {
        println!("{line}");
    }
    match failure {
        None => ExitCode::SUCCESS,
        Some(message) => {
            println!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo with its output passed through.
fn cargo(root: &Path, args: &[&str]) -> Result<Closing, String> {
    let status = cargo_command(root)
        .args(args)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    match status.success() {
        true => Ok(Closing::new()),
        false => Err(format!("cargo {} ({status})", args.join(" "))),
    }
}

fn cargo_command(root: &Path) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.current_dir(root);
    command
}

fn run_tidy(root: &Path) -> Result<Closing, String> {
    match tidy::run(root, tidy::Mode::Check) {
        code if code == ExitCode::SUCCESS => Ok(Closing::new()),
        _ => Err("see the findings above".to_owned()),
    }
}

fn run_tools(root: &Path) -> Result<Closing, String> {
    let editors = tools::install_editors(root).map_err(|error| with_sources(&error))?;
    println!("editors: {}, VS Code on {}", editors.nvim.display(), editors.node.display());
    Ok(Closing::new())
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn run_model(root: &Path) -> Result<Closing, String> {
    println!("test model: {}", model::path(root)?.display());
    println!("test model that fills in: {}", model::fim_path(root)?.display());
    Ok(Closing::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_and_skip_choose_steps() {
        let selection =
            Selection::parse(&["--only", "fmt", "--only", "tidy", "--skip", "tidy"]).expect("known");
        assert!(selection.includes("fmt"));
        assert!(!selection.includes("tidy"));
        assert!(!selection.includes("test"));
        let left_out = STEPS.iter().filter(|step| !Selection::default().includes(step.name));
        assert!(left_out.map(|step| step.name).eq(ON_REQUEST.iter().copied()), "all but what is on request");
        assert!(Selection::parse(&["--only", "remote"]).expect("known").includes("remote"));
    }

    #[test]
    fn an_unknown_step_is_an_error_that_lists_the_steps() {
        let error = Selection::parse(&["--only", "lint"]).expect_err("no such step");
        assert!(error.contains("no step `lint`") && error.contains("clippy, tools, build"), "{error}");
        assert!(Selection::parse(&["--only"]).is_err());
        assert!(Selection::parse(&["fmt"]).is_err());
    }
}

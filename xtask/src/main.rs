//! The project's own tasks: `cargo xtask tidy`, `ci`, `bench`, `eval`, `model`.
//!
//! In: the command line. Out: findings or step results on stdout and stderr, exit code 0, 1 or 2.
//! Never: part of what is shipped; depends on none of our crates, so that it runs when they do not build.

#![forbid(unsafe_code)]

mod ci;
mod measure;
mod model;
mod peers;
mod tidy;
mod tools;
mod vocabularies;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  tidy [--write]             check the house rules; --write brings ARCHITECTURE.md's module table up to date
  ci [--only STEP]… [--skip STEP]…
                             everything CI runs, in this order:
                             needs, fmt, tidy, clippy, tools, build, model, test, eval, training
  bench peers [ARG]…         measure beside llama.cpp, which the first time is built; ARGs go to bench/peers.py
  bench typing [ARG]…        type into real files key by key, through the language server; see `--help` after it
                             --peer measures beside llama.cpp's server, which the first time is built
  eval infilling [ARG]…      HumanEval-Infilling, single line, through the language server; see `--help` after it
  eval holes [ARG]…          holes in real code, through the language server; see `--help` after it
  model                      print the path of the test model; pull it when it is not here
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = workspace_root();
    match args.as_slice() {
        ["tidy"] => tidy::run(&root, tidy::Mode::Check),
        ["tidy", "--write"] => tidy::run(&root, tidy::Mode::Write),
        ["ci", rest @ ..] => match ci::Selection::parse(rest) {
            Ok(selection) => ci::run(&root, &selection),
            Err(message) => usage_error(&message),
        },
        ["model"] => match model::path(&root) {
            Ok(path) => {
                println!("{}", path.display());
                ExitCode::SUCCESS
            }
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        },
        ["bench", "peers", rest @ ..] => exit_code(peers::run(&root, rest)),
        ["bench", "typing", rest @ ..] => exit_code(peers::run_typing(&root, rest)),
        ["eval", "infilling", rest @ ..] => exit_code(measure::run(&root, "eval_infilling.py", rest)),
        ["eval", "holes", rest @ ..] => exit_code(measure::run_holes(&root, rest)),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        [] => usage_error("no command"),
        other => usage_error(&format!("unknown command `{}`", other.join(" "))),
    }
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn usage_error(message: &str) -> ExitCode {
    eprintln!("error: {message}\n\n{USAGE}");
    ExitCode::from(2)
}

/// Returns the checkout this xtask belongs to: cargo says where at run time, the build said it before.
fn workspace_root() -> PathBuf {
    let manifest_dir =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let manifest_dir = Path::new(&manifest_dir);
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}

//! The one binary, `agent`; a subcommand a file.
//!
//! In: a command line. Out: an exit code, which README.md lists. `fix` and `proposals` are there on Unix only.
//! Never: anything but the asked-for answer on stdout; words for a human go to stderr.

#![forbid(unsafe_code)]

/// Says something to a human on stderr; that nobody listens is no reason to stop.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

mod bench;
mod complete;
#[cfg(unix)]
mod diff_view;
#[cfg(unix)]
mod endpoint;
mod failure;
#[cfg(unix)]
mod fix;
mod lsp;
mod model;
mod models;
mod place;
#[cfg(unix)]
mod proposals;
mod serve;
#[cfg(unix)]
mod settings;
mod stats;
#[cfg(unix)]
mod template;
mod trace;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A coding assistant that runs on this machine: ghost text, and fixes that end in a proposal you accept
#[derive(Parser, Debug)]
#[command(name = "agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Bench(bench::BenchArgs),
    Complete(complete::CompleteArgs),
    #[cfg(unix)]
    Fix(fix::FixArgs),
    Lsp(lsp::LspArgs),
    Models(models::ModelsArgs),
    #[cfg(unix)]
    Proposals(proposals::ProposalsArgs),
    Serve(serve::ServeArgs),
    Stats(stats::StatsArgs),
    Why(why::WhyArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // The server logs to a file, which it opens when it knows its model.
    if !matches!(command, Command::Serve(_)) {
        start_log();
    }
    let result = match command {
        Command::Bench(args) => bench::run(&args),
        Command::Complete(args) => complete::run(&args),
        #[cfg(unix)]
        Command::Fix(args) => fix::run(&args),
        Command::Lsp(args) => lsp::run(&args),
        Command::Models(args) => models::run(&args),
        #[cfg(unix)]
        Command::Proposals(args) => proposals::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Why(args) => why::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// Logs to stderr what `TANDEM_LOG` asks for, by default only what is wrong.
fn start_log() {
    let log = tracing_subscriber::fmt().with_env_filter(log_filter("warn"));
    log.with_writer(std::io::stderr).with_ansi(false).init();
}

/// Returns what `TANDEM_LOG` asks for.
fn log_filter(default: &str) -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_env("TANDEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default))
}

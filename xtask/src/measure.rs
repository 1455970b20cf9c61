//! Runs the measurements of `bench/` on a release build: `cargo xtask eval …`, `cargo xtask bench …`.
//!
//! In: the workspace root; cargo, Python; `TANDEM_AGENT` to measure another build than this checkout's.
//! Out: what the script prints and writes. Never: judges a number; a script does, when it is given a floor.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::model;

/// Runs `bench/SCRIPT` with `args`, by this machine's Python: these scripts need its standard library only.
///
/// # Errors
/// What failed, in words for a person.
pub fn run(root: &Path, script: &str, args: &[&str]) -> Result<(), String> {
    let agent = match std::env::var_os("TANDEM_AGENT") {
        Some(given) => PathBuf::from(given),
        None => release_build(root)?,
    };
    run_with(root, Path::new("python3"), &agent, script, args)
}

/// Runs `bench/SCRIPT` with `args` by the given Python, on the given build of `agent`.
pub fn run_with(root: &Path, python: &Path, agent: &Path, script: &str, args: &[&str]) -> Result<(), String> {
    let mut command = Command::new(python);
    command.arg(Path::new("bench").join(script)).args(args).current_dir(root);
    command.env("TANDEM_AGENT", agent).env("TANDEM_TEST_MODEL", model::path_by(agent)?);
    succeed(&mut command)
}

/// Builds `agent` for release and returns where it is.
pub fn release_build(root: &Path) -> Result<PathBuf, String> {
    succeed(Command::new("cargo").args(["build", "--release", "--package", "cli"]).current_dir(root))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(root.join(target).join("release").join(format!("agent{}", std::env::consts::EXE_SUFFIX)))
}

/// Runs a command with its output passed through.
pub fn succeed(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} failed: {status}")),
        Err(error) => Err(format!("cannot start {program}: {error}")),
    }
}

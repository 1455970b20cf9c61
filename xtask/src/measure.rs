//! Runs the measurements of `bench/` on a release build: `cargo xtask eval …`, `cargo xtask bench …`.
//!
//! In: the workspace root; cargo, Python; `TANDEM_AGENT` to measure another build than this checkout's.
//! Out: what the script prints and writes. Never: judges a number; a script does, when it is given a floor.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::model;

/// What `bench/eval_holes.py` imports.
const HOLES_REQUIREMENTS: &str = "bench/requirements-holes.txt";

/// Runs `bench/SCRIPT` with `args`, by this machine's Python: most scripts need its standard library only.
///
/// # Errors
/// What failed, in words for a person.
pub fn run(root: &Path, script: &str, args: &[&str]) -> Result<(), String> {
    run_with(root, Path::new("python3"), &agent(root)?, script, args)
}

/// Runs `bench/eval_holes.py` with `args`, in a Python of its own under `.tools`.
///
/// # Errors
/// What failed, in words for a person.
pub fn run_holes(root: &Path, args: &[&str]) -> Result<(), String> {
    let python = python_with(root, "holes", HOLES_REQUIREMENTS)?;
    run_with(root, &python, &agent(root)?, "eval_holes.py", args)
}

/// Returns a Python of its own under `.tools` that has what a file of requirements names.
///
/// # Errors
/// What failed, in words for a person.
pub fn python_with(root: &Path, name: &str, requirements: &str) -> Result<PathBuf, String> {
    let python = venv(&root.join(".tools").join(name))?;
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
        "--requirement",
        requirements,
    ]);
    succeed(install.current_dir(root))?;
    Ok(python)
}

/// Runs `bench/SCRIPT` with `args` by the given Python, on the given build of `agent`.
pub fn run_with(root: &Path, python: &Path, agent: &Path, script: &str, args: &[&str]) -> Result<(), String> {
    succeed(&mut command(root, python, agent, script, args)?)
}

/// Returns the command that [`run_with`] runs.
pub fn command(
    root: &Path,
    python: &Path,
    agent: &Path,
    script: &str,
    args: &[&str],
) -> Result<Command, String> {
    let mut command = Command::new(python);
    command.arg(Path::new("bench").join(script)).args(args).current_dir(root);
    command.env("TANDEM_AGENT", agent).env("TANDEM_TEST_MODEL", model::default_by(agent)?);
    Ok(command)
}

/// Returns the build to measure: the one in `TANDEM_AGENT`, else a release build of this checkout.
pub fn agent(root: &Path) -> Result<PathBuf, String> {
    std::env::var_os("TANDEM_AGENT").map_or_else(|| release_build(root), |given| Ok(PathBuf::from(given)))
}

/// Returns the Python of a venv, which is made where there is none.
pub fn venv(dir: &Path) -> Result<PathBuf, String> {
    let python = dir.join("bin").join("python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    }
    Ok(python)
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

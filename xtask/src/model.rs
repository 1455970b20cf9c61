//! The model the tests run on, which is small and stays the same, and the default one, which is measured; pulled by the
//! built `agent` itself.
//!
//! In: the workspace with a built binary. Out: the model file's path.
//! Never: fetches anything itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the tests run on, whatever the default is: some know what it writes.
const TEST_MODEL: &str = "smollm2-135m-instruct";
/// What the tests of filling in run on.
const TEST_FIM_MODEL: &str = "smollm2-135m-fim";

/// Returns the path of the test model: `TANDEM_TEST_MODEL` when it is set, else [`TEST_MODEL`], pulled
/// into the user's data directory when it is not there yet.
pub fn path(root: &Path) -> Result<PathBuf, String> {
    given("TANDEM_TEST_MODEL").unwrap_or_else(|| pulled(&agent_binary(root)?, &[TEST_MODEL]))
}

/// Returns the path of the test model that fills in: `TANDEM_TEST_FIM_MODEL`, else [`TEST_FIM_MODEL`].
pub fn fim_path(root: &Path) -> Result<PathBuf, String> {
    given("TANDEM_TEST_FIM_MODEL").unwrap_or_else(|| pulled(&agent_binary(root)?, &[TEST_FIM_MODEL]))
}

/// Returns the path of the default model of the given build of `agent`, or `TANDEM_TEST_MODEL` when it is set.
pub fn default_by(agent: &Path) -> Result<PathBuf, String> {
    given("TANDEM_TEST_MODEL").unwrap_or_else(|| pulled(agent, &[]))
}

/// Returns the file that a variable names, if it is set.
fn given(variable: &str) -> Option<Result<PathBuf, String>> {
    let path = PathBuf::from(std::env::var_os(variable)?);
    Some(match path.is_file() {
        true => Ok(path),
        false => Err(format!("{variable} is {}, where no file is", path.display())),
    })
}

fn pulled(agent: &Path, name: &[&str]) -> Result<PathBuf, String> {
    pull(agent, name)?;
    let output = Command::new(agent)
        .args(["models", "path"])
        .args(name)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", agent.display()))?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && path.is_file() {
        return Ok(path);
    }
    Err(format!("`agent models path` ({}) named no file: {}", output.status, path.display()))
}

/// Returns the debug build of `agent`.
pub fn agent_binary(root: &Path) -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let agent = root.join(target).join("debug").join(format!("agent{}", std::env::consts::EXE_SUFFIX));
    match agent.is_file() {
        true => Ok(agent),
        false => {
            Err(format!("{} is not built\n  hint: cargo xtask ci --only build --only model", agent.display()))
        }
    }
}

fn pull(agent: &Path, name: &[&str]) -> Result<(), String> {
    let mut command = Command::new(agent);
    // Its stdout is not ours to mix into: `cargo xtask model` prints a path and nothing else.
    command.args(["models", "pull"]).args(name).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|error| format!("cannot run {}: {error}", agent.display()))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`agent models pull` failed ({status})")),
    }
}

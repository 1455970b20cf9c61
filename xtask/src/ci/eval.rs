//! The evaluation step: a slice of the ghost text's quality and of what a key costs, on the build that was tested.
//!
//! In: the built binary, the model; packages to type into, fetched once. Out: what the scripts print.
//! Never: a time: the bounds are of answers and of tokens. A busy machine has less time to choose among lines, so the floor
//! is below what the likeliest line alone passes.

use std::path::Path;

use super::Closing;
use crate::{measure, model};

/// 40 of the 1,033 problems.
const INFILLING: &[&str] = &["--problems", "40", "--floor", "20"];
/// 180 keys. One file's first key prefills its window, the others a token or two.
const TYPING: &[&str] = &[
    "--speed",
    "max",
    "--keys",
    "60",
    "--most-prefilled",
    "15",
    "--least-cached",
    "50",
    "--files",
    "sessions.py",
    "models.py",
    "application.js",
];

/// Runs the slice.
pub fn run(root: &Path) -> Result<Closing, String> {
    let agent = model::agent_binary(root)?;
    for (script, args) in [("eval_infilling.py", INFILLING), ("keystrokes.py", TYPING)] {
        measure::run_with(root, Path::new("python3"), &agent, script, args)?;
    }
    Ok(Closing::new())
}

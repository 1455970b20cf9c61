//! The environment variables a test command gets.
//!
//! In: our own environment. Out: the part that finds tools, and settings that keep the command to its sandbox.
//! Never: hands over a variable that is not named here; tokens and keys stay with the user.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::Sandbox;

/// What marks every process of a sandbox; its value is the sandbox's folder.
pub(super) const MARK: &str = "TANDEM_SANDBOX";

/// Variables handed on by name.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "NODE_PATH",
    "JAVA_HOME",
    "GOPATH",
    "GOROOT",
    "GOMODCACHE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PKG_CONFIG_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
];
/// Variables handed on by how their name starts.
const KEPT_PREFIXES: &[&str] = &["LC_", "PYENV", "NVM_", "SSL_CERT_", "UV_PYTHON"];
/// Lists of folders that name the user's own code: there the copy must stand in, or the tests see no change.
const SEARCH_PATHS: &[&str] = &["PYTHONPATH", "NODE_PATH"];

/// Returns the whole environment of a command in `sandbox`.
pub(super) fn environment(
    sandbox: &Sandbox,
    ours: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = ours
        .filter(|(name, _)| name.to_str().is_some_and(is_kept))
        .map(|(name, value)| {
            let is_search_path = SEARCH_PATHS.iter().any(|search_path| name == *search_path);
            let value = if is_search_path { moved(&value, &sandbox.source, &sandbox.tree) } else { value };
            (name, value)
        })
        .collect();
    let ceiling = sandbox.tree.parent().unwrap_or(&sandbox.folder);
    let set: [(&str, OsString); 11] = [
        (MARK, sandbox.folder.clone().into()),
        ("TMPDIR", sandbox.temp_dir().into()),
        ("CARGO_TARGET_DIR", sandbox.target_dir().into()),
        ("GIT_CEILING_DIRECTORIES", ceiling.into()),
        ("GIT_TERMINAL_PROMPT", "0".into()),
        ("TERM", "dumb".into()),
        ("NO_COLOR", "1".into()),
        ("CARGO_TERM_COLOR", "never".into()),
        ("CI", "1".into()),
        // Python takes a compiled file for fresh if length and second are the same: two candidates may share both.
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("PYTHONUNBUFFERED", "1".into()),
    ];
    env.extend(set.map(|(name, value)| (name.into(), value)));
    env
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns a list of folders in which those below `from` are those below `to`.
fn moved(list: &OsStr, from: &Path, to: &Path) -> OsString {
    let folders = std::env::split_paths(list).map(|folder| match folder.strip_prefix(from) {
        Ok(below) => to.join(below),
        Err(_) => folder,
    });
    // A name that came out of such a list can go back into one, unless the sandbox's own has a colon in it.
    std::env::join_paths(folders).unwrap_or_default()
}

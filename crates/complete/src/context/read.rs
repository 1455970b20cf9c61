//! Source files of the workspace, as far as they may be read.
//!
//! In: paths that an import may mean. Out: their text.
//! Never: leaves the workspace folder, also not by a symbolic link; reads what git ignores, what is hidden, or what its
//! name says is a secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ignore::gitignore::GitignoreBuilder;

/// Longest file that is read.
const N_MAX_FILE_BYTES: u64 = 256 * 1024;

/// Words in names of files that hold secrets.
const SECRET: &[&str] =
    &["secret", "credential", "password", "passwd", "token", "apikey", "api_key", "id_rsa"];

/// When a file was last written, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    n_bytes: u64,
}

/// Returns the stamp of a file that is short enough.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    let n_bytes = metadata.len();
    (metadata.is_file() && n_bytes <= N_MAX_FILE_BYTES)
        .then(|| Stamp { modified: metadata.modified().ok(), n_bytes })
}

/// Returns the text of a file under `root`, if it may be read and is UTF-8.
pub(super) fn text(path: &Path, root: &Path) -> Option<String> {
    let (real, root) = (path.canonicalize().ok()?, root.canonicalize().ok()?);
    let within = real.strip_prefix(&root).ok()?;
    if is_secret(within) || is_ignored(&real, &root) {
        return None;
    }
    fs::read_to_string(real).ok()
}

/// Returns whether a file's name says that others should not see it.
pub(super) fn is_secret(path: &Path) -> bool {
    let is_hidden = |part: &str| part.starts_with('.') && !part.trim_matches('.').is_empty();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    path.iter().any(|part| is_hidden(&part.to_string_lossy()))
        || SECRET.iter().any(|word| stem == *word || stem.strip_suffix('s') == Some(word))
}

/// Returns whether a `.gitignore` of its folder or of one above it names it, up to the repository's, or else up to `root`.
fn is_ignored(path: &Path, root: &Path) -> bool {
    let repository = root.ancestors().find(|folder| folder.join(".git").exists());
    let top = repository.unwrap_or(root);
    let folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(top));
    // The nearest has the last word.
    for folder in folders {
        let mut builder = GitignoreBuilder::new(folder);
        // A line that cannot be understood is none; so is a file that is not there.
        let _ = builder.add(folder.join(".git/info/exclude"));
        let _ = builder.add(folder.join(".gitignore"));
        let Ok(rules) = builder.build() else { continue };
        let said = rules.matched_path_or_any_parents(path, false);
        if !said.is_none() {
            return said.is_ignore();
        }
    }
    false
}

/// Returns the files in `folder` that end like `name`, in the order of their names.
pub(super) fn beside(name: &Path, n_max: usize) -> Vec<PathBuf> {
    let (Some(folder), Some(ending)) = (name.parent(), name.extension()) else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.extension() == Some(ending)).collect();
    paths.sort();
    paths.truncate(n_max);
    paths
}

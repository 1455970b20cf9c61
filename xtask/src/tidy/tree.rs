//! The files tidy looks at: what git tracks or would add, read once.
//!
//! In: a checkout. Out: paths relative to it, their text, and for Rust the text by kind ([`Masked`]).

use std::path::{Path, PathBuf};
use std::process::Command;

use super::lex::{Masked, mask};

/// All files of a checkout that git does not ignore.
pub struct Tree {
    pub root: PathBuf,
    pub files: Vec<SourceFile>,
}

/// One file.
pub struct SourceFile {
    /// Relative to the root, with `/`.
    pub path: String,
    /// `None` for a binary file.
    pub text: Option<String>,
    /// Only for `.rs` files.
    pub rust: Option<Masked>,
}

impl Tree {
    /// Reads the checkout at `root`.
    pub fn read(root: &Path) -> Result<Tree, String> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cannot run git: {error}"))?;
        if !output.status.success() {
            return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let listing =
            String::from_utf8(output.stdout).map_err(|_| "a file name is not UTF-8; rename it".to_owned())?;
        let mut paths: Vec<&str> = listing.split_terminator('\0').collect();
        paths.sort_unstable();
        paths.dedup();
        let mut files = Vec::new();
        for path in paths {
            let full = root.join(path);
            // A tracked file that was deleted is still listed; a symbolic link is not ours to read.
            if !full.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            let bytes = std::fs::read(&full).map_err(|error| format!("cannot read {path}: {error}"))?;
            let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
            let rust = text.as_deref().filter(|_| path.ends_with(".rs")).map(mask);
            files.push(SourceFile { path: path.to_owned(), text, rust });
        }
        Ok(Tree { root: root.to_path_buf(), files })
    }

    /// Returns the text of a file, when it is there and is text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text.as_deref()
    }
}

impl SourceFile {
    /// Returns the file name without folders.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Returns what follows the last dot of the name, or nothing.
    pub fn extension(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// Returns the crate's folder name for `crates/NAME/…`, else the first folder.
    pub fn owner(&self) -> &str {
        let mut parts = self.path.split('/');
        match parts.next() {
            Some("crates") => parts.next().unwrap_or("crates"),
            first => first.unwrap_or(""),
        }
    }

    /// Tells whether the file is material for a test or a user, not code of ours.
    pub fn is_material(&self) -> bool {
        self.path.split('/').any(|part| matches!(part, "fixtures" | "examples" | "node_modules"))
    }

    /// Tells whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        ["tests.rs", "fixture.rs"].contains(&self.name()) || self.path.split('/').any(|part| part == "tests")
    }
}

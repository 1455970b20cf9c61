//! Rules about any text: no address of a registry, no path of one machine, no leftovers of a merge.
//!
//! In: every text file git knows. Out: a finding for each line that breaks one.

use super::Finding;
use super::tree::{SourceFile, Tree};

/// Package registries are reached through their clients' own settings. Written in halves, because tidy
/// reads this file too.
const REGISTRIES: &[&str] = &[
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("registry.", "npmjs.org"),
    concat!("registry.", "yarnpkg.com"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("deb.", "debian.org"),
    concat!("arti", "factory"),
];

/// Starts of absolute paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/", "lab")];

const MERGE_MARKS: &[&str] = &["<<<<<<< ", "||||||| ", ">>>>>>> "];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        let Some(text) = &file.text else { continue };
        check_addresses(file, text, findings);
        if matches!(file.extension(), "rs" | "md" | "toml" | "lua" | "ts" | "mjs" | "py")
            && !file.path.split('/').any(|part| part == "fixtures")
        {
            check_lines(file, text, findings);
        }
    }
}

fn check_addresses(file: &SourceFile, text: &str, findings: &mut Vec<Finding>) {
    for (idx, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        if let Some(host) = REGISTRIES.iter().find(|host| lower.contains(*host)) {
            let hint =
                "name the package and let the client find it; for npm, `omit-lockfile-registry-resolved`";
            push(findings, file, idx + 1, format!("registry address `{host}`"), hint);
        }
        if let Some(path) = MACHINE_PATHS.iter().find(|path| names_path(line, path)) {
            let hint = "a path relative to the repository, a temporary folder, or /home/user in an example";
            push(findings, file, idx + 1, format!("path of one machine `{path}`"), hint);
        }
    }
}

/// Tells whether `path` starts in `line` as an absolute path, not inside another one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|char: char| char.is_alphanumeric() || "_.~-})>*".contains(char))
    })
}

fn check_lines(file: &SourceFile, text: &str, findings: &mut Vec<Finding>) {
    let mut n_lines = 0;
    for (idx, line) in text.split('\n').enumerate() {
        n_lines = idx + 1;
        if MERGE_MARKS.iter().any(|mark| line.starts_with(mark)) {
            push(findings, file, n_lines, "merge marker".to_owned(), "finish the merge");
        }
        if line.ends_with([' ', '\t', '\r']) {
            push(findings, file, n_lines, "white space at the line's end".to_owned(), "delete it");
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        push(findings, file, n_lines, "no newline at the end".to_owned(), "add it");
    }
}

fn push(findings: &mut Vec<Finding>, file: &SourceFile, line: usize, message: String, hint: &str) {
    findings.push(Finding { path: file.path.clone(), line, message, hint: hint.to_owned() });
}

//! House rules a compiler does not check: arrows, owners, names, sizes, docs, text.
//!
//! In: the files git knows or would add, and `cargo metadata`. Out: findings as `path:line: message`.
//! Never: changes a file, except ARCHITECTURE.md's module table with `--write`.

mod arrows;
mod invariants;
mod lex;
mod modules;
mod names;
mod sources;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use tree::Tree;

/// What `cargo xtask tidy` does about a stale module table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reports it.
    Check,
    /// Brings it up to date, then checks everything.
    Write,
}

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// 1-based.
    line: usize,
    message: String,
    hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}\n  hint: {}", self.path, self.line, self.message, self.hint)
    }
}

/// Checks the tree at `root` and prints every finding.
pub fn run(root: &Path, mode: Mode) -> ExitCode {
    match check(root, mode) {
        Ok(findings) if findings.is_empty() => {
            println!("tidy: nothing to say");
            ExitCode::SUCCESS
        }
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}");
            }
            println!(
                "tidy: {}",
                if findings.len() == 1 { "1 finding".into() } else { format!("{} findings", findings.len()) }
            );
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Returns all findings, in the order of their places.
fn check(root: &Path, mode: Mode) -> Result<Vec<Finding>, String> {
    let mut tree = Tree::read(root)?;
    if mode == Mode::Write {
        modules::write(&tree)?;
        tree = Tree::read(root)?;
    }
    let mut findings = Vec::new();
    arrows::check(&tree, &mut findings)?;
    sources::check(&tree, &mut findings);
    names::check(&tree, &mut findings);
    modules::check(&tree, &mut findings);
    invariants::check(&tree, &mut findings);
    text::check(&tree, &mut findings);
    findings.sort();
    Ok(findings)
}

//! ARCHITECTURE.md's table of invariants names a test for each, and the test is there.
//!
//! In: rows `| I-N | what holds | what holds it |`. Out: a finding for each row whose last cell names no
//! test, no check of tidy's and no issue, or a test that does not exist.

use super::Finding;
use super::lex::word_offsets;
use super::tree::Tree;

const PAGE: &str = "ARCHITECTURE.md";

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (idx, line) in tree.text(PAGE).unwrap_or_default().lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, _, holder, ""] = cells.as_slice() else {
            continue;
        };
        if !name.starts_with("I-") {
            continue;
        }
        let mut push = |message: String, hint: &str| {
            findings.push(Finding { path: PAGE.to_owned(), line: idx + 1, message, hint: hint.to_owned() });
        };
        // Every second part stands between backticks.
        let tests: Vec<&str> = holder.split('`').skip(1).step_by(2).collect();
        for test in &tests {
            if !is_function(tree, test) {
                push(
                    format!("{name} names the test `{test}`, which is not there"),
                    "name the test that holds it, without its module",
                );
            }
        }
        if tests.is_empty() && !holder.contains("tidy") && !holder.contains("issue ") {
            push(
                format!("{name} names neither a test nor an issue"),
                "write the test's name in backticks, `tidy`, or the issue that brings it",
            );
        }
    }
}

fn is_function(tree: &Tree, name: &str) -> bool {
    tree.files
        .iter()
        .filter_map(|file| file.rust.as_ref())
        .any(|rust| word_offsets(&rust.code, name).any(|at| rust.code[..at].trim_end().ends_with("fn")))
}

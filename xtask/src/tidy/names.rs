//! File names and sizes: no drawers for odds and ends, nothing too long to read.
//!
//! In: paths and texts. Out: a finding for each banned name and each file over [`MAX_LINES`].

use super::Finding;
use super::lex::{line_at, word_offsets};
use super::tree::{SourceFile, Tree};

/// STYLE.md, rule 6. The aim is half of it.
const MAX_LINES: usize = 800;

/// STYLE.md, rules 3 and 4.
const BANNED: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "manager"];

const LANGUAGES: &[&str] = &["rs", "ts", "lua", "py", "mjs"];

const HINT: &str = "code lives with the noun it serves (STYLE.md, rule 4)";

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        if file.is_material() || !LANGUAGES.contains(&file.extension()) {
            continue;
        }
        check_name(file, findings);
        check_length(file, findings);
        if let Some(rust) = &file.rust {
            check_inline_modules(file, &rust.code, findings);
        }
    }
}

fn check_name(file: &SourceFile, findings: &mut Vec<Finding>) {
    if file.name() == "mod.rs" {
        findings.push(Finding {
            path: file.path.clone(),
            line: 1,
            message: "a module named mod.rs".to_owned(),
            hint: "use x.rs beside x/ (STYLE.md, rule 3)".to_owned(),
        });
    }
    let stem = file.path.rsplit_once('.').map_or(file.path.as_str(), |(stem, _)| stem);
    if let Some(word) = stem.split(['/', '_', '-', '.']).find(|word| BANNED.contains(word)) {
        findings.push(Finding {
            path: file.path.clone(),
            line: 1,
            message: format!("banned name `{word}`"),
            hint: HINT.to_owned(),
        });
    }
}

fn check_length(file: &SourceFile, findings: &mut Vec<Finding>) {
    let n_lines = file.text.as_deref().map_or(0, |text| text.lines().count());
    if n_lines > MAX_LINES {
        findings.push(Finding {
            path: file.path.clone(),
            line: MAX_LINES + 1,
            message: format!("{n_lines} lines, more than {MAX_LINES}"),
            hint: "split it by nouns; aim at 400".to_owned(),
        });
    }
}

fn check_inline_modules(file: &SourceFile, code: &str, findings: &mut Vec<Finding>) {
    for at in word_offsets(code, "mod") {
        let name = code[at + 3..].trim_start();
        let name = name.split(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap_or("");
        // `mod utils;` has a file, and the file has its finding.
        let has_body = code[at..].find(['{', ';']).is_some_and(|end| code[at + end..].starts_with('{'));
        if has_body && name.split('_').any(|word| BANNED.contains(&word)) {
            findings.push(Finding {
                path: file.path.clone(),
                line: line_at(code, at),
                message: format!("banned module name `{name}`"),
                hint: HINT.to_owned(),
            });
        }
    }
}

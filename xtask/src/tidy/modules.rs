//! ARCHITECTURE.md's module table, generated from the modules' first sentences and checked fresh.
//!
//! In: the `.rs` files directly under `crates/*/src`. Out: a finding for each stale row; with `--write`, the table.

use super::Finding;
use super::arrows::ARROWS;
use super::sources::opening_sentence;
use super::tree::Tree;

const PAGE: &str = "ARCHITECTURE.md";
const OPEN: &str = "<!-- modules -->";
const CLOSE: &str = "<!-- /modules -->";
const HEADER: &str = "| file | purpose |\n|---|---|\n";
const HINT: &str = "cargo xtask tidy --write";

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut push = |path: &str, line: usize, message: String| {
        findings.push(Finding { path: path.to_owned(), line, message, hint: HINT.to_owned() });
    };
    let page = tree.text(PAGE).unwrap_or_default();
    let Some((start, end)) = table_range(page) else {
        push(PAGE, 1, format!("no module table between {OPEN} and {CLOSE}"));
        return;
    };
    let first_line = page[..start].matches('\n').count() + 1;
    let rows: Vec<(usize, &str)> = page[start..end]
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("crates/"))
        .map(|(idx, line)| (first_line + idx, line))
        .collect();
    let wanted = wanted_rows(tree);
    for (line, row) in &rows {
        let path = row_path(row);
        match wanted.iter().find(|(wanted_path, _)| *wanted_path == path) {
            None => push(PAGE, *line, format!("row for `{path}`, which is not a module")),
            Some((_, wanted)) if wanted != row => {
                push(PAGE, *line, format!("row for `{path}` does not say what the module says"));
            }
            Some(_) => {}
        }
    }
    for (path, _) in &wanted {
        if !rows.iter().any(|(_, row)| row_path(row) == *path) {
            push(path, 1, format!("module without a row in {PAGE}"));
        }
    }
}

/// Writes the table anew.
pub fn write(tree: &Tree) -> Result<(), String> {
    let page = tree.text(PAGE).ok_or_else(|| format!("cannot read {PAGE}"))?;
    let (start, end) = table_range(page).ok_or_else(|| {
        format!("{PAGE} has no `{OPEN}` and `{CLOSE}`; add the two lines where the table goes")
    })?;
    let rows: String = wanted_rows(tree).into_iter().map(|(_, row)| row + "\n").collect();
    let fresh = format!("{}\n{HEADER}{rows}{}", &page[..start], &page[end..]);
    std::fs::write(tree.root.join(PAGE), fresh).map_err(|error| format!("cannot write {PAGE}: {error}"))
}

/// Returns the bytes between the two marks.
fn table_range(page: &str) -> Option<(usize, usize)> {
    let start = page.find(OPEN)? + OPEN.len();
    let end = start + page[start..].find(CLOSE)?;
    Some((start, end))
}

fn row_path(row: &str) -> &str {
    row.trim_start_matches('|').split('|').next().unwrap_or_default().trim().trim_matches('`')
}

/// Returns path and row of every module, in the order of the arrows, crate roots first.
fn wanted_rows(tree: &Tree) -> Vec<(&str, String)> {
    let mut rows: Vec<_> = tree
        .files
        .iter()
        .filter(|file| {
            let parts: Vec<&str> = file.path.split('/').collect();
            matches!(parts.as_slice(), ["crates", _, "src", _]) && file.extension() == "rs"
        })
        .map(|file| {
            let crate_idx = ARROWS.iter().position(|(name, _)| *name == file.owner());
            let is_inner = !matches!(file.name(), "lib.rs" | "main.rs");
            let purpose = opening_sentence(file.text.as_deref().unwrap_or_default())
                .replace("[`", "`")
                .replace("`]", "`")
                .replace('|', "\\|");
            let row = format!("| `{}` | {} |", file.path, purpose.trim_end_matches('.'));
            ((crate_idx.unwrap_or(ARROWS.len()), is_inner, file.path.as_str()), row)
        })
        .collect();
    rows.sort();
    rows.into_iter().map(|((.., path), row)| (path, row)).collect()
}

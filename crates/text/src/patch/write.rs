//! Writes hunks as git's unified patch.

use crate::Hunk;
use crate::hunk::lines;

/// Returns `hunks` of the file at `path` as a patch with `n_context` lines around each.
///
/// The hunks must be `base`'s and in order, as [`diff`](crate::diff) returns them. Hunks whose
/// contexts meet share a header. Without hunks the patch is empty. An empty `base` is a file that
/// exists and is empty. `git apply` wants `--unidiff-zero` where `n_context` is 0.
///
/// ```
/// let hunks = text::diff("a\n", "b\n");
/// let patch = text::to_unified("f", "a\n", &hunks, 3);
/// assert_eq!(patch, "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n");
/// ```
#[must_use]
pub fn to_unified(path: &str, base: &str, hunks: &[Hunk], n_context: usize) -> String {
    let hunks: Vec<&Hunk> = (hunks.iter()).filter(|hunk| hunk.base_lines != hunk.new_lines).collect();
    if hunks.is_empty() {
        return String::new();
    }
    let base_lines = lines(base);
    let (old_name, new_name) = (quoted(&format!("a/{path}")), quoted(&format!("b/{path}")));
    // A tab ends a name with spaces, for programs that expect a date after the name.
    let name_end = if path.contains(' ') && !old_name.starts_with('"') { "\t" } else { "" };
    let mut patch =
        format!("diff --git {old_name} {new_name}\n--- {old_name}{name_end}\n+++ {new_name}{name_end}\n");
    let meet = |ahead: &&Hunk, hunk: &&Hunk| {
        hunk.base_start.saturating_sub(ahead.base_end()) <= n_context.saturating_mul(2)
    };
    let (mut n_base, mut n_new) = (0_usize, 0_usize);
    for group in hunks.chunk_by(meet) {
        let first_line = group[0].base_start.saturating_sub(n_context);
        let new_line = (first_line + n_new).saturating_sub(n_base);
        push_group(&mut patch, &base_lines, group, n_context, first_line, new_line);
        n_base += group.iter().map(|hunk| hunk.base_lines.len()).sum::<usize>();
        n_new += group.iter().map(|hunk| hunk.new_lines.len()).sum::<usize>();
    }
    patch
}

fn push_group(
    patch: &mut String,
    base_lines: &[&str],
    group: &[&Hunk],
    n_context: usize,
    first_line: usize,
    new_line: usize,
) {
    let mut body = String::new();
    let (mut n_old, mut n_new) = (0, 0);
    let mut line_idx = first_line;
    let push_context = |body: &mut String, from: usize, to: usize| {
        let context = base_lines.get(from..to.min(base_lines.len())).unwrap_or(&[]);
        context.iter().for_each(|line| push_line(body, ' ', line));
        context.len()
    };
    for hunk in group {
        let n_equal = push_context(&mut body, line_idx, hunk.base_start);
        hunk.base_lines.iter().for_each(|line| push_line(&mut body, '-', line));
        hunk.new_lines.iter().for_each(|line| push_line(&mut body, '+', line));
        n_old += n_equal + hunk.base_lines.len();
        n_new += n_equal + hunk.new_lines.len();
        line_idx = hunk.base_end();
    }
    let n_equal = push_context(&mut body, line_idx, line_idx.saturating_add(n_context));
    let old_range = range(first_line, n_old + n_equal);
    let new_range = range(new_line, n_new + n_equal);
    patch.push_str(&format!("@@ -{old_range} +{new_range} @@\n"));
    patch.push_str(&body);
}

/// Returns `start,count` as git writes it: 1-based, a count of 1 left out, no lines named by the one ahead.
fn range(first_line: usize, n_lines: usize) -> String {
    match n_lines {
        0 => format!("{first_line},0"),
        1 => format!("{}", first_line.saturating_add(1)),
        _ => format!("{},{n_lines}", first_line.saturating_add(1)),
    }
}

fn push_line(body: &mut String, sign: char, line: &str) {
    body.push(sign);
    body.push_str(line);
    if !line.ends_with('\n') {
        body.push_str("\n\\ No newline at end of file\n");
    }
}

/// Returns `name` in C quotes where it could not be read back otherwise.
fn quoted(name: &str) -> String {
    let is_special = |c: char| c == '"' || c == '\\' || c.is_ascii_control();
    if !name.contains(is_special) {
        return name.to_owned();
    }
    let mut quoted = String::from('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if is_special(c) => quoted.push_str(&format!("\\{:03o}", u32::from(c))),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

//! Patches there and back, against the real git, and against bad input.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::diff;
use crate::hunk::tests::any_text;

/// Runs git in `dir` with nobody's settings and returns what it printed.
fn git(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a PATH"))
        .env("HOME", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CEILING_DIRECTORIES", dir.parent().expect("a parent"))
        .args(args)
        .output()
        .expect("git runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {message}");
    output.stdout
}

fn check_git_applies(path: &str, base: &str, new: &str) {
    for n_context in [0, 1, 3, usize::MAX] {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        fs::write(&file, base).expect("written");
        let patch = to_unified(path, base, &diff(base, new), n_context);
        fs::write(dir.path().join("the.patch"), &patch).expect("written");
        let args: &[&str] = match n_context {
            0 => &["apply", "--unidiff-zero", "the.patch"],
            _ => &["apply", "the.patch"],
        };
        git(dir.path(), args);
        let applied = fs::read(&file).expect("read");
        assert_eq!(String::from_utf8_lossy(&applied), new, "{patch}");
    }
}

#[test]
fn git_applies_what_is_written() {
    let numbers = |n| (0..n).map(|i| format!("line {i}\n")).collect::<String>();
    let long = numbers(40);
    let far = long.replace("line 5\n", "five\n").replace("line 30\n", "");
    let near = long.replace("line 5\n", "").replace("line 11\n", "x\ny\n");
    let cases = [
        ("a\nb\nc\n", "a\nB\nc\n"),
        ("a\r\nb\r\nc\r\n", "a\r\nB\r\nc\r\n"),
        ("a\r\nb\nc\r\n", "a\r\nb\r\nc\r\n"),
        ("a\rb\nc\n", "a\rb\nC\n"),
        ("a\nb", "a\nb\n"),
        ("a\nb\n", "a\nb"),
        ("a\nb", "a\nc"),
        ("a\nb\nc", "A\nb\nc"),
        ("", "a\n"),
        ("", "a"),
        ("", "\n"),
        ("a\n", ""),
        ("a", ""),
        ("über\n漢字\n😀", "über\n漢\u{2028}字\n😀e\u{301}\n"),
        ("--- x\n+++ y\n@@ -1 +1 @@\n", "-- x\n++ y\n@@ -2 +2 @@\n"),
        (&long, &far),
        (&long, &near),
        (&long, ""),
    ];
    for (base, new) in cases {
        check_git_applies("file.txt", base, new);
    }
    for path in ["a b/c d.txt", "dir/ü漢.rs", "q\"uote\\.txt", "tab\there", "b/a/b"] {
        check_git_applies(path, "a\nb\n", "a\nc\n");
    }
}

#[test]
fn hunks_whose_contexts_meet_share_a_header() {
    let base: String = (0..20).map(|i| format!("{i}\n")).collect();
    let n_headers = |new: &str, n_context| {
        let patch = to_unified("f", &base, &diff(&base, new), n_context);
        patch.lines().filter(|line| line.starts_with("@@")).count()
    };
    let six_between = base.replace("\n5\n", "\nx\n").replace("\n12\n", "\ny\n");
    assert_eq!(n_headers(&six_between, 3), 1);
    assert_eq!(n_headers(&six_between, 2), 2);
    let seven_between = base.replace("\n5\n", "\nx\n").replace("\n13\n", "\ny\n");
    assert_eq!(n_headers(&seven_between, 3), 2);
    assert_eq!(to_unified("f", &base, &[], 3), "");
}

#[test]
fn hunks_of_another_text_are_written_without_a_panic() {
    let hunk = |base_start| Hunk { base_start, base_lines: vec!["x\n".to_owned()], new_lines: Vec::new() };
    for hunks in [vec![hunk(usize::MAX)], vec![hunk(9), hunk(0)]] {
        assert!(!to_unified("f", "a\n", &hunks, usize::MAX).is_empty());
    }
}

#[test]
fn what_git_writes_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
    git(dir, &["init", "-q"]);
    let body: String = (0..30).map(|i| format!("line {i}\r\n")).collect();
    let before = ["changed ü.txt", "moved.txt", "gone.txt", "turned.sh", "empty"];
    for name in before {
        write(name, if name == "empty" { "" } else { &body });
    }
    write("gone.txt", "gone\n");
    let as_user = ["-c", "user.name=a", "-c", "user.email=a@b"];
    let commit = |message: &str| git(dir, &[&as_user[..], &["commit", "-qm", message]].concat());
    git(dir, &["add", "."]);
    commit("one");
    // Its own commit, or git takes it for renamed to the new empty one.
    git(dir, &["rm", "-q", "empty"]);
    commit("two");
    let changed = body.replace("line 3\r\n", "three").replace("line 20\r\n", "");
    write("changed ü.txt", &changed);
    fs::rename(dir.join("moved.txt"), dir.join("to\there")).expect("moved");
    fs::remove_file(dir.join("gone.txt")).expect("removed");
    write("new.txt", "no end");
    write("new empty", "");
    git(dir, &["add", "-A"]);
    git(dir, &["update-index", "--chmod=+x", "turned.sh"]);
    commit("three\n\n--- not a name");

    let patch = git(dir, &["format-patch", "-2", "--stdout"]);
    let files = parse(&patch).expect("git's own patch");
    let told: Vec<_> = (files.iter())
        .map(|file| (file.old_path.as_deref(), file.new_path.as_deref(), file.new_mode))
        .collect();
    let expect = [
        (Some("empty"), None, None),
        (Some("changed ü.txt"), Some("changed ü.txt"), None),
        (Some("gone.txt"), None, None),
        (None, Some("new empty"), Some(0o100_644)),
        (None, Some("new.txt"), Some(0o100_644)),
        (Some("moved.txt"), Some("to\there"), None),
        (Some("turned.sh"), Some("turned.sh"), Some(0o100_755)),
    ];
    assert_eq!(told, expect);
    assert_eq!(files[1].apply(&body), Ok(changed.clone()));
    assert_eq!(files[1].hunks, diff(&body, &changed));
    assert_eq!(files[2].apply("gone\n"), Ok(String::new()));
    assert_eq!(files[4].apply(""), Ok("no end".to_owned()));
    let moved = body.replace("line 2\r", "line two\r");
    assert_eq!(files[1].apply(&moved), Err(Error::ContextMismatch { base_line: 2 }));
}

fn check_error(patch: &str, line: usize, reason: &str) {
    let error = parse(patch.as_bytes()).expect_err(patch);
    let text = error.to_string();
    assert!(text.starts_with(&format!("patch line {line}: ")) && text.contains(reason), "{text} in\n{patch}");
}

#[test]
fn a_bad_patch_is_refused_with_its_line() {
    let body = |body: &str| format!("--- a/f\n+++ b/f\n{body}");
    check_error("@@ -1 +1 @@\n-a\n+b\n", 1, "no file");
    check_error("--- a/f\n+++ b/f\n", 2, "no hunk");
    check_error("--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n", 2, "both");
    check_error(&body("@@ -1,2 +1,2 @@\n a\n"), 4, "fewer lines");
    check_error(&body("@@ -1 +1 @@\n-a\n+b\n+c\n"), 6, "more lines");
    check_error(&body("@@ -1 +1 @@\n-a\n-b\n"), 5, "more lines");
    check_error(&body("@@ -1,9999999999999999999999 +1 @@\n-a\n"), 3, "hunk header");
    check_error(&body("@@ -18446744073709551615,9 +1 @@\n-a\n"), 3, "hunk header");
    check_error(&body("@@ -1,18446744073709551614 +1 @@\n-a\n"), 4, "fewer lines");
    check_error(&body("@@ -+1 +1 @@\n-a\n"), 3, "hunk header");
    check_error(&body("@@ -1 @@\n-a\n"), 3, "hunk header");
    check_error(&body("@@ -0,1 +1 @@\n-a\n"), 3, "count from 1");
    check_error(&body("@@ -1 +1 @@\n?a\n"), 4, "none of space");
    check_error(&body("@@ -1 +1 @@\n-a\n+b"), 5, "inside a line");
    check_error(&body("@@ -1 +1 @@\n\\ No newline\n-a\n+b\n"), 4, "no line ahead");
    check_error(&body("@@ -1,2 +1 @@\n-a\n\\ No newline\n-b\n+c\n"), 6, "no line end");
    check_error(&body("@@ -1 +1 @@\n-\n\\ No newline\n+c\n"), 4, "empty line");
    check_error(&body("@@ -5 +5 @@\n-a\n+b\n@@ -5 +5 @@\n-a\n+b\n"), 6, "overlaps");
    check_error("--- /dev/null\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n", 5, "/dev/null");
    check_error("--- \"a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n", 1, "closing quote");
    check_error("--- \"a/\\q\"\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n", 1, "escape");
    check_error("--- \"a/\\377\"\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n", 1, "UTF-8");
    check_error("diff --git a/x b/y\nold mode 100644\nnew mode 100755\n", 3, "cannot be told");
    check_error("diff --git a/x b/x\nnew mode 9\n", 2, "mode");
    check_error("diff --git a/x b/x\nindex 1..2\nGIT binary patch\n", 3, "binary");
    check_error("diff --git a/x b/y\ncopy from x\n", 2, "copied");
    let renamed = "diff --git a/x b/y\nrename from z\nrename to y\n";
    check_error(&format!("{renamed}--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n"), 5, "disagree");
    for path in ["../x", "/etc/x", "b/../../x", ".git/hooks/x", "s/.GIT/x", "b//x", ""] {
        let patch = format!("--- a/f\n+++ {path}\n@@ -1 +1 @@\n-a\n+b\n");
        check_error(&patch, 2, "leaves the repository");
    }
    let not_utf8 = parse(b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-\xff\n+b\n");
    assert_eq!(not_utf8, Err(Error::Patch { line: 4, reason: "text that is not UTF-8" }));
}

#[test]
fn text_around_the_files_is_skipped() {
    let patch =
        "Hello!\n```diff\n--- a/f\t2020-01-01\n+++ b/f\r\n@@ -1,3 +1,3 @@ fn x()\n-a\n+b\n\n c\n```\nBye\n";
    let files = parse(patch.as_bytes()).expect("a patch");
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].old_path.as_deref(), Some("f"));
    assert_eq!(files[0].apply("a\n\nc\n"), Ok("b\n\nc\n".to_owned()));
    assert_eq!(parse(b""), Ok(Vec::new()));
    assert_eq!(parse(b"nothing here"), Ok(Vec::new()));
}

/// Bytes that look enough like a patch to get past the first line.
fn almost_patch() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"diff --git a/f b/f\n".to_vec()),
        Just(b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n".to_vec()),
        Just(b"--- \"a/\\".to_vec()),
        Just(b"+++ /dev/null\n".to_vec()),
        Just(b"@@ -0,0 +1 @@\n".to_vec()),
        Just(b"@@ -1,18446744073709551615 +9 @@\n".to_vec()),
        Just(b"new file mode 100644\n".to_vec()),
        Just(b"rename from \"".to_vec()),
        Just(b"\\ No newline at end of file\n".to_vec()),
        Just(b"-a\n".to_vec()),
        Just(b"+b\n".to_vec()),
        Just(b" c\n".to_vec()),
        Just(b"\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_patch_read_back_gives_the_hunks(
        base in any_text(), new in any_text(), n_context in 0..5_usize, path in "[a-z\"\\\\ü\t ]{1,8}",
    ) {
        let hunks = diff(&base, &new);
        let patch = to_unified(&path, &base, &hunks, n_context);
        let files = parse(patch.as_bytes()).expect("our own patch");
        if base == new {
            prop_assert!(files.is_empty());
        } else {
            prop_assert_eq!(files.len(), 1);
            prop_assert_eq!(files[0].new_path.as_deref(), Some(path.as_str()));
            prop_assert_eq!(&files[0].hunks, &hunks);
            prop_assert_eq!(files[0].apply(&base), Ok(new));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), almost_patch()],
    ) {
        let n_lines = bytes.split_inclusive(|&byte| byte == b'\n').count();
        match parse(&bytes) {
            Ok(files) => for file in files {
                for hunk in &file.hunks {
                    prop_assert!(hunk.base_lines.len() + hunk.new_lines.len() <= n_lines);
                }
                // A patch of an unknown text either applies or is refused.
                let _ = file.apply("a\nc\n");
            },
            Err(Error::Patch { line, .. }) => prop_assert!((1..=n_lines.max(1)).contains(&line)),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_damaged_patch_is_read_or_refused(
        base in any_text(), new in any_text(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut patch = to_unified("f", &base, &diff(&base, &new), 2).into_bytes();
        if !patch.is_empty() {
            let at = at.index(patch.len());
            patch[at] = byte;
            let _ = parse(&patch);
            patch.truncate(at);
            let _ = parse(&patch);
        }
    }
}

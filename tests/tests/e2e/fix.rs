//! `agent fix` on the examples: the real model mends them, and a human's accepting makes the test pass.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Home, git, root, run, text, users_state};
use serde_json::Value;

/// Runs the fix and returns the last JSON line.
fn fix(home: &Home, repo: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let output = run(home.agent().arg("fix").arg(repo).arg("--json").args(args));
    let stdout = text(&output.stdout);
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "run.completed");
    (output.status.code(), last)
}

fn test_passes(repo: &Path, command: &str) -> bool {
    Command::new("sh").args(["-c", command]).current_dir(repo).output().unwrap().status.success()
}

/// Returns whether a process has this command line.
fn is_running(command_line: &[u8]) -> bool {
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .any(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == command_line))
}

fn is_mended(name: &str, test_command: &str) {
    let home = Home::new();
    let repo = home.example(name);
    assert!(!test_passes(&repo, test_command), "the example has no bug");
    git(&repo, &["clean", "-qfdx"]);
    let before = users_state(&repo);
    let (exit, last) = fix(&home, &repo, &[]);
    assert_eq!((exit, last["status"].as_str()), (Some(0), Some("proposed")));
    assert_eq!(users_state(&repo), before, "I-4: nothing of the user's is written before a human accepts");

    let id = last["proposal"]["id"].as_str().unwrap();
    let shown = run(home.agent().args(["proposals", "show", id, "--dir"]).arg(&repo));
    assert!(text(&shown.stdout).contains("@@"));
    let accepted = run(home.agent().args(["proposals", "accept", id, "--dir"]).arg(&repo));
    assert!(accepted.status.success());
    assert!(test_passes(&repo, test_command), "the accepted proposal does not make the test pass");
    assert_eq!(git(&repo, &["diff", "--numstat"]).lines().count(), 1, "one file changes");
    git(&repo, &["fsck", "--strict"]);
}

#[test]
fn the_python_example_is_mended() {
    is_mended("median-py", "python3 -m unittest");
}

#[test]
fn the_rust_example_is_mended() {
    is_mended("intervals-rs", "cargo test");
}

#[test]
fn the_javascript_example_is_mended() {
    is_mended("paginate-js", "node --test");
}

#[test]
fn a_template_is_mended_in_a_copy_and_left_alone() {
    let home = Home::new();
    let template = root().join("examples/median-py");
    let before = users_state(&template);
    let output = run(home.agent().arg("fix").arg(&template));
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("is a template; working on a copy in"));
    assert!(text(&output.stdout).contains("@@"));
    assert_eq!(users_state(&template), before);
}

#[test]
fn each_way_a_run_can_end_has_its_exit_code() {
    let home = Home::new();
    let repo = home.example("median-py");
    let check = |args: &[&str], exit: i32, status: &str| {
        let (got, last) = fix(&home, &repo, args);
        assert_eq!((got, last["status"].as_str()), (Some(exit), Some(status)), "{args:?}");
    };
    check(&["--test", "true"], 3, "passes");
    check(&["--test", "exit 1", "--scope", "nothing/*"], 3, "no_fix");
    check(&["--test", "sleep 0.2; exit 1", "--budget-seconds", "3"], 5, "budget_spent");
    check(&["--test", "exit 1", "--scope", "["], 2, "error");
    check(&["--test", "no-such-command-anywhere"], 2, "error");
    // Fails once and never again: an edit that seems to mend it has not.
    check(&["--test", "test -e seen || { touch seen; exit 1; }"], 3, "flaky");

    let nowhere = home.path().join("nowhere");
    std::fs::create_dir_all(&nowhere).unwrap();
    let (exit, last) = fix(&home, &nowhere, &["--test", "false"]);
    assert_eq!(exit, Some(8), "{last}");
    assert!(last["hint"].as_str().unwrap().contains("git init"));
}

#[test]
fn ctrl_c_ends_the_run_and_its_test_and_leaves_nothing_behind() {
    let home = Home::new();
    let repo = home.example("median-py");
    let before = users_state(&repo);
    let mut fix = home.agent();
    fix.arg("fix").arg(&repo).args(["--json", "--test", "sleep 31415"]).stdout(Stdio::piped());
    let child = fix.spawn().unwrap();
    let is_sleeping = || is_running(b"sleep\x0031415\0");
    let started = Instant::now();
    while !is_sleeping() {
        assert!(started.elapsed() < Duration::from_secs(60), "the test command never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    // What a terminal does at Ctrl-C, but to `agent` alone: the test runs in a group of its own.
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let last: Value = serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["status"].as_str()), (Some("run.completed"), Some("cancelled")));
    assert!(!is_sleeping(), "the test command goes on");
    assert_eq!(std::fs::read_dir(home.path().join("cache/sandboxes")).unwrap().count(), 0);
    assert_eq!(users_state(&repo), before);
}

//! The test step: cargo-nextest when it is here, else `cargo test`; both with the doc tests.
//!
//! In: the built binary, the model, the editors' tools. Out: the runner's output as it comes, and its
//! closing lines to be said again at the end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use super::{Closing, cargo_command};
use crate::model;

/// Runs all tests of the workspace. On failure the runner's closing lines are part of the error.
pub fn run(root: &Path) -> Result<Closing, String> {
    let agent = model::agent_binary(root)?;
    let (model, fim_model) = (model::path(root)?, model::fim_path(root)?);
    let command = |args: &[&str]| {
        let mut command = cargo_command(root);
        command
            .args(args)
            .env("TANDEM_AGENT", &agent)
            .env("TANDEM_TEST_MODEL", &model)
            .env("TANDEM_TEST_FIM_MODEL", &fim_model)
            .env("TANDEM_TOOLS", root.join(".tools"));
        command
    };
    let closing = if has_nextest(root) {
        super::cargo(root, &["test", "--workspace", "--doc"])?;
        run_to_end(command(&["nextest", "run", "--workspace", "--no-fail-fast"]), nextest_closing)?
    } else {
        println!(
            "cargo-nextest is not here: falling back to cargo test (the same tests, one crate after another)"
        );
        run_to_end(command(&["test", "--workspace", "--no-fail-fast"]), cargo_test_closing)?
    };
    Ok(closing)
}

fn has_nextest(root: &Path) -> bool {
    let mut probe = cargo_command(root);
    probe.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Runs a command with its output passed through, and picks the closing lines from it.
fn run_to_end(command: Command, closing: fn(&[String]) -> Closing) -> Result<Closing, String> {
    let (status, lines) = pass_through(command)?;
    let closing = closing(&lines);
    if status.success() {
        return Ok(closing);
    }
    Err(format!("{status}\n{}", closing.join("\n")))
}

/// Runs a command, prints each line as it comes and returns all lines of both streams.
fn pass_through(mut command: Command) -> Result<(ExitStatus, Vec<String>), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run the tests: {error}"))?;
    let stderr = child.stderr.take();
    let stdout = child.stdout.take();
    let mut lines = Vec::new();
    thread::scope(|scope| {
        let from_stderr =
            scope.spawn(|| stderr.map_or_else(Vec::new, |stream| echo(stream, |line| eprintln!("{line}"))));
        lines = stdout.map_or_else(Vec::new, |stream| echo(stream, |line| println!("{line}")));
        lines.extend(from_stderr.join().unwrap_or_default());
    });
    let status = child.wait().map_err(|error| format!("lost the test runner: {error}"))?;
    Ok((status, lines))
}

fn echo(stream: impl Read, print: impl Fn(&str)) -> Vec<String> {
    let mut lines = Vec::new();
    // A test may print bytes that are no UTF-8; they must not end the reading.
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        print(&line);
        lines.push(line);
    }
    lines
}

/// Returns nextest's summary and what follows it: the list of failures.
fn nextest_closing(lines: &[String]) -> Closing {
    let start = lines.iter().rposition(|line| line.trim_start().starts_with("Summary ["));
    start.map_or_else(Closing::new, |start| lines[start..].to_vec())
}

/// Adds up the `test result:` lines of the crates, after the names of the failed tests.
fn cargo_test_closing(lines: &[String]) -> Closing {
    let mut closing: Closing = lines.iter().filter(|line| line.ends_with("... FAILED")).cloned().collect();
    let mut sums = [0_usize; 3];
    for line in lines.iter().filter(|line| line.starts_with("test result: ")) {
        for (sum, word) in sums.iter_mut().zip([" passed;", " failed;", " ignored;"]) {
            let before = line.split(word).next().unwrap_or_default();
            let number = before.rsplit([' ', '.']).next().unwrap_or_default();
            *sum += number.parse::<usize>().unwrap_or(0);
        }
    }
    let [passed, failed, ignored] = sums;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    closing.push(format!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored"));
    closing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_closing_lines_of_nextest_start_at_its_last_summary() {
        let said = lines(
            "        PASS [   0.1s] a b\n     Summary [   2.1s] 5 tests run: 4 passed, 1 failed, 0 skipped\n        FAIL [   0.2s] a c\nerror: test run failed",
        );
        assert_eq!(nextest_closing(&said), said[1..]);
        assert!(nextest_closing(&lines("error: could not compile")).is_empty());
    }

    #[test]
    fn the_results_of_cargo_test_are_added_up() {
        let said = lines(
            "test x::y ... FAILED\ntest result: FAILED. 10 passed; 1 failed; 0 ignored; 0 measured\n\
             test result: ok. 32 passed; 0 failed; 2 ignored; 0 measured",
        );
        assert_eq!(
            cargo_test_closing(&said),
            ["test x::y ... FAILED", "test result: FAILED. 42 passed; 1 failed; 2 ignored"]
        );
    }

    #[test]
    fn a_failing_runner_is_an_error_that_says_its_closing_lines() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "printf 'out\\377\\n'; echo '  Summary [ 1s] 1 test run: 1 failed' >&2; exit 100"]);
        let error = run_to_end(command, nextest_closing).expect_err("it exits with 100");
        assert!(error.contains("100") && error.contains("1 test run: 1 failed"), "{error}");
    }
}

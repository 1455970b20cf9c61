//! I-10: a run killed at any moment leaves the user's tree, index and HEAD as they were.

use std::time::{Duration, Instant};

use e2e::{Home, git, run, users_state};

#[test]
fn i_10_a_run_killed_at_any_moment_leaves_everything_as_it_was() {
    let home = Home::new();
    let repo = home.example("median-py");
    // A dirty tree must come through as it is, too.
    std::fs::write(repo.join("notes.txt"), "not committed\n").unwrap();
    let before = users_state(&repo);

    let fix = || {
        let mut command = home.agent();
        command.arg("fix").arg(&repo).arg("--json").stdout(std::process::Stdio::null());
        command
    };
    let started = Instant::now();
    assert_eq!(run(&mut fix()).status.code(), Some(0));
    let whole = started.elapsed();

    for nth in 0..20u32 {
        // Spread over the whole run, with a wobble so that the moments are not the same each time.
        let wobble = Duration::from_micros(u64::from(nth * 7919 % 4000));
        let moment = whole.mul_f64(f64::from(nth) / 20.0) + wobble;
        let mut child = fix().spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(users_state(&repo), before, "killed after {moment:?}");
        git(&repo, &["fsck", "--strict"]);
    }
    assert_eq!(run(&mut fix()).status.code(), Some(0), "the next run works");
    assert_eq!(users_state(&repo), before);
    let sandboxes = home.path().join("cache/sandboxes");
    assert_eq!(std::fs::read_dir(sandboxes).unwrap().count(), 0, "dead runs' sandboxes are swept");
}

//! Sandboxes of real repositories, and commands that try to leave them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use super::*;
use crate::fixture::{Fixture, odd_name};

const LONG: Duration = Duration::from_secs(60);

fn sandbox(fixture: &Fixture) -> Sandbox {
    Sandbox::create(&fixture.repo(), &fixture.beside("scratch")).expect("a sandbox")
}

fn path(path: &str) -> RepoPath {
    RepoPath::new(path).expect("a plain path")
}

fn run(sandbox: &mut Sandbox, command: &str) -> TestOutcome {
    sandbox.run(command, LONG, &CancelToken::new()).expect("the command ran")
}

#[test]
fn the_copy_is_the_work_tree_as_it_is() {
    let fixture = Fixture::new(&[(".gitignore", "*.log\n"), ("a.py", "1\n"), ("run.sh", "exit 0\n")]);
    fixture.write("a.py", b"\xef\xbb\xbfdirty\r\n");
    fixture.write("new/b.py", b"untracked\n");
    fixture.write("x.log", b"ignored\n");
    fixture.set_mode("run.sh", 0o755);
    std::fs::write(fixture.root().join(odd_name()), b"\xff").expect("an odd file");
    symlink("a.py", fixture.root().join("inside")).expect("a link");
    symlink("../../secret", fixture.root().join("outside")).expect("a link");
    let before = fixture.user_state();
    let mut sandbox = sandbox(&fixture);

    let output = run(&mut sandbox, "find . | LC_ALL=C sort; cat inside; ./run.sh && echo ran").output;
    let listing = output.split("\u{feff}dirty\r\n").collect::<Vec<_>>();
    assert_eq!(listing.len(), 2, "{output}");
    let names: Vec<&str> = listing[0].lines().collect();
    assert_eq!(
        names,
        [".", "./.gitignore", "./a.py", "./caf\u{fffd}.txt", "./inside", "./new", "./new/b.py", "./run.sh"]
    );
    assert_eq!(listing[1], "ran\n");
    let base: Vec<(&str, FileKind)> =
        sandbox.base().files.iter().map(|(path, file)| (path.as_str(), file.kind)).collect();
    let (regular, executable) = (FileKind::Regular, FileKind::Executable);
    assert_eq!(
        base,
        [(".gitignore", regular), ("a.py", regular), ("new/b.py", regular), ("run.sh", executable)]
    );
    assert_eq!(sandbox.base().files[&path("a.py")].blob, BlobId::of(b"\xef\xbb\xbfdirty\r\n"));
    drop(sandbox);
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn a_candidate_is_written_and_taken_back_and_the_user_sees_nothing() {
    let fixture = Fixture::new(&[("src/a.py", "old\n")]);
    fixture.set_mode("src/a.py", 0o755);
    let before = fixture.user_state();
    let mut sandbox = sandbox(&fixture);
    sandbox.write(&path("src/a.py"), b"new\n").expect("written");
    assert_eq!(run(&mut sandbox, "cat src/a.py; test -x src/a.py && echo x").output, "new\nx\n");
    sandbox.restore(&path("src/a.py")).expect("restored");
    assert_eq!(run(&mut sandbox, "cat src/a.py; ls -A src").output, "old\na.py\n");
    assert!(matches!(sandbox.write(&path("other"), b""), Err(Error::NotProposable { .. })));
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn the_base_is_known_whatever_a_command_did_to_the_copy() {
    let fixture = Fixture::new(&[("a", "old\n"), ("b", "old\n")]);
    let mut sandbox = sandbox(&fixture);
    assert_eq!(run(&mut sandbox, "echo spoilt > a; rm b").exit, Some(0));
    assert_eq!(sandbox.read_base(&path("a")).expect("from the user's tree"), b"old\n");
    fixture.write("b", b"the user goes on typing\n");
    assert!(matches!(sandbox.read_base(&path("b")), Err(Error::BaseLost { .. })));
}

#[test]
fn a_link_that_a_command_makes_is_not_written_through() {
    let fixture = Fixture::new(&[("src/a.py", "old\n")]);
    let before = fixture.user_state();
    let mut sandbox = sandbox(&fixture);
    let trap = format!("rm -r src && ln -s {}/src src", fixture.root().display());
    assert_eq!(run(&mut sandbox, &trap).exit, Some(0));
    assert!(matches!(sandbox.write(&path("src/a.py"), b"new\n"), Err(Error::Io { .. })));
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn a_command_runs_in_the_folder_asked_for_and_its_outcome_is_told() {
    let fixture = Fixture::new(&[("a/b/c", "1\n")]);
    let repo = Repo::open(&fixture.root().join("a")).expect("a repository");
    let mut sandbox = Sandbox::create(&repo, &fixture.beside("scratch")).expect("a sandbox");
    let outcome = run(&mut sandbox, "echo one; echo two >&2; echo three; cat; ls; exit 3");
    assert_eq!((outcome.exit, outcome.output.as_str()), (Some(3), "one\ntwo\nthree\nb\n"));
    assert!(!outcome.is_pass() && !outcome.timed_out && !outcome.cancelled);
    assert_eq!(run(&mut sandbox, "echo at $PWD/b/c:1").output, "at a/b/c:1\n");
    assert_eq!(run(&mut sandbox, "kill -9 $$").exit, None);
    assert!(run(&mut sandbox, "true").is_pass());
}

#[test]
fn git_in_a_sandbox_does_not_find_the_users_repository() {
    let fixture = Fixture::new(&[(".gitignore", "cache\n"), ("a", "1\n")]);
    // Inside the work tree is the worst place for a cache.
    let mut sandbox = Sandbox::create(&fixture.repo(), &fixture.root().join("cache")).expect("a sandbox");
    let outcome = run(&mut sandbox, "git rev-parse --show-toplevel");
    assert_eq!(outcome.exit, Some(128), "{}", outcome.output);
    fixture.write(".gitignore", b"");
    let sandbox =
        Sandbox::create(&fixture.repo(), &fixture.root().join("cache")).expect("not copied into itself");
    assert!(!sandbox.tree().join("cache").exists());
}

#[test]
fn a_command_gets_named_variables_only() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let sandbox = sandbox(&fixture);
    let own = fixture.root().join("lib");
    let python_path = std::env::join_paths([own.as_path(), Path::new("/opt/py")]).expect("a list");
    let ours: [(&str, &std::ffi::OsStr); 6] = [
        ("PATH", "/bin".as_ref()),
        ("SECRET_TOKEN", "x".as_ref()),
        ("GIT_DIR", "/elsewhere".as_ref()),
        ("PYENV_ROOT", "/pyenv".as_ref()),
        ("TMPDIR", "/tmp".as_ref()),
        ("PYTHONPATH", &python_path),
    ];
    let env: BTreeMap<_, _> = environment::environment(
        &sandbox,
        ours.iter().map(|(name, value)| ((*name).into(), (*value).into())),
    )
    .into_iter()
    .collect();
    let get = |name: &str| env.get(std::ffi::OsStr::new(name)).map(|value| value.to_str().expect("text"));
    assert_eq!(get("PATH"), Some("/bin"));
    assert_eq!(get("PYENV_ROOT"), Some("/pyenv"));
    assert_eq!((get("SECRET_TOKEN"), get("GIT_DIR")), (None, None));
    assert_eq!(get("TMPDIR"), sandbox.temp_dir().to_str());
    let moved = std::env::join_paths([&sandbox.tree().join("lib"), Path::new("/opt/py")]).expect("a list");
    assert_eq!(get("PYTHONPATH"), moved.to_str());
}

/// A command that leaves two processes, one in a session of its own, which would write after a second.
fn leaves_processes(fixture: &Fixture) -> String {
    let mark = fixture.beside("escaped");
    let mark = mark.display();
    format!("(sleep 1; touch {mark}) & setsid sh -c 'sleep 1; touch {mark}' & sleep 0.2; echo started;")
}

fn nothing_escaped(fixture: &Fixture) {
    std::thread::sleep(Duration::from_millis(1300));
    assert!(!fixture.beside("escaped").exists(), "a process went on after the run");
}

#[test]
fn a_time_out_kills_grandchildren_too() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let mut sandbox = sandbox(&fixture);
    let started = Instant::now();
    let command = format!("{} sleep 60", leaves_processes(&fixture));
    let outcome = sandbox.run(&command, Duration::from_millis(500), &CancelToken::new()).expect("it ran");
    assert_eq!((outcome.timed_out, outcome.exit, outcome.output.as_str()), (true, None, "started\n"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    nothing_escaped(&fixture);
}

#[test]
fn a_command_that_ends_leaves_nothing_running() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let mut sandbox = sandbox(&fixture);
    assert!(run(&mut sandbox, &leaves_processes(&fixture)).is_pass());
    nothing_escaped(&fixture);
}

#[test]
fn a_cancel_ends_the_command() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let mut sandbox = sandbox(&fixture);
    let cancel = CancelToken::new();
    let other = cancel.clone();
    let started = Instant::now();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        other.cancel();
    });
    let outcome = sandbox.run("sleep 60", LONG, &cancel).expect("it ran");
    canceller.join().expect("the thread ends");
    assert_eq!((outcome.cancelled, outcome.timed_out, outcome.exit), (true, false, None));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_dropped_sandbox_is_gone_even_where_a_command_took_rights_away() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let mut sandbox = sandbox(&fixture);
    run(&mut sandbox, "mkdir -p locked/in && touch locked/in/x && chmod 500 locked/in locked");
    let folder = sandbox.folder.clone();
    assert!(folder.exists());
    drop(sandbox);
    assert!(!folder.exists());
}

#[test]
fn a_sweep_removes_dead_sandboxes_only() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let scratch = fixture.beside("scratch");
    let alive = sandbox(&fixture);
    let dead = scratch.join("4711-1");
    fs::create_dir_all(dead.join("tree/x")).expect("a dead sandbox");
    fs::write(dead.join("lock"), "").expect("its lock, which nobody holds");
    let making = scratch.join("4711-2");
    fs::create_dir(&making).expect("a sandbox that is being made");
    let foreign = scratch.join("photos");
    fs::create_dir(&foreign).expect("something of the user's");
    fs::write(foreign.join("lock"), "").expect("with a file called lock");
    fs::set_permissions(dead.join("tree/x"), fs::Permissions::from_mode(0o000)).expect("a mode");

    assert_eq!(sweep(&scratch), 1);
    assert!(!dead.exists());
    assert!(alive.tree().exists() && making.exists() && foreign.exists());
}

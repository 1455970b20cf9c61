//! What the end-to-end tests share: the real binary, the real model, repositories made for one test.
//!
//! In: `TANDEM_AGENT` and `TANDEM_TEST_MODEL`, which `cargo xtask ci` sets. Out: commands and folders.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Returns the workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the binary under test.
pub fn agent_path() -> PathBuf {
    std::env::var_os("TANDEM_AGENT").map(PathBuf::from).expect("set TANDEM_AGENT, or run `cargo xtask ci`")
}

/// Returns the default model's file.
pub fn model_path() -> PathBuf {
    std::env::var_os("TANDEM_TEST_MODEL")
        .map(PathBuf::from)
        .expect("set TANDEM_TEST_MODEL to what `cargo xtask model` prints, or run `cargo xtask ci`")
}

/// A home, caches and settings for one test.
pub struct Home(TempDir);

impl Home {
    /// Returns an empty one.
    #[expect(clippy::new_without_default, reason = "it makes folders")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns `agent` with the real model and nothing else of the user's.
    pub fn agent(&self) -> Command {
        let mut command = Command::new(agent_path());
        command.env_clear().env("GIT_CONFIG_GLOBAL", "/dev/null");
        // HOME is where rustup and pyenv find their tools; Tandem's own folders are set below.
        for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, folder) in
            [("TANDEM_CACHE_DIR", "cache"), ("TANDEM_DATA_DIR", "data"), ("TANDEM_CONFIG_DIR", "config")]
        {
            command.env(name, self.0.path().join(folder));
        }
        // A test that is about the shared engine takes this away; the others would leave a server each behind.
        command.env("TANDEM_IN_PROCESS", "1");
        command.env("TANDEM_MODEL", model_path()).env("TMPDIR", self.0.path()).stdin(Stdio::null());
        command
    }

    /// Returns a repository of its own made from one of `examples/`.
    pub fn example(&self, name: &str) -> PathBuf {
        let to = self.0.path().join("repos").join(name);
        copy_folder(&root().join("examples").join(name), &to);
        git(&to, &["init", "-q"]);
        git(&to, &["add", "-A"]);
        git(&to, &["-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-qm", "Start"]);
        to
    }

    /// Returns its folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "target" || name == "__pycache__" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(name));
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// Runs git and returns what it printed.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(dir).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command, prints what it said, and returns it.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    println!("$ {command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

/// Returns everything of the user's: every file of the work tree, the index, HEAD and the branches.
pub fn users_state(repo: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut state = BTreeMap::new();
    collect(repo, repo, &mut state);
    state
}

fn collect(root: &Path, dir: &Path, state: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let is_git = relative.starts_with(".git");
        let is_users = ["index", "HEAD", "refs/heads", "packed-refs", "config"]
            .iter()
            .any(|name| relative.starts_with(Path::new(".git").join(name)));
        if path.is_dir() {
            if !is_git || relative == Path::new(".git") || relative.starts_with(".git/refs") {
                collect(root, &path, state);
            }
        } else if !is_git || is_users {
            state.insert(relative, std::fs::read(&path).unwrap());
        }
    }
}

//! Real repositories in temporary folders, for tests.
//!
//! Out: repositories made by libgit2; answers of the `git` program, to check ours against.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use git2::{IndexAddOption, Repository, RepositoryInitOptions, Signature};

use crate::evidence::{Evidence, TestOutcome};
use crate::proposal::{Draft, FileChange, Model, Proposal, Task, create};
use crate::repo::{FileKind, Repo, RepoPath};

/// A temporary folder with a repository in `work` and room beside it.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

/// All of the user's that a run must leave alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserState {
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    index: Vec<u8>,
    head: Vec<u8>,
    branches: String,
}

impl Fixture {
    /// Returns a repository whose one commit has these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self { dir: tempfile::tempdir().expect("a folder") };
        let mut options = RepositoryInitOptions::new();
        options.initial_head("main");
        Repository::init_opts(fixture.root(), &options).expect("a repository");
        for (path, text) in files {
            fixture.write(path, text.as_bytes());
        }
        fixture.commit();
        fixture
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("the folder is there").join("work")
    }

    /// Returns a folder beside the work tree.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("the folder is there").join(name)
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a path in the folder")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8(fs::read(self.root().join(path)).expect("a file")).expect("text")
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.root().join(path)).expect("a file").permissions().mode() & 0o7777
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.root().join(path), fs::Permissions::from_mode(mode)).expect("a mode");
    }

    pub(crate) fn commit(&self) {
        let git = Repository::open(self.root()).expect("the repository");
        let mut index = git.index().expect("an index");
        index.add_all(["*"], IndexAddOption::DEFAULT, None).expect("files added");
        index.write().expect("the index written");
        let tree_id = index.write_tree().expect("a tree");
        let tree = git.find_tree(tree_id).expect("a tree");
        let author = Signature::now("Test", "test@localhost").expect("a name");
        let parent = git.head().ok().and_then(|head| head.peel_to_commit().ok());
        let parents: Vec<_> = parent.iter().collect();
        git.commit(Some("HEAD"), &author, &author, "state\n", &tree, &parents).expect("a commit");
    }

    pub(crate) fn repo(&self) -> Repo {
        Repo::open(&self.root()).expect("a fit repository")
    }

    /// Runs the `git` program and returns what it prints; it must succeed.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        git_in(&self.root(), args)
    }

    /// Stores a proposal that makes these files of those there are.
    pub(crate) fn propose(&self, files: &[(&str, &str)]) -> Proposal {
        let changes = files.iter().map(|(path, new)| {
            let base = fs::read(self.root().join(path)).expect("a base file");
            let path = RepoPath::new(path).expect("a plain path");
            FileChange::new(path, FileKind::Regular, &base, new.as_bytes()).expect("a change")
        });
        create(&self.repo(), draft(changes.collect())).expect("a proposal")
    }

    pub(crate) fn user_state(&self) -> UserState {
        let mut files = BTreeMap::new();
        collect(&self.root(), &mut files);
        let git_dir = self.root().join(".git");
        UserState {
            files,
            index: fs::read(git_dir.join("index")).expect("an index"),
            head: fs::read(git_dir.join("HEAD")).expect("a HEAD"),
            branches: self.git(&["for-each-ref", "refs/heads", "refs/tags", "refs/stash"]),
        }
    }
}

pub(crate) fn git_in(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .expect("the git program, to check against");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text from git")
}

pub(crate) fn draft(files: Vec<FileChange>) -> Draft {
    let outcome = |exit, output: &str| TestOutcome {
        exit: Some(exit),
        timed_out: false,
        cancelled: false,
        duration_ms: 12,
        output: output.to_owned(),
    };
    Draft {
        task: Task { words: None, test_command: "make test".to_owned() },
        head: "0".repeat(40),
        files,
        evidence: Evidence { before: outcome(1, "1 failed\n"), after: outcome(0, "1 passed\n") },
        model: Model::Local { name: "tiny".to_owned(), sha256: "ab".repeat(32) },
        seed: 7,
        engine_version: "0.1.0".to_owned(),
    }
}

/// Returns a file name that is no UTF-8.
pub(crate) fn odd_name() -> OsString {
    OsString::from_vec(b"caf\xe9.txt".to_vec())
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name == ".git") {
            continue;
        }
        let meta = path.symlink_metadata().expect("it is there");
        let mode = meta.permissions().mode();
        if meta.is_symlink() {
            files.insert(
                path.clone(),
                (mode, fs::read_link(&path).expect("a link").into_os_string().into_vec()),
            );
        } else if meta.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path.clone(), (mode, fs::read(&path).expect("a file")));
        }
    }
}

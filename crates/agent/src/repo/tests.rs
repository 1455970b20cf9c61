//! Real repositories in every state.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::{fs, time};

use super::*;
use crate::fixture::{Fixture, git_in, odd_name};

fn listed(fixture: &Fixture) -> Vec<PathBuf> {
    fixture.repo().list_files().expect("a list")
}

fn names(fixture: &Fixture) -> Vec<String> {
    listed(fixture).iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

fn state_error(dir: &Path) -> String {
    match Repo::open(dir).err() {
        Some(Error::RepositoryState { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_in_no_repository_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(matches!(Repo::open(dir.path()), Err(Error::NotARepository { .. })));
    assert!(matches!(Repo::open(&dir.path().join("missing")), Err(Error::Io { .. })));
}

#[test]
fn a_repository_without_a_commit_or_a_work_tree_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    Repository::init(dir.path()).expect("a repository");
    assert!(state_error(dir.path()).contains("no commit yet"));
    Repo::open_for_review(dir.path()).expect("proposals can be looked at without a commit");

    let bare = tempfile::tempdir().expect("a folder");
    Repository::init_bare(bare.path()).expect("a repository");
    assert!(state_error(bare.path()).contains("bare"));
}

#[test]
fn a_repository_in_the_middle_of_something_is_refused() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let git_dir = fixture.root().join(".git");
    let head = fixture.git(&["rev-parse", "HEAD"]);
    for (file, word) in
        [("MERGE_HEAD", "merge"), ("CHERRY_PICK_HEAD", "cherry-pick"), ("REVERT_HEAD", "revert")]
    {
        fs::write(git_dir.join(file), &head).expect("a state file");
        assert!(state_error(&fixture.root()).contains(word), "{word}");
        fs::remove_file(git_dir.join(file)).expect("removed");
    }
    fs::create_dir(git_dir.join("rebase-merge")).expect("a state folder");
    assert!(state_error(&fixture.root()).contains("rebase"));
    Repo::open_for_review(&fixture.root()).expect("proposals can be looked at during a rebase");
    fs::remove_dir(git_dir.join("rebase-merge")).expect("removed");
    Repo::open(&fixture.root()).expect("fit again");
}

#[test]
fn the_git_directory_itself_is_no_place_to_work() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    assert!(state_error(&fixture.root().join(".git/refs")).contains("not in the work tree"));
}

#[test]
fn a_folder_that_its_repository_ignores_is_refused() {
    let fixture = Fixture::new(&[(".gitignore", "out/\n"), ("a", "1\n")]);
    fixture.write("out/project/x.py", b"x = 1\n");
    assert!(state_error(&fixture.root().join("out/project")).contains("ignored"));
    fixture.git(&["add", "-f", "out/project/x.py"]);
    Repo::open(&fixture.root().join("out/project")).expect("tracked all the same");
}

#[test]
fn a_folder_below_the_root_is_remembered() {
    let fixture = Fixture::new(&[("a/b/c", "1\n")]);
    let repo = Repo::open(&fixture.root().join("a/b")).expect("a repository above");
    assert_eq!((repo.root(), repo.prefix()), (fixture.root().as_path(), Path::new("a/b")));
}

#[test]
fn a_detached_head_and_a_linked_work_tree_are_fit() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    fixture.git(&["checkout", "-q", "--detach"]);
    assert_eq!(fixture.repo().head().expect("a commit"), fixture.git(&["rev-parse", "HEAD"]).trim());

    let other = fixture.beside("other");
    fixture.git(&["worktree", "add", "-q", other.to_str().expect("a path")]);
    let repo = Repo::open(&other).expect("a linked work tree");
    assert_eq!(repo.root(), other);
    assert_eq!(repo.list_files().expect("a list"), [PathBuf::from("a")]);
}

#[test]
fn the_list_is_what_the_user_sees() {
    let fixture =
        Fixture::new(&[(".gitignore", "*.log\n/out\n"), ("kept", "1\n"), ("gone", "1\n"), ("dir/x", "1\n")]);
    fixture.write("kept", b"changed\n");
    fixture.write("new/deep/file", b"untracked\n");
    fixture.write("a.log", b"ignored\n");
    fixture.write("out/big", b"ignored\n");
    fs::remove_file(fixture.root().join("gone")).expect("removed");
    fs::write(fixture.root().join(odd_name()), "x").expect("a file with an odd name");
    symlink("kept", fixture.root().join("link")).expect("a link");
    Repository::init(fixture.root().join("nested")).expect("a nested repository");
    fixture.write("nested/file", b"not ours\n");

    let mut expect = vec![
        PathBuf::from(".gitignore"),
        PathBuf::from(odd_name()),
        PathBuf::from("dir/x"),
        PathBuf::from("kept"),
        PathBuf::from("link"),
        PathBuf::from("new/deep/file"),
    ];
    expect.sort();
    assert_eq!(listed(&fixture), expect);
}

#[test]
fn a_tracked_file_behind_a_link_is_not_listed() {
    let fixture = Fixture::new(&[("dir/x", "1\n")]);
    let outside = fixture.beside("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("x"), "secret").expect("a file");
    fs::remove_dir_all(fixture.root().join("dir")).expect("removed");
    symlink(&outside, fixture.root().join("dir")).expect("a link in the folder's place");
    assert_eq!(names(&fixture), ["dir"]);
}

#[test]
fn a_submodule_is_left_out_and_is_a_repository_of_its_own() {
    let library = Fixture::new(&[("lib.py", "1\n")]);
    let fixture = Fixture::new(&[("a", "1\n")]);
    fixture.git(&["submodule", "add", "-q", library.root().to_str().expect("a path"), "vendor"]);
    fixture.git(&["commit", "-qm", "submodule"]);
    assert_eq!(names(&fixture), [".gitmodules", "a"]);
    let inner = Repo::open(&fixture.root().join("vendor")).expect("the submodule");
    assert_eq!(inner.list_files().expect("a list"), [PathBuf::from("lib.py")]);
    assert_eq!(git_in(inner.root(), &["status", "--porcelain"]), "");
}

#[test]
fn listing_leaves_the_index_as_it_is() {
    let fixture = Fixture::new(&[("a", "1\n"), ("b", "1\n")]);
    // A touched file is what makes git refresh its index.
    let touched = fs::File::options().write(true).open(fixture.root().join("a")).expect("a file");
    touched
        .set_modified(time::SystemTime::UNIX_EPOCH + time::Duration::from_secs(1_700_000_000))
        .expect("a time");
    fixture.write("b", b"2\n");
    let before = fixture.user_state();
    assert_eq!(names(&fixture), ["a", "b"]);
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn blob_ids_are_those_of_git() {
    let fixture = Fixture::new(&[("a", "1\r\n")]);
    assert_eq!(BlobId::of(b"1\r\n").to_string(), fixture.git(&["hash-object", "--no-filters", "a"]).trim());
}

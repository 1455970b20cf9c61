//! Links, pipes and sockets where files should be.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::*;

/// Returns a folder `root` with a file `a/b/file`, and a folder `outside` with a file `file` beside it.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for folder in ["root/a/b", "outside"] {
        fs::create_dir_all(dir.path().join(folder)).expect("a folder");
    }
    fs::write(dir.path().join("root/a/b/file"), "inside").expect("a file");
    fs::write(dir.path().join("outside/file"), "outside").expect("a file");
    dir
}

fn holding(dir: &tempfile::TempDir, path: &str) -> io::Result<Folder> {
    let path = RepoPath::new(path).expect("a plain path");
    Folder::holding(&dir.path().join("root"), &path)
}

/// Returns these mode bits for a file of ours.
fn rights(dir: &tempfile::TempDir, mode: u32) -> Rights {
    let meta = dir.path().metadata().expect("a folder");
    Rights { mode, uid: meta.uid(), gid: meta.gid() }
}

#[test]
fn a_file_is_read_with_its_rights() {
    let dir = tree();
    let place = dir.path().join("root/a/b/file");
    for mode in [0o644, 0o755, 0o600, 0o4755] {
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("a mode");
        let folder = holding(&dir, "a/b/file").expect("it is there");
        let (bytes, rights) = folder.read("file").expect("read").expect("a file");
        assert_eq!((bytes.as_slice(), rights.mode), (&b"inside"[..], mode));
    }
}

#[test]
fn a_link_in_any_component_is_refused() {
    for (component, below) in [("a", "b"), ("a/b", "")] {
        let dir = tree();
        let root = dir.path().join("root");
        fs::create_dir_all(dir.path().join("outside").join(below)).expect("a folder");
        fs::remove_dir_all(root.join(component)).expect("removed");
        symlink(dir.path().join("outside"), root.join(component)).expect("a link");
        let error = holding(&dir, "a/b/file").err().expect("a link");
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{component}");
    }
}

#[test]
fn a_component_that_is_missing_or_a_file_is_told_apart() {
    let dir = tree();
    for (path, kind) in
        [("missing/file", io::ErrorKind::NotFound), ("a/b/file/x", io::ErrorKind::NotADirectory)]
    {
        assert_eq!(holding(&dir, path).err().expect(path).kind(), kind);
    }
    let folder = holding(&dir, "a/b/missing").expect("the folder is there");
    let error = folder.read("missing").expect_err("no file");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_is_no_regular_file_is_not_read() {
    let dir = tree();
    let place = |name: &str| dir.path().join("root/a/b").join(name);
    symlink(dir.path().join("outside/file"), place("link")).expect("a link");
    symlink("missing", place("dangling")).expect("a link");
    fs::create_dir(place("folder")).expect("a folder");
    let status = Command::new("mkfifo").arg(place("fifo")).status().expect("mkfifo");
    assert!(status.success());
    let _socket = UnixListener::bind(place("socket")).expect("a socket");
    let folder = holding(&dir, "a/b/file").expect("it is there");
    // A FIFO that nobody writes to must not make the reader wait.
    for name in ["link", "dangling", "folder", "fifo", "socket"] {
        assert_eq!(folder.read(name).expect(name), None, "{name}");
    }
}

#[test]
fn a_new_file_has_the_mode_it_is_given() {
    let dir = tree();
    let folder = holding(&dir, "a/b/file").expect("it is there");
    for mode in [0o644, 0o777, 0o400, 0o2755] {
        let name = format!("new-{mode:o}");
        folder.create(&name, b"bytes", rights(&dir, mode)).expect("created");
        let (bytes, found) = folder.read(&name).expect("read").expect("a file");
        assert_eq!((bytes.as_slice(), found.mode), (&b"bytes"[..], mode));
    }
}

#[test]
fn a_name_that_is_taken_is_not_written_over() {
    let dir = tree();
    let outside = dir.path().join("outside/file");
    symlink(&outside, dir.path().join("root/a/b/link")).expect("a link");
    symlink(dir.path().join("outside/new"), dir.path().join("root/a/b/dangling")).expect("a link");
    let folder = holding(&dir, "a/b/file").expect("it is there");
    for name in ["file", "link", "dangling"] {
        let error = folder.create(name, b"x", rights(&dir, 0o644)).expect_err("the name is taken");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
    }
    assert_eq!(fs::read(&outside).expect("a file"), b"outside");
    assert!(!dir.path().join("outside/new").exists());
    let (bytes, _) = folder.read("file").expect("read").expect("a file");
    assert_eq!(bytes, b"inside");
}

#[test]
fn a_rename_replaces_the_file_and_brings_its_mode() {
    let dir = tree();
    let folder = holding(&dir, "a/b/file").expect("it is there");
    folder.create("temp", b"new", rights(&dir, 0o750)).expect("created");
    folder.rename("temp", "file").expect("renamed");
    folder.sync().expect("synced");
    let (bytes, found) = folder.read("file").expect("read").expect("a file");
    assert_eq!((bytes.as_slice(), found.mode), (&b"new"[..], 0o750));
    let error = folder.read("temp").expect_err("it is gone");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_rename_onto_a_link_replaces_the_link() {
    let dir = tree();
    let outside = dir.path().join("outside/file");
    symlink(&outside, dir.path().join("root/a/b/link")).expect("a link");
    let folder = holding(&dir, "a/b/file").expect("it is there");
    folder.create("temp", b"new", rights(&dir, 0o644)).expect("created");
    folder.rename("temp", "link").expect("renamed");
    assert_eq!(fs::read(&outside).expect("a file"), b"outside");
}

#[test]
fn removing_takes_a_file_or_a_link_and_no_folder() {
    let dir = tree();
    let outside = dir.path().join("outside/file");
    let place = dir.path().join("root/a/b");
    symlink(&outside, place.join("link")).expect("a link");
    fs::create_dir(place.join("folder")).expect("a folder");
    let folder = holding(&dir, "a/b/file").expect("it is there");
    for name in ["file", "link", "missing", "folder"] {
        folder.remove(name).expect(name);
    }
    let left: Vec<_> =
        fs::read_dir(&place).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["folder"]);
    assert!(outside.exists());
}

#[test]
fn a_folder_swapped_for_a_link_after_it_was_opened_is_still_the_one_written_to() {
    let dir = tree();
    let root = dir.path().join("root");
    let folder = holding(&dir, "a/b/file").expect("it is there");
    fs::rename(root.join("a"), root.join("moved")).expect("moved");
    fs::create_dir(dir.path().join("outside/b")).expect("a folder");
    symlink(dir.path().join("outside"), root.join("a")).expect("a link");
    folder.create("new", b"x", rights(&dir, 0o644)).expect("created");
    assert!(root.join("moved/b/new").exists());
    assert!(!dir.path().join("outside/b/new").exists());
}

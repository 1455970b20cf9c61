//! Decisions carried out in real work trees, and everything that can stand in their way.

use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use text::Hunk;

use super::*;
use crate::fixture::{Fixture, draft};
use crate::proposal::{FileChange, ReviewHunk, State};
use crate::repo::FileKind;

const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
/// [`TEN`] with two hunks.
const TEN_NEW: &str = "1\nzwei\n3\n4\n5\n6\n7\n8\nneun\n10\n";

fn decide_each(
    fixture: &Fixture,
    proposal: &Proposal,
    numbers: &[usize],
    decision: &Decision,
) -> Result<Accepted, Error> {
    let decisions = numbers.iter().map(|&number| (number, decision.clone())).collect();
    decide(&fixture.repo(), &proposal.id, &decisions)
}

fn accept(fixture: &Fixture, proposal: &Proposal, numbers: &[usize]) -> Result<Accepted, Error> {
    decide_each(fixture, proposal, numbers, &Decision::Accept)
}

fn paths(paths: &[RepoPath]) -> Vec<&str> {
    paths.iter().map(RepoPath::as_str).collect()
}

/// Checks that accepting fails and changes nothing, the stored proposal included, and returns the error.
#[track_caller]
fn refused(fixture: &Fixture, proposal: &Proposal, numbers: &[usize]) -> Error {
    let before = fixture.user_state();
    let error = accept(fixture, proposal, numbers).expect_err("it is refused");
    assert_eq!(fixture.user_state(), before);
    let stored = proposal::load(&fixture.repo(), &proposal.id).expect("it is there");
    assert_eq!(stored.revision, proposal.revision, "nothing is recorded");
    assert!(!journal::exists(&fixture.repo()), "the journal is cleared");
    error
}

#[track_caller]
fn conflicts(error: Error) -> Vec<(String, usize, Option<usize>)> {
    match error {
        Error::Conflict { conflicts } => {
            conflicts.into_iter().map(|at| (at.path.to_string(), at.hunk, at.line)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Returns a repository where `a` has two hunks and `dir/b` one.
fn two_files() -> (Fixture, Proposal) {
    let fixture = Fixture::new(&[("a", TEN), ("dir/b", "old\n"), ("other", "x\n")]);
    let proposal = fixture.propose(&[("a", TEN_NEW), ("dir/b", "new\n")]);
    (fixture, proposal)
}

#[test]
fn all_hunks_are_written_and_recorded() {
    let (fixture, proposal) = two_files();
    let done = accept(&fixture, &proposal, &[1, 2, 3]).expect("it fits");
    assert_eq!(fixture.read("a"), TEN_NEW);
    assert_eq!(fixture.read("dir/b"), "new\n");
    assert_eq!(paths(&done.written), ["a", "dir/b"]);
    assert_eq!(paths(&done.rebased), [""; 0]);
    assert_eq!(done.proposal.state(), State::Accepted);
    let stored = proposal::load(&fixture.repo(), &proposal.id).expect("it is there");
    assert_eq!(stored, done.proposal);
}

#[test]
fn i_4_only_the_accepted_hunk_is_written() {
    let (fixture, proposal) = two_files();
    let before = fixture.user_state();
    let done = accept(&fixture, &proposal, &[2]).expect("it fits");
    assert_eq!(paths(&done.written), ["a"]);
    assert_eq!(fixture.read("a"), TEN.replace('9', "neun"));
    assert_eq!(done.proposal.state(), State::Pending);
    fixture.write("a", TEN.as_bytes());
    assert_eq!(fixture.user_state(), before, "nothing else has changed");
}

#[test]
fn the_other_hunks_can_be_accepted_later() {
    let (fixture, proposal) = two_files();
    accept(&fixture, &proposal, &[1]).expect("it fits");
    let done = accept(&fixture, &proposal, &[2]).expect("it fits");
    assert_eq!(fixture.read("a"), TEN_NEW);
    assert_eq!(fixture.read("dir/b"), "old\n");
    assert_eq!(paths(&done.rebased), [""; 0], "the user has changed nothing");
    let done = accept(&fixture, &proposal, &[3]).expect("it fits");
    assert_eq!(fixture.read("dir/b"), "new\n");
    assert_eq!(done.proposal.state(), State::Accepted);
}

#[test]
fn hunks_one_line_apart_can_be_accepted_one_by_one_in_any_order() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]] {
        let fixture = Fixture::new(&[("a", "1\n2\n3\n4\n5\n")]);
        let proposal = fixture.propose(&[("a", "0\n1\n2\n4\nfünf\n6")]);
        assert_eq!(proposal.hunks().count(), 3);
        for number in order {
            accept(&fixture, &proposal, &[number]).expect("it fits");
        }
        assert_eq!(fixture.read("a"), "0\n1\n2\n4\nfünf\n6", "{order:?}");
    }
}

#[test]
fn a_line_that_an_earlier_accept_took_from_equal_ones_is_no_change_of_the_users() {
    let base = "0\nb\nx\nx\nx\na\n";
    let hunk = |base_start, base_lines: &[&str], new_lines: &[&str]| Hunk {
        base_start,
        base_lines: base_lines.iter().map(|&line| line.to_owned()).collect(),
        new_lines: new_lines.iter().map(|&line| line.to_owned()).collect(),
    };
    // Which x went cannot be seen in the file, and the first one is next to hunk 2.
    let hunks = [hunk(0, &[], &["new\n", "new\n"]), hunk(1, &["b\n"], &["B\n"]), hunk(4, &["x\n"], &[])];
    for order in [[3, 2, 1], [3, 1, 2], [1, 3, 2], [1, 2, 3]] {
        let fixture = Fixture::new(&[("a", base)]);
        let change = FileChange {
            path: RepoPath::new("a").expect("a plain path"),
            kind: FileKind::Regular,
            base_text: base.to_owned(),
            hunks: hunks.iter().map(|hunk| ReviewHunk { hunk: hunk.clone(), decision: None }).collect(),
        };
        let proposal = proposal::create(&fixture.repo(), draft(vec![change])).expect("stored");
        for number in order {
            let done = accept(&fixture, &proposal, &[number]).expect("it fits");
            assert_eq!(paths(&done.rebased), [""; 0], "{order:?}");
        }
        assert_eq!(fixture.read("a"), "new\nnew\n0\nB\nx\nx\na\n", "{order:?}");
    }
}

#[test]
fn i_4_accept_touches_neither_index_nor_head() {
    let (fixture, proposal) = two_files();
    fixture.write("other", b"staged\n");
    fixture.git(&["add", "other"]);
    fixture.write("other", b"and changed again\n");
    let before = fixture.user_state();
    accept(&fixture, &proposal, &[1, 2, 3]).expect("it fits");
    // With the two files as they were all is as it was: no temporary file, the same index.
    fixture.write("a", TEN.as_bytes());
    fixture.write("dir/b", b"old\n");
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn i_4_a_rejected_hunk_is_recorded_and_not_written() {
    let (fixture, proposal) = two_files();
    let before = fixture.user_state();
    let reason = Some("not this way".to_owned());
    let decision = Decision::Reject { reason };
    let done = decide_each(&fixture, &proposal, &[1, 2], &decision).expect("it needs no file");
    assert!(done.written.is_empty());
    assert_eq!(fixture.user_state(), before);
    let stored = proposal::load(&fixture.repo(), &proposal.id).expect("it is there");
    assert_eq!(stored.draft.files[0].hunks[1].decision, Some(decision));
    assert_eq!(stored.draft.files[1].hunks[0].decision, None);

    accept(&fixture, &proposal, &[3]).expect("it fits");
    assert_eq!(fixture.read("a"), TEN);
    let stored = proposal::load(&fixture.repo(), &proposal.id).expect("it is there");
    assert_eq!(stored.state(), State::Mixed);
}

#[test]
fn one_call_may_accept_and_reject() {
    let (fixture, proposal) = two_files();
    let decisions = BTreeMap::from([
        (1, Decision::Reject { reason: None }),
        (2, Decision::Accept),
        (3, Decision::Accept),
    ]);
    let done = decide(&fixture.repo(), &proposal.id, &decisions).expect("it fits");
    assert_eq!(paths(&done.written), ["a", "dir/b"]);
    assert_eq!(fixture.read("a"), TEN.replace('9', "neun"));
    assert_eq!(done.proposal.state(), State::Mixed);
}

#[test]
fn a_rejection_needs_no_file() {
    let (fixture, proposal) = two_files();
    fs::remove_file(fixture.root().join("a")).expect("removed");
    let decision = Decision::Reject { reason: None };
    decide_each(&fixture, &proposal, &[1, 2, 3], &decision).expect("it needs no file");
}

#[test]
fn a_hunk_is_decided_on_once() {
    let (fixture, proposal) = two_files();
    accept(&fixture, &proposal, &[1]).expect("it fits");
    let reject = Decision::Reject { reason: None };
    let proposal = decide_each(&fixture, &proposal, &[2], &reject).expect("it needs no file").proposal;
    for (numbers, expect) in [
        (&[1][..], "hunk 1 is already accepted"),
        (&[2], "hunk 2 is already rejected"),
        (&[2, 3], "hunk 2 is already rejected"),
    ] {
        let error = refused(&fixture, &proposal, numbers);
        assert!(matches!(error, Error::AlreadyDecided { .. }), "{error:?}");
        assert_eq!(error.to_string(), expect);
    }
}

#[test]
fn a_hunk_that_is_not_there_is_refused_with_all_others() {
    let (fixture, proposal) = two_files();
    for numbers in [&[0][..], &[4], &[1, 4], &[usize::MAX]] {
        let error = refused(&fixture, &proposal, numbers);
        assert!(matches!(error, Error::NoSuchHunk { n_hunks: 3, .. }), "{numbers:?}: {error:?}");
    }
    let gone = ProposalId::parse("zzzzzzzz").expect("a name");
    let error = decide(&fixture.repo(), &gone, &BTreeMap::new()).expect_err("there is none");
    assert!(matches!(error, Error::NoSuchProposal(_)));
}

#[test]
fn a_file_changed_elsewhere_is_rebased_and_that_is_said() {
    let (fixture, proposal) = two_files();
    fixture.write("a", format!("0\n{TEN}").replace('5', "mine").as_bytes());
    let done = accept(&fixture, &proposal, &[1, 2, 3]).expect("it fits");
    let expect = format!("0\n{TEN_NEW}").replace('5', "mine");
    assert_eq!(fixture.read("a"), expect);
    assert_eq!(paths(&done.written), ["a", "dir/b"]);
    assert_eq!(paths(&done.rebased), ["a"]);
}

#[test]
fn a_file_changed_between_two_accepts_is_rebased() {
    let (fixture, proposal) = two_files();
    accept(&fixture, &proposal, &[1]).expect("it fits");
    fixture.write("a", format!("0\n{}", fixture.read("a")).as_bytes());
    let done = accept(&fixture, &proposal, &[2]).expect("it fits");
    assert_eq!(fixture.read("a"), format!("0\n{TEN_NEW}"));
    assert_eq!(paths(&done.rebased), ["a"]);
}

#[test]
fn a_hunk_that_the_user_undid_does_not_come_back_with_the_next() {
    let (fixture, proposal) = two_files();
    accept(&fixture, &proposal, &[1]).expect("it fits");
    fixture.write("a", TEN.as_bytes());
    accept(&fixture, &proposal, &[2]).expect("it fits");
    assert_eq!(fixture.read("a"), TEN.replace('9', "neun"));
}

#[test]
fn a_conflict_in_one_file_keeps_all_others_from_being_written() {
    let (fixture, proposal) = two_files();
    fixture.write("dir/b", b"mine\n");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    assert!(error.to_string().contains("dir/b:1: hunk 3: "), "it says where: {error}");
    assert_eq!(conflicts(error), [("dir/b".to_owned(), 3, Some(0))]);
    // The other file's hunks can still be had.
    accept(&fixture, &proposal, &[1, 2]).expect("it fits");
    assert_eq!(fixture.read("a"), TEN_NEW);
    assert_eq!(fixture.read("dir/b"), "mine\n");
}

#[test]
fn every_file_with_a_conflict_is_named_with_its_line_as_it_is_now() {
    let (fixture, proposal) = two_files();
    fixture.write("a", format!("0\n0\n{TEN}").replace('9', "mine").as_bytes());
    fixture.write("dir/b", b"mine\n");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    let expect = [("a".to_owned(), 2, Some(10)), ("dir/b".to_owned(), 3, Some(0))];
    assert_eq!(conflicts(error), expect);
}

#[test]
fn a_change_that_the_user_made_too_is_recorded_and_not_written() {
    let (fixture, proposal) = two_files();
    fixture.write("a", TEN_NEW.as_bytes());
    let before = fixture.user_state();
    let done = accept(&fixture, &proposal, &[1, 2]).expect("it is there");
    assert_eq!(paths(&done.written), [""; 0]);
    assert_eq!(paths(&done.rebased), ["a"]);
    assert_eq!(fixture.user_state(), before);
    let stored = proposal::load(&fixture.repo(), &proposal.id).expect("it is there");
    assert_eq!(stored.draft.files[0].hunks[0].decision, Some(Decision::Accept));
}

#[test]
fn a_deleted_file_does_not_come_back() {
    let (fixture, proposal) = two_files();
    fs::remove_dir_all(fixture.root().join("dir")).expect("removed");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    assert!(error.to_string().contains("dir/b: the file is gone"), "{error}");
    assert_eq!(conflicts(error), [("dir/b".to_owned(), 0, None)]);
}

#[test]
fn a_file_that_is_no_text_any_more_is_a_conflict() {
    let (fixture, proposal) = two_files();
    fixture.write("dir/b", b"\xff\xfeo\0l\0d\0");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    assert!(error.to_string().contains("UTF-8"), "{error}");
    assert_eq!(conflicts(error), [("dir/b".to_owned(), 0, None)]);
}

#[test]
fn i_4_nothing_is_written_through_a_link() {
    let outside = |fixture: &Fixture| {
        let outside = fixture.beside("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("b"), "old\n").expect("a file");
        outside
    };
    let link_file = |root: &Path, outside: &Path| {
        fs::remove_file(root.join("dir/b")).expect("removed");
        symlink(outside.join("b"), root.join("dir/b")).expect("a link");
    };
    let link_folder = |root: &Path, outside: &Path| {
        fs::remove_dir_all(root.join("dir")).expect("removed");
        symlink(outside, root.join("dir")).expect("a link");
    };
    // A link to somewhere inside is no better: what was decided on was not that file.
    let link_inside = |root: &Path, _: &Path| {
        fs::rename(root.join("dir"), root.join("moved")).expect("moved");
        symlink("moved", root.join("dir")).expect("a link");
    };
    for make in [&link_file as &dyn Fn(&Path, &Path), &link_folder, &link_inside] {
        let (fixture, proposal) = two_files();
        let outside = outside(&fixture);
        make(&fixture.root(), &outside);
        match refused(&fixture, &proposal, &[1, 2, 3]) {
            Error::NotARegularFile { path } => assert_eq!(path.as_str(), "dir/b"),
            other => panic!("{other:?}"),
        }
        let left: Vec<_> = fs::read_dir(&outside).expect("a folder").collect();
        assert_eq!(left.len(), 1, "no temporary file outside");
        assert_eq!(fs::read(outside.join("b")).expect("a file"), b"old\n");
    }
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let fifo = |path: &Path| {
        let status = Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(status.success());
    };
    let socket = |path: &Path| drop(UnixListener::bind(path).expect("a socket"));
    let folder = |path: &Path| fs::create_dir(path).expect("a folder");
    for (make_idx, make) in [&fifo as &dyn Fn(&Path), &socket, &folder].into_iter().enumerate() {
        let (fixture, proposal) = two_files();
        let place = fixture.root().join("dir/b");
        fs::remove_file(&place).expect("removed");
        make(&place);
        let error = accept(&fixture, &proposal, &[1, 2, 3]).expect_err("it is refused");
        assert!(matches!(error, Error::NotARegularFile { .. }), "{make_idx}: {error:?}");
        assert_eq!(fixture.read("a"), TEN);
    }
    // A file where a folder was.
    let (fixture, proposal) = two_files();
    fs::remove_dir_all(fixture.root().join("dir")).expect("removed");
    fixture.write("dir", b"old\n");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    assert!(matches!(error, Error::NotARegularFile { .. }), "{error:?}");
}

#[test]
fn a_read_only_file_is_left_alone() {
    let (fixture, proposal) = two_files();
    fixture.set_mode("dir/b", 0o444);
    match refused(&fixture, &proposal, &[1, 2, 3]) {
        Error::ReadOnly { path } => assert_eq!(path.as_str(), "dir/b"),
        other => panic!("{other:?}"),
    }
    fixture.set_mode("dir/b", 0o644);
    accept(&fixture, &proposal, &[1, 2, 3]).expect("it fits");
}

#[test]
fn modes_and_line_ends_are_kept() {
    let fixture = Fixture::new(&[
        ("run.sh", "old\n"),
        ("secret", "old\n"),
        ("crlf", "a\r\nb\r\n"),
        ("no end", "a\nb\nc"),
        ("bom", "\u{feff}a\n"),
    ]);
    // The user may change the mode after the proposal was made: it is theirs.
    let proposal = fixture.propose(&[
        ("run.sh", "new\n"),
        ("secret", "new\n"),
        ("crlf", "a\r\nB\r\n"),
        ("no end", "a\nB\nc"),
        ("bom", "\u{feff}b\n"),
    ]);
    fixture.set_mode("run.sh", 0o755);
    fixture.set_mode("secret", 0o600);
    let all: Vec<usize> = proposal.hunks().map(|(number, ..)| number).collect();
    accept(&fixture, &proposal, &all).expect("it fits");
    for (path, text, mode) in [
        ("run.sh", "new\n", 0o755),
        ("secret", "new\n", 0o600),
        ("crlf", "a\r\nB\r\n", 0o644),
        ("no end", "a\nB\nc", 0o644),
        ("bom", "\u{feff}b\n", 0o644),
    ] {
        assert_eq!((fixture.read(path).as_str(), fixture.mode(path)), (text, mode), "{path}");
    }
}

#[test]
fn a_reader_of_the_old_file_never_sees_half_of_the_new() {
    let (fixture, proposal) = two_files();
    let place = fixture.root().join("dir/b");
    let old = fs::File::open(&place).expect("a file");
    accept(&fixture, &proposal, &[3]).expect("it fits");
    let (old, new) = (old.metadata().expect("open"), place.metadata().expect("there"));
    assert_ne!(old.ino(), new.ino(), "the file is replaced, not written over");
}

#[test]
fn a_second_accept_at_the_same_time_is_told_to_wait() {
    let (fixture, proposal) = two_files();
    let held = lock(&fixture.repo()).expect("the lock is free");
    assert!(matches!(refused(&fixture, &proposal, &[1]), Error::Busy));
    drop(held);
    accept(&fixture, &proposal, &[1]).expect("the lock is free again");
}

#[test]
fn accepts_that_race_write_every_hunk_once() {
    let fixture = Fixture::new(&[("a", TEN)]);
    let proposal = fixture.propose(&[("a", TEN_NEW)]);
    std::thread::scope(|scope| {
        for number in [1, 2, 1, 2] {
            let (fixture, proposal) = (&fixture, &proposal);
            scope.spawn(move || {
                loop {
                    match accept(fixture, proposal, &[number]) {
                        Err(Error::Busy) => std::thread::yield_now(),
                        Ok(_) | Err(Error::AlreadyDecided { .. }) => return,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(fixture.read("a"), TEN_NEW);
}

#[test]
fn a_failure_to_write_the_second_file_undoes_the_first() {
    let (fixture, proposal) = two_files();
    // A full disk and a folder without the right to write fail at the same call as a name that is taken.
    let taken = format!("dir/.tandem-{}-1", proposal.id);
    fs::create_dir(fixture.root().join(&taken)).expect("a folder");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    assert!(matches!(error, Error::Io { action: "write", .. }), "{error:?}");
    fs::remove_dir(fixture.root().join(&taken)).expect("it is still there");
    accept(&fixture, &proposal, &[1, 2, 3]).expect("it fits");
}

#[test]
fn a_failure_to_record_undoes_every_file() {
    let (fixture, proposal) = two_files();
    fixture.set_mode("a", 0o755);
    let ref_lock = fixture.root().join(format!(".git/refs/tandem/proposals/{}.lock", proposal.id));
    fs::write(&ref_lock, "").expect("a lock");
    let error = refused(&fixture, &proposal, &[1, 2, 3]);
    assert!(matches!(error, Error::Git { .. }), "{error:?}");
    fs::remove_file(&ref_lock).expect("removed");
    accept(&fixture, &proposal, &[1, 2, 3]).expect("it fits");
}

#[test]
fn a_file_changed_while_others_are_written_is_the_users_and_the_others_are_undone() {
    let (fixture, proposal) = two_files();
    let plan = Plan::make(&fixture.repo(), &proposal, &BTreeSet::from([1, 2, 3])).expect("it fits");
    plan.stage().expect("there is room");
    fixture.write("dir/b", b"just typed\n");
    assert_eq!(conflicts(plan.replace().expect_err("it changed")), [("dir/b".to_owned(), 0, None)]);
    assert_eq!(fixture.read("a"), TEN_NEW, "this one was before");
    assert!(plan.undo().is_ok());
    assert_eq!(fixture.read("a"), TEN);
    assert_eq!(fixture.read("dir/b"), "just typed\n");
    assert_eq!(fixture.git(&["status", "--porcelain"]), " M dir/b\n", "no temporary file is left");
}

#[test]
fn undoing_leaves_what_the_user_wrote_over_ours() {
    let (fixture, proposal) = two_files();
    let plan = Plan::make(&fixture.repo(), &proposal, &BTreeSet::from([1, 2, 3])).expect("it fits");
    plan.stage().expect("there is room");
    plan.replace().expect("nothing changed");
    fixture.write("a", format!("{TEN_NEW}mine\n").as_bytes());
    assert!(plan.undo().is_ok());
    assert_eq!(fixture.read("a"), format!("{TEN_NEW}mine\n"));
    assert_eq!(fixture.read("dir/b"), "old\n");
}

#[test]
fn a_damaged_proposal_is_not_accepted() {
    let (fixture, proposal) = two_files();
    let name = format!("refs/tandem/proposals/{}", proposal.id);
    fixture.git(&["update-ref", &name, "HEAD"]);
    let before = fixture.user_state();
    let error = accept(&fixture, &proposal, &[1]).expect_err("it has no proposal.json");
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn a_linked_work_tree_gets_its_own_files_written() {
    let (fixture, proposal) = two_files();
    let other = fixture.beside("other");
    fixture.git(&["worktree", "add", "-q", other.to_str().expect("a path")]);
    let repo = Repo::open(&other).expect("a linked work tree");
    let decisions = BTreeMap::from([(1, Decision::Accept), (2, Decision::Accept)]);
    decide(&repo, &proposal.id, &decisions).expect("it fits");
    assert_eq!(fs::read_to_string(other.join("a")).expect("a file"), TEN_NEW);
    assert_eq!(fixture.read("a"), TEN);
}

//! Accepts killed at each point, and what the next call makes of them.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use super::*;
use crate::accept;
use crate::fixture::{Fixture, UserState};
use crate::proposal::{Decision, Proposal};

const OLD: &str = "1\n2\n3\n";

/// A call that was killed.
struct Killed {
    fixture: Fixture,
    before: UserState,
    proposal: Proposal,
    plan: Plan,
}

impl Killed {
    /// Kills a call over `a` and `dir/b` with the journal written, the new contents staged and `n_replaced` in place.
    fn after(n_replaced: usize) -> Self {
        let fixture = Fixture::new(&[("a", OLD), ("dir/b", OLD), ("other", "x\n")]);
        fixture.set_mode("a", 0o755);
        let proposal = fixture.propose(&[("a", "1\nnew\n3\n"), ("dir/b", "new\n2\n3\n")]);
        let before = fixture.user_state();
        let repo = fixture.repo();
        drop(accept::lock(&repo).expect("the lock is free"));
        let plan = Plan::make(&repo, &proposal, &BTreeSet::from([1, 2])).expect("it fits");
        Journal::write(&repo, &proposal.id, proposal.revision, &plan).expect("written");
        plan.stage().expect("there is room");
        for file in plan.files.iter().take(n_replaced) {
            plan.replace_one(file).expect("nothing changed");
        }
        Self { fixture, before, proposal, plan }
    }

    /// Returns the paths that are put back.
    fn recover(&self) -> Vec<String> {
        let paths = accept::recover(&self.fixture.repo()).expect("put back");
        assert!(!exists(&self.fixture.repo()), "the journal is gone");
        let leftovers = self.fixture.git(&["ls-files", "--others", "--", "*.tandem-*"]);
        assert_eq!(leftovers, "", "the temporary files are gone");
        paths.iter().map(RepoPath::to_string).collect()
    }

    fn journal(&self) -> PathBuf {
        path(&self.fixture.repo())
    }

    fn edit_journal(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let json = fs::read(self.journal()).expect("the journal");
        let mut value = serde_json::from_slice(&json).expect("JSON");
        edit(&mut value);
        fs::write(self.journal(), value.to_string()).expect("the journal");
    }

    fn remove_temps(&self, n: usize) {
        for file in self.plan.files.iter().take(n) {
            let place = self.fixture.root().join(file.path.as_path());
            fs::remove_file(place.with_file_name(&file.temp)).expect("staged");
        }
    }
}

#[test]
fn a_call_killed_anywhere_before_its_end_is_undone() {
    for (n_replaced, expect) in [(0, &[][..]), (1, &["a"]), (2, &["a", "dir/b"])] {
        let killed = Killed::after(n_replaced);
        assert_ne!(killed.fixture.user_state(), killed.before);
        assert_eq!(killed.recover(), expect);
        // The mode bits are part of it.
        assert_eq!(killed.fixture.user_state(), killed.before, "{n_replaced}");
        let repo = killed.fixture.repo();
        let stored = proposal::load(&repo, &killed.proposal.id).expect("it is there");
        assert_eq!(stored, killed.proposal, "its hunks wait as before");
        assert!(accept::recover(&repo).expect("nothing to do").is_empty());
    }
}

#[test]
fn a_call_killed_while_it_staged_is_undone() {
    for n_not_staged in [1, 2] {
        let killed = Killed::after(0);
        killed.remove_temps(n_not_staged);
        assert_eq!(killed.recover(), [""; 0]);
        assert_eq!(killed.fixture.user_state(), killed.before);
    }
}

#[test]
fn the_next_decision_undoes_a_killed_one_first() {
    let killed = Killed::after(1);
    let decisions = [(2, Decision::Accept)].into();
    accept::decide(&killed.fixture.repo(), &killed.proposal.id, &decisions).expect("it fits");
    assert_eq!(killed.fixture.read("a"), OLD);
    assert_eq!(killed.fixture.read("dir/b"), "new\n2\n3\n");
    assert_eq!(killed.recover(), [""; 0]);
}

#[test]
fn a_call_whose_decisions_are_recorded_is_not_undone() {
    let mut killed = Killed::after(2);
    for file in &mut killed.proposal.draft.files {
        file.hunks[0].decision = Some(Decision::Accept);
    }
    proposal::record(&killed.fixture.repo(), &mut killed.proposal).expect("recorded");
    let accepted = killed.fixture.user_state();
    assert_eq!(killed.recover(), [""; 0]);
    assert_eq!(killed.fixture.user_state(), accepted);
    assert_eq!(killed.fixture.read("a"), "1\nnew\n3\n");
}

#[test]
fn what_the_user_wrote_since_stays() {
    let killed = Killed::after(2);
    killed.fixture.write("a", b"1\nnew\n3\nmine\n");
    assert_eq!(killed.recover(), ["dir/b"]);
    assert_eq!(killed.fixture.read("a"), "1\nnew\n3\nmine\n");
    assert_eq!(killed.fixture.read("dir/b"), OLD);
}

#[test]
fn what_the_user_removed_since_stays_away() {
    let killed = Killed::after(2);
    fs::remove_file(killed.fixture.root().join("a")).expect("removed");
    fs::remove_dir_all(killed.fixture.root().join("dir")).expect("removed");
    assert_eq!(killed.recover(), [""; 0]);
    assert_eq!(killed.fixture.git(&["status", "--porcelain"]), " D a\n D dir/b\n");
}

#[test]
fn i_4_recovery_writes_nothing_through_a_link() {
    let killed = Killed::after(2);
    let root = killed.fixture.root();
    let outside = killed.fixture.beside("outside");
    fs::rename(root.join("dir"), &outside).expect("moved");
    symlink(&outside, root.join("dir")).expect("a link");
    fs::rename(root.join("a"), outside.join("a")).expect("moved");
    symlink(outside.join("a"), root.join("a")).expect("a link");
    assert_eq!(killed.recover(), [""; 0]);
    assert_eq!(fs::read(outside.join("a")).expect("a file"), b"1\nnew\n3\n");
    assert_eq!(fs::read(outside.join("b")).expect("a file"), b"new\n2\n3\n");
}

#[test]
fn a_call_is_undone_after_its_proposal_was_removed() {
    let killed = Killed::after(1);
    proposal::delete(&killed.fixture.repo(), &killed.proposal.id).expect("removed");
    assert_eq!(killed.recover(), ["a"]);
    assert_eq!(killed.fixture.user_state(), killed.before);
}

#[test]
fn old_content_that_git_has_collected_is_missed_only_where_it_is_needed() {
    let killed = Killed::after(0);
    proposal::delete(&killed.fixture.repo(), &killed.proposal.id).expect("removed");
    for path in ["a", "dir/b"] {
        killed.fixture.write(path, b"changed\n");
    }
    killed.fixture.commit();
    killed.fixture.git(&["update-ref", "--no-deref", "HEAD", "HEAD^0"]);
    forget_blob(&killed.fixture, OLD);
    assert_eq!(killed.recover(), [""; 0]);

    let killed = Killed::after(1);
    forget_blob(&killed.fixture, OLD);
    let error = accept::recover(&killed.fixture.repo()).expect_err("the content is gone");
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(exists(&killed.fixture.repo()), "the journal says what is amiss");
}

fn forget_blob(fixture: &Fixture, text: &str) {
    let id = BlobId::of(text.as_bytes()).to_string();
    let objects = fixture.root().join(".git/objects");
    fs::remove_file(objects.join(&id[..2]).join(&id[2..])).expect("a loose object");
}

#[test]
fn a_recovery_that_fails_is_tried_again() {
    let killed = Killed::after(1);
    // The name that the old content needs on its way back is taken.
    let taken = killed.fixture.root().join(&killed.plan.files[0].temp);
    fs::create_dir(&taken).expect("a folder");
    let error = accept::recover(&killed.fixture.repo()).expect_err("the name is taken");
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    fs::remove_dir(&taken).expect("it is still there");
    assert_eq!(killed.recover(), ["a"]);
    assert_eq!(killed.fixture.user_state(), killed.before);
}

#[test]
fn a_recovery_waits_for_the_call_that_runs() {
    let killed = Killed::after(1);
    let held = accept::lock(&killed.fixture.repo()).expect("the lock is free");
    let error = accept::recover(&killed.fixture.repo()).expect_err("a call runs");
    assert!(matches!(error, Error::Busy));
    assert_eq!(killed.fixture.read("a"), "1\nnew\n3\n");
    drop(held);
    assert_eq!(killed.recover(), ["a"]);
}

#[test]
fn a_journal_that_cannot_be_understood_is_an_error() {
    let killed = Killed::after(1);
    for bytes in [&b""[..], b"{", b"[]", b"{\"proposal\":1}", b"\xff"] {
        fs::write(killed.journal(), bytes).expect("the journal");
        let error = accept::recover(&killed.fixture.repo()).expect_err("no journal");
        assert!(matches!(error, Error::Io { action: "understand", .. }), "{error:?}");
    }
}

#[test]
fn i_4_a_journal_that_leads_outside_is_not_followed() {
    let secret = |killed: &Killed| {
        let secret = killed.fixture.beside("secret");
        fs::write(&secret, "1\nnew\n3\n").expect("a file");
        secret
    };
    for (key, value) in [("path", "../secret"), ("temp", "../secret"), ("temp", "dir/../../secret")] {
        let killed = Killed::after(1);
        let secret = secret(&killed);
        killed.edit_journal(|json| json["files"][0][key] = value.into());
        let error = accept::recover(&killed.fixture.repo()).expect_err("it leads outside");
        assert!(matches!(error, Error::Io { .. }), "{key} {value}: {error:?}");
        assert_eq!(fs::read(&secret).expect("it is there"), b"1\nnew\n3\n", "{key} {value}");
    }
    for temp in ["..", ".", ""] {
        let killed = Killed::after(1);
        let secret = secret(&killed);
        killed.edit_journal(|json| json["files"][0]["temp"] = temp.into());
        accept::recover(&killed.fixture.repo()).expect_err("no name of a file");
        assert!(secret.exists());
    }
}

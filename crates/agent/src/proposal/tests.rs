//! Proposals as git keeps them, found, pruned and damaged.

use std::fs;
use std::time::Duration;

use git2::{ErrorCode, Index, IndexEntry, IndexTime};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, draft};
use crate::repo::Repo;

const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
/// [`TEN`] with two hunks.
const TEN_NEW: &str = "1\nzwei\n3\n4\n5\n6\n7\n8\nneun\n10\n";

fn two_files() -> (Fixture, Proposal) {
    let fixture = Fixture::new(&[("a", TEN), ("dir/b", "old\n")]);
    let proposal = fixture.propose(&[("a", TEN_NEW), ("dir/b", "new\n")]);
    (fixture, proposal)
}

fn ref_name(id: impl std::fmt::Display) -> String {
    format!("refs/tandem/proposals/{id}")
}

fn ids(proposals: &[Proposal]) -> Vec<&ProposalId> {
    proposals.iter().map(|proposal| &proposal.id).collect()
}

/// Gives a stored proposal another name.
fn rename(fixture: &Fixture, proposal: &Proposal, id: &str) -> Proposal {
    let mut proposal = proposal.clone();
    let old = ref_name(&proposal.id);
    proposal.id = ProposalId::parse(id).expect("a name");
    fixture.git(&["update-ref", &ref_name(id), &proposal.revision.to_string()]);
    fixture.git(&["update-ref", "-d", &old]);
    record(&fixture.repo(), &mut proposal).expect("recorded under its name");
    proposal
}

/// Stores that it was made at `created_ms`.
fn backdate(fixture: &Fixture, proposal: &mut Proposal, created_ms: u64) {
    proposal.created_ms = created_ms;
    record(&fixture.repo(), proposal).expect("recorded");
}

fn decide_all(fixture: &Fixture, proposal: &mut Proposal, decision: &Decision) {
    for hunk in proposal.draft.files.iter_mut().flat_map(|file| &mut file.hunks) {
        hunk.decision = Some(decision.clone());
    }
    record(&fixture.repo(), proposal).expect("recorded");
}

/// Puts a commit with a changed tree in a proposal's place.
fn change_tree(repo: &Repo, proposal: &Proposal, change: impl FnOnce(&mut Index)) {
    let git = repo.git();
    let commit = git.find_commit(proposal.revision).expect("the commit");
    let mut index = Index::new().expect("an index");
    index.read_tree(&commit.tree().expect("a tree")).expect("entries of the tree");
    change(&mut index);
    let tree = git.find_tree(index.write_tree_to(git).expect("a tree")).expect("the tree");
    let author = commit.author();
    let revision = git.commit(None, &author, &author, "changed\n", &tree, &[]).expect("a commit");
    git.reference(&ref_name(&proposal.id), revision, true, "changed").expect("the ref moved");
}

fn put(repo: &Repo, index: &mut Index, path: &str, bytes: &[u8]) {
    let never = IndexTime::new(0, 0);
    let entry = IndexEntry {
        ctime: never,
        mtime: never,
        dev: 0,
        ino: 0,
        mode: 0o100_644,
        uid: 0,
        gid: 0,
        file_size: 0,
        id: repo.git().blob(bytes).expect("a blob"),
        flags: 0,
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    };
    index.add(&entry).expect("an entry");
}

/// Returns what is said of [`two_files`]' proposal once its tree is changed; another proposal must stay readable.
fn damage(change: impl FnOnce(&Repo, &mut Index)) -> String {
    let (fixture, proposal) = two_files();
    let sound = fixture.propose(&[("a", "other\n")]);
    let repo = fixture.repo();
    change_tree(&repo, &proposal, |index| change(&repo, index));
    said_of(&fixture, &proposal.id, &sound)
}

fn damage_json(change: impl FnOnce(&mut Value)) -> String {
    damage(|repo, index| {
        let entry = index.get_path("proposal.json".as_ref(), 0).expect("the JSON");
        let blob = repo.git().find_blob(entry.id).expect("the blob");
        let mut value = serde_json::from_slice(blob.content()).expect("JSON");
        change(&mut value);
        put(repo, index, "proposal.json", value.to_string().as_bytes());
    })
}

fn said_of(fixture: &Fixture, id: &ProposalId, sound: &Proposal) -> String {
    let repo = fixture.repo();
    let error = load(&repo, id).expect_err("a damaged proposal cannot be read");
    let listing = list(&repo).expect("a list all the same");
    assert_eq!(listing.proposals, std::slice::from_ref(sound), "the sound one is listed");
    let damaged: Vec<String> = listing.damaged.iter().map(Error::to_string).collect();
    assert_eq!(damaged, [error.to_string()]);
    assert_eq!(find(&repo, None).expect("the only one that waits").id, sound.id);
    assert!(prune(&repo, Prune::Decided).expect("pruned").is_empty());
    delete(&repo, id).expect("it can be removed");
    assert!(list(&repo).expect("a list").damaged.is_empty());
    match error {
        Error::Damaged { id: named, what } => {
            assert_eq!(named, id.as_str());
            what
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_says(said: &str, expect: &str) {
    assert!(said.contains(expect), "{said:?} does not say {expect:?}");
}

#[test]
fn a_stored_proposal_is_read_as_it_was_made() {
    let (fixture, proposal) = two_files();
    let repo = fixture.repo();
    assert_eq!(load(&repo, &proposal.id).expect("it is there"), proposal);
    assert_eq!(proposal.state(), State::Pending);
    assert_eq!(proposal.hunks().map(|(number, ..)| number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(proposal.draft.files[0].new_text(), TEN_NEW);
}

#[test]
fn texts_survive_byte_for_byte() {
    let odd = "\u{feff}a\r\nb\r\n\tc\u{0}\u{7}\r";
    let fixture = Fixture::new(&[("ünï code.txt", odd), ("empty", "")]);
    let new = odd.replace('b', "\u{1f600}\r\n\"\\");
    let proposal = fixture.propose(&[("ünï code.txt", &new), ("empty", "no line end")]);
    let loaded = load(&fixture.repo(), &proposal.id).expect("it is there");
    assert_eq!(loaded, proposal);
    let files: Vec<(&str, &str, String)> = loaded
        .draft
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.base_text.as_str(), file.new_text()))
        .collect();
    assert_eq!(files, [("empty", "", "no line end".to_owned()), ("ünï code.txt", odd, new)]);
}

#[test]
fn files_are_numbered_in_the_order_of_their_paths() {
    let fixture = Fixture::new(&[("b", "1\n"), ("a", "1\n")]);
    let proposal = fixture.propose(&[("b", "2\n"), ("a", "2\n")]);
    let paths: Vec<&str> = proposal.hunks().map(|(_, file, _)| file.path.as_str()).collect();
    assert_eq!(paths, ["a", "b"]);
}

#[test]
fn what_is_no_change_of_text_cannot_be_proposed() {
    let path = || RepoPath::new("a").expect("a plain path");
    for (base, new, expect) in [
        (&b"1\n"[..], &b"1\n"[..], "nothing changes"),
        (b"\xff\n", b"1\n", "not UTF-8"),
        (b"1\n", b"\xff\n", "not UTF-8"),
    ] {
        match FileChange::new(path(), FileKind::Regular, base, new) {
            Err(Error::NotProposable { why, .. }) => check_says(why, expect),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn i_4_storing_and_deciding_touch_neither_tree_nor_index_nor_head() {
    let fixture = Fixture::new(&[("a", TEN), ("b", "1\n")]);
    fixture.write("b", b"dirty\n");
    fixture.write("untracked", b"x\n");
    fixture.set_mode("a", 0o755);
    let before = fixture.user_state();
    let mut proposal = fixture.propose(&[("a", TEN_NEW), ("untracked", "y\n")]);
    decide_all(&fixture, &mut proposal, &Decision::Accept);
    let repo = fixture.repo();
    list(&repo).expect("a list");
    prune(&repo, Prune::Decided).expect("pruned");
    assert_eq!(fixture.user_state(), before);
}

#[test]
fn the_oldest_is_listed_first() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    // Names of one minute are in no order of time.
    for (id, created_ms) in [("bb000000", 3_000), ("aa000000", 2_000), ("cc000000", 1_000)] {
        let mut proposal = rename(&fixture, &fixture.propose(&[("a", "2\n")]), id);
        backdate(&fixture, &mut proposal, created_ms);
    }
    let listing = list(&fixture.repo()).expect("a list");
    let names: Vec<&str> = ids(&listing.proposals).into_iter().map(ProposalId::as_str).collect();
    assert_eq!(names, ["cc000000", "aa000000", "bb000000"]);
    assert!(listing.damaged.is_empty());
}

#[test]
fn garbage_collection_spares_a_proposal_and_takes_a_pruned_one() {
    let (fixture, mut proposal) = two_files();
    decide_all(&fixture, &mut proposal, &Decision::Accept);
    fixture.git(&["gc", "-q", "--prune=now"]);
    let repo = fixture.repo();
    assert_eq!(load(&repo, &proposal.id).expect("it is there"), proposal);
    assert_eq!(ids(&list(&repo).expect("a list").proposals), [&proposal.id]);

    assert_eq!(prune(&repo, Prune::Decided).expect("pruned"), [proposal.id.clone()]);
    fixture.git(&["gc", "-q", "--prune=now"]);
    let error = fixture
        .repo()
        .git()
        .find_commit(proposal.revision)
        .expect_err("nothing leads to the commit any more");
    assert_eq!(error.code(), ErrorCode::NotFound);
}

#[test]
fn git_applies_the_patch_and_makes_the_same_files() {
    let (crlf, no_end) = ("a\r\nb\r\nc\r\n", "x\ny\nz");
    let fixture = Fixture::new(&[
        ("ten", TEN),
        ("dir/crlf", crlf),
        ("no end", no_end),
        ("ünï", "1\n"),
        ("empty", ""),
        ("emptied", "1\n"),
        ("quo\"te", "1\n"),
    ]);
    fixture.set_mode("ten", 0o755);
    let new = [
        ("ten", TEN_NEW),
        ("dir/crlf", "a\r\nB\r\nc\r\n"),
        ("no end", "x\ny\nz\nend"),
        ("ünï", "eins\n"),
        ("empty", "now\nnot"),
        ("emptied", ""),
        ("quo\"te", "2\n"),
    ];
    let proposal = fixture.propose(&new);
    let stored = fixture.git(&["show", &format!("{}:proposal.patch", ref_name(&proposal.id))]);
    assert_eq!(stored, proposal.to_patch());
    let patch = fixture.beside("patch");
    fs::write(&patch, stored).expect("the patch");
    let patch = patch.to_str().expect("a path");
    fixture.git(&["apply", "--check", patch]);
    fixture.git(&["apply", patch]);
    for (path, text) in new {
        assert_eq!(fixture.read(path), text, "{path}");
    }
}

#[test]
fn git_shows_what_the_base_and_the_new_files_are() {
    let (fixture, proposal) = two_files();
    let show = |path: &str| fixture.git(&["show", &format!("{}:{path}", ref_name(&proposal.id))]);
    assert_eq!(show("base/a"), TEN);
    assert_eq!(show("new/a"), TEN_NEW);
    assert_eq!(show("new/dir/b"), "new\n");
    fixture.git(&["fsck", "--strict"]);
}

#[test]
fn a_proposal_is_found_by_the_start_of_its_name() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let repo = fixture.repo();
    for (id, new) in [("ab000000", "2\n"), ("ab1c0000", "3\n"), ("zz000000", "4\n")] {
        rename(&fixture, &fixture.propose(&[("a", new)]), id);
    }
    // o for 0, i and l for 1: letters that look alike.
    for (typed, expect) in [
        ("z", "zz000000"),
        ("ab1", "ab1c0000"),
        (" ABl ", "ab1c0000"),
        ("abo", "ab000000"),
        ("ab000000", "ab000000"),
    ] {
        let found = find(&repo, Some(typed)).expect(typed);
        assert_eq!(found.id.as_str(), expect, "{typed:?}");
    }
    for typed in ["y", "ab0000000", "../ab", "*"] {
        match find(&repo, Some(typed)) {
            Err(Error::NoSuchProposal(named)) => assert_eq!(named, typed),
            other => panic!("{typed:?} gave {other:?}"),
        }
    }
    match find(&repo, Some("ab")) {
        Err(Error::AmbiguousId { prefix, ids }) => {
            assert_eq!((prefix.as_str(), ids.len()), ("ab", 2));
            assert_eq!(ids, ["ab000000", "ab1c0000"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_name_the_only_one_that_waits_is_meant() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let repo = fixture.repo();
    assert!(matches!(find(&repo, None), Err(Error::NotOnePending { n_pending: 0 })));
    let mut first = fixture.propose(&[("a", "2\n")]);
    let second = fixture.propose(&[("a", "3\n")]);
    assert!(matches!(find(&repo, None), Err(Error::NotOnePending { n_pending: 2 })));
    decide_all(&fixture, &mut first, &Decision::Reject { reason: None });
    assert_eq!(find(&repo, None).expect("one waits"), second);
}

#[test]
fn a_state_follows_from_the_decisions() {
    let (_fixture, mut proposal) = two_files();
    let accept = Some(Decision::Accept);
    let reject = Some(Decision::Reject { reason: None });
    for (decisions, expect) in [
        ([&accept, &None, &reject], State::Pending),
        ([&accept, &accept, &accept], State::Accepted),
        ([&reject, &reject, &reject], State::Rejected),
        ([&reject, &accept, &accept], State::Mixed),
    ] {
        let hunks = proposal.draft.files.iter_mut().flat_map(|file| &mut file.hunks);
        for (hunk, decision) in hunks.zip(decisions) {
            hunk.decision = decision.clone();
        }
        assert_eq!(proposal.state(), expect, "{decisions:?}");
    }
}

#[test]
fn decisions_and_their_reasons_are_kept() {
    let (fixture, mut proposal) = two_files();
    let reason = Some("wrong\nfile".to_owned());
    proposal.draft.files[0].hunks[0].decision = Some(Decision::Accept);
    proposal.draft.files[1].hunks[0].decision = Some(Decision::Reject { reason });
    record(&fixture.repo(), &mut proposal).expect("recorded");
    assert_eq!(load(&fixture.repo(), &proposal.id).expect("it is there"), proposal);
}

#[test]
fn a_decision_is_not_recorded_over_one_made_since() {
    let (fixture, proposal) = two_files();
    let (mut first, mut second) = (proposal.clone(), proposal);
    decide_all(&fixture, &mut first, &Decision::Accept);
    second.draft.files[0].hunks[0].decision = Some(Decision::Reject { reason: None });
    assert!(matches!(record(&fixture.repo(), &mut second), Err(Error::Git { .. })));
    assert_eq!(load(&fixture.repo(), &first.id).expect("it is there"), first);
}

#[test]
fn only_what_the_rule_names_is_pruned() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let repo = fixture.repo();
    let mut decided = fixture.propose(&[("a", "2\n")]);
    decide_all(&fixture, &mut decided, &Decision::Reject { reason: None });
    let mut old = fixture.propose(&[("a", "3\n")]);
    backdate(&fixture, &mut old, 1_000);
    let mut of_the_future = fixture.propose(&[("a", "4\n")]);
    backdate(&fixture, &mut of_the_future, u64::MAX);
    let waiting = fixture.propose(&[("a", "5\n")]);

    let hour = Prune::OlderThan(Duration::from_secs(3600));
    assert_eq!(prune(&repo, hour).expect("pruned"), [old.id]);
    assert_eq!(prune(&repo, Prune::Decided).expect("pruned"), [decided.id]);
    let left = list(&repo).expect("a list").proposals;
    assert_eq!(ids(&left), [&waiting.id, &of_the_future.id]);
}

#[test]
fn a_removed_proposal_is_gone() {
    let (fixture, proposal) = two_files();
    let repo = fixture.repo();
    delete(&repo, &proposal.id).expect("removed");
    for gone in [load(&repo, &proposal.id).err(), delete(&repo, &proposal.id).err()] {
        assert!(matches!(gone, Some(Error::NoSuchProposal(_))), "{gone:?}");
    }
    assert!(list(&repo).expect("a list").proposals.is_empty());
}

#[test]
fn refs_that_are_named_otherwise_are_not_ours() {
    let (fixture, proposal) = two_files();
    let revision = proposal.revision.to_string();
    for name in ["short", "ABCDEFGH", "abcdefgi", "abcdefgh/x", "abcdefgh9"] {
        fixture.git(&["update-ref", &ref_name(name), &revision]);
    }
    let listing = list(&fixture.repo()).expect("a list");
    assert_eq!(ids(&listing.proposals), [&proposal.id]);
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
}

#[test]
fn a_proposal_whose_files_are_missing_is_damaged() {
    for (path, expect) in [
        ("proposal.json", "proposal.json"),
        ("base/a", "the base of a is missing"),
        ("base/dir/b", "the base of dir/b is missing"),
    ] {
        let said = damage(|_, index| index.remove_path(path.as_ref()).expect("removed"));
        check_says(&said, expect);
    }
    let said = damage(|repo, index| {
        index.remove_path("proposal.json".as_ref()).expect("removed");
        put(repo, index, "proposal.json/x", b"a folder in its place");
    });
    check_says(&said, "blob");
}

#[test]
fn a_proposal_whose_base_is_another_is_damaged() {
    let said = damage(|repo, index| put(repo, index, "base/a", b"another\n"));
    check_says(&said, "the base of a is not the one named");

    let said = damage_json(|json| json["files"][0]["base_blob"] = json!("no blob"));
    check_says(&said, "at line 1");
}

#[test]
fn a_proposal_whose_json_is_no_proposal_is_damaged() {
    for (bytes, expect) in [
        (&b""[..], "EOF"),
        (br#"{"format":1,"id":"#, "EOF"),
        (br#"{"format":1}"#, "missing field"),
        (b"\xff\xfe", "expected value"),
        (b"[]", "invalid length 0"),
        (b"null", "invalid type"),
    ] {
        let said = damage(|repo, index| put(repo, index, "proposal.json", bytes));
        check_says(&said, expect);
    }
    // Deep nesting must not end in a stack overflow.
    let said = damage(|repo, index| put(repo, index, "proposal.json", "[".repeat(1 << 20).as_bytes()));
    assert!(!said.is_empty());
}

#[test]
fn a_proposal_of_another_kind_is_damaged() {
    check_says(
        &damage_json(|json| *json = json!({"format": 2, "what": "a newer version wrote"})),
        "its format is 2 and this version reads 1",
    );
    check_says(&damage_json(|json| json["id"] = json!("zzzzzzzz")), "it calls itself \"zzzzzzzz\"");
    check_says(&damage_json(|json| json["files"] = json!([])), "it changes nothing");
    check_says(&damage_json(|json| json["files"][0]["hunks"] = json!([])), "it has no hunk for a");
    check_says(&damage_json(|json| json["files"][1] = json["files"][0].clone()), "it names a twice");
    check_says(&damage_json(|json| json["files"][0]["hunks"][0]["decision"] = json!("maybe")), "maybe");
}

#[test]
fn i_4_a_proposal_that_names_a_path_outside_is_damaged() {
    for path in ["../x", "/etc/passwd", ".git/hooks/pre-commit", "a/../../x", ""] {
        let said = damage_json(|json| json["files"][0]["path"] = json!(path));
        check_says(&said, &format!("the path {path:?}"));
    }
}

#[test]
fn a_proposal_whose_hunks_do_not_fit_is_damaged() {
    for (start, base_lines) in
        [(9, json!(["9\n"])), (99, json!([])), (usize::MAX, json!([])), (usize::MAX, json!(["9\n", "10\n"]))]
    {
        let said = damage_json(|json| {
            let hunk = &mut json["files"][0]["hunks"][1];
            hunk["base_start"] = json!(start);
            hunk["base_lines"] = base_lines;
        });
        check_says(&said, "the hunks of a do not fit its base");
    }
    let said = damage_json(|json| json["files"][0]["hunks"][1] = json["files"][0]["hunks"][0].clone());
    check_says(&said, "the hunks of a do not fit its base");
    let said = damage_json(|json| json["files"][0]["hunks"][0]["new_lines"] = json!(["no line end"]));
    check_says(&said, "the hunks of a do not fit its base");
    let said = damage_json(|json| json["files"][0]["hunks"][0]["base_start"] = json!(-1));
    check_says(&said, "invalid value");
}

#[test]
fn a_proposal_whose_hunks_are_out_of_order_is_damaged() {
    let said = damage_json(|json| {
        let hunks = json["files"][0]["hunks"].as_array_mut().expect("hunks");
        hunks.swap(0, 1);
    });
    check_says(&said, "the hunks of a are not in order");
}

#[test]
fn a_ref_that_leads_to_no_commit_is_a_damaged_proposal() {
    let (fixture, proposal) = two_files();
    let repo = fixture.repo();
    let blob = repo.git().blob(b"x").expect("a blob");
    repo.git().reference(&ref_name("ab000000"), blob, false, "a blob").expect("a ref");
    let id = ProposalId::parse("ab000000").expect("a name");
    assert!(!said_of(&fixture, &id, &proposal).is_empty());

    for bytes in [format!("{}\n", "1".repeat(40)), "ref: refs/heads/gone\n".to_owned()] {
        fs::write(fixture.root().join(".git").join(ref_name("ab000000")), bytes).expect("a ref");
        assert!(!said_of(&fixture, &id, &proposal).is_empty());
    }
}

#[test]
fn a_ref_file_cut_short_by_a_crash_hides_no_other_proposal() {
    let (fixture, proposal) = two_files();
    let repo = fixture.repo();
    let id = ProposalId::parse("ab000000").expect("a name");
    for bytes in ["", "1234", "\0\0\0\0"] {
        fs::write(fixture.root().join(".git").join(ref_name(&id)), bytes).expect("a ref");
        // git itself says "ignoring broken ref" of such a file.
        let listing = list(&repo).expect("a list");
        assert_eq!(listing.proposals, std::slice::from_ref(&proposal));
        assert!(matches!(load(&repo, &id), Err(Error::Git { .. })), "{bytes:?}");
    }
}

#[test]
fn a_proposal_whose_objects_are_gone_is_damaged() {
    let (fixture, proposal) = two_files();
    let sound = fixture.propose(&[("a", "other\n")]);
    let json = fixture.git(&["rev-parse", &format!("{}:proposal.json", ref_name(&proposal.id))]);
    let (folder, name) = json.trim().split_at(2);
    fs::remove_file(fixture.root().join(".git/objects").join(folder).join(name)).expect("removed");
    assert!(!said_of(&fixture, &proposal.id, &sound).is_empty());
}

#[test]
fn all_work_trees_see_the_same_proposals() {
    let (fixture, proposal) = two_files();
    let other = fixture.beside("other");
    fixture.git(&["worktree", "add", "-q", other.to_str().expect("a path")]);
    let repo = Repo::open(&other).expect("a linked work tree");
    assert_eq!(ids(&list(&repo).expect("a list").proposals), [&proposal.id]);
}

#[test]
#[should_panic(expected = "a draft changes a file")]
fn a_draft_without_a_change_is_the_callers_bug() {
    let fixture = Fixture::new(&[("a", "1\n")]);
    let _stored = create(&fixture.repo(), draft(Vec::new()));
}

#[test]
fn a_model_is_read_back_whether_it_ran_here_or_elsewhere() {
    let old = json!({"name": "tiny", "sha256": "ab"});
    let local: Model = serde_json::from_value(old.clone()).expect("as version 0.1 wrote it");
    assert_eq!(local, Model::Local { name: "tiny".into(), sha256: "ab".into() });
    assert_eq!((json!(local), local.to_string()), (old, "tiny".to_owned()));

    let remote = Model::Remote { name: "big".into(), endpoint: "https://host/v1".into() };
    assert_eq!(json!(remote), json!({"name": "big", "endpoint": "https://host/v1"}));
    assert_eq!(serde_json::from_value::<Model>(json!(remote)).expect("as it was written"), remote);
    assert_eq!(remote.to_string(), "big at https://host/v1");
    assert!(serde_json::from_value::<Model>(json!({"name": "nowhere"})).is_err());
}

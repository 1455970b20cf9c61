//! Rebases against worked examples and against a merge known in advance.

use proptest::prelude::*;

use super::*;
use crate::diff;
use crate::hunk::tests::any_text;

/// Each character is one line; `new` is what the hunks make of `base`.
fn check(base: &str, new: &str, current: &str, expect: Result<&str, (usize, ConflictReason)>) {
    let text = |lines: &str| lines.chars().map(|c| format!("{c}\n")).collect::<String>();
    let hunks = diff(&text(base), &text(new));
    let hunks: Vec<&Hunk> = hunks.iter().collect();
    let merged = rebase(&text(base), &text(current), &hunks);
    let merged = merged.map_err(|conflict| (conflict.base_line, conflict.reason));
    assert_eq!(merged, expect.map(text), "{base} to {new} onto {current}");
}

fn changed(base_line: usize) -> Result<&'static str, (usize, ConflictReason)> {
    Err((base_line, ConflictReason::Changed))
}

fn ambiguous(base_line: usize) -> Result<&'static str, (usize, ConflictReason)> {
    Err((base_line, ConflictReason::Ambiguous))
}

#[test]
fn a_hunk_moves_with_the_lines_around_it() {
    check("abcde", "abXde", "abcde", Ok("abXde"));
    check("abcde", "abXde", "123abcde", Ok("123abXde"));
    check("abcde", "abXde", "bcde", Ok("bXde"));
    check("abcde", "abXde", "abcd12", Ok("abXd12"));
    check("abcde", "abXcde", "1abcde2", Ok("1abXcde2"));
    check("abcde", "abde", "Abcde", Ok("Abde"));
    check("abcdefg", "aBcdeFg", "abc1efg", Ok("aBc1eFg"));
    check("abcdefgh", "aBcdefGh", "abcd12efgh", Ok("aBcd12efGh"));
}

#[test]
fn a_hunk_the_user_has_made_changes_nothing() {
    check("abcde", "abXde", "abXde", Ok("abXde"));
    check("abcde", "abXde", "1abXde", Ok("1abXde"));
    check("abcdefg", "aBcdeFg", "aBcdefg", Ok("aBcdeFg"));
    check("abcdefg", "abdefg", "abdefG", Ok("abdefG"));
    check("abaabcdef", "abaaabcdef", "abaaabcdeF", Ok("abaaabcdeF"));
}

#[test]
fn a_change_of_the_hunks_lines_or_of_their_neighbours_is_a_conflict() {
    check("abcde", "abXde", "abYde", changed(2));
    check("abcde", "abXde", "abde", changed(2));
    check("abcde", "abXde", "aYcde", changed(2));
    check("abcde", "abXde", "abcYe", changed(3));
    check("abcde", "abXde", "ab1cde", changed(2));
    check("abcde", "abXde", "abc1de", changed(3));
    check("abcde", "abXcde", "abYcde", changed(2));
    check("abcde", "abcdeX", "abcdeY", changed(5));
    check("abcde", "Xabcde", "Yabcde", changed(0));
    check("abcde", "abXde", "", changed(2));
    check("", "X", "Y", changed(0));
}

#[test]
fn a_change_that_may_be_read_to_touch_the_hunk_is_a_conflict() {
    // Which of the two blocks went? A merge that guesses would edit the one that is left.
    check("hxyzmxyzt", "hxYzmxyzt", "hxyzt", ambiguous(2));
    check("hxyzmxyzt", "hxyzmxYzt", "hxyzt", changed(6));
    // Which `a` is new?
    check("qabt", "qAbt", "qaabt", changed(2));
    check("qabaaat", "qabAaat", "qabaaaat", ambiguous(3));
}

#[test]
fn line_ends_survive_and_never_join_lines() {
    let check = |base: &str, new: &str, current: &str, expect: Option<&str>| {
        let hunks = diff(base, new);
        let hunks: Vec<&Hunk> = hunks.iter().collect();
        let merged = rebase(base, current, &hunks).ok();
        assert_eq!(merged.as_deref(), expect);
    };
    check("a\r\nb\r\nc\n", "A\r\nb\r\nc\n", "a\r\nb\r\nc\nd", Some("A\r\nb\r\nc\nd"));
    check("a\nb\nc\nd", "a\nb\nc\nd\n", "0\na\nb\nc\nd", Some("0\na\nb\nc\nd\n"));
    check("a\nb\nc\nd", "a\nb\nc\nd\ne", "a\nb\nc\nd\n", None);
    check("a\nb\n", "A\nb\n", "a\r\nb\r\n", None);
}

#[test]
fn hunks_of_another_base_are_invalid() {
    let hunks = diff("a\nb\n", "a\nB\n");
    let conflict = rebase("a\nx\n", "a\nb\n", &[&hunks[0]]).expect_err("not the base");
    assert!(matches!(conflict.reason, ConflictReason::Invalid(_)));
    assert_eq!((conflict.hunk_idx, conflict.base_line), (0, 1));
    let twice = rebase("a\nb\n", "a\nb\n", &[&hunks[0], &hunks[0]]).expect_err("the same twice");
    assert_eq!(twice.hunk_idx, 1);
}

#[test]
fn the_conflict_names_the_hunk_in_the_order_given() {
    let base = "a\nb\nc\nd\ne\nf\n";
    let hunks = diff(base, "A\nb\nc\nd\ne\nF\n");
    let current = "a\nb\nc\nd\ne\nUSER\n";
    let conflict = rebase(base, current, &[&hunks[1], &hunks[0]]).expect_err("both changed f");
    assert_eq!((conflict.hunk_idx, conflict.base_line), (0, 5));
    assert_eq!(
        conflict.to_string(),
        "hunk 0 (0-based) conflicts at base line 6: these lines or their neighbours have changed since"
    );
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Keep,
    Replace(Who),
    Delete(Who),
    Insert(Who),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Agent,
    User,
}

fn op() -> impl Strategy<Value = Op> {
    let who = || prop_oneof![Just(Who::Agent), Just(Who::User)];
    prop_oneof![
        6 => Just(Op::Keep),
        1 => who().prop_map(Op::Replace),
        1 => who().prop_map(Op::Delete),
        1 => who().prop_map(Op::Insert),
    ]
}

/// Returns the text after the changes of those in `whose`; all lines differ.
fn text_after(ops: &[Op], whose: &[Who]) -> String {
    let mut text = String::new();
    for (i, &op) in ops.iter().enumerate() {
        match op {
            Op::Replace(who) if whose.contains(&who) => text.push_str(&format!("{who:?} {i}\n")),
            Op::Delete(who) if whose.contains(&who) => {}
            Op::Insert(who) if whose.contains(&who) => {
                text.push_str(&format!("{who:?} {i}\nbase {i}\n"));
            }
            _ => text.push_str(&format!("base {i}\n")),
        }
    }
    text
}

/// Returns start and end of the base lines that `who` changes.
fn ranges(ops: &[Op], who: Who) -> Vec<(usize, usize)> {
    let range = |(i, &op)| match op {
        Op::Replace(by) | Op::Delete(by) if by == who => Some((i, i + 1)),
        Op::Insert(by) if by == who => Some((i, i)),
        _ => None,
    };
    ops.iter().enumerate().filter_map(range).collect()
}

fn is_subsequence(part: &[&str], whole: &str) -> bool {
    let mut whole = lines(whole).into_iter();
    part.iter().all(|&line| whole.any(|other| other == line))
}

proptest! {
    #[test]
    fn a_rebase_without_a_change_between_applies(base in any_text(), new in any_text()) {
        let hunks = diff(&base, &new);
        let hunks: Vec<&Hunk> = hunks.iter().collect();
        prop_assert_eq!(rebase(&base, &base, &hunks), Ok(new.clone()));
        prop_assert_eq!(rebase(&base, &new, &hunks), Ok(new));
    }

    #[test]
    fn changes_apart_merge_and_changes_that_touch_conflict(
        ops in prop::collection::vec(op(), 0..30),
    ) {
        let base = text_after(&ops, &[]);
        let current = text_after(&ops, &[Who::User]);
        let hunks = diff(&base, &text_after(&ops, &[Who::Agent]));
        let hunks: Vec<&Hunk> = hunks.iter().collect();
        let users = ranges(&ops, Who::User);
        let is_touched = ranges(&ops, Who::Agent).iter().any(|&(start, end)| {
            users.iter().any(|&(from, to)| from <= end && start <= to)
        });
        let merged = rebase(&base, &current, &hunks);
        if is_touched {
            let conflict = merged.expect_err("a change touches a hunk");
            prop_assert_eq!(conflict.reason, ConflictReason::Changed);
        } else {
            prop_assert_eq!(merged, Ok(text_after(&ops, &[Who::Agent, Who::User])));
        }
    }

    #[test]
    fn a_rebase_never_loses_a_line_of_the_users(
        base in any_text(), new in any_text(),
        places in prop::collection::vec((0..30_usize, any::<bool>()), 0..5),
        chosen in any::<u32>(),
    ) {
        // The user inserts lines found nowhere else, and deletes some.
        let mut current: Vec<String> = lines(&base).iter().map(|&line| line.to_owned()).collect();
        for (i, &(place, is_insertion)) in places.iter().enumerate() {
            let place = place % (current.len() + 1);
            if is_insertion {
                let joins = place > 0 && !current[place - 1].ends_with('\n');
                current.insert(place - usize::from(joins), format!("user {i}\n"));
            } else if place < current.len() {
                current.remove(place);
            }
        }
        let current = current.concat();
        let hunks = diff(&base, &new);
        let hunks: Vec<&Hunk> = (hunks.iter().enumerate())
            .filter_map(|(i, hunk)| (chosen >> (i % 32) & 1 == 1).then_some(hunk))
            .collect();
        let mine: Vec<&str> = (lines(&current).into_iter())
            .filter(|line| line.starts_with("user"))
            .collect();
        if let Ok(merged) = rebase(&base, &current, &hunks) {
            prop_assert!(is_subsequence(&mine, &merged), "{merged:?} lost one of {mine:?}");
            // What was merged is the user's text but for the hunks' own lines.
            let undone = diff(&current, &merged);
            let n_gone: usize = undone.iter().map(|hunk| hunk.base_lines.len()).sum();
            let n_may_go: usize = hunks.iter().map(|hunk| hunk.base_lines.len()).sum();
            prop_assert!(n_gone <= n_may_go);
        }
    }
}

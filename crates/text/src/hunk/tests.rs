//! Hunks against worked examples, and there and back.

use proptest::prelude::*;

use super::*;

fn hunk(base_start: usize, base_lines: &[&str], new_lines: &[&str]) -> Hunk {
    let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    Hunk { base_start, base_lines: owned(base_lines), new_lines: owned(new_lines) }
}

fn check_diff(base: &str, new: &str, expect: &[Hunk]) {
    assert_eq!(diff(base, new), expect, "{base:?} to {new:?}");
    assert_eq!(apply_hunks(base, expect), Ok(new.to_owned()));
}

#[test]
fn a_diff_is_the_fewest_lines_and_keeps_line_ends() {
    check_diff("", "", &[]);
    check_diff("a\n", "a\n", &[]);
    check_diff("", "a\nb", &[hunk(0, &[], &["a\n", "b"])]);
    check_diff("a\nb", "", &[hunk(0, &["a\n", "b"], &[])]);
    check_diff("a\nb\nc\n", "a\nB\nc\n", &[hunk(1, &["b\n"], &["B\n"])]);
    let two = [hunk(0, &["a\n"], &["A\n"]), hunk(2, &["c\n"], &["C\n"])];
    check_diff("a\nb\nc\n", "A\nb\nC\n", &two);
    check_diff("a\nb\n", "A\nB\n", &[hunk(0, &["a\n", "b\n"], &["A\n", "B\n"])]);
    check_diff("a\r\nb\n", "a\nb\n", &[hunk(0, &["a\r\n"], &["a\n"])]);
    check_diff("a\nb", "a\nb\n", &[hunk(1, &["b"], &["b\n"])]);
    check_diff("a\rb\n", "a\rc\n", &[hunk(0, &["a\rb\n"], &["a\rc\n"])]);
}

fn check_apply(base: &str, hunks: &[Hunk], expect: Result<&str, Error>) {
    assert_eq!(apply_hunks(base, hunks), expect.map(str::to_owned));
}

#[test]
fn hunks_apply_in_any_order_and_may_touch() {
    let change = [hunk(2, &["c\n"], &["C\n"]), hunk(0, &["a\n"], &[])];
    check_apply("a\nb\nc\n", &change, Ok("b\nC\n"));
    let touch = [hunk(1, &["b\n"], &["B\n"]), hunk(1, &[], &["x\n"])];
    check_apply("a\nb\n", &touch, Ok("a\nx\nB\n"));
    let at_end = [hunk(1, &["b"], &["b\n"]), hunk(2, &[], &["c"])];
    check_apply("a\nb", &at_end, Ok("a\nb\nc"));
    let instead = [hunk(1, &["b"], &[]), hunk(2, &[], &["c"])];
    check_apply("a\nb", &instead, Ok("a\nc"));
}

#[test]
fn a_hunk_of_another_text_is_refused() {
    let mismatch = |base_line| Err(Error::HunkMismatch { hunk_idx: 0, base_line });
    check_apply("a\nb\n", &[hunk(0, &["a\n", "x\n"], &[])], mismatch(1));
    check_apply("a\nb\n", &[hunk(1, &["b"], &[])], mismatch(1));
    check_apply("a\n", &[hunk(0, &["a\n", "b\n"], &[])], mismatch(1));
    check_apply("a\n", &[hunk(2, &[], &["b\n"])], mismatch(2));
    check_apply("a\n", &[hunk(usize::MAX, &["b\n"], &[])], mismatch(usize::MAX));
}

#[test]
fn hunks_that_overlap_are_refused() {
    let overlap = || Err(Error::HunksOverlap { hunk_idx: 1 });
    let twice = [hunk(0, &["a\n"], &["1\n"]), hunk(0, &["a\n"], &["2\n"])];
    check_apply("a\n", &twice, overlap());
    let same_place = [hunk(1, &[], &["1\n"]), hunk(1, &[], &["2\n"])];
    check_apply("a\n", &same_place, overlap());
    let inside = [hunk(0, &["a\n", "b\n"], &[]), hunk(1, &[], &["x\n"])];
    check_apply("a\nb\n", &inside, overlap());
}

#[test]
fn a_hunk_that_would_join_lines_is_refused() {
    let refused = |hunk_idx| Err(Error::HunkLines { hunk_idx });
    check_apply("a\nb\n", &[hunk(0, &["a\n"], &["x"])], refused(0));
    check_apply("a\nb", &[hunk(2, &[], &["c"])], refused(0));
    check_apply("a\n", &[hunk(1, &[], &["x", "y\n"])], refused(0));
    check_apply("a\n", &[hunk(1, &[], &["x\ny\n"])], refused(0));
    check_apply("a\n", &[hunk(1, &[], &[""])], refused(0));
    let open_then_more = [hunk(0, &["a"], &["b"]), hunk(1, &[], &["c"])];
    check_apply("a", &open_then_more, refused(0));
}

pub(crate) fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("a\n"), 4 => Just("b\n"), 3 => Just("\n"), 2 => Just("a\r\n"), 1 => Just("\r"),
        1 => Just("😀e\u{301}"), 1 => Just("\u{2028}"), 2 => Just("}\n"),
    ];
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_diff_applied_to_its_base_gives_the_new_text(base in any_text(), new in any_text()) {
        let hunks = diff(&base, &new);
        prop_assert_eq!(apply_hunks(&base, &hunks), Ok(new.clone()));
        prop_assert_eq!(apply_hunks(&base, hunks.iter().rev()), Ok(new.clone()));
        prop_assert_eq!(base == new, hunks.is_empty());
        for pair in hunks.windows(2) {
            prop_assert!(pair[0].base_end() < pair[1].base_start, "an equal line lies between");
        }
        for hunk in &hunks {
            let firsts = (hunk.base_lines.first(), hunk.new_lines.first());
            prop_assert_ne!(firsts.0, firsts.1, "a hunk starts with a difference");
        }
    }

    #[test]
    fn any_choice_of_hunks_applies(
        base in any_text(), new in any_text(), chosen in any::<u32>(),
    ) {
        let hunks = diff(&base, &new);
        let is_chosen = |idx: usize| chosen >> (idx % 32) & 1 == 1;
        let chosen: Vec<&Hunk> = (hunks.iter().enumerate())
            .filter_map(|(idx, hunk)| is_chosen(idx).then_some(hunk))
            .collect();
        let applied = apply_hunks(&base, chosen.iter().copied()).expect("hunks of one diff");
        let n_lines = |text: &str| lines(text).len();
        let n_new: usize = chosen.iter().map(|hunk| hunk.new_lines.len()).sum();
        let n_gone: usize = chosen.iter().map(|hunk| hunk.base_lines.len()).sum();
        prop_assert_eq!(n_lines(&applied), n_lines(&base) + n_new - n_gone);
    }
}

//! Known texts retraced, with detours.

use super::super::tests::{Random, ids};
use super::*;
use crate::{Drafter, EditDrafter, PreviousAnswer};

/// Returns how many steps a drafter needs for `target`, teacher-forced, and how many of its tokens were wrong.
fn n_steps(
    drafter: &mut dyn Drafter,
    prompt: &[TokenId],
    target: &[TokenId],
    n_draft: usize,
) -> (usize, usize) {
    let mut tokens = prompt.to_vec();
    let (mut n_steps, mut n_wrong) = (0, 0);
    while tokens.len() < prompt.len() + target.len() {
        drafter.sync(&tokens);
        let draft = drafter.propose(n_draft).tokens;
        let rest = &target[tokens.len() - prompt.len()..];
        let n_kept = draft.iter().zip(rest).take_while(|(a, b)| a == b).count();
        drafter.observe(draft.len(), n_kept);
        tokens.extend(rest.iter().take(n_kept + 1));
        n_steps += 1;
        n_wrong += draft.len() - n_kept;
    }
    (n_steps, n_wrong)
}

/// A text of lines as code has them: a break, an indent, some of few words, at times the line before once more.
fn lines(random: &mut Random, n_lines: usize) -> Vec<Vec<TokenId>> {
    let mut lines: Vec<Vec<TokenId>> = Vec::new();
    for _ in 0..n_lines {
        let repeated = lines.last().filter(|_| random.below(8) == 0).cloned();
        let words = 4 + random.below(10);
        let mut line = ids(&[0, 1 + random.below(3) as u32]);
        line.extend((0..words).map(|_| TokenId(10 + random.below(200) as u32)));
        lines.push(repeated.unwrap_or(line));
    }
    lines
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Insert,
    Delete,
    Replace,
    Token,
}

/// Changes a line in every `every`.
fn rewritten(random: &mut Random, original: &[Vec<TokenId>], every: usize, change: Change) -> Vec<TokenId> {
    let mut lines = original.to_vec();
    for idx in (every / 2..original.len()).step_by(every).rev() {
        let words =
            |random: &mut Random, n| random.tokens(n, 200).into_iter().map(|token| TokenId(token.0 + 10));
        match change {
            Change::Insert => lines.insert(idx, [ids(&[0, 1]), words(random, 8).collect()].concat()),
            Change::Delete => drop(lines.remove(idx)),
            Change::Replace => lines[idx] = [ids(&[0, 1]), words(random, 8).collect()].concat(),
            Change::Token => lines[idx][3] = TokenId(5),
        }
    }
    lines.concat()
}

#[test]
fn a_rewrite_with_ten_changed_lines_needs_few_steps() {
    let mut random = Random(12);
    let original = lines(&mut random, 200);
    let n_tokens = original.concat().len();
    assert!((1_900..2_400).contains(&n_tokens), "{n_tokens}");
    let prompt = random.tokens(50, 200);
    for (change, n_most_a_change) in
        [(Change::Insert, 11), (Change::Delete, 4), (Change::Replace, 11), (Change::Token, 2)]
    {
        let target = rewritten(&mut random, &original, 20, change);
        let mut drafter = EditDrafter::new(original.concat(), prompt.len(), MatchOdds::default());
        let (n_steps, n_wrong) = n_steps(&mut drafter, &prompt, &target, 7);
        assert!(n_steps * 10 < target.len() * 3, "{change:?}: {n_steps} steps for {} tokens", target.len());
        let n_unchanged = target.len().div_ceil(8);
        assert!(n_steps <= n_unchanged + 10 * n_most_a_change, "{change:?}: {n_steps} over {n_unchanged}");
        // Where nothing is known of a new line's tokens, a guess is wrong, but never more than one draft a step.
        assert!(n_wrong <= 7 * (10 * n_most_a_change + 20), "{change:?}: {n_wrong}");
    }
}

#[test]
fn an_unchanged_text_takes_one_step_for_each_draft_and_another_text_does_no_harm() {
    let mut random = Random(13);
    let original = lines(&mut random, 50).concat();
    let mut drafter = EditDrafter::new(original.clone(), 0, MatchOdds::default());
    assert_eq!(n_steps(&mut drafter, &[], &original, 7), (original.len().div_ceil(8), 0));

    let other: Vec<TokenId> =
        random.tokens(500, 200).into_iter().map(|token| TokenId(token.0 + 1_000)).collect();
    let mut drafter = EditDrafter::new(original, 0, MatchOdds::default());
    drafter.sync(&other);
    assert!(drafter.propose(7).odds.iter().all(|&odds| odds > 0.0));
    let mut odds = Vec::new();
    for n_tokens in 1..other.len() {
        drafter.sync(&other[..n_tokens]);
        odds = drafter.propose(7).odds;
    }
    assert!(odds.first().is_none_or(|&odds| odds < 0.05), "{odds:?}");
}

#[test]
fn the_first_of_repeated_lines_ahead_is_taken_up() {
    let check = |original: &[u32], answer: &[u32], expected: &[u32]| {
        let mut drafter = EditDrafter::new(ids(original), 2, MatchOdds::default());
        drafter.sync(&ids(&[[99, 98].as_slice(), answer].concat()));
        assert_eq!(drafter.propose(2).tokens, ids(expected), "{answer:?} of {original:?}");
    };
    let original = [1, 2, 3, 4, 0, 7, 5, 6, 0, 7, 8, 9];
    check(&original, &[], &[1, 2]);
    check(&original, &[1, 2, 3], &[4, 0]);
    // Replaced, put in, left out.
    check(&original, &[1, 50, 3], &[4, 0]);
    check(&original, &[1, 50, 51, 2, 3], &[4, 0]);
    check(&original, &[1, 4], &[0, 7]);
    check(&original, &[1, 50, 51, 0, 7], &[5, 6]);
    check(&original, &[1, 2, 3, 4, 0, 7, 50, 51, 0, 7], &[8, 9]);
    // The second line is left out, so the third is written where the second was expected.
    check(&original, &[1, 2, 3, 4, 0, 7, 8], &[9]);
    // The end.
    check(&original, &original, &[]);
    check(&[], &[1, 2], &[]);
}

#[test]
fn a_place_is_the_nearer_the_likelier() {
    let check = |original: &[TokenId], n_same: usize, new: &[u32], expected: &[TokenId]| {
        let answer = [&original[..n_same], &ids(new)].concat();
        let mut drafter = EditDrafter::new(original.to_vec(), 0, MatchOdds::default());
        drafter.sync(&answer);
        assert_eq!(drafter.propose(1).tokens, expected, "{new:?} after {n_same}");
    };
    let mut original: Vec<TokenId> = (1_000..2_000).map(TokenId).collect();
    // A run of three far ahead, one of two near by.
    original[600..603].copy_from_slice(&ids(&[1, 2, 3]));
    original[60..62].copy_from_slice(&ids(&[2, 3]));
    check(&original, 40, &[1, 2, 3], &original[62..63]);
    // A longer one far ahead is no chance any more.
    original[590..600].copy_from_slice(&ids(&[11, 12, 13, 14, 15, 16, 17, 18, 19, 20]));
    check(&original, 40, &[15, 16, 17, 18, 19, 20, 1, 2, 3], &original[603..604]);
    // As far behind as ahead: on from there.
    original[29..31].copy_from_slice(&ids(&[7, 8]));
    original[49..51].copy_from_slice(&ids(&[7, 9]));
    check(&original, 40, &[7], &ids(&[9]));
    // Behind, when a part is repeated.
    check(&original, 58, &[1_052, 1_053, 1_054], &original[55..56]);
}

#[test]
fn nothing_is_drafted_from_a_known_text_before_the_prompt_is_whole() {
    let mut drafter = PreviousAnswer::new(ids(&[7, 8, 9]), 3, MatchOdds::default());
    drafter.sync(&ids(&[1, 2]));
    assert_eq!(drafter.propose(4), Draft::default());
    drafter.sync(&ids(&[1, 2, 3]));
    assert_eq!(drafter.propose(4).tokens, ids(&[7, 8, 9]));
    drafter.sync(&ids(&[1, 2, 3, 7]));
    assert_eq!(drafter.propose(1).tokens, ids(&[8]));
    drafter.sync(&ids(&[4, 5, 6]));
    assert_eq!(drafter.propose(4).tokens, ids(&[7, 8, 9]), "another sequence starts again");
}

#[test]
fn a_drafter_learns_from_what_came_whether_or_not_it_was_asked_to_draft() {
    let original: Vec<TokenId> = (0..300).map(TokenId).collect();
    let mut drafter = EditDrafter::new(original.clone(), 0, MatchOdds::default());
    let before = drafter.odds().after(100);
    for n_tokens in 0..original.len() {
        drafter.sync(&original[..n_tokens]);
        drafter.propose(7);
    }
    let after = drafter.odds().after(100);
    assert!(after > before.max(0.98), "{before} became {after}");
    let next = EditDrafter::new(original, 0, drafter.odds().clone());
    assert_eq!(next.odds().after(100), after);
}

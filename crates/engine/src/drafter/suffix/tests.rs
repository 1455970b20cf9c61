//! The automaton against naive searches, and what is drafted from it.

use super::super::automaton::Match;
use super::super::edges::Edges;
use super::super::tests::{Random, ids};
use super::*;

fn automaton(text: &[TokenId]) -> Automaton {
    let mut automaton = Automaton::with_room_for(text.len());
    text.iter().for_each(|&token| automaton.append(token));
    automaton
}

fn suffix_drafter(corpus: &[&[TokenId]]) -> SuffixAutomaton {
    SuffixAutomaton::new(Arc::new(Corpus::new(corpus)), MatchOdds::default())
}

/// Returns the longest run that `tokens` end with and that ends before `n_text` in `text`, where it does so last.
fn naive(text: &[TokenId], n_text: usize, tokens: &[TokenId]) -> Match {
    let length =
        |end: usize| text[..end].iter().rev().zip(tokens.iter().rev()).take_while(|(a, b)| a == b).count();
    (0..n_text)
        .map(|end| Match { n_tokens: length(end), end })
        .max_by_key(|found| found.n_tokens)
        .unwrap_or_default()
}

#[test]
fn the_automaton_finds_the_longest_repeat_where_it_stood_last() {
    let mut random = Random(7);
    for round in 0..300 {
        let n_vocab = 1 + random.below(6);
        let text = random.tokens(60, n_vocab);
        let mut automaton = Automaton::with_room_for(0);
        for n_tokens in 1..=text.len() {
            automaton.append(text[n_tokens - 1]);
            let expected = naive(&text, n_tokens, &text[..n_tokens]);
            let expected = if expected.n_tokens == 0 { Match::default() } else { expected };
            let found = automaton.repeat();
            let found = if found.n_tokens == 0 { Match::default() } else { found };
            assert_eq!(found, expected, "round {round}, {:?}", &text[..n_tokens]);
        }
    }
}

#[test]
fn a_cursor_finds_the_longest_run_of_other_texts_in_the_latest_of_them() {
    let mut random = Random(8);
    for round in 0..300 {
        let n_vocab = 1 + random.below(5);
        let (first, second, other) =
            (random.tokens(30, n_vocab), random.tokens(30, n_vocab), random.tokens(50, n_vocab));
        let mut automaton = automaton(&first);
        automaton.end_text();
        second.iter().for_each(|&token| automaton.append(token));
        let mut cursor = Cursor::default();
        for n_tokens in 1..=other.len() {
            cursor = automaton.advance(cursor, other[n_tokens - 1]);
            let in_first = naive(&first, first.len(), &other[..n_tokens]);
            let in_second = naive(&second, second.len(), &other[..n_tokens]);
            let expected = match in_second.n_tokens.max(in_first.n_tokens) {
                0 => Match::default(),
                n if n > in_second.n_tokens => in_first,
                _ => Match { end: first.len() + 1 + in_second.end, ..in_second },
            };
            let found = automaton.find(cursor);
            assert_eq!(found, expected, "round {round}: {first:?}, {second:?}, {:?}", &other[..n_tokens]);
        }
    }
}

#[test]
fn edges_are_found_changed_and_copied() {
    let mut random = Random(9);
    let mut edges = Edges::with_room_for(0);
    let mut expected = std::collections::HashMap::new();
    (0..40).for_each(|_| edges.add_state());
    for _ in 0..3_000 {
        let (state, token) = (random.below(30) as u32, TokenId(random.below(150_000) as u32 / 500 * 500));
        let target = random.below(40) as u32;
        edges.set(state, token, target);
        expected.insert((state, token), target);
    }
    for state in 0..10 {
        edges.copy(state, 30 + state);
    }
    for token in (0..150_000).step_by(250).map(TokenId) {
        (0..30).for_each(|state| {
            assert_eq!(edges.target(state, token), expected.get(&(state, token)).copied());
        });
        (0..10).for_each(|state| assert_eq!(edges.target(30 + state, token), edges.target(state, token)));
    }
}

#[test]
fn what_followed_the_latest_longest_match_is_drafted() {
    let check = |corpus: &[&[u32]], tokens: &[u32], expected: &[u32]| {
        let corpus: Vec<Vec<TokenId>> = corpus.iter().map(|text| ids(text)).collect();
        let corpus: Vec<&[TokenId]> = corpus.iter().map(Vec::as_slice).collect();
        let mut drafter = suffix_drafter(&corpus);
        drafter.sync(&ids(tokens));
        let draft = drafter.propose(3);
        assert_eq!(draft.tokens, ids(expected), "{tokens:?} after {corpus:?}");
        assert_eq!(draft.odds.len(), draft.tokens.len());
    };
    check(&[], &[1, 2, 3, 4, 5, 6, 1, 2], &[3, 4, 5]);
    // The longer match, then the later one.
    check(&[], &[9, 1, 2, 7, 8, 1, 2, 5, 6, 9, 1, 2], &[7, 8, 1]);
    check(&[], &[8, 1, 2, 7, 9, 1, 2, 5, 6, 1, 2], &[5, 6, 1]);
    // One token is not enough, and nothing is nothing.
    check(&[], &[1, 2, 3, 1], &[]);
    check(&[], &[1, 2, 3], &[]);
    check(&[], &[1], &[]);
    check(&[], &[], &[]);
    // What repeats itself goes on doing so.
    check(&[], &[4, 4, 4], &[4, 4, 4]);
    check(&[], &[1, 2, 1, 2, 1], &[2, 1, 2]);
    // Other texts, never beyond their end; the later text of equals, and the sequence itself before both.
    check(&[&[5, 6, 7, 8]], &[1, 5, 6], &[7, 8]);
    check(&[&[5, 6, 7, 8], &[5, 6, 9]], &[1, 5, 6], &[9]);
    check(&[&[5, 6, 7, 8], &[1, 5, 6]], &[1, 5, 6], &[7, 8]);
    check(&[&[5, 6, 7, 8]], &[5, 6, 1, 5, 6], &[1, 5, 6]);
    check(&[&[1, 5, 6, 7, 8]], &[5, 6, 1, 5, 6], &[7, 8]);
}

#[test]
fn a_sequence_drafted_as_it_grows_gets_what_a_new_drafter_would_draft() {
    let mut random = Random(10);
    let text = random.tokens(80, 4);
    let corpus = random.tokens(80, 4);
    let mut grown = suffix_drafter(&[&corpus]);
    let mut n_tokens = 0;
    let mut n_drafted = 0;
    for _ in 0..200 {
        // Now and then it is cut back, or another sequence takes its place.
        let tokens = match random.below(8) {
            0 => random.tokens(10, 4),
            1 => text[..n_tokens / 2].to_vec(),
            _ => text[..n_tokens].to_vec(),
        };
        n_tokens = (n_tokens + random.below(3)) % text.len();
        let mut new = suffix_drafter(&[&corpus]);
        grown.sync(&tokens);
        new.sync(&tokens);
        let drafted = grown.propose(6).tokens;
        n_drafted += drafted.len();
        assert_eq!(drafted, new.propose(6).tokens, "{tokens:?}");
    }
    assert!(n_drafted > 300, "{n_drafted}");
}

#[test]
fn memory_is_bounded() {
    // What the constant's words promise.
    const BYTES_PER_TOKEN: usize = 256;
    let n_max = 2_000;
    let mut random = Random(11);
    // Of one token; of two; of many; and the text that takes most states a token.
    let worst: Vec<TokenId> =
        (0..10 * n_max as u32).map(|idx| TokenId(u32::from(idx % n_max as u32 > 0))).collect();
    let texts = [ids(&[3; 20_000]), random.tokens(20_000, 2), random.tokens(20_000, 50_000), worst];
    for text in texts {
        let mut drafter =
            SuffixAutomaton::with_limit(Arc::new(Corpus::new(&[])), MatchOdds::default(), n_max);
        for n_tokens in (0..=text.len()).step_by(500) {
            drafter.sync(&text[..n_tokens]);
            let most = n_max * BYTES_PER_TOKEN + n_tokens * size_of::<TokenId>();
            assert!(drafter.n_bytes() <= most, "{} bytes after {n_tokens} tokens", drafter.n_bytes());
        }
        let corpus = Corpus::with_limit(&[&text, &text], n_max);
        assert!(corpus.n_bytes() <= n_max * BYTES_PER_TOKEN, "{}", corpus.n_bytes());
    }
}

#[test]
fn the_older_half_is_forgotten_and_the_newer_is_not() {
    let n_max = 100;
    let mut drafter = SuffixAutomaton::with_limit(Arc::new(Corpus::new(&[])), MatchOdds::default(), n_max);
    let mut tokens: Vec<TokenId> = (0..130).map(TokenId).collect();
    let mut drafted_after = |first: u32| {
        tokens.extend([TokenId(first), TokenId(first + 1)]);
        drafter.sync(&tokens);
        drafter.propose(1).tokens
    };
    assert_eq!(drafted_after(90), ids(&[92]));
    assert_eq!(drafted_after(10), ids(&[]));

    let texts: [&[TokenId]; 2] = [&ids(&[1, 2, 3, 4, 5, 6]), &ids(&[7, 8, 9])];
    let corpus = Arc::new(Corpus::with_limit(&texts, 8));
    let mut drafter = SuffixAutomaton::new(corpus, MatchOdds::default());
    let mut drafted_after = |tokens: &[u32]| {
        drafter.sync(&ids(tokens));
        drafter.propose(1).tokens
    };
    assert_eq!(drafted_after(&[7, 8]), ids(&[9]));
    assert_eq!(drafted_after(&[4, 5]), ids(&[6]));
    assert_eq!(drafted_after(&[2, 3]), ids(&[]));
}

//! Drafters beside each other, and what their tests have in common.

use std::sync::Arc;

use super::ledger::{Growth, Ledger};
use super::*;

/// Numbers that look random and are the same each time.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Returns a number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as usize % n
    }

    pub(super) fn tokens(&mut self, n_tokens: usize, n_vocab: usize) -> Vec<TokenId> {
        (0..n_tokens).map(|_| TokenId(self.below(n_vocab) as u32)).collect()
    }
}

pub(super) fn ids(tokens: &[u32]) -> Vec<TokenId> {
    tokens.iter().copied().map(TokenId).collect()
}

#[test]
fn the_ledger_counts_a_draft_up_to_its_first_wrong_token() {
    let mut ledger = Ledger::new(MatchOdds::default());
    assert_eq!(ledger.sync(&ids(&[1])), Growth::Grown { n_seen: 0 });
    let draft = ledger.draft(2, ids(&[7, 8, 9]));
    let before = ledger.odds().clone();
    assert_eq!(draft.odds, [before.after(2), before.after(3), before.after(4)]);
    // What is synced again settles nothing.
    assert_eq!(ledger.sync(&ids(&[1])), Growth::Grown { n_seen: 1 });
    assert_eq!(ledger.odds().after(2), before.after(2));
    assert_eq!(ledger.sync(&ids(&[1, 7, 5, 9])), Growth::Grown { n_seen: 1 });
    let after = ledger.odds().clone();
    assert!(after.after(2) > before.after(2) && after.after(3) < before.after(3));
    assert_eq!(after.after(4), before.after(4), "nobody knows whether the third was right");
    // A draft counts once, and not for another sequence.
    ledger.draft(2, ids(&[7]));
    assert_eq!(ledger.sync(&ids(&[1, 7])), Growth::Other);
    ledger.sync(&ids(&[1, 7, 8]));
    assert_eq!(ledger.odds().after(2), after.after(2));
}

#[test]
fn the_most_promising_draft_is_taken_and_counted_for_its_kind() {
    let original: Vec<TokenId> = (0..100).map(TokenId).collect();
    let previous = PreviousAnswer::new(ids(&[0, 1, 2]), 2, MatchOdds::default());
    let edit = EditDrafter::new(original.clone(), 2, MatchOdds::default());
    let suffix = SuffixAutomaton::new(Arc::new(Corpus::new(&[])), MatchOdds::default());
    let mut combined = Combined::new(vec![Box::new(previous), Box::new(edit), Box::new(suffix)]);
    let mut counts = [(0, 0); 3];
    let mut observe = |combined: &mut Combined, n_drafted: usize, n_kept: usize| {
        let count = &mut counts[combined.kind() as usize];
        *count = (count.0 + n_drafted, count.1 + n_kept);
        combined.observe(n_drafted, n_kept);
    };
    let mut tokens = ids(&[500, 501]);
    combined.sync(&tokens);
    // As good as the edit drafter's, and more trusted.
    assert_eq!(combined.propose(3).tokens, ids(&[0, 1, 2]));
    assert_eq!(combined.kind(), DrafterKind::PreviousAnswer);
    observe(&mut combined, 3, 2);
    // Longer.
    assert_eq!(combined.propose(5).tokens, ids(&[0, 1, 2, 3, 4]));
    observe(&mut combined, 5, 5);
    // Neither text goes on, the sequence's own does.
    tokens.extend(ids(&[600, 601, 602, 603, 604, 605, 600, 601, 602]));
    combined.sync(&tokens);
    assert_eq!(combined.propose(3).tokens, ids(&[603, 604, 605]));
    observe(&mut combined, 2, 0);
    assert_eq!(counts, [(3, 2), (5, 5), (2, 0)]);
    for (idx, kind) in DrafterKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, idx);
        assert!(combined.drafters().get(idx).is_none_or(|drafter| drafter.kind() == kind));
    }
}

#[test]
fn a_draft_is_worth_the_tokens_that_will_be_kept() {
    let mut draft = Draft { tokens: ids(&[1, 2, 3]), odds: vec![0.5, 0.5, 1.0] };
    assert_eq!(draft.n_expected(), 1.0);
    draft.truncate(1);
    assert_eq!((draft.n_expected(), draft.tokens.len()), (0.5, 1));
    assert_eq!(Draft::default().n_expected(), 0.0);
}

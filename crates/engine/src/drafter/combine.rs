//! Several drafters as one: at each step the proposal that promises most.
//!
//! In: drafters in the order of trust. Out: the best draft; how many tokens of each kind were drafted and kept.

use crate::TokenId;
use crate::{Draft, Drafter, DrafterKind, MatchOdds};

/// How many tokens were drafted and kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftCounts {
    /// Drafted tokens that a step verified.
    pub n_drafted: u64,
    /// Those of them that were kept.
    pub n_kept: u64,
}

/// Asks several drafters and takes the proposal of which most tokens will be kept on average.
pub struct Combined {
    drafters: Vec<Box<dyn Drafter>>,
    /// The one whose proposal was taken last.
    chosen: usize,
    counts: [DraftCounts; DrafterKind::ALL.len()],
}

impl Combined {
    /// Combines `drafters`, the most trusted first: of two proposals that promise as much, the first is taken.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(drafters: Vec<Box<dyn Drafter>>) -> Self {
        assert!(!drafters.is_empty(), "nothing to combine");
        Self { drafters, chosen: 0, counts: Default::default() }
    }

    /// Returns how many tokens drafters of `kind` have drafted here, and how many were kept.
    pub fn counts(&self, kind: DrafterKind) -> DraftCounts {
        self.counts[kind as usize]
    }

    /// Returns the combined drafters, to be asked for their [`odds`](Drafter::odds).
    pub fn drafters(&self) -> &[Box<dyn Drafter>] {
        &self.drafters
    }
}

impl Drafter for Combined {
    fn sync(&mut self, tokens: &[TokenId]) {
        self.drafters.iter_mut().for_each(|drafter| drafter.sync(tokens));
    }

    fn propose(&mut self, n_max: usize) -> Draft {
        let mut best = Draft::default();
        let mut n_best = -1.0;
        // All are asked, so that all learn from what comes.
        for (idx, drafter) in self.drafters.iter_mut().enumerate() {
            let draft = drafter.propose(n_max);
            let n_expected = draft.n_expected();
            if n_expected > n_best {
                (best, n_best, self.chosen) = (draft, n_expected, idx);
            }
        }
        best
    }

    fn observe(&mut self, n_drafted: usize, n_kept: usize) {
        let counts = &mut self.counts[self.kind() as usize];
        counts.n_drafted += n_drafted as u64;
        counts.n_kept += n_kept as u64;
        self.drafters[self.chosen].observe(n_drafted, n_kept);
    }

    fn kind(&self) -> DrafterKind {
        self.drafters[self.chosen].kind()
    }

    fn odds(&self) -> &MatchOdds {
        self.drafters[self.chosen].odds()
    }
}

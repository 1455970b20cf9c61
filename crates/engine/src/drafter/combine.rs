//! Several drafters as one: at each step the proposal that promises most.
//!
//! In: drafters in the order of trust. Out: the best draft, and of which kind it is.

use crate::TokenId;
use crate::{Draft, Drafter, DrafterKind, MatchOdds};

/// Asks several drafters and takes the proposal of which most tokens will be kept on average.
pub struct Combined {
    drafters: Vec<Box<dyn Drafter>>,
    /// The one whose proposal was taken last.
    chosen: usize,
}

impl Combined {
    /// Combines `drafters`, the most trusted first: of two proposals that promise as much, the first is taken.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(drafters: Vec<Box<dyn Drafter>>) -> Self {
        assert!(!drafters.is_empty(), "nothing to combine");
        Self { drafters, chosen: 0 }
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
        self.drafters[self.chosen].observe(n_drafted, n_kept);
    }

    fn kind(&self) -> DrafterKind {
        self.drafters[self.chosen].kind()
    }

    fn odds(&self) -> &MatchOdds {
        self.drafters[self.chosen].odds()
    }
}

//! Which snippets a context has, and in which order.
//!
//! In: the context so far, and what it could have, ranked. Out: the next context.
//! Never: moves or drops a snippet whose file still says the same, unless something near the cursor does not fit otherwise.

use std::collections::HashSet;

use super::{Context, Snippet};

/// How much a snippet is worth, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Imported by its name, and used near the cursor.
    ImportedNear,
    /// Of an imported or an open file, or of the document's other parts, and used near the cursor.
    Near,
    /// Imported by its name.
    Imported,
    /// Of a module that is imported whole.
    OfModule,
    /// Nothing asks for it here. Where it was chosen at another place, it stays.
    Unasked,
}

/// Something a context could have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) rank: Rank,
    pub(super) path: String,
    pub(super) text: String,
}

/// A new context leaves a quarter of its budget for what will be added behind it.
const ROOM: usize = 4;

impl Context {
    /// Returns the context that follows this one, given all that it could have.
    pub(super) fn next(&self, mut candidates: Vec<Candidate>, n_max_bytes: usize) -> Self {
        // Stable: within a rank the order is that of the finder.
        candidates.sort_by_key(|candidate| candidate.rank);
        let mut found = HashSet::new();
        candidates.retain(|candidate| found.insert((candidate.path.clone(), candidate.text.clone())));
        let mut next = Self { tokens: Default::default(), ..self.clone() };
        next.snippets.retain(|snippet| candidates.iter().any(|candidate| candidate.is(snippet)));
        let is_new = next.snippets.is_empty();
        let new: Vec<_> = candidates
            .iter()
            .filter(|candidate| candidate.rank < Rank::Unasked)
            .filter(|candidate| !next.snippets.iter().any(|snippet| candidate.is(snippet)))
            .cloned()
            .collect();
        let budget = if is_new { n_max_bytes - n_max_bytes / ROOM } else { n_max_bytes };
        let missing = next.add(new, budget);
        if !is_new && missing.is_some_and(|rank| rank <= Rank::Near) {
            next.snippets.clear();
            candidates.retain(|candidate| candidate.rank < Rank::Unasked);
            next.add(candidates, n_max_bytes - n_max_bytes / ROOM);
        }
        next
    }

    /// Adds what fits, the best nearest to the window; returns the rank of the best that does not.
    fn add(&mut self, candidates: Vec<Candidate>, n_max_bytes: usize) -> Option<Rank> {
        let mut n_bytes = self.n_bytes();
        let (mut chosen, mut missing) = (Vec::new(), None);
        for candidate in candidates {
            if n_bytes + candidate.text.len() <= n_max_bytes {
                n_bytes += candidate.text.len();
                chosen.push(candidate);
            } else {
                missing = missing.or(Some(candidate.rank));
            }
        }
        // Files stand together, each where its best snippet is.
        let mut paths: Vec<&str> = Vec::new();
        for candidate in &chosen {
            if !paths.contains(&candidate.path.as_str()) {
                paths.push(&candidate.path);
            }
        }
        for path in paths.into_iter().rev() {
            let of_file = chosen.iter().filter(|candidate| candidate.path == path);
            self.snippets.extend(
                of_file
                    .map(|candidate| Snippet { path: candidate.path.clone(), text: candidate.text.clone() }),
            );
        }
        missing
    }
}

impl Candidate {
    fn is(&self, snippet: &Snippet) -> bool {
        self.path == snippet.path && self.text == snippet.text
    }
}

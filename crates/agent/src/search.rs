//! Candidates for a fix, the most promising first.
//!
//! In: the files and where to look. Out: a stream of [`Candidate`]s that parse: when the ranked edits are used up, the
//! model writes whole lines again, a different way each round, until it has had enough rounds.
//! Never: runs a test, writes a file.
//!
//! Two arms. The first asks the model once for each suspicious function how likely it finds every token that stands
//! there and what it would rather have put; edits are then ranked without any further call, by the sum of
//!
//! - 0.35 · (logprob of the first token that differs − logprob of the token that stood there)
//! - the prior of the edit's kind (`mutate`)
//! - 0.05 · the surprisal of the line
//! - −1.5 in a string literal, −1 a call away from the test, 3 where the failing output names the line
//!
//! On 47 single-line bugs of HumanEvalFix (Python), with the default model and the bug's function known, the first 10
//! candidates mend 27 and the first 100 mend 34; without the model's part of the ranking it is 17 and 29. (30 of the
//! 47 were looked at while the weights were set; on the other 17 it is 9 and 13, without the model 9 and 11.) The
//! second arm samples whole lines: 5 of 19, all of which the first arm mends too, but it needs no grammar.

mod edits;
mod lines;
mod windows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use engine::{CancelToken, Engine};
use syntax::{Language, SyntaxTree};

use crate::candidate::Candidate;
use crate::locate::{SourceFile, Suspects};
use windows::Window;

/// Most functions looked at; the nearest to the failing test come first.
const N_MAX_PLACES: usize = 12;

/// A stream of candidates.
pub struct Search<'a> {
    engine: &'a Engine,
    files: &'a [SourceFile],
    windows: Vec<Window>,
    ranked: VecDeque<Candidate>,
    lines: lines::LineArm,
    seen: BTreeSet<(usize, String)>,
    /// Whether each file parses as it is; asked once a file has a candidate.
    is_valid: BTreeMap<usize, bool>,
}

impl<'a> Search<'a> {
    /// Asks the model about every suspicious function and ranks the edits.
    ///
    /// # Errors
    /// Those of the engine that are nobody's choice. A cancelled search ranks what it knew.
    pub fn new(
        engine: &'a Engine,
        files: &'a [SourceFile],
        suspects: &Suspects,
        seed: u64,
        cancel: &CancelToken,
    ) -> Result<Self, engine::Error> {
        let mut windows: Vec<Window> = suspects
            .places
            .iter()
            .take(N_MAX_PLACES)
            .filter_map(|place| Window::new(engine, files, suspects, place))
            .collect();
        let mut ranked = Vec::new();
        let words: BTreeSet<&str> = files.iter().flat_map(|file| words(&file.text)).collect();
        for window in &mut windows {
            if cancel.is_cancelled() {
                break;
            }
            ranked.extend(edits::edits(engine, &files[window.file_idx], &words, window, cancel)?);
        }
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        tracing::debug!(n_places = windows.len(), n_candidates = ranked.len(), "edits ranked");
        let lines = lines::LineArm::new(&windows, seed);
        Ok(Self {
            engine,
            files,
            windows,
            ranked: ranked.into(),
            lines,
            seen: BTreeSet::new(),
            is_valid: BTreeMap::new(),
        })
    }

    /// Returns how many ranked edits are left, those that do not parse included.
    pub fn n_ranked(&self) -> usize {
        self.ranked.len()
    }

    /// Returns the next candidate, or `None` when there is nothing to look at or the search is cancelled.
    ///
    /// # Errors
    /// As [`Search::new`].
    pub fn next(&mut self, cancel: &CancelToken) -> Result<Option<(Candidate, String)>, engine::Error> {
        while !cancel.is_cancelled() {
            let candidate = match self.ranked.pop_front() {
                Some(candidate) => candidate,
                None => match self.lines.next(self.engine, self.files, &self.windows, cancel)? {
                    lines::Next::Candidate(candidate) => candidate,
                    lines::Next::Nothing => continue,
                    lines::Next::End => return Ok(None),
                },
            };
            let text = candidate.apply(&self.files[candidate.file_idx]);
            if self.parses(candidate.file_idx, &text) && self.seen.insert((candidate.file_idx, text.clone()))
            {
                return Ok(Some((candidate, text)));
            }
        }
        Ok(None)
    }

    /// Returns whether an edited file parses; one that does not as it is, or has no grammar, always does.
    fn parses(&mut self, file_idx: usize, edited: &str) -> bool {
        let file = &self.files[file_idx];
        let Some(language) = Language::of(Path::new(&file.path)) else {
            return true;
        };
        let is_valid = |text: &str| {
            SyntaxTree::parse(language, &text.into(), Duration::MAX).is_none_or(|tree| tree.is_valid())
        };
        !*self.is_valid.entry(file_idx).or_insert_with(|| is_valid(&file.text)) || is_valid(edited)
    }
}

/// Returns the words of a text: runs of letters, digits and underscores that begin with no digit.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
}

//! Candidates for a fix, the most promising first.
//!
//! In: the files and where to look. Out: a stream of [`Candidate`]s that parse, until every arm has had its rounds.
//! Never: runs a test, writes a file.
//!
//! Three arms. The first asks the engine's model once for each suspicious function how likely it finds every token
//! that stands there and what it would rather have put; edits are then ranked without any further call, by the sum of
//!
//! - 0.35 · (logprob of the first token that differs − logprob of the token that stood there)
//! - the prior of the edit's kind (`mutate`)
//! - 0.05 · the surprisal of the line
//! - −1.5 in a string literal, −1 a call away from the test, 3 where the failing output names the line
//!
//! On 47 single-line bugs of HumanEvalFix (Python), with the default model and the bug's function known, the first 10
//! candidates mend 27 and the first 100 mend 34; without the model's part of the ranking it is 17 and 29. (30 of the
//! 47 were looked at while the weights were set; on the other 17 it is 9 and 13, without the model 9 and 11.) The
//! second arm samples whole lines: 5 of 19, all of which the first arm mends too, but it needs no grammar. The third
//! has a model that can be talked to write whole functions.
//!
//! With an engine, the second and the third arm take turns once the ranked edits are used up. Without one there is a
//! model elsewhere, and a large one: it is asked first, and a dozen edits are tried before it is asked again.

mod edits;
mod lines;
mod reply;
mod rewrites;
mod windows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use engine::CancelToken;
use syntax::{Language, SyntaxTree};

use crate::Error;
use crate::author::Models;
use crate::candidate::Candidate;
use crate::evidence::TestOutcome;
use crate::locate::{Place, SourceFile, Suspects};
use crate::mutate::Kind;
use windows::Window;

/// Most functions looked at; the nearest to the failing test come first.
const N_MAX_PLACES: usize = 12;
/// Edits tried between two functions of a model elsewhere. One answer of a large model is worth more than so many:
/// the ranking by kind alone mends 17 of 47 within 10, and a test takes less time than an answer.
const N_EDITS_BETWEEN: usize = 12;

/// How the test fails.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// The command.
    pub test_command: &'a str,
    /// What it prints.
    pub output: &'a str,
}

/// A stream of candidates.
pub struct Search<'a> {
    models: Models<'a>,
    files: &'a [SourceFile],
    windows: Vec<Window>,
    ranked: VecDeque<Candidate>,
    /// Ranked edits since a function was last asked for.
    n_edits: usize,
    /// `None` once it has had its rounds, as below.
    lines: Option<lines::LineArm>,
    rewrites: Option<rewrites::RewriteArm>,
    is_lines_turn: bool,
    seen: BTreeSet<(usize, String)>,
    /// Whether each file parses as it is; asked once a file has a candidate.
    is_valid: BTreeMap<usize, bool>,
}

/// Whose candidate is next.
enum Turn {
    Ranked,
    Line,
    Rewrite,
    End,
}

impl<'a> Search<'a> {
    /// Asks the engine about every suspicious function and ranks the edits.
    ///
    /// # Errors
    /// [`Error::Engine`], for what is nobody's choice. A cancelled search ranks what it knew.
    pub fn new(
        models: Models<'a>,
        files: &'a [SourceFile],
        suspects: &Suspects,
        failure: Failure<'_>,
        seed: u64,
        cancel: &CancelToken,
    ) -> Result<Self, Error> {
        let mut windows: Vec<Window> = suspects
            .places
            .iter()
            .take(N_MAX_PLACES)
            .filter_map(|place| Window::new(models.engine, files, suspects, place))
            .collect();
        let mut ranked = Vec::new();
        let words: BTreeSet<&str> = files.iter().flat_map(|file| words(&file.text)).collect();
        for window in &mut windows {
            if cancel.is_cancelled() {
                break;
            }
            let edits = edits::edits(models.engine, &files[window.file_idx], &words, window, cancel);
            ranked.extend(edits.map_err(Error::Engine)?);
        }
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        tracing::debug!(n_places = windows.len(), n_candidates = ranked.len(), "edits ranked");
        let lines = models.engine.map(|_| lines::LineArm::new(&windows, seed));
        let rewrites = models.author.map(|_| rewrites::RewriteArm::new(files, suspects, failure, seed));
        Ok(Self {
            models,
            files,
            windows,
            ranked: ranked.into(),
            n_edits: N_EDITS_BETWEEN,
            lines,
            rewrites,
            is_lines_turn: true,
            seen: BTreeSet::new(),
            is_valid: BTreeMap::new(),
        })
    }

    /// Returns how many ranked edits are left, those that do not parse included.
    pub fn n_ranked(&self) -> usize {
        self.ranked.len()
    }

    /// Returns the next candidate, or `None` when there is nothing to look at or the search is cancelled. `asking` is
    /// told which function is about to be asked for, which may take a while.
    ///
    /// # Errors
    /// [`Error::Engine`], [`Error::Author`].
    pub fn next(
        &mut self,
        asking: &mut dyn FnMut(&Place),
        cancel: &CancelToken,
    ) -> Result<Option<(Candidate, String)>, Error> {
        while !cancel.is_cancelled() {
            let candidate = match self.turn() {
                Turn::Ranked => self.ranked.pop_front(),
                Turn::Line => self.line(cancel)?,
                Turn::Rewrite => self.rewrite(asking, cancel)?,
                Turn::End => return Ok(None),
            };
            let Some(candidate) = candidate else {
                continue;
            };
            let text = candidate.apply(&self.files[candidate.file_idx]);
            if self.parses(candidate.file_idx, &text) && self.seen.insert((candidate.file_idx, text.clone()))
            {
                return Ok(Some((candidate, text)));
            }
        }
        Ok(None)
    }

    /// Hears how the candidate that was returned last failed.
    pub fn learn(&mut self, candidate: &Candidate, outcome: &TestOutcome) {
        if let (Kind::Rewrite, Some(rewrites)) = (candidate.kind, &mut self.rewrites) {
            rewrites.learn(candidate, outcome);
        }
    }

    fn turn(&mut self) -> Turn {
        if self.models.engine.is_none() && self.rewrites.is_some() && self.n_edits >= N_EDITS_BETWEEN {
            self.n_edits = 0;
            return Turn::Rewrite;
        }
        if !self.ranked.is_empty() {
            self.n_edits += 1;
            return Turn::Ranked;
        }
        self.is_lines_turn = !self.is_lines_turn;
        match (&self.lines, &self.rewrites) {
            (None, None) => Turn::End,
            (Some(_), None) => Turn::Line,
            (None, Some(_)) => Turn::Rewrite,
            (Some(_), Some(_)) if self.is_lines_turn => Turn::Line,
            (Some(_), Some(_)) => Turn::Rewrite,
        }
    }

    fn line(&mut self, cancel: &CancelToken) -> Result<Option<Candidate>, Error> {
        let (Some(engine), Some(lines)) = (self.models.engine, &mut self.lines) else {
            return Ok(None);
        };
        match lines.next(engine, self.files, &self.windows, cancel).map_err(Error::Engine)? {
            Next::Candidate(candidate) => return Ok(Some(candidate)),
            Next::Nothing => {}
            Next::End => self.lines = None,
        }
        Ok(None)
    }

    fn rewrite(
        &mut self,
        asking: &mut dyn FnMut(&Place),
        cancel: &CancelToken,
    ) -> Result<Option<Candidate>, Error> {
        let (Some(author), Some(rewrites)) = (self.models.author, &mut self.rewrites) else {
            return Ok(None);
        };
        match rewrites.next(author, self.files, asking, cancel)? {
            Next::Candidate(candidate) => return Ok(Some(candidate)),
            Next::Nothing => {}
            Next::End => self.rewrites = None,
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

/// What an arm has to offer.
enum Next {
    Candidate(Candidate),
    /// This turn gave nothing; there may be more.
    Nothing,
    End,
}

/// Returns the words of a text: runs of letters, digits and underscores that begin with no digit.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests;

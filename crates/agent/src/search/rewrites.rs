//! The third arm: a model that can be talked to is shown the failure and writes the whole function again.
//!
//! In: suspicious functions and how the test fails. Out: candidates over a function's bytes.
//! Never: shows a model more than bounded parts of the failure, of the test and of the file.
//!
//! The first round is greedy, the later ones are sampled; every other one tells what was tried last and how it failed.
//! Whole functions and not diffs: small models get few diffs well-formed, and a reply can be told apart by parsing it.

use std::collections::BTreeMap;
use std::path::Path;

use engine::{CancelToken, Message, Role, Sampling};
use syntax::Language;

use super::reply::Original;
use super::{Failure, Next};
use crate::Error;
use crate::author::{Answer, Author};
use crate::candidate::Candidate;
use crate::evidence::TestOutcome;
use crate::function;
use crate::locate::{Place, SourceFile, Suspects};
use crate::mutate::Kind;

/// Rounds over all functions before the arm ends. Correct patches come early in the order of samples
/// (arXiv 2506.13186).
const N_MAX_ROUNDS: u64 = 8;
/// Longest function that is asked for: about 2,500 tokens to read and as many to write.
const N_MAX_FUNCTION_BYTES: usize = 8192;
/// Most bytes shown of what stands before the function.
const N_MAX_CONTEXT_BYTES: usize = 2048;
/// Most bytes shown of the failing test's output; of an attempt's it is a third.
const N_MAX_OUTPUT_BYTES: usize = 3072;
/// Failing tests shown, and most bytes of each.
const N_MAX_TESTS: usize = 2;
const N_MAX_TEST_BYTES: usize = 1536;
/// Beside a rewritten function a reply may have so many bytes, reasoning above all.
const N_MAX_REPLY_BYTES: usize = 64 << 10;

pub(super) struct RewriteArm {
    places: Vec<Place>,
    /// What all questions begin with, so that a server computes it once.
    preamble: String,
    at: usize,
    round: u64,
    seed: u64,
    /// The last rewrite of each place that failed, and what the test said.
    failed: BTreeMap<usize, (String, String)>,
    /// The place of the candidate that was returned last.
    place_idx: usize,
}

impl RewriteArm {
    pub(super) fn new(files: &[SourceFile], suspects: &Suspects, failure: Failure<'_>, seed: u64) -> Self {
        let fits = |place: &&Place| place.function.bytes.len() <= N_MAX_FUNCTION_BYTES;
        let mut places: Vec<Place> =
            suspects.places.iter().take(super::N_MAX_PLACES).filter(fits).cloned().collect();
        let is_mentioned = |place: &Place| {
            suspects.mentions.iter().any(|mention| {
                mention.file_idx == place.file_idx && place.function.lines.contains(&mention.line)
            })
        };
        places.sort_by_key(|place| (place.depth, !is_mentioned(place)));
        let preamble = preamble(files, suspects, failure);
        Self { places, preamble, at: 0, round: 0, seed, failed: BTreeMap::new(), place_idx: 0 }
    }

    /// Asks for the next function; `asking` is told which.
    pub(super) fn next(
        &mut self,
        author: &dyn Author,
        files: &[SourceFile],
        asking: &mut dyn FnMut(&Place),
        cancel: &CancelToken,
    ) -> Result<Next, Error> {
        if self.at == self.places.len() {
            self.at = 0;
            self.round += 1;
        }
        let Some(place) = self.places.get(self.at).filter(|_| self.round < N_MAX_ROUNDS) else {
            return Ok(Next::End);
        };
        self.place_idx = self.at;
        let draw = self.round * self.places.len() as u64 + self.at as u64;
        self.at += 1;
        asking(place);
        let file = &files[place.file_idx];
        let original = Original {
            language: Language::of(Path::new(&file.path)).filter(|language| function::is_known(*language)),
            name: &place.function.name,
            text: &file.text,
            bytes: place.function.bytes.clone(),
        };
        let sampling = if self.round == 0 {
            Sampling::greedy()
        } else {
            let seed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(draw);
            Sampling { temperature: 0.8, top_k: 0, top_p: 0.95, seed }
        };
        let shown = [original.indent(), original.function()].concat();
        let mut hear = |reply: &str| {
            let is_closed = reply.trim_end().ends_with("```");
            reply.len() < N_MAX_REPLY_BYTES && !(is_closed && original.rewritten(reply).is_some())
        };
        let messages = self.messages(&original, &file.path, &shown);
        let reply = match author.answer(messages, sampling, &shown, &mut hear, cancel)? {
            Answer::Text(reply) => reply,
            Answer::TooLong | Answer::Cancelled => return Ok(Next::Nothing),
        };
        tracing::debug!(round = self.round, n_bytes = reply.len(), "a function was written again");
        let Some(new_text) = original.rewritten(&reply) else {
            return Ok(Next::Nothing);
        };
        let n_same =
            original.function().lines().zip(new_text.lines()).take_while(|(old, new)| old == new).count();
        Ok(Next::Candidate(Candidate {
            file_idx: place.file_idx,
            line: place.function.lines.start + n_same,
            kind: Kind::Rewrite,
            bytes: place.function.bytes.clone(),
            new_text,
            score: 0.0,
        }))
    }

    /// Hears how the candidate failed that was returned last.
    pub(super) fn learn(&mut self, candidate: &Candidate, outcome: &TestOutcome) {
        let output = shortened(&outcome.output, N_MAX_OUTPUT_BYTES / 3);
        self.failed.insert(self.place_idx, (candidate.new_text.clone(), output));
    }

    fn messages(&self, original: &Original<'_>, path: &str, shown: &str) -> Vec<Message> {
        let language = original.language.map_or("", Language::name);
        let line = original.text[..original.bytes.start].rfind('\n').map_or(0, |at| at + 1);
        let context = ending(original.text[..line].trim_end(), N_MAX_CONTEXT_BYTES);
        let mut question = self.preamble.clone();
        if !context.is_empty() {
            question += &format!("Before the function, in `{path}`:\n{}", fenced(language, context));
        }
        question += &format!(
            "The fault is probably in this function of `{path}`:\n{}Write the whole function again, corrected, in one \
             code block and without a word more. Keep its name and parameters; change as little as you can.",
            fenced(language, shown)
        );
        let mut messages = vec![Message::new(Role::User, question)];
        if let Some((attempt, output)) = self.failed.get(&self.place_idx).filter(|_| self.round % 2 == 1) {
            let attempt = [original.indent(), attempt].concat();
            messages.push(Message::new(Role::Assistant, fenced(language, &attempt)));
            let again = format!(
                "With that the test still fails:\n{}Write the whole function again, differently.",
                fenced("", output)
            );
            messages.push(Message::new(Role::User, again));
        }
        messages
    }
}

fn preamble(files: &[SourceFile], suspects: &Suspects, failure: Failure<'_>) -> String {
    let Failure { test_command, output } = failure;
    let output = shortened(output, N_MAX_OUTPUT_BYTES);
    let mut text = format!("`{test_command}` fails:\n{}", fenced("", &output));
    for test in suspects.tests.iter().take(N_MAX_TESTS) {
        let file = &files[test.file_idx];
        let language = Language::of(Path::new(&file.path)).map_or("", Language::name);
        let source = shortened(&file.text[test.function.bytes.clone()], N_MAX_TEST_BYTES);
        text += &format!("The test, in `{}`:\n{}", file.path, fenced(language, &source));
    }
    text
}

/// Returns a code block, and an empty line.
fn fenced(language: &str, text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}{language}\n{}\n{fence}\n\n", text.trim_end())
}

/// Returns a text without its middle, if it is long; whole lines of its beginning and twice as many bytes of its end.
fn shortened(text: &str, n_max_bytes: usize) -> String {
    if text.len() <= n_max_bytes {
        return text.to_owned();
    }
    let head = (0..=n_max_bytes / 3).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default();
    let head = text[..head].rfind('\n').map_or("", |at| &text[..at]);
    let tail = ending(text, n_max_bytes * 2 / 3);
    format!("{head}\n[…]\n{tail}")
}

/// Returns the last lines of a text that fit.
fn ending(text: &str, n_max_bytes: usize) -> &str {
    let least = text.len().saturating_sub(n_max_bytes);
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    starts.into_iter().find(|&at| at >= least).map_or("", |at| &text[at..])
}

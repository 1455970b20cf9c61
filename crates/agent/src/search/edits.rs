//! The first arm: every small edit of every suspicious line, ranked by one look of the model, or without one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine::{CancelToken, Engine, Priority, Score, ScoreRequest, TokenId};

use super::windows::{Line, Window, tokens_of};
use super::words;
use crate::candidate::Candidate;
use crate::locate::SourceFile;
use crate::mutate::{Kind, Mutation, is_known_word, mutations};

/// Alternatives asked of the model for each token.
const N_ALTERNATIVES: usize = 20;

// The weights of the ranking; `search.rs` says where they come from.
const LIKELIHOOD: f64 = 0.35;
const SURPRISAL: f64 = 0.05;
const MAX_SURPRISAL: f64 = 40.0;
const IN_STRING: f64 = -1.5;
const CALL_AWAY: f64 = -1.0;
const MENTIONED: f64 = 3.0;
/// Gain in logprob assumed of an edit whose first differing token was not asked about.
const UNKNOWN_GAIN: f64 = -20.0;

/// An edit with the index of the first token that differs and what stands there then.
struct Asked {
    mutation: Mutation,
    at: Option<(usize, TokenId)>,
}

/// Returns all edits of a window's lines, scored; fills in the lines' surprisals.
///
/// Some do not parse: parsing costs more than anything here, so it waits until an edit's turn comes.
pub(super) fn edits(
    engine: Option<&Engine>,
    file: &SourceFile,
    known: &BTreeSet<&str>,
    window: &mut Window,
    cancel: &CancelToken,
) -> Result<Vec<Candidate>, engine::Error> {
    let tree = window.tree.as_ref();
    let mut found = tree.map(|tree| mutations(tree, &file.text, &window.function)).unwrap_or_default();
    found.extend(deletions(window));
    found.retain(|mutation| {
        line_of(window, &mutation.bytes).is_some() && is_between_characters(file, mutation)
    });

    let Some(engine) = engine else {
        let unscored = found.into_iter().map(|mutation| (mutation, UNKNOWN_GAIN)).collect();
        return Ok(rank(file, window, unscored));
    };
    let asked: Vec<Asked> = found
        .into_iter()
        .take_while(|_| !cancel.is_cancelled())
        .map(|mutation| ask(engine, file, window, mutation))
        .collect();
    let mut questions: BTreeMap<usize, Vec<TokenId>> = BTreeMap::new();
    for (token_idx, token) in asked.iter().filter_map(|asked| asked.at) {
        questions.entry(token_idx).or_default().push(token);
    }
    let from =
        window.offsets.partition_point(|&offset| offset <= window.function.start).saturating_sub(1).max(1);
    let request = ScoreRequest {
        tokens: window.tokens.clone(),
        from,
        n_top: N_ALTERNATIVES,
        asked: questions.clone(),
        priority: Priority::Background,
    };
    let Some(scores) = engine.score(request, cancel)? else {
        return Ok(Vec::new());
    };
    let score_at = |token_idx: usize| token_idx.checked_sub(from).and_then(|idx| scores.get(idx));
    measure_lines(window, &score_at);

    let gain = |asked: &Asked| -> f64 {
        let Some((token_idx, token)) = asked.at else {
            return UNKNOWN_GAIN;
        };
        let Some(score) = score_at(token_idx) else {
            return UNKNOWN_GAIN;
        };
        let idx = questions[&token_idx].iter().position(|&other| other == token);
        idx.and_then(|idx| score.asked.get(idx)).map_or(UNKNOWN_GAIN, |new| f64::from(new - score.logprob))
    };
    let mut scored: Vec<(Mutation, f64)> =
        asked.iter().map(|asked| (asked.mutation.clone(), gain(asked))).collect();
    let alternatives = alternatives(engine, window, &score_at);
    let is_sensible = |mutation: &Mutation| {
        is_between_characters(file, mutation) && brings_only_known_words(file, known, mutation)
    };
    scored.extend(alternatives.into_iter().filter(|(mutation, _)| is_sensible(mutation)));
    Ok(rank(file, window, scored))
}

/// Turns edits into candidates; of equal ones the most promising kind stays.
fn rank(file: &SourceFile, window: &Window, scored: Vec<(Mutation, f64)>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = scored
        .into_iter()
        .filter_map(|(mutation, gain)| {
            let line = line_of(window, &mutation.bytes)?;
            let is_in_string = window
                .strings
                .iter()
                .any(|string| string.start < mutation.bytes.start && mutation.bytes.end < string.end);
            let score = LIKELIHOOD * gain
                + mutation.kind.prior()
                + SURPRISAL * line.surprisal.min(MAX_SURPRISAL)
                + if is_in_string { IN_STRING } else { 0.0 }
                + CALL_AWAY * f64::from(window.depth)
                + if line.is_mentioned { MENTIONED } else { 0.0 };
            let Mutation { kind, bytes, new_text } = mutation;
            Some(Candidate { file_idx: window.file_idx, line: line.line, kind, bytes, new_text, score })
        })
        .collect();
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut seen = BTreeSet::new();
    candidates.retain(|candidate| {
        let core = core(file, candidate);
        core.is_some() && seen.insert(core)
    });
    candidates
}

/// Returns an edit without what it leaves as it was at its ends; `None` if that is all of it.
fn core(file: &SourceFile, candidate: &Candidate) -> Option<(usize, usize, String)> {
    let (old, new) = (&file.text[candidate.bytes.clone()], candidate.new_text.as_str());
    let n_head: usize =
        old.chars().zip(new.chars()).take_while(|(old, new)| old == new).map(|(c, _)| c.len_utf8()).sum();
    let (old, new) = (&old[n_head..], &new[n_head..]);
    let same = old.chars().rev().zip(new.chars().rev()).take_while(|(old, new)| old == new);
    let n_tail: usize = same.map(|(c, _)| c.len_utf8()).sum();
    let (old, new) = (&old[..old.len() - n_tail], &new[..new.len() - n_tail]);
    let start = candidate.bytes.start + n_head;
    (!old.is_empty() || !new.is_empty()).then(|| (start, start + old.len(), new.to_owned()))
}

/// Returns the line an edit lies in.
fn line_of<'w>(window: &'w Window, bytes: &Range<usize>) -> Option<&'w Line> {
    window.lines.iter().find(|line| line.bytes.start <= bytes.start && bytes.end <= line.bytes.end)
}

/// Returns the edit's first differing token and its place, by encoding the window again.
fn ask(engine: &Engine, file: &SourceFile, window: &Window, mutation: Mutation) -> Asked {
    let before = &file.text[window.bytes.start..mutation.bytes.start];
    // What follows far behind cannot change how the edit is cut into tokens.
    let line_end = line_of(window, &mutation.bytes).map_or(window.bytes.end, |line| line.bytes.end);
    let after = &file.text[mutation.bytes.end..line_end];
    let edited = [before, &mutation.new_text, after].concat();
    let (tokens, _) = tokens_of(engine, &edited, window.bytes.start);
    let token_idx = tokens.iter().zip(&window.tokens).take_while(|(new, old)| new == old).count();
    let at =
        tokens.get(token_idx).map(|&token| (token_idx, token)).filter(|_| token_idx < window.tokens.len());
    Asked { mutation, at }
}

/// Returns the edits that leave one token out.
fn deletions(window: &Window) -> Vec<Mutation> {
    let spans = window.offsets.windows(2).map(|span| span[0]..span[1]);
    spans
        .filter(|bytes| !bytes.is_empty() && line_of(window, bytes).is_some())
        .map(|bytes| Mutation { kind: Kind::Delete, bytes, new_text: String::new() })
        .collect()
}

/// Returns the edits that put one of the model's likeliest tokens in the place of one that stands there, or before it.
fn alternatives<'s>(
    engine: &Engine,
    window: &Window,
    score_at: &impl Fn(usize) -> Option<&'s Score>,
) -> Vec<(Mutation, f64)> {
    let tokenizer = engine.tokenizer();
    let mut found = Vec::new();
    for (token_idx, span) in window.offsets.windows(2).enumerate() {
        let bytes = span[0]..span[1];
        let (Some(score), Some(_)) = (score_at(token_idx), line_of(window, &bytes)) else {
            continue;
        };
        for &(token, logprob) in &score.top {
            if token == score.token || tokenizer.is_special(token) {
                continue;
            }
            let Ok(new_text) = std::str::from_utf8(tokenizer.token_bytes(token)) else {
                continue;
            };
            if new_text.contains(['\n', '\r']) {
                continue;
            }
            let gain = f64::from(logprob - score.logprob);
            let substitute =
                Mutation { kind: Kind::Substitute, bytes: bytes.clone(), new_text: new_text.to_owned() };
            let insert =
                Mutation { kind: Kind::Insert, bytes: span[0]..span[0], new_text: new_text.to_owned() };
            found.push((substitute, gain));
            found.push((insert, gain));
        }
    }
    found
}

/// Returns whether every word of the edited place stands somewhere in the repository, or is an everyday one.
fn brings_only_known_words(file: &SourceFile, known: &BTreeSet<&str>, mutation: &Mutation) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (before, after) = (&file.text[..mutation.bytes.start], &file.text[mutation.bytes.end..]);
    let head = &before[before.trim_end_matches(is_part).len()..];
    let tail = &after[..after.len() - after.trim_start_matches(is_part).len()];
    words(&[head, &mutation.new_text, tail].concat())
        .all(|word| word.is_empty() || known.contains(word) || is_known_word(word))
}

fn measure_lines<'s>(window: &mut Window, score_at: &impl Fn(usize) -> Option<&'s Score>) {
    for line in &mut window.lines {
        let tokens = window.offsets.windows(2).enumerate();
        let within = tokens.filter(|(_, span)| span[0] < line.bytes.end && span[1] > line.bytes.start);
        line.surprisal =
            within.filter_map(|(idx, _)| score_at(idx)).map(|score| -f64::from(score.logprob)).sum();
    }
}

/// A token may begin or end inside a character.
fn is_between_characters(file: &SourceFile, mutation: &Mutation) -> bool {
    file.text.is_char_boundary(mutation.bytes.start) && file.text.is_char_boundary(mutation.bytes.end)
}

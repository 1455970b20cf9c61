//! The stretch of a file the model sees of a suspicious function, and which of its lines may be edited.

use std::ops::Range;
use std::path::Path;

use engine::{Engine, TokenId};
use syntax::SyntaxTree;

use crate::function;
use crate::locate::{Place, SourceFile, Suspects};

/// Most bytes of a window: about 1,200 tokens, three seconds of prefill on two cores.
const N_MAX_BYTES: usize = 4096;

/// Most bytes before a long function on its own line.
const N_MAX_INDENT: usize = 256;

/// A suspicious function and what stands before it.
pub(super) struct Window {
    pub(super) file_idx: usize,
    /// Bytes of the file: from some line's start to the function's end.
    pub(super) bytes: Range<usize>,
    pub(super) function: Range<usize>,
    pub(super) depth: u32,
    pub(super) lines: Vec<Line>,
    /// None without an engine.
    pub(super) tokens: Vec<TokenId>,
    /// Byte of the file at which each token begins, and the end: `[tokens.len() + 1]`.
    pub(super) offsets: Vec<usize>,
    /// The file's syntax tree, if its language's mistakes are known.
    pub(super) tree: Option<SyntaxTree>,
    pub(super) strings: Vec<Range<usize>>,
}

/// A line that may be edited.
pub(super) struct Line {
    /// Counted from 0.
    pub(super) line: usize,
    /// Bytes of the file, without indentation and line break.
    pub(super) bytes: Range<usize>,
    pub(super) is_mentioned: bool,
    /// Sum of the surprisals of its tokens, once scored.
    pub(super) surprisal: f64,
}

impl Window {
    /// Returns the window of a place, or `None` if nothing in it can be edited.
    pub(super) fn new(
        engine: Option<&Engine>,
        files: &[SourceFile],
        suspects: &Suspects,
        place: &Place,
    ) -> Option<Self> {
        let text = &files[place.file_idx].text;
        let function = place.function.bytes.clone();
        let end = function.end.min(function.start + N_MAX_BYTES);
        let end = (0..=end).rev().find(|&at| text.is_char_boundary(at))?;
        let start = window_start(text, function.start, end)?;
        let tree = function::tree_of(Path::new(&files[place.file_idx].path), text);
        let prose = tree.as_ref().map(function::prose).unwrap_or_default();
        let mentioned = |line: usize| {
            suspects.mentions.iter().any(|mention| mention.file_idx == place.file_idx && mention.line == line)
        };
        let mut lines = Vec::new();
        let mut at = 0;
        for (line, raw) in text.split_inclusive('\n').enumerate() {
            let line_start = at;
            at += raw.len();
            let code = raw.trim();
            let is_signature = line == place.function.lines.start && place.function.lines.len() > 1;
            let from = line_start + raw.len() - raw.trim_start().len();
            let bytes = from..from + code.len();
            let is_prose = prose.iter().any(|prose| prose.start <= bytes.start && bytes.end <= prose.end);
            let is_code = code.chars().any(|c| c.is_alphanumeric() || c == '_');
            if place.function.lines.contains(&line)
                && bytes.end <= end
                && !is_signature
                && !is_prose
                && is_code
            {
                lines.push(Line { line, bytes, is_mentioned: mentioned(line), surprisal: 0.0 });
            }
        }
        if lines.is_empty() {
            return None;
        }
        let (tokens, offsets) = match engine {
            Some(engine) => tokens_of(engine, &text[start..end], start),
            None => (Vec::new(), vec![start]),
        };
        Some(Self {
            file_idx: place.file_idx,
            bytes: start..end,
            function,
            depth: place.depth,
            lines,
            tokens,
            offsets,
            strings: tree.as_ref().map(function::strings).unwrap_or_default(),
            tree,
        })
    }
}

/// Returns the tokens of a text that starts at byte `start` of its file, behind the token that begins every prompt if the
/// model has one, and where each begins there.
pub(super) fn tokens_of(engine: &Engine, text: &str, start: usize) -> (Vec<TokenId>, Vec<usize>) {
    let tokenizer = engine.tokenizer();
    let tokens: Vec<TokenId> =
        tokenizer.specials().first().into_iter().chain(tokenizer.encode(text)).collect();
    let mut offsets = vec![start];
    for &token in &tokens {
        offsets.push(offsets[offsets.len() - 1] + tokenizer.token_bytes(token).len());
    }
    (tokens, offsets)
}

/// Returns the start of the first line from which the text up to `end` fits a window, or of the function's own line.
///
/// `None` if what stands before the function on its line would fill the window, as in minified code.
fn window_start(text: &str, function_start: usize, end: usize) -> Option<usize> {
    let least = end.saturating_sub(N_MAX_BYTES);
    let own_line = text[..function_start].rfind('\n').map_or(0, |at| at + 1);
    if own_line < least {
        return (function_start - own_line <= N_MAX_INDENT).then_some(own_line);
    }
    let line_starts = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(line_starts).find(|&at| at >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_starts_at_a_line_and_never_behind_its_function() {
        let line = "x = 1\n";
        let text = line.repeat(2000);
        let end = text.len();
        let start = window_start(&text, end - 12, end).expect("short lines");
        assert!(end - start <= N_MAX_BYTES && end - start > N_MAX_BYTES - line.len());
        assert_eq!(start % line.len(), 0);
        assert_eq!(window_start(line, 0, line.len()), Some(0));
        // A method longer than a window keeps its first line.
        assert_eq!(
            window_start(&text, 10 * line.len() + 4, 10 * line.len() + 4 + N_MAX_BYTES),
            Some(10 * line.len())
        );

        let minified = format!("var t=[{}];function last(a){{return a+1}}\n", "1,".repeat(3000));
        let function_start = minified.find("function").expect("it is there");
        assert_eq!(window_start(&minified, function_start, minified.len() - 1), None);
    }
}

//! What an editor asks and what it gets.

use std::ops::Range;
use std::time::Duration;

use engine::{Generation, Timings};
use syntax::SyntaxTree;
use text::{ByteOffset, Snapshot};

use crate::context::{Context, ContextScope};
use crate::{Answer, Calibration};

/// Who asked: LSP's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The user pressed a key for it.
    Invoked,
    /// The user was typing.
    Automatic,
}

/// A cursor in a document.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The document as it was when the editor asked.
    pub document: &'a Snapshot,
    /// The cursor, on a character boundary.
    pub offset: ByteOffset,
    /// Who asked.
    pub trigger: Trigger,
    /// The document's tree, where there is one at hand: of a few lines one is chosen that adds no error to it.
    pub tree: Option<&'a SyntaxTree>,
    /// What the model sees in front of the window, where there is anything.
    pub context: Option<&'a Context>,
}

impl Request<'_> {
    /// Returns a line without its line break; a line past the last is empty.
    pub(crate) fn line(&self, line: u32) -> String {
        self.document.line_text(line).unwrap_or_default()
    }

    /// Returns the byte at which a line starts; a line past the last starts at the end.
    pub(crate) fn line_start(&self, line: u32) -> usize {
        self.document.line_start(line).map_or(self.document.len_bytes(), |offset| offset.0)
    }
}

/// Limits of a completion.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most bytes of the document before the cursor that the model sees.
    pub n_max_prefix_bytes: usize,
    /// Most bytes of the document after the cursor that are looked at.
    pub n_max_after_bytes: usize,
    /// From where context may be.
    pub context: ContextScope,
    /// Most bytes of context.
    pub n_max_context_bytes: usize,
    /// Most lines written besides the likeliest, to choose from, while the user types.
    pub n_others: usize,
    /// The same when the user pressed a key for it, and so waits.
    pub n_others_invoked: usize,
    /// Least probability of being right for ghost text that nobody pressed a key for.
    pub min_confidence: f32,
    /// What that probability is, by what its user has taken and turned down.
    pub calibration: Calibration,
    /// Most lines written behind an answer while nobody types.
    pub n_lines_ahead: usize,
    /// How long nobody types before the model is asked; who presses a key for it does not wait.
    pub pause: Duration,
    /// Most tokens of ghost text.
    pub n_max_tokens: usize,
    /// Longest decoding time of a line.
    pub decode_time: Duration,
    /// How long the first line may be decoded in any case, however late it is. Then it ends as soon as some of it is worth
    /// showing.
    pub line_time: Duration,
    /// How long an answer may take while the user types: past it no lines are written to choose from, and none behind the
    /// first.
    pub answer_time: Duration,
    /// The same when the user pressed a key for it, and so waits.
    pub answer_time_invoked: Duration,
}

impl Default for Options {
    /// Of HumanEval-Infilling's single lines, 259 looked at, the default model's likeliest line passes in 28 of 100, and with
    /// 1, 2, 3, 5 and 7 others 36, 39, 41, 42 and 44.
    ///
    /// Limits for a small model on two cores: 2 KiB are about 500 tokens, half a second to a second of prefill when
    /// nothing is reused; 48 tokens are three to four lines and decode in a quarter to half a second.
    fn default() -> Self {
        Self {
            n_max_prefix_bytes: 2048,
            n_max_after_bytes: 512,
            context: ContextScope::default(),
            n_max_context_bytes: 1024,
            n_others: 3,
            n_others_invoked: 7,
            min_confidence: 0.25,
            calibration: Calibration::default(),
            n_lines_ahead: 2,
            pause: Duration::ZERO,
            n_max_tokens: 48,
            decode_time: Duration::from_millis(2000),
            // About 30 tokens of the default model on two cores.
            line_time: Duration::from_millis(150),
            answer_time: Duration::from_millis(110),
            answer_time_invoked: Duration::from_millis(750),
        }
    }
}

/// What is shown in grey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GhostText {
    /// The text to insert, with the document's line ends.
    pub insert: String,
    /// What it replaces; empty, at the cursor.
    pub range: Range<ByteOffset>,
    /// The document's version it was made for; it applies to no other (I-8).
    pub version: i32,
}

/// Why there is no ghost text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoneReason {
    /// Nothing stands before the cursor.
    NothingBefore,
    /// The cursor is inside a word and nobody pressed a key for it.
    InsideWord,
    /// There is much text behind the cursor in its line, and nobody pressed a key for it.
    TextBehind,
    /// The settings allow no ghost text.
    Disabled,
    /// The settings allow none in this language.
    DisabledLanguage,
    /// The file may hold secrets.
    SecretFile,
    /// The user wants none for a while, and did not press a key for it.
    Snoozed,
    /// The request was cancelled.
    Cancelled,
    /// The model had nothing to add.
    NothingToAdd,
    /// It would add a syntax error.
    AddsError,
    /// It was shown here before, and something else was typed.
    Rejected,
    /// The model was too unsure of it.
    Unsure,
    /// The model said the same again and again.
    Repeats,
    /// What the model would add already follows the cursor.
    AlreadyThere,
    /// The model cannot be reached now.
    Unavailable,
}

impl NoneReason {
    /// Returns the reason's name in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NothingBefore => "nothing_before",
            Self::InsideWord => "inside_word",
            Self::TextBehind => "text_behind",
            Self::Disabled => "disabled",
            Self::DisabledLanguage => "disabled_language",
            Self::SecretFile => "secret_file",
            Self::Snoozed => "snoozed",
            Self::Cancelled => "cancelled",
            Self::NothingToAdd => "nothing_to_add",
            Self::AddsError => "adds_error",
            Self::Rejected => "rejected",
            Self::Unsure => "unsure",
            Self::Repeats => "repeats",
            Self::AlreadyThere => "already_there",
            Self::Unavailable => "unavailable",
        }
    }

    /// Returns the reason as the end of a sentence, with what can be done about it.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NothingBefore => "nothing stands before the cursor that could be gone on with",
            Self::InsideWord => "the cursor is inside a word; the key for ghost text shows it all the same",
            Self::TextBehind => {
                "much text stands behind the cursor in its line; the key for ghost text shows it all the same"
            }
            Self::Disabled => "the settings say `enable = false`",
            Self::DisabledLanguage => "the settings allow no ghost text in this language",
            Self::SecretFile => "the file's name says that it may hold secrets, so no model sees it",
            Self::Snoozed => "it is snoozed; the key for ghost text shows it all the same",
            Self::Cancelled => "the editor wanted no answer any more",
            Self::NothingToAdd => "the model had nothing to add",
            Self::AddsError => "what the model wrote would add a syntax error",
            Self::Rejected => "it was shown here before, and something else was typed",
            Self::Unsure => "the model was too unsure of it; the key for ghost text shows it all the same",
            Self::Repeats => "the model said the same again and again",
            Self::AlreadyThere => "what the model wrote follows the cursor already",
            Self::Unavailable => "the model cannot be reached now; a message has said why",
        }
    }
}

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Prompt tokens that were in the KV cache already.
    pub n_reused: usize,
    /// Tokens of the text after the cursor whose probability was asked for, once for each line to choose from.
    pub n_scored: usize,
    /// Tokens generated, the healed one included.
    pub n_generated: usize,
    /// Where the time went.
    pub timings: Timings,
}

impl Statistics {
    /// Counts a generation: the first one's prompt, and every one's tokens and times.
    pub(crate) fn add(&mut self, generation: &Generation) {
        if self.n_prompt == 0 {
            (self.n_prompt, self.n_reused) = (generation.n_prompt, generation.n_reused);
            self.timings.ttft = generation.timings.ttft;
        }
        self.add_work(&Self {
            n_generated: generation.tokens.len(),
            timings: generation.timings,
            ..Self::default()
        });
    }

    /// Counts what was done besides.
    pub(crate) fn add_work(&mut self, other: &Self) {
        self.n_generated += other.n_generated;
        self.n_scored += other.n_scored;
        self.timings.queue += other.timings.queue;
        self.timings.prefill += other.timings.prefill;
        self.timings.decode += other.timings.decode;
    }
}

/// Ghost text, or the reason why there is none, and what it took to know.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The ghost text or why there is none.
    pub result: Result<GhostText, NoneReason>,
    /// What the model wrote, if it was asked.
    pub answer: Option<Answer>,
    /// The text before the cursor as the model saw it.
    pub prompt: String,
    /// What it took.
    pub statistics: Statistics,
}

impl Completion {
    /// Returns that there is none, without what a model said.
    pub fn none(reason: NoneReason) -> Self {
        Self { result: Err(reason), answer: None, prompt: String::new(), statistics: Statistics::default() }
    }
}

//! A cursor becomes ghost text. Knows no LSP.
//!
//! In: a document's snapshot and a cursor. Out: [`Completion`], or the reason why there is none.
//! Never: writes anything, opens a socket (I-13).
//! Thread: the caller's; the engine computes on its own.
//!
//! The keystroke's path is a straight line: [`gate`] → [`cache`] → [`window`] → [`prompt`] → engine → choice → [`trim`].
//! A model that is given text, not tokens, has one of its own: [`text_model`].

#![forbid(unsafe_code)]

pub mod cache;
mod choice;
pub mod clean;
mod confidence;
pub mod context;
pub mod gate;
mod lines;
pub mod prompt;
pub mod rejected;
mod repetition;
mod request;
pub mod text_model;
pub mod trim;
pub mod window;

pub use confidence::{Calibration, mean_logprob};
pub use request::{Completion, GhostText, NoneReason, Options, Request, Statistics, Trigger};
pub use text_model::Model;

use engine::{CancelToken, Engine, Priority, StopReason};

use clean::adds_some;
use gate::Around;
use lines::Writer;
use prompt::Prompt;
use trim::StopRule;
use window::Window;

/// Returns the id that editors know a file's language by, if its name tells.
#[must_use]
pub fn language_id(path: &std::path::Path) -> Option<&'static str> {
    syntax::Language::of(path).map(syntax::Language::id)
}

/// Returns the ghost text for a cursor, or why there is none.
///
/// `previous` is what is left of an earlier answer nearby, or empty; it only makes the answer come sooner. `on_text`
/// hears the answer as it is written, which may still be replaced by a better one, and says whether to go on.
/// Cancelling is not an error: the completion says [`NoneReason::Cancelled`].
///
/// # Errors
/// Only those of the engine that are nobody's choice: see [`engine::Error`].
pub fn complete(
    engine: &Engine,
    request: &Request<'_>,
    options: &Options,
    previous: &str,
    on_text: &mut dyn FnMut(&str) -> bool,
    cancel: &CancelToken,
) -> Result<Completion, engine::Error> {
    let span =
        tracing::info_span!("complete", version = request.document.version(), offset = request.offset.0);
    let _entered = span.enter();

    let around = gate::around(request);
    if let Some(reason) = gate::gate(request, &around) {
        return Ok(Completion::none(reason));
    }
    let window = window::window(request, options, 0);
    let is_word = around.head.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let n_others = match request.trigger {
        Trigger::Invoked => options.n_others_invoked,
        // Inside a word the next key comes soon, and most of the choice is made.
        Trigger::Automatic if is_word => 0,
        Trigger::Automatic => options.n_others,
    };
    let answer_time = match request.trigger {
        Trigger::Invoked => options.answer_time_invoked,
        Trigger::Automatic => options.answer_time,
    };
    let writer = Writer::new(engine, options, n_others, Priority::Interactive, cancel);
    let mut writer = writer.answer_within(answer_time);
    let prompt = prompt::prompt(engine.tokenizer(), request.context, &window, "");
    let answer = write(&mut writer, &prompt, &window, request, &around, previous, on_text)?;
    let statistics = writer.statistics;
    Ok(completion(request, options, &around, window, answer, statistics, cancel))
}

fn completion(
    request: &Request<'_>,
    options: &Options,
    around: &Around,
    window: Window,
    answer: Answer,
    statistics: Statistics,
    cancel: &CancelToken,
) -> Completion {
    let result = if cancel.is_cancelled() {
        Err(NoneReason::Cancelled)
    } else {
        answer.shown(0, around, request.trigger, options).map(|insert| GhostText {
            insert: window.line_ends(insert),
            range: request.offset..request.offset,
            version: request.document.version(),
        })
    };
    let shown_context = request.context.map(context::Context::text).unwrap_or_default();
    Completion { result, answer: Some(answer), prompt: shown_context + &window.prefix, statistics }
}

/// Writes a few lines more behind an answer, for when its user comes there. Nobody waits for them.
///
/// # Errors
/// As [`complete`].
pub fn look_ahead(
    engine: &Engine,
    request: &Request<'_>,
    options: &Options,
    answer: &Answer,
    on_text: &mut dyn FnMut(&str) -> bool,
    cancel: &CancelToken,
) -> Result<Answer, engine::Error> {
    // The window that the next line will have, so that it is in the KV cache by then.
    let window = window::window(request, options, answer.text.len());
    let mut writer = Writer::new(engine, options, 0, Priority::Background, cancel);
    let mut text = answer.text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
    // A line that there was no time to end is gone on with; its last character may have lost its end.
    if !text.ends_with('\n') && !answer.is_cut {
        text.push('\n');
        on_text("\n");
    }
    let prompt = prompt::prompt(engine.tokenizer(), request.context, &window, &text);
    let mut n_lines = 0;
    let generation = writer.rest(&prompt, &mut |piece| {
        n_lines += piece.matches('\n').count();
        on_text(piece) && n_lines < options.n_lines_ahead
    })?;
    text.push_str(&generation.text);
    let is_cut = generation.stop != StopReason::EndOfGeneration;
    Ok(Answer { text, is_cut, repeats: false, ..answer.clone() }.without_repetition())
}

/// What the model wrote, before it is trimmed to what is worth showing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text, lines ended by `\n`.
    pub text: String,
    /// Whether the model was stopped before its end.
    pub is_cut: bool,
    /// Whether it began to say the same again and again: then the text ends with the line before that.
    pub repeats: bool,
    /// Bytes of the statement that its first line only begins, where the cursor's is to be one line; else 0.
    pub n_statement: usize,
    /// Bytes of its first line that were typed before it began here.
    pub n_typed_before: usize,
    /// Natural logarithm of the probability of each token of its first line.
    pub logprobs: Vec<f32>,
}

impl Answer {
    /// Returns what is left of it behind its first `n_typed` bytes.
    ///
    /// # Panics
    /// If a character goes on there.
    #[must_use]
    pub fn rest(&self, n_typed: usize) -> Self {
        Self {
            text: self.text[n_typed..].to_owned(),
            n_statement: self.n_statement.saturating_sub(n_typed),
            n_typed_before: self.n_typed_before + n_typed,
            ..self.clone()
        }
    }

    /// Returns whether the model had no time to end the line in which its first `n_typed` bytes end.
    #[must_use]
    pub fn is_unfinished(&self, n_typed: usize) -> bool {
        self.is_cut && !self.repeats && !self.text[n_typed..].contains('\n')
    }

    /// Returns how likely it is to be what its user types, once the first `n_typed` bytes were.
    pub fn confidence(&self, n_typed: usize, calibration: &Calibration) -> f32 {
        calibration.confidence(mean_logprob(&self.logprobs), self.n_typed_before + n_typed)
    }

    /// Returns what of the text is worth showing when its first `n_typed` bytes stand before the cursor.
    fn shown(
        &self,
        n_typed: usize,
        around: &Around,
        trigger: Trigger,
        options: &Options,
    ) -> Result<String, NoneReason> {
        let rest = &self.text[n_typed..];
        if rest.is_empty() && self.repeats {
            return Err(NoneReason::Repeats);
        }
        let shown = trim::trim(rest, around, self.is_cut, self.n_statement.saturating_sub(n_typed))?;
        // Who presses a key for it wants to see even a guess.
        if trigger == Trigger::Automatic
            && self.confidence(n_typed, &options.calibration) < options.min_confidence
        {
            return Err(NoneReason::Unsure);
        }
        Ok(shown)
    }

    fn without_repetition(mut self) -> Self {
        if let Some(at) = repetition::repetition(&self.text) {
            self.text.truncate(self.text[..at].rfind('\n').map_or(0, |end| end + 1));
            (self.is_cut, self.repeats) = (true, true);
            if self.n_statement > self.text.len() {
                self.n_statement = 0;
            }
        }
        self
    }
}

fn write(
    writer: &mut Writer<'_>,
    prompt: &Prompt,
    window: &Window,
    request: &Request<'_>,
    around: &Around,
    previous: &str,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Answer, engine::Error> {
    let is_worth = |begun: &str| {
        let begun = if around.is_indented() { begun.trim_start() } else { begun };
        trim::trim(begun, around, true, 0).is_ok_and(|part| adds_some(request, around, &part))
    };
    let (first, doubts) = writer.line(prompt, previous, &is_worth, on_text)?;
    let line = choice::choose(writer, prompt, first, doubts, request, around, window)?;
    let mut answer = Answer {
        is_cut: matches!(line.stop, StopReason::MaxTokens | StopReason::Time),
        text: line.text,
        logprobs: line.logprobs,
        ..Answer::default()
    };
    if line.stop != StopReason::StopText || writer.cancel.is_cancelled() {
        return Ok(answer.without_repetition());
    }
    answer.text.push('\n');
    on_text("\n");
    let mut rule = StopRule::new(request, around);
    if rule.wants_more(&answer.text) {
        answer.is_cut = !writer.has_time();
    }
    if rule.wants_more("") && !answer.is_cut {
        let rest = prompt::prompt(writer.engine.tokenizer(), request.context, window, &answer.text);
        let rest = writer.rest(&rest, &mut |text| on_text(text) && rule.wants_more(text))?;
        answer.text.push_str(&rest.text);
        answer.is_cut = matches!(rest.stop, StopReason::MaxTokens | StopReason::Time);
    }
    answer.n_statement = rule.n_statement();
    Ok(answer.without_repetition())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_that_repeats_itself_only_the_lines_before_are_left() {
        let check = |text: &str, left: &str, shown: Result<&str, NoneReason>| {
            let answer = Answer { text: text.to_owned(), ..Answer::default() }.without_repetition();
            assert_eq!((answer.text.as_str(), answer.is_cut, answer.repeats), (left, true, true), "{text:?}");
            let (around, options) = (Around::default(), Options::default());
            let found = answer.shown(0, &around, Trigger::Automatic, &options);
            assert_eq!(found, shown.map(str::to_owned), "{text:?}");
        };
        check("x = 1\ny = T, T, T, T, T, T, T, T,", "x = 1\n", Ok("x = 1"));
        check("T, T, T, T, T, T, T, T,", "", Err(NoneReason::Repeats));
        let sound = Answer { text: "x = 1\ny = 2\n".to_owned(), ..Answer::default() };
        assert_eq!(sound.clone().without_repetition(), sound);
    }

    #[test]
    fn a_guess_is_shown_to_who_asks_for_it_or_has_typed_its_beginning() {
        let answer = Answer { text: "frobnicate".to_owned(), logprobs: vec![-2.0], ..Answer::default() };
        let shown = |n_typed, trigger| {
            answer.shown(n_typed, &Around::default(), trigger, &Options::default()).map_err(NoneReason::name)
        };
        assert_eq!(shown(0, Trigger::Automatic), Err("unsure"));
        assert_eq!(shown(0, Trigger::Invoked).as_deref(), Ok("frobnicate"));
        assert_eq!(shown(4, Trigger::Automatic).as_deref(), Ok("nicate"));
    }
}

//! Ghost text from a model that is given text and not tokens, as one behind an endpoint is.
//!
//! In: a request and a [`TextModel`]. Out: [`Completion`], or why the model has nothing to say.
//! Never: knows how the model is reached; asks it twice for one request.
//! Thread: the caller's, until the model has answered.
//!
//! The path is the engine's without what only tokens can do, healing and the choice among several lines:
//! [`gate`] → [`window`] → model → repetition → [`trim`](crate::trim). A single space at the prompt's end is held back and
//! taken off the answer, for tokens begin with one: after `x = ` comes `1`, but the model knows ` 1`.

use std::time::Instant;

use engine::{CancelToken, Engine};

use crate::gate::Around;
use crate::repetition::repetition;
use crate::trim::StopRule;
use crate::window::Window;
use crate::{Answer, Completion, Options, Request, Statistics, gate, window};

/// What writes ghost text.
pub enum Model {
    /// The engine's.
    Engine(Engine),
    /// One of which only text is known.
    Text(Box<dyn TextModel + Send>),
}

/// A model that goes on with a text.
pub trait TextModel {
    /// Returns the most bytes before the cursor that it reads in time.
    fn n_max_prefix_bytes(&self) -> usize;

    /// Goes on with a text, greedily. `on_text` hears each new piece and returns whether it wants more.
    ///
    /// # Errors
    /// [`Unavailable`]; nothing that the caller could mend.
    fn continue_text(
        &self,
        question: &Question<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Continuation, Unavailable>;
}

/// What is to be continued.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The text before, lines ended by `\n`.
    pub before: &'a str,
    /// The text after, which a model may not be able to see.
    pub after: &'a str,
    /// Text that ends the answer and is no part of it.
    pub stop: Option<&'a str>,
    /// Most tokens of the answer.
    pub n_max_tokens: usize,
}

/// How an answer ended, and what it took.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// Why it ended.
    pub end: End,
    /// Natural logarithm of the probability of each token of its first line; empty where that is not known.
    pub logprobs: Vec<f32>,
    /// Tokens, as far as they are known; the times are taken here.
    pub statistics: Statistics,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended it, or the stop text did.
    Whole,
    /// The most tokens were reached.
    Cut,
    /// `on_text` had heard enough.
    Enough,
    /// The caller cancelled.
    Cancelled,
}

/// Why a model gives no answer now.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// It failed, and its user should hear of it.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// It failed a while ago, its user has heard of it, and it is left alone for now.
    #[error("the model is left alone for a while")]
    Resting,
}

/// Returns the ghost text for a cursor, or why there is none, as [`crate::complete`] does with the engine.
///
/// # Errors
/// Those of the model.
pub fn complete(
    model: &dyn TextModel,
    request: &Request<'_>,
    options: &Options,
    on_text: &mut dyn FnMut(&str) -> bool,
    cancel: &CancelToken,
) -> Result<Completion, Unavailable> {
    let span =
        tracing::info_span!("complete", version = request.document.version(), offset = request.offset.0);
    let _entered = span.enter();

    let around = gate::around(request);
    if let Some(reason) = gate::gate(request, &around) {
        return Ok(Completion::none(reason));
    }
    let window = window::window(request, &within_reach(model, options), 0);
    let (answer, statistics) = write(model, request, &window, &around, options, on_text, cancel)?;
    Ok(crate::completion(request, options, &around, window, answer, statistics, cancel))
}

/// Writes a few lines more behind an answer, for when its user comes there, as [`crate::look_ahead`] does.
///
/// # Errors
/// Those of the model.
pub fn look_ahead(
    model: &dyn TextModel,
    request: &Request<'_>,
    options: &Options,
    answer: &Answer,
    on_text: &mut dyn FnMut(&str) -> bool,
    cancel: &CancelToken,
) -> Result<Answer, Unavailable> {
    let window = window::window(request, &within_reach(model, options), answer.text.len());
    let mut text = answer.text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
    if !text.ends_with('\n') && !answer.is_cut {
        text.push('\n');
        on_text("\n");
    }
    let before = format!("{}{}{text}", context_of(request), window.prefix);
    let question =
        Question { before: &before, after: &window.after, stop: None, n_max_tokens: options.n_max_tokens };
    let mut n_lines = 0;
    let mut hear = |piece: &str| {
        n_lines += piece.matches('\n').count();
        text.push_str(piece);
        on_text(piece) && n_lines < options.n_lines_ahead && repetition(&text).is_none()
    };
    let continuation = model.continue_text(&question, &mut hear, cancel)?;
    let is_cut = continuation.end != End::Whole;
    Ok(Answer { text, is_cut, repeats: false, ..answer.clone() }.without_repetition())
}

fn context_of(request: &Request<'_>) -> String {
    request.context.map(crate::context::Context::text).unwrap_or_default()
}

fn within_reach(model: &dyn TextModel, options: &Options) -> Options {
    Options { n_max_prefix_bytes: options.n_max_prefix_bytes.min(model.n_max_prefix_bytes()), ..*options }
}

fn write(
    model: &dyn TextModel,
    request: &Request<'_>,
    window: &Window,
    around: &Around,
    options: &Options,
    on_text: &mut dyn FnMut(&str) -> bool,
    cancel: &CancelToken,
) -> Result<(Answer, Statistics), Unavailable> {
    let prefix = context_of(request) + &window.prefix;
    let before = prefix.strip_suffix(' ').unwrap_or(&prefix);
    let mut lead = Lead::new(around, prefix.len() - before.len());
    let mut rule = StopRule::new(request, around);
    let question = Question {
        before,
        after: &window.after,
        stop: Some(rule.stop_text()),
        n_max_tokens: options.n_max_tokens,
    };
    let mut text = String::new();
    let (asked, mut begun, mut is_late) = (Instant::now(), None, false);
    let mut hear = |piece: &str| {
        let piece = lead.without(piece);
        let begun = begun.get_or_insert_with(Instant::now);
        text.push_str(piece);
        is_late = begun.elapsed() > options.decode_time;
        on_text(piece) && rule.wants_more(piece) && !is_late && repetition(&text).is_none()
    };
    let continuation = model.continue_text(&question, &mut hear, cancel)?;
    let Continuation { end, logprobs, mut statistics } = continuation;
    let begun = begun.unwrap_or_else(Instant::now);
    (statistics.timings.ttft, statistics.timings.decode) = (begun - asked, begun.elapsed());

    if end == End::Whole && question.stop == Some("\n") && !text.ends_with('\n') {
        text.push('\n');
        on_text("\n");
    }
    let is_cut = matches!(end, End::Cut | End::Cancelled) || is_late;
    let mut answer = Answer { text, is_cut, logprobs, n_statement: rule.n_statement(), ..Answer::default() }
        .without_repetition();
    if end == End::Enough && !answer.is_cut {
        // What came behind the end has no end of its own.
        let n_whole = answer.text.rfind('\n').map_or(answer.text.len(), |at| at + 1);
        answer.text.truncate(n_whole);
    }
    Ok((answer, statistics))
}

/// The blanks at an answer's beginning that stand before the cursor already.
struct Lead {
    /// Bytes that may still be taken off.
    n_max: usize,
}

impl Lead {
    /// `n_held_back` bytes at the prompt's end were not sent; an indented line may begin further to the right in any case.
    fn new(around: &Around, n_held_back: usize) -> Self {
        Self { n_max: if around.is_indented() { usize::MAX } else { n_held_back } }
    }

    /// Returns a piece without them.
    fn without<'p>(&mut self, piece: &'p str) -> &'p str {
        let n = piece.bytes().take(self.n_max).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.n_max = if n == piece.len() { self.n_max - n } else { 0 };
        &piece[n..]
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use text::{ByteOffset, Document};

    use super::*;
    use crate::{NoneReason, Trigger};

    /// Says these pieces, and keeps what it was asked.
    #[derive(Default)]
    struct Script {
        pieces: Vec<&'static str>,
        logprobs: Vec<f32>,
        end: Option<End>,
        asked: RefCell<Vec<(String, String, String)>>,
    }

    impl TextModel for Script {
        fn n_max_prefix_bytes(&self) -> usize {
            64
        }

        fn continue_text(
            &self,
            question: &Question<'_>,
            on_text: &mut dyn FnMut(&str) -> bool,
            _: &CancelToken,
        ) -> Result<Continuation, Unavailable> {
            let Question { before, after, stop, .. } = question;
            self.asked.borrow_mut().push((
                (*before).into(),
                (*after).into(),
                stop.unwrap_or_default().into(),
            ));
            let is_enough = !self.pieces.iter().all(|piece| on_text(piece));
            let end = if is_enough { End::Enough } else { self.end.unwrap_or(End::Whole) };
            Ok(Continuation { end, logprobs: self.logprobs.clone(), statistics: Statistics::default() })
        }
    }

    /// `$0` is the cursor. Returns what came of it and what was heard on the way.
    fn ask(script: &Script, marked: &str, options: &Options) -> (Completion, String) {
        let offset = ByteOffset(marked.find("$0").expect("a cursor"));
        let document = Document::open(&marked.replace("$0", ""), 1).snapshot();
        let request =
            Request { document: &document, offset, trigger: Trigger::Automatic, tree: None, context: None };
        let mut heard = String::new();
        let mut hear = |piece: &str| {
            heard.push_str(piece);
            true
        };
        let completion =
            complete(script, &request, options, &mut hear, &CancelToken::new()).expect("a sound script");
        (completion, heard)
    }

    fn check(marked: &str, pieces: &[&'static str], shown: Result<&str, NoneReason>, answer: &str) {
        let script = Script { pieces: pieces.to_vec(), ..Script::default() };
        let (completion, heard) = ask(&script, marked, &Options::default());
        assert_eq!(completion.result.map(|ghost| ghost.insert), shown.map(str::to_owned), "{marked:?}");
        let text = completion.answer.expect("an answer").text;
        assert_eq!(text, answer, "{marked:?}");
        assert!(heard.starts_with(&text), "{heard:?} is not what came of it: {text:?}");
    }

    #[test]
    fn an_answer_ends_with_its_line_or_its_block() {
        check("x = $0", &["fo", "o(1)"], Ok("foo(1)"), "foo(1)\n");
        check("x = $0", &["fo", "o(1)\n", "y"], Ok("foo(1)"), "foo(1)\n");
        check("x = $0", &["foo(1)\ny = "], Ok("foo(1)"), "foo(1)\n");
        check("x = $0", &[], Err(NoneReason::NothingToAdd), "\n");
        check("if x:\n    $0", &["a()\n    b()\nde", "f c"], Ok("a()\n    b()"), "a()\n    b()\n");
        check("x = $0", &["T, T, T, T, T, ", "T, T, T, "], Err(NoneReason::Repeats), "");
    }

    #[test]
    fn a_space_is_held_back_and_an_indentation_is_not_written_twice() {
        check("x = $0", &[" ", "1"], Ok("1"), "1\n");
        check("x = $0", &["  1"], Ok(" 1"), " 1\n");
        check("x =$0", &[" 1"], Ok(" 1"), " 1\n");
        check("if x:\n    $0", &[" ", " ", "  y = 1"], Ok("y = 1"), "y = 1");
        let script = Script::default();
        ask(&script, "a\nx = $0\nb", &Options::default());
        assert_eq!(script.asked.take(), [("a\nx =".into(), "\nb".into(), "\n".into())]);
        ask(&script, "if x:\n    $0", &Options::default());
        assert_eq!(script.asked.take(), [("if x:\n   ".into(), String::new(), "\n\n".into())]);
    }

    #[test]
    fn a_model_is_sent_no_more_than_it_reads_in_time() {
        let (script, long) = (Script::default(), "x = 1\n".repeat(100));
        ask(&script, &(long + "y = $0"), &Options::default());
        let (before, ..) = &script.asked.borrow()[0];
        assert!(before.len() <= 64 && before.ends_with("x = 1\ny ="), "{before:?}");
    }

    #[test]
    fn a_model_that_says_how_sure_it_is_is_believed_and_one_that_does_not_is_shown() {
        let shown = |logprobs: &[f32]| {
            let script = Script { pieces: vec!["foo"], logprobs: logprobs.to_vec(), ..Script::default() };
            ask(&script, "x = $0", &Options::default()).0.result.map(|ghost| ghost.insert)
        };
        assert_eq!(shown(&[]).as_deref(), Ok("foo"));
        assert_eq!(shown(&[-0.1]).as_deref(), Ok("foo"));
        assert_eq!(shown(&[-4.0]), Err(NoneReason::Unsure));
    }

    #[test]
    fn an_answer_that_was_cut_or_takes_too_long_is_shown_up_to_a_whole_word() {
        let script = Script { pieces: vec!["foo + ba"], end: Some(End::Cut), ..Script::default() };
        let (completion, _) = ask(&script, "x = $0", &Options::default());
        assert_eq!(completion.result.map(|ghost| ghost.insert).as_deref(), Ok("foo +"));
        let script = Script { pieces: vec!["foo + ba", "r"], ..Script::default() };
        let options = Options { decode_time: Duration::ZERO, ..Options::default() };
        let answer = ask(&script, "x = $0", &options).0.answer.expect("an answer");
        assert!(answer.is_cut && answer.text.starts_with("foo + ba"), "{answer:?}");
    }

    #[test]
    fn lines_ahead_follow_the_answer() {
        let script = Script { pieces: vec!["y = 2\n", "z = 3\n", "w"], ..Script::default() };
        let document = Document::open("x = ", 1).snapshot();
        let (offset, trigger) = (ByteOffset(4), Trigger::Automatic);
        let request = Request { document: &document, offset, trigger, tree: None, context: None };
        let answer = Answer { text: "1\n".into(), ..Answer::default() };
        let cancel = CancelToken::new();
        let ahead = look_ahead(&script, &request, &Options::default(), &answer, &mut |_| true, &cancel)
            .expect("a sound script");
        assert_eq!((ahead.text.as_str(), ahead.is_cut), ("1\ny = 2\nz = 3\n", true));
        assert_eq!(script.asked.borrow()[0].0, "x = 1\n");
    }
}

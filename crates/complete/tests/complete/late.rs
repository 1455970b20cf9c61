//! Lines for which a machine has no time.

use std::time::Duration;

use complete::{Options, Request, Trigger};
use engine::{CancelToken, Engine};
use syntax::{Language, SyntaxTree};
use text::{ByteOffset, Document};

use super::default_model;

/// Returns what is shown at the end of a document where a line has so much time, and whether it was cut: then the answer is
/// what was heard of it, whatever the engine wrote meanwhile.
fn shown(engine: &Engine, text: &str, language: Option<Language>, line_time: Duration) -> (String, bool) {
    let document = Document::open(text, 1).snapshot();
    let tree = language.and_then(|language| SyntaxTree::parse(language, &document, Duration::MAX));
    let request = Request {
        document: &document,
        offset: ByteOffset(document.len_bytes()),
        trigger: Trigger::Automatic,
        tree: tree.as_ref(),
        context: None,
    };
    let options = Options { n_others: 0, answer_time: Duration::ZERO, line_time, ..Options::default() };
    let mut heard = String::new();
    let mut hear = |piece: &str| {
        heard.push_str(piece);
        true
    };
    let completion = complete::complete(engine, &request, &options, "", &mut hear, &CancelToken::new());
    let completion = completion.expect("an answer");
    let answer = completion.answer.expect("the model was asked");
    assert!(!answer.is_cut || answer.text == heard, "{:?} {heard:?}", answer.text);
    (completion.result.expect("ghost text").insert, answer.is_cut)
}

#[test]
fn a_line_without_time_goes_on_until_some_of_it_can_be_shown() {
    let engine = default_model();
    let sums = "def add(a, b):\n    return a + b\n\ndef subtract(a, b):\n    return a";
    // ` -` would be an error.
    let late = shown(&engine, sums, Some(Language::Python), Duration::ZERO);
    assert_eq!(late, (" - b".to_owned(), false));
    // Where nothing is known of the syntax, a word is worth showing.
    let numbers = "Numbers: one, two, three, four,";
    let (late, is_cut) = shown(&engine, numbers, None, Duration::ZERO);
    let (in_time, _) = shown(&engine, numbers, None, Duration::from_secs(60));
    assert!(is_cut && late.len() < in_time.len() && in_time.starts_with(&late), "{late:?} of {in_time:?}");
}

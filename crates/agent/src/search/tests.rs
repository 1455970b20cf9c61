//! What is asked of whom, and in which order, with a model that says what the test wants.

use std::cell::RefCell;
use std::collections::VecDeque;

use engine::{Message, Sampling};

use super::*;
use crate::author::{Answer, Author};
use crate::locate::locate;

const STATS: &str = "import math\n\n\ndef mean(v):\n    total = sum(v)\n    if len(v) == 0:\n        return 1\n    return total / (len(v) + 1)\n";
const TESTS: &str = "import stats\n\ndef test_mean():\n    assert stats.mean([1]) == 1\n";
const OUTPUT: &str = "  File \"test_stats.py\", line 4, in test_mean\nAssertionError\n";

/// A model with its replies written down.
#[derive(Default)]
struct Scripted {
    replies: RefCell<VecDeque<Answer>>,
    asked: RefCell<Vec<(Vec<Message>, Sampling)>>,
    /// The last reply, as far as it was heard.
    heard: RefCell<String>,
}

impl Scripted {
    fn new(replies: &[&str]) -> Self {
        let replies = replies.iter().map(|reply| Answer::Text((*reply).to_owned()));
        Self { replies: RefCell::new(replies.collect()), ..Self::default() }
    }
}

impl Author for Scripted {
    fn answer(
        &self,
        messages: Vec<Message>,
        sampling: Sampling,
        _original: &str,
        on_text: &mut dyn FnMut(&str) -> bool,
        _cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        self.asked.borrow_mut().push((messages, sampling));
        let answer = self.replies.borrow_mut().pop_front().unwrap_or(Answer::TooLong);
        if let Answer::Text(text) = &answer {
            let mut ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
            let enough = ends.find(|&end| !on_text(&text[..end]));
            let text = &text[..enough.unwrap_or(text.len())];
            self.heard.replace(text.to_owned());
            return Ok(Answer::Text(text.to_owned()));
        }
        Ok(answer)
    }
}

fn files() -> Vec<SourceFile> {
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    vec![file("stats.py", STATS), file("test_stats.py", TESTS)]
}

fn with_search<T>(author: Option<&dyn Author>, work: impl FnOnce(&mut Search<'_>, &CancelToken) -> T) -> T {
    let (files, cancel) = (files(), CancelToken::new());
    let suspects = locate(&files, OUTPUT, &cancel);
    let failure = Failure { test_command: "pytest -q", output: OUTPUT };
    let models = Models { engine: None, author };
    let mut search = Search::new(models, &files, &suspects, failure, 7, &cancel).expect("no engine fails");
    work(&mut search, &cancel)
}

fn kinds(search: &mut Search<'_>, cancel: &CancelToken, n: usize) -> Vec<Kind> {
    (0..n).map_while(|_| search.next(&mut |_| {}, cancel).expect("no failure")).map(|(c, _)| c.kind).collect()
}

fn block(body: &str) -> String {
    format!("```python\ndef mean(v):\n    {body}\n```")
}

#[test]
fn without_any_model_edits_are_ranked_by_their_kind() {
    with_search(None, |search, cancel| {
        let n_ranked = search.n_ranked();
        let kinds = kinds(search, cancel, usize::MAX);
        assert!(n_ranked > 20 && kinds.len() > 20, "{n_ranked}, {kinds:?}");
        assert!(kinds.is_sorted_by(|a, b| a.prior() >= b.prior()), "{kinds:?}");
        assert!(kinds.iter().all(|kind| !matches!(kind, Kind::Rewrite | Kind::Line)), "{kinds:?}");
    });
}

#[test]
fn a_model_elsewhere_is_asked_first_and_again_after_a_dozen_edits() {
    let replies = [block("return 2"), block("return 3"), block("return 4")];
    let author = Scripted::new(&replies.each_ref().map(String::as_str));
    with_search(Some(&author), |search, cancel| {
        let kinds = kinds(search, cancel, 3 * N_EDITS_BETWEEN);
        let rewrites: Vec<usize> = (0..kinds.len()).filter(|&idx| kinds[idx] == Kind::Rewrite).collect();
        // Some edits do not parse, and are no candidates.
        assert!(rewrites[0] == 0 && (2..=N_EDITS_BETWEEN + 1).contains(&rewrites[1]), "{kinds:?}");
    });
    let asked = author.asked.borrow();
    assert_eq!(asked[0].1, Sampling::greedy());
    assert!(asked[1].1.temperature > 0.0 && asked[1].1.seed != asked[2].1.seed);
}

#[test]
fn when_all_is_tried_the_search_ends() {
    let author = Scripted::default();
    with_search(Some(&author), |search, cancel| {
        kinds(search, cancel, usize::MAX);
        assert!(search.next(&mut |_| {}, cancel).expect("no failure").is_none());
    });
    assert_eq!(author.asked.borrow().len(), 8, "a place in each round, though every question was too long");
}

#[test]
fn the_question_shows_the_failure_the_test_and_the_function() {
    let reply = format!("Sure.\n{}\nAnd more words, which nobody needs.", block("return sum(v) / len(v)"));
    let author = Scripted::new(&[&reply]);
    let (candidate, text) = with_search(Some(&author), |search, cancel| {
        let mut asking = Vec::new();
        let next = search.next(&mut |place| asking.push(place.function.name.clone()), cancel);
        assert_eq!(asking, ["mean"]);
        next.expect("no failure").expect("a candidate")
    });
    assert_eq!(text, "import math\n\n\ndef mean(v):\n    return sum(v) / len(v)\n");
    assert_eq!((candidate.kind, candidate.line), (Kind::Rewrite, 4));
    assert!(author.heard.borrow().ends_with("```"), "nobody listens to the words behind the code");
    let asked = author.asked.borrow();
    let [(messages, _)] = asked.as_slice() else { panic!("{asked:?}") };
    let [question] = messages.as_slice() else { panic!("{messages:?}") };
    let function = STATS.split_once("\n\n\n").expect("two parts").1;
    for part in ["`pytest -q` fails", OUTPUT, "assert stats.mean([1]) == 1", "import math", function] {
        assert!(question.content.contains(part), "{part:?} is not in {:?}", question.content);
    }
}

#[test]
fn every_other_round_tells_what_was_tried_and_how_it_failed() {
    let replies = [block("return 2"), block("return 3"), block("return 4")];
    let author = Scripted::new(&replies.each_ref().map(String::as_str));
    with_search(Some(&author), |search, cancel| {
        while let Some((candidate, _)) = search.next(&mut |_| {}, cancel).expect("no failure") {
            let output = format!("{}it was {}", "noise\n".repeat(1000), candidate.new_text);
            let outcome =
                TestOutcome { exit: Some(1), timed_out: false, cancelled: false, duration_ms: 1, output };
            search.learn(&candidate, &outcome);
        }
    });
    let asked = author.asked.borrow();
    let said: Vec<Vec<&str>> = asked
        .iter()
        .map(|(messages, _)| messages.iter().skip(1).map(|message| message.content.as_str()).collect())
        .collect();
    assert_eq!(said[0], [] as [&str; 0]);
    assert!(said[1][0].contains("return 2") && said[1][1].contains("it was def mean(v):\n    return 2"));
    assert!(said[1][1].len() < 2000, "the output is shortened");
    assert_eq!(said[2], [] as [&str; 0]);
    assert!(said[3][0].contains("return 4"), "the last attempt counts");
}

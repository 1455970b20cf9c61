use std::collections::BTreeMap;
use std::path::Path;

use engine::{
    DraftExtent, Drafting, GenerateRequest, GrammarSpec, Priority, Sampling, Score, ScoreRequest, StopReason,
    StopRules, Timings, TokenId,
};

use super::*;
use crate::Error;

pub(super) fn header() -> TraceHeader {
    TraceHeader {
        format: FORMAT,
        version: "1.2.3".to_owned(),
        model: "the-model".to_owned(),
        sha256: "00ff".to_owned(),
        n_bytes: 7,
        isa: "scalar".to_owned(),
        kv: "f16".to_owned(),
        n_ctx: 64,
    }
}

fn generate_request() -> GenerateRequest {
    GenerateRequest {
        prompt: vec![TokenId(1), TokenId(49_151)],
        healed: vec![0xF0, 0x9F],
        grammar: Some(GrammarSpec::Regex("a+".to_owned())),
        shown: vec![TokenId(2)],
        sampling: Sampling { temperature: 0.7, top_k: 40, top_p: 0.95, seed: u64::MAX },
        stop: StopRules {
            n_max_tokens: 9,
            texts: vec!["\n\n".to_owned()],
            decode_time: Some(Duration::from_millis(300)),
        },
        drafting: Drafting {
            extent: DraftExtent::All,
            original: vec![TokenId(3)],
            previous: vec![TokenId(4)],
        },
        n_top: 2,
        priority: Priority::Interactive,
    }
}

fn generation() -> Generation {
    Generation {
        text: "aé".to_owned(),
        tokens: vec![TokenId(5), TokenId(6)],
        logprobs: vec![-0.1, f32::NEG_INFINITY],
        top: Vec::new(),
        stop: StopReason::Cancelled,
        n_prompt: 2,
        n_reused: 1,
        n_drafted: 3,
        n_kept: 2,
        timings: Timings {
            queue: Duration::from_micros(1),
            prefill: Duration::from_micros(2),
            decode: Duration::from_micros(3),
            ttft: Duration::from_micros(4),
        },
    }
}

pub(super) fn ended(outcome: Outcome<'_>, asked: Asked, began: Instant) -> Ended<'_> {
    Ended {
        asked,
        arrived: began + Duration::from_micros(11),
        cancelled: Some(began + Duration::from_micros(31)),
        enough_after: vec![None, Some(5)],
        outcome,
        n_overtaken: 8,
    }
}

/// Two answers to one request, as a trace has them.
pub(super) fn two_answers() -> TracedRequest {
    let began = Instant::now();
    let asked = Asked::Generate { request: Box::new(generate_request()), n_answers: 2 };
    let answers = [generation(), generation()];
    traced(ended(Outcome::Generated(&answers), asked, began), began)
}

/// Returns a request whose times are whole microseconds, as the file has them.
fn traced(ended: Ended<'_>, began: Instant) -> TracedRequest {
    TracedRequest { ended: Duration::from_micros(77), ..TracedRequest::new(ended, began) }
}

fn score(logprob: f32) -> Score {
    Score { token: TokenId(1), logprob, top: vec![(TokenId(2), -1.5)], asked: vec![-2.5] }
}

#[test]
fn a_request_comes_back_as_it_went() {
    let began = Instant::now();
    let asked = ScoreRequest {
        tokens: vec![TokenId(1), TokenId(2)],
        from: 1,
        n_top: 3,
        asked: BTreeMap::from([(1, vec![TokenId(7)])]),
        priority: Priority::Background,
    };
    let scores = [score(-0.5)];
    let scored = ended(Outcome::Scored(Some(&scores)), Asked::Score(asked.clone()), began);
    let failure = engine::Error::EmptyPrompt;
    let failed = ended(Outcome::Failed(&failure), Asked::Score(asked), began);
    let all = [two_answers(), traced(scored, began), traced(failed, began)];
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.trace");
    let lines = all.iter().map(|request| Line::Request(Box::new(request.clone().into())));
    let lines = [Line::Header(header())].into_iter().chain(lines).map(|line| serde_json::to_string(&line));
    let text: String = lines.map(|line| line.expect("it can be written") + "\n").collect();
    std::fs::write(&path, text).expect("there is room");
    let trace = Trace::read(&path).expect("it is whole");
    assert_eq!((trace.header, trace.end), (header(), None));
    for (request, (line, back)) in all.iter().zip(&trace.requests) {
        assert_eq!(format!("{request:?}"), format!("{back:?}"), "line {line}");
    }
    assert_eq!(trace.requests[0].1.arrived, Duration::from_micros(11));
    assert_eq!(trace.requests[0].1.cancelled_after, Some(Duration::from_micros(20)));
}

#[test]
fn every_bit_of_a_score_counts() {
    let other_top = Score { top: vec![(TokenId(3), -1.5)], ..score(-0.5) };
    let other_asked = Score { asked: vec![-2.25], ..score(-0.5) };
    let hashes = [score(-0.5), score(f32::from_bits((-0.5_f32).to_bits() + 1)), other_top, other_asked];
    let hashes = hashes.map(|score| hash(&[score]));
    assert_eq!(hashes[0], hash(&[score(-0.5)]));
    assert!(hashes[1..].iter().all(|other| *other != hashes[0]), "{hashes:?}");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let line = |line: &Line| serde_json::to_string(line).expect("it can be written") + "\n";
    let head = line(&Line::Header(header()));
    let request = line(&Line::Request(Box::new(two_answers().into())));
    let end = line(&Line::End(TraceEnd::default()));
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.trace");
    let check = |text: &[&str], expected: Option<(usize, &str)>| {
        std::fs::write(&path, text.concat()).expect("there is room");
        match (Trace::read(&path), expected) {
            (Ok(_), None) => {}
            (Err(error @ Error::Trace { .. }), Some((line, reason))) => {
                assert_eq!(error.to_string(), format!("{}, line {line}: {reason}", path.display()));
                assert!(error.hint().is_some());
            }
            (got, expected) => panic!("{got:?}, not {expected:?}"),
        }
    };
    check(&[&head], None);
    check(&[&head, &request, &request, &end], None);
    check(&[], Some((1, "the file is empty")));
    check(&["\n"], Some((1, "not understood at byte 0")));
    check(&[&request], Some((1, "a trace begins with its header")));
    check(&[&head, &head], Some((2, "a second header")));
    check(&[&head, &request, &request[..request.len() / 2]], Some((3, "the line is cut short")));
    check(&[&head, &request[..request.len() - 1]], Some((2, "the line is cut short")));
    check(&[&head, "\u{0}\u{1}garbage\n"], Some((2, "not understood at byte 1")));
    check(&[&head, &end, &request], Some((3, "something after the trace's end")));
    let other = head.replace("\"format\":1", "\"format\":2");
    check(&[&other], Some((1, "a trace of format 2; this program reads format 1")));
    check(&["{\"header\":{\"format\":9}}\n"], Some((1, "a trace of format 9; this program reads format 1")));
    let unread = request.replace("\"enough_after\":[null,5]", "\"enough_after\":[]");
    check(&[&head, &unread], Some((2, "2 answers, of which 0 had a reader")));
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let error = Trace::read(Path::new("/dev/zero")).expect_err("no trace");
    assert!(error.to_string().ends_with("line 1: the line is longer than 67108864 bytes"), "{error}");
}

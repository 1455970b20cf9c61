//! Whether a run's answers are those recorded (I-7).
//!
//! In: what came of each request, twice. Out: how many are the same, and where the others differ.
//! Never: compares what a clock or a caller cut off beyond where it was cut.

use std::io::{self, Write};

use ::serve::{TracedOutcome, TracedRequest};
use engine::{Generation, StopReason};
use serde_json::{Value, json};

/// Most differences that are told one by one in text.
const N_MAX_TOLD: usize = 10;

/// The answers of one run beside the recorded ones.
#[derive(Debug, Default)]
pub(super) struct Checked {
    n_same: usize,
    /// Requests that failed when they were recorded, and scores that were cancelled.
    n_not_compared: usize,
    pub(super) different: Vec<Difference>,
}

/// An answer that is another one than was recorded.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    /// The request's line in the trace.
    line: usize,
    answer_idx: usize,
    what: String,
}

impl Checked {
    pub(super) fn new(recorded: &[(usize, TracedRequest)], replayed: &[TracedOutcome]) -> Self {
        let mut checked = Self::default();
        for ((line, request), replayed) in recorded.iter().zip(replayed) {
            checked.add(*line, &request.outcome, replayed);
        }
        checked
    }

    fn add(&mut self, line: usize, recorded: &TracedOutcome, replayed: &TracedOutcome) {
        let mut differ = |answer_idx, what| self.different.push(Difference { line, answer_idx, what });
        match (recorded, replayed) {
            (TracedOutcome::Failed(_), _) | (TracedOutcome::Scored(None), _) => self.n_not_compared += 1,
            (_, TracedOutcome::Failed(error)) => differ(0, format!("it failed: {error}")),
            (TracedOutcome::Scored(_), TracedOutcome::Scored(None)) => self.n_not_compared += 1,
            (TracedOutcome::Scored(one), TracedOutcome::Scored(other)) if one == other => self.n_same += 1,
            (TracedOutcome::Generated(recorded), TracedOutcome::Generated(replayed))
                if recorded.len() == replayed.len() =>
            {
                for (answer_idx, pair) in recorded.iter().zip(replayed).enumerate() {
                    match difference(pair.0, pair.1) {
                        None => self.n_same += 1,
                        Some(what) => self.different.push(Difference { line, answer_idx, what }),
                    }
                }
            }
            (TracedOutcome::Scored(_), _) => differ(0, "other scores".to_owned()),
            (TracedOutcome::Generated(_), _) => differ(0, "another number of answers".to_owned()),
        }
    }

    pub(super) fn write(&self, out: &mut impl Write, run: &str) -> io::Result<()> {
        let Self { n_same, n_not_compared, different } = self;
        let n_different = different.len();
        writeln!(
            out,
            "{run}: {n_same} answers are the same, {n_different} are not, {n_not_compared} cannot be compared"
        )?;
        for Difference { line, answer_idx, what } in different.iter().take(N_MAX_TOLD) {
            writeln!(out, "  line {line}, answer {}: {what}", answer_idx + 1)?;
        }
        if n_different > N_MAX_TOLD {
            writeln!(out, "  and {} more", n_different - N_MAX_TOLD)?;
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Value {
        let different = self.different.iter().map(|Difference { line, answer_idx, what }| {
            json!({"line": line, "answer_idx": answer_idx, "what": what})
        });
        json!({"n_same": self.n_same, "n_not_compared": self.n_not_compared,
            "different": different.collect::<Vec<Value>>()})
    }
}

/// Returns how one answer differs from another, if it does: where both ended by themselves in any token, else in those
/// that both have.
fn difference(recorded: &Generation, replayed: &Generation) -> Option<String> {
    let (one, other) = (&recorded.tokens, &replayed.tokens);
    let n_common = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let is_whole = ended_by_itself(recorded.stop) && ended_by_itself(replayed.stop);
    if n_common < one.len().min(other.len()) || is_whole && one.len() != other.len() {
        return Some(format!("another token {}", n_common + 1));
    }
    let has_other_end = is_whole && recorded.stop != replayed.stop;
    has_other_end.then(|| format!("it ended with {:?}, not {:?}", replayed.stop, recorded.stop))
}

fn ended_by_itself(stop: StopReason) -> bool {
    match stop {
        StopReason::EndOfGeneration | StopReason::StopText | StopReason::MaxTokens => true,
        StopReason::Time | StopReason::Enough | StopReason::Cancelled => false,
    }
}

#[cfg(test)]
mod tests {
    use engine::{Timings, TokenId};

    use super::*;

    fn answer(tokens: &[u32], stop: StopReason) -> Generation {
        Generation {
            text: String::new(),
            tokens: tokens.iter().copied().map(TokenId).collect(),
            logprobs: Vec::new(),
            top: Vec::new(),
            stop,
            n_prompt: 1,
            n_reused: 0,
            n_drafted: 0,
            n_kept: 0,
            timings: Timings::default(),
        }
    }

    #[test]
    fn what_was_cut_off_is_compared_as_far_as_it_goes() {
        use StopReason::{Cancelled, MaxTokens, StopText, Time};
        let check =
            |recorded: (&[u32], StopReason), replayed: (&[u32], StopReason), expected: Option<&str>| {
                let what = difference(&answer(recorded.0, recorded.1), &answer(replayed.0, replayed.1));
                assert_eq!(what.as_deref(), expected, "{recorded:?} {replayed:?}");
            };
        check((&[1, 2], MaxTokens), (&[1, 2], MaxTokens), None);
        check((&[1, 2], MaxTokens), (&[1, 3], MaxTokens), Some("another token 2"));
        check((&[1, 2], MaxTokens), (&[1], MaxTokens), Some("another token 2"));
        check((&[1, 2], MaxTokens), (&[1, 2], StopText), Some("it ended with StopText, not MaxTokens"));
        check((&[1, 2], MaxTokens), (&[1], Time), None);
        check((&[1], Cancelled), (&[1, 2], MaxTokens), None);
        check((&[], Cancelled), (&[1, 2], MaxTokens), None);
        check((&[1], Cancelled), (&[2], Cancelled), Some("another token 1"));
    }

    #[test]
    fn a_request_that_fails_only_now_is_a_difference_and_one_that_failed_then_is_none() {
        let generated = || TracedOutcome::Generated(vec![answer(&[1], StopReason::MaxTokens)]);
        let scored = |hash: Option<&str>| TracedOutcome::Scored(hash.map(str::to_owned));
        let failed = || TracedOutcome::Failed("busy".to_owned());
        let check = |recorded, replayed, expected: (usize, usize, usize)| {
            let mut checked = Checked::default();
            checked.add(7, &recorded, &replayed);
            let got = (checked.n_same, checked.n_not_compared, checked.different.len());
            assert_eq!(got, expected, "{recorded:?} {replayed:?}");
        };
        check(generated(), generated(), (1, 0, 0));
        check(generated(), failed(), (0, 0, 1));
        check(failed(), generated(), (0, 1, 0));
        check(scored(Some("a")), scored(Some("a")), (1, 0, 0));
        check(scored(Some("a")), scored(Some("b")), (0, 0, 1));
        check(scored(Some("a")), scored(None), (0, 1, 0));
        check(scored(None), scored(Some("a")), (0, 1, 0));
        check(generated(), scored(Some("a")), (0, 0, 1));
    }
}

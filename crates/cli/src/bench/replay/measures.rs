//! What a run of a trace, or its recording, comes to.
//!
//! In: what was asked and what came of it. Out: the same list of numbers for each, so that they stand side by side.

use std::time::Duration;

use ::serve::TracedOutcome;
use engine::{Asked, Generation, Priority, StopReason};

use crate::bench::ms;

/// A number with its name, which ends in its unit.
#[derive(Debug, PartialEq)]
pub(super) struct Measure {
    pub(super) name: String,
    /// None where there is nothing to measure.
    pub(super) value: Option<f64>,
}

impl Measure {
    pub(super) fn text(&self) -> String {
        match self.value {
            None => "-".to_owned(),
            Some(value) if self.name.starts_with("n_") => value.to_string(),
            Some(value) => format!("{value:.2}"),
        }
    }
}

/// Returns all measures, in the same order for any requests.
pub(super) fn measures<'r>(
    requests: impl Iterator<Item = (&'r Asked, &'r TracedOutcome)>,
    n_overtaken: u64,
    wall: Duration,
) -> Vec<Measure> {
    let requests: Vec<_> = requests.collect();
    let outcomes = || requests.iter().map(|(_, outcome)| *outcome);
    let mut all = Vec::new();
    let mut add = |name: &str, value: Option<f64>| all.push(Measure { name: name.to_owned(), value });
    let mut count = |name: &str, n: usize| add(name, Some(n as f64));
    count("n_requests", requests.len());
    count("n_failed", outcomes().filter(|outcome| matches!(outcome, TracedOutcome::Failed(_))).count());
    count("n_cancelled", outcomes().filter(|outcome| is_cancelled(outcome)).count());
    count("n_preemptions", n_overtaken as usize);
    for (name, priority) in [("interactive", Priority::Interactive), ("background", Priority::Background)] {
        let of_priority = || {
            requests.iter().filter_map(move |(asked, outcome)| match (asked, outcome) {
                (Asked::Generate { request, .. }, TracedOutcome::Generated(answers))
                    if request.priority == priority =>
                {
                    answers
                        .iter()
                        .filter(|answer| !answer.timings.ttft.is_zero())
                        .min_by_key(|answer| answer.timings.ttft)
                }
                _ => None,
            })
        };
        let times = |of: fn(&Generation) -> Duration| {
            let mut times: Vec<f64> = of_priority().map(|answer| ms(of(answer))).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let (queue, ttft) = (times(|answer| answer.timings.queue), times(|answer| answer.timings.ttft));
        for (what, times) in [("queue", queue), ("ttft", ttft)] {
            add(&format!("{name}_{what}_p50_ms"), quantile(&times, 0.5));
            add(&format!("{name}_{what}_p95_ms"), quantile(&times, 0.95));
        }
    }
    let answers = || {
        outcomes().flat_map(|outcome| match outcome {
            TracedOutcome::Generated(answers) => &answers[..],
            _ => &[],
        })
    };
    // The first token is the prefill's.
    let n_decoded: usize = answers().map(|answer| answer.tokens.len().saturating_sub(1)).sum();
    let decode: f64 = answers().map(|answer| answer.timings.decode.as_secs_f64()).sum();
    add("decode_tokens_per_s", ratio(n_decoded as f64, decode));
    // Those that were cancelled while they waited have computed nothing.
    let begun: Vec<&Generation> = outcomes()
        .filter_map(|outcome| match outcome {
            TracedOutcome::Generated(answers) => {
                answers.first().filter(|first| !first.timings.prefill.is_zero())
            }
            _ => None,
        })
        .collect();
    let n_prompt: usize = begun.iter().map(|answer| answer.n_prompt).sum();
    let n_reused: usize = begun.iter().map(|answer| answer.n_reused).sum();
    add(
        "prefilled_tokens_per_request",
        ratio((n_prompt - n_reused.min(n_prompt)) as f64, begun.len() as f64),
    );
    add("share_reused", ratio(n_reused as f64, n_prompt as f64));
    let n_drafted: usize = answers().map(|answer| answer.n_drafted).sum();
    let n_kept: usize = answers().map(|answer| answer.n_kept).sum();
    add("draft_acceptance_rate", ratio(n_kept as f64, n_drafted as f64));
    add("wall_s", Some(wall.as_secs_f64()));
    all
}

fn is_cancelled(outcome: &TracedOutcome) -> bool {
    match outcome {
        TracedOutcome::Generated(answers) => {
            answers.iter().any(|answer| answer.stop == StopReason::Cancelled)
        }
        TracedOutcome::Scored(scores) => scores.is_none(),
        TracedOutcome::Failed(_) => false,
    }
}

fn ratio(of: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| of / by)
}

/// Returns the value that this share of the sorted ones do not exceed.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let check =
            |sorted: &[f64], share, expected| assert_eq!(quantile(sorted, share), expected, "{sorted:?}");
        check(&[], 0.5, None);
        check(&[3.0], 0.5, Some(3.0));
        check(&[3.0], 0.95, Some(3.0));
        check(&[1.0, 2.0, 3.0, 4.0], 0.5, Some(2.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        check(&hundred, 0.95, Some(95.0));
    }
}

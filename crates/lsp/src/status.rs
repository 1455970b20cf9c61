//! What the server is about, for a status bar.
//!
//! In: how far the model is, what answers took, what is allowed. Out: [`State`], as JSON for `tandem/status`.
//! Never: holds a text.
//! Thread: main.

use std::collections::VecDeque;
use std::time::Duration;

use complete::Statistics;
use serde_json::{Value, json};

/// How many of the model's answers are looked at.
const N_ANSWERS: usize = 5;
/// An answer that takes longer comes when its user has typed on: eight keys of a fast typist.
const SLOW: Duration = Duration::from_millis(1500);

/// What the server is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// The model is on its way; the part of it that is here, 0 to 1.
    Loading(f32),
    Ready,
    /// It works, but its answers come too late, and why.
    Slow(&'static str),
    /// Nothing is shown unasked, because somebody wants it so.
    Off(&'static str),
    /// There will be no ghost text, and why.
    Error(String),
}

impl State {
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Loading(fraction) => {
                json!({ "state": "loading", "reason": "the model is loading", "fraction": percent(*fraction) })
            }
            Self::Ready => json!({ "state": "ready", "reason": null }),
            Self::Slow(reason) => json!({ "state": "slow", "reason": reason }),
            Self::Off(reason) => json!({ "state": "off", "reason": reason }),
            Self::Error(reason) => json!({ "state": "error", "reason": reason }),
        }
    }
}

fn percent(fraction: f32) -> f64 {
    f64::from((fraction * 100.0).round()) / 100.0
}

/// What the model's last answers took.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    answers: VecDeque<Took>,
}

/// What an answer took, and where.
#[derive(Clone, Copy, Debug)]
struct Took {
    total: Duration,
    queue: Duration,
    prefill: Duration,
    decode: Duration,
}

impl Pace {
    /// Takes an answer of the model that its user waited `total` for.
    pub(crate) fn add(&mut self, total: Duration, statistics: &Statistics) {
        if self.answers.len() == N_ANSWERS {
            self.answers.pop_front();
        }
        let timings = &statistics.timings;
        let (queue, prefill, decode) = (timings.queue, timings.prefill, timings.decode);
        self.answers.push_back(Took { total, queue, prefill, decode });
    }

    /// Returns why answers come too late, if most of the last ones did.
    pub(crate) fn why_slow(&self) -> Option<&'static str> {
        let n_slow = self.answers.iter().filter(|took| took.total > SLOW).count();
        if self.answers.len() < N_ANSWERS || n_slow * 2 <= N_ANSWERS {
            return None;
        }
        let sum = |part: fn(&Took) -> Duration| self.answers.iter().map(part).sum::<Duration>();
        let elsewhere = |took: &Took| took.total.saturating_sub(took.queue + took.prefill + took.decode);
        let parts = [
            (sum(|took| took.queue), "the engine is busy with another program's requests"),
            (sum(|took| took.prefill), "reading the file takes long: a smaller model would be faster"),
            (sum(|took| took.decode), "writing takes long: a smaller model would be faster"),
            (sum(elsewhere), "the machine is busy with other work"),
        ];
        parts.into_iter().max_by_key(|(time, _)| *time).map(|(_, reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(total_ms: u64, queue_ms: u64, prefill_ms: u64, decode_ms: u64) -> (Duration, Statistics) {
        let ms = Duration::from_millis;
        let mut statistics = Statistics::default();
        statistics.timings.queue = ms(queue_ms);
        statistics.timings.prefill = ms(prefill_ms);
        statistics.timings.decode = ms(decode_ms);
        (ms(total_ms), statistics)
    }

    #[test]
    fn it_is_slow_while_most_answers_are_and_says_where_the_time_went() {
        let check = |answers: &[(Duration, Statistics)], expected: Option<&str>| {
            let mut pace = Pace::default();
            for (total, statistics) in answers {
                pace.add(*total, statistics);
            }
            let why = pace.why_slow();
            assert_eq!(why.is_some(), expected.is_some(), "{why:?}");
            assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()), "{why:?}");
        };
        let fast = took(100, 0, 50, 50);
        check(&[], None);
        check(&[took(9000, 0, 9000, 0); 4], None);
        check(&[took(2000, 1500, 300, 200); 5], Some("another program"));
        check(&[took(2000, 100, 1500, 200); 5], Some("reading"));
        check(&[took(2000, 100, 200, 1500); 5], Some("writing"));
        check(&[took(2000, 100, 200, 100); 5], Some("the machine"));
        let slow = took(2000, 1500, 0, 0);
        check(&[slow, slow, slow, fast, fast], Some("another program"));
        check(&[slow, slow, slow, slow, fast, fast, fast], None);
    }
}

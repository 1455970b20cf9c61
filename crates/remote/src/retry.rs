//! How long to wait before a question is asked again.
//!
//! In: what the server wished, how often it was asked. Out: a pause, or the end of patience.
//! Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use engine::CancelToken;

use crate::Limits;

/// How often a cancelled wait is noticed.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// The tries of one question.
pub(crate) struct Backoff<'a> {
    limits: &'a Limits,
    n_tried: u32,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, n_tried: 1 }
    }

    /// Waits before the next try and returns whether there is one.
    pub(crate) fn wait(&mut self, asked: Option<Duration>, cancel: &CancelToken) -> bool {
        let Some(pause) = self.pause(asked, random()) else {
            return false;
        };
        let until = Instant::now() + pause;
        while !cancel.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(TICK));
        }
        false
    }

    /// Returns the next pause: what the server asked for, or a `share` from 0 to 1 of a bound that doubles.
    fn pause(&mut self, asked: Option<Duration>, share: f64) -> Option<Duration> {
        if self.n_tried >= self.limits.n_tries {
            return None;
        }
        let bound = self.limits.first_pause * 2_u32.saturating_pow(self.n_tried - 1);
        self.n_tried += 1;
        let pause = asked.unwrap_or_else(|| bound.mul_f64(share));
        Some(pause.min(self.limits.max_pause))
    }
}

/// Returns a number from 0 to 1. The hasher's keys are random, which is all that is needed to keep callers apart.
fn random() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let second = Duration::from_secs(1);
        let limits = Limits { n_tries: 5, first_pause: second, max_pause: 3 * second, ..Limits::default() };
        let mut backoff = Backoff::new(&limits);
        assert_eq!(backoff.pause(None, 1.0), Some(second));
        assert_eq!(backoff.pause(None, 0.5), Some(second));
        assert_eq!(backoff.pause(None, 1.0), Some(3 * second));
        assert_eq!(
            backoff.pause(Some(60 * second), 0.0),
            Some(3 * second),
            "a wish is honoured up to the bound"
        );
        assert_eq!(backoff.pause(Some(second), 0.0), None);
        let first = Backoff::new(&limits).pause(Some(2 * second), 0.0);
        assert_eq!(first, Some(2 * second), "a wish is honoured as it is");
    }

    #[test]
    fn the_jitter_differs_from_call_to_call() {
        let draws: Vec<f64> = (0..8).map(|_| random()).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        assert!(draws.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_cancelled_wait_is_no_try() {
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(!Backoff::new(&Limits::default()).wait(Some(Duration::from_secs(3600)), &cancel));
    }
}

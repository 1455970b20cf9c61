//! What an editor hears of an endpoint that fails, and when that is asked again.
//!
//! In: an [`EndpointModel`]'s failures. Out: one sentence for each outage, and silence until the next try is due.
//! Never: asks a dead endpoint at every key; gives it up.
//! Thread: the completion thread.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use complete::text_model::{Continuation, End, Question, TextModel, Unavailable};
use engine::CancelToken;

use super::ghost::EndpointModel;
use crate::failure::Failure;

/// How long an endpoint is left alone after its first failure; the time doubles with each.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest it is left alone.
const MAX_REST: Duration = Duration::from_secs(60);
/// How long the same failure is no news.
const NEWS_AGAIN: Duration = Duration::from_secs(600);

/// An endpoint's model that is left alone for a while when it fails.
pub(crate) struct Patient {
    model: EndpointModel,
    outage: RefCell<Outage>,
}

impl Patient {
    pub(crate) fn new(model: EndpointModel) -> Self {
        Self { model, outage: RefCell::default() }
    }
}

impl TextModel for Patient {
    fn n_max_prefix_bytes(&self) -> usize {
        self.model.n_max_prefix_bytes()
    }

    fn continue_text(
        &self,
        question: &Question<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Continuation, Unavailable> {
        let mut outage = self.outage.borrow_mut();
        if outage.is_resting(Instant::now()) {
            return Err(Unavailable::Resting);
        }
        match self.model.ask(question, on_text, cancel) {
            Ok(continuation) => {
                if continuation.end != End::Cancelled {
                    outage.is_over();
                }
                Ok(continuation)
            }
            Err(error) => {
                let wish = error.retry_after();
                let failure = Failure::from(error);
                let is_news = outage.failed(failure.code, wish, Instant::now());
                tracing::debug!(code = failure.code, is_news, "the endpoint failed");
                Err(if is_news {
                    Unavailable::Failed(sentence(&failure).into())
                } else {
                    Unavailable::Resting
                })
            }
        }
    }
}

fn sentence(failure: &Failure) -> String {
    let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("no ghost text for now: {}{hint}; it is tried again by itself", failure.message)
}

/// How an endpoint has failed since it last answered.
#[derive(Default)]
struct Outage {
    n_failed: u32,
    until: Option<Instant>,
    /// The exit code that the last news would have been, and when that was told.
    told: Option<(u8, Instant)>,
}

impl Outage {
    fn is_resting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn is_over(&mut self) {
        (self.n_failed, self.until) = (0, None);
    }

    /// Takes note of a failure and returns whether it is news: the first of an outage, or one of another kind than was told.
    /// A dead server fails in several ways, which are all the same to its user; the exit code tells kinds apart.
    fn failed(&mut self, code: u8, wish: Option<Duration>, now: Instant) -> bool {
        let rest = FIRST_REST.saturating_mul(2_u32.saturating_pow(self.n_failed));
        self.until = Some(now + rest.max(wish.unwrap_or_default()).min(MAX_REST));
        let is_first = self.n_failed == 0;
        self.n_failed += 1;
        let is_news = self.told.is_none_or(|(told, at)| {
            told != code || is_first && now.saturating_duration_since(at) > NEWS_AGAIN
        });
        if is_news {
            self.told = Some((code, now));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::code;

    #[test]
    fn an_outage_is_told_once_and_one_of_another_kind_too() {
        let (mut outage, now) = (Outage::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(outage.failed(code::MODEL, None, now));
        assert!(!outage.failed(code::MODEL, None, later(5)));
        assert!(outage.failed(code::USAGE, None, later(10)), "it is there now, and wants another key");
        outage.is_over();
        assert!(!outage.failed(code::USAGE, None, later(60)), "it comes and goes");
        assert!(!outage.failed(code::USAGE, None, later(10_000)), "and is gone since");
        outage.is_over();
        assert!(outage.failed(code::USAGE, None, later(20_000)));
    }

    #[test]
    fn a_dead_endpoint_is_left_alone_for_longer_and_longer_but_not_given_up() {
        let (mut outage, now) = (Outage::default(), Instant::now());
        let mut rest = |wish: Option<u64>| {
            outage.failed(code::MODEL, wish.map(Duration::from_secs), now);
            assert!(outage.is_resting(now));
            outage.until.expect("it rests") - now
        };
        let seconds = Duration::from_secs;
        assert_eq!([rest(None), rest(None), rest(None)], [seconds(1), seconds(2), seconds(4)]);
        assert_eq!([rest(Some(30)), rest(Some(3600))], [seconds(30), MAX_REST]);
        for _ in 0..100 {
            assert!(rest(None) <= MAX_REST);
        }
        outage.is_over();
        assert!(!outage.is_resting(now));
    }
}

//! Who is let in: a bounded number of requests, and whether anybody is here at all.
//!
//! In: requests and clients as they come and go. Out: a permit or "busy"; since when nobody is here.
//! Never: a queue that grows: beyond the bound the answer is "busy", at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most requests that run or wait at once. One editor has one in flight and an agent a handful.
pub(crate) const N_MAX_REQUESTS: usize = 64;

/// Counts requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    n_inside: Arc<AtomicUsize>,
}

/// The right to run some requests, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    n_inside: Arc<AtomicUsize>,
    n: usize,
}

impl Admission {
    /// Lets `n` requests in, or returns the error that tells how many are there.
    pub(crate) fn enter(&self, n: usize) -> Result<Permit, engine::Error> {
        let fits = |inside: usize| inside.checked_add(n).filter(|sum| *sum <= N_MAX_REQUESTS);
        match self.n_inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Permit { n_inside: Arc::clone(&self.n_inside), n }),
            Err(n_waiting) => Err(engine::Error::Busy { n_waiting }),
        }
    }

    /// Returns how many are inside.
    pub(crate) fn n_inside(&self) -> usize {
        self.n_inside.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.n_inside.fetch_sub(self.n, Ordering::AcqRel);
    }
}

/// Knows whether anybody is here: a client, or a request over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Presence(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    n_here: usize,
    last_left: Instant,
}

/// Somebody is here until it is dropped.
#[derive(Debug)]
pub(crate) struct Here(Presence);

impl Presence {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { n_here: 0, last_left: Instant::now() })))
    }

    pub(crate) fn enter(&self) -> Here {
        self.with(|state| state.n_here += 1);
        Here(self.clone())
    }

    /// Returns how many are here.
    pub(crate) fn n_here(&self) -> usize {
        self.with(|state| state.n_here)
    }

    /// Returns for how long nobody has been here.
    pub(crate) fn empty_for(&self) -> Option<Duration> {
        self.with(|state| (state.n_here == 0).then(|| state.last_left.elapsed()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // A count is whole whatever panicked beside it.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.n_here -= 1;
            state.last_left = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_fits_is_told_busy_and_a_leaver_makes_room() {
        let admission = Admission::default();
        let most = admission.enter(N_MAX_REQUESTS - 1).expect("it is empty");
        let last = admission.enter(1).expect("one place is left");
        assert!(matches!(admission.enter(1), Err(engine::Error::Busy { n_waiting: N_MAX_REQUESTS })));
        drop(last);
        assert!(admission.enter(2).is_err(), "two do not fit into one place");
        let _one = admission.enter(1).expect("one does");
        drop(most);
        assert_eq!(admission.n_inside(), 1);
        assert!(admission.enter(usize::MAX).is_err());
    }

    #[test]
    fn it_is_empty_only_when_all_have_left() {
        let presence = Presence::new();
        assert!(presence.empty_for().is_some());
        let [first, second] = [presence.enter(), presence.enter()];
        drop(first);
        assert_eq!((presence.n_here(), presence.empty_for()), (1, None));
        drop(second);
        assert!(presence.empty_for().is_some_and(|time| time < Duration::from_secs(60)));
    }
}

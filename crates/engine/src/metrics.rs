//! What the engine has done, counted.
//!
//! In: the engine thread's steps and answers. Out: numbers, read from any thread.
//! Never: what was asked or answered; a lock, or a clock of its own: times are those that a request gets anyway.
//! Thread: the engine thread alone writes, so that to add is to load and to store; any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{BLOCK_TOKENS, DrafterKind, KvPool, ModelSpec, Priority, StepCosts};

/// Upper bounds of times, in seconds: a keystroke's budget lies between 20 and 500 ms.
const TIME_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 20.0, 60.0];
/// The same between two tokens, which are a step or a part of one apart.
const TOKEN_BOUNDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
/// Upper bounds of the rows of a step.
const ROW_BOUNDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: usize) {
        self.0.store(self.get().wrapping_add(n as u64), Ordering::Relaxed);
    }
}

/// A number that belongs to a moment.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Returns the number, as it was after a step.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// How often a number was at most each of some bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond them all.
    buckets: Box<[Counter]>,
    sum: Gauge,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, buckets, sum: Gauge::default() }
    }

    /// Returns each bound, infinity last, with the number of values that were at most that.
    pub fn at_most(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.buckets).scan(0, |n_below, (bound, bucket)| {
            *n_below += bucket.get();
            Some((bound, *n_below))
        })
    }

    /// Returns how many values there were.
    pub fn n(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// Returns the sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum.get()
    }

    pub(crate) fn observe(&self, value: f64) {
        self.observe_each(value, 1);
    }

    /// Counts `n` values that are equal.
    pub(crate) fn observe_each(&self, value: f64, n: usize) {
        self.buckets[self.bounds.partition_point(|bound| *bound < value)].add(n);
        self.sum.set(self.sum.get() + value * n as f64);
    }
}

/// What the rows of a step are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Prompts only.
    Prefill,
    /// Answers only.
    Decode,
    /// Both.
    Mixed,
}

/// Why a step was given up between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// A keystroke came while a step of the background ran: a pre-emption.
    Overtaken,
    /// Nobody wanted what it computed any more.
    Cancelled,
}

/// Steps of one kind.
#[derive(Debug, Default)]
pub struct StepCount {
    /// How many.
    pub n_steps: Counter,
    /// Their rows.
    pub n_rows: Counter,
    /// Their time, in seconds.
    pub seconds: Gauge,
}

/// Drafts from one source.
#[derive(Debug, Default)]
pub struct DraftCount {
    /// Tokens that a step verified.
    pub n_drafted: Counter,
    /// Those of them that were kept.
    pub n_kept: Counter,
}

/// Times of the generations of one priority, in seconds.
#[derive(Debug)]
pub struct RequestTimes {
    /// From the call to the first step.
    pub queue: Histogram,
    /// Steps over the prompt.
    pub prefill: Histogram,
    /// From the call to the first token of the first answer.
    pub ttft: Histogram,
    /// From a token to the next one of its answer; tokens that come together share the time since those before them.
    pub inter_token: Histogram,
    /// Steps over the answers.
    pub decode: Histogram,
}

/// What an engine has done since its model was loaded.
///
/// An answer's numbers are there before the answer is.
#[derive(Debug)]
pub struct Metrics {
    /// Finished steps by [`StepKind`], in its order.
    pub steps: [StepCount; 3],
    /// Rows of the finished steps.
    pub step_rows: Histogram,
    /// T(m) for each m of [`Metrics::STEP_ROWS`], in seconds; 0 before it is known.
    pub step_seconds: [Gauge; Metrics::STEP_ROWS.len()],
    /// Steps given up, by [`GivenUp`], in its order; their time is lost and not counted.
    pub given_up: [StepCount; 2],
    /// Rows of prompts in finished steps, those of scored texts and those that had lost their places included.
    pub n_prefilled: Counter,
    /// Tokens that a request found in the KV cache.
    pub n_reused: Counter,
    /// Tokens of answers.
    pub n_decoded: Counter,
    /// Those of answers that were then cancelled.
    pub n_cancelled: Counter,
    /// Requests that gave their places in the KV cache up to another.
    pub n_suspended: Counter,
    /// Drafts by [`DrafterKind`], in its order; then what a grammar forced.
    pub drafts: [DraftCount; DrafterKind::ALL.len() + 1],
    /// Requests that wait for their first step, are in their prompt, answer.
    pub n_jobs: [Gauge; 3],
    /// Times of generations by [`Priority`], in its order.
    pub times: [RequestTimes; 2],
    /// Bytes of the KV cache that some sequence holds.
    pub kv_used_bytes: Gauge,
    /// Those that sequences of ended requests hold, as when a request last ended; running ones may share them.
    pub kv_retained_bytes: Gauge,
    /// The most bytes that the KV cache may have.
    pub n_kv_bytes: usize,
    /// Bytes of a block, the unit in which the KV cache is given out.
    pub n_block_bytes: usize,
    /// Bytes of the weights in memory.
    pub n_weight_bytes: usize,
    /// Finished steps of the draft model, which are none of `steps`.
    pub draft_steps: StepCount,
    /// Bytes of the draft model's weights; 0 without one, as the next two.
    pub n_draft_weight_bytes: usize,
    /// The most bytes that the draft model's KV cache may have.
    pub n_draft_kv_bytes: usize,
    /// Those that some sequence holds.
    pub draft_kv_used_bytes: Gauge,
}

impl Metrics {
    /// Rows of the steps whose expected time is told.
    pub const STEP_ROWS: [usize; 5] = [1, 2, 4, 8, 16];

    pub(crate) fn new(spec: &ModelSpec, kv: &KvPool, n_weight_bytes: usize) -> Self {
        let times = || Histogram::new(TIME_BOUNDS);
        let n_block_bytes = kv.kv_type().n_bytes_per_token(spec) * BLOCK_TOKENS;
        Self {
            steps: Default::default(),
            step_rows: Histogram::new(ROW_BOUNDS),
            step_seconds: Default::default(),
            given_up: Default::default(),
            n_prefilled: Counter::default(),
            n_reused: Counter::default(),
            n_decoded: Counter::default(),
            n_cancelled: Counter::default(),
            n_suspended: Counter::default(),
            drafts: Default::default(),
            n_jobs: Default::default(),
            times: [(), ()].map(|()| RequestTimes {
                queue: times(),
                prefill: times(),
                ttft: times(),
                inter_token: Histogram::new(TOKEN_BOUNDS),
                decode: times(),
            }),
            kv_used_bytes: Gauge::default(),
            kv_retained_bytes: Gauge::default(),
            n_kv_bytes: kv.n_max_blocks() * n_block_bytes,
            n_block_bytes,
            n_weight_bytes,
            draft_steps: StepCount::default(),
            n_draft_weight_bytes: 0,
            n_draft_kv_bytes: 0,
            draft_kv_used_bytes: Gauge::default(),
        }
    }

    /// Returns the drafts of each source by its name.
    pub fn drafts(&self) -> impl Iterator<Item = (&'static str, &DraftCount)> {
        DrafterKind::ALL.into_iter().map(DrafterKind::name).chain(["grammar"]).zip(&self.drafts)
    }

    /// Returns the times of generations of one priority.
    pub fn times(&self, priority: Priority) -> &RequestTimes {
        &self.times[priority as usize]
    }

    /// Returns how many steps were given up for this reason.
    pub fn n_given_up(&self, why: GivenUp) -> u64 {
        self.given_up[why as usize].n_steps.get()
    }

    /// Counts a finished step of `n_rows` rows, `n_prompt_rows` of them of prompts.
    pub(crate) fn step(&self, n_rows: usize, n_prompt_rows: usize, elapsed: Duration, costs: &StepCosts) {
        let kind = match n_prompt_rows {
            0 => StepKind::Decode,
            n if n == n_rows => StepKind::Prefill,
            _ => StepKind::Mixed,
        };
        self.steps[kind as usize].add(n_rows, elapsed);
        self.step_rows.observe(n_rows as f64);
        self.n_prefilled.add(n_prompt_rows);
        for (gauge, n_rows) in self.step_seconds.iter().zip(Self::STEP_ROWS) {
            gauge.set(costs.expected(n_rows).unwrap_or_default().as_secs_f64());
        }
    }

    /// Counts a finished step of the draft model.
    pub(crate) fn draft_step(&self, n_rows: usize, elapsed: Duration) {
        self.draft_steps.add(n_rows, elapsed);
    }

    /// Counts a step of `n_rows` rows that was given up.
    pub(crate) fn given_up(&self, n_rows: usize, why: GivenUp) {
        self.given_up[why as usize].add(n_rows, Duration::ZERO);
    }

    /// Counts what one step verified of drafts, and what it kept of them.
    pub(crate) fn draft(&self, source_idx: usize, n_drafted: usize, n_kept: usize) {
        self.drafts[source_idx].n_drafted.add(n_drafted);
        self.drafts[source_idx].n_kept.add(n_kept);
    }
}

impl StepCount {
    fn add(&self, n_rows: usize, elapsed: Duration) {
        self.n_steps.add(1);
        self.n_rows.add(n_rows);
        self.seconds.set(self.seconds.get() + elapsed.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_its_bucket_and_in_all_above() {
        let histogram = Histogram::new(&[1.0, 5.0]);
        histogram.observe(1.0);
        histogram.observe_each(1.5, 2);
        histogram.observe(6.0);
        let counts: Vec<(f64, u64)> = histogram.at_most().collect();
        assert_eq!(counts, [(1.0, 1), (5.0, 3), (f64::INFINITY, 4)]);
        assert_eq!((histogram.n(), histogram.sum()), (4, 10.0));
    }
}

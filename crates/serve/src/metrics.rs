//! What the server has done, counted.
//!
//! In: each finished request. Out: Prometheus' text form, and a process's memory.
//! Never: what was asked or answered; numbers only.
//! Source: Prometheus, "Exposition formats", text-based format 0.0.4; Linux, proc(5), `VmRSS`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::Generation;

/// Upper bounds of the histograms' buckets, in milliseconds: a keystroke's budget lies between 20 and 500.
const BOUNDS_MS: [u64; 12] = [1, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000, 60_000];

/// The server's counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    n_generated: AtomicU64,
    n_scored: AtomicU64,
    n_failed: AtomicU64,
    n_busy: AtomicU64,
    n_cancelled: AtomicU64,
    n_prefilled: AtomicU64,
    n_reused: AtomicU64,
    n_decoded: AtomicU64,
    n_drafted: AtomicU64,
    n_kept: AtomicU64,
    queue: Histogram,
    ttft: Histogram,
    prefill: Histogram,
    decode: Histogram,
}

/// Numbers that belong to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) n_clients: usize,
    pub(crate) n_running: usize,
    pub(crate) uptime: Duration,
}

impl Metrics {
    /// Counts a request that ended in an error.
    pub(crate) fn failed(&self) {
        self.n_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer.
    pub(crate) fn generated(&self, generation: &Generation) {
        self.n_generated.fetch_add(1, Ordering::Relaxed);
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.n_prefilled, generation.n_prompt.saturating_sub(generation.n_reused));
        add(&self.n_reused, generation.n_reused);
        add(&self.n_decoded, generation.tokens.len());
        add(&self.n_drafted, generation.n_drafted);
        add(&self.n_kept, generation.n_kept);
        self.queue.observe(generation.timings.queue);
        self.ttft.observe(generation.timings.ttft);
        self.prefill.observe(generation.timings.prefill);
        self.decode.observe(generation.timings.decode);
        if generation.stop == engine::StopReason::Cancelled {
            add(&self.n_cancelled, 1);
        }
    }

    /// Counts a request for scores by how it ended.
    pub(crate) fn scored<T>(&self, result: &Result<T, engine::Error>) {
        self.succeeded(result, &self.n_scored);
    }

    fn succeeded<'r, T>(&self, result: &'r Result<T, engine::Error>, counter: &AtomicU64) -> Option<&'r T> {
        let (counter, value) = match result {
            Ok(value) => (counter, Some(value)),
            Err(_) => (&self.n_failed, None),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        value
    }

    fn counters(&self) -> [(&'static str, &'static str, u64); 10] {
        [
            ("requests_generated_total", "Generations that ended.", &self.n_generated),
            ("requests_scored_total", "Scorings that ended.", &self.n_scored),
            ("requests_failed_total", "Requests that ended in an error.", &self.n_failed),
            ("requests_busy_total", "Requests sent away because too many were waiting.", &self.n_busy),
            (
                "requests_cancelled_total",
                "Generations whose caller cancelled or went away.",
                &self.n_cancelled,
            ),
            ("tokens_prefilled_total", "Prompt tokens computed.", &self.n_prefilled),
            ("tokens_reused_total", "Prompt tokens found in the KV cache.", &self.n_reused),
            ("tokens_decoded_total", "Tokens of answers.", &self.n_decoded),
            ("tokens_drafted_total", "Tokens drafted.", &self.n_drafted),
            ("tokens_kept_total", "Drafted tokens that were kept.", &self.n_kept),
        ]
        .map(|(name, help, counter)| (name, help, counter.load(Ordering::Relaxed)))
    }

    /// Returns the counters by name.
    pub(crate) fn counts(&self) -> serde_json::Map<String, serde_json::Value> {
        self.counters().into_iter().map(|(name, _, n)| (name.to_owned(), n.into())).collect()
    }

    /// Counts a request that was sent away.
    pub(crate) fn busy(&self) {
        self.n_busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns all of it in Prometheus' text form.
    pub(crate) fn text(&self, gauges: Gauges) -> String {
        let mut text = String::new();
        for (name, help, n) in self.counters() {
            sample(&mut text, "counter", name, help, n as f64);
        }
        let mut gauge = |name, help, value| sample(&mut text, "gauge", name, help, value);
        gauge("clients", "Clients, and requests over HTTP, that are here.", gauges.n_clients as f64);
        gauge("requests_running", "Requests that run or wait.", gauges.n_running as f64);
        gauge("uptime_seconds", "Time since the server started.", gauges.uptime.as_secs_f64());
        if let Some(n_bytes) = resident_bytes() {
            gauge("resident_memory_bytes", "Memory of the process, weights included.", n_bytes as f64);
        }
        for (name, help, histogram) in [
            ("queue_seconds", "From the request to its first step.", &self.queue),
            ("ttft_seconds", "From the request to its first token.", &self.ttft),
            ("prefill_seconds", "Steps over the prompt.", &self.prefill),
            ("decode_seconds", "Steps over the answer.", &self.decode),
        ] {
            histogram.write(&mut text, name, help);
        }
        text
    }
}

fn sample(text: &mut String, kind: &str, name: &str, help: &str, value: f64) {
    let _ = write!(text, "# HELP tandem_{name} {help}\n# TYPE tandem_{name} {kind}\ntandem_{name} {value}\n");
}

/// How often a time fell below each bound.
#[derive(Debug, Default)]
struct Histogram {
    /// The last holds what is beyond all bounds.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let bucket_idx = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < time);
        self.buckets[bucket_idx].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let _ = write!(text, "# HELP tandem_{name} {help}\n# TYPE tandem_{name} histogram\n");
        let bounds = BOUNDS_MS.iter().map(|ms| (*ms as f64 / 1e3).to_string()).chain(["+Inf".to_owned()]);
        let mut n_below = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            n_below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "tandem_{name}_bucket{{le=\"{bound}\"}} {n_below}");
        }
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = write!(text, "tandem_{name}_sum {sum}\ntandem_{name}_count {n_below}\n");
    }
}

/// Returns this process's resident memory, where the system tells it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_its_bucket_and_in_all_above() {
        let histogram = Histogram::default();
        for ms in [1, 2, 60_000, 70_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut text = String::new();
        histogram.write(&mut text, "x", "Help.");
        for line in [
            "tandem_x_bucket{le=\"0.001\"} 1",
            "tandem_x_bucket{le=\"0.005\"} 2",
            "tandem_x_bucket{le=\"60\"} 3",
            "tandem_x_bucket{le=\"+Inf\"} 4",
            "tandem_x_sum 130.003",
            "tandem_x_count 4",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in {text}");
        }
    }
}

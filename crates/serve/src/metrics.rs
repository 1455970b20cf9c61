//! What the server and its engine have done, as Prometheus reads it.
//!
//! In: each finished request; the engine's own counters. Out: Prometheus' text form, and a process's memory.
//! Never: what was asked or answered; numbers only. Counts what the engine counts.
//! Source: Prometheus, "Exposition formats", text-based format 0.0.4, and "Metric and label naming"; Linux, proc(5),
//! `VmRSS`.

mod exposition;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::{Engine, Generation, GivenUp, Priority, RequestTimes};
use serde_json::{Map, Value};

use exposition::Exposition;

/// The server's counters: how requests ended. What they cost is counted by the engine.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    n_generated: AtomicU64,
    n_scored: AtomicU64,
    n_failed: AtomicU64,
    n_busy: AtomicU64,
    n_cancelled: AtomicU64,
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
        if generation.stop == engine::StopReason::Cancelled {
            self.n_cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request for scores by how it ended.
    pub(crate) fn scored<T>(&self, result: &Result<T, engine::Error>) {
        let counter = if result.is_ok() { &self.n_scored } else { &self.n_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was sent away.
    pub(crate) fn busy(&self) {
        self.n_busy.fetch_add(1, Ordering::Relaxed);
    }

    fn counters(&self) -> [(&'static str, &'static str, u64); 5] {
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
        ]
        .map(|(name, help, counter)| (name, help, counter.load(Ordering::Relaxed)))
    }

    /// Returns the counters by name, and those of the engine's that a human wants.
    pub(crate) fn counts(&self, engine: &Engine) -> Map<String, Value> {
        let own = self.counters().into_iter().map(|(name, _, n)| (name, n));
        let metrics = engine.metrics();
        let tokens = metrics.into_iter().flat_map(token_counters).map(|(name, _, n)| (name, n));
        own.chain(tokens)
            .chain(metrics.into_iter().flat_map(sums))
            .map(|(name, n)| (name.to_owned(), n.into()))
            .collect()
    }

    /// Returns all of it in Prometheus' text form.
    pub(crate) fn text(&self, gauges: Gauges, engine: &Engine) -> String {
        let mut out = Exposition::default();
        for (name, help, n) in self.counters() {
            out.counter(name, help, n as f64);
        }
        out.gauge("clients", "Clients, and requests over HTTP, that are here.", gauges.n_clients as f64);
        out.gauge("requests_running", "Requests that run or wait.", gauges.n_running as f64);
        out.gauge("uptime_seconds", "Time since the server started.", gauges.uptime.as_secs_f64());
        if let Some(n_bytes) = resident_bytes() {
            out.gauge("resident_memory_bytes", "Memory of the process, weights included.", n_bytes as f64);
        }
        // Where another process runs the model, that one tells the rest.
        if let Some(metrics) = engine.metrics() {
            tokens(&mut out, metrics);
            steps(&mut out, metrics);
            memory(&mut out, metrics);
            times(&mut out, metrics);
        }
        out.finish()
    }
}

/// The engine's counters that need no label.
fn token_counters(metrics: &engine::Metrics) -> [(&'static str, &'static str, u64); 5] {
    [
        (
            "tokens_prefilled_total",
            "Rows of prompts computed, those of scored texts included.",
            &metrics.n_prefilled,
        ),
        ("tokens_reused_total", "Tokens that requests found in the KV cache.", &metrics.n_reused),
        ("tokens_decoded_total", "Tokens of answers.", &metrics.n_decoded),
        ("tokens_cancelled_total", "Tokens of answers that were then cancelled.", &metrics.n_cancelled),
        (
            "requests_suspended_total",
            "Requests that gave their places in the KV cache up to another.",
            &metrics.n_suspended,
        ),
    ]
    .map(|(name, help, counter)| (name, help, counter.get()))
}

/// The sums of those that have one.
fn sums(metrics: &engine::Metrics) -> [(&'static str, u64); 3] {
    let of_drafts = |n: fn(&engine::DraftCount) -> &engine::Counter| {
        metrics.drafts().map(|(_, count)| n(count).get()).sum()
    };
    [
        ("tokens_drafted_total", of_drafts(|count| &count.n_drafted)),
        ("tokens_kept_total", of_drafts(|count| &count.n_kept)),
        ("steps_overtaken_total", metrics.n_given_up(GivenUp::Overtaken)),
    ]
}

fn tokens(out: &mut Exposition, metrics: &engine::Metrics) {
    for (name, help, n) in token_counters(metrics) {
        out.counter(name, help, n as f64);
    }
    let by_drafter = |n: fn(&engine::DraftCount) -> &engine::Counter| {
        metrics.drafts().map(|(name, count)| (name, n(count).get() as f64)).collect::<Vec<_>>()
    };
    let (drafted, kept) = (by_drafter(|count| &count.n_drafted), by_drafter(|count| &count.n_kept));
    out.counters("tokens_drafted_total", "Tokens drafted, by what drafted them.", "drafter", &drafted);
    out.counters("tokens_kept_total", "Drafted tokens that were kept.", "drafter", &kept);
}

fn steps(out: &mut Exposition, metrics: &engine::Metrics) {
    let kinds = ["prefill", "decode", "mixed"];
    let of_kind = |value: fn(&engine::StepCount) -> f64| {
        kinds.into_iter().zip(metrics.steps.each_ref().map(value)).collect::<Vec<_>>()
    };
    let [n_steps, n_rows, seconds] = [
        of_kind(|count| count.n_steps.get() as f64),
        of_kind(|count| count.n_rows.get() as f64),
        of_kind(|count| count.seconds.get()),
    ];
    out.counters("steps_total", "Finished steps, by what they computed.", "kind", &n_steps);
    out.counters("step_rows_total", "Rows of finished steps, by what they computed.", "kind", &n_rows);
    out.counters("step_seconds_total", "Time of finished steps, by what they computed.", "kind", &seconds);
    let engine::StepCount { n_steps, n_rows, seconds } = &metrics.draft_steps;
    let [n_steps, n_rows] = [n_steps, n_rows].map(|counter| counter.get() as f64);
    out.counter("draft_steps_total", "Finished steps of the draft model.", n_steps);
    out.counter("draft_step_rows_total", "Rows of finished steps of the draft model.", n_rows);
    out.counter("draft_step_seconds_total", "Time of finished steps of the draft model.", seconds.get());
    let reasons = ["overtaken", "cancelled"];
    let given_up = |value: fn(&engine::StepCount) -> u64| {
        reasons
            .into_iter()
            .zip(metrics.given_up.each_ref().map(|count| value(count) as f64))
            .collect::<Vec<_>>()
    };
    out.counters(
        "steps_given_up_total",
        "Steps given up between two layers.",
        "reason",
        &given_up(|count| count.n_steps.get()),
    );
    out.counters(
        "step_rows_given_up_total",
        "Rows of steps given up: tokens to be computed again, or for nobody.",
        "reason",
        &given_up(|count| count.n_rows.get()),
    );
    let sizes = engine::Metrics::STEP_ROWS.map(|n_rows| n_rows.to_string());
    let expected =
        sizes.iter().map(String::as_str).zip(metrics.step_seconds.each_ref().map(engine::Gauge::get));
    // 0 says that it is not known yet, which is no time.
    let known: Vec<_> = expected.filter(|(_, seconds)| *seconds > 0.0).collect();
    out.gauges(
        "step_expected_seconds",
        "T(m), how long a step of so many rows takes, as drafts are judged by.",
        "rows",
        &known,
    );
    let phases = ["waiting", "prefill", "decode"];
    let n_jobs: Vec<_> = phases.into_iter().zip(metrics.n_jobs.each_ref().map(engine::Gauge::get)).collect();
    out.gauges("engine_requests", "Requests that the engine has, by how far they are.", "phase", &n_jobs);
    out.histograms("rows_per_step", "Rows of a step.", &[(None, &metrics.step_rows)]);
}

fn memory(out: &mut Exposition, metrics: &engine::Metrics) {
    out.gauge("weights_bytes", "Memory of the model's weights.", metrics.n_weight_bytes as f64);
    let n_draft_bytes = metrics.n_draft_weight_bytes as f64;
    out.gauge("draft_weights_bytes", "Memory of the draft model's weights; 0 without one.", n_draft_bytes);
    let n_draft_kv_bytes = metrics.n_draft_kv_bytes as f64;
    out.gauge("draft_kv_limit_bytes", "The most memory that its KV cache may take.", n_draft_kv_bytes);
    out.gauge(
        "draft_kv_used_bytes",
        "Its KV cache that some sequence holds.",
        metrics.draft_kv_used_bytes.get(),
    );
    out.gauge("kv_limit_bytes", "The most memory that the KV cache may take.", metrics.n_kv_bytes as f64);
    out.gauge("kv_used_bytes", "KV cache that some sequence holds.", metrics.kv_used_bytes.get());
    out.gauge(
        "kv_retained_bytes",
        "KV cache that sequences of ended requests hold; running ones may share it.",
        metrics.kv_retained_bytes.get(),
    );
    out.gauge(
        "kv_block_bytes",
        "Memory of one block, the unit in which the KV cache is given out.",
        metrics.n_block_bytes as f64,
    );
}

fn times(out: &mut Exposition, metrics: &engine::Metrics) {
    type Family = (&'static str, &'static str, fn(&RequestTimes) -> &engine::Histogram);
    let families: [Family; 5] = [
        ("queue_seconds", "From a request to its first step.", |times| &times.queue),
        ("prefill_seconds", "Steps over a prompt.", |times| &times.prefill),
        ("ttft_seconds", "From a request to its first token.", |times| &times.ttft),
        ("inter_token_seconds", "From a token to the next one of its answer.", |times| &times.inter_token),
        ("decode_seconds", "Steps over the answers to a request.", |times| &times.decode),
    ];
    let priorities = [("interactive", Priority::Interactive), ("background", Priority::Background)];
    for (name, help, of) in families {
        let all =
            priorities.map(|(label, priority)| (Some(("priority", label)), of(metrics.times(priority))));
        out.histograms(name, help, &all);
    }
}

/// Returns this process's resident memory, where the system tells it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

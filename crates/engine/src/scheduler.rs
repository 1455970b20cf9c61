//! The engine thread's loop: which rows of which requests are computed together.
//!
//! In: jobs on a channel. Out: their answers. A job that panics costs the jobs of that moment, not the engine.
//! Never: lets a keystroke wait for an agent's step: such a step is given up between two layers and planned again.
//! Thread: this is the engine thread.
//!
//! A step carries every interactive request's rows. Background rows ride along where they cost the interactive ones
//! little, and never before the first token; when nobody types they have the steps to themselves, taking turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::job::{Job, Parts, Phase, Progress, StepPlan};
use crate::kv::n_common;
use crate::metrics::GivenUp;
use crate::retained::Retained;
use crate::{Error, ModelSpec, Priority, RowSpan, StepBatch, StepControl, StepEnd};

/// Most rows of answers in one step. Past 32 a row costs what it costs in a prompt.
const N_MAX_DECODE_ROWS: usize = 32;
/// How long a step of an interactive prompt should take: a newer keystroke stops it between layers anyway.
const INTERACTIVE_CHUNK: Duration = Duration::from_millis(100);
/// The same for a background prompt while somebody types: what is given up of it is lost.
const SHORT_CHUNK: Duration = Duration::from_millis(30);
/// The same while nobody does.
const LONG_CHUNK: Duration = Duration::from_millis(250);
/// How long after the last interactive request somebody still counts as typing.
const TYPING: Duration = Duration::from_secs(3);
/// How much slower background rows may make a step that carries interactive ones.
const RIDE_COST: f64 = 1.4;
/// Tokens that two prompts must share for the second to wait for the first.
const N_WORTH_WAITING: usize = 64;

/// How much there is to do, seen by those who ask.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Requests that have no answer yet.
    pub(crate) n_jobs: AtomicUsize,
    /// Interactive ones that the engine thread has not seen yet.
    pub(crate) n_arriving: AtomicUsize,
}

/// What the loop remembers from step to step.
struct Scheduler<'a> {
    parts: Parts,
    spec: &'a ModelSpec,
    load: &'a Load,
    /// Interactive ones in the order of their arrival, then the others, the next in turn first.
    jobs: Vec<Entry>,
    n_arrived: u64,
    last_interactive: Option<Instant>,
    /// Whether a request has ended since the gauges were set.
    has_answered: bool,
}

/// A job, and how many came before it.
struct Entry {
    job: Box<dyn Job>,
    arrived: u64,
}

/// Steps jobs until every [`Engine`](crate::Engine) handle is gone.
pub(crate) fn run(parts: Parts, spec: &ModelSpec, load: &Load, inbox: &Receiver<Box<dyn Job>>) {
    let mut scheduler = Scheduler {
        parts,
        spec,
        load,
        jobs: Vec::new(),
        n_arrived: 0,
        last_interactive: None,
        has_answered: false,
    };
    loop {
        if scheduler.jobs.is_empty() {
            match inbox.recv() {
                Ok(job) => scheduler.take(job),
                Err(_) => return,
            }
        }
        inbox.try_iter().for_each(|job| scheduler.take(job));
        if catch_unwind(AssertUnwindSafe(|| scheduler.step())).is_err() {
            scheduler.start_again();
        }
        scheduler.set_gauges();
    }
}

impl Scheduler<'_> {
    fn take(&mut self, job: Box<dyn Job>) {
        self.n_arrived += 1;
        let arrived = self.n_arrived;
        if job.priority() == Priority::Interactive {
            self.load.n_arriving.fetch_sub(1, Ordering::AcqRel);
            self.last_interactive = Some(Instant::now());
            let at = self.jobs.iter().position(|other| other.job.priority() != Priority::Interactive);
            self.jobs.insert(at.unwrap_or(self.jobs.len()), Entry { job, arrived });
        } else {
            self.jobs.push(Entry { job, arrived });
        }
    }

    /// Plans one step, computes it, and gives every job its logits.
    fn step(&mut self) {
        let mut plan = StepPlan { is_typing: self.is_typing(), ..StepPlan::default() };
        let taking_part = self.plan(&mut plan);
        if taking_part.is_empty() {
            return;
        }
        let started = Instant::now();
        let end = self.compute(&plan, &taking_part);
        let elapsed = started.elapsed();
        let mut done = Vec::new();
        match end {
            Ok(StepEnd::Stopped) => {
                let is_unwanted = taking_part.iter().all(|&idx| self.jobs[idx].job.is_unwanted());
                let why = if is_unwanted { GivenUp::Cancelled } else { GivenUp::Overtaken };
                return self.parts.metrics.given_up(plan.n_rows(), why);
            }
            Ok(StepEnd::Done) => {
                self.parts.pace.observe(plan.n_rows(), elapsed);
                self.parts.costs.observe(plan.n_rows(), elapsed);
                if let Some(draft_model) = &mut self.parts.draft_model {
                    draft_model.save_up(elapsed);
                }
                let Parts { metrics, costs, .. } = &self.parts;
                metrics.step(plan.n_rows(), plan.n_prompt_rows, elapsed, costs);
                for &idx in &taking_part {
                    match self.jobs[idx].job.absorb(&mut self.parts, elapsed) {
                        Ok(Progress::More) => {}
                        Ok(Progress::Done) => done.push(idx),
                        Err(error) => {
                            self.jobs[idx].job.fail(Some(&mut self.parts), error);
                            done.push(idx);
                        }
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                for &idx in &taking_part {
                    self.jobs[idx].job.fail(Some(&mut self.parts), Error::Step(text.clone()));
                    done.push(idx);
                }
            }
        }
        self.take_turns(&taking_part, &done);
    }

    /// Lets every job add its rows; returns which did. Those that have answered are gone then.
    fn plan(&mut self, plan: &mut StepPlan) -> Vec<usize> {
        let mut taking_part = Vec::new();
        let mut done = Vec::new();
        let mut n_prompt_rows = 0;
        let mut idx = 0;
        while idx < self.jobs.len() {
            let Some(n_max_rows) = self.allowed(idx, plan, &taking_part, n_prompt_rows) else {
                idx += 1;
                continue;
            };
            let n_before = plan.n_rows();
            let is_prompt = self.jobs[idx].job.phase() != Phase::Decode;
            match self.jobs[idx].job.plan(&mut self.parts, n_max_rows, plan) {
                Ok(Progress::Done) => done.push(idx),
                Ok(Progress::More) if plan.n_rows() > n_before => {
                    taking_part.push(idx);
                    plan.has_interactive |= self.is_interactive(idx);
                    n_prompt_rows += if is_prompt { plan.n_rows() - n_before } else { 0 };
                }
                Ok(Progress::More) => {}
                Err(Error::KvFull(full)) => {
                    if let Some(victim) = self.victim(idx, &taking_part) {
                        self.jobs[victim].job.suspend(&mut self.parts);
                        self.parts.metrics.n_suspended.add(1);
                        continue;
                    }
                    // Those that hold places go on, and give them back when they have answered.
                    let is_alone = !self.others(idx).any(|(_, other)| other.job.holds_kv());
                    if is_alone {
                        self.jobs[idx].job.fail(Some(&mut self.parts), full.into());
                        done.push(idx);
                    }
                }
                Err(error) => {
                    self.jobs[idx].job.fail(Some(&mut self.parts), error);
                    done.push(idx);
                }
            }
            idx += 1;
        }
        for idx in done.into_iter().rev() {
            self.remove(idx);
            taking_part.iter_mut().filter(|other| **other > idx).for_each(|other| *other -= 1);
        }
        taking_part
    }

    /// Returns how many rows of a prompt a job may add, or none if it must not take part in this step.
    fn allowed(
        &self,
        idx: usize,
        plan: &StepPlan,
        taking_part: &[usize],
        n_prompt_rows: usize,
    ) -> Option<usize> {
        let job = &self.jobs[idx].job;
        if job.is_unwanted() {
            return Some(1);
        }
        let is_interactive = job.priority() == Priority::Interactive;
        let is_ridden = taking_part.first().is_some_and(|&first| self.is_interactive(first));
        if is_ridden && !is_interactive {
            return self.n_riding(idx, plan, taking_part);
        }
        if job.phase() == Phase::Decode {
            let n_decode_rows = plan.n_rows() - n_prompt_rows;
            return (n_decode_rows < N_MAX_DECODE_ROWS).then(|| N_MAX_DECODE_ROWS - n_decode_rows);
        }
        let chunk = match (is_interactive, plan.is_typing) {
            (true, _) => INTERACTIVE_CHUNK,
            (false, true) => SHORT_CHUNK,
            (false, false) => LONG_CHUNK,
        };
        let n_left = self.parts.pace.n_rows_in(chunk).saturating_sub(n_prompt_rows);
        (n_left > 0 && !self.should_wait(idx)).then_some(n_left)
    }

    fn is_typing(&self) -> bool {
        self.last_interactive.is_some_and(|last| last.elapsed() < TYPING)
    }

    /// Returns how many rows of a background job may be in a step with interactive ones.
    fn n_riding(&self, idx: usize, plan: &StepPlan, taking_part: &[usize]) -> Option<usize> {
        let is_answering = |idx: usize| self.jobs[idx].job.phase() == Phase::Decode;
        let of_interactive = || taking_part.iter().take_while(|idx| self.is_interactive(**idx));
        if !is_answering(idx) || !of_interactive().all(|&idx| is_answering(idx)) {
            return None;
        }
        let n_interactive: usize = of_interactive().map(|&idx| self.jobs[idx].job.n_planned_rows()).sum();
        let costs = &self.parts.costs;
        let limit = costs.expected(n_interactive)?.mul_f64(RIDE_COST);
        (1..N_MAX_DECODE_ROWS)
            .take_while(|n| costs.expected(plan.n_rows() + n).is_some_and(|time| time <= limit))
            .last()
    }

    /// Returns whether another job is about to compute most of what this one would begin with. A keystroke waits for
    /// nobody.
    fn should_wait(&self, idx: usize) -> bool {
        let job = &self.jobs[idx].job;
        job.phase() == Phase::Waiting
            && job.priority() != Priority::Interactive
            && self.others(idx).any(|(other_idx, other)| {
                let is_before = other.job.phase() == Phase::Prefill || other_idx < idx;
                let is_first = is_before && other.job.phase() != Phase::Decode;
                let n_shared = if is_first { n_common(job.prompt(), other.job.prompt()) } else { 0 };
                2 * n_shared >= job.prompt().len()
                    && n_shared >= self.parts.retained.n_known(job.prompt()) + N_WORTH_WAITING
            })
    }

    /// Returns the job that gives its places in the KV cache up for job `idx`: the least urgent of those less urgent, and
    /// of equals the one that came last. So the first always gets on, and two that do not fit beside each other never
    /// take places from each other by turns.
    fn victim(&self, idx: usize, taking_part: &[usize]) -> Option<usize> {
        let rank = |entry: &Entry| (entry.job.priority(), entry.arrived);
        let own = rank(&self.jobs[idx]);
        self.others(idx)
            .filter(|(other_idx, other)| {
                rank(other) > own && other.job.holds_kv() && !taking_part.contains(other_idx)
            })
            .max_by_key(|(_, other)| rank(other))
            .map(|(other_idx, _)| other_idx)
    }

    fn others(&self, idx: usize) -> impl Iterator<Item = (usize, &Entry)> {
        self.jobs.iter().enumerate().filter(move |(other_idx, _)| *other_idx != idx)
    }

    fn compute(&mut self, plan: &StepPlan, taking_part: &[usize]) -> Result<StepEnd, Error> {
        let spans: Vec<RowSpan<'_>> = plan
            .spans
            .iter()
            .map(|span| RowSpan { blocks: &span.blocks, start: span.start, n_tokens: span.n_tokens })
            .collect();
        let batch = StepBatch { tokens: &plan.tokens, spans: &spans, logits: &plan.wanted };
        let is_background = !self.is_interactive(taking_part[0]);
        let (jobs, load) = (&self.jobs, self.load);
        let should_stop = || {
            let is_overtaken = is_background && load.n_arriving.load(Ordering::Acquire) > 0;
            is_overtaken || taking_part.iter().all(|&idx| jobs[idx].job.is_unwanted())
        };
        let control = StepControl { should_stop: &should_stop };
        let parts = &mut self.parts;
        parts.backend.forward(&batch, &mut parts.kv, &mut parts.logits, &control)
    }

    /// Removes the jobs that have answered; the background jobs that had a part in the step come last in the next.
    fn take_turns(&mut self, taking_part: &[usize], done: &[usize]) {
        let mut kept = Vec::with_capacity(self.jobs.len());
        let mut served = Vec::new();
        for (idx, entry) in std::mem::take(&mut self.jobs).into_iter().enumerate() {
            if done.contains(&idx) {
                self.has_answered = true;
                self.load.n_jobs.fetch_sub(1, Ordering::AcqRel);
            } else if taking_part.contains(&idx) && entry.job.priority() != Priority::Interactive {
                served.push(entry);
            } else {
                kept.push(entry);
            }
        }
        kept.append(&mut served);
        self.jobs = kept;
    }

    fn remove(&mut self, idx: usize) {
        drop(self.jobs.remove(idx));
        self.has_answered = true;
        self.load.n_jobs.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_interactive(&self, idx: usize) -> bool {
        self.jobs[idx].job.priority() == Priority::Interactive
    }

    /// Fails every job after a panic, and begins with an empty cache: its counts may be wrong.
    fn start_again(&mut self) {
        tracing::error!(
            n_jobs = self.jobs.len(),
            "a step panicked; its requests failed and the KV cache was emptied"
        );
        for mut entry in self.jobs.drain(..) {
            entry.job.fail(None, Error::Gone);
            self.load.n_jobs.fetch_sub(1, Ordering::AcqRel);
        }
        self.parts.kv.clear(self.spec);
        self.parts.retained = Retained::default();
        if let Some(draft_model) = &mut self.parts.draft_model {
            draft_model.start_again();
        }
        self.has_answered = true;
    }

    /// Says what there is to do and what the KV cache holds.
    fn set_gauges(&mut self) {
        let Parts { metrics, kv, retained, draft_model, .. } = &self.parts;
        for (gauge, phase) in metrics.n_jobs.iter().zip([Phase::Waiting, Phase::Prefill, Phase::Decode]) {
            gauge.set(self.jobs.iter().filter(|entry| entry.job.phase() == phase).count() as f64);
        }
        let n_bytes = |n_blocks: usize| (n_blocks * metrics.n_block_bytes) as f64;
        metrics.kv_used_bytes.set(n_bytes(kv.n_used_blocks()));
        if let Some(draft_model) = draft_model {
            metrics.draft_kv_used_bytes.set(draft_model.n_kv_used_bytes() as f64);
        }
        if std::mem::take(&mut self.has_answered) {
            metrics.kv_retained_bytes.set(n_bytes(retained.n_blocks(kv)));
        }
    }
}

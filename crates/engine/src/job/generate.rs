//! Generation: one prefill, then as many answers as were asked for, each drafted, verified and decoded until something
//! stops it.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::branch::{Branch, Limits, Place};
use super::{Caller, Event, Job, Parts, Phase, Progress, StepPlan};
use crate::constrain::Constraint;
use crate::drafter::DraftModel;
use crate::{Error, GenerateRequest, Generation, Metrics, Priority, Sequence, StopReason, Timings, TokenId};

pub(crate) struct GenerateJob {
    request: GenerateRequest,
    caller: Caller<Event>,
    n_ctx: usize,
    branches: Vec<Branch>,
    /// The branch that comes first in the next step.
    next_branch: usize,
    prefill: Option<Prefill>,
    phase: Phase,
    n_reused: usize,
    timings: Timings,
}

/// Tokens on their way into the KV cache: the prompt, or what a suspended branch had.
struct Prefill {
    sequence: Sequence,
    /// The branch they are of; the prompt is of all.
    branch_idx: Option<usize>,
    /// How many of them the step on its way computes, and where its logits begin.
    n_planned: usize,
    first_logits: usize,
}

impl GenerateJob {
    /// Returns the work for one answer for each of `constraints`.
    pub(crate) fn new(
        request: GenerateRequest,
        constraints: Vec<Option<Box<dyn Constraint>>>,
        caller: Caller<Event>,
        n_ctx: usize,
    ) -> Self {
        let branches = constraints.into_iter().enumerate();
        Self {
            branches: branches.map(|(idx, constraint)| Branch::new(&request, idx, constraint)).collect(),
            request,
            caller,
            n_ctx,
            next_branch: 0,
            prefill: None,
            phase: Phase::Waiting,
            n_reused: 0,
            timings: Timings::default(),
        }
    }

    /// Returns the tokens that must be in the KV cache before a branch can go on.
    fn wanted_tokens(&self, branch_idx: Option<usize>) -> Vec<TokenId> {
        let answer = branch_idx.map_or(&[][..], |idx| &self.branches[idx].tokens);
        // The last one is the next decoding step's.
        let n_answer = answer.len().saturating_sub(1);
        self.request.prompt.iter().chain(&answer[..n_answer]).copied().collect()
    }

    fn plan_prefill(
        &mut self,
        parts: &mut Parts,
        mut prefill: Prefill,
        n_max_rows: usize,
        plan: &mut StepPlan,
    ) -> Result<Progress, Error> {
        let tokens = self.wanted_tokens(prefill.branch_idx);
        let rest = &tokens[prefill.sequence.tokens().len()..];
        let n_rows = rest.len().min(n_max_rows);
        let reserved = parts.reserve(&mut prefill.sequence, n_rows);
        if reserved.is_ok() {
            let is_last = n_rows == rest.len() && prefill.branch_idx.is_none();
            let wanted = if is_last { n_rows - 1..n_rows } else { 0..0 };
            prefill.first_logits = plan.add(&prefill.sequence, &rest[..n_rows], wanted);
            prefill.n_planned = n_rows;
            plan.n_prompt_rows += n_rows;
        }
        self.prefill = Some(prefill);
        reserved.map(|()| Progress::More)
    }

    /// Adds the rows of the branches in turn, as many as there is place for.
    fn plan_decode(
        &mut self,
        parts: &mut Parts,
        n_max_rows: usize,
        plan: &mut StepPlan,
    ) -> Result<Progress, Error> {
        let limits = Limits { request: &self.request, n_ctx: self.n_ctx, cancel: &self.caller.cancel };
        let n_branches = self.branches.len();
        self.branches.iter_mut().for_each(Branch::leave_out);
        let n_live = self.branches.iter().filter(|branch| branch.end.is_none()).count();
        let mut n_left = n_max_rows;
        let mut planned = Vec::with_capacity(n_branches);
        for idx in (0..n_branches).map(|idx| (self.next_branch + idx) % n_branches) {
            let branch = &mut self.branches[idx];
            if branch.end.is_some() || n_left == 0 {
                continue;
            }
            let place = Place {
                n_max_rows: n_left,
                // Each of those after this one will have a row at least.
                n_others: plan.n_rows() + (n_max_rows - n_left) + (n_live - planned.len() - 1),
                is_hurried: (plan.has_interactive || plan.is_typing)
                    && self.request.priority == Priority::Background,
                enough: &self.caller.enough[idx],
            };
            let rows = branch.rows(parts, limits, place);
            // The answer waits for its draft too.
            self.timings.decode += parts.draft_model.as_mut().map_or(Duration::ZERO, DraftModel::take_spent);
            n_left -= rows.len();
            if let Some(sequence) = &mut branch.sequence
                && let Err(full) = parts.reserve(sequence, rows.len())
            {
                self.branches.iter_mut().for_each(Branch::leave_out);
                return Err(full);
            }
            planned.push((idx, rows));
        }
        for (idx, rows) in planned {
            let branch = &mut self.branches[idx];
            if let Some(sequence) = &branch.sequence {
                branch.expect_logits(plan.add(sequence, &rows, 0..rows.len()));
            }
        }
        Ok(Progress::More)
    }

    /// Takes a prefill step; once the prompt is there, every answer gets its first token and its own sequence.
    fn absorb_prefill(&mut self, parts: &mut Parts, mut prefill: Prefill) -> Result<(), Error> {
        let tokens = self.wanted_tokens(prefill.branch_idx);
        let start = prefill.sequence.tokens().len();
        prefill.sequence.commit(&tokens[start..start + prefill.n_planned]);
        if prefill.sequence.tokens().len() < tokens.len() {
            self.prefill = Some(prefill);
            return Ok(());
        }
        if let Some(branch_idx) = prefill.branch_idx {
            self.branches[branch_idx].sequence = Some(prefill.sequence);
            return Ok(());
        }
        self.phase = Phase::Decode;
        parts.publish(&prefill.sequence);
        let limits = Limits { request: &self.request, n_ctx: self.n_ctx, cancel: &self.caller.cancel };
        let logits = (self.branches.len() > 1).then(|| parts.logits.row(prefill.first_logits).to_vec());
        let mut result = Ok(());
        for branch in &mut self.branches {
            // Masks are written into the logits, and every branch has its own.
            if let Some(logits) = &logits {
                parts.logits.row_mut(prefill.first_logits).copy_from_slice(logits);
            }
            match branch.choose(parts, prefill.first_logits, limits) {
                Ok(ControlFlow::Continue(_)) => {}
                Ok(ControlFlow::Break(reason)) => branch.end = Some(reason),
                Err(error) => result = Err(error),
            }
            branch.sequence = Some(parts.kv.fork(&prefill.sequence, prefill.sequence.tokens().len()));
        }
        parts.kv.release(prefill.sequence);
        if let Some(first) = self.branches.iter().filter_map(|branch| branch.first_token_at).min() {
            let times = parts.metrics.times(self.request.priority);
            times.ttft.observe((first - self.caller.since).as_secs_f64());
        }
        result
    }

    /// Sends what may be shown, and ends the answers that nobody wants more of.
    fn tell(&mut self) {
        for (answer_idx, branch) in self.branches.iter_mut().enumerate() {
            if let Some(text) = branch.unsent() {
                // A caller that has gone away wants no answer.
                let _ = self.caller.reply.send(Event::Text { answer_idx, text });
            }
            if branch.end.is_none() && self.caller.enough[answer_idx].load(Ordering::Acquire) {
                branch.finish(StopReason::Enough);
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.caller.cancel.is_cancelled()
    }

    /// Answers if every branch has ended.
    fn finish_if_ended(&mut self, parts: &mut Parts) -> Progress {
        if self.branches.iter().any(|branch| branch.end.is_none()) {
            return Progress::More;
        }
        self.give_back(parts);
        self.count(&parts.metrics);
        let n_prompt = self.request.prompt.len();
        let mut generations = Vec::with_capacity(self.branches.len());
        for (answer_idx, branch) in self.branches.iter_mut().enumerate() {
            branch.teach(parts);
            branch.finish(StopReason::Cancelled);
            if let Some(text) = branch.unsent() {
                let _ = self.caller.reply.send(Event::Text { answer_idx, text });
            }
            generations.push(Generation {
                text: std::mem::take(&mut branch.text),
                tokens: std::mem::take(&mut branch.tokens),
                logprobs: std::mem::take(&mut branch.logprobs),
                top: std::mem::take(&mut branch.top),
                stop: branch.end.unwrap_or(StopReason::Cancelled),
                n_prompt,
                n_reused: self.n_reused,
                n_drafted: branch.n_drafted,
                n_kept: branch.n_kept,
                timings: Timings { ttft: branch.ttft(self.caller.since), ..self.timings },
            });
        }
        let _ = self.caller.reply.send(Event::Done(Ok(generations)));
        Progress::Done
    }

    /// Counts what is known only at the end.
    fn count(&self, metrics: &Metrics) {
        for branch in self.branches.iter().filter(|branch| branch.end == Some(StopReason::Cancelled)) {
            metrics.n_cancelled.add(branch.tokens.len());
        }
        if self.phase != Phase::Waiting {
            let times = metrics.times(self.request.priority);
            times.prefill.observe(self.timings.prefill.as_secs_f64());
            times.decode.observe(self.timings.decode.as_secs_f64());
        }
    }

    /// Begins to compute what a branch needs, or all of them, with what is known of it already.
    fn begin_prefill(&mut self, parts: &mut Parts, branch_idx: Option<usize>) {
        let tokens = self.wanted_tokens(branch_idx);
        let sequence = parts.begin(&tokens, tokens.len() - 1);
        self.prefill = Some(Prefill { sequence, branch_idx, n_planned: 0, first_logits: 0 });
    }

    /// Leaves what was computed to the next request.
    fn give_back(&mut self, parts: &mut Parts) {
        self.leave_drafts(parts);
        self.take_sequences().for_each(|sequence| parts.keep(sequence));
    }

    fn leave_drafts(&mut self, parts: &mut Parts) {
        if let Some(draft_model) = &mut parts.draft_model {
            for branch in &mut self.branches {
                let tokens: Vec<TokenId> =
                    self.request.prompt.iter().chain(&branch.tokens).copied().collect();
                let has_ended = branch.end == Some(StopReason::EndOfGeneration);
                draft_model.keep(&mut branch.model_draft, &tokens, has_ended);
            }
        }
    }

    fn take_sequences(&mut self) -> impl Iterator<Item = Sequence> {
        let running = self.branches.iter_mut().filter_map(|branch| branch.sequence.take());
        running.chain(self.prefill.take().map(|prefill| prefill.sequence))
    }
}

impl Job for GenerateJob {
    fn priority(&self) -> Priority {
        self.request.priority
    }

    fn is_unwanted(&self) -> bool {
        self.is_cancelled() || self.caller.enough.iter().all(|enough| enough.load(Ordering::Acquire))
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn prompt(&self) -> &[TokenId] {
        &self.request.prompt
    }

    fn holds_kv(&self) -> bool {
        self.prefill.is_some() || self.branches.iter().any(|branch| branch.sequence.is_some())
    }

    fn n_planned_rows(&self) -> usize {
        match &self.prefill {
            Some(prefill) => prefill.n_planned,
            None => self.branches.iter().map(Branch::n_rows).sum(),
        }
    }

    fn plan(&mut self, parts: &mut Parts, n_max_rows: usize, plan: &mut StepPlan) -> Result<Progress, Error> {
        self.tell();
        if self.is_cancelled() {
            self.branches.iter_mut().for_each(|branch| branch.finish(StopReason::Cancelled));
        }
        if self.finish_if_ended(parts) == Progress::Done {
            return Ok(Progress::Done);
        }
        let is_suspended = |branch: &Branch| branch.end.is_none() && branch.sequence.is_none();
        if self.prefill.is_none()
            && let Some(idx) = self.branches.iter().position(is_suspended)
        {
            self.begin_prefill(parts, (self.phase == Phase::Decode).then_some(idx));
        }
        if self.phase == Phase::Waiting {
            self.timings.queue = self.caller.since.elapsed();
            let times = parts.metrics.times(self.request.priority);
            times.queue.observe(self.timings.queue.as_secs_f64());
            self.n_reused = self.prefill.as_ref().map_or(0, |prefill| prefill.sequence.tokens().len());
            self.phase = Phase::Prefill;
        }
        if let Some(prefill) = self.prefill.take() {
            return self.plan_prefill(parts, prefill, n_max_rows, plan);
        }
        self.plan_decode(parts, n_max_rows, plan)
    }

    fn absorb(&mut self, parts: &mut Parts, elapsed: Duration) -> Result<Progress, Error> {
        if let Some(prefill) = self.prefill.take() {
            self.timings.prefill += elapsed;
            self.absorb_prefill(parts, prefill)?;
        } else {
            self.timings.decode += elapsed;
            let limits = Limits { request: &self.request, n_ctx: self.n_ctx, cancel: &self.caller.cancel };
            let now = Instant::now();
            for branch in &mut self.branches {
                branch.absorb(parts, limits, now)?;
            }
            // Where not all had a place, the others come first in the next step.
            let n_branches = self.branches.len();
            self.next_branch = (0..n_branches)
                .map(|idx| (self.next_branch + idx) % n_branches)
                .find(|&idx| self.branches[idx].was_left_out())
                .unwrap_or(0);
        }
        self.tell();
        Ok(self.finish_if_ended(parts))
    }

    fn suspend(&mut self, parts: &mut Parts) {
        self.leave_drafts(parts);
        self.take_sequences().for_each(|sequence| parts.kv.release(sequence));
    }

    fn fail(&mut self, parts: Option<&mut Parts>, error: Error) {
        if let Some(parts) = parts {
            self.give_back(parts);
        }
        let _ = self.caller.reply.send(Event::Done(Err(error)));
    }
}

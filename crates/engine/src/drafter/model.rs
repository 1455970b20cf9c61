//! The drafter that is a smaller model of the same vocabulary, and the only one that takes time.
//!
//! In: an answer so far, how its tokens are chosen, what steps of the target model cost. Out: drafts, or none where they
//! would not pay.
//! Never: asked where it costs more than it saves, but for probes that take 1 % of the time; holds up a keystroke for
//! another's answer.
//! Thread: the engine thread, and the threads of the target model's pool.
//! Source: Leviathan et al., "Fast inference from transformers via speculative decoding" (ICML 2023). Where tokens are
//! drawn, both models draw with the same random numbers, so that they agree wherever their distributions do.

mod load;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::odds::ClaimedOdds;
use crate::job::Pace;
use crate::kv::n_common;
use crate::retained::Retained;
use crate::sample::sample;
use crate::scheduler::Load;
use crate::{
    BLOCK_TOKENS, Backend as _, CancelToken, CpuBackend, Draft, DraftExtent, Error, KvPool, Logits, Metrics,
    ModelSpec, Priority, RowSpan, Sampling, Sequence, SpecialTokens, StepBatch, StepControl, StepCosts,
    StepEnd, TokenId,
};

/// The part of all steps' time that may be spent on learning whether a draft that does not seem to pay now would.
const PROBE_SHARE: f64 = 0.01;

/// The most seconds that are saved for a probe: an answer waits for it.
const MAX_ALLOWANCE: f64 = 0.3;

/// By how many tokens an answer that found no room grows before it looks again.
const N_UNTIL_ROOM: usize = 64;

/// How long a step over what the draft model has not seen of a sequence should take; then the answer goes on.
const CHUNK: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(250)];

/// A small model, and what all answers that it drafts for share.
pub(crate) struct DraftModel {
    spec: ModelSpec,
    backend: CpuBackend,
    kv: KvPool,
    n_kv_tokens: usize,
    retained: Retained,
    logits: Logits,
    /// How long its own steps take: a few rows in an answer, many in a prompt.
    costs: StepCosts,
    pace: Pace,
    odds: ClaimedOdds,
    /// Seconds that probes may take.
    allowance: f64,
    /// Time of its steps since somebody took note.
    spent: Duration,
    load: Arc<Load>,
}

/// What the draft model has of one answer.
#[derive(Default)]
pub(crate) struct ModelDraft {
    /// What of the sequence is in the draft model's KV cache.
    sequence: Option<Sequence>,
    /// What it proposed, whether drafted or not, with the probabilities it gave.
    proposed: Vec<(TokenId, f32)>,
    /// The draft of that, with which a step may be planned again.
    draft: Draft,
    /// The length of the sequence that the proposal goes on from.
    n_tokens: usize,
    /// Whether the last of the proposed tokens ends the answer.
    proposes_end: bool,
    is_probe: bool,
    /// The length of the sequence at which room is looked for again.
    n_tokens_until_room: usize,
    /// Seconds of steps over what it had not seen that were given up.
    seconds_lost: f64,
}

/// An answer that a draft is wanted for.
pub(crate) struct Ask<'a> {
    /// The sequence so far, prompt and answer.
    pub(crate) tokens: &'a [TokenId],
    /// How many of them are the answer's, the most that may come, and the most of these that may be drafted.
    pub(crate) n_answered: usize,
    pub(crate) n_left: usize,
    pub(crate) n_max: usize,
    /// Rows of others in the step that will verify the draft, and what steps cost.
    pub(crate) n_others: usize,
    pub(crate) costs: &'a StepCosts,
    pub(crate) extent: DraftExtent,
    pub(crate) sampling: &'a Sampling,
    pub(crate) specials: &'a SpecialTokens,
    pub(crate) priority: Priority,
    pub(crate) cancel: &'a CancelToken,
    /// Raised when nobody wants more of the answer.
    pub(crate) enough: &'a AtomicBool,
    pub(crate) metrics: &'a Metrics,
}

impl DraftModel {
    /// Returns a draft for an answer, empty where none would pay. `may_be_kept` says of a draft whether its last token can
    /// be right; of one that ends the answer it is not asked.
    pub(crate) fn propose(
        &mut self,
        own: &mut ModelDraft,
        ask: &Ask<'_>,
        may_be_kept: &mut dyn FnMut(&[TokenId]) -> bool,
    ) -> Draft {
        self.settle(own, ask.tokens, false);
        if own.proposed.is_empty() {
            own.n_tokens = ask.tokens.len();
            own.proposes_end = false;
            own.draft = Draft::default();
            if let Err(error) = self.draft(own, ask, may_be_kept) {
                // The answer needs no draft.
                tracing::error!(%error, "the draft model failed");
            }
        }
        own.draft.clone()
    }

    /// Learns what came of the last proposal, `has_ended` saying that the model ended the answer after `tokens`.
    fn settle(&mut self, own: &mut ModelDraft, tokens: &[TokenId], has_ended: bool) {
        let new = tokens.get(own.n_tokens..);
        if new.is_some_and(<[TokenId]>::is_empty) && !has_ended {
            return;
        }
        let proposed = std::mem::take(&mut own.proposed);
        let Some(new) = new else { return };
        for (idx, &(token, probability)) in proposed.iter().enumerate() {
            let is_right = match new.get(idx) {
                Some(chosen) => token == *chosen,
                // An end is not among the tokens.
                None if has_ended && own.proposes_end && idx + 1 == proposed.len() => true,
                None => break,
            };
            self.odds.count(probability, is_right);
            if !is_right {
                break;
            }
        }
    }

    fn draft(
        &mut self,
        own: &mut ModelDraft,
        ask: &Ask<'_>,
        may_be_kept: &mut dyn FnMut(&[TokenId]) -> bool,
    ) -> Result<(), Error> {
        let n_room = self.spec.n_ctx.saturating_sub(ask.tokens.len());
        let n_max = StepCosts::N_MAX_DRAFT.min(ask.n_max).min(n_room);
        let may_have_room = ask.tokens.len() >= own.n_tokens_until_room;
        if n_max == 0 || !may_have_room || !self.is_worth_a_look(own, ask, n_max) {
            return Ok(());
        }
        let n_before = ask.tokens.len() - 1;
        let mut sequence = match own.sequence.take() {
            Some(mut sequence) => {
                let n_kept = n_common(sequence.tokens(), ask.tokens).min(n_before);
                self.kv.truncate(&mut sequence, n_kept);
                sequence
            }
            None => self.retained.begin(&mut self.kv, ask.tokens, n_before),
        };
        let n_behind = n_before - sequence.tokens().len();
        if !self.is_wanted(own, ask, n_behind, n_max) {
            own.sequence = Some(sequence);
            return Ok(());
        }
        // All of the room at once: what was computed before it ran out would be lost.
        let n_more = n_behind + 1 + n_max;
        if self.retained.reserve(&mut self.kv, &mut sequence, n_more).is_err() {
            // Those that have their places go on.
            self.kv.release(sequence);
            own.is_probe = false;
            own.n_tokens_until_room = ask.tokens.len() + N_UNTIL_ROOM;
            return Ok(());
        }
        let result = self.catch_up(own, &mut sequence, ask).and_then(|is_there| {
            if is_there { self.decode(own, &mut sequence, ask, n_max, may_be_kept) } else { Ok(()) }
        });
        own.sequence = Some(sequence);
        result
    }

    /// Returns whether a draft could pay if the model had seen all that came before, or a probe may be made.
    fn is_worth_a_look(&self, own: &ModelDraft, ask: &Ask<'_>, n_max: usize) -> bool {
        ask.extent == DraftExtent::All
            || own.is_probe
            || self.may_probe(ask, 0.0)
            || self.worth(ask, &[], n_max, 0).is_some()
    }

    /// Returns whether a draft pays although the model has `n_behind` tokens to see first.
    ///
    /// Many of these are seen when the answer has become so long that they would be paid for if as much again came:
    /// nobody knows how long it will be, and so at most as much is lost as could have been won.
    fn is_wanted(&mut self, own: &mut ModelDraft, ask: &Ask<'_>, n_behind: usize, n_max: usize) -> bool {
        if ask.extent == DraftExtent::All || own.is_probe {
            return true;
        }
        let seconds_behind = match self.seconds_behind(n_behind) {
            0.0 => 0.0,
            // What was given up may be again.
            seconds => seconds + own.seconds_lost,
        };
        let pays = self.worth(ask, &[], n_max, n_behind).is_some_and(|worth| {
            let n_expected = ask.n_answered.min(ask.n_left) as f64;
            seconds_behind <= worth.seconds_saved * n_expected
        });
        if !pays && self.may_probe(ask, seconds_behind) {
            self.allowance = 0.0;
            own.is_probe = true;
        }
        pays || own.is_probe
    }

    /// Returns whether there is time saved up for a token that nobody will verify. Who types does not wait for that.
    fn may_probe(&self, ask: &Ask<'_>, seconds_behind: f64) -> bool {
        ask.priority == Priority::Background && seconds_behind + self.seconds(1) <= self.allowance
    }

    /// Returns what a draft is worth of which `known` are the odds of those tokens that are there.
    fn worth(
        &self,
        ask: &Ask<'_>,
        known: &[f32],
        n_max: usize,
        n_behind: usize,
    ) -> Option<super::policy::Worth> {
        let mut odds = [self.odds.of_any(); StepCosts::N_MAX_DRAFT];
        odds[..known.len()].copy_from_slice(known);
        // A few tokens behind are rows of its first step.
        let first =
            if n_behind < StepCosts::N_MAX_DRAFT { self.seconds(1 + n_behind) } else { self.seconds(1) };
        let seconds_to_draft = |n: usize| match n.checked_sub(known.len()) {
            None | Some(0) => 0.0,
            Some(_) if known.is_empty() => first + (n - 1) as f64 * self.seconds(1),
            Some(n_more) => n_more as f64 * self.seconds(1),
        };
        ask.costs.worth_beside(ask.n_others, &odds[..n_max], seconds_to_draft)
    }

    /// Returns how long a step of a few rows takes.
    fn seconds(&self, n_rows: usize) -> f64 {
        self.costs.expected(n_rows).map_or(f64::INFINITY, |time| time.as_secs_f64())
    }

    /// Returns how long it takes to see `n_behind` tokens that are too many for the first step.
    fn seconds_behind(&self, n_behind: usize) -> f64 {
        if n_behind < StepCosts::N_MAX_DRAFT { 0.0 } else { self.pace.seconds(n_behind) }
    }

    /// Sees a part of what is new in the sequence if that is much; returns whether the rest is little.
    fn catch_up(
        &mut self,
        own: &mut ModelDraft,
        sequence: &mut Sequence,
        ask: &Ask<'_>,
    ) -> Result<bool, Error> {
        let n_before = ask.tokens.len() - 1;
        let n_seen = sequence.tokens().len();
        if n_before - n_seen < StepCosts::N_MAX_DRAFT {
            return Ok(true);
        }
        let n_rows = self.pace.n_rows_in(CHUNK[ask.priority as usize]).min(n_before - n_seen);
        let started = Instant::now();
        if self.step(sequence, &ask.tokens[n_seen..n_seen + n_rows], 0, ask)? == StepEnd::Stopped {
            own.seconds_lost += started.elapsed().as_secs_f64();
            return Ok(false);
        }
        let is_there = n_before - sequence.tokens().len() < StepCosts::N_MAX_DRAFT;
        if is_there {
            // Other answers to the same prompt begin with it.
            let n_whole = sequence.tokens().len() / BLOCK_TOKENS * BLOCK_TOKENS;
            let shared = self.kv.fork(sequence, n_whole);
            self.retained.keep(&mut self.kv, shared);
        }
        Ok(is_there)
    }

    /// Drafts token by token, as long as the next one is expected to pay.
    fn decode(
        &mut self,
        own: &mut ModelDraft,
        sequence: &mut Sequence,
        ask: &Ask<'_>,
        n_max: usize,
        may_be_kept: &mut dyn FnMut(&[TokenId]) -> bool,
    ) -> Result<(), Error> {
        let mut rows = ask.tokens[sequence.tokens().len()..].to_vec();
        loop {
            if self.step(sequence, &rows, 1, ask)? == StepEnd::Stopped {
                return Ok(());
            }
            let position = (ask.tokens.len() + own.proposed.len()) as u64;
            let (token, logprob) = sample(self.logits.row(0), ask.sampling, position);
            let probability = logprob.exp();
            own.proposed.push((token, probability));
            if ask.specials.is_end(token) {
                own.proposes_end = true;
                break;
            }
            own.draft.tokens.push(token);
            own.draft.odds.push(self.odds.of(probability));
            let n_drafted = own.draft.tokens.len();
            if !may_be_kept(&own.draft.tokens) {
                own.draft.truncate(n_drafted - 1);
                break;
            }
            let goes_on = match ask.extent {
                DraftExtent::All => n_drafted < n_max,
                _ => {
                    let worth = self.worth(ask, &own.draft.odds, n_max, 0);
                    !own.is_probe && worth.is_some_and(|worth| worth.n_drafted > n_drafted)
                }
            };
            // Who comes waits for no more than a token.
            if !goes_on || self.load.n_arriving.load(Ordering::Acquire) > 0 {
                break;
            }
            rows = vec![token];
        }
        own.is_probe = false;
        Ok(())
    }

    /// Computes `tokens` after the sequence, with the logits of the last `n_logits` of them.
    fn step(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        n_logits: usize,
        ask: &Ask<'_>,
    ) -> Result<StepEnd, Error> {
        let load = Arc::clone(&self.load);
        let is_background = ask.priority != Priority::Interactive;
        let should_stop = || {
            let is_overtaken = is_background && load.n_arriving.load(Ordering::Acquire) > 0;
            is_overtaken || ask.cancel.is_cancelled() || ask.enough.load(Ordering::Acquire)
        };
        let started = Instant::now();
        let end = self.forward(sequence, tokens, n_logits, &should_stop)?;
        let elapsed = started.elapsed();
        self.spent += elapsed;
        if end == StepEnd::Done {
            self.costs.observe(tokens.len(), elapsed);
            self.pace.observe(tokens.len(), elapsed);
            ask.metrics.draft_step(tokens.len(), elapsed);
        }
        Ok(end)
    }

    fn forward(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        n_logits: usize,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<StepEnd, Error> {
        let wanted: Vec<usize> = (tokens.len() - n_logits..tokens.len()).collect();
        let span =
            RowSpan { blocks: sequence.blocks(), start: sequence.tokens().len(), n_tokens: tokens.len() };
        let batch = StepBatch { tokens, spans: &[span], logits: &wanted };
        let control = StepControl { should_stop };
        let end = self.backend.forward(&batch, &mut self.kv, &mut self.logits, &control)?;
        if end == StepEnd::Done {
            sequence.commit(tokens);
        }
        Ok(end)
    }

    /// Hears that a step of the target model took `elapsed`, of which a part is saved for probes.
    pub(crate) fn save_up(&mut self, elapsed: Duration) {
        self.allowance = MAX_ALLOWANCE.min(self.allowance + PROBE_SHARE * elapsed.as_secs_f64());
    }

    /// Returns the time of its steps since this was last asked.
    pub(crate) fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    /// Leaves what it has of an answer to the next one. `tokens` are the whole sequence, `has_ended` says that the model
    /// ended it.
    pub(crate) fn keep(&mut self, own: &mut ModelDraft, tokens: &[TokenId], has_ended: bool) {
        self.settle(own, tokens, has_ended);
        if let Some(sequence) = own.sequence.take() {
            self.retained.keep(&mut self.kv, sequence);
        }
    }

    /// Forgets all sequences, after a panic: the counts of its KV cache may be wrong.
    pub(crate) fn start_again(&mut self) {
        self.kv.clear(&self.spec);
        self.retained = Retained::default();
    }

    /// Returns how many bytes of its KV cache some sequence holds.
    pub(crate) fn n_kv_used_bytes(&self) -> usize {
        self.n_bytes_of(self.kv.n_used_blocks())
    }

    /// Returns how many bytes its KV cache may have.
    pub(crate) fn n_kv_bytes(&self) -> usize {
        self.n_bytes_of(self.kv.n_max_blocks())
    }

    fn n_bytes_of(&self, n_blocks: usize) -> usize {
        n_blocks * BLOCK_TOKENS * self.kv.kv_type().n_bytes_per_token(&self.spec)
    }

    /// Returns how many bytes its weights take.
    pub(crate) fn n_weight_bytes(&self) -> usize {
        self.backend.n_weight_bytes()
    }
}

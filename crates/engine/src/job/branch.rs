//! One answer that grows: what comes next in it, and when it ends.
//!
//! In: logits of its last row and of drafted ones. Out: tokens, text in pieces, the reason it ended.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Parts;
use crate::constrain::Constraint;
use crate::drafter::{Ask, ModelDraft, Stake};
use crate::sample::{log_sum, sample, sample_token, top_tokens};
use crate::stop::{StopTexts, Watch};
use crate::tokenizer::StreamDecoder;
use crate::{
    CancelToken, Combined, Corpus, DraftExtent, Drafter, DrafterKind, Drafting, EditDrafter, Error,
    GenerateRequest, Metrics, PreviousAnswer, Sampling, Sequence, StepCosts, StopReason, SuffixAutomaton,
    TokenId, Tokenizer,
};

/// Most tokens drafted for one step where a grammar forces them: all of them are kept.
const N_MAX_FORCED: usize = 16;

/// One answer of a request.
pub(super) struct Branch {
    sampling: Sampling,
    stop_texts: StopTexts,
    constraint: Option<Box<dyn Constraint>>,
    /// The prompt and the answer as far as they are in the KV cache; none before the prompt is, or when suspended.
    pub(super) sequence: Option<Sequence>,
    pub(super) tokens: Vec<TokenId>,
    pub(super) logprobs: Vec<f32>,
    pub(super) top: Vec<Vec<(TokenId, f32)>>,
    pub(super) text: String,
    decoder: StreamDecoder,
    /// Bytes of the healed part still to be left out of `text`.
    n_hidden: usize,
    /// Bytes of `text` already sent.
    n_sent: usize,
    planned: Option<Planned>,
    had_part: bool,
    drafter: Option<Combined>,
    stake: Stake,
    pub(super) model_draft: ModelDraft,
    /// Where the part of the last draft that no grammar forced came from.
    guessed_by: DrafterKind,
    /// Tokens of the last draft that a grammar forced.
    n_forced: usize,
    pub(super) n_drafted: usize,
    pub(super) n_kept: usize,
    pub(super) first_token_at: Option<Instant>,
    last_token_at: Option<Instant>,
    pub(super) end: Option<StopReason>,
}

/// What the step on its way verifies, and where its logits begin.
struct Planned {
    draft: Vec<TokenId>,
    first_logits: usize,
}

/// What a branch needs to know of its request.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    pub(super) request: &'a GenerateRequest,
    pub(super) n_ctx: usize,
    pub(super) cancel: &'a CancelToken,
}

/// What a branch needs to know of the step that it adds rows to.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The most it may add, one at least.
    pub(super) n_max_rows: usize,
    /// Rows of others, those that are still to come among them.
    pub(super) n_others: usize,
    /// Whether somebody else waits for the step, or types: then it must not be late.
    pub(super) is_hurried: bool,
    /// Raised when nobody wants more of the answer.
    pub(super) enough: &'a AtomicBool,
}

impl Branch {
    pub(super) fn new(
        request: &GenerateRequest,
        answer_idx: usize,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Self {
        // Every answer is the one that a request of its own with the next seed would have got.
        let seed = request.sampling.seed.wrapping_add(answer_idx as u64);
        Self {
            sampling: Sampling { seed, ..request.sampling },
            stop_texts: StopTexts::new(request.stop.texts.clone()),
            constraint,
            sequence: None,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            top: Vec::new(),
            text: String::new(),
            decoder: StreamDecoder::default(),
            n_hidden: request.healed.len(),
            n_sent: 0,
            planned: None,
            had_part: false,
            drafter: None,
            stake: Stake::default(),
            model_draft: ModelDraft::default(),
            guessed_by: DrafterKind::SuffixAutomaton,
            n_forced: 0,
            n_drafted: 0,
            n_kept: 0,
            first_token_at: None,
            last_token_at: None,
            end: None,
        }
    }

    /// Returns the rows of its next decoding step: its last token, and a draft of those after it.
    pub(super) fn rows(&mut self, parts: &mut Parts, limits: Limits<'_>, place: Place<'_>) -> Vec<TokenId> {
        let mut draft = self.drafted(parts, limits, place);
        draft.truncate(place.n_max_rows - 1);
        let rows = self.tokens.last().into_iter().chain(&draft).copied().collect();
        self.planned = Some(Planned { draft, first_logits: 0 });
        rows
    }

    /// Hears where the logits of its rows will be.
    pub(super) fn expect_logits(&mut self, first_logits: usize) {
        if let Some(planned) = &mut self.planned {
            planned.first_logits = first_logits;
        }
    }

    /// Forgets what was planned.
    pub(super) fn leave_out(&mut self) {
        self.planned = None;
    }

    /// Returns how many rows it has in the step that is planned.
    pub(super) fn n_rows(&self) -> usize {
        self.planned.as_ref().map_or(0, |planned| 1 + planned.draft.len())
    }

    /// Returns whether it goes on and had no part in the last step.
    pub(super) fn was_left_out(&self) -> bool {
        self.end.is_none() && !self.had_part
    }

    /// Takes the logits of its rows, which are there since `now`: chooses as many tokens as the draft was right, and one
    /// more.
    pub(super) fn absorb(
        &mut self,
        parts: &mut Parts,
        limits: Limits<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        let planned = self.planned.take();
        self.had_part = planned.is_some();
        let Some(Planned { draft, first_logits }) = planned else { return Ok(()) };
        self.n_drafted += draft.len();
        let Some(&last) = self.tokens.last() else { return Ok(()) };
        let n_tokens_before = self.tokens.len();
        let mut n_kept = 0;
        loop {
            match self.choose(parts, first_logits + n_kept, limits)? {
                ControlFlow::Continue(token) if draft.get(n_kept) == Some(&token) => n_kept += 1,
                ControlFlow::Continue(_) => break,
                ControlFlow::Break(reason) => {
                    self.end = Some(reason);
                    break;
                }
            }
        }
        self.n_kept += n_kept;
        self.count(&parts.metrics, limits, n_tokens_before, now);
        let [n_guessed, n_right] = [draft.len(), n_kept].map(|n| n.saturating_sub(self.n_forced));
        parts.metrics.draft(DrafterKind::ALL.len(), draft.len() - n_guessed, n_kept - n_right);
        parts.metrics.draft(self.guessed_by as usize, n_guessed, n_right);
        if let Some(drafter) = &mut self.drafter
            && drafter.kind() == self.guessed_by
        {
            drafter.observe(n_guessed, n_right);
        }
        // A draft model keeps its own account.
        let is_staked = self.guessed_by != DrafterKind::DraftModel;
        let [n_guessed, n_right] = if is_staked { [n_guessed, n_right] } else { [0, 0] };
        let came = self.tokens.get(n_tokens_before + self.n_forced).copied();
        self.stake.settle(&parts.costs, n_guessed, n_right, came);
        if let Some(sequence) = &mut self.sequence {
            // Positions of drafted tokens that were not chosen are dropped.
            let n_before = sequence.tokens().len();
            sequence.commit(&[last]);
            sequence.commit(&draft);
            parts.kv.truncate(sequence, n_before + 1 + n_kept);
        }
        Ok(())
    }

    /// Counts the time between the tokens that a step has added and those before them.
    fn count(&mut self, metrics: &Metrics, limits: Limits<'_>, n_tokens_before: usize, now: Instant) {
        let n_added = self.tokens.len() - n_tokens_before;
        if let Some(before) = self.last_token_at.replace(now).or(self.first_token_at)
            && n_added > 0
        {
            let gap = now.saturating_duration_since(before).as_secs_f64() / n_added as f64;
            metrics.times(limits.request.priority).inter_token.observe_each(gap, n_added);
        }
    }

    /// Chooses the token after a row and adds it to the answer, or says why there is none or no further one.
    pub(super) fn choose(
        &mut self,
        parts: &mut Parts,
        logits_idx: usize,
        limits: Limits<'_>,
    ) -> Result<ControlFlow<StopReason, TokenId>, Error> {
        let position = (limits.request.prompt.len() + self.tokens.len()) as u64;
        let n_top = limits.request.n_top;
        // As with the chosen token's own probability: what a grammar forbids counts, what does not fit healed bytes does not.
        let unmasked = (self.n_hidden == 0).then(|| top_tokens(parts.logits.row_mut(logits_idx), n_top));
        let Some((token, logprob)) = self.pick(parts.logits.row_mut(logits_idx), position)? else {
            return Ok(ControlFlow::Break(StopReason::EndOfGeneration));
        };
        self.first_token_at.get_or_insert_with(Instant::now);
        if parts.tokenizer.specials().is_end(token) {
            return Ok(ControlFlow::Break(StopReason::EndOfGeneration));
        }
        if n_top > 0 {
            let top = unmasked.unwrap_or_else(|| top_tokens(parts.logits.row_mut(logits_idx), n_top));
            self.top.push(top);
        }
        self.push(&parts.tokenizer, &limits.request.shown, token, logprob);
        parts.metrics.n_decoded.add(1);
        if let Some(constraint) = &mut self.constraint {
            constraint.advance(token)?;
        }
        let is_complete = self.constraint.as_ref().is_some_and(|constraint| constraint.is_complete());
        Ok(match self.after_token(limits) {
            // The last token allowed may complete the answer: then it is not cut short.
            Some(StopReason::MaxTokens | StopReason::Time) | None if is_complete => {
                ControlFlow::Break(StopReason::EndOfGeneration)
            }
            Some(reason) => ControlFlow::Break(reason),
            None => ControlFlow::Continue(token),
        })
    }

    /// Returns the part of the text that may be shown and was not yet sent, if any.
    pub(super) fn unsent(&mut self) -> Option<String> {
        let end = match self.end {
            Some(_) => self.text.len(),
            None => match self.stop_texts.watch(&self.text, self.n_sent) {
                Watch::Stop(at) | Watch::Safe(at) => at,
            },
        };
        (end > self.n_sent).then(|| {
            let text = self.text[self.n_sent..end].to_owned();
            self.n_sent = end;
            text
        })
    }

    /// Leaves what its drafters have learnt to those of later answers.
    pub(super) fn teach(&self, parts: &mut Parts) {
        for drafter in self.drafter.iter().flat_map(Combined::drafters) {
            parts.odds[drafter.kind() as usize] = drafter.odds().clone();
        }
    }

    /// Ends the answer, unless it has ended.
    pub(super) fn finish(&mut self, reason: StopReason) {
        let reason = *self.end.get_or_insert(reason);
        if reason != StopReason::StopText {
            // What is left of a broken character at the very end cannot become whole any more.
            let rest = std::mem::take(&mut self.decoder).finish();
            self.text.push_str(&rest);
        }
    }

    /// Returns the time from `since` to the first token.
    pub(super) fn ttft(&self, since: Instant) -> Duration {
        self.first_token_at.map_or(Duration::ZERO, |at| at - since)
    }

    /// Returns the draft of a step: what a grammar forces, then as much of a guess as pays.
    fn drafted(&mut self, parts: &mut Parts, limits: Limits<'_>, place: Place<'_>) -> Vec<TokenId> {
        let request = limits.request;
        let n_left = request.stop.n_max_tokens.saturating_sub(self.tokens.len() + 1);
        let n_most = n_left.min(limits.n_ctx.saturating_sub(request.prompt.len() + self.tokens.len()));
        // While healed bytes are owed hardly any guess fits.
        if n_most == 0 || self.n_hidden > 0 || request.drafting.extent == DraftExtent::Off {
            return Vec::new();
        }
        let forced = match &mut self.constraint {
            Some(constraint) => constraint.forced(N_MAX_FORCED.min(n_most)),
            None => Vec::new(),
        };
        let mut draft = until_end(forced, &parts.tokenizer);
        let answer = self.tokens.iter().chain(&draft);
        let tokens: Vec<TokenId> = request.prompt.iter().chain(answer).copied().collect();
        let drafter =
            self.drafter.get_or_insert_with(|| drafter(&request.drafting, request.prompt.len(), parts));
        drafter.sync(&tokens);
        // Asked even where nothing will be verified: a drafter learns from what comes how often it is right.
        let n_left = n_most - draft.len();
        let mut guess = drafter.propose(StepCosts::N_MAX_DRAFT.min(n_left));
        self.guessed_by = drafter.kind();
        let n_others = place.n_others + draft.len();
        if request.drafting.extent == DraftExtent::WhatPays {
            guess.truncate(self.stake.n_to_draft(&guess, &parts.costs, n_others));
        }
        let mut guess = until_end(guess.tokens, &parts.tokenizer);
        if let Some(constraint) = &mut self.constraint {
            guess.truncate(constraint.n_allowed_after(&draft, &guess));
        }
        // The others cost nothing, so it is asked where they have nothing.
        if let Some(draft_model) = &mut parts.draft_model
            && guess.is_empty()
            && !place.is_hurried
            && place.n_max_rows > draft.len() + 1
        {
            let ask = Ask {
                tokens: &tokens,
                n_answered: self.tokens.len(),
                n_left,
                n_max: n_left.min(place.n_max_rows - 1 - draft.len()),
                n_others,
                costs: &parts.costs,
                extent: request.drafting.extent,
                sampling: &self.sampling,
                specials: parts.tokenizer.specials(),
                priority: request.priority,
                cancel: limits.cancel,
                enough: place.enough,
                metrics: &parts.metrics,
            };
            let constraint = &mut self.constraint;
            let mut may_be_kept = |guess: &[TokenId]| {
                constraint
                    .as_mut()
                    .is_none_or(|constraint| constraint.n_allowed_after(&draft, guess) == guess.len())
            };
            let mut proposed = draft_model.propose(&mut self.model_draft, &ask, &mut may_be_kept);
            if request.drafting.extent == DraftExtent::WhatPays {
                proposed.truncate(parts.costs.n_to_draft_beside(n_others, &proposed.odds));
            }
            guess = proposed.tokens;
            self.guessed_by = DrafterKind::DraftModel;
        }
        self.n_forced = draft.len();
        draft.extend(guess);
        draft
    }

    /// Picks the next token and its logprob by the logits and the constraint; none if the answer must end.
    fn pick(&mut self, logits: &mut [f32], position: u64) -> Result<Option<(TokenId, f32)>, Error> {
        let sampling = &self.sampling;
        let Some(constraint) = &mut self.constraint else {
            return Ok(Some(sample(logits, sampling, position)));
        };
        if self.n_hidden > 0 {
            let is_any = constraint.mask(logits)?;
            return Ok(is_any.then(|| sample(logits, sampling, position)));
        }
        let log_sum = log_sum(logits);
        // The likeliest of all is the likeliest of those allowed, if it is. To keep a token that was drawn because it
        // happens to be allowed would change the odds.
        let likeliest = sampling.is_greedy().then(|| sample_token(logits, sampling, position));
        let token = match likeliest.filter(|&token| constraint.allows(token)) {
            Some(token) => token,
            None if constraint.mask(logits)? => sample_token(logits, sampling, position),
            None => return Ok(None),
        };
        Ok(Some((token, logits[token.0 as usize] - log_sum)))
    }

    fn push(&mut self, tokenizer: &Tokenizer, shown: &[TokenId], token: TokenId, logprob: f32) {
        self.tokens.push(token);
        self.logprobs.push(logprob);
        let bytes = tokenizer.shown_bytes(token, shown);
        let n_hidden = self.n_hidden.min(bytes.len());
        self.n_hidden -= n_hidden;
        self.text.push_str(self.decoder.push(&bytes[n_hidden..]));
    }

    fn after_token(&mut self, limits: Limits<'_>) -> Option<StopReason> {
        if let Watch::Stop(at) = self.stop_texts.watch(&self.text, self.n_sent) {
            self.text.truncate(at);
            return Some(StopReason::StopText);
        }
        let stop = &limits.request.stop;
        let n_tokens = limits.request.prompt.len() + self.tokens.len();
        if self.tokens.len() >= stop.n_max_tokens || n_tokens >= limits.n_ctx {
            return Some(StopReason::MaxTokens);
        }
        let first = self.first_token_at?;
        let is_spent = stop.decode_time.is_some_and(|limit| first.elapsed() >= limit);
        is_spent.then_some(StopReason::Time)
    }
}

/// Returns a drafter for one answer, which starts from what others of its kinds have learnt.
fn drafter(drafting: &Drafting, n_prompt: usize, parts: &Parts) -> Combined {
    let odds = |kind: DrafterKind| parts.odds[kind as usize].clone();
    let mut drafters: Vec<Box<dyn Drafter>> = Vec::new();
    if !drafting.previous.is_empty() {
        let odds = odds(DrafterKind::PreviousAnswer);
        drafters.push(Box::new(PreviousAnswer::new(drafting.previous.clone(), n_prompt, odds)));
    }
    if !drafting.original.is_empty() {
        let odds = odds(DrafterKind::Edit);
        drafters.push(Box::new(EditDrafter::new(drafting.original.clone(), n_prompt, odds)));
    }
    let corpus = Arc::new(Corpus::new(&[]));
    drafters.push(Box::new(SuffixAutomaton::new(corpus, odds(DrafterKind::SuffixAutomaton))));
    Combined::new(drafters)
}

/// An end token is never drafted: it has no position of its own.
fn until_end(mut draft: Vec<TokenId>, tokenizer: &Tokenizer) -> Vec<TokenId> {
    if let Some(end) = draft.iter().position(|&token| tokenizer.specials().is_end(token)) {
        draft.truncate(end);
    }
    draft
}

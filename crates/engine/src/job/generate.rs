//! Generation: prefill, then draft, verify and decode until something stops it.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Caller, Event, Job, Parts, Progress};
use crate::constrain::Constraint;
use crate::sample::{log_sum, sample, sample_token};
use crate::stop::{StopTexts, Watch};
use crate::tokenizer::StreamDecoder;
use crate::{
    Error, GenerateRequest, Generation, Priority, Sequence, StepEnd, StopReason, Timings, TokenId, Tokenizer,
};

/// Most tokens drafted for one step.
const N_MAX_DRAFT: usize = 4;

/// Most tokens drafted for one step where a grammar forces them: all of them are kept.
const N_MAX_FORCED: usize = 16;

pub(crate) struct GenerateJob {
    request: GenerateRequest,
    caller: Caller<Event>,
    n_ctx: usize,
    stop_texts: StopTexts,
    constraint: Option<Box<dyn Constraint>>,
    sequence: Option<Sequence>,
    answer: Answer,
    n_reused: usize,
    n_drafted: usize,
    n_kept: usize,
    timings: Timings,
    first_token_at: Option<Instant>,
}

/// The answer so far.
#[derive(Default)]
struct Answer {
    tokens: Vec<TokenId>,
    logprobs: Vec<f32>,
    text: String,
    decoder: StreamDecoder,
    // Bytes of the healed part still to be left out of `text`.
    n_hidden: usize,
    // Bytes of `text` already sent.
    n_sent: usize,
}

impl GenerateJob {
    pub(crate) fn new(
        request: GenerateRequest,
        constraint: Option<Box<dyn Constraint>>,
        caller: Caller<Event>,
        n_ctx: usize,
    ) -> Self {
        Self {
            stop_texts: StopTexts::new(request.stop.texts.clone()),
            constraint,
            answer: Answer { n_hidden: request.healed.len(), ..Answer::default() },
            request,
            caller,
            n_ctx,
            sequence: None,
            n_reused: 0,
            n_drafted: 0,
            n_kept: 0,
            timings: Timings::default(),
            first_token_at: None,
        }
    }

    /// Runs one step; returns why generation ended when it did.
    fn advance(&mut self, parts: &mut Parts) -> Result<Option<StopReason>, Error> {
        if let Some(reason) = self.asked_to_stop() {
            return Ok(Some(reason));
        }
        let mut sequence = match self.sequence.take() {
            Some(sequence) => sequence,
            None => {
                self.timings.queue = self.caller.since.elapsed();
                let sequence = parts.begin(&self.request.prompt, self.request.prompt.len() - 1);
                self.n_reused = sequence.tokens().len();
                sequence
            }
        };
        let started = Instant::now();
        let is_prefill = self.answer.tokens.is_empty();
        let result =
            if is_prefill { self.prefill(parts, &mut sequence) } else { self.decode(parts, &mut sequence) };
        let spent = if is_prefill { &mut self.timings.prefill } else { &mut self.timings.decode };
        *spent += started.elapsed();
        self.sequence = Some(sequence);
        result
    }

    fn prefill(&mut self, parts: &mut Parts, sequence: &mut Sequence) -> Result<Option<StopReason>, Error> {
        let rest = &self.request.prompt[sequence.tokens().len()..];
        let chunk: Vec<TokenId> = rest.iter().copied().take(parts.pace.chunk_rows()).collect();
        let is_last = chunk.len() == rest.len();
        let last_row = [chunk.len() - 1];
        let wanted: &[usize] = if is_last { &last_row } else { &[] };
        if parts.step(sequence, &chunk, wanted, &|| self.is_unwanted())? == StepEnd::Stopped || !is_last {
            return Ok(None);
        }
        Ok(self.choose(parts, 0)?.break_value())
    }

    fn decode(&mut self, parts: &mut Parts, sequence: &mut Sequence) -> Result<Option<StopReason>, Error> {
        let Some(&last) = self.answer.tokens.last() else {
            return Ok(None);
        };
        let draft = self.draft(parts);
        let n_before = sequence.tokens().len();
        let rows: Vec<TokenId> = std::iter::once(last).chain(draft.iter().copied()).collect();
        let wanted: Vec<usize> = (0..rows.len()).collect();
        if parts.step(sequence, &rows, &wanted, &|| self.is_unwanted())? == StepEnd::Stopped {
            return Ok(None);
        }
        self.n_drafted += draft.len();
        let mut n_kept = 0;
        let end = loop {
            match self.choose(parts, n_kept)? {
                ControlFlow::Break(reason) => break Some(reason),
                ControlFlow::Continue(token) if draft.get(n_kept) == Some(&token) => n_kept += 1,
                ControlFlow::Continue(_) => break None,
            }
        };
        self.n_kept += n_kept;
        // Positions of drafted tokens that were not chosen are dropped.
        parts.kv.truncate(sequence, n_before + 1 + n_kept);
        Ok(end)
    }

    fn draft(&mut self, parts: &mut Parts) -> Vec<TokenId> {
        let n_left = self.request.stop.n_max_tokens.saturating_sub(self.answer.tokens.len() + 1);
        let n_tokens = self.request.prompt.len() + self.answer.tokens.len();
        let n_most = n_left.min(self.n_ctx.saturating_sub(n_tokens));
        // While healed bytes are owed hardly any guess fits.
        if n_most == 0 || self.answer.n_hidden > 0 {
            return Vec::new();
        }
        let forced = match &mut self.constraint {
            Some(constraint) if !parts.is_forced_undrafted => constraint.forced(N_MAX_FORCED.min(n_most)),
            _ => Vec::new(),
        };
        let mut draft = until_end(forced, &parts.tokenizer);
        let Some(drafter) = parts.drafter.as_mut().filter(|_| draft.len() < n_most) else {
            return draft;
        };
        let answer = self.request.prompt.iter().chain(&self.answer.tokens).chain(&draft);
        let tokens: Vec<TokenId> = answer.copied().collect();
        let guess = drafter.draft(&tokens, N_MAX_DRAFT.min(n_most - draft.len()));
        let mut guess = until_end(guess, &parts.tokenizer);
        if let Some(constraint) = &mut self.constraint {
            guess.truncate(constraint.n_allowed_after(&draft, &guess));
        }
        draft.extend(guess);
        draft
    }

    /// Chooses the token after row `row_idx` and adds it to the answer, or says why there is none or no further one.
    fn choose(
        &mut self,
        parts: &mut Parts,
        row_idx: usize,
    ) -> Result<ControlFlow<StopReason, TokenId>, Error> {
        let Some((token, logprob)) = self.pick(parts.logits.row_mut(row_idx))? else {
            return Ok(ControlFlow::Break(StopReason::EndOfGeneration));
        };
        if self.first_token_at.is_none() {
            self.first_token_at = Some(Instant::now());
            self.timings.ttft = self.caller.since.elapsed();
        }
        if parts.tokenizer.specials().is_end(token) {
            return Ok(ControlFlow::Break(StopReason::EndOfGeneration));
        }
        self.answer.push(&parts.tokenizer, token, logprob);
        if let Some(constraint) = &mut self.constraint {
            constraint.advance(token)?;
        }
        let is_complete = self.constraint.as_ref().is_some_and(|constraint| constraint.is_complete());
        Ok(match self.after_token() {
            // The last token allowed may complete the answer: then it is not cut short.
            Some(StopReason::MaxTokens | StopReason::Time) | None if is_complete => {
                ControlFlow::Break(StopReason::EndOfGeneration)
            }
            Some(reason) => ControlFlow::Break(reason),
            None => ControlFlow::Continue(token),
        })
    }

    /// Picks the next token and its logprob by the logits and the constraint; none if the answer must end.
    fn pick(&mut self, logits: &mut [f32]) -> Result<Option<(TokenId, f32)>, Error> {
        let sampling = &self.request.sampling;
        let position = (self.request.prompt.len() + self.answer.tokens.len()) as u64;
        let Some(constraint) = &mut self.constraint else {
            return Ok(Some(sample(logits, sampling, position)));
        };
        if self.answer.n_hidden > 0 {
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

    fn after_token(&mut self) -> Option<StopReason> {
        match self.stop_texts.watch(&self.answer.text, self.answer.n_sent) {
            Watch::Stop(at) => {
                self.answer.text.truncate(at);
                self.send_until(at);
                return Some(StopReason::StopText);
            }
            Watch::Safe(at) => self.send_until(at),
        }
        let n_tokens = self.request.prompt.len() + self.answer.tokens.len();
        if self.answer.tokens.len() >= self.request.stop.n_max_tokens || n_tokens >= self.n_ctx {
            return Some(StopReason::MaxTokens);
        }
        let first = self.first_token_at?;
        let is_spent = self.request.stop.decode_time.is_some_and(|limit| first.elapsed() >= limit);
        is_spent.then_some(StopReason::Time)
    }

    fn send_until(&mut self, end: usize) {
        if end > self.answer.n_sent {
            let _ = self.caller.reply.send(Event::Text(self.answer.text[self.answer.n_sent..end].to_owned()));
            self.answer.n_sent = end;
        }
    }

    fn is_unwanted(&self) -> bool {
        self.asked_to_stop().is_some()
    }

    fn asked_to_stop(&self) -> Option<StopReason> {
        if self.caller.cancel.is_cancelled() {
            Some(StopReason::Cancelled)
        } else {
            self.caller.enough.load(Ordering::Acquire).then_some(StopReason::Enough)
        }
    }

    fn finish(&mut self, parts: &mut Parts, stop: StopReason) -> Generation {
        if let Some(sequence) = self.sequence.take() {
            parts.keep(sequence);
        }
        if stop != StopReason::StopText {
            // What is left of a broken character at the very end cannot become whole any more.
            let rest = std::mem::take(&mut self.answer.decoder).finish();
            self.answer.text.push_str(&rest);
            self.send_until(self.answer.text.len());
        }
        Generation {
            text: std::mem::take(&mut self.answer.text),
            tokens: std::mem::take(&mut self.answer.tokens),
            logprobs: std::mem::take(&mut self.answer.logprobs),
            stop,
            n_prompt: self.request.prompt.len(),
            n_reused: self.n_reused,
            n_drafted: self.n_drafted,
            n_kept: self.n_kept,
            timings: self.timings,
        }
    }
}

/// An end token is never drafted: it has no position of its own.
fn until_end(mut draft: Vec<TokenId>, tokenizer: &Tokenizer) -> Vec<TokenId> {
    if let Some(end) = draft.iter().position(|&token| tokenizer.specials().is_end(token)) {
        draft.truncate(end);
    }
    draft
}

impl Job for GenerateJob {
    fn priority(&self) -> Priority {
        self.request.priority
    }

    fn step(&mut self, parts: &mut Parts) -> Progress {
        let result = match self.advance(parts) {
            Ok(None) => return Progress::More,
            Ok(Some(stop)) => Ok(self.finish(parts, stop)),
            Err(error) => Err(error),
        };
        if result.is_err()
            && let Some(sequence) = self.sequence.take()
        {
            parts.keep(sequence);
        }
        // A caller that has gone away wants no answer.
        let _ = self.caller.reply.send(Event::Done(result));
        Progress::Done
    }

    fn fail(&mut self, error: Error) {
        let _ = self.caller.reply.send(Event::Done(Err(error)));
    }
}

impl Answer {
    fn push(&mut self, tokenizer: &Tokenizer, token: TokenId, logprob: f32) {
        self.tokens.push(token);
        self.logprobs.push(logprob);
        let bytes = tokenizer.token_bytes(token);
        let n_hidden = self.n_hidden.min(bytes.len());
        self.n_hidden -= n_hidden;
        self.text.push_str(self.decoder.push(&bytes[n_hidden..]));
    }
}

//! Generation: prefill, then draft, verify and decode until something stops it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Caller, Event, Job, Parts, Progress};
use crate::constrain::Healing;
use crate::sample::sample;
use crate::stop::{StopTexts, Watch};
use crate::tokenizer::StreamDecoder;
use crate::{
    Error, GenerateRequest, Generation, Priority, Sequence, StepEnd, StopReason, Timings, TokenId, Tokenizer,
};

/// Most tokens drafted for one step.
const N_MAX_DRAFT: usize = 4;

pub(crate) struct GenerateJob {
    request: GenerateRequest,
    caller: Caller<Event>,
    n_ctx: usize,
    stop_texts: StopTexts,
    healing: Healing,
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
    pub(crate) fn new(request: GenerateRequest, caller: Caller<Event>, n_ctx: usize) -> Self {
        Self {
            stop_texts: StopTexts::new(request.stop.texts.clone()),
            healing: Healing::new(request.healed.clone()),
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
        Ok(self.choose(parts, 0).err())
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
            match self.choose(parts, n_kept) {
                Err(reason) => break Some(reason),
                Ok(token) if draft.get(n_kept) == Some(&token) => n_kept += 1,
                Ok(_) => break None,
            }
        };
        self.n_kept += n_kept;
        // Positions of drafted tokens that were not chosen are dropped.
        parts.kv.truncate(sequence, n_before + 1 + n_kept);
        Ok(end)
    }

    fn draft(&self, parts: &mut Parts) -> Vec<TokenId> {
        let n_left = self.request.stop.n_max_tokens.saturating_sub(self.answer.tokens.len() + 1);
        let Some(drafter) = parts.drafter.as_mut().filter(|_| self.healing.is_done() && n_left > 0) else {
            return Vec::new();
        };
        let tokens: Vec<TokenId> = self.request.prompt.iter().chain(&self.answer.tokens).copied().collect();
        let n_room = self.n_ctx.saturating_sub(tokens.len());
        let mut draft = drafter.draft(&tokens, N_MAX_DRAFT.min(n_left).min(n_room));
        // An end token is never drafted: it has no position of its own.
        if let Some(end) = draft.iter().position(|&token| parts.tokenizer.specials().is_end(token)) {
            draft.truncate(end);
        }
        draft
    }

    /// Chooses the token after row `row_idx` and adds it to the answer, or says why there is none or no further one.
    fn choose(&mut self, parts: &mut Parts, row_idx: usize) -> Result<TokenId, StopReason> {
        let position = (self.request.prompt.len() + self.answer.tokens.len()) as u64;
        let logits = parts.logits.row_mut(row_idx);
        if !self.healing.apply(&parts.tokenizer, logits) {
            return Err(StopReason::EndOfGeneration);
        }
        let (token, logprob) = sample(logits, &self.request.sampling, position);
        if self.first_token_at.is_none() {
            self.first_token_at = Some(Instant::now());
            self.timings.ttft = self.caller.since.elapsed();
        }
        if parts.tokenizer.specials().is_end(token) {
            return Err(StopReason::EndOfGeneration);
        }
        self.healing.advance(&parts.tokenizer, token);
        self.answer.push(&parts.tokenizer, token, logprob);
        match self.after_token() {
            Some(reason) => Err(reason),
            None => Ok(token),
        }
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

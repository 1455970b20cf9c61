//! Scoring: how likely the model finds tokens that are already there.

use std::time::Duration;

use super::{Caller, Job, Parts, Phase, Progress, ScoreReply, StepPlan};
use crate::sample::{logprob, top_tokens};
use crate::{Error, Priority, Score, ScoreRequest, Sequence, TokenId};

/// Most rows of a step: the logits of a row are the size of the vocabulary.
const N_MAX_SCORED: usize = 128;

pub(crate) struct ScoreJob {
    request: ScoreRequest,
    caller: Caller<ScoreReply>,
    sequence: Option<Sequence>,
    /// Rows of the step on its way, and where its logits begin.
    n_planned: usize,
    first_logits: usize,
    scores: Vec<Score>,
}

impl ScoreJob {
    pub(crate) fn new(request: ScoreRequest, caller: Caller<ScoreReply>) -> Self {
        Self { request, caller, sequence: None, n_planned: 0, first_logits: 0, scores: Vec::new() }
    }

    /// Returns the index of the first token to score.
    fn from(&self) -> usize {
        self.request.from.max(1)
    }

    /// Returns the tokens to run: the last has nothing after it to score.
    fn n_rows(&self) -> usize {
        self.request.tokens.len().saturating_sub(1)
    }

    fn answer(&mut self, parts: &mut Parts, scores: Option<Vec<Score>>) -> Progress {
        if let Some(sequence) = self.sequence.take() {
            parts.keep(sequence);
        }
        // A caller that has gone away wants no answer.
        let _ = self.caller.reply.send(Ok(scores));
        Progress::Done
    }

    fn score(&self, parts: &Parts, logits_idx: usize, idx: usize) -> Score {
        let (token, logits) = (self.request.tokens[idx], parts.logits.row(logits_idx));
        let asked = self.request.asked.get(&idx).map_or(&[][..], Vec::as_slice);
        Score {
            token,
            logprob: logprob(logits, token),
            top: top_tokens(logits, self.request.n_top),
            asked: asked.iter().map(|&token| logprob(logits, token)).collect(),
        }
    }
}

impl Job for ScoreJob {
    fn priority(&self) -> Priority {
        self.request.priority
    }

    fn is_unwanted(&self) -> bool {
        self.caller.cancel.is_cancelled()
    }

    fn phase(&self) -> Phase {
        if self.sequence.is_some() { Phase::Prefill } else { Phase::Waiting }
    }

    fn prompt(&self) -> &[TokenId] {
        &self.request.tokens
    }

    fn holds_kv(&self) -> bool {
        self.sequence.is_some()
    }

    fn n_planned_rows(&self) -> usize {
        self.n_planned
    }

    fn plan(&mut self, parts: &mut Parts, n_max_rows: usize, plan: &mut StepPlan) -> Result<Progress, Error> {
        let (from, n_rows) = (self.from(), self.n_rows());
        if self.is_unwanted() {
            return Ok(self.answer(parts, None));
        }
        if from > n_rows {
            return Ok(self.answer(parts, Some(Vec::new())));
        }
        let mut sequence = match self.sequence.take() {
            Some(sequence) => sequence,
            // Rows whose logits were seen need not run again, even if their places were given up.
            None => parts.begin(&self.request.tokens[..n_rows], from - 1 + self.scores.len()),
        };
        let start = sequence.tokens().len();
        let n_planned = (n_rows - start).min(n_max_rows).min(N_MAX_SCORED);
        let reserved = parts.reserve(&mut sequence, n_planned);
        if reserved.is_ok() {
            let first = (from - 1 + self.scores.len()).saturating_sub(start).min(n_planned);
            let tokens = &self.request.tokens[start..start + n_planned];
            self.first_logits = plan.add(&sequence, tokens, first..n_planned);
            self.n_planned = n_planned;
            plan.n_prompt_rows += n_planned;
        }
        self.sequence = Some(sequence);
        reserved.map(|()| Progress::More)
    }

    fn absorb(&mut self, parts: &mut Parts, _elapsed: Duration) -> Result<Progress, Error> {
        let Some(mut sequence) = self.sequence.take() else { return Ok(Progress::More) };
        let start = sequence.tokens().len();
        let end = start + self.n_planned;
        let first = (self.from() - 1 + self.scores.len()).max(start);
        for (idx, row_idx) in (first..end).enumerate() {
            self.scores.push(self.score(parts, self.first_logits + idx, row_idx + 1));
        }
        sequence.commit(&self.request.tokens[start..end]);
        self.sequence = Some(sequence);
        if end < self.n_rows() {
            return Ok(Progress::More);
        }
        let scores = std::mem::take(&mut self.scores);
        Ok(self.answer(parts, Some(scores)))
    }

    fn suspend(&mut self, parts: &mut Parts) {
        if let Some(sequence) = self.sequence.take() {
            parts.kv.release(sequence);
        }
    }

    fn fail(&mut self, parts: Option<&mut Parts>, error: Error) {
        if let Some((parts, sequence)) = parts.zip(self.sequence.take()) {
            parts.keep(sequence);
        }
        let _ = self.caller.reply.send(Err(error));
    }
}

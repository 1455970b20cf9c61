//! Scoring: how likely the model finds tokens that are already there.

use super::{Caller, Job, Parts, Progress, ScoreReply};
use crate::sample::{logprob, top_tokens};
use crate::{Error, Priority, Score, ScoreRequest, Sequence, StepEnd};

pub(crate) struct ScoreJob {
    request: ScoreRequest,
    caller: Caller<ScoreReply>,
    sequence: Option<Sequence>,
    scores: Vec<Score>,
}

impl ScoreJob {
    pub(crate) fn new(request: ScoreRequest, caller: Caller<ScoreReply>) -> Self {
        Self { request, caller, sequence: None, scores: Vec::new() }
    }

    /// Runs one chunk; returns the reply when there is one.
    fn advance(&mut self, parts: &mut Parts) -> Result<Option<Option<Vec<Score>>>, Error> {
        let tokens = &self.request.tokens;
        let from = self.request.from.max(1);
        // The last token has nothing after it to score, so it need not run.
        let n_rows = tokens.len().saturating_sub(1);
        if from > n_rows {
            return Ok(Some(Some(Vec::new())));
        }
        let mut sequence = match self.sequence.take() {
            Some(sequence) => sequence,
            None => parts.begin(&tokens[..n_rows], from - 1),
        };
        let start = sequence.tokens().len();
        let chunk = &tokens[start..n_rows.min(start + parts.pace.chunk_rows())];
        let wanted: Vec<usize> = (0..chunk.len()).filter(|row_idx| start + row_idx + 1 >= from).collect();
        let end = parts.step(&mut sequence, chunk, &wanted, &|| self.caller.cancel.is_cancelled())?;
        if end == StepEnd::Done {
            for (idx, row_idx) in wanted.iter().enumerate() {
                let (token, logits) = (tokens[start + row_idx + 1], parts.logits.row(idx));
                let asked = self.request.asked.get(&(start + row_idx + 1)).map_or(&[][..], Vec::as_slice);
                self.scores.push(Score {
                    token,
                    logprob: logprob(logits, token),
                    top: top_tokens(logits, self.request.n_top),
                    asked: asked.iter().map(|&token| logprob(logits, token)).collect(),
                });
            }
        }
        let finished = sequence.tokens().len() == n_rows;
        if end == StepEnd::Stopped || finished {
            parts.keep(sequence);
            return Ok(Some(finished.then(|| std::mem::take(&mut self.scores))));
        }
        self.sequence = Some(sequence);
        Ok(None)
    }
}

impl Job for ScoreJob {
    fn priority(&self) -> Priority {
        self.request.priority
    }

    fn step(&mut self, parts: &mut Parts) -> Progress {
        let reply = match self.advance(parts) {
            Ok(None) => return Progress::More,
            Ok(Some(scores)) => Ok(scores),
            Err(error) => Err(error),
        };
        // A caller that has gone away wants no answer.
        let _ = self.caller.reply.send(reply);
        Progress::Done
    }

    fn fail(&mut self, error: Error) {
        let _ = self.caller.reply.send(Err(error));
    }
}

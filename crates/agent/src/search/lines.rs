//! The second arm: the model writes suspicious lines again, sampled, a different way each round.

use engine::{CancelToken, Drafting, Engine, GenerateRequest, Priority, Sampling, StopRules};

use super::Next;
use super::windows::{Window, tokens_of};
use crate::candidate::Candidate;
use crate::locate::SourceFile;
use crate::mutate::Kind;

/// Most tokens of a line.
const N_MAX_TOKENS: usize = 48;
/// Rounds over all lines before the search ends. Correct edits come early in the order of samples (arXiv 2506.13186).
const N_MAX_ROUNDS: u64 = 16;

pub(super) struct LineArm {
    /// (window, line) pairs, the most suspicious first.
    order: Vec<(usize, usize)>,
    at: usize,
    round: u64,
    seed: u64,
}

impl LineArm {
    pub(super) fn new(windows: &[Window], seed: u64) -> Self {
        let mut order: Vec<(usize, usize)> = windows
            .iter()
            .enumerate()
            .flat_map(|(window_idx, window)| {
                (0..window.lines.len()).map(move |line_idx| (window_idx, line_idx))
            })
            .collect();
        let suspicion = |&(window_idx, line_idx): &(usize, usize)| {
            let window: &Window = &windows[window_idx];
            let line = &window.lines[line_idx];
            line.surprisal.min(40.0) - 20.0 * f64::from(window.depth)
                + if line.is_mentioned { 60.0 } else { 0.0 }
        };
        order.sort_by(|a, b| suspicion(b).total_cmp(&suspicion(a)));
        Self { order, at: 0, round: 0, seed }
    }

    pub(super) fn next(
        &mut self,
        engine: &Engine,
        files: &[SourceFile],
        windows: &[Window],
        cancel: &CancelToken,
    ) -> Result<Next, engine::Error> {
        if self.at == self.order.len() {
            self.at = 0;
            self.round += 1;
        }
        let Some(&(window_idx, line_idx)) = self.order.get(self.at).filter(|_| self.round < N_MAX_ROUNDS)
        else {
            return Ok(Next::End);
        };
        let draw = self.round * self.order.len() as u64 + self.at as u64;
        self.at += 1;
        let window = &windows[window_idx];
        let line = &window.lines[line_idx];
        let file = &files[window.file_idx];

        let before = &file.text[window.bytes.start..line.bytes.start];
        let (mut prompt, _) = tokens_of(engine, before, window.bytes.start);
        let healed =
            prompt.pop().map(|last| engine.tokenizer().token_bytes(last).to_vec()).unwrap_or_default();
        if prompt.is_empty() {
            return Ok(Next::Nothing);
        }
        let request = GenerateRequest {
            prompt,
            healed,
            grammar: None,
            shown: Vec::new(),
            sampling: Sampling {
                temperature: 0.8,
                top_k: 50,
                top_p: 0.95,
                seed: self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(draw),
            },
            stop: StopRules { n_max_tokens: N_MAX_TOKENS, texts: vec!["\n".into()], decode_time: None },
            drafting: Drafting::default(),
            n_top: 0,
            priority: Priority::Background,
        };
        let generation = engine.generate(request, &mut |_| true, cancel)?;
        let new_text = generation.text.trim_end().to_owned();
        if new_text.trim().is_empty() || new_text == file.text[line.bytes.clone()] {
            return Ok(Next::Nothing);
        }
        let mean = generation.logprobs.iter().sum::<f32>() / generation.logprobs.len().max(1) as f32;
        let candidate = Candidate {
            file_idx: window.file_idx,
            line: line.line,
            kind: Kind::Line,
            bytes: line.bytes.clone(),
            new_text,
            score: f64::from(mean),
        };
        Ok(Next::Candidate(candidate))
    }
}

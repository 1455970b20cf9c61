//! One step's work: any rows of any sequences.
//!
//! Prefill, decode, verify and best-of-N differ only in how many rows each sequence brings.

use crate::{BlockId, TokenId};

/// A run of consecutive positions of one sequence.
#[derive(Clone, Debug)]
pub struct RowSpan<'a> {
    /// The sequence's KV blocks, enough for `start + n_tokens` positions.
    pub blocks: &'a [BlockId],
    /// Position of the span's first token.
    pub start: usize,
    /// Rows in the span.
    pub n_tokens: usize,
}

/// The rows of one step.
#[derive(Clone, Debug)]
pub struct StepBatch<'a> {
    /// All rows' tokens, span after span: `[n_rows]`.
    pub tokens: &'a [TokenId],
    /// The spans, in the order of `tokens`; their `n_tokens` add up to `n_rows`.
    pub spans: &'a [RowSpan<'a>],
    /// Indices of the rows whose logits are wanted, each greater than the one before.
    pub logits: &'a [usize],
}

/// Logits of the rows asked for: `[n_wanted, n_vocab] f32`.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    values: Vec<f32>,
    n_vocab: usize,
}

impl Logits {
    /// Makes room for `n_rows` rows of `n_vocab` and returns it for a backend to fill.
    pub fn reset(&mut self, n_rows: usize, n_vocab: usize) -> &mut [f32] {
        self.n_vocab = n_vocab;
        self.values.resize(n_rows * n_vocab, 0.0);
        &mut self.values
    }

    /// Returns the logits of the `idx`-th row asked for: `[n_vocab] f32`.
    ///
    /// # Panics
    /// If the step did not ask for that many rows.
    pub fn row(&self, idx: usize) -> &[f32] {
        &self.values[idx * self.n_vocab..(idx + 1) * self.n_vocab]
    }

    /// Returns the same for a caller that masks them.
    ///
    /// # Panics
    /// If the step did not ask for that many rows.
    pub fn row_mut(&mut self, idx: usize) -> &mut [f32] {
        &mut self.values[idx * self.n_vocab..(idx + 1) * self.n_vocab]
    }
}

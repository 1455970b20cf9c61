//! One step as a GPU's kernels read it: where each row is, and which way its attention goes.
//!
//! In: a batch. Out: integers for the GPU, and what to launch. Never: depends on a GPU.

use std::ops::Range;

use crate::kernel::cuda::N_PIECE;
use crate::{BLOCK_TOKENS, StepBatch};

/// Fewest rows of a span that are attended in tiles.
const N_MIN_TILED: usize = 16;

/// Rows of one span, attended in tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tiled {
    pub(super) rows: Range<usize>,
    pub(super) start: usize,
    pub(super) span_idx: usize,
}

/// A step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) n_rows: usize,
    pub(super) n_wanted: usize,
    /// Rows that are attended one by one.
    pub(super) single: Vec<Range<usize>>,
    pub(super) tiled: Vec<Tiled>,
    /// Pieces of the longest sequence, rounded up so that few numbers occur.
    pub(super) n_pieces: usize,
    /// Blocks of a row of the tables.
    pub(super) n_table: usize,
    /// Integers of each of the five parts before the tables.
    pub(super) n_part: usize,
    /// `[ids, positions, places, spans, wanted][n_part]`, then the tables, `[n_spans, n_table]`.
    pub(super) ints: Vec<i32>,
}

/// Where a part of [`Step::ints`] is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Ids,
    Positions,
    Places,
    Spans,
    Wanted,
}

impl Step {
    /// Returns the step of a batch, with room for `n_part` rows in each part.
    ///
    /// # Panics
    /// If there are more rows.
    pub(super) fn of(batch: &StepBatch<'_>, n_part: usize) -> Self {
        let n_rows = batch.tokens.len();
        assert!(n_rows <= n_part, "{n_rows} rows");
        let longest = batch.spans.iter().map(|span| span.start + span.n_tokens).max().unwrap_or(1);
        let n_pieces = longest.div_ceil(N_PIECE).next_power_of_two();
        let n_table = n_pieces * N_PIECE / BLOCK_TOKENS;
        let mut ints = vec![0; 5 * n_part + batch.spans.len() * n_table];
        let (parts, tables) = ints.split_at_mut(5 * n_part);
        let mut parts: Vec<&mut [i32]> = parts.chunks_exact_mut(n_part).collect();
        for (id, token) in parts[Part::Ids as usize].iter_mut().zip(batch.tokens) {
            *id = token.0 as i32;
        }
        for (wanted, row_idx) in parts[Part::Wanted as usize].iter_mut().zip(batch.logits) {
            *wanted = *row_idx as i32;
        }
        let mut step = Self {
            n_rows,
            n_wanted: batch.logits.len(),
            single: Vec::new(),
            tiled: Vec::new(),
            n_pieces,
            n_table,
            n_part,
            ints: Vec::new(),
        };
        let mut row_idx = 0;
        for (span_idx, span) in batch.spans.iter().enumerate() {
            let rows = row_idx..row_idx + span.n_tokens;
            for (row_idx, position) in rows.clone().zip(span.start..) {
                let block = span.blocks[position / BLOCK_TOKENS].0 as usize;
                parts[Part::Positions as usize][row_idx] = position as i32;
                parts[Part::Places as usize][row_idx] =
                    (block * BLOCK_TOKENS + position % BLOCK_TOKENS) as i32;
                parts[Part::Spans as usize][row_idx] = span_idx as i32;
            }
            for (to, block) in tables[span_idx * n_table..][..n_table].iter_mut().zip(span.blocks) {
                *to = block.0 as i32;
            }
            row_idx = rows.end;
            if span.n_tokens >= N_MIN_TILED {
                step.tiled.push(Tiled { rows, start: span.start, span_idx });
                continue;
            }
            match step.single.last_mut().filter(|last| last.end == rows.start) {
                Some(last) => last.end = rows.end,
                None => step.single.push(rows),
            }
        }
        step.ints = ints;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockId, RowSpan, TokenId};

    #[test]
    fn rows_know_their_places_and_spans_their_way() {
        let blocks: [Vec<BlockId>; 3] =
            [[7, 3].map(BlockId).to_vec(), [9].map(BlockId).to_vec(), (10..20).map(BlockId).collect()];
        let spans = [
            RowSpan { blocks: &blocks[0], start: 15, n_tokens: 2 },
            RowSpan { blocks: &blocks[1], start: 0, n_tokens: 1 },
            RowSpan { blocks: &blocks[2], start: 140, n_tokens: 16 },
        ];
        let tokens: Vec<TokenId> = (100..119).map(TokenId).collect();
        let step = Step::of(&StepBatch { tokens: &tokens, spans: &spans, logits: &[1, 18] }, 32);
        let part = |part: Part| &step.ints[part as usize * 32..][..19];
        assert_eq!(part(Part::Ids)[..3], [100, 101, 102]);
        assert_eq!(part(Part::Positions)[..4], [15, 16, 0, 140]);
        assert_eq!(part(Part::Places)[..4], [7 * 16 + 15, 3 * 16, 9 * 16, 18 * 16 + 12]);
        assert_eq!(part(Part::Spans)[..4], [0, 0, 1, 2]);
        assert_eq!(part(Part::Wanted)[..2], [1, 18]);
        assert!(step.single.iter().cloned().eq(std::iter::once(0..3)));
        assert_eq!(step.tiled, [Tiled { rows: 3..19, start: 140, span_idx: 2 }]);
        assert_eq!((step.n_pieces, step.n_table, step.n_wanted), (2, 16, 2));
        assert_eq!(step.ints[5 * 32..][..3], [7, 3, 0]);
        assert_eq!(step.ints[5 * 32 + 2 * 16..][..2], [10, 11]);
    }

    #[test]
    fn rows_beside_a_tiled_span_are_two_runs() {
        let blocks: Vec<BlockId> = (0..4).map(BlockId).collect();
        let span = |n_tokens| RowSpan { blocks: &blocks, start: 0, n_tokens };
        let tokens = vec![TokenId(0); 24];
        let spans = [span(1), span(20), span(2), span(1)];
        let step = Step::of(&StepBatch { tokens: &tokens, spans: &spans, logits: &[] }, 24);
        assert_eq!(step.single, [0..1, 21..24]);
        assert_eq!(step.tiled.len(), 1);
    }
}

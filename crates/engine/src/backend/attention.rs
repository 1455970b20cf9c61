//! Causal attention of one span over its block-table KV, grouped-query heads sharing each key and value read.
//!
//! In: rotated queries, a span whose keys and values are written. Out: the heads' weighted values.
//! The order of float additions depends on the positions only, never on rows per step or on threads (I-7).

use rayon::prelude::*;

use crate::{KvPool, ModelSpec, RowSpan};

/// Query rows × positions from which rows are spread over threads. Each thread reads all keys and values itself, so
/// a few rows are quicker on one.
const PARALLEL_WORK: usize = 2_048;

/// Computes attention for every row of `span` in one layer.
///
/// `q, out: [n_tokens, n_heads, head_dim] f32`; row r sits at position `span.start + r` and sees positions up to it.
pub(super) fn attend(
    spec: &ModelSpec,
    kv: &KvPool,
    layer_idx: usize,
    span: &RowSpan<'_>,
    q: &[f32],
    out: &mut [f32],
) {
    let n_positions = span.start + span.n_tokens;
    let n_shares = if span.n_tokens * n_positions < PARALLEL_WORK { 1 } else { rayon::current_num_threads() };
    // Rows are dealt out in turn, so that the long ones at the end are shared evenly.
    let width = spec.n_heads * spec.head_dim;
    let mut shares: Vec<Vec<(usize, &mut [f32])>> = (0..n_shares).map(|_| Vec::new()).collect();
    for (row_idx, row) in out.chunks_mut(width).enumerate() {
        shares[row_idx % n_shares].push((row_idx, row));
    }
    shares.into_par_iter().for_each(|share| attend_rows(spec, kv, layer_idx, span, q, share));
}

fn attend_rows(
    spec: &ModelSpec,
    kv: &KvPool,
    layer_idx: usize,
    span: &RowSpan<'_>,
    q: &[f32],
    mut rows: Vec<(usize, &mut [f32])>,
) {
    let (dim, n_group) = (spec.head_dim, spec.n_heads / spec.n_kv_heads);
    let n_positions = span.start + span.n_tokens;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut k = vec![0.0; n_positions * dim];
    let mut v = vec![0.0; n_positions * dim];
    let mut weights = vec![0.0; n_positions];
    for kv_head_idx in 0..spec.n_kv_heads {
        kv.read(layer_idx, span.blocks, kv_head_idx, &mut k, &mut v);
        for (row_idx, row) in &mut rows {
            let n_seen = span.start + *row_idx + 1;
            for head_idx in kv_head_idx * n_group..(kv_head_idx + 1) * n_group {
                let from = (*row_idx * spec.n_heads + head_idx) * dim;
                let query = &q[from..from + dim];
                let mut max = f32::NEG_INFINITY;
                for (weight, key) in weights[..n_seen].iter_mut().zip(k.chunks_exact(dim)) {
                    *weight = dot(query, key) * scale;
                    max = max.max(*weight);
                }
                let mut sum = 0.0;
                for weight in &mut weights[..n_seen] {
                    *weight = (*weight - max).exp();
                    sum += *weight;
                }
                let out = &mut row[head_idx * dim..(head_idx + 1) * dim];
                out.fill(0.0);
                for (weight, value) in weights[..n_seen].iter().zip(v.chunks_exact(dim)) {
                    for (out, value) in out.iter_mut().zip(value) {
                        *out += weight * value;
                    }
                }
                for out in out {
                    *out /= sum;
                }
            }
        }
    }
}

/// Returns the dot product, added up in 16 lanes so that it vectorises in a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

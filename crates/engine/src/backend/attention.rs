//! Causal attention over block-table KV: grouped-query heads, rows, and forked sequences share each key and value read.
//!
//! In: rotated queries, spans whose keys and values are written. Out: the heads' weighted values.
//! Never: adds floats in an order that depends on anything but the positions: not on rows per step, nor on threads
//! (I-7).

use std::ops::Range;

use half::f16;

use super::float::softmax;
use crate::kernel::{Lanes, N_LANES, Pool, vectorised};
use crate::kv::{GROUP, HeadBlock, KvNumber, LayerKv, Layers};
use crate::{BLOCK_TOKENS, BlockId, KvPool, ModelSpec, RowSpan};

/// Query rows × positions from which the key-value heads are spread over threads.
const PARALLEL_FROM: usize = 128;
/// Query rows × positions from which each head's rows are, too. Each thread then reads all of its keys and values, so a
/// few rows are quicker on one.
const PARALLEL_WORK: usize = 8_192;
/// Queries that share one read of a block from memory.
const N_QUERIES: usize = 64;
/// Queries whose sums are kept in registers together.
const N_TOGETHER: usize = 8;

/// One head's query in one row, and where its answer goes.
struct Query<'a> {
    q: &'a [f32],
    /// The blocks of its sequence.
    blocks: &'a [BlockId],
    /// Positions it sees.
    n_seen: usize,
    out: &'a mut [f32],
}

/// Computes attention for every row of a step in one layer.
///
/// `q, out: [n_rows, n_heads, head_dim] f32`, the rows of one span after those of another; row r of a span sits at
/// position `span.start + r` and sees its sequence's positions up to it.
pub(super) fn attend(
    pool: &Pool,
    spec: &ModelSpec,
    kv: &KvPool,
    layer_idx: usize,
    spans: &[RowSpan<'_>],
    q: &[f32],
    out: &mut [f32],
) {
    match kv.layers() {
        Layers::F16(layers) => share_out(pool, spec, &layers[layer_idx], spans, q, out, answer_f16),
        Layers::Q8_0(layers) => share_out(pool, spec, &layers[layer_idx], spans, q, out, answer_q8_0),
        #[cfg(feature = "cuda")]
        Layers::OnDevice(_) => unreachable!("a device attends to its own memory"),
    }
}

/// Answers up to [`N_QUERIES`] queries, those of a sequence together, their rows ascending.
type Answer<T> = fn(&Cache<'_, T>, &mut [Query<'_>], &mut Buffers);

/// Deals the queries out to threads.
fn share_out<T: KvNumber + Sync>(
    pool: &Pool,
    spec: &ModelSpec,
    layer: &LayerKv<T>,
    spans: &[RowSpan<'_>],
    q: &[f32],
    out: &mut [f32],
    answer: Answer<T>,
) {
    let (dim, n_group) = (spec.head_dim, spec.n_heads / spec.n_kv_heads);
    let work: usize = spans.iter().map(|span| span.n_tokens * (span.start + span.n_tokens)).sum();
    let n_shares = if work < PARALLEL_WORK { 1 } else { pool.n_threads() };
    // Each key-value head's rows are dealt out in turn, so that the long ones at the end are shared evenly.
    let mut shares: Vec<(usize, Vec<Query<'_>>)> = Vec::new();
    shares.resize_with(spec.n_kv_heads * n_shares, Default::default);
    let rows = spans.iter().flat_map(|span| (0..span.n_tokens).map(move |idx| (span, idx)));
    let width = spec.n_heads * dim;
    let of_rows = q.chunks_exact(width).zip(out.chunks_exact_mut(width));
    for (row_idx, ((span, within), (q, out))) in rows.zip(of_rows).enumerate() {
        let heads = q.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
        for (head_idx, (q, out)) in heads.enumerate() {
            let kv_head_idx = head_idx / n_group;
            let share = &mut shares[kv_head_idx * n_shares + row_idx % n_shares];
            share.0 = kv_head_idx;
            share.1.push(Query { q, blocks: span.blocks, n_seen: span.start + within + 1, out });
        }
    }
    let run = |(kv_head_idx, mut queries): (usize, Vec<Query<'_>>)| {
        let cache = Cache { layer, kv_head_idx };
        let mut buffers = Buffers::default();
        for queries in queries.chunks_mut(N_QUERIES) {
            answer(&cache, queries, &mut buffers);
        }
    };
    if work < PARALLEL_FROM {
        shares.into_iter().for_each(run);
    } else {
        pool.for_each(shares, run);
    }
}

/// The keys and values of one key-value head in one layer.
struct Cache<'a, T> {
    layer: &'a LayerKv<T>,
    kv_head_idx: usize,
}

/// What is needed for some queries, kept for the next.
#[derive(Default)]
struct Buffers {
    /// `[n_queries, n_positions]`.
    weights: Vec<f32>,
    /// `[n_queries, head_dim]`.
    means: Vec<f32>,
    /// Sums of each query's weights.
    sums: Vec<f32>,
}

/// Calls a function generic over how many queries it takes together, 8 or fewer.
macro_rules! for_each_group {
    ($run:expr, $function:ident::<$lanes:ident, $type:ident>($($arg:expr),*)) => {
        let Range { mut start, end } = $run;
        while start < end {
            start += match end - start {
                1 => $function::<$lanes, $type, 1>(start, $($arg),*),
                2 => $function::<$lanes, $type, 2>(start, $($arg),*),
                3 => $function::<$lanes, $type, 3>(start, $($arg),*),
                4..N_TOGETHER => $function::<$lanes, $type, 4>(start, $($arg),*),
                _ => $function::<$lanes, $type, N_TOGETHER>(start, $($arg),*),
            };
        }
    };
}

vectorised! {
    fn answer_f16<L>(cache: &Cache<'_, f16>, queries: &mut [Query<'_>], buffers: &mut Buffers) {
        answer::<L, f16>(cache, queries, buffers);
    }
}
vectorised! {
    fn answer_q8_0<L>(cache: &Cache<'_, i8>, queries: &mut [Query<'_>], buffers: &mut Buffers) {
        answer::<L, i8>(cache, queries, buffers);
    }
}

#[inline(always)]
fn answer<L: Lanes, T: KvNumber>(cache: &Cache<'_, T>, queries: &mut [Query<'_>], buffers: &mut Buffers) {
    let Some(dim) = queries.first().map(|query| query.q.len()) else { return };
    let n_blocks = queries.iter().map(Query::n_blocks).max().unwrap_or(0);
    let n_positions = n_blocks * BLOCK_TOKENS;
    let Buffers { weights, means, sums } = buffers;
    weights.resize(queries.len() * n_positions, 0.0);
    means.clear();
    means.resize(queries.len() * dim, 0.0);
    sums.clear();

    for block_idx in 0..n_blocks {
        let mut rest = 0..queries.len();
        while let Some((id, run)) = next_run(queries, block_idx, &mut rest) {
            let keys = cache.layer.keys(id, cache.kv_head_idx);
            for_each_group!(run, score::<L, T>(queries, keys, block_idx, n_positions, weights));
        }
    }
    for (query, weights) in queries.iter().zip(weights.chunks_exact_mut(n_positions)) {
        let (seen, unseen) = weights.split_at_mut(query.n_seen);
        sums.push(softmax::<L>(seen, 1.0 / (dim as f32).sqrt()));
        unseen.fill(0.0);
    }
    for block_idx in 0..n_blocks {
        let mut rest = 0..queries.len();
        while let Some((id, run)) = next_run(queries, block_idx, &mut rest) {
            let values = cache.layer.values(id, cache.kv_head_idx);
            for_each_group!(run, weigh::<L, T>(values, block_idx, n_positions, weights, means));
        }
    }
    for ((query, means), sum) in queries.iter_mut().zip(means.chunks_exact(dim)).zip(sums) {
        for (out, mean) in query.out.iter_mut().zip(means) {
            *out = mean / *sum;
        }
    }
}

/// Multiplies what belongs to 16 positions by their scales in a group of dimensions.
#[inline(always)]
fn scaled<L: Lanes, T: KvNumber>(head: HeadBlock<'_, T>, group_idx: usize, x: L) -> L {
    if T::IS_SCALED { x.mul(L::load_f16(&head.scales[group_idx])) } else { x }
}

impl Query<'_> {
    fn n_blocks(&self) -> usize {
        self.n_seen.div_ceil(BLOCK_TOKENS)
    }

    /// Returns the block of its sequence at an index, if it sees any of it.
    fn block(&self, block_idx: usize) -> Option<BlockId> {
        (block_idx < self.n_blocks()).then(|| self.blocks[block_idx])
    }
}

/// Takes the next queries that share a block off `rest`: rows of one sequence, and of those forked from it. Each sees
/// some of the block.
#[inline(always)]
fn next_run(
    queries: &[Query<'_>],
    block_idx: usize,
    rest: &mut Range<usize>,
) -> Option<(BlockId, Range<usize>)> {
    let start = rest.clone().find(|&idx| queries[idx].block(block_idx).is_some())?;
    let id = queries[start].block(block_idx)?;
    let is_other = |&idx: &usize| queries[idx].block(block_idx) != Some(id);
    let end = (start + 1..rest.end).find(is_other).unwrap_or(rest.end);
    rest.start = end;
    Some((id, start..end))
}

/// Writes the products of `N` queries with a block's 16 keys, `[head_dim, BLOCK_TOKENS]`, to their weights; returns `N`.
#[inline(always)]
fn score<L: Lanes, T: KvNumber, const N: usize>(
    first: usize,
    queries: &[Query<'_>],
    keys: HeadBlock<'_, T>,
    block_idx: usize,
    n_positions: usize,
    weights: &mut [f32],
) -> usize {
    let lines = keys.numbers.as_chunks::<BLOCK_TOKENS>().0;
    let n_grouped = if T::IS_SCALED { GROUP } else { lines.len() };
    let mut dots = [L::splat(0.0); N];
    for (group_idx, lines) in lines.chunks(n_grouped).enumerate() {
        let from = group_idx * n_grouped;
        let qs: [&[f32]; N] = std::array::from_fn(|n| &queries[first + n].q[from..from + lines.len()]);
        let mut parts = [L::splat(0.0); N];
        for (dim_idx, line) in lines.iter().enumerate() {
            let line: L = T::load(line);
            for n in 0..N {
                parts[n] = L::splat(qs[n][dim_idx]).mul_add(line, parts[n]);
            }
        }
        for n in 0..N {
            dots[n] = dots[n].add(scaled(keys, group_idx, parts[n]));
        }
    }
    for (n, dots) in dots.into_iter().enumerate() {
        let place = weights[(first + n) * n_positions + block_idx * BLOCK_TOKENS..].first_chunk_mut();
        dots.store(place.expect("a weight for each position of a block"));
    }
    N
}

/// Adds a block's weighted values, `[BLOCK_TOKENS, head_dim]`, to the means of `N` queries, `[n_queries, head_dim]`;
/// returns `N`.
#[inline(always)]
fn weigh<L: Lanes, T: KvNumber, const N: usize>(
    first: usize,
    values: HeadBlock<'_, T>,
    block_idx: usize,
    n_positions: usize,
    weights: &[f32],
    means: &mut [f32],
) -> usize {
    let dim = values.numbers.len() / BLOCK_TOKENS;
    let weights: [&[f32; BLOCK_TOKENS]; N] = std::array::from_fn(|n| {
        let weights = weights[(first + n) * n_positions + block_idx * BLOCK_TOKENS..].first_chunk();
        weights.expect("a weight for each position of a block")
    });
    let means = &mut means[first * dim..(first + N) * dim];
    let mut from = 0;
    while from < dim {
        // The weights are scaled and not the values: they are fewer, and all dimensions of a group share them.
        let mut products = [[0.0; BLOCK_TOKENS]; N];
        let weights = if T::IS_SCALED {
            for (products, weights) in products.iter_mut().zip(weights) {
                scaled(values, from / GROUP, L::load(weights)).store(products);
            }
            products.each_ref()
        } else {
            weights
        };
        // A group is 32 dimensions, so none of these steps leaves it.
        from += match dim - from {
            32.. => weigh_some::<L, T, N, 2>(&weights, values.numbers, means, from),
            16.. => weigh_some::<L, T, N, 1>(&weights, values.numbers, means, from),
            _ => weigh_one(&weights, values.numbers, means, from),
        };
    }
    N
}

/// The same for `16 · D` dimensions from one on; returns how many these are.
#[inline(always)]
fn weigh_some<L: Lanes, T: KvNumber, const N: usize, const D: usize>(
    weights: &[&[f32; BLOCK_TOKENS]; N],
    values: &[T],
    means: &mut [f32],
    from: usize,
) -> usize {
    let dim = values.len() / BLOCK_TOKENS;
    let place = |n: usize, d: usize| n * dim + from + d * N_LANES;
    let mut sums: [[L; D]; N] = std::array::from_fn(|n| {
        std::array::from_fn(|d| L::load(means[place(n, d)..].first_chunk().expect("dimensions left")))
    });
    for position in 0..BLOCK_TOKENS {
        let values: [L; D] = std::array::from_fn(|d| {
            T::load(values[position * dim + from + d * N_LANES..].first_chunk().expect("dimensions left"))
        });
        for n in 0..N {
            let weight = L::splat(weights[n][position]);
            for d in 0..D {
                sums[n][d] = weight.mul_add(values[d], sums[n][d]);
            }
        }
    }
    for (n, sums) in sums.into_iter().enumerate() {
        for (d, sums) in sums.into_iter().enumerate() {
            sums.store(means[place(n, d)..].first_chunk_mut().expect("dimensions left"));
        }
    }
    D * N_LANES
}

/// The same for one dimension.
#[inline(always)]
fn weigh_one<T: KvNumber, const N: usize>(
    weights: &[&[f32; BLOCK_TOKENS]; N],
    values: &[T],
    means: &mut [f32],
    from: usize,
) -> usize {
    let dim = values.len() / BLOCK_TOKENS;
    for (n, weights) in weights.iter().enumerate() {
        for (weight, values) in weights.iter().zip(values.chunks_exact(dim)) {
            means[n * dim + from] = weight.mul_add(values[from].to_f32(), means[n * dim + from]);
        }
    }
    1
}

#[cfg(test)]
mod tests;

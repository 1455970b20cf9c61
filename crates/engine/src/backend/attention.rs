//! Causal attention over block-table KV: grouped-query heads, rows, and forked sequences share each key and value read.
//!
//! In: rotated queries, spans whose keys and values are written. Out: the heads' weighted values.
//! Never: adds floats in an order that depends on anything but the positions: not on rows per step, nor on threads
//! (I-7).

use std::ops::Range;

use half::f16;

use super::float::{rescale, softmax};
use crate::kernel::{Lanes, N_LANES, Pool, fetch_all, vectorised};
use crate::kv::{Blocks, GROUP, HeadBlock, KvNumber, Layers};
use crate::{BLOCK_TOKENS, BlockId, KvPool, ModelSpec, RowSpan};

/// Query rows × positions from which the work is spread over threads.
const PARALLEL_FROM: usize = 128;
/// Query rows × positions from which each head's rows are, too, and its chunks are not. Each thread then reads all of its
/// keys and values, so a few rows are quicker when each reads a part.
const PARALLEL_WORK: usize = 8_192;
/// Queries that share one read of a block from memory.
const N_QUERIES: usize = 64;
/// Queries whose sums are kept in registers together.
const N_TOGETHER: usize = 8;
/// Blocks whose weights and values are summed up on their own, by whatever thread; their sums are added in order. Two
/// threads share three heads evenly so, and the weights of 64 queries stay in the second cache.
const CHUNK_BLOCKS: usize = 16;
/// Blocks that are fetched ahead, to the second cache. The processor sees no pattern in where they lie: without this,
/// a step behind 1,500 tokens takes half as long again.
const FETCHED_AHEAD: usize = 4;

/// One head's query in one row.
#[derive(Clone, Copy)]
struct Query<'a> {
    q: &'a [f32],
    /// The blocks of its sequence.
    blocks: &'a [BlockId],
    /// Positions it sees.
    n_seen: usize,
}

/// Up to [`N_QUERIES`] queries of one key-value head, those of a sequence together, their rows ascending.
struct Group<'a> {
    kv_head_idx: usize,
    queries: Vec<Query<'a>>,
    /// Where their answers go.
    outs: Vec<&'a mut [f32]>,
}

/// What some queries get of a chunk's values.
#[derive(Default)]
struct Part {
    /// `[n_queries, head_dim]`: values by their weights, of which the largest is 1.
    sums: Vec<f32>,
    /// Of each query: its largest score, and the sum of its weights, which is 0 where it sees none of the chunk.
    totals: Vec<Total>,
}

#[derive(Clone, Copy)]
struct Total {
    largest: f32,
    weight: f32,
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
        Layers::F16(layers) => share_out(pool, spec, (layers, layer_idx), spans, q, out, answer_f16),
        Layers::Q8_0(layers) => share_out(pool, spec, (layers, layer_idx), spans, q, out, answer_q8_0),
        #[cfg(any(feature = "cuda", feature = "metal", test))]
        Layers::OnDevice(_) => unreachable!("a device attends to its own memory"),
    }
}

/// Returns what some queries get of a chunk; the buffer is kept for the next.
type Answer<T> = fn(&Cache<'_, T>, &[Query<'_>], usize, &mut Vec<f32>) -> Part;

/// Deals the queries out to threads.
fn share_out<T: KvNumber + Sync>(
    pool: &Pool,
    spec: &ModelSpec,
    (blocks, layer_idx): (&Blocks<T>, usize),
    spans: &[RowSpan<'_>],
    q: &[f32],
    out: &mut [f32],
    answer: Answer<T>,
) {
    let work: usize = spans.iter().map(|span| span.n_tokens * (span.start + span.n_tokens)).sum();
    let n_shares = if work < PARALLEL_WORK { 1 } else { pool.n_threads() };
    let groups = groups(spec, spans, q, out, n_shares);
    let cache = |group: &Group<'_>| Cache { blocks, layer_idx, kv_head_idx: group.kv_head_idx };
    let all = |mut group: Group<'_>| {
        let mut totals = vec![None; group.queries.len()];
        let mut weights = Vec::new();
        for chunk_idx in 0..group.n_chunks() {
            let part = answer(&cache(&group), &group.queries, chunk_idx, &mut weights);
            group.add(part, &mut totals);
        }
        group.divide(&totals);
    };
    if work < PARALLEL_FROM || pool.n_threads() == 1 {
        groups.into_iter().for_each(all);
    } else if n_shares > 1 {
        pool.for_each(groups, all);
    } else {
        let mut parts = Vec::new();
        for (group_idx, group) in groups.iter().enumerate() {
            parts.extend((0..group.n_chunks()).map(|chunk_idx| (group_idx, chunk_idx, Part::default())));
        }
        pool.for_each(&mut parts, |(group_idx, chunk_idx, part)| {
            let group = &groups[*group_idx];
            *part = answer(&cache(group), &group.queries, *chunk_idx, &mut Vec::new());
        });
        let mut parts = parts.into_iter();
        for mut group in groups {
            let mut totals = vec![None; group.queries.len()];
            for (.., part) in parts.by_ref().take(group.n_chunks()) {
                group.add(part, &mut totals);
            }
            group.divide(&totals);
        }
    }
}

/// Returns the queries of all rows, each key-value head's dealt out in turn to `n_shares` before they are put together, so
/// that the long ones at the end are shared evenly.
fn groups<'a>(
    spec: &ModelSpec,
    spans: &[RowSpan<'a>],
    q: &'a [f32],
    out: &'a mut [f32],
    n_shares: usize,
) -> Vec<Group<'a>> {
    let (dim, n_group) = (spec.head_dim, spec.n_heads / spec.n_kv_heads);
    let mut shares: Vec<Vec<Group<'_>>> = Vec::new();
    shares.resize_with(spec.n_kv_heads * n_shares, Vec::new);
    let rows = spans.iter().flat_map(|span| (0..span.n_tokens).map(move |idx| (span, idx)));
    let width = spec.n_heads * dim;
    let of_rows = q.chunks_exact(width).zip(out.chunks_exact_mut(width));
    for (row_idx, ((span, within), (q, out))) in rows.zip(of_rows).enumerate() {
        let heads = q.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
        for (head_idx, (q, out)) in heads.enumerate() {
            let kv_head_idx = head_idx / n_group;
            let share = &mut shares[kv_head_idx * n_shares + row_idx % n_shares];
            if share.last().is_none_or(|group| group.queries.len() == N_QUERIES) {
                share.push(Group { kv_head_idx, queries: Vec::new(), outs: Vec::new() });
            }
            let group = share.last_mut().expect("pushed where there was none");
            group.queries.push(Query { q, blocks: span.blocks, n_seen: span.start + within + 1 });
            group.outs.push(out);
        }
    }
    shares.into_iter().flatten().collect()
}

impl Group<'_> {
    fn n_chunks(&self) -> usize {
        n_blocks(&self.queries).div_ceil(CHUNK_BLOCKS)
    }

    /// Adds what the queries get of their next chunk; `totals` are those of the chunks before, if any.
    fn add(&mut self, part: Part, totals: &mut [Option<Total>]) {
        let Some(dim) = self.queries.first().map(|query| query.q.len()) else { return };
        let scale = score_scale(dim);
        let parts = part.sums.chunks_exact(dim).zip(part.totals);
        for ((out, total), (sums, of_part)) in self.outs.iter_mut().zip(totals).zip(parts) {
            match total {
                // A part of what it sees weighs 1 at least, or is no number.
                _ if of_part.weight == 0.0 => {}
                None => {
                    out.copy_from_slice(sums);
                    *total = Some(of_part);
                }
                Some(before) => {
                    let largest = before.largest.max(of_part.largest);
                    let factors = [before.largest, of_part.largest].map(|own| (own - largest) * scale);
                    before.weight = rescale(factors, (before.weight, of_part.weight), out, sums);
                    before.largest = largest;
                }
            }
        }
    }

    /// Makes means of the sums.
    fn divide(&mut self, totals: &[Option<Total>]) {
        for (out, total) in self.outs.iter_mut().zip(totals) {
            let Some(total) = total else { continue };
            for out in out.iter_mut() {
                *out /= total.weight;
            }
        }
    }
}

/// Returns how many blocks the queries see that see most.
fn n_blocks(queries: &[Query<'_>]) -> usize {
    queries.iter().map(Query::n_blocks).max().unwrap_or(0)
}

/// Returns what products with keys are multiplied by.
fn score_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// The keys and values of one key-value head in one layer.
struct Cache<'a, T> {
    blocks: &'a Blocks<T>,
    layer_idx: usize,
    kv_head_idx: usize,
}

impl<'a, T: KvNumber> Cache<'a, T> {
    fn keys(&self, block: BlockId) -> HeadBlock<'a, T> {
        self.blocks.keys(self.layer_idx, block, self.kv_head_idx)
    }

    fn values(&self, block: BlockId) -> HeadBlock<'a, T> {
        self.blocks.values(self.layer_idx, block, self.kv_head_idx)
    }
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
                4 | 5 => $function::<$lanes, $type, 4>(start, $($arg),*),
                6 | 7 => $function::<$lanes, $type, 6>(start, $($arg),*),
                _ => $function::<$lanes, $type, N_TOGETHER>(start, $($arg),*),
            };
        }
    };
}

vectorised! {
    fn answer_f16<L>(cache: &Cache<'_, f16>, queries: &[Query<'_>], chunk_idx: usize, weights: &mut Vec<f32>) -> Part {
        answer::<L, f16>(cache, queries, chunk_idx, weights)
    }
}
vectorised! {
    fn answer_q8_0<L>(cache: &Cache<'_, i8>, queries: &[Query<'_>], chunk_idx: usize, weights: &mut Vec<f32>) -> Part {
        answer::<L, i8>(cache, queries, chunk_idx, weights)
    }
}

#[inline(always)]
fn answer<L: Lanes, T: KvNumber>(
    cache: &Cache<'_, T>,
    queries: &[Query<'_>],
    chunk_idx: usize,
    weights: &mut Vec<f32>,
) -> Part {
    let Some(dim) = queries.first().map(|query| query.q.len()) else { return Part::default() };
    let first = chunk_idx * CHUNK_BLOCKS;
    let blocks = first..n_blocks(queries).min(first + CHUNK_BLOCKS);
    let n_positions = blocks.len() * BLOCK_TOKENS;
    weights.resize(queries.len() * n_positions, 0.0);
    let mut sums = vec![0.0; queries.len() * dim];
    let mut totals = Vec::with_capacity(queries.len());

    // Most queries see the same blocks, so those of the last one are fetched ahead: the keys, then the values.
    let block = |at: usize| queries.last().and_then(|query| query.block(at)).filter(|_| at < blocks.end);
    let fetch_keys = |at| {
        block(at).into_iter().for_each(|id| fetch_all(cache.keys(id).numbers));
    };
    let fetch_values = |at| {
        block(at).into_iter().for_each(|id| fetch_all(cache.values(id).numbers));
    };
    (first..first + FETCHED_AHEAD).for_each(fetch_keys);
    (first..first + FETCHED_AHEAD.saturating_sub(blocks.len())).for_each(fetch_values);
    for block_idx in blocks.clone() {
        fetch_keys(block_idx + FETCHED_AHEAD);
        if block_idx + FETCHED_AHEAD >= blocks.end {
            fetch_values(first + block_idx + FETCHED_AHEAD - blocks.end);
        }
        let mut rest = 0..queries.len();
        while let Some((id, run)) = next_run(queries, block_idx, &mut rest) {
            let keys = cache.keys(id);
            for_each_group!(run, score::<L, T>(queries, keys, block_idx - first, n_positions, weights));
        }
    }
    for (query, weights) in queries.iter().zip(weights.chunks_exact_mut(n_positions)) {
        let n_seen = query.n_seen.saturating_sub(first * BLOCK_TOKENS).min(n_positions);
        let (seen, unseen) = weights.split_at_mut(n_seen);
        let (largest, weight) = softmax::<L>(seen, score_scale(dim));
        totals.push(Total { largest, weight });
        unseen.fill(0.0);
    }
    for block_idx in blocks.clone() {
        fetch_values(block_idx + FETCHED_AHEAD);
        let mut rest = 0..queries.len();
        while let Some((id, run)) = next_run(queries, block_idx, &mut rest) {
            let values = cache.values(id);
            for_each_group!(run, weigh::<L, T>(values, block_idx - first, n_positions, weights, &mut sums));
        }
    }
    Part { sums, totals }
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

/// Adds a block's weighted values, `[BLOCK_TOKENS, head_dim]`, to the sums of `N` queries, `[n_queries, head_dim]`;
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

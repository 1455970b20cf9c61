//! One layer's keys and values, block after block.
//!
//! In: positions of a block, written one by one. Out: what attention reads of one head in a block.
//!
//! Keys lie `[head_dim, BLOCK_TOKENS]`, so that a query meets 16 of them at once, values `[BLOCK_TOKENS, head_dim]`.
//! The scales of both lie apart from them, `[n_groups, BLOCK_TOKENS]`: 16 positions' sums of products with keys are
//! multiplied by them at once, and so are 16 positions' weights before they meet the values.

use std::ops::Range;

use half::f16;

use super::number::{GROUP, KvNumber, n_scales};
use crate::{BLOCK_TOKENS, BlockId, ModelSpec};

/// What is stored of one head in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadBlock<'a, T> {
    /// Keys `[head_dim, BLOCK_TOKENS]` or values `[BLOCK_TOKENS, head_dim]`, without their scales.
    pub(crate) numbers: &'a [T],
    /// `[n_groups, BLOCK_TOKENS]` for a kind of number that has them.
    pub(crate) scales: &'a [[f16; BLOCK_TOKENS]],
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(crate) struct LayerKv<T> {
    k: Store<T>,
    v: Store<T>,
    head_dim: usize,
}

impl<T: KvNumber> LayerKv<T> {
    /// Returns a layer without blocks.
    pub(super) fn new(spec: &ModelSpec) -> Self {
        Self { k: Store::new(spec), v: Store::new(spec), head_dim: spec.head_dim }
    }

    /// Makes room for `n_blocks` blocks; new ones are empty.
    pub(super) fn resize(&mut self, n_blocks: usize) {
        self.k.resize(n_blocks);
        self.v.resize(n_blocks);
    }

    /// Makes a block as empty as a new one.
    pub(super) fn clear(&mut self, block: BlockId) {
        self.k.clear(block);
        self.v.clear(block);
    }

    /// Copies a block over another.
    pub(super) fn copy(&mut self, from: BlockId, to: BlockId) {
        self.k.copy(from, to);
        self.v.copy(from, to);
    }

    /// Writes what stands at one place of a block: `k, v: [n_kv_heads, head_dim] f32`.
    pub(super) fn write(&mut self, block: BlockId, within: usize, k: &[f32], v: &[f32]) {
        let dim = self.head_dim;
        for (head_idx, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            self.k.write(block, head_idx, within, k, |dim_idx| dim_idx * BLOCK_TOKENS + within);
            self.v.write(block, head_idx, within, v, |dim_idx| within * dim + dim_idx);
        }
    }

    /// Returns one head's keys in a block.
    pub(crate) fn keys(&self, block: BlockId, head_idx: usize) -> HeadBlock<'_, T> {
        self.k.head(block, head_idx)
    }

    /// Returns one head's values in a block.
    pub(crate) fn values(&self, block: BlockId, head_idx: usize) -> HeadBlock<'_, T> {
        self.v.head(block, head_idx)
    }

    /// Returns one head's key and value at one place of a block: `[head_dim]` each, with their scales.
    #[cfg(test)]
    pub(super) fn read(&self, block: BlockId, head_idx: usize, within: usize) -> [Vec<f32>; 2] {
        let dim = self.head_dim;
        let read = |head: HeadBlock<'_, T>, place: &dyn Fn(usize) -> usize| {
            let scale = |dim_idx: usize| {
                head.scales.get(dim_idx / GROUP).map_or(1.0, |scales| scales[within].to_f32())
            };
            (0..dim).map(|dim_idx| head.numbers[place(dim_idx)].to_f32() * scale(dim_idx)).collect()
        };
        [
            read(self.keys(block, head_idx), &|dim_idx| dim_idx * BLOCK_TOKENS + within),
            read(self.values(block, head_idx), &|dim_idx| within * dim + dim_idx),
        ]
    }

    /// Returns how many bytes are in use.
    #[cfg(test)]
    pub(super) fn n_bytes(&self) -> usize {
        let bytes = |store: &Store<T>| size_of_val(&store.numbers[..]) + size_of_val(&store.scales[..]);
        bytes(&self.k) + bytes(&self.v)
    }
}

/// The keys or the values of one layer.
#[derive(Debug)]
struct Store<T> {
    // INVARIANT: of as many blocks as `scales`: `n_heads` times `n_numbers` and `n_scales` in each.
    numbers: Vec<T>,
    scales: Vec<f16>,
    n_heads: usize,
    n_numbers: usize,
    n_scales: usize,
}

impl<T: KvNumber> Store<T> {
    fn new(spec: &ModelSpec) -> Self {
        Self {
            numbers: Vec::new(),
            scales: Vec::new(),
            n_heads: spec.n_kv_heads,
            n_numbers: BLOCK_TOKENS * spec.head_dim,
            n_scales: BLOCK_TOKENS * n_scales::<T>(spec.head_dim),
        }
    }

    fn resize(&mut self, n_blocks: usize) {
        self.numbers.resize(n_blocks * self.n_heads * self.n_numbers, T::ZERO);
        self.scales.resize(n_blocks * self.n_heads * self.n_scales, f16::ZERO);
    }

    fn clear(&mut self, block: BlockId) {
        let (numbers, scales) = self.places(block);
        self.numbers[numbers].fill(T::ZERO);
        self.scales[scales].fill(f16::ZERO);
    }

    fn copy(&mut self, from: BlockId, to: BlockId) {
        let (numbers, scales) = self.places(from);
        let (to_numbers, to_scales) = self.places(to);
        self.numbers.copy_within(numbers, to_numbers.start);
        self.scales.copy_within(scales, to_scales.start);
    }

    /// Writes one head's `x: [head_dim] f32` for one position, each number where `place` says.
    fn write(
        &mut self,
        block: BlockId,
        head_idx: usize,
        within: usize,
        x: &[f32],
        place: impl Fn(usize) -> usize,
    ) {
        let (numbers, scales) = self.head_places(block, head_idx);
        let (numbers, scales) = (&mut self.numbers[numbers], &mut self.scales[scales]);
        let (mut group, mut encoded) = ([0.0; GROUP], [T::ZERO; GROUP]);
        for (group_idx, x) in x.chunks(GROUP).enumerate() {
            // The rest of a shorter group is 0, which changes no scale.
            group[x.len()..].fill(0.0);
            group[..x.len()].copy_from_slice(x);
            let scale = T::encode(&group, &mut encoded);
            for (dim_idx, number) in (group_idx * GROUP..).zip(&encoded[..x.len()]) {
                numbers[place(dim_idx)] = *number;
            }
            if T::IS_SCALED {
                scales[group_idx * BLOCK_TOKENS + within] = scale;
            }
        }
    }

    fn head(&self, block: BlockId, head_idx: usize) -> HeadBlock<'_, T> {
        let (numbers, scales) = self.head_places(block, head_idx);
        HeadBlock { numbers: &self.numbers[numbers], scales: self.scales[scales].as_chunks().0 }
    }

    /// Returns where a block's numbers and scales lie.
    fn places(&self, block: BlockId) -> (Range<usize>, Range<usize>) {
        let first = block.0 as usize * self.n_heads;
        let heads = first..first + self.n_heads;
        (
            heads.start * self.n_numbers..heads.end * self.n_numbers,
            heads.start * self.n_scales..heads.end * self.n_scales,
        )
    }

    /// Returns where those of one of its heads lie.
    fn head_places(&self, block: BlockId, head_idx: usize) -> (Range<usize>, Range<usize>) {
        let idx = block.0 as usize * self.n_heads + head_idx;
        (idx * self.n_numbers..(idx + 1) * self.n_numbers, idx * self.n_scales..(idx + 1) * self.n_scales)
    }
}

//! The keys and values of all layers, block after block.
//!
//! In: positions of a block, written one by one. Out: what attention reads of one head in a block.
//!
//! Keys lie `[head_dim, BLOCK_TOKENS]`, so that a query meets 16 of them at once, values `[BLOCK_TOKENS, head_dim]`.
//! The scales of both lie behind them, `[n_groups, BLOCK_TOKENS]`: 16 positions' sums of products with keys are
//! multiplied by them at once, and so are 16 positions' weights before they meet the values.
//!
//! A block of all layers lies in one piece, and many blocks in one mapping of huge pages: attention reads a few KiB of
//! each block, and in a page of 4 KiB each of them would have to be looked up.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;

use half::f16;

use super::number::{GROUP, KvNumber, head_block_bytes, n_scales};
use crate::mmap::Pages;
use crate::{BLOCK_TOKENS, BlockId, ModelSpec};

/// Bytes that are mapped at a time, or as many as a block has if these are more. The system gives them memory when they
/// are written.
const SEGMENT_BYTES: usize = 16 << 20;

/// What is stored of one head in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadBlock<'a, T> {
    /// Keys `[head_dim, BLOCK_TOKENS]` or values `[BLOCK_TOKENS, head_dim]`, without their scales.
    pub(crate) numbers: &'a [T],
    /// `[n_groups, BLOCK_TOKENS]` for a kind of number that has them.
    pub(crate) scales: &'a [[f16; BLOCK_TOKENS]],
}

/// Keys and values of all layers, of one kind of number.
#[derive(Debug)]
pub(crate) struct Blocks<T> {
    segments: Vec<Pages>,
    /// Blocks in each segment.
    n_per_segment: usize,
    n_blocks: usize,
    n_layers: usize,
    n_heads: usize,
    head_dim: usize,
    /// Bytes of one head's keys or values in a block, and where among them the scales begin and end.
    n_head_bytes: usize,
    scales: Range<usize>,
    number: PhantomData<T>,
}

impl<T: KvNumber> Blocks<T> {
    /// Returns no blocks.
    pub(super) fn new(spec: &ModelSpec) -> Self {
        let n_number_bytes = BLOCK_TOKENS * spec.head_dim * size_of::<T>();
        let n_scale_bytes = BLOCK_TOKENS * n_scales::<T>(spec.head_dim) * size_of::<f16>();
        let mut blocks = Self {
            segments: Vec::new(),
            n_per_segment: 0,
            n_blocks: 0,
            n_layers: spec.n_layers,
            n_heads: spec.n_kv_heads,
            head_dim: spec.head_dim,
            n_head_bytes: head_block_bytes::<T>(spec.head_dim),
            scales: n_number_bytes..n_number_bytes + n_scale_bytes,
            number: PhantomData,
        };
        blocks.n_per_segment = (SEGMENT_BYTES / blocks.n_block_bytes().max(1)).max(1);
        blocks
    }

    /// Adds a block; it is empty.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn push(&mut self) -> io::Result<()> {
        if self.n_blocks == self.segments.len() * self.n_per_segment {
            self.segments.push(Pages::new(self.n_per_segment * self.n_block_bytes())?);
        }
        self.n_blocks += 1;
        Ok(())
    }

    /// Makes a block as empty as a new one.
    pub(super) fn clear(&mut self, block: BlockId) {
        self.bytes_mut(block).fill(0);
    }

    /// Copies a block over another.
    pub(super) fn copy(&mut self, from: BlockId, to: BlockId) {
        let (segment, place) = self.place(from);
        let bytes = self.segments[segment][place].to_vec();
        self.bytes_mut(to).copy_from_slice(&bytes);
    }

    /// Writes what stands at one place of a block in one layer: `k, v: [n_kv_heads, head_dim] f32`.
    pub(super) fn write(&mut self, layer_idx: usize, block: BlockId, within: usize, k: &[f32], v: &[f32]) {
        let dim = self.head_dim;
        for (head_idx, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            let [keys, values] = self.head_places(layer_idx, head_idx);
            self.write_head(block, keys, within, k, |dim_idx| dim_idx * BLOCK_TOKENS + within);
            self.write_head(block, values, within, v, |dim_idx| within * dim + dim_idx);
        }
    }

    /// Returns one head's keys in a block.
    #[inline]
    pub(crate) fn keys(&self, layer_idx: usize, block: BlockId, head_idx: usize) -> HeadBlock<'_, T> {
        let [keys, _] = self.head_places(layer_idx, head_idx);
        self.head(block, keys)
    }

    /// Returns one head's values in a block.
    #[inline]
    pub(crate) fn values(&self, layer_idx: usize, block: BlockId, head_idx: usize) -> HeadBlock<'_, T> {
        let [_, values] = self.head_places(layer_idx, head_idx);
        self.head(block, values)
    }

    /// Returns one head's key and value at one place of a block: `[head_dim]` each, with their scales.
    #[cfg(test)]
    pub(super) fn read(
        &self,
        layer_idx: usize,
        block: BlockId,
        head_idx: usize,
        within: usize,
    ) -> [Vec<f32>; 2] {
        let dim = self.head_dim;
        let read = |head: HeadBlock<'_, T>, place: &dyn Fn(usize) -> usize| {
            let scale = |dim_idx: usize| {
                head.scales.get(dim_idx / GROUP).map_or(1.0, |scales| scales[within].to_f32())
            };
            (0..dim).map(|dim_idx| head.numbers[place(dim_idx)].to_f32() * scale(dim_idx)).collect()
        };
        [
            read(self.keys(layer_idx, block, head_idx), &|dim_idx| dim_idx * BLOCK_TOKENS + within),
            read(self.values(layer_idx, block, head_idx), &|dim_idx| within * dim + dim_idx),
        ]
    }

    /// Returns how many bytes its blocks are.
    #[cfg(test)]
    pub(super) fn n_bytes(&self) -> usize {
        self.n_blocks * self.n_block_bytes()
    }

    /// Writes one head's `x: [head_dim] f32` for one position, each number where `place` says.
    fn write_head(
        &mut self,
        block: BlockId,
        head: Range<usize>,
        within: usize,
        x: &[f32],
        place: impl Fn(usize) -> usize,
    ) {
        let all_scales = self.scales.clone();
        let bytes = &mut self.bytes_mut(block)[head];
        let (numbers, scales) = bytes[..all_scales.end].split_at_mut(all_scales.start);
        let numbers: &mut [T] = bytemuck::cast_slice_mut(numbers);
        let scales: &mut [f16] = bytemuck::cast_slice_mut(scales);
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

    #[inline]
    fn head(&self, block: BlockId, head: Range<usize>) -> HeadBlock<'_, T> {
        let (segment, place) = self.place(block);
        let bytes = &self.segments[segment][place][head];
        let (numbers, scales) = bytes[..self.scales.end].split_at(self.scales.start);
        let scales: &[f16] = bytemuck::cast_slice(scales);
        HeadBlock { numbers: bytemuck::cast_slice(numbers), scales: scales.as_chunks().0 }
    }

    fn bytes_mut(&mut self, block: BlockId) -> &mut [u8] {
        let (segment, place) = self.place(block);
        &mut self.segments[segment][place]
    }

    /// Returns a block's segment and where in it the block lies.
    fn place(&self, block: BlockId) -> (usize, Range<usize>) {
        let (segment, idx) = (block.0 as usize / self.n_per_segment, block.0 as usize % self.n_per_segment);
        let start = idx * self.n_block_bytes();
        (segment, start..start + self.n_block_bytes())
    }

    /// Returns where in a block one head's keys and its values lie: those of a layer together.
    fn head_places(&self, layer_idx: usize, head_idx: usize) -> [Range<usize>; 2] {
        [0, 1].map(|kind| {
            let start = ((layer_idx * 2 + kind) * self.n_heads + head_idx) * self.n_head_bytes;
            start..start + self.n_head_bytes
        })
    }

    fn n_block_bytes(&self) -> usize {
        self.n_layers * 2 * self.n_heads * self.n_head_bytes
    }
}

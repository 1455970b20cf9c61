//! The KV cache: a pool of blocks that sequences share.
//!
//! In: sequences that grow, shrink and fork. Out: block tables for a backend's attention.
//! Never: knows what the tokens mean.
//! Thread: the engine thread.
//!
//! A block holds the keys and values of 16 positions in every layer. Blocks have reference counts: a fork shares all
//! its blocks, and whoever writes into a shared block first takes a copy of it.

mod blocks;
mod number;

use half::f16;

pub(crate) use blocks::{Blocks, HeadBlock};
pub(crate) use number::{GROUP, KvNumber};
pub use number::{KvType, UnknownKvType};

use crate::{ModelSpec, TokenId};

/// Positions in a block. 16 as in vLLM's first paper (SOSP 2023): small enough that a fork wastes little.
pub const BLOCK_TOKENS: usize = 16;

/// Index of a block in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockId(pub(crate) u32);

/// Every block is in use by a sequence that is still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {n_blocks} blocks are in use")]
pub struct KvFull {
    /// Size of the pool.
    pub n_blocks: usize,
}

/// Tokens with a place in the KV cache.
#[derive(Debug, Default)]
pub struct Sequence {
    // INVARIANT: `blocks.len() * BLOCK_TOKENS >= tokens.len()`, and the pool counts one reference for each block here.
    tokens: Vec<TokenId>,
    blocks: Vec<BlockId>,
}

impl Sequence {
    /// Returns the tokens whose keys and values are in the cache.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Returns the block table.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Says that a step has written these tokens' keys and values.
    ///
    /// # Panics
    /// If they were not reserved.
    pub fn commit(&mut self, tokens: &[TokenId]) {
        self.tokens.extend_from_slice(tokens);
        assert!(self.tokens.len() <= self.blocks.len() * BLOCK_TOKENS, "tokens committed without a block");
    }
}

/// The keys and values of all layers, of either type.
#[derive(Debug)]
pub(crate) enum Layers {
    F16(Blocks<f16>),
    Q8_0(Blocks<i8>),
    /// In a device's memory; here are only the blocks it must copy before its next step, in order.
    #[cfg(any(feature = "cuda", feature = "metal", test))]
    OnDevice(Vec<(BlockId, BlockId)>),
}

/// Evaluates an expression that is generic over the type of numbers.
macro_rules! for_type {
    ($layers:expr, |$of_type:ident| $value:expr) => {
        match $layers {
            Layers::F16($of_type) => $value,
            Layers::Q8_0($of_type) => $value,
            #[cfg(any(feature = "cuda", feature = "metal", test))]
            Layers::OnDevice(_) => unreachable!("a device reads and writes its own memory"),
        }
    };
}

/// All blocks of one model's KV cache.
#[derive(Debug)]
pub struct KvPool {
    layers: Layers,
    n_references: Vec<u32>,
    free: Vec<BlockId>,
    n_max_blocks: usize,
}

impl KvPool {
    /// Returns a pool for `spec` that will hold at most `n_max_tokens` positions as `kv_type`; memory is taken as it is
    /// needed, [`KvType::n_bytes_per_token`] for each position of a block.
    pub fn new(spec: &ModelSpec, n_max_tokens: usize, kv_type: KvType) -> Self {
        let layers = match kv_type {
            KvType::F16 => Layers::F16(Blocks::new(spec)),
            KvType::Q8_0 => Layers::Q8_0(Blocks::new(spec)),
        };
        Self {
            layers,
            n_references: Vec::new(),
            free: Vec::new(),
            n_max_blocks: n_max_tokens.div_ceil(BLOCK_TOKENS),
        }
    }

    /// Returns a pool of at most `n_max_tokens` positions whose keys and values a device has.
    #[cfg(any(feature = "cuda", feature = "metal", test))]
    pub(crate) fn on_device(n_max_tokens: usize) -> Self {
        Self {
            layers: Layers::OnDevice(Vec::new()),
            n_references: Vec::new(),
            free: Vec::new(),
            n_max_blocks: n_max_tokens.div_ceil(BLOCK_TOKENS),
        }
    }

    /// Takes the copies of blocks that a device must make before its next step, in order.
    #[cfg(any(feature = "cuda", feature = "metal", test))]
    pub(crate) fn take_copies(&mut self) -> Vec<(BlockId, BlockId)> {
        match &mut self.layers {
            Layers::OnDevice(copies) => std::mem::take(copies),
            Layers::F16(_) | Layers::Q8_0(_) => Vec::new(),
        }
    }

    /// Gives all blocks up: no sequence may have any of them.
    pub(crate) fn clear(&mut self, spec: &ModelSpec) {
        let n_max_tokens = self.n_max_blocks * BLOCK_TOKENS;
        *self = match self.layers {
            #[cfg(any(feature = "cuda", feature = "metal", test))]
            Layers::OnDevice(_) => Self::on_device(n_max_tokens),
            Layers::F16(_) | Layers::Q8_0(_) => Self::new(spec, n_max_tokens, self.kv_type()),
        };
    }

    /// Returns how keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        match self.layers {
            Layers::F16(_) => KvType::F16,
            Layers::Q8_0(_) => KvType::Q8_0,
            #[cfg(any(feature = "cuda", feature = "metal", test))]
            Layers::OnDevice(_) => KvType::F16,
        }
    }

    /// Makes room in `sequence` for `n_more` positions after its last.
    ///
    /// # Errors
    /// [`KvFull`] when no block is left; the sequence keeps what it had.
    pub fn reserve(&mut self, sequence: &mut Sequence, n_more: usize) -> Result<(), KvFull> {
        let n_tokens = sequence.tokens.len();
        let n_within = n_tokens % BLOCK_TOKENS;
        let tail_idx = n_tokens / BLOCK_TOKENS;
        if n_within != 0 && n_more > 0 && self.n_references[sequence.blocks[tail_idx].0 as usize] > 1 {
            let copy = self.allocate()?;
            self.copy_block(sequence.blocks[tail_idx], copy);
            self.drop_reference(sequence.blocks[tail_idx]);
            sequence.blocks[tail_idx] = copy;
        }
        while sequence.blocks.len() * BLOCK_TOKENS < n_tokens + n_more {
            let block = self.allocate()?;
            sequence.blocks.push(block);
        }
        Ok(())
    }

    /// Returns a sequence that shares the first `n_tokens` positions of `sequence`.
    ///
    /// # Panics
    /// If `sequence` is shorter.
    pub fn fork(&mut self, sequence: &Sequence, n_tokens: usize) -> Sequence {
        let tokens = sequence.tokens[..n_tokens].to_vec();
        let blocks = sequence.blocks[..n_tokens.div_ceil(BLOCK_TOKENS)].to_vec();
        for block in &blocks {
            self.n_references[block.0 as usize] += 1;
        }
        Sequence { tokens, blocks }
    }

    /// Drops the positions from `n_tokens` on.
    pub fn truncate(&mut self, sequence: &mut Sequence, n_tokens: usize) {
        sequence.tokens.truncate(n_tokens);
        let n_blocks = sequence.tokens.len().div_ceil(BLOCK_TOKENS);
        for block in sequence.blocks.drain(n_blocks..) {
            self.n_references[block.0 as usize] -= 1;
            if self.n_references[block.0 as usize] == 0 {
                self.free.push(block);
            }
        }
    }

    /// Gives back all of a sequence's blocks.
    pub fn release(&mut self, mut sequence: Sequence) {
        self.truncate(&mut sequence, 0);
    }

    /// Returns how many blocks some sequence holds.
    pub fn n_used_blocks(&self) -> usize {
        self.n_references.len() - self.free.len()
    }

    /// Returns how many blocks there may be.
    pub(crate) fn n_max_blocks(&self) -> usize {
        self.n_max_blocks
    }

    /// Returns how many blocks some of these sequences hold; one that several share counts once.
    pub(crate) fn n_blocks_of<'s>(&self, sequences: impl Iterator<Item = &'s Sequence>) -> usize {
        let mut is_held = vec![false; self.n_references.len()];
        sequences.flat_map(|sequence| &sequence.blocks).for_each(|block| is_held[block.0 as usize] = true);
        is_held.into_iter().filter(|is_held| *is_held).count()
    }

    /// Writes one position's keys and values in one layer: `[n_kv_heads, head_dim] f32` each, as the pool's type has
    /// them. Whoever reads them in the same step gets what is stored, as any later step does.
    pub(crate) fn write(
        &mut self,
        layer_idx: usize,
        blocks: &[BlockId],
        position: usize,
        k: &[f32],
        v: &[f32],
    ) {
        let (block, within) = (blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        for_type!(&mut self.layers, |layers| layers.write(layer_idx, block, within, k, v));
    }

    /// Returns the keys and values of all layers.
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    fn allocate(&mut self) -> Result<BlockId, KvFull> {
        if let Some(block) = self.free.pop() {
            self.n_references[block.0 as usize] = 1;
            // Positions that nobody has written yet are multiplied with 0, which infinity outlives. A device leaves them out.
            if !self.is_on_device() {
                for_type!(&mut self.layers, |layers| layers.clear(block));
            }
            return Ok(block);
        }
        if self.n_references.len() >= self.n_max_blocks {
            return Err(KvFull { n_blocks: self.n_max_blocks });
        }
        if !self.is_on_device() && for_type!(&mut self.layers, |layers| layers.push()).is_err() {
            return Err(KvFull { n_blocks: self.n_references.len() });
        }
        self.n_references.push(1);
        Ok(BlockId(self.n_references.len() as u32 - 1))
    }

    fn drop_reference(&mut self, block: BlockId) {
        self.n_references[block.0 as usize] -= 1;
    }

    fn is_on_device(&self) -> bool {
        #[cfg(any(feature = "cuda", feature = "metal", test))]
        let is_on_device = matches!(self.layers, Layers::OnDevice(_));
        #[cfg(not(any(feature = "cuda", feature = "metal", test)))]
        let is_on_device = false;
        is_on_device
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        #[cfg(any(feature = "cuda", feature = "metal", test))]
        if let Layers::OnDevice(copies) = &mut self.layers {
            return copies.push((from, to));
        }
        for_type!(&mut self.layers, |layers| layers.copy(from, to));
    }
}

/// Returns how many tokens two sequences begin with alike.
pub(crate) fn n_common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
impl KvPool {
    /// Returns one head's key and value at one position of a layer: `[head_dim] f32` each.
    pub(crate) fn read(
        &self,
        layer_idx: usize,
        blocks: &[BlockId],
        position: usize,
        head_idx: usize,
    ) -> [Vec<f32>; 2] {
        let (block, within) = (blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        for_type!(&self.layers, |layers| layers.read(layer_idx, block, head_idx, within))
    }

    fn n_bytes(&self) -> usize {
        for_type!(&self.layers, |layers| layers.n_bytes())
    }
}

#[cfg(test)]
mod tests;

//! The KV cache: a pool of blocks that sequences share.
//!
//! In: sequences that grow, shrink and fork. Out: block tables for a backend's attention.
//! Never: knows what the tokens mean.
//! Thread: the engine thread.
//!
//! A block holds the keys and values of 16 positions in every layer. Blocks have reference counts: a fork shares all
//! its blocks, and whoever writes into a shared block first takes a copy of it.

use half::f16;

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

/// Keys and values of one layer, block after block, in f16: keys `[n_blocks, n_kv_heads, head_dim, BLOCK_TOKENS]`, so
/// that a query meets 16 of them at once; values `[n_blocks, n_kv_heads, BLOCK_TOKENS, head_dim]`.
#[derive(Debug, Default)]
struct LayerKv {
    k: Vec<f16>,
    v: Vec<f16>,
}

/// All blocks of one model's KV cache.
#[derive(Debug)]
pub struct KvPool {
    layers: Vec<LayerKv>,
    n_references: Vec<u32>,
    free: Vec<BlockId>,
    n_max_blocks: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

impl KvPool {
    /// Returns a pool for `spec` that will hold at most `n_max_tokens` positions; memory is taken as it is needed.
    pub fn new(spec: &ModelSpec, n_max_tokens: usize) -> Self {
        Self {
            layers: (0..spec.n_layers).map(|_| LayerKv::default()).collect(),
            n_references: Vec::new(),
            free: Vec::new(),
            n_max_blocks: n_max_tokens.div_ceil(BLOCK_TOKENS),
            n_kv_heads: spec.n_kv_heads,
            head_dim: spec.head_dim,
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

    /// Writes one position's keys and values in one layer: `[n_kv_heads, head_dim] f32` each, rounded to f16.
    pub(crate) fn write(
        &mut self,
        layer_idx: usize,
        blocks: &[BlockId],
        position: usize,
        k: &[f32],
        v: &[f32],
    ) {
        let (block, within) = (blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        for head_idx in 0..self.n_kv_heads {
            let from = head_idx * self.head_dim;
            let to = self.offset(block, head_idx);
            let layer = &mut self.layers[layer_idx];
            let places = layer.k[to + within..].iter_mut().step_by(BLOCK_TOKENS);
            for (place, k) in places.zip(&k[from..from + self.head_dim]) {
                *place = rounded(*k);
            }
            let to = to + within * self.head_dim;
            let places = layer.v[to..to + self.head_dim].iter_mut();
            for (place, v) in places.zip(&v[from..from + self.head_dim]) {
                *place = rounded(*v);
            }
        }
    }

    /// Returns one head's keys in a block: `[head_dim, BLOCK_TOKENS]`.
    pub(crate) fn keys(&self, layer_idx: usize, block: BlockId, head_idx: usize) -> &[f16] {
        &self.layers[layer_idx].k[self.offset(block, head_idx)..][..BLOCK_TOKENS * self.head_dim]
    }

    /// Returns one head's values in a block: `[BLOCK_TOKENS, head_dim]`.
    pub(crate) fn values(&self, layer_idx: usize, block: BlockId, head_idx: usize) -> &[f16] {
        &self.layers[layer_idx].v[self.offset(block, head_idx)..][..BLOCK_TOKENS * self.head_dim]
    }

    fn offset(&self, block: BlockId, head_idx: usize) -> usize {
        (block.0 as usize * self.n_kv_heads + head_idx) * BLOCK_TOKENS * self.head_dim
    }

    fn allocate(&mut self) -> Result<BlockId, KvFull> {
        if let Some(block) = self.free.pop() {
            self.n_references[block.0 as usize] = 1;
            // Positions that nobody has written yet are multiplied with 0, which infinity outlives.
            let values = self.offset(block, 0)..self.offset(BlockId(block.0 + 1), 0);
            for layer in &mut self.layers {
                layer.k[values.clone()].fill(f16::ZERO);
                layer.v[values.clone()].fill(f16::ZERO);
            }
            return Ok(block);
        }
        if self.n_references.len() >= self.n_max_blocks {
            return Err(KvFull { n_blocks: self.n_max_blocks });
        }
        self.n_references.push(1);
        let n_values = self.n_references.len() * self.n_kv_heads * BLOCK_TOKENS * self.head_dim;
        for layer in &mut self.layers {
            layer.k.resize(n_values, f16::ZERO);
            layer.v.resize(n_values, f16::ZERO);
        }
        Ok(BlockId(self.n_references.len() as u32 - 1))
    }

    fn drop_reference(&mut self, block: BlockId) {
        self.n_references[block.0 as usize] -= 1;
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let n_values = self.n_kv_heads * BLOCK_TOKENS * self.head_dim;
        let (from, to) = (self.offset(from, 0), self.offset(to, 0));
        for layer in &mut self.layers {
            layer.k.copy_within(from..from + n_values, to);
            layer.v.copy_within(from..from + n_values, to);
        }
    }
}

/// Rounds to f16; what is too large for it becomes its largest, and not infinity.
fn rounded(x: f32) -> f16 {
    f16::from_f32(x.clamp(-f16::MAX.to_f32_const(), f16::MAX.to_f32_const()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ModelSpec {
        ModelSpec { n_layers: 2, n_kv_heads: 2, head_dim: 4, ..ModelSpec::default() }
    }

    fn append(pool: &mut KvPool, sequence: &mut Sequence, ids: &[u32]) {
        pool.reserve(sequence, ids.len()).expect("the pool is large enough");
        for (i, &id) in ids.iter().enumerate() {
            let position = sequence.tokens().len() + i;
            for layer_idx in 0..2 {
                let value = [id as f32; 8];
                pool.write(layer_idx, &sequence.blocks, position, &value, &value);
            }
        }
        sequence.commit(&ids.iter().copied().map(TokenId).collect::<Vec<_>>());
    }

    /// Reads back through the pool what `append` wrote.
    fn contents(pool: &KvPool, sequence: &Sequence) -> Vec<u32> {
        let read = |position: usize| {
            let (block, within) = (sequence.blocks()[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
            let value = &pool.values(1, block, 1)[within * 4..][..4];
            let key: Vec<f16> =
                pool.keys(1, block, 1).iter().skip(within).step_by(BLOCK_TOKENS).copied().collect();
            assert_eq!(key, value);
            value[0].to_f32() as u32
        };
        (0..sequence.tokens().len()).map(read).collect()
    }

    #[test]
    fn a_fork_shares_blocks_until_one_side_writes() {
        let mut pool = KvPool::new(&spec(), 1024);
        let mut first = Sequence::default();
        append(&mut pool, &mut first, &(0..20).collect::<Vec<_>>());
        let mut second = pool.fork(&first, 18);
        assert_eq!(pool.n_used_blocks(), 2);
        append(&mut pool, &mut second, &[100, 101]);
        append(&mut pool, &mut first, &[20]);
        assert_eq!(pool.n_used_blocks(), 3);
        assert_eq!(contents(&pool, &first), (0..21).collect::<Vec<_>>());
        assert_eq!(contents(&pool, &second), (0..18).chain([100, 101]).collect::<Vec<_>>());
    }

    #[test]
    fn truncate_gives_blocks_back_and_the_sequence_can_grow_again() {
        let mut pool = KvPool::new(&spec(), 48);
        let mut sequence = Sequence::default();
        append(&mut pool, &mut sequence, &(0..48).collect::<Vec<_>>());
        assert_eq!(pool.reserve(&mut sequence, 1), Err(KvFull { n_blocks: 3 }));
        pool.truncate(&mut sequence, 5);
        assert_eq!(pool.n_used_blocks(), 1);
        append(&mut pool, &mut sequence, &[77; 30]);
        assert_eq!(contents(&pool, &sequence), (0..5).chain([77; 30]).collect::<Vec<_>>());
        pool.release(sequence);
        assert_eq!(pool.n_used_blocks(), 0);
    }

    #[test]
    fn a_block_used_again_is_empty_and_no_value_is_infinite() {
        let mut pool = KvPool::new(&spec(), 16);
        let mut first = Sequence::default();
        pool.reserve(&mut first, 2).expect("the pool is large enough");
        for position in 0..2 {
            pool.write(0, first.blocks(), position, &[1e9; 8], &[[-1e9, f32::NAN][position]; 8]);
        }
        assert_eq!(pool.values(0, first.blocks()[0], 0)[..4], [-f16::MAX; 4]);
        pool.release(first);
        let mut second = Sequence::default();
        pool.reserve(&mut second, 1).expect("the pool is large enough");
        assert!(pool.values(0, second.blocks()[0], 1).iter().all(|value| *value == f16::ZERO));
        assert!(pool.keys(0, second.blocks()[0], 1).iter().all(|value| *value == f16::ZERO));
    }

    #[test]
    fn a_truncated_fork_never_writes_into_the_original() {
        let mut pool = KvPool::new(&spec(), 1024);
        let mut first = Sequence::default();
        append(&mut pool, &mut first, &(0..32).collect::<Vec<_>>());
        let mut second = pool.fork(&first, 32);
        pool.truncate(&mut second, 7);
        append(&mut pool, &mut second, &[9; 20]);
        assert_eq!(contents(&pool, &first), (0..32).collect::<Vec<_>>());
    }
}

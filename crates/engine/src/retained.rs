//! Sequences kept after their request ended, so that the next request starts where they agree with it.
//!
//! In: finished and cancelled sequences. Out: for a prompt, a sequence that holds its longest known beginning.
//! Thread: the engine thread.

use std::collections::VecDeque;

use crate::kv::n_common;
use crate::{KvFull, KvPool, Sequence, TokenId};

/// Most sequences kept. One per open document and agent place is plenty; blocks they share cost nothing.
const N_MAX_RETAINED: usize = 64;

/// The kept sequences, least recently used first.
#[derive(Debug, Default)]
pub(crate) struct Retained(VecDeque<Sequence>);

impl Retained {
    /// Returns how many tokens of `prompt` are kept.
    pub(crate) fn n_known(&self, prompt: &[TokenId]) -> usize {
        self.0.iter().map(|sequence| n_common(sequence.tokens(), prompt)).max().unwrap_or(0)
    }

    /// Returns how many blocks the kept sequences hold.
    pub(crate) fn n_blocks(&self, kv: &KvPool) -> usize {
        kv.n_blocks_of(self.0.iter())
    }

    /// Returns a sequence with the longest kept beginning of `prompt`, at most `n_max` tokens of it.
    pub(crate) fn begin(&mut self, kv: &mut KvPool, prompt: &[TokenId], n_max: usize) -> Sequence {
        let shared = |sequence: &Sequence| n_common(sequence.tokens(), prompt).min(n_max);
        let Some(best_idx) = (0..self.0.len()).max_by_key(|&idx| (shared(&self.0[idx]), idx)) else {
            return Sequence::default();
        };
        let n_shared = shared(&self.0[best_idx]);
        let Some(best) = self.0.remove(best_idx) else {
            return Sequence::default();
        };
        let fork = kv.fork(&best, n_shared);
        if n_shared > 0 {
            self.0.push_back(best);
        } else {
            self.0.insert(best_idx, best);
        }
        fork
    }

    /// Keeps a sequence whose request has ended.
    pub(crate) fn keep(&mut self, kv: &mut KvPool, sequence: Sequence) {
        // A kept sequence that is the beginning of this one adds nothing to it.
        while let Some(idx) = self.0.iter().position(|old| sequence.tokens().starts_with(old.tokens())) {
            self.drop_at(kv, idx);
        }
        self.0.push_back(sequence);
        if self.0.len() > N_MAX_RETAINED {
            self.drop_at(kv, 0);
        }
    }

    /// Reserves room for a running sequence, dropping kept ones, oldest first, while the pool is full.
    pub(crate) fn reserve(
        &mut self,
        kv: &mut KvPool,
        sequence: &mut Sequence,
        n_more: usize,
    ) -> Result<(), KvFull> {
        loop {
            match kv.reserve(sequence, n_more) {
                Err(full) if self.0.is_empty() => return Err(full),
                Err(_) => self.drop_at(kv, 0),
                Ok(()) => return Ok(()),
            }
        }
    }

    fn drop_at(&mut self, kv: &mut KvPool, idx: usize) {
        if let Some(sequence) = self.0.remove(idx) {
            kv.release(sequence);
        }
    }
}

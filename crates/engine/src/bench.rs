//! How fast a model runs on this machine: one backend, no scheduler, so that nothing else is measured.
//!
//! In: a model file, how many tokens and at which depth. Out: durations, one for each run; the caller takes medians.
//! Never: loads anything but the model; asserts a time.
//! Thread: the caller's, and the threads a step borrows.

use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{
    Backend, CpuBackend, Error, Gguf, KvPool, Logits, ModelSpec, RowSpan, Sequence, StepBatch, StepControl,
    TokenId,
};

/// Most rows of a prefill step, llama.cpp's default `n_ubatch`.
const N_MAX_ROWS: usize = 512;

/// A model loaded to be measured.
pub struct Bench {
    backend: CpuBackend,
    kv: KvPool,
    spec: ModelSpec,
    sequence: Sequence,
    logits: Logits,
}

impl Bench {
    /// Loads a model with room for `n_max_tokens` positions, run by `n_threads` threads or one for each core.
    ///
    /// # Errors
    /// As [`Engine::load`](crate::Engine::load).
    pub fn load(path: &Path, n_max_tokens: usize, n_threads: Option<NonZero<usize>>) -> Result<Self, Error> {
        let gguf = Gguf::open(path).map_err(|source| Error::opening(path, source))?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        let backend = CpuBackend::load(&gguf, &spec, n_threads, &mut |_| {})?;
        // One position more for each block that is only begun.
        let kv = KvPool::new(&spec, n_max_tokens + crate::BLOCK_TOKENS);
        Ok(Self { backend, kv, spec, sequence: Sequence::default(), logits: Logits::default() })
    }

    /// Times the prefill of `n_tokens` tokens behind `depth` others, with logits for the last one.
    ///
    /// # Errors
    /// Those of a step; [`Error::KvFull`] if there is no room for as many.
    pub fn prefill(&mut self, n_tokens: usize, depth: usize) -> Result<Duration, Error> {
        self.go_to(depth)?;
        let started = Instant::now();
        let mut n_left = n_tokens;
        while n_left > 0 {
            let n_rows = n_left.min(N_MAX_ROWS);
            n_left -= n_rows;
            self.step(n_rows, usize::from(n_left == 0))?;
        }
        Ok(started.elapsed())
    }

    /// Times `n_tokens` steps of one token each behind `depth` tokens.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn decode(&mut self, n_tokens: usize, depth: usize) -> Result<Duration, Error> {
        self.go_to(depth)?;
        let started = Instant::now();
        for _ in 0..n_tokens {
            self.step(1, 1)?;
        }
        Ok(started.elapsed())
    }

    /// Times one step of `n_rows` rows behind `depth` tokens with logits for all of them, as when a draft is verified.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn verify(&mut self, n_rows: usize, depth: usize) -> Result<Duration, Error> {
        self.go_to(depth)?;
        let started = Instant::now();
        self.step(n_rows, n_rows)?;
        Ok(started.elapsed())
    }

    /// Times one reading of all weights, which no step can be quicker than; also returns how many bytes they are.
    pub fn read_weights(&self) -> (Duration, usize) {
        let started = Instant::now();
        let n_bytes = self.backend.read_weights();
        (started.elapsed(), n_bytes)
    }

    /// Makes the sequence `depth` tokens long.
    fn go_to(&mut self, depth: usize) -> Result<(), Error> {
        let n_kept = depth.min(self.sequence.tokens().len());
        self.kv.truncate(&mut self.sequence, n_kept);
        while self.sequence.tokens().len() < depth {
            self.step((depth - self.sequence.tokens().len()).min(N_MAX_ROWS), 0)?;
        }
        Ok(())
    }

    fn step(&mut self, n_rows: usize, n_logits: usize) -> Result<(), Error> {
        let start = self.sequence.tokens().len();
        // Any tokens do; these are spread over the vocabulary, and the same each time.
        let token = |position: usize| TokenId((position as u64 * 7919 % self.spec.n_vocab as u64) as u32);
        let tokens: Vec<TokenId> = (start..start + n_rows).map(token).collect();
        self.kv.reserve(&mut self.sequence, n_rows)?;
        let wanted: Vec<usize> = (n_rows - n_logits..n_rows).collect();
        let span = RowSpan { blocks: self.sequence.blocks(), start, n_tokens: n_rows };
        let batch = StepBatch { tokens: &tokens, spans: &[span], logits: &wanted };
        let control = StepControl { should_stop: &|| false };
        self.backend.forward(&batch, &mut self.kv, &mut self.logits, &control)?;
        self.sequence.commit(&tokens);
        Ok(())
    }
}

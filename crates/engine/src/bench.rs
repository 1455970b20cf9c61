//! How fast a model runs on this machine: one backend, no scheduler, so that nothing else is measured.
//!
//! In: a model file, how many tokens and at which depth. Out: durations, one for each run; the caller takes medians.
//! Never: loads anything but the model; asserts a time.
//! Thread: the caller's, and the threads a step borrows.

#[cfg(feature = "cuda")]
mod gpu;

use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
pub use gpu::{Agreement, Bits};

use crate::device::{self, Place};
use crate::{
    CpuBackend, Device, DraftExtent, Drafter as _, EditDrafter, Error, Gguf, KvPool, KvType, Logits,
    MatchOdds, ModelSpec, RowSpan, Sequence, StepBatch, StepControl, StepCosts, TokenId,
};

/// Most rows of a prefill step, llama.cpp's default `n_ubatch`.
const N_MAX_ROWS: usize = 512;

/// A model loaded to be measured.
pub struct Bench {
    place: Place,
    kv: KvPool,
    spec: ModelSpec,
    sequence: Sequence,
    logits: Logits,
    costs: StepCosts,
}

impl Bench {
    /// Loads a model with room for `n_max_tokens` positions, whose keys and values are stored as `kv_type`, run by
    /// `n_threads` threads or one for each core; or by a GPU, if `device` says so.
    ///
    /// # Errors
    /// As [`Engine::load`](crate::Engine::load), and [`Error::NoGpu`] where `device` asks for one in vain.
    pub fn load(
        path: &Path,
        n_max_tokens: usize,
        n_threads: Option<NonZero<usize>>,
        kv_type: KvType,
        device: Device,
    ) -> Result<Self, Error> {
        let gguf = Gguf::open(path).map_err(|source| Error::opening(path, source))?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        // One position more for each block that is only begun.
        let n_kv_tokens = n_max_tokens + crate::BLOCK_TOKENS;
        let (place, kv) = if matches!(device, Device::Cuda | Device::Metal) {
            let placed = device::load_on_gpu(&gguf, &spec, (kv_type, n_kv_tokens), device, &mut |_| {})?;
            (placed.place, placed.kv)
        } else {
            let backend = CpuBackend::load(&gguf, &spec, n_threads, &mut |_| {})?;
            (Place::Cpu(Box::new(backend)), KvPool::new(&spec, n_kv_tokens, kv_type))
        };
        Ok(Self::new(place, kv, spec))
    }

    fn new(place: Place, kv: KvPool, spec: ModelSpec) -> Self {
        Self {
            place,
            kv,
            spec,
            sequence: Sequence::default(),
            logits: Logits::default(),
            costs: StepCosts::default(),
        }
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

    /// Times one reading of all weights by the CPU, which no step of its can be quicker than, unless experts are left out.
    pub fn read_weights(&self) -> Option<Duration> {
        let started = Instant::now();
        self.place.cpu()?.read_weights();
        Some(started.elapsed())
    }

    /// Returns how many bytes the weights take.
    pub fn n_weight_bytes(&self) -> usize {
        self.place.n_weight_bytes()
    }

    /// Times the decoding of `target` behind `original`, which it rewrites: whatever the model would rather say, the
    /// target's tokens are chosen, so that every run does the same.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn rewrite(
        &mut self,
        original: &[TokenId],
        target: &[TokenId],
        extent: DraftExtent,
    ) -> Result<Duration, Error> {
        self.kv.truncate(&mut self.sequence, 0);
        for chunk in original.chunks(N_MAX_ROWS) {
            self.run(chunk, 1)?;
        }
        let mut drafter = EditDrafter::new(original.to_vec(), original.len(), MatchOdds::default());
        let mut tokens = original.to_vec();
        let started = Instant::now();
        let mut n_done = 0;
        while n_done < target.len() {
            tokens.push(target[n_done]);
            n_done += 1;
            let mut rows = vec![target[n_done - 1]];
            if extent != DraftExtent::Off {
                drafter.sync(&tokens);
                let mut draft = drafter.propose(StepCosts::N_MAX_DRAFT.min(target.len() - n_done));
                if extent == DraftExtent::WhatPays {
                    draft.truncate(self.costs.n_to_draft(&draft.odds));
                }
                rows.extend(draft.tokens);
            }
            let step = Instant::now();
            self.run(&rows, rows.len())?;
            self.costs.observe(rows.len(), step.elapsed());
            let n_kept =
                rows[1..].iter().zip(&target[n_done..]).take_while(|(row, token)| row == token).count();
            drafter.observe(rows.len() - 1, n_kept);
            tokens.extend_from_slice(&target[n_done..n_done + n_kept]);
            n_done += n_kept;
            let n_kept = self.sequence.tokens().len() - (rows.len() - 1 - n_kept);
            self.kv.truncate(&mut self.sequence, n_kept);
        }
        Ok(started.elapsed())
    }

    /// Returns how keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv.kv_type()
    }

    /// Returns how many bytes of the KV cache a token takes.
    pub fn kv_bytes_per_token(&self) -> usize {
        self.kv_type().n_bytes_per_token(&self.spec)
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
        self.run(&tokens, n_logits)
    }

    /// Runs a step over `tokens` with logits for the last `n_logits` of them.
    fn run(&mut self, tokens: &[TokenId], n_logits: usize) -> Result<(), Error> {
        let (start, n_rows) = (self.sequence.tokens().len(), tokens.len());
        self.kv.reserve(&mut self.sequence, n_rows)?;
        let wanted: Vec<usize> = (n_rows - n_logits..n_rows).collect();
        let span = RowSpan { blocks: self.sequence.blocks(), start, n_tokens: n_rows };
        let batch = StepBatch { tokens, spans: &[span], logits: &wanted };
        let control = StepControl { should_stop: &|| false };
        self.place.backend_mut().forward(&batch, &mut self.kv, &mut self.logits, &control)?;
        self.sequence.commit(tokens);
        Ok(())
    }
}

//! The CPU backend: one generic decoder over raw slices.
//!
//! In: token ids and block tables. Out: logits. Never: allocates rows of numbers beyond its scratch.
//! Thread: the engine thread, plus the threads of its pool.
//!
//! Matrices are multiplied by [`kernel`](crate::kernel) where it knows their format and by candle's quantised path,
//! which reads all weights once per row, where not (Q2_K and Q3_K).

mod mixture;

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use super::weights::{FeedForward, Layer, Mixture, SwiGlu, Weights, multiply};
use super::{attention, float};
use crate::kernel::{Activations, Buffer, GroupMut, N_GROUPED, Pool};
use crate::{Backend, Error, Gguf, KvPool, Logits, ModelSpec, StepBatch, StepControl, StepEnd};

/// Rows that pass through a feed-forward together: what lies between its matrices stays in the cores' caches.
const N_TOGETHER: usize = 128;

/// Runs a model on the CPU.
pub struct CpuBackend {
    spec: ModelSpec,
    weights: Weights,
    // Radians per position of each rotated pair: `[rope.n_dims / 2]`.
    rope_steps: Vec<f64>,
    scratch: Scratch,
    pool: Arc<Pool>,
}

/// Buffers of one step, `[n_rows, width] f32` each.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    normed: Activations,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Activations,
    gate: Buffer,
    up: Buffer,
    gated: Activations,
    mixture: mixture::Scratch,
    /// What the last branch adds to `x`.
    branch: Buffer,
    rotation: Vec<(f32, f32)>,
}

impl CpuBackend {
    /// Loads a model's weights, to be run by `n_threads` threads or one for each core; `progress` hears the share done,
    /// 0 to 1.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] for a tensor that is missing or misshapen, [`Error::Unsupported`] for one that this
    /// decoder would ignore, [`Error::Io`] when there is no memory or no thread.
    pub fn load(
        gguf: &Gguf,
        spec: &ModelSpec,
        n_threads: Option<NonZero<usize>>,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, Error> {
        let n_threads = n_threads.or(std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let pool =
            Pool::new(n_threads).map_err(|source| Error::Io { path: gguf.path().to_owned(), source })?;
        Self::load_on(Arc::new(pool), gguf, spec, progress)
    }

    /// Loads a model that is run by the threads of `other`, which do not look for work of two pools at once.
    ///
    /// # Errors
    /// As [`CpuBackend::load`].
    pub(crate) fn load_beside(
        other: &Self,
        gguf: &Gguf,
        spec: &ModelSpec,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, Error> {
        Self::load_on(Arc::clone(&other.pool), gguf, spec, progress)
    }

    fn load_on(
        pool: Arc<Pool>,
        gguf: &Gguf,
        spec: &ModelSpec,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, Error> {
        let weights = Weights::load(gguf, spec, &pool, progress)?;
        let rope_steps = float::rope_steps(spec, &weights.rope_factors);
        Ok(Self { spec: spec.clone(), weights, rope_steps, scratch: Scratch::default(), pool })
    }

    /// Returns how many bytes the weights take.
    pub(crate) fn n_weight_bytes(&self) -> usize {
        self.weights.n_bytes()
    }

    /// Reads all repacked weights once, as a decoding step must, but for experts; returns how many bytes they are.
    pub(crate) fn read_weights(&self) -> usize {
        self.weights.read(&self.pool)
    }
}

impl Backend for CpuBackend {
    fn forward(
        &mut self,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
        logits: &mut Logits,
        control: &StepControl<'_>,
    ) -> Result<StepEnd, Error> {
        let ids: Vec<u32> = batch.tokens.iter().map(|token| token.0).collect();
        if let Some(&unknown) = ids.iter().find(|&&id| id as usize >= self.spec.n_vocab) {
            return Err(Error::UnknownToken(unknown));
        }
        self.scratch.x = self.weights.token_embd.rows(&ids)?;
        self.scratch.resize(&self.spec, batch.tokens.len());
        self.scratch.rotation = rotation(&self.rope_steps, self.spec.rope.magnitude(), batch);

        for (layer_idx, layer) in self.weights.layers.iter().enumerate() {
            if (control.should_stop)() {
                return Ok(StepEnd::Stopped);
            }
            self.scratch.attention(&self.pool, &self.spec, layer, layer_idx, batch, kv)?;
            match &layer.feed_forward {
                FeedForward::Dense(branch) => {
                    self.scratch.feed_forward(&self.pool, &self.spec, layer, branch)?
                }
                FeedForward::Mixture(mixture) => {
                    self.scratch.mixture(&self.pool, &self.spec, layer, mixture)?;
                }
            }
        }

        let width = self.spec.n_embd;
        let Scratch { x, branch, normed, .. } = &mut self.scratch;
        normed.resize(batch.logits.len(), width);
        for (row_idxs, group) in batch.logits.chunks(N_GROUPED).zip(normed.groups_mut()) {
            for (row_idx, normed) in row_idxs.iter().zip(group.x.chunks_exact_mut(width)) {
                let at = row_idx * width..(row_idx + 1) * width;
                float::add(&mut x[at.clone()], &branch[at.clone()]);
                float::rms_norm(&x[at], &self.weights.output_norm, self.spec.norm_eps, normed);
            }
            group.quantise();
        }
        let out = logits.reset(batch.logits.len(), self.spec.n_vocab);
        if !batch.logits.is_empty() {
            multiply(&self.pool, &mut [(self.weights.head(), &*normed, out)])?;
        }
        Ok(StepEnd::Done)
    }
}

impl Scratch {
    fn resize(&mut self, spec: &ModelSpec, n_rows: usize) {
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        self.branch.resize(n_rows * spec.n_embd);
        self.branch.fill(0.0);
        self.q.resize(n_rows * n_q);
        self.attended.resize(n_rows, n_q);
        self.k.resize(n_rows * n_kv);
        self.v.resize(n_rows * n_kv);
    }

    /// Makes room for `n_rows` rows within a feed-forward.
    fn resize_feed_forward(&mut self, spec: &ModelSpec, n_rows: usize) {
        self.normed.resize(n_rows, spec.n_embd);
        self.gate.resize(n_rows * spec.n_ff);
        self.up.resize(n_rows * spec.n_ff);
        self.gated.resize(n_rows, spec.n_ff);
    }

    /// Adds the last branch to some rows of `x`, and normalises these for the next one.
    fn norm(&mut self, pool: &Pool, spec: &ModelSpec, weight: &[f32], rows: Range<usize>) {
        let width = spec.n_embd;
        let values = rows.start * width..rows.end * width;
        let x = self.x[values.clone()].chunks_mut(N_GROUPED * width);
        let groups = x.zip(self.branch[values].chunks(N_GROUPED * width));
        pool.for_each(groups.zip(self.normed.groups_mut()), |((x, branch), normed)| {
            float::add(x, branch);
            for (x, normed) in x.chunks_exact(width).zip(normed.x.chunks_exact_mut(width)) {
                float::rms_norm(x, weight, spec.norm_eps, normed);
            }
            normed.quantise();
        });
    }

    /// Computes the attention branch of one layer, writing the layer's keys and values.
    fn attention(
        &mut self,
        pool: &Pool,
        spec: &ModelSpec,
        layer: &Layer,
        layer_idx: usize,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
    ) -> Result<(), Error> {
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let n_rows = self.x.len() / spec.n_embd;
        self.normed.resize(n_rows, spec.n_embd);
        self.norm(pool, spec, &layer.attn_norm, 0..n_rows);
        let qkv = &mut [
            (&layer.q, &self.normed, &mut self.q[..]),
            (&layer.k, &self.normed, &mut self.k[..]),
            (&layer.v, &self.normed, &mut self.v[..]),
        ];
        multiply(pool, qkv)?;
        let n_pairs = spec.rope.n_dims / 2;
        let groups = self.q.chunks_mut(N_GROUPED * n_q).zip(self.k.chunks_mut(N_GROUPED * n_kv));
        let groups = groups.zip(self.v.chunks_mut(N_GROUPED * n_kv));
        pool.for_each(groups.zip(self.rotation.chunks(N_GROUPED * n_pairs)), |(((q, k), v), angles)| {
            let rows = q.chunks_exact_mut(n_q).zip(k.chunks_exact_mut(n_kv)).zip(v.chunks_exact_mut(n_kv));
            for (((q, k), v), angles) in rows.zip(angles.chunks_exact(n_pairs)) {
                if let Some([of_q, of_k, of_v]) = &layer.qkv_bias {
                    float::add(q, of_q);
                    float::add(k, of_k);
                    float::add(v, of_v);
                }
                if let Some([of_q, of_k]) = &layer.qk_norm {
                    float::rms_norm_heads(q, of_q, spec.norm_eps);
                    float::rms_norm_heads(k, of_k, spec.norm_eps);
                }
                float::rotate(spec.rope.pairing, spec.head_dim, angles, q);
                float::rotate(spec.rope.pairing, spec.head_dim, angles, k);
            }
        });

        let keys = self.k.chunks_exact(n_kv).zip(self.v.chunks_exact(n_kv));
        let places = batch.spans.iter().flat_map(|span| (0..span.n_tokens).map(move |idx| (span, idx)));
        for ((span, idx), (k, v)) in places.zip(keys) {
            kv.write(layer_idx, span.blocks, span.start + idx, k, v);
        }
        attention::attend(pool, spec, kv, layer_idx, batch.spans, &self.q, &mut self.attended.x);
        pool.for_each(self.attended.groups_mut(), GroupMut::quantise);
        multiply(pool, &mut [(&layer.o, &self.attended, &mut self.branch[..])])
    }

    /// Computes the SwiGLU branch of one layer.
    fn feed_forward(
        &mut self,
        pool: &Pool,
        spec: &ModelSpec,
        layer: &Layer,
        SwiGlu { gate, up, down }: &SwiGlu,
    ) -> Result<(), Error> {
        let n_rows = self.x.len() / spec.n_embd;
        for first in (0..n_rows).step_by(N_TOGETHER) {
            let rows = first..(first + N_TOGETHER).min(n_rows);
            self.resize_feed_forward(spec, rows.len());
            self.norm(pool, spec, &layer.ffn_norm, rows.clone());
            let gate_up =
                &mut [(gate, &self.normed, &mut self.gate[..]), (up, &self.normed, &mut self.up[..])];
            multiply(pool, gate_up)?;
            let n = N_GROUPED * spec.n_ff;
            let groups = self.gate.chunks(n).zip(self.up.chunks(n));
            pool.for_each(groups.zip(self.gated.groups_mut()), |((gate, up), gated)| {
                float::swiglu(gate, up, gated.x);
                gated.quantise();
            });
            let branch = &mut self.branch[rows.start * spec.n_embd..rows.end * spec.n_embd];
            multiply(pool, &mut [(down, &self.gated, branch)])?;
        }
        Ok(())
    }

    /// Computes the branch of one layer that is a mixture of experts.
    fn mixture(
        &mut self,
        pool: &Pool,
        spec: &ModelSpec,
        layer: &Layer,
        mixture: &Mixture,
    ) -> Result<(), Error> {
        let n_rows = self.x.len() / spec.n_embd;
        for first in (0..n_rows).step_by(mixture::N_TOGETHER) {
            let rows = first..(first + mixture::N_TOGETHER).min(n_rows);
            self.normed.resize(rows.len(), spec.n_embd);
            self.norm(pool, spec, &layer.ffn_norm, rows.clone());
            let branch = &mut self.branch[rows.start * spec.n_embd..rows.end * spec.n_embd];
            branch.fill(0.0);
            self.mixture.forward(pool, spec, mixture, &self.normed, branch)?;
        }
        Ok(())
    }
}

/// Returns (cos, sin) of every rotated pair of every row, times `magnitude`: `[n_rows, rope.n_dims / 2]`.
fn rotation(rope_steps: &[f64], magnitude: f64, batch: &StepBatch<'_>) -> Vec<(f32, f32)> {
    let mut angles = Vec::with_capacity(batch.tokens.len() * rope_steps.len());
    for span in batch.spans {
        for position in span.start..span.start + span.n_tokens {
            angles.extend(float::turns(rope_steps, magnitude, position));
        }
    }
    angles
}

//! The CPU backend: one generic decoder over raw slices.
//!
//! In: token ids and block tables. Out: logits. Never: allocates per token beyond its scratch.
//! Thread: the engine thread, plus the threads a step borrows.
//!
//! Matrices are multiplied by [`kernel`](crate::kernel) where it knows their format and by candle's quantised path,
//! which reads all weights once per row, where not (issue 3).

use rayon::prelude::*;

use super::weights::{Input, Layer, Weights, multiply};
use super::{attention, float};
use crate::{Backend, Error, Gguf, KvPool, Logits, ModelSpec, RopePairing, StepBatch, StepControl, StepEnd};

/// Fewest rows worth a task of their own.
const N_ROWS_PER_TASK: usize = 8;

/// Runs a model on the CPU.
pub struct CpuBackend {
    spec: ModelSpec,
    weights: Weights,
    // Radians per position of each rotated pair: `[rope.n_dims / 2]`.
    rope_steps: Vec<f64>,
    scratch: Scratch,
}

/// Buffers of one step, `[n_rows, width] f32` each.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    normed: Input,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Input,
    gate: Input,
    up: Vec<f32>,
    branch: Vec<f32>,
    rotation: Vec<(f32, f32)>,
}

impl CpuBackend {
    /// Loads a model's weights; `progress` hears the share done, 0 to 1.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] for a tensor that is missing or misshapen, [`Error::Unsupported`] for one that this
    /// decoder would ignore.
    pub fn load(gguf: &Gguf, spec: &ModelSpec, progress: &mut dyn FnMut(f32)) -> Result<Self, Error> {
        let weights = Weights::load(gguf, spec, progress)?;
        let n_pairs = spec.rope.n_dims / 2;
        let rope_steps = (0..n_pairs)
            .map(|idx| {
                let exponent = (2 * idx) as f64 / spec.rope.n_dims as f64;
                let step = f64::from(spec.rope.theta).powf(-exponent);
                step / f64::from(weights.rope_factors[idx]) / f64::from(spec.rope.position_divisor)
            })
            .collect();
        Ok(Self { spec: spec.clone(), weights, rope_steps, scratch: Scratch::default() })
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
        self.scratch.rotation = rotation(&self.rope_steps, batch);

        for (layer_idx, layer) in self.weights.layers.iter().enumerate() {
            if (control.should_stop)() {
                return Ok(StepEnd::Stopped);
            }
            self.scratch.attention(&self.spec, layer, layer_idx, batch, kv)?;
            self.scratch.feed_forward(&self.spec, layer)?;
        }

        let width = self.spec.n_embd;
        let mut wanted = Vec::with_capacity(batch.logits.len() * width);
        for &row_idx in batch.logits {
            wanted.extend_from_slice(&self.scratch.x[row_idx * width..(row_idx + 1) * width]);
        }
        let mut normed = Input::default();
        normed.x.resize(wanted.len(), 0.0);
        rms_norm(&wanted, &self.weights.output_norm, self.spec.norm_eps, &mut normed.x);
        normed.quantise(width);
        let out = logits.reset(batch.logits.len(), self.spec.n_vocab);
        if !wanted.is_empty() {
            multiply(&normed, &mut [(self.weights.head(), out)])?;
        }
        Ok(StepEnd::Done)
    }
}

impl Scratch {
    fn resize(&mut self, spec: &ModelSpec, n_rows: usize) {
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        self.normed.x.resize(n_rows * spec.n_embd, 0.0);
        self.branch.resize(n_rows * spec.n_embd, 0.0);
        self.q.resize(n_rows * n_q, 0.0);
        self.attended.x.resize(n_rows * n_q, 0.0);
        self.k.resize(n_rows * n_kv, 0.0);
        self.v.resize(n_rows * n_kv, 0.0);
        self.gate.x.resize(n_rows * spec.n_ff, 0.0);
        self.up.resize(n_rows * spec.n_ff, 0.0);
    }

    /// Adds the attention branch of one layer to `x`, writing the layer's keys and values.
    fn attention(
        &mut self,
        spec: &ModelSpec,
        layer: &Layer,
        layer_idx: usize,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
    ) -> Result<(), Error> {
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        rms_norm(&self.x, &layer.attn_norm, spec.norm_eps, &mut self.normed.x);
        self.normed.quantise(spec.n_embd);
        let qkv = &mut [(&layer.q, &mut self.q[..]), (&layer.k, &mut self.k), (&layer.v, &mut self.v)];
        multiply(&self.normed, qkv)?;
        rotate(spec, &self.rotation, n_q, &mut self.q);
        rotate(spec, &self.rotation, n_kv, &mut self.k);

        let mut first_row = 0;
        for span in batch.spans {
            for row_idx in 0..span.n_tokens {
                let from = (first_row + row_idx) * n_kv;
                let (k, v) = (&self.k[from..from + n_kv], &self.v[from..from + n_kv]);
                kv.write(layer_idx, span.blocks, span.start + row_idx, k, v);
            }
            let rows = first_row * n_q..(first_row + span.n_tokens) * n_q;
            attention::attend(spec, kv, layer_idx, span, &self.q[rows.clone()], &mut self.attended.x[rows]);
            first_row += span.n_tokens;
        }
        self.attended.quantise(n_q);
        multiply(&self.attended, &mut [(&layer.o, &mut self.branch)])?;
        add(&mut self.x, &self.branch);
        Ok(())
    }

    /// Adds the SwiGLU branch of one layer to `x`.
    fn feed_forward(&mut self, spec: &ModelSpec, layer: &Layer) -> Result<(), Error> {
        rms_norm(&self.x, &layer.ffn_norm, spec.norm_eps, &mut self.normed.x);
        self.normed.quantise(spec.n_embd);
        let gate_up = &mut [(&layer.gate, &mut self.gate.x[..]), (&layer.up, &mut self.up)];
        multiply(&self.normed, gate_up)?;
        let rows = self.gate.x.par_chunks_exact_mut(spec.n_ff).zip(self.up.par_chunks_exact(spec.n_ff));
        rows.with_min_len(N_ROWS_PER_TASK).for_each(|(gate, up)| float::swiglu(gate, up));
        self.gate.quantise(spec.n_ff);
        multiply(&self.gate, &mut [(&layer.down, &mut self.branch)])?;
        add(&mut self.x, &self.branch);
        Ok(())
    }
}

/// Normalises each row of `x: [n_rows, weight.len()]` to a root mean square of 1, times `weight`.
fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    let rows = x.par_chunks_exact(width).zip(out.par_chunks_exact_mut(width));
    rows.with_min_len(N_ROWS_PER_TASK).for_each(|(x, out)| float::rms_norm(x, weight, eps, out));
}

/// Returns (cos, sin) of every rotated pair of every row: `[n_rows, rope.n_dims / 2]`.
fn rotation(rope_steps: &[f64], batch: &StepBatch<'_>) -> Vec<(f32, f32)> {
    let mut angles = Vec::with_capacity(batch.tokens.len() * rope_steps.len());
    for span in batch.spans {
        for position in span.start..span.start + span.n_tokens {
            angles.extend(rope_steps.iter().map(|step| {
                let (sin, cos) = (position as f64 * step).sin_cos();
                (cos as f32, sin as f32)
            }));
        }
    }
    angles
}

/// Rotates every head of every row of `x: [n_rows, width]`.
fn rotate(spec: &ModelSpec, rotation: &[(f32, f32)], width: usize, x: &mut [f32]) {
    let n_pairs = spec.rope.n_dims / 2;
    for (row, angles) in x.chunks_exact_mut(width).zip(rotation.chunks_exact(n_pairs)) {
        for head in row.chunks_exact_mut(spec.head_dim) {
            for (idx, &(cos, sin)) in angles.iter().enumerate() {
                let (a, b) = match spec.rope.pairing {
                    RopePairing::Norm => (2 * idx, 2 * idx + 1),
                    RopePairing::Neox => (idx, idx + n_pairs),
                };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
    }
}

fn add(x: &mut [f32], branch: &[f32]) {
    for (x, branch) in x.iter_mut().zip(branch) {
        *x += branch;
    }
}

//! The decoder as tensors of candle: what runs on the GPU of a Mac.
//!
//! In: token ids and block tables. Out: logits. Keys and values are f16 in the device's memory; the pool says which blocks.
//! Never: gives equal bits however a prompt was cut: candle chooses its kernels by the number of rows (I-7 holds for the
//! CPU alone).
//! Thread: the engine thread.
//!
//! It is also a third opinion: its tests run it on the CPU, where it must agree with our own kernels.

use candle_core::backend::BackendStorage as _;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{QMatMul, QTensor, QuantizedType};
use candle_core::{CpuStorage, D, DType, Device, Module as _, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::{rope, rope_i};

use super::float;
use super::weights::{candle_type, check_known, matrix_of, qk_norm, qkv_bias, rope_factors, vector};
use crate::{
    BLOCK_TOKENS, Backend, BlockId, Error, Gguf, KvPool, Logits, ModelSpec, RopePairing, RowSpan, StepBatch,
    StepControl, StepEnd,
};

/// Rows from which on a step waits for each of its layers, so as to hear of a keystroke in time: what was given to a
/// device runs later.
const N_LONG_ROWS: usize = 64;
/// Most scores that are computed at once, 64 MB of them, so that a long prompt's take no more memory than its matrices.
const N_MAX_SCORES: usize = 1 << 24;

/// Runs a model on a device of candle's.
pub struct CandleBackend {
    spec: ModelSpec,
    device: Device,
    /// `[n_vocab, n_embd]`, in the host's memory: a step reads a row for each of its tokens.
    token_embd: Box<dyn QuantizedType>,
    layers: Vec<Layer>,
    output_norm: Tensor,
    head: QMatMul,
    // Radians per position of each rotated pair: `[rope.n_dims / 2]`.
    rope_steps: Vec<f64>,
    #[cfg_attr(not(feature = "metal"), expect(dead_code, reason = "only a program with it loads one"))]
    n_weight_bytes: usize,
}

/// One decoder layer, with its keys and values: `[n_positions, n_kv_heads * head_dim] f16` each.
struct Layer {
    attn_norm: Tensor,
    q: QMatMul,
    k: QMatMul,
    v: QMatMul,
    qkv_bias: Option<[Tensor; 3]>,
    qk_norm: Option<[Tensor; 2]>,
    o: QMatMul,
    ffn_norm: Tensor,
    gate: QMatMul,
    up: QMatMul,
    down: QMatMul,
    keys: Tensor,
    values: Tensor,
}

/// What all layers of a step share.
struct Step<'a> {
    batch: &'a StepBatch<'a>,
    /// (cos, sin) of every rotated pair of every row: `[n_rows, rope.n_dims / 2]` each.
    turns: (Tensor, Tensor),
    /// Of each span, where its positions lie, `[n_positions] u32`, and what is added to its scores, `[n_rows, n_positions]`,
    /// where a row must not see all.
    reads: Vec<(Tensor, Option<Tensor>)>,
    /// Rows that stay together in the cache: the first of them, the place of it, and how many they are.
    writes: Vec<(usize, usize, usize)>,
}

/// How a file's matrix becomes one that candle multiplies: [`QMatMul::from_qtensor`] keeps codes and makes f32 of numbers.
type MakeMatrix = fn(QTensor) -> candle_core::Result<QMatMul>;

impl CandleBackend {
    /// Loads a model's weights into the first GPU of a Mac, with room for the keys and values of `n_kv_tokens` positions;
    /// `progress` hears the share done. The pool of its steps is the one returned.
    ///
    /// # Errors
    /// [`Error::NoGpu`] where there is none to use, [`Error::Candle`] where it fails or has not enough memory,
    /// [`Error::Unsupported`] for a mixture of experts; else as the CPU's.
    #[cfg(feature = "metal")]
    pub fn load(
        gguf: &Gguf,
        spec: &ModelSpec,
        n_kv_tokens: usize,
        progress: &mut dyn FnMut(f32),
    ) -> Result<(Self, KvPool), Error> {
        // candle takes the first of all devices, and panics where there is none.
        let device = std::panic::catch_unwind(|| Device::new_metal(0))
            .map_err(|_| Error::NoGpu("this machine has no device of Metal's".into()))?
            .map_err(|error| Error::NoGpu(error.to_string()))?;
        Self::load_on(device, QMatMul::from_qtensor, gguf, spec, n_kv_tokens, progress)
    }

    fn load_on(
        device: Device,
        make_matrix: MakeMatrix,
        gguf: &Gguf,
        spec: &ModelSpec,
        n_kv_tokens: usize,
        progress: &mut dyn FnMut(f32),
    ) -> Result<(Self, KvPool), Error> {
        check_known(gguf, spec)?;
        if spec.experts.is_some() {
            return Err(Error::Unsupported {
                architecture: spec.architecture.clone(),
                what: "a mixture of experts on a GPU".into(),
            });
        }
        let mut loader = Loader { gguf, device: &device, make_matrix, n_bytes: 0 };
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let n_positions = n_kv_tokens.div_ceil(BLOCK_TOKENS) * BLOCK_TOKENS;
        // Before the matrices: candle hands out again what these leave behind, however much larger than what is asked for.
        let zeros = || Tensor::zeros((n_positions, n_kv), DType::F16, &device);
        let mut caches = Vec::with_capacity(spec.n_layers);
        for _ in 0..spec.n_layers {
            caches.push((zeros()?, zeros()?));
        }
        let mut layers = Vec::with_capacity(spec.n_layers);
        for (idx, (keys, values)) in caches.into_iter().enumerate() {
            let name = |part: &str| format!("blk.{idx}.{part}.weight");
            layers.push(Layer {
                attn_norm: loader.vector(vector(gguf, &name("attn_norm"), spec.n_embd)?)?,
                q: loader.matrix(&name("attn_q"), n_q, spec.n_embd)?,
                k: loader.matrix(&name("attn_k"), n_kv, spec.n_embd)?,
                v: loader.matrix(&name("attn_v"), n_kv, spec.n_embd)?,
                qkv_bias: loader.vectors(qkv_bias(gguf, spec, idx)?)?,
                qk_norm: loader.vectors(qk_norm(gguf, spec, idx)?)?,
                o: loader.matrix(&name("attn_output"), spec.n_embd, n_q)?,
                ffn_norm: loader.vector(vector(gguf, &name("ffn_norm"), spec.n_embd)?)?,
                gate: loader.matrix(&name("ffn_gate"), spec.n_ff, spec.n_embd)?,
                up: loader.matrix(&name("ffn_up"), spec.n_ff, spec.n_embd)?,
                down: loader.matrix(&name("ffn_down"), spec.n_embd, spec.n_ff)?,
                keys,
                values,
            });
            progress((idx + 1) as f32 / (spec.n_layers + 1) as f32);
        }
        let head = if gguf.tensor("output.weight").is_ok() { "output.weight" } else { "token_embd.weight" };
        let head = loader.matrix(head, spec.n_vocab, spec.n_embd)?;
        let embedding = matrix_of(gguf, "token_embd.weight", &[spec.n_embd, spec.n_vocab])?;
        let backend = Self {
            token_embd: candle_type(embedding.dtype).from_data(embedding.data.into()),
            output_norm: loader.vector(vector(gguf, "output_norm.weight", spec.n_embd)?)?,
            rope_steps: float::rope_steps(spec, &rope_factors(gguf, spec)?),
            n_weight_bytes: loader.n_bytes + embedding.data.len(),
            spec: spec.clone(),
            device: device.clone(),
            layers,
            head,
        };
        progress(1.0);
        Ok((backend, KvPool::on_device(n_kv_tokens)))
    }

    /// Returns how many bytes the weights take.
    #[cfg(feature = "metal")]
    pub(crate) fn n_weight_bytes(&self) -> usize {
        self.n_weight_bytes
    }

    /// Makes copies of blocks in every layer.
    fn copy_blocks(&self, copies: &[(BlockId, BlockId)]) -> Result<(), Error> {
        for (from, to) in copies {
            for cache in self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]) {
                let block = cache.narrow(0, place(*from, 0), BLOCK_TOKENS)?.force_contiguous()?;
                cache.slice_set(&block, 0, place(*to, 0))?;
            }
        }
        Ok(())
    }

    fn step<'a>(&self, batch: &'a StepBatch<'a>) -> Result<Step<'a>, Error> {
        let n_pairs = self.rope_steps.len();
        let magnitude = self.spec.rope.magnitude();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        let (mut reads, mut writes) = (Vec::new(), Vec::<(usize, usize, usize)>::new());
        let mut first_row = 0;
        for span in batch.spans {
            for (row, position) in (first_row..).zip(span.start..span.start + span.n_tokens) {
                for (of_cos, of_sin) in float::turns(&self.rope_steps, magnitude, position) {
                    cos.push(of_cos);
                    sin.push(of_sin);
                }
                let at = place(span.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
                match writes.last_mut().filter(|(_, first, n)| first + *n == at && row > first_row) {
                    Some((_, _, n)) => *n += 1,
                    None => writes.push((row, at, 1)),
                }
            }
            reads.push(self.reads(span)?);
            first_row += span.n_tokens;
        }
        let tensor = |values| Tensor::from_vec(values, (first_row, n_pairs), &self.device);
        Ok(Step { batch, turns: (tensor(cos)?, tensor(sin)?), reads, writes })
    }

    fn reads(&self, span: &RowSpan<'_>) -> Result<(Tensor, Option<Tensor>), Error> {
        let n_positions = span.start + span.n_tokens;
        let places: Vec<u32> = (0..n_positions)
            .map(|position| place(span.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS) as u32)
            .collect();
        let places = Tensor::from_vec(places, n_positions, &self.device)?;
        if span.n_tokens == 1 {
            return Ok((places, None));
        }
        let mut mask = vec![0.0f32; span.n_tokens * n_positions];
        for (row, mask) in mask.chunks_exact_mut(n_positions).enumerate() {
            mask[span.start + row + 1..].fill(f32::NEG_INFINITY);
        }
        let mask = Tensor::from_vec(mask, (span.n_tokens, n_positions), &self.device)?;
        Ok((places, Some(mask)))
    }

    /// Computes the attention branch of one layer, writing the layer's keys and values.
    fn attention(&self, layer: &Layer, step: &Step<'_>, normed: &Tensor) -> Result<Tensor, Error> {
        let spec = &self.spec;
        let (n_rows, n_kv) = (step.batch.tokens.len(), spec.n_kv_heads);
        let [mut q, mut k, mut v] =
            [layer.q.forward(normed)?, layer.k.forward(normed)?, layer.v.forward(normed)?];
        if let Some([of_q, of_k, of_v]) = &layer.qkv_bias {
            q = q.broadcast_add(of_q)?;
            k = k.broadcast_add(of_k)?;
            v = v.broadcast_add(of_v)?;
        }
        let norms = layer.qk_norm.as_ref();
        let q = self.heads(&q, spec.n_heads, norms.map(|[of_q, _]| of_q), step)?;
        let k = self.heads(&k, n_kv, norms.map(|[_, of_k]| of_k), step)?;
        let k = k.transpose(0, 1)?.contiguous()?.reshape((n_rows, n_kv * spec.head_dim))?;
        let [k, v] = [k.to_dtype(DType::F16)?, v.to_dtype(DType::F16)?];
        for &(row, at, n) in &step.writes {
            layer.keys.slice_set(&k.narrow(0, row, n)?, 0, at)?;
            layer.values.slice_set(&v.narrow(0, row, n)?, 0, at)?;
        }
        let mut attended = Vec::with_capacity(step.reads.len());
        let mut first_row = 0;
        for (span, (places, mask)) in step.batch.spans.iter().zip(&step.reads) {
            let q = q.narrow(1, first_row, span.n_tokens)?;
            attended.push(self.attend(layer, &q, places, mask.as_ref())?);
            first_row += span.n_tokens;
        }
        Ok(layer.o.forward(&Tensor::cat(&attended, 0)?)?)
    }

    /// Returns rows of `n` heads each, normalised and rotated: `[n, n_rows, head_dim]`.
    fn heads(&self, x: &Tensor, n: usize, norm: Option<&Tensor>, step: &Step<'_>) -> Result<Tensor, Error> {
        let spec = &self.spec;
        let mut x = x.reshape((step.batch.tokens.len(), n, spec.head_dim))?;
        if let Some(weight) = norm {
            x = rms_norm(&x, weight, spec.norm_eps)?;
        }
        let x = x.transpose(0, 1)?.unsqueeze(0)?;
        let rotated = x.narrow(D::Minus1, 0, spec.rope.n_dims)?.contiguous()?;
        let (cos, sin) = &step.turns;
        let rotated = match spec.rope.pairing {
            RopePairing::Norm => rope_i(&rotated, cos, sin)?,
            RopePairing::Neox => rope(&rotated, cos, sin)?,
        };
        let n_rest = spec.head_dim - spec.rope.n_dims;
        let x = match n_rest {
            0 => rotated,
            n_rest => Tensor::cat(&[&rotated, &x.narrow(D::Minus1, spec.rope.n_dims, n_rest)?], D::Minus1)?,
        };
        Ok(x.squeeze(0)?)
    }

    /// Attends a span's rows, `q: [n_heads, n_rows, head_dim]`, to the positions at `places`.
    fn attend(
        &self,
        layer: &Layer,
        q: &Tensor,
        places: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        let spec = &self.spec;
        let (n_heads, n_rows, head_dim) = q.dims3()?;
        let (n_kv, n_group, n_positions) = (spec.n_kv_heads, n_heads / spec.n_kv_heads, places.dim(0)?);
        let read = |cache: &Tensor| {
            cache.index_select(places, 0)?.to_dtype(DType::F32)?.reshape((n_positions, n_kv, head_dim))
        };
        let keys = read(&layer.keys)?.permute((1, 2, 0))?.contiguous()?;
        let values = read(&layer.values)?.transpose(0, 1)?.contiguous()?;
        // The query heads of one key-value head stand side by side.
        let n_together = (N_MAX_SCORES / (n_heads * n_positions)).clamp(1, n_rows);
        let mut attended = Vec::with_capacity(n_rows.div_ceil(n_together));
        for first in (0..n_rows).step_by(n_together) {
            let n = n_together.min(n_rows - first);
            let q = q.narrow(1, first, n)?.contiguous()?.reshape((n_kv, n_group * n, head_dim))?;
            let mut scores = (q * (1.0 / (head_dim as f64).sqrt()))?.matmul(&keys)?;
            if let Some(mask) = mask {
                scores = scores
                    .reshape((n_kv, n_group, n, n_positions))?
                    .broadcast_add(&mask.narrow(0, first, n)?)?
                    .reshape((n_kv, n_group * n, n_positions))?;
            }
            let sums = softmax_last_dim(&scores)?.matmul(&values)?.reshape((n_heads, n, head_dim))?;
            attended.push(sums.transpose(0, 1)?.contiguous()?.reshape((n, n_heads * head_dim))?);
        }
        Ok(Tensor::cat(&attended, 0)?)
    }
}

impl Backend for CandleBackend {
    fn forward(
        &mut self,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
        logits: &mut Logits,
        control: &StepControl<'_>,
    ) -> Result<StepEnd, Error> {
        let spec = &self.spec;
        let ids: Vec<u32> = batch.tokens.iter().map(|token| token.0).collect();
        if let Some(&unknown) = ids.iter().find(|&&id| id as usize >= spec.n_vocab) {
            return Err(Error::UnknownToken(unknown));
        }
        self.copy_blocks(&kv.take_copies())?;
        let out = logits.reset(batch.logits.len(), spec.n_vocab);
        if ids.is_empty() {
            return Ok(StepEnd::Done);
        }
        let rows = match self.token_embd.embedding(&ids, spec.n_vocab, spec.n_embd)? {
            CpuStorage::F32(rows) => rows,
            other => return Err(Error::Inconsistent(format!("embedding rows came as {:?}", other.dtype()))),
        };
        let mut x = Tensor::from_vec(rows, (ids.len(), spec.n_embd), &self.device)?;
        let step = self.step(batch)?;
        for layer in &self.layers {
            if (control.should_stop)() {
                return Ok(StepEnd::Stopped);
            }
            let normed = rms_norm(&x, &layer.attn_norm, spec.norm_eps)?;
            x = (x + self.attention(layer, &step, &normed)?)?;
            let normed = rms_norm(&x, &layer.ffn_norm, spec.norm_eps)?;
            let gated = (layer.gate.forward(&normed)?.silu()? * layer.up.forward(&normed)?)?;
            x = (x + layer.down.forward(&gated)?)?;
            if ids.len() >= N_LONG_ROWS {
                self.device.synchronize()?;
            }
        }
        if !batch.logits.is_empty() {
            let wanted: Vec<u32> = batch.logits.iter().map(|row| *row as u32).collect();
            let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
            let normed = rms_norm(&x, &self.output_norm, spec.norm_eps)?;
            out.copy_from_slice(&self.head.forward(&normed)?.flatten_all()?.to_vec1::<f32>()?);
        }
        // Also where nothing was read: how long a step takes is what its caller learns from.
        self.device.synchronize()?;
        Ok(StepEnd::Done)
    }
}

/// Returns where a position lies in the cache.
fn place(block: BlockId, within: usize) -> usize {
    block.0 as usize * BLOCK_TOKENS + within
}

/// Takes tensors from a file to a device.
struct Loader<'a> {
    gguf: &'a Gguf,
    device: &'a Device,
    make_matrix: MakeMatrix,
    n_bytes: usize,
}

impl Loader<'_> {
    fn vector(&self, values: Vec<f32>) -> Result<Tensor, Error> {
        let n = values.len();
        Ok(Tensor::from_vec(values, n, self.device)?)
    }

    fn vectors<const N: usize>(&self, vectors: Option<[Vec<f32>; N]>) -> Result<Option<[Tensor; N]>, Error> {
        let Some(vectors) = vectors else { return Ok(None) };
        let tensors: Vec<Tensor> =
            vectors.into_iter().map(|values| self.vector(values)).collect::<Result<_, _>>()?;
        Ok(tensors.try_into().ok())
    }

    fn matrix(&mut self, name: &str, n_out: usize, n_in: usize) -> Result<QMatMul, Error> {
        let tensor = matrix_of(self.gguf, name, &[n_in, n_out])?;
        let matrix =
            qtensor_from_ggml(candle_type(tensor.dtype), tensor.data, vec![n_out, n_in], self.device)?;
        self.n_bytes += tensor.data.len();
        self.gguf.forget(tensor.data);
        Ok((self.make_matrix)(matrix)?)
    }
}

#[cfg(test)]
mod tests;

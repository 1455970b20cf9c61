//! A model's matrices and norms, checked against its spec once, at load.
//!
//! In: GGUF tensors. Out: [`Weights`]; every shape is what the spec says, so a step needs no checks.

use std::borrow::Cow;

use candle_core::backend::BackendStorage as _;
use candle_core::quantized::{GgmlDType, QuantizedType};

use rayon::prelude::*;

use crate::kernel::{self, Activations, Format};
use crate::{Error, GgmlType, Gguf, ModelSpec};

/// A matrix in the file's own block format: `[n_out, n_in]`, rows contiguous.
pub(crate) struct Matrix {
    data: Data,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
}

enum Data {
    /// A format our kernels read: the file's bytes.
    Blocks(Format, Vec<u8>),
    /// Any other, by candle's own path.
    Candle(Box<dyn QuantizedType>),
}

/// Rows of activations, and the same quantised for our kernels; made once, read by every matrix that takes them.
#[derive(Default)]
pub(crate) struct Input {
    /// `[n_rows, n_in]`.
    pub(crate) x: Vec<f32>,
    quantised: Activations,
}

impl Input {
    /// Quantises `x`, whose rows are `n_in` wide, after it was filled.
    pub(crate) fn quantise(&mut self, n_in: usize) {
        if n_in.is_multiple_of(kernel::BLOCK) {
            self.quantised.quantise(&self.x, n_in);
        }
    }
}

/// Weight rows a thread takes at a time: enough work to be worth a steal, few enough to share evenly.
const ROWS_PER_TASK: usize = 64;
/// Rows of activations that share one read of a weight row in the kernels.
const N_TOGETHER: usize = 4;

impl Matrix {
    /// Computes `y = x · Wᵀ` for every row of `input.x: [n_rows, n_in]` into `y: [n_rows, n_out]`.
    pub(crate) fn apply(&self, input: &Input, y: &mut [f32]) -> Result<(), Error> {
        let n_rows = input.x.len() / self.n_in;
        let (format, weights) = match &self.data {
            Data::Candle(data) => return Ok(data.matmul_t((n_rows, self.n_in, self.n_out), &input.x, y)?),
            Data::Blocks(format, weights) => (*format, weights),
        };
        let row_bytes = self.n_in / kernel::BLOCK * format.block_bytes();
        // Threads take weight rows, so each weight is read once a step; the columns of `y` are put in place after.
        let mut columns = vec![0.0; n_rows * self.n_out];
        columns.par_chunks_mut(ROWS_PER_TASK * n_rows).enumerate().for_each(|(task_idx, columns)| {
            for (idx, column) in columns.chunks_exact_mut(n_rows).enumerate() {
                let from = (task_idx * ROWS_PER_TASK + idx) * row_bytes;
                for (group_idx, out) in column.chunks_mut(N_TOGETHER).enumerate() {
                    let weights = &weights[from..from + row_bytes];
                    kernel::dot(format, weights, &input.quantised, group_idx * N_TOGETHER, out);
                }
            }
        });
        if n_rows == 1 {
            y.copy_from_slice(&columns);
        } else {
            for (row_idx, y) in y.chunks_exact_mut(self.n_out).enumerate() {
                for (y, column) in y.iter_mut().zip(columns.chunks_exact(n_rows)) {
                    *y = column[row_idx];
                }
            }
        }
        Ok(())
    }

    /// Returns the rows `ids` as `[ids.len(), n_in] f32`.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Vec<f32>, Error> {
        let data = match &self.data {
            Data::Candle(data) => data,
            Data::Blocks(format, weights) => {
                let row_bytes = self.n_in / kernel::BLOCK * format.block_bytes();
                let rows: Vec<u8> = ids
                    .iter()
                    .flat_map(|&id| &weights[id as usize * row_bytes..(id as usize + 1) * row_bytes])
                    .copied()
                    .collect();
                let dtype = match format {
                    Format::Q4_1 => GgmlDType::Q4_1,
                    Format::Q8_0 => GgmlDType::Q8_0,
                };
                return dequantise(dtype, &rows, ids.len() * self.n_in);
            }
        };
        match data.embedding(ids, self.n_out, self.n_in)? {
            candle_core::CpuStorage::F32(values) => Ok(values),
            other => Err(Error::Inconsistent(format!("embedding rows came as {:?}", other.dtype()))),
        }
    }
}

/// One decoder layer.
pub(crate) struct Layer {
    pub(crate) attn_norm: Vec<f32>,
    pub(crate) q: Matrix,
    pub(crate) k: Matrix,
    pub(crate) v: Matrix,
    pub(crate) o: Matrix,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// Everything a forward pass reads.
pub(crate) struct Weights {
    pub(crate) token_embd: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// None when the head is tied to `token_embd`.
    pub(crate) output: Option<Matrix>,
    /// Wavelength factors of Llama 3: `[rope.n_dims / 2]`, all 1 when the file has none.
    pub(crate) rope_factors: Vec<f32>,
}

impl Weights {
    /// Copies the tensors out of the file; `progress` hears the share of layers done.
    pub(crate) fn load(gguf: &Gguf, spec: &ModelSpec, progress: &mut dyn FnMut(f32)) -> Result<Self, Error> {
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let mut layers = Vec::with_capacity(spec.n_layers);
        for idx in 0..spec.n_layers {
            let name = |part: &str| format!("blk.{idx}.{part}.weight");
            layers.push(Layer {
                attn_norm: vector(gguf, &name("attn_norm"), spec.n_embd)?,
                q: matrix(gguf, &name("attn_q"), n_q, spec.n_embd)?,
                k: matrix(gguf, &name("attn_k"), n_kv, spec.n_embd)?,
                v: matrix(gguf, &name("attn_v"), n_kv, spec.n_embd)?,
                o: matrix(gguf, &name("attn_output"), spec.n_embd, n_q)?,
                ffn_norm: vector(gguf, &name("ffn_norm"), spec.n_embd)?,
                gate: matrix(gguf, &name("ffn_gate"), spec.n_ff, spec.n_embd)?,
                up: matrix(gguf, &name("ffn_up"), spec.n_ff, spec.n_embd)?,
                down: matrix(gguf, &name("ffn_down"), spec.n_embd, spec.n_ff)?,
            });
            progress((idx + 1) as f32 / spec.n_layers as f32);
        }
        // A bias or a per-head norm that we would not apply means a model we would run wrongly.
        if let Some(extra) = gguf.tensors().map(|tensor| tensor.name).find(|name| !is_known(name)) {
            return Err(Error::Unsupported {
                architecture: spec.architecture.clone(),
                what: format!("tensor `{extra}`"),
            });
        }
        let has = |name: &str| gguf.tensor(name).is_ok();
        Ok(Self {
            token_embd: matrix(gguf, "token_embd.weight", spec.n_vocab, spec.n_embd)?,
            output_norm: vector(gguf, "output_norm.weight", spec.n_embd)?,
            output: if has("output.weight") {
                Some(matrix(gguf, "output.weight", spec.n_vocab, spec.n_embd)?)
            } else {
                None
            },
            rope_factors: if has("rope_freqs.weight") {
                vector(gguf, "rope_freqs.weight", spec.rope.n_dims / 2)?
            } else {
                vec![1.0; spec.rope.n_dims / 2]
            },
            layers,
        })
    }

    /// Returns the matrix that turns the last hidden state into logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.token_embd)
    }
}

fn is_known(tensor: &str) -> bool {
    const PARTS: [&str; 9] = [
        "attn_norm.weight",
        "attn_q.weight",
        "attn_k.weight",
        "attn_v.weight",
        "attn_output.weight",
        "ffn_norm.weight",
        "ffn_gate.weight",
        "ffn_up.weight",
        "ffn_down.weight",
    ];
    match tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        // Some converters repeat the rotary frequencies in every layer; they follow from the metadata.
        Some((_, part)) => PARTS.contains(&part) || part == "attn_rot_embd",
        None => ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"]
            .contains(&tensor),
    }
}

fn matrix(gguf: &Gguf, name: &str, n_out: usize, n_in: usize) -> Result<Matrix, Error> {
    let tensor = gguf.tensor(name).map_err(|source| Error::Inconsistent(source.to_string()))?;
    if tensor.shape != [n_in as u64, n_out as u64] {
        return Err(Error::Inconsistent(format!("{name} is {:?}, expected [{n_in}, {n_out}]", tensor.shape)));
    }
    let data = match Format::of(tensor.dtype) {
        Some(format) => Data::Blocks(format, tensor.data.to_vec()),
        None => Data::Candle(candle_type(tensor.dtype).from_data(Cow::Borrowed(tensor.data))),
    };
    Ok(Matrix { data, n_out, n_in })
}

fn vector(gguf: &Gguf, name: &str, n: usize) -> Result<Vec<f32>, Error> {
    let tensor = gguf.tensor(name).map_err(|source| Error::Inconsistent(source.to_string()))?;
    if tensor.shape.iter().product::<u64>() != n as u64 {
        return Err(Error::Inconsistent(format!("{name} is {:?}, expected [{n}]", tensor.shape)));
    }
    dequantise(candle_type(tensor.dtype), tensor.data, n)
}

fn dequantise(dtype: GgmlDType, bytes: &[u8], n: usize) -> Result<Vec<f32>, Error> {
    match dtype.from_data(Cow::Borrowed(bytes)).dequantize(n)? {
        candle_core::CpuStorage::F32(values) => Ok(values),
        other => Err(Error::Inconsistent(format!("{dtype:?} values came as {:?}", other.dtype()))),
    }
}

fn candle_type(dtype: GgmlType) -> GgmlDType {
    match dtype {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
    }
}

//! A model's matrices and norms, checked against its spec once, at load.
//!
//! In: GGUF tensors. Out: [`Weights`]; every shape is what the spec says, so a step needs no checks.

use std::borrow::Cow;

use candle_core::backend::BackendStorage as _;
use candle_core::quantized::{GgmlDType, QuantizedType};

use crate::kernel::{self, Activations, Format, Packer, Panels, Pool, Product};
use crate::{Error, ExpertSpec, GgmlType, Gguf, ModelSpec, TensorView};

/// A matrix `[n_out, n_in]`.
pub(crate) struct Matrix {
    data: Data,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
}

enum Data {
    /// A format our kernels know, repacked for them.
    Panels(Panels),
    /// Any other, by candle's own path.
    Candle(Box<dyn QuantizedType>),
}

/// Computes `y = x · Wᵀ` of each matrix `[n_out, n_in]` with its `x: [n_rows, n_in]`; `y: [n_rows, n_out]`.
pub(crate) fn multiply(
    pool: &Pool,
    products: &mut [(&Matrix, &Activations, &mut [f32])],
) -> Result<(), Error> {
    let mut ours = Vec::with_capacity(products.len());
    for (matrix, input, y) in products {
        match &matrix.data {
            Data::Panels(weights) => ours.push(Product { weights, x: input, y }),
            Data::Candle(data) => {
                let n_rows = input.x.len() / matrix.n_in;
                data.matmul_t((n_rows, matrix.n_in, matrix.n_out), &input.x, y)?;
            }
        }
    }
    kernel::multiply(pool, &mut ours);
    Ok(())
}

impl Matrix {
    /// Returns the rows `ids` as `[ids.len(), n_in] f32`.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Vec<f32>, Error> {
        match &self.data {
            Data::Panels(weights) => {
                let mut rows = Vec::with_capacity(ids.len() * self.n_in);
                ids.iter().for_each(|&id| weights.dequantise_row(id as usize, &mut rows));
                Ok(rows)
            }
            Data::Candle(data) => match data.embedding(ids, self.n_out, self.n_in)? {
                candle_core::CpuStorage::F32(values) => Ok(values),
                other => Err(Error::Inconsistent(format!("embedding rows came as {:?}", other.dtype()))),
            },
        }
    }
}

/// One decoder layer.
pub(crate) struct Layer {
    pub(crate) attn_norm: Vec<f32>,
    pub(crate) q: Matrix,
    pub(crate) k: Matrix,
    pub(crate) v: Matrix,
    /// What is added to query, key and value.
    pub(crate) qkv_bias: Option<[Vec<f32>; 3]>,
    /// Weights of the norms of a query's head and a key's: `[head_dim]`.
    pub(crate) qk_norm: Option<[Vec<f32>; 2]>,
    pub(crate) o: Matrix,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) feed_forward: FeedForward,
}

/// What a layer does after its attention.
pub(crate) enum FeedForward {
    /// The same for every token.
    Dense(SwiGlu),
    /// For each token what the router chooses.
    Mixture(Mixture),
}

/// `down · (silu(gate · x) · up · x)`.
pub(crate) struct SwiGlu {
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// Experts, and what says which of them a token passes through.
pub(crate) struct Mixture {
    /// `[n_experts, n_embd]`.
    pub(crate) router: Matrix,
    pub(crate) experts: Vec<SwiGlu>,
    /// Experts that a token passes through: 1 to all.
    pub(crate) n_used: usize,
}

impl FeedForward {
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let (branches, router) = match self {
            Self::Dense(branch) => (std::slice::from_ref(branch), None),
            Self::Mixture(mixture) => (&mixture.experts[..], Some(&mixture.router)),
        };
        branches.iter().flat_map(|branch| [&branch.gate, &branch.up, &branch.down]).chain(router)
    }
}

impl Layer {
    /// Returns how many numbers it has that are no matrix's.
    fn n_floats(&self) -> usize {
        let vectors = self.qkv_bias.iter().flatten().chain(self.qk_norm.iter().flatten());
        vectors.chain([&self.attn_norm, &self.ffn_norm]).map(Vec::len).sum()
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        [&self.q, &self.k, &self.v, &self.o].into_iter().chain(self.feed_forward.matrices())
    }
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
    /// Copies the tensors out of the file; `progress` hears the share done.
    pub(crate) fn load(
        gguf: &Gguf,
        spec: &ModelSpec,
        pool: &Pool,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, Error> {
        check_known(gguf, spec)?;
        let mut loader = Loader { gguf, packer: Packer::default() };
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let mut layers = Vec::with_capacity(spec.n_layers);
        for idx in 0..spec.n_layers {
            let name = |part: &str| format!("blk.{idx}.{part}.weight");
            layers.push(Layer {
                attn_norm: vector(gguf, &name("attn_norm"), spec.n_embd)?,
                q: loader.matrix(&name("attn_q"), n_q, spec.n_embd)?,
                k: loader.matrix(&name("attn_k"), n_kv, spec.n_embd)?,
                v: loader.matrix(&name("attn_v"), n_kv, spec.n_embd)?,
                qkv_bias: qkv_bias(gguf, spec, idx)?,
                qk_norm: qk_norm(gguf, spec, idx)?,
                o: loader.matrix(&name("attn_output"), spec.n_embd, n_q)?,
                ffn_norm: vector(gguf, &name("ffn_norm"), spec.n_embd)?,
                feed_forward: loader.feed_forward(spec, idx)?,
            });
        }
        let has = |name: &str| gguf.tensor(name).is_ok();
        let weights = Self {
            token_embd: loader.matrix("token_embd.weight", spec.n_vocab, spec.n_embd)?,
            output_norm: vector(gguf, "output_norm.weight", spec.n_embd)?,
            output: if has("output.weight") {
                Some(loader.matrix("output.weight", spec.n_vocab, spec.n_embd)?)
            } else {
                None
            },
            rope_factors: rope_factors(gguf, spec)?,
            layers,
        };
        loader.finish(pool, progress)?;
        Ok(weights)
    }

    /// Reads all panels once; returns how many bytes they are.
    pub(crate) fn read(&self, pool: &Pool) -> usize {
        self.panels().map_or(0, |panels| kernel::read_all(pool, panels))
    }

    /// Returns how many bytes all of it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        let n_layers: usize = self.layers.iter().map(Layer::n_floats).sum();
        let n_floats = n_layers + self.output_norm.len() + self.rope_factors.len();
        let n_left: usize = self
            .matrices()
            .map(|matrix| match &matrix.data {
                Data::Panels(_) => 0,
                Data::Candle(data) => data.storage_size_in_bytes(),
            })
            .sum();
        // The panels of all matrices lie together.
        self.panels().map_or(0, Panels::n_all_bytes) + n_left + n_floats * size_of::<f32>()
    }

    fn panels(&self) -> Option<&Panels> {
        self.matrices().find_map(|matrix| match &matrix.data {
            Data::Panels(panels) => Some(panels),
            Data::Candle(_) => None,
        })
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().flat_map(Layer::matrices).chain([&self.token_embd]).chain(&self.output)
    }

    /// Returns the matrix that turns the last hidden state into logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.token_embd)
    }
}

/// Refuses a tensor that this decoder would not apply: a model without a part of it is another model.
pub(super) fn check_known(gguf: &Gguf, spec: &ModelSpec) -> Result<(), Error> {
    match gguf.tensors().map(|tensor| tensor.name).find(|name| !is_known(spec, name)) {
        Some(extra) => Err(Error::Unsupported {
            architecture: spec.architecture.clone(),
            what: format!("tensor `{extra}`"),
        }),
        None => Ok(()),
    }
}

/// Returns what a layer adds to query, key and value, if it does.
pub(super) fn qkv_bias(
    gguf: &Gguf,
    spec: &ModelSpec,
    layer_idx: usize,
) -> Result<Option<[Vec<f32>; 3]>, Error> {
    let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
    let bias = |part: &str, n: usize| vector(gguf, &format!("blk.{layer_idx}.{part}.bias"), n);
    spec.has_qkv_bias
        .then(|| Ok([bias("attn_q", n_q)?, bias("attn_k", n_kv)?, bias("attn_v", n_kv)?]))
        .transpose()
}

/// Returns the weights of the norms of a layer's query heads and key heads, if it has them.
pub(super) fn qk_norm(
    gguf: &Gguf,
    spec: &ModelSpec,
    layer_idx: usize,
) -> Result<Option<[Vec<f32>; 2]>, Error> {
    let norm = |part: &str| vector(gguf, &format!("blk.{layer_idx}.{part}.weight"), spec.head_dim);
    spec.has_qk_norm.then(|| Ok([norm("attn_q_norm")?, norm("attn_k_norm")?])).transpose()
}

/// Returns the wavelength factors of Llama 3: `[rope.n_dims / 2]`, all 1 when the file has none.
pub(super) fn rope_factors(gguf: &Gguf, spec: &ModelSpec) -> Result<Vec<f32>, Error> {
    match gguf.tensor("rope_freqs.weight") {
        Ok(_) => vector(gguf, "rope_freqs.weight", spec.rope.n_dims / 2),
        Err(_) => Ok(vec![1.0; spec.rope.n_dims / 2]),
    }
}

fn is_known(spec: &ModelSpec, tensor: &str) -> bool {
    const PARTS: [&str; 6] = [
        "attn_norm.weight",
        "attn_q.weight",
        "attn_k.weight",
        "attn_v.weight",
        "attn_output.weight",
        "ffn_norm.weight",
    ];
    match tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        // Some converters repeat the rotary frequencies in every layer; they follow from the metadata.
        Some((_, part)) => match part {
            "attn_q.bias" | "attn_k.bias" | "attn_v.bias" => spec.has_qkv_bias,
            "attn_q_norm.weight" | "attn_k_norm.weight" => spec.has_qk_norm,
            "ffn_gate_inp.weight"
            | "ffn_gate_exps.weight"
            | "ffn_up_exps.weight"
            | "ffn_down_exps.weight" => spec.experts.is_some(),
            "ffn_gate.weight" | "ffn_up.weight" | "ffn_down.weight" => spec.experts.is_none(),
            part => PARTS.contains(&part) || part == "attn_rot_embd",
        },
        None => ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"]
            .contains(&tensor),
    }
}

/// Takes tensors out of a file.
struct Loader<'g> {
    gguf: &'g Gguf,
    packer: Packer<'g>,
}

impl<'g> Loader<'g> {
    fn matrix(&mut self, name: &str, n_out: usize, n_in: usize) -> Result<Matrix, Error> {
        let tensor = matrix_of(self.gguf, name, &[n_in, n_out])?;
        Ok(self.packed(tensor.dtype, tensor.data, n_out, n_in))
    }

    /// Takes `n` matrices that the file has as one tensor.
    fn matrices(&mut self, name: &str, n: usize, n_out: usize, n_in: usize) -> Result<Vec<Matrix>, Error> {
        let tensor = matrix_of(self.gguf, name, &[n_in, n_out, n])?;
        let parts = tensor.data.chunks_exact(tensor.data.len() / n);
        Ok(parts.map(|data| self.packed(tensor.dtype, data, n_out, n_in)).collect())
    }

    fn packed(&mut self, dtype: GgmlType, rows: &'g [u8], n_out: usize, n_in: usize) -> Matrix {
        let format = Format::of(dtype).filter(|format| n_in.is_multiple_of(format.row_multiple()));
        let data = match format {
            Some(format) => Data::Panels(self.packer.add(format, rows, n_out, n_in)),
            None => Data::Candle(candle_type(dtype).from_data(Cow::Borrowed(rows))),
        };
        Matrix { data, n_out, n_in }
    }

    fn feed_forward(&mut self, spec: &ModelSpec, layer_idx: usize) -> Result<FeedForward, Error> {
        let name = |part: &str| format!("blk.{layer_idx}.{part}.weight");
        let (n_embd, n_ff) = (spec.n_embd, spec.n_ff);
        let Some(ExpertSpec { n_experts, n_used }) = spec.experts else {
            return Ok(FeedForward::Dense(SwiGlu {
                gate: self.matrix(&name("ffn_gate"), n_ff, n_embd)?,
                up: self.matrix(&name("ffn_up"), n_ff, n_embd)?,
                down: self.matrix(&name("ffn_down"), n_embd, n_ff)?,
            }));
        };
        let router = self.matrix(&name("ffn_gate_inp"), n_experts, n_embd)?;
        let gates = self.matrices(&name("ffn_gate_exps"), n_experts, n_ff, n_embd)?;
        let ups = self.matrices(&name("ffn_up_exps"), n_experts, n_ff, n_embd)?;
        let downs = self.matrices(&name("ffn_down_exps"), n_experts, n_embd, n_ff)?;
        let branches = gates.into_iter().zip(ups).zip(downs);
        let experts = branches.map(|((gate, up), down)| SwiGlu { gate, up, down }).collect();
        Ok(FeedForward::Mixture(Mixture { router, experts, n_used }))
    }

    /// Repacks the matrices taken so far. Of the file only what is being read is in this process's memory.
    fn finish(self, pool: &Pool, progress: &mut dyn FnMut(f32)) -> Result<(), Error> {
        let Self { gguf, packer } = self;
        let n_bytes = packer.n_file_bytes() as f32;
        let mut n_done = 0;
        let packed = packer.pack(pool, |rows| {
            gguf.forget(rows);
            n_done += rows.len();
            progress(n_done as f32 / n_bytes);
        });
        packed.map_err(|source| Error::Io { path: gguf.path().to_owned(), source })
    }
}

/// Returns a tensor that must have a shape, the innermost dimension first.
pub(super) fn matrix_of<'g>(gguf: &'g Gguf, name: &str, shape: &[usize]) -> Result<TensorView<'g>, Error> {
    let tensor = gguf.tensor(name).map_err(|source| Error::Inconsistent(source.to_string()))?;
    if !tensor.shape.iter().copied().eq(shape.iter().map(|n| *n as u64)) {
        return Err(Error::Inconsistent(format!("{name} is {:?}, expected {shape:?}", tensor.shape)));
    }
    Ok(tensor)
}

/// Returns a tensor of one dimension.
pub(super) fn vector(gguf: &Gguf, name: &str, n: usize) -> Result<Vec<f32>, Error> {
    let tensor = gguf.tensor(name).map_err(|source| Error::Inconsistent(source.to_string()))?;
    if tensor.shape.iter().product::<u64>() != n as u64 {
        return Err(Error::Inconsistent(format!("{name} is {:?}, expected [{n}]", tensor.shape)));
    }
    dequantise(candle_type(tensor.dtype), tensor.data, n)
}

pub(super) fn dequantise(dtype: GgmlDType, bytes: &[u8], n: usize) -> Result<Vec<f32>, Error> {
    match dtype.from_data(Cow::Borrowed(bytes)).dequantize(n)? {
        candle_core::CpuStorage::F32(values) => Ok(values),
        other => Err(Error::Inconsistent(format!("{dtype:?} values came as {:?}", other.dtype()))),
    }
}

pub(super) fn candle_type(dtype: GgmlType) -> GgmlDType {
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

//! A model's matrices and norms in a GPU's memory.
//!
//! In: GGUF tensors, or a shape and a seed. Out: [`Weights`]. What shares its input is one matrix where it can be: query,
//! key and value of one form; gate and other branch, 8 rows of each by turns.

use std::collections::BTreeSet;

use crate::backend::weights::{candle_type, dequantise, matrix_of, qk_norm, qkv_bias, vector};
use crate::kernel::cuda::{DeviceMatrix, Form, Gpu, Memory, pack_rows};
use crate::{Error, GgmlType, Gguf, ModelSpec, TensorView};

/// Rows of the gate, and then of the other branch, that stand together.
const N_BY_TURNS: usize = 8;

/// One decoder layer.
pub(super) struct Layer {
    pub(super) attn_norm: Memory<f32>,
    /// Each with the first of its columns in the product.
    pub(super) qkv: Vec<(usize, DeviceMatrix)>,
    /// What is added to their product.
    pub(super) qkv_bias: Option<Memory<f32>>,
    /// Weights of the norms of a query's head and a key's: `[2, head_dim]`.
    pub(super) qk_norm: Option<Memory<f32>>,
    pub(super) o: DeviceMatrix,
    pub(super) ffn_norm: Memory<f32>,
    pub(super) gate_up: DeviceMatrix,
    pub(super) down: DeviceMatrix,
}

/// Everything a forward pass reads.
pub(super) struct Weights {
    pub(super) token_embd: DeviceMatrix,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: Memory<f32>,
    /// None when the head is tied to `token_embd`.
    pub(super) output: Option<DeviceMatrix>,
}

impl Weights {
    /// Returns the matrix that turns the last hidden state into logits.
    pub(super) fn head(&self) -> &DeviceMatrix {
        self.output.as_ref().unwrap_or(&self.token_embd)
    }

    /// Returns how many bytes all matrices take.
    pub(super) fn n_bytes(&self) -> usize {
        self.matrices().map(DeviceMatrix::n_bytes).sum()
    }

    /// Returns how many bytes of them a step of one row reads.
    pub(super) fn n_read_bytes(&self) -> usize {
        let n_looked_up = self.output.as_ref().map_or(0, |_| self.token_embd.n_bytes());
        self.n_bytes() - n_looked_up
    }

    /// Returns the most weights of a matrix of codes in a layer: what is unpacked for many rows.
    pub(super) fn n_max_unpacked(&self) -> usize {
        let unpacked = |matrix: &DeviceMatrix| match matrix.form {
            Form::Floats => 0,
            _ => matrix.n_out * matrix.n_in,
        };
        self.layers.iter().flat_map(Layer::matrices).map(unpacked).max().unwrap_or(0)
    }

    fn matrices(&self) -> impl Iterator<Item = &DeviceMatrix> {
        self.layers.iter().flat_map(Layer::matrices).chain([&self.token_embd]).chain(&self.output)
    }

    /// Copies the tensors of a file to a GPU; `progress` hears the share done.
    pub(super) fn load(
        gpu: &Gpu,
        gguf: &Gguf,
        spec: &ModelSpec,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, Error> {
        let loader = Loader { gpu, gguf };
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let mut layers = Vec::with_capacity(spec.n_layers);
        for idx in 0..spec.n_layers {
            let name = |part: &str| format!("blk.{idx}.{part}.weight");
            layers.push(Layer {
                attn_norm: loader.vector(&name("attn_norm"), spec.n_embd)?,
                qkv: loader.side_by_side(
                    &[(&name("attn_q"), n_q), (&name("attn_k"), n_kv), (&name("attn_v"), n_kv)],
                    spec.n_embd,
                )?,
                qkv_bias: loader.joined(qkv_bias(gguf, spec, idx)?)?,
                qk_norm: loader.joined(qk_norm(gguf, spec, idx)?)?,
                o: loader.matrix(&name("attn_output"), spec.n_embd, n_q)?,
                ffn_norm: loader.vector(&name("ffn_norm"), spec.n_embd)?,
                gate_up: loader.by_turns([&name("ffn_gate"), &name("ffn_up")], spec.n_ff, spec.n_embd)?,
                down: loader.matrix(&name("ffn_down"), spec.n_embd, spec.n_ff)?,
            });
            progress((idx + 1) as f32 / (spec.n_layers + 1) as f32);
        }
        let weights = Self {
            token_embd: loader.matrix("token_embd.weight", spec.n_vocab, spec.n_embd)?,
            output_norm: loader.vector("output_norm.weight", spec.n_embd)?,
            output: match gguf.tensor("output.weight") {
                Ok(_) => Some(loader.matrix("output.weight", spec.n_vocab, spec.n_embd)?),
                Err(_) => None,
            },
            layers,
        };
        progress(1.0);
        Ok(weights)
    }

    /// Makes a model whose weights look random, for measurements.
    pub(super) fn random(gpu: &Gpu, spec: &ModelSpec, form: Form) -> Result<Self, Error> {
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let mut seed = 0;
        // As large as keeps a row's numbers as large as they are.
        let mut matrix = |n_out: usize, n_in: usize| {
            seed += 1;
            gpu.random_matrix(form, n_out, n_in, (3.0 / n_in as f32).sqrt(), seed)
        };
        let ones = vec![1.0; spec.n_embd];
        let biases = vec![0.01; n_q + 2 * n_kv];
        let norms = vec![1.0; 2 * spec.head_dim];
        let mut layers = Vec::with_capacity(spec.n_layers);
        for _ in 0..spec.n_layers {
            layers.push(Layer {
                attn_norm: gpu.upload(&ones)?,
                qkv: vec![(0, matrix(n_q + 2 * n_kv, spec.n_embd)?)],
                qkv_bias: spec.has_qkv_bias.then(|| gpu.upload(&biases)).transpose()?,
                qk_norm: spec.has_qk_norm.then(|| gpu.upload(&norms)).transpose()?,
                o: matrix(spec.n_embd, n_q)?,
                ffn_norm: gpu.upload(&ones)?,
                gate_up: matrix(2 * spec.n_ff, spec.n_embd)?,
                down: matrix(spec.n_embd, spec.n_ff)?,
            });
        }
        Ok(Self {
            token_embd: matrix(spec.n_vocab, spec.n_embd)?,
            output_norm: gpu.upload(&ones)?,
            output: Some(matrix(spec.n_vocab, spec.n_embd)?),
            layers,
        })
    }
}

impl Layer {
    fn matrices(&self) -> impl Iterator<Item = &DeviceMatrix> {
        let qkv = self.qkv.iter().map(|(_, matrix)| matrix);
        qkv.chain([&self.o, &self.gate_up, &self.down])
    }
}

/// Returns the forms that a file's matrices will have.
pub(super) fn forms(gguf: &Gguf) -> BTreeSet<Form> {
    // Floats too: a gate and another branch of different forms become numbers.
    let matrices = gguf.tensors().filter(|tensor| tensor.shape.len() > 1);
    matrices.map(|tensor| Form::of(tensor.dtype)).chain([Form::Floats]).collect()
}

struct Loader<'a> {
    gpu: &'a Gpu,
    gguf: &'a Gguf,
}

impl Loader<'_> {
    fn vector(&self, name: &str, n: usize) -> Result<Memory<f32>, Error> {
        self.gpu.upload(&vector(self.gguf, name, n)?)
    }

    /// Returns vectors, if there are any, as one.
    fn joined<const N: usize>(&self, vectors: Option<[Vec<f32>; N]>) -> Result<Option<Memory<f32>>, Error> {
        vectors.map(|vectors| self.gpu.upload(&vectors.concat())).transpose()
    }

    fn matrix(&self, name: &str, n_out: usize, n_in: usize) -> Result<DeviceMatrix, Error> {
        let tensor = matrix_of(self.gguf, name, &[n_in, n_out])?;
        let form = Form::of(tensor.dtype);
        let mut rows = vec![0; n_out * form.row_bytes(n_in)];
        pack(&tensor, form, n_in, &mut rows, |row| row)?;
        self.gguf.forget(tensor.data);
        self.gpu.matrix(form, n_out, n_in, &rows)
    }

    /// Returns matrices that share their input, neighbours of one form as one.
    fn side_by_side(
        &self,
        parts: &[(&str, usize)],
        n_in: usize,
    ) -> Result<Vec<(usize, DeviceMatrix)>, Error> {
        let mut packed: Vec<(usize, Form, usize, Vec<u8>)> = Vec::new();
        let mut first = 0;
        for &(name, n_out) in parts {
            let tensor = matrix_of(self.gguf, name, &[n_in, n_out])?;
            let form = Form::of(tensor.dtype);
            let mut rows = vec![0; n_out * form.row_bytes(n_in)];
            pack(&tensor, form, n_in, &mut rows, |row| row)?;
            self.gguf.forget(tensor.data);
            match packed.last_mut().filter(|(_, last, ..)| *last == form) {
                Some((_, _, n_before, before)) => {
                    *n_before += n_out;
                    before.extend_from_slice(&rows);
                }
                None => packed.push((first, form, n_out, rows)),
            }
            first += n_out;
        }
        let upload = |(first, form, n_out, rows): (usize, Form, usize, Vec<u8>)| {
            Ok((first, self.gpu.matrix(form, n_out, n_in, &rows)?))
        };
        packed.into_iter().map(upload).collect()
    }

    /// Returns two matrices as one that has 8 rows of each by turns.
    fn by_turns(&self, names: [&str; 2], n_out: usize, n_in: usize) -> Result<DeviceMatrix, Error> {
        let [gate, other] = names.map(|name| matrix_of(self.gguf, name, &[n_in, n_out]));
        let tensors = [gate?, other?];
        let [form, other] = [Form::of(tensors[0].dtype), Form::of(tensors[1].dtype)];
        let form = if form == other { form } else { Form::Floats };
        let mut rows = vec![0; 2 * n_out * form.row_bytes(n_in)];
        for (idx, tensor) in tensors.iter().enumerate() {
            let place = |row: usize| row / N_BY_TURNS * 2 * N_BY_TURNS + idx * N_BY_TURNS + row % N_BY_TURNS;
            pack(tensor, form, n_in, &mut rows, place)?;
            self.gguf.forget(tensor.data);
        }
        self.gpu.matrix(form, 2 * n_out, n_in, &rows)
    }
}

/// Writes a tensor's rows in a form that holds them.
fn pack(
    tensor: &TensorView<'_>,
    form: Form,
    n_in: usize,
    to: &mut [u8],
    place: impl Fn(usize) -> usize,
) -> Result<(), Error> {
    let is_direct = !matches!(tensor.dtype, GgmlType::Q2K | GgmlType::Q3K) && Form::of(tensor.dtype) == form;
    if is_direct {
        pack_rows(tensor.dtype, tensor.data, n_in, to, place);
        return Ok(());
    }
    let n = tensor.shape.iter().product::<u64>() as usize;
    let numbers = dequantise(candle_type(tensor.dtype), tensor.data, n)?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    pack_rows(GgmlType::F32, &bytes, n_in, to, place);
    Ok(())
}

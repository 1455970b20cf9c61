//! What only a GPU is asked: how it agrees with the CPU, many sequences at once, models that exist for measuring.
//!
//! In: a shape or a model file. Out: durations, agreements. Never: asserts a time.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Bench;
use crate::backend::float;
use crate::device::Place;
use crate::kernel::cuda::Form;
use crate::{
    BLOCK_TOKENS, Backend as _, CpuBackend, CudaBackend, Error, Gguf, KvPool, KvType, Logits, ModelSpec,
    RowSpan, Sequence, StepBatch, StepControl, TokenId,
};

/// Rows of a step of a prompt.
const N_PROMPT_ROWS: usize = 500;
/// Bytes of a copy that is timed, and how often it is made.
const N_COPIED: usize = 2 << 30;
const N_COPIES: usize = 10;

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// f16; what a file has as bf16 is f16 on a GPU.
    Sixteen,
    /// 4 bits, and 1 for scale and min.
    Four,
}

/// How far a GPU's logits are from the CPU's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreement {
    /// Squared error over squared value, of all logits.
    pub nmse: f64,
    /// Rows whose likeliest token is the same.
    pub n_equal: usize,
    /// Rows compared.
    pub n_rows: usize,
}

impl Bench {
    /// Makes a model of a shape in a GPU's memory, whose weights look random, with room for `n_max_tokens` positions.
    ///
    /// # Errors
    /// [`Error::NoGpu`], [`Error::Gpu`], and [`Error::Unsupported`] for a shape that has no kernels.
    pub fn random(spec: &ModelSpec, bits: Bits, n_max_tokens: usize) -> Result<Self, Error> {
        let form = match bits {
            Bits::Sixteen => Form::Floats,
            Bits::Four => Form::Nibbles,
        };
        let (backend, kv) = CudaBackend::random(spec, form, n_max_tokens)?;
        Ok(Self::new(Place::Cuda(Box::new(backend)), kv, spec.clone()))
    }

    /// Returns the GPU's name, whether cuBLAS is there, and the bytes of weights that a step reads at least; none for a
    /// model that the CPU runs.
    pub fn gpu(&self) -> Option<(String, bool, usize)> {
        let backend = self.cuda()?;
        Some((backend.gpu_name().to_owned(), backend.has_blas(), backend.n_read_bytes()))
    }

    fn cuda(&self) -> Option<&CudaBackend> {
        match &self.place {
            Place::Cuda(backend) => Some(backend),
            _ => None,
        }
    }

    /// Returns how many bytes a second the GPU reads and writes when it copies its memory.
    ///
    /// # Errors
    /// [`Error::Gpu`], and [`Error::NoGpu`] if the CPU runs the model.
    pub fn copy_rate(&self) -> Result<f64, Error> {
        let gpu = self.cuda().ok_or_else(not_on_a_gpu)?.gpu();
        let (from, mut to) = (gpu.zeros(N_COPIED)?, gpu.zeros(N_COPIED)?);
        gpu.copy(&from, &mut to)?;
        gpu.wait()?;
        let started = Instant::now();
        for _ in 0..N_COPIES {
            gpu.copy(&from, &mut to)?;
        }
        gpu.wait()?;
        Ok((2 * N_COPIED * N_COPIES) as f64 / started.elapsed().as_secs_f64())
    }

    /// Times `n_steps` steps of one token of each of `n_sequences` sequences behind `depth` tokens: with their logits on
    /// the host, and with no more than the likeliest token of each.
    ///
    /// # Errors
    /// Those of a step, and [`Error::NoGpu`] if the CPU runs the model.
    pub fn decode_together(
        &mut self,
        n_sequences: usize,
        n_steps: usize,
        depth: usize,
    ) -> Result<[Duration; 2], Error> {
        let Place::Cuda(backend) = &mut self.place else { return Err(not_on_a_gpu()) };
        let mut run = Run { backend, kv: &mut self.kv, logits: &mut self.logits };
        let mut sequences: Vec<Sequence> = (0..n_sequences).map(|_| Sequence::default()).collect();
        for (idx, sequence) in sequences.iter_mut().enumerate() {
            let prompt: Vec<TokenId> = (0..depth).map(|at| token(&self.spec, idx * 31 + at)).collect();
            for tokens in prompt.chunks(N_PROMPT_ROWS) {
                run.step(&mut [(sequence, tokens)], &[], false)?;
            }
        }
        let mut times = [Duration::ZERO; 2];
        let wanted: Vec<usize> = (0..n_sequences).collect();
        let mut next: Vec<TokenId> = wanted.iter().map(|&idx| token(&self.spec, idx)).collect();
        for (time, is_best) in times.iter_mut().zip([false, true]) {
            // The first steps record what the others replay.
            for idx in 0..n_steps + 4 {
                let started = Instant::now();
                let mut parts: Vec<(&mut Sequence, &[TokenId])> =
                    sequences.iter_mut().zip(next.chunks(1)).collect();
                let best = run.step(&mut parts, &wanted, is_best)?;
                if is_best {
                    next = best;
                }
                if idx >= 4 {
                    *time += started.elapsed();
                }
            }
        }
        sequences.into_iter().for_each(|sequence| run.kv.release(sequence));
        Ok(times)
    }

    /// Compares a GPU's logits with the CPU's after each of `tokens`: as of a prompt, and as of an answer.
    ///
    /// # Errors
    /// As [`Engine::load`](crate::Engine::load), and for want of a GPU.
    pub fn agreement(path: &Path, tokens: &[TokenId]) -> Result<[Agreement; 2], Error> {
        let gguf = Gguf::open(path).map_err(|source| Error::opening(path, source))?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        let n_kv_tokens = 2 * tokens.len() + 2 * BLOCK_TOKENS;
        let (mut gpu, mut gpu_kv) = CudaBackend::load(&gguf, &spec, n_kv_tokens, &mut |_| {})?;
        let mut cpu = CpuBackend::load(&gguf, &spec, None, &mut |_| {})?;
        let mut cpu_kv = KvPool::new(&spec, n_kv_tokens, KvType::F16);
        let [mut of_cpu, mut of_prompt, mut of_answer] = [(); 3].map(|()| Sequence::default());
        let mut sums = [Sums::default(), Sums::default()];
        for tokens in tokens.chunks(N_PROMPT_ROWS) {
            let wanted: Vec<usize> = (0..tokens.len()).collect();
            let mut want = Logits::default();
            step(&mut cpu, &mut cpu_kv, &mut want, &mut of_cpu, tokens, &wanted)?;
            let mut got = Logits::default();
            step(&mut gpu, &mut gpu_kv, &mut got, &mut of_prompt, tokens, &wanted)?;
            wanted.iter().for_each(|&idx| sums[0].add(got.row(idx), want.row(idx)));
            let mut one = Logits::default();
            for (idx, token) in tokens.iter().enumerate() {
                step(&mut gpu, &mut gpu_kv, &mut one, &mut of_answer, &[*token], &[0])?;
                sums[1].add(one.row(0), want.row(idx));
            }
        }
        Ok(sums.map(|sums| sums.agreement()))
    }
}

/// A GPU's backend with its pool.
struct Run<'a> {
    backend: &'a mut CudaBackend,
    kv: &'a mut KvPool,
    logits: &'a mut Logits,
}

impl Run<'_> {
    /// Computes more tokens of some sequences; returns the likeliest ones if only these are wanted.
    fn step(
        &mut self,
        parts: &mut [(&mut Sequence, &[TokenId])],
        wanted: &[usize],
        is_best: bool,
    ) -> Result<Vec<TokenId>, Error> {
        for (sequence, tokens) in &mut *parts {
            self.kv.reserve(sequence, tokens.len())?;
        }
        let spans: Vec<RowSpan<'_>> = parts
            .iter()
            .map(|(sequence, tokens)| RowSpan {
                blocks: sequence.blocks(),
                start: sequence.tokens().len(),
                n_tokens: tokens.len(),
            })
            .collect();
        let tokens: Vec<TokenId> = parts.iter().flat_map(|(_, tokens)| *tokens).copied().collect();
        let batch = StepBatch { tokens: &tokens, spans: &spans, logits: wanted };
        let best = if is_best {
            self.backend.forward_best(&batch, self.kv)?
        } else {
            let control = StepControl { should_stop: &|| false };
            self.backend.forward(&batch, self.kv, self.logits, &control)?;
            Vec::new()
        };
        parts.iter_mut().for_each(|(sequence, tokens)| sequence.commit(tokens));
        Ok(best)
    }
}

/// Computes more tokens of one sequence.
fn step(
    backend: &mut dyn crate::Backend,
    kv: &mut KvPool,
    logits: &mut Logits,
    sequence: &mut Sequence,
    tokens: &[TokenId],
    wanted: &[usize],
) -> Result<(), Error> {
    kv.reserve(sequence, tokens.len())?;
    let span = RowSpan { blocks: sequence.blocks(), start: sequence.tokens().len(), n_tokens: tokens.len() };
    let batch = StepBatch { tokens, spans: &[span], logits: wanted };
    backend.forward(&batch, kv, logits, &StepControl { should_stop: &|| false })?;
    sequence.commit(tokens);
    Ok(())
}

/// Sums of a comparison.
#[derive(Default)]
struct Sums {
    error: f64,
    value: f64,
    n_equal: usize,
    n_rows: usize,
}

impl Sums {
    fn add(&mut self, got: &[f32], want: &[f32]) {
        for (got, want) in got.iter().zip(want) {
            self.error += f64::from(got - want).powi(2);
            self.value += f64::from(*want).powi(2);
        }
        let best = |row: &[f32]| row.iter().position(|logit| *logit == float::largest(row));
        self.n_equal += usize::from(best(got) == best(want));
        self.n_rows += 1;
    }

    fn agreement(&self) -> Agreement {
        Agreement { nmse: self.error / self.value, n_equal: self.n_equal, n_rows: self.n_rows }
    }
}

/// Returns some token: any do.
fn token(spec: &ModelSpec, idx: usize) -> TokenId {
    TokenId((idx as u64 * 7919 % spec.n_vocab as u64) as u32)
}

fn not_on_a_gpu() -> Error {
    Error::NoGpu("the CPU runs this model".into())
}

//! The CUDA backend: the same decoder as the CPU's, in a GPU's memory.
//!
//! In: token ids and block tables. Out: logits. Keys and values are f16 in memory of its own; the pool says which blocks.
//! Never: copies weights or activations to or from the host within a step.
//! Thread: the engine thread.
//!
//! A step of up to 64 rows gives a row the same bits whatever the others are; a longer one multiplies by cuBLAS where
//! that is installed, and attends in tiles, so the last bits of what a prompt leaves depend on how it was cut (I-7 holds for
//! the CPU alone). Steps without a prompt are recorded once and then replayed, for launches would take longer than they do.

mod step;
mod weights;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use step::{Part, Step};
use weights::{Layer, Weights};

use super::float;
use super::weights::{check_known, rope_factors};
use crate::kernel::cuda::{
    Attention, Ending, Form, Gpu, Halves, Ints, KernelShape, Memory, N_MAX_TILE_ROWS, Recording, Staging,
};
use crate::{
    BLOCK_TOKENS, Backend, Error, Gguf, KvPool, Logits, ModelSpec, StepBatch, StepControl, StepEnd, TokenId,
};

/// Rows for which there is room from the start: what a step of decoding has, and some more.
const N_FIRST_ROWS: usize = 64;
/// Most rows times pieces that are attended at once.
const N_MAX_PARTS: usize = 4096;
/// Rows of logits that are copied at once.
const N_STAGED_ROWS: usize = 8;
/// Most steps that are kept recorded.
const N_MAX_RECORDED: usize = 96;

/// Runs a model on a GPU of NVIDIA.
pub struct CudaBackend {
    gpu: Gpu,
    model: Model,
    cache: Cache,
    buffers: Buffers,
    staging: Staging,
    /// Nothing yet for a kind that came once: what a kernel's first launch loads cannot be recorded.
    recorded: HashMap<StepKind, Option<Recording>>,
}

/// What a step reads.
struct Model {
    spec: ModelSpec,
    weights: Weights,
    /// (cos, sin) of every rotated pair of every position, times the magnitude: `[n_positions, rope.n_dims / 2, 2]`.
    angles: Memory<f32>,
}

/// Keys and values: `[n_layers, n_blocks]` blocks of each.
struct Cache {
    keys: Halves,
    values: Halves,
    n_blocks: usize,
    /// Numbers of a layer's keys, or values.
    n_layer: usize,
}

/// What a step writes.
struct Buffers {
    n_rows: usize,
    n_wanted: usize,
    ints: Memory<i32>,
    x: Memory<f32>,
    normed: Halves,
    qkv: Memory<f32>,
    q: Memory<f32>,
    attended: Halves,
    gated: Halves,
    parts: Memory<f32>,
    norms: Memory<f32>,
    /// For many rows: a product of gate and other branch, and a matrix as numbers.
    both: Memory<f32>,
    unpacked: Halves,
    logits: Memory<f32>,
    best: Memory<i32>,
}

/// Steps that launch the same, with other integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StepKind {
    n_rows: usize,
    n_wanted: usize,
    n_pieces: usize,
    wants: Wants,
}

/// What is wanted of the rows asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wants {
    Logits,
    /// The likeliest token alone.
    Best,
}

impl CudaBackend {
    /// Loads a model's weights into the first GPU, with room for the keys and values of `n_kv_tokens` positions;
    /// `progress` hears the share done. The pool of its steps is the one returned.
    ///
    /// # Errors
    /// [`Error::NoGpu`] where there is none to use, [`Error::Gpu`] where it fails or has not enough memory,
    /// [`Error::Unsupported`] for a shape its kernels do not compute; else as the CPU's.
    pub fn load(
        gguf: &Gguf,
        spec: &ModelSpec,
        n_kv_tokens: usize,
        progress: &mut dyn FnMut(f32),
    ) -> Result<(Self, KvPool), Error> {
        check_known(gguf, spec)?;
        let gpu = Gpu::open(KernelShape::of(spec)?, &weights::forms(gguf))?;
        let weights = Weights::load(&gpu, gguf, spec, progress)?;
        Self::new(gpu, spec, weights, &rope_factors(gguf, spec)?, n_kv_tokens)
    }

    /// Makes a model of a shape whose weights look random, of 16 bits or 4, to be measured.
    pub(crate) fn random(spec: &ModelSpec, form: Form, n_kv_tokens: usize) -> Result<(Self, KvPool), Error> {
        let gpu = Gpu::open(KernelShape::of(spec)?, &BTreeSet::from([form]))?;
        let weights = Weights::random(&gpu, spec, form)?;
        Self::new(gpu, spec, weights, &vec![1.0; spec.rope.n_dims / 2], n_kv_tokens)
    }

    fn new(
        gpu: Gpu,
        spec: &ModelSpec,
        weights: Weights,
        rope_factors: &[f32],
        n_kv_tokens: usize,
    ) -> Result<(Self, KvPool), Error> {
        let n_blocks = n_kv_tokens.div_ceil(BLOCK_TOKENS);
        let (steps, magnitude) = (float::rope_steps(spec, rope_factors), spec.rope.magnitude());
        let mut angles = Vec::with_capacity(n_blocks * BLOCK_TOKENS * steps.len() * 2);
        for position in 0..n_blocks * BLOCK_TOKENS {
            angles.extend(float::turns(&steps, magnitude, position).flat_map(|(cos, sin)| [cos, sin]));
        }
        let n_layer = n_blocks * BLOCK_TOKENS * spec.n_kv_heads * spec.head_dim;
        let cache = Cache {
            keys: gpu.zeros(spec.n_layers * n_layer)?,
            values: gpu.zeros(spec.n_layers * n_layer)?,
            n_blocks,
            n_layer,
        };
        let model = Model { spec: spec.clone(), weights, angles: gpu.upload(&angles)? };
        let buffers = Buffers::new(&gpu, &model, N_FIRST_ROWS, N_FIRST_ROWS)?;
        let staging = gpu.staging(N_STAGED_ROWS * spec.n_vocab)?;
        let backend = Self { gpu, model, cache, buffers, staging, recorded: HashMap::new() };
        Ok((backend, KvPool::on_device(n_kv_tokens)))
    }

    /// Returns the GPU's name.
    pub fn gpu_name(&self) -> &str {
        self.gpu.name()
    }

    /// Returns whether cuBLAS multiplies the rows of prompts.
    pub(crate) fn has_blas(&self) -> bool {
        self.gpu.has_blas()
    }

    /// Returns how many bytes the weights take.
    pub(crate) fn n_weight_bytes(&self) -> usize {
        self.model.weights.n_bytes()
    }

    /// Returns how many bytes of weights a step of one row reads.
    pub(crate) fn n_read_bytes(&self) -> usize {
        self.model.weights.n_read_bytes()
    }

    /// Returns the GPU.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Computes all rows of `batch` and returns the likeliest token of each that is asked for: nothing of the size of the
    /// vocabulary is copied.
    ///
    /// # Errors
    /// As [`Backend::forward`].
    pub(crate) fn forward_best(
        &mut self,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
    ) -> Result<Vec<TokenId>, Error> {
        self.run(batch, kv, &StepControl { should_stop: &|| false }, Wants::Best)?;
        let mut best = vec![0; batch.logits.len()];
        self.gpu.read(&self.buffers.best, &mut best)?;
        Ok(best.into_iter().map(|id| TokenId(id as u32)).collect())
    }

    /// Puts a step on the GPU's stream; what is wanted of it is there when the stream is done.
    fn run(
        &mut self,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
        control: &StepControl<'_>,
        wants: Wants,
    ) -> Result<StepEnd, Error> {
        let Self { gpu, model, cache, buffers, recorded, .. } = self;
        check(batch, model, cache)?;
        let (n_layers, n_blocks) = (model.spec.n_layers, cache.n_blocks);
        for (from, to) in kv.take_copies() {
            let blocks = (from.0 as usize, to.0 as usize);
            gpu.copy_block((&mut cache.keys, &mut cache.values), blocks, (n_layers, n_blocks))?;
        }
        if batch.tokens.is_empty() || (control.should_stop)() {
            return Ok(if batch.tokens.is_empty() { StepEnd::Done } else { StepEnd::Stopped });
        }
        let n_part = buffers.n_rows.max(batch.tokens.len().next_multiple_of(N_FIRST_ROWS));
        let step = Step::of(batch, n_part);
        if buffers.make_room(gpu, model, &step)? {
            recorded.clear();
        }
        gpu.write(&step.ints, &mut buffers.ints)?;
        let is_short = step.tiled.is_empty() && step.n_rows <= N_MAX_TILE_ROWS;
        if !is_short {
            return compute(gpu, model, cache, buffers, &step, wants, control);
        }
        let kind = StepKind { n_rows: step.n_rows, n_wanted: step.n_wanted, n_pieces: step.n_pieces, wants };
        if recorded.len() >= N_MAX_RECORDED {
            recorded.clear();
        }
        let Some(recording) = recorded.get_mut(&kind) else {
            recorded.insert(kind, None);
            return compute(gpu, model, cache, buffers, &step, wants, control);
        };
        if recording.is_none() {
            let whole = StepControl { should_stop: &|| false };
            let work = || compute(gpu, model, cache, buffers, &step, wants, &whole).map(drop);
            *recording = Some(gpu.record(work)?);
        }
        if let Some(recording) = recording {
            gpu.replay(recording)?;
        }
        Ok(StepEnd::Done)
    }
}

impl Backend for CudaBackend {
    fn forward(
        &mut self,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
        logits: &mut Logits,
        control: &StepControl<'_>,
    ) -> Result<StepEnd, Error> {
        let end = self.run(batch, kv, control, Wants::Logits)?;
        if end == StepEnd::Done {
            let to = logits.reset(batch.logits.len(), self.model.spec.n_vocab);
            self.gpu.read_staged(&self.buffers.logits, &mut self.staging, to)?;
            // Also where nothing was read: how long a step takes is what its caller learns from.
            self.gpu.wait()?;
        }
        Ok(end)
    }
}

/// Refuses what the kernels would read or write out of bounds.
fn check(batch: &StepBatch<'_>, model: &Model, cache: &Cache) -> Result<(), Error> {
    if let Some(unknown) = batch.tokens.iter().find(|token| token.0 as usize >= model.spec.n_vocab) {
        return Err(Error::UnknownToken(unknown.0));
    }
    let blocks = || batch.spans.iter().flat_map(|span| span.blocks);
    assert!(blocks().all(|block| (block.0 as usize) < cache.n_blocks), "a block of another pool");
    let n_rows: usize = batch.spans.iter().map(|span| span.n_tokens).sum();
    assert_eq!(n_rows, batch.tokens.len(), "rows of no span");
    let n_longest = batch.spans.iter().map(|span| span.start + span.n_tokens).max().unwrap_or(0);
    assert!(n_longest <= cache.n_blocks * BLOCK_TOKENS, "position {n_longest} has no angle");
    assert!(batch.logits.iter().all(|&row_idx| row_idx < n_rows), "logits of no row");
    Ok(())
}

/// Launches all of a step.
fn compute(
    gpu: &Gpu,
    model: &Model,
    cache: &mut Cache,
    buffers: &mut Buffers,
    step: &Step,
    wants: Wants,
    control: &StepControl<'_>,
) -> Result<StepEnd, Error> {
    let (spec, weights) = (&model.spec, &model.weights);
    let ids = part(&buffers.ints, step, Part::Ids);
    gpu.embed(&weights.token_embd, &ids, step.n_rows, &mut buffers.x)?;
    for (layer_idx, layer) in weights.layers.iter().enumerate() {
        // What is launched runs later: to hear of a keystroke in time, a long step waits for each layer.
        if step.n_rows > N_MAX_TILE_ROWS && layer_idx > 0 {
            gpu.wait()?;
        }
        if (control.should_stop)() {
            return Ok(StepEnd::Stopped);
        }
        attention(gpu, model, cache, buffers, step, (layer_idx, layer))?;
        let Buffers { x, normed, gated, both, unpacked, .. } = buffers;
        gpu.rms_norm(x, &layer.ffn_norm, None, step.n_rows, spec.norm_eps, normed)?;
        gpu.multiply_gated(&layer.gate_up, normed, step.n_rows, gated, (both, unpacked))?;
        let place = (0, spec.n_embd);
        gpu.multiply(&layer.down, gated, step.n_rows, x, place, Ending::Add, unpacked)?;
    }
    if step.n_wanted > 0 {
        let Buffers { x, normed, logits, best, ints, .. } = buffers;
        let wanted = part(ints, step, Part::Wanted);
        gpu.rms_norm(x, &weights.output_norm, Some(&wanted), step.n_wanted, spec.norm_eps, normed)?;
        gpu.multiply_tiled(weights.head(), normed, step.n_wanted, logits)?;
        if wants == Wants::Best {
            gpu.argmax(logits, spec.n_vocab, step.n_wanted, best)?;
        }
    }
    Ok(StepEnd::Done)
}

/// Launches the attention branch of one layer.
fn attention(
    gpu: &Gpu,
    model: &Model,
    cache: &mut Cache,
    buffers: &mut Buffers,
    step: &Step,
    (layer_idx, layer): (usize, &Layer),
) -> Result<(), Error> {
    let spec = &model.spec;
    let n_qkv = (spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim;
    let Buffers { x, normed, qkv, q, attended, parts, norms, unpacked, ints, .. } = buffers;
    gpu.rms_norm(x, &layer.attn_norm, None, step.n_rows, spec.norm_eps, normed)?;
    for (first, matrix) in &layer.qkv {
        gpu.multiply(matrix, normed, step.n_rows, qkv, (*first, n_qkv), Ending::Store, unpacked)?;
    }
    if let Some(weights) = &layer.qk_norm {
        gpu.norm_heads(qkv, weights, step.n_rows, spec.norm_eps)?;
    }
    let bias = layer.qkv_bias.as_ref();
    let (positions, places) = (part(ints, step, Part::Positions), part(ints, step, Part::Places));
    let arena = (&mut cache.keys, &mut cache.values);
    let place = (layer_idx, cache.n_layer);
    gpu.rotate_and_store(qkv, bias, &model.angles, &positions, &places, arena, place, q, step.n_rows)?;
    let from = Attention {
        q,
        keys: &cache.keys,
        values: &cache.values,
        layer: place,
        positions,
        spans: part(ints, step, Part::Spans),
        tables: ints.slice(5 * step.n_part..),
        n_table: step.n_table,
    };
    for rows in &step.single {
        let n_at_once = n_rows_at_once(step.n_pieces);
        for first in rows.clone().step_by(n_at_once) {
            let rows = first..(first + n_at_once).min(rows.end);
            gpu.attend(&from, rows, step.n_pieces, (parts, norms), attended)?;
        }
    }
    for tiled in &step.tiled {
        gpu.attend_many(&from, tiled.rows.clone(), tiled.start, tiled.span_idx, attended)?;
    }
    gpu.multiply(&layer.o, attended, step.n_rows, x, (0, spec.n_embd), Ending::Add, unpacked)
}

/// Returns how many rows are attended at once, so that what their pieces give has a bound.
fn n_rows_at_once(n_pieces: usize) -> usize {
    (N_MAX_PARTS / n_pieces).max(1)
}

fn part<'a>(ints: &'a Memory<i32>, step: &Step, part: Part) -> Ints<'a> {
    ints.slice(part as usize * step.n_part..(part as usize + 1) * step.n_part)
}

impl Buffers {
    fn new(gpu: &Gpu, model: &Model, n_rows: usize, n_wanted: usize) -> Result<Self, Error> {
        let (spec, is_long) = (&model.spec, n_rows > N_MAX_TILE_ROWS && gpu.has_blas());
        let (n_q, n_kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        Ok(Self {
            n_rows,
            n_wanted,
            ints: gpu.zeros(5 * n_rows)?,
            x: gpu.zeros(n_rows * spec.n_embd)?,
            normed: gpu.zeros(n_rows * spec.n_embd)?,
            qkv: gpu.zeros(n_rows * (n_q + 2 * n_kv))?,
            q: gpu.zeros(n_rows * n_q)?,
            attended: gpu.zeros(n_rows * n_q)?,
            gated: gpu.zeros(n_rows * spec.n_ff)?,
            parts: gpu.zeros(0)?,
            norms: gpu.zeros(0)?,
            both: gpu.zeros(if is_long { 2 * n_rows * spec.n_ff } else { 0 })?,
            unpacked: gpu.zeros(if is_long { model.weights.n_max_unpacked() } else { 0 })?,
            logits: gpu.zeros(n_wanted * spec.n_vocab)?,
            best: gpu.zeros(n_wanted)?,
        })
    }

    /// Makes room for a step; returns whether something lies elsewhere now.
    fn make_room(&mut self, gpu: &Gpu, model: &Model, step: &Step) -> Result<bool, Error> {
        let mut has_moved = false;
        if self.n_rows < step.n_part || self.n_wanted < step.n_wanted {
            let n_wanted = self.n_wanted.max(step.n_wanted.next_multiple_of(N_FIRST_ROWS));
            *self = Self::new(gpu, model, step.n_part, n_wanted)?;
            has_moved = true;
        }
        if self.ints.len() < step.ints.len() {
            self.ints = gpu.zeros(step.ints.len().next_power_of_two())?;
            has_moved = true;
        }
        let n_longest = step.single.iter().map(Range::len).max().unwrap_or(0);
        let n_parts = n_longest.min(n_rows_at_once(step.n_pieces)) * step.n_pieces;
        if self.norms.len() < 2 * n_parts * model.spec.n_heads {
            let n_parts = n_parts.next_power_of_two();
            self.parts = gpu.zeros(n_parts * model.spec.n_heads * model.spec.head_dim)?;
            self.norms = gpu.zeros(2 * n_parts * model.spec.n_heads)?;
            has_moved = true;
        }
        Ok(has_moved)
    }
}

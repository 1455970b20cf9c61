//! The kernels as functions that check what they are given.
//!
//! In: memory and counts. Out: launches on the stream. Never: waits.
#![expect(
    unsafe_code,
    reason = "launches of a GPU's kernels are checked here and nowhere else (STYLE rule 32)"
)]

use std::ops::Range;

use cudarc::cublas::{result::gemm_ex, sys as blas};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, DevicePtr, DevicePtrMut as _, LaunchConfig, PushKernelArg as _};

use super::device::failed;
use super::{DeviceMatrix, Form, Gpu, Halves, Ints, Memory};
use crate::{BLOCK_TOKENS, Error};

/// Positions of a piece of `attend`, as in decoder.cuh.
pub(crate) const N_PIECE: usize = 128;
/// Most rows that our own product takes in one reading of the weights.
pub(crate) const N_MAX_TILE_ROWS: usize = 64;
/// Threads of a kernel that goes over a row.
const N_THREADS: u32 = 256;

/// What is done with a product; the numbers are those of matrix.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It overwrites.
    Store = 0,
    /// It is added to what is there.
    Add = 1,
}

/// Ending of a product with gate and other branch, as in matrix.cuh.
const GATE: i32 = 2;

/// What attention reads and writes.
pub(crate) struct Attention<'a> {
    pub(crate) q: &'a Memory<f32>,
    pub(crate) keys: &'a Halves,
    pub(crate) values: &'a Halves,
    /// Which layer of `keys` and `values`, of how many numbers each.
    pub(crate) layer: (usize, usize),
    pub(crate) positions: Ints<'a>,
    pub(crate) spans: Ints<'a>,
    pub(crate) tables: Ints<'a>,
    /// Blocks of a row of `tables`.
    pub(crate) n_table: usize,
}

/// A recorded part of the stream.
pub(crate) struct Recording(CudaGraph);

// SAFETY: it is used by whoever has its backend, one thread at a time; the driver's graphs belong to no thread.
unsafe impl Send for Recording {}

enum Arg {
    Pointer(u64),
    Count(i32),
    Number(f32),
    Long(u64),
    Word(u32),
}

impl Gpu {
    fn at<T>(&self, memory: &impl DevicePtr<T>) -> Arg {
        Arg::Pointer(memory.device_ptr(&self.stream).0)
    }

    fn at_mut<T>(&self, memory: &mut Memory<T>) -> Arg {
        Arg::Pointer(memory.device_ptr_mut(&self.stream).0)
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and the memory they point to is as much as it reads and writes.
    unsafe fn launch(
        &self,
        kernel: &str,
        grid: [usize; 3],
        n_threads: u32,
        args: &[Arg],
    ) -> Result<(), Error> {
        let mut builder = self.stream.launch_builder(self.kernel(kernel)?);
        for arg in args {
            match arg {
                Arg::Pointer(value) | Arg::Long(value) => builder.arg(value),
                Arg::Count(value) => builder.arg(value),
                Arg::Number(value) => builder.arg(value),
                Arg::Word(value) => builder.arg(value),
            };
        }
        let [x, y, z] = grid.map(|n| n as u32);
        let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (n_threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: as the caller says.
        unsafe { builder.launch(config) }.map_err(failed)?;
        Ok(())
    }

    /// Writes the rows of a matrix that `ids` names, of which there are `n_rows`: `out: [n_rows, n_in] f32`.
    pub(crate) fn embed(
        &self,
        matrix: &DeviceMatrix,
        ids: &Ints<'_>,
        n_rows: usize,
        out: &mut Memory<f32>,
    ) -> Result<(), Error> {
        assert!(ids.len() >= n_rows && out.len() >= n_rows * matrix.n_in, "room for {n_rows} rows");
        let args = [self.at(&matrix.data), self.at(ids), self.at_mut(out), count(matrix.n_in)];
        let name = format!("embed_{}", matrix.form.name());
        // SAFETY: the lengths were checked; the caller has checked the ids against the vocabulary.
        unsafe { self.launch(&name, [n_rows, 1, 1], N_THREADS, &args) }
    }

    /// Normalises `n_rows` rows of `x: [.., n] f32`, the first ones or those that `rows` names, to `out: [n_rows, n] f16`.
    pub(crate) fn rms_norm(
        &self,
        x: &Memory<f32>,
        weight: &Memory<f32>,
        rows: Option<&Ints<'_>>,
        n_rows: usize,
        eps: f32,
        out: &mut Halves,
    ) -> Result<(), Error> {
        let n = weight.len();
        assert!(out.len() >= n_rows * n && x.len() >= n, "room for {n_rows} rows");
        assert!(rows.map_or(x.len() >= n_rows * n, |rows| rows.len() >= n_rows), "{n_rows} rows");
        let rows = rows.map_or(Arg::Pointer(0), |rows| self.at(rows));
        let args = [self.at(x), self.at(weight), rows, self.at_mut(out), count(n), Arg::Number(eps)];
        // SAFETY: the lengths were checked; the caller has checked that `rows` are within the step.
        unsafe { self.launch("rms_norm", [n_rows, 1, 1], N_THREADS, &args) }
    }

    /// Computes `x · Wᵀ` for `n_rows` rows `x: [n_rows, n_in] f16` into columns `first..` of `y: [n_rows, pitch] f32`.
    #[expect(
        clippy::too_many_arguments,
        reason = "a product has two factors and a place, each with its size"
    )]
    pub(crate) fn multiply(
        &self,
        matrix: &DeviceMatrix,
        x: &Halves,
        n_rows: usize,
        y: &mut Memory<f32>,
        (first, pitch): (usize, usize),
        ending: Ending,
        scratch: &mut Halves,
    ) -> Result<(), Error> {
        assert!(x.len() >= n_rows * matrix.n_in, "{n_rows} rows of {}", matrix.n_in);
        assert!(first + matrix.n_out <= pitch && y.len() >= n_rows * pitch, "room for {n_rows} rows");
        let to = match self.at_mut(y) {
            Arg::Pointer(at) => at + (first * size_of::<f32>()) as u64,
            _ => unreachable!("memory has an address"),
        };
        if n_rows > N_MAX_TILE_ROWS && self.blas.is_some() {
            return self.multiply_many(matrix, x, n_rows, (to, pitch), ending, scratch);
        }
        self.multiply_few(matrix, x, n_rows, (to, pitch), ending as i32)
    }

    /// Computes `y = x · Wᵀ` without cuBLAS, so that a row's sums do not depend on how many there are.
    pub(crate) fn multiply_tiled(
        &self,
        matrix: &DeviceMatrix,
        x: &Halves,
        n_rows: usize,
        y: &mut Memory<f32>,
    ) -> Result<(), Error> {
        assert!(x.len() >= n_rows * matrix.n_in, "{n_rows} rows of {}", matrix.n_in);
        assert!(y.len() >= n_rows * matrix.n_out, "room for {n_rows} rows");
        let Arg::Pointer(to) = self.at_mut(y) else { unreachable!("memory has an address") };
        self.multiply_few(matrix, x, n_rows, (to, matrix.n_out), Ending::Store as i32)
    }

    /// Computes `silu(gate) · other` of a matrix that has 8 rows of each by turns: `out: [n_rows, n_out / 2] f16`.
    pub(crate) fn multiply_gated(
        &self,
        matrix: &DeviceMatrix,
        x: &Halves,
        n_rows: usize,
        out: &mut Halves,
        (both, scratch): (&mut Memory<f32>, &mut Halves),
    ) -> Result<(), Error> {
        let n = matrix.n_out / 2;
        assert!(x.len() >= n_rows * matrix.n_in && out.len() >= n_rows * n, "room for {n_rows} rows");
        assert_eq!(matrix.n_out % 16, 0, "8 rows of each by turns");
        let Arg::Pointer(to) = self.at_mut(out) else { unreachable!("memory has an address") };
        if n_rows <= N_MAX_TILE_ROWS || self.blas.is_none() {
            return self.multiply_few(matrix, x, n_rows, (to, n), GATE);
        }
        self.multiply(matrix, x, n_rows, both, (0, matrix.n_out), Ending::Store, scratch)?;
        let args = [self.at(both), Arg::Pointer(to), count(n)];
        // SAFETY: `multiply` has checked `both`, and `out` was checked above.
        unsafe { self.launch("gate", [n_rows, 1, 1], N_THREADS, &args) }
    }

    fn multiply_few(
        &self,
        matrix: &DeviceMatrix,
        x: &Halves,
        n_rows: usize,
        (to, pitch): (u64, usize),
        ending: i32,
    ) -> Result<(), Error> {
        let n_tiles = n_rows.min(N_MAX_TILE_ROWS).div_ceil(8).next_power_of_two();
        let name = format!("multiply_{}_{n_tiles}", matrix.form.name());
        let grid = [matrix.n_out.div_ceil(16), n_rows.div_ceil(8 * n_tiles), 1];
        let args = [
            self.at(&matrix.data),
            self.at(x),
            Arg::Pointer(to),
            count(matrix.n_out),
            count(matrix.n_in),
            count(n_rows),
            count(pitch),
            Arg::Count(ending),
        ];
        // SAFETY: both callers have checked the lengths of rows and of the place.
        unsafe { self.launch(&name, grid, N_THREADS, &args) }
    }

    fn multiply_many(
        &self,
        matrix: &DeviceMatrix,
        x: &Halves,
        n_rows: usize,
        (to, pitch): (u64, usize),
        ending: Ending,
        scratch: &mut Halves,
    ) -> Result<(), Error> {
        let (n_out, n_in) = (matrix.n_out, matrix.n_in);
        let Arg::Pointer(weights) = (match matrix.form {
            Form::Floats => self.at(&matrix.data),
            form => {
                assert!(scratch.len() >= n_out * n_in, "room for {n_out} rows of {n_in} weights");
                let args = [self.at(&matrix.data), self.at_mut(scratch), count(n_in)];
                // SAFETY: the length was checked.
                unsafe { self.launch(&format!("unpack_{}", form.name()), [n_out, 1, 1], N_THREADS, &args)? };
                self.at(scratch)
            }
        }) else {
            unreachable!("memory has an address")
        };
        let Arg::Pointer(x) = self.at(x) else { unreachable!("memory has an address") };
        let Some(handle) = &self.blas else { return Err(Error::Gpu("cuBLAS is not installed".into())) };
        let (one, beta) = (1.0_f32, if ending == Ending::Add { 1.0_f32 } else { 0.0 });
        let transposed = blas::cublasOperation_t::CUBLAS_OP_T;
        let plain = blas::cublasOperation_t::CUBLAS_OP_N;
        let (half, float) = (blas::cudaDataType_t::CUDA_R_16F, blas::cudaDataType_t::CUDA_R_32F);
        // SAFETY: `multiply` has checked the lengths; cuBLAS has columns for rows, so y is [n_out, n_rows].
        let done = unsafe {
            gemm_ex(
                *handle.handle(),
                transposed,
                plain,
                n_out as i32,
                n_rows as i32,
                n_in as i32,
                (&raw const one).cast(),
                weights as *const _,
                half,
                n_in as i32,
                x as *const _,
                half,
                n_in as i32,
                (&raw const beta).cast(),
                to as *mut _,
                float,
                pitch as i32,
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|error| Error::Gpu(error.to_string()))
    }

    /// Normalises each query head and key head of `qkv`, by `weights: [2, head_dim]`.
    pub(crate) fn norm_heads(
        &self,
        qkv: &mut Memory<f32>,
        weights: &Memory<f32>,
        n_rows: usize,
        eps: f32,
    ) -> Result<(), Error> {
        let shape = self.shape;
        assert!(qkv.len() >= n_rows * shape.n_qkv(), "{n_rows} rows");
        assert_eq!(weights.len(), 2 * shape.head_dim, "weights of two norms");
        let args = [self.at_mut(qkv), self.at(weights), Arg::Number(eps)];
        // SAFETY: the lengths were checked.
        unsafe { self.launch("norm_heads", [n_rows, shape.n_heads + shape.n_kv_heads, 1], 32, &args) }
    }

    /// Adds `bias: [n_qkv]`, rotates queries and keys and writes keys and values to their places,
    /// `q: [n_rows, n_heads, head_dim] f32` scaled.
    #[expect(clippy::too_many_arguments, reason = "what is read and what is written, each with its place")]
    pub(crate) fn rotate_and_store(
        &self,
        qkv: &Memory<f32>,
        bias: Option<&Memory<f32>>,
        angles: &Memory<f32>,
        positions: &Ints<'_>,
        places: &Ints<'_>,
        (keys, values): (&mut Halves, &mut Halves),
        (layer_idx, n_layer): (usize, usize),
        q: &mut Memory<f32>,
        n_rows: usize,
    ) -> Result<(), Error> {
        let shape = self.shape;
        let n_q = shape.n_heads * shape.head_dim;
        assert!(qkv.len() >= n_rows * shape.n_qkv(), "{n_rows} rows");
        assert!(bias.is_none_or(|bias| bias.len() == shape.n_qkv()), "a bias of a row");
        assert!(
            q.len() >= n_rows * n_q && positions.len() >= n_rows && places.len() >= n_rows,
            "{n_rows} rows"
        );
        assert!(keys.len().min(values.len()) >= (layer_idx + 1) * n_layer, "layer {layer_idx}");
        let offset = (layer_idx * n_layer * size_of::<u16>()) as u64;
        let shifted = |arg: Arg| match arg {
            Arg::Pointer(at) => Arg::Pointer(at + offset),
            other => other,
        };
        let args = [
            self.at(qkv),
            bias.map_or(Arg::Pointer(0), |bias| self.at(bias)),
            self.at(angles),
            self.at(positions),
            self.at(places),
            shifted(self.at_mut(keys)),
            shifted(self.at_mut(values)),
            self.at_mut(q),
            Arg::Number(1.0 / (shape.head_dim as f32).sqrt()),
        ];
        // SAFETY: the lengths were checked; positions and places are of blocks of the pool, as the caller has checked.
        unsafe { self.launch("rotate_and_store", [n_rows, 1, 1], N_THREADS, &args) }
    }

    /// Attends `rows` of a step one by one, in `n_pieces` pieces each: `out: [n_rows, n_heads, head_dim] f16`.
    pub(crate) fn attend(
        &self,
        from: &Attention<'_>,
        rows: Range<usize>,
        n_pieces: usize,
        (parts, norms): (&mut Memory<f32>, &mut Memory<f32>),
        out: &mut Halves,
    ) -> Result<(), Error> {
        let shape = self.shape;
        let (n_q, n_done) = (shape.n_heads * shape.head_dim, rows.len() * n_pieces);
        assert!(
            parts.len() >= n_done * n_q && norms.len() >= 2 * n_done * shape.n_heads,
            "{n_pieces} pieces"
        );
        assert!(out.len().min(from.q.len()) >= rows.end * n_q, "{} rows", rows.end);
        assert!(from.positions.len().min(from.spans.len()) >= rows.end, "{} rows", rows.end);
        let [keys, values] = self.layer(from);
        let tiles = shape.n_heads / shape.n_together();
        let args = [
            self.at::<f32>(from.q),
            keys,
            values,
            self.at(&from.positions),
            self.at(&from.spans),
            self.at(&from.tables),
            count(from.n_table),
            self.at_mut(parts),
            self.at_mut(norms),
            count(rows.start),
        ];
        // SAFETY: the lengths were checked; the tables' blocks are of the pool, as the caller has checked.
        unsafe { self.launch("attend", [rows.len(), tiles, n_pieces], N_PIECE as u32, &args)? };
        let args = [
            self.at(parts),
            self.at(norms),
            self.at(&from.positions),
            count(n_pieces),
            self.at_mut(out),
            count(rows.start),
        ];
        // SAFETY: as above.
        unsafe { self.launch("combine", [rows.len(), shape.n_heads, 1], shape.head_dim as u32, &args) }
    }

    /// Attends a span's `rows`, the first of which is at `start`, by the blocks of row `span_idx` of the tables.
    pub(crate) fn attend_many(
        &self,
        from: &Attention<'_>,
        rows: Range<usize>,
        start: usize,
        span_idx: usize,
        out: &mut Halves,
    ) -> Result<(), Error> {
        let shape = self.shape;
        let n_q = shape.n_heads * shape.head_dim;
        assert!(out.len().min(from.q.len()) >= rows.end * n_q, "{} rows", rows.end);
        assert!((start + rows.len()).div_ceil(BLOCK_TOKENS) <= from.n_table, "{} blocks", from.n_table);
        assert!(from.tables.len() >= (span_idx + 1) * from.n_table, "span {span_idx}");
        let [keys, values] = self.layer(from);
        let Arg::Pointer(tables) = self.at(&from.tables) else { unreachable!("memory has an address") };
        let args = [
            self.at::<f32>(from.q),
            keys,
            values,
            Arg::Pointer(tables + (span_idx * from.n_table * size_of::<i32>()) as u64),
            self.at_mut(out),
            count(rows.start),
            count(rows.len()),
            count(start),
        ];
        // SAFETY: the lengths were checked; the table's blocks are of the pool, as the caller has checked.
        unsafe { self.launch("attend_many", [rows.len().div_ceil(64), shape.n_heads, 1], 128, &args) }
    }

    fn layer(&self, from: &Attention<'_>) -> [Arg; 2] {
        let (layer_idx, n_layer) = from.layer;
        assert!(from.keys.len().min(from.values.len()) >= (layer_idx + 1) * n_layer, "layer {layer_idx}");
        [from.keys, from.values].map(|arena| match self.at(arena) {
            Arg::Pointer(at) => Arg::Pointer(at + (layer_idx * n_layer * size_of::<u16>()) as u64),
            other => other,
        })
    }

    /// Copies a block of the KV cache over another, in all layers of `n_layer` numbers and `n_blocks` blocks.
    pub(crate) fn copy_block(
        &self,
        (keys, values): (&mut Halves, &mut Halves),
        (from, to): (usize, usize),
        (n_layers, n_blocks): (usize, usize),
    ) -> Result<(), Error> {
        let n_block = BLOCK_TOKENS * self.shape.n_kv_heads * self.shape.head_dim;
        assert!(keys.len().min(values.len()) >= n_layers * n_blocks * n_block, "{n_layers} layers");
        assert!(from < n_blocks && to < n_blocks, "blocks {from} and {to} of {n_blocks}");
        let args = [self.at_mut(keys), self.at_mut(values), count(from), count(to), count(n_blocks)];
        // SAFETY: the lengths were checked.
        unsafe { self.launch("copy_block", [n_layers, 2, 1], N_THREADS, &args) }
    }

    /// Writes the first of the largest of each row's logits: `logits: [n_rows, n] f32`, `out: [n_rows]`.
    pub(crate) fn argmax(
        &self,
        logits: &Memory<f32>,
        n: usize,
        n_rows: usize,
        out: &mut Memory<i32>,
    ) -> Result<(), Error> {
        assert!(logits.len() >= n_rows * n && out.len() >= n_rows, "{n_rows} rows");
        let args = [self.at(logits), self.at_mut(out), count(n)];
        // SAFETY: the lengths were checked.
        unsafe { self.launch("argmax", [n_rows, 1, 1], 1024, &args) }
    }

    /// Returns a matrix of numbers that look random, at most `scale`, in f16 or 4 bits.
    pub(crate) fn random_matrix(
        &self,
        form: Form,
        n_out: usize,
        n_in: usize,
        scale: f32,
        seed: u32,
    ) -> Result<DeviceMatrix, Error> {
        let mut data = self.zeros::<u8>(n_out * form.row_bytes(n_in))?;
        let (name, n) = match form {
            Form::Floats => ("fill_floats", data.len() / 2),
            Form::Nibbles => ("fill_nibbles", data.len() / 80),
            Form::Bytes | Form::Halved => {
                return Err(Error::Gpu(format!("no random {}", form.name())));
            }
        };
        let args = [self.at_mut(&mut data), Arg::Long(n as u64), Arg::Number(scale), Arg::Word(seed)];
        // SAFETY: the length is that of the memory.
        unsafe { self.launch(name, [4096, 1, 1], N_THREADS, &args)? };
        Ok(DeviceMatrix { form, n_out, n_in, data })
    }

    /// Records what `work` puts on the stream, to be run as a whole, and as often as wanted, by [`Gpu::replay`].
    pub(crate) fn record(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<Recording, Error> {
        self.stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(failed)?;
        let done = work();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags).map_err(failed);
        done?;
        graph?.map(Recording).ok_or_else(|| Error::Gpu("nothing was recorded".into()))
    }

    /// Runs what was recorded.
    pub(crate) fn replay(&self, recording: &Recording) -> Result<(), Error> {
        recording.0.launch().map_err(failed)
    }
}

fn count(n: usize) -> Arg {
    Arg::Count(n as i32)
}

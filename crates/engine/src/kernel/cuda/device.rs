//! The device, its memory, and the kernels compiled for one model.
#![expect(
    unsafe_code,
    reason = "memory and launches of a GPU are checked here and nowhere else (STYLE rule 32)"
)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cudarc::cublas::{self, CudaBlas};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, CudaView, DriverError, PinnedHostSlice,
};
use cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};

use super::Form;
use crate::{Error, ModelSpec, RopePairing};

/// Compute capability from which on there is `mma.m16n8k16`: Ampere.
const MIN_CAPABILITY: i32 = 80;

const SOURCE: &str =
    concat!(include_str!("primitives.cuh"), include_str!("matrix.cuh"), include_str!("decoder.cuh"),);

/// Kernels that do not depend on a matrix's form.
const KERNELS: [&str; 11] = [
    "rms_norm",
    "gate",
    "norm_heads",
    "rotate_and_store",
    "copy_block",
    "attend",
    "combine",
    "attend_many",
    "argmax",
    "fill_floats",
    "fill_nibbles",
];

/// Memory of the GPU.
pub(crate) type Memory<T> = CudaSlice<T>;
/// f16 numbers, as their bits.
pub(crate) type Halves = CudaSlice<u16>;

/// Memory of the host that the GPU can write by itself.
pub(crate) struct Staging {
    memory: PinnedHostSlice<f32>,
    n: usize,
}

/// Integers of the GPU's memory.
pub(crate) type Ints<'a> = CudaView<'a, i32>;

/// A matrix `[n_out, n_in]` on the GPU.
pub(crate) struct DeviceMatrix {
    pub(crate) form: Form,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    // INVARIANT: `n_out` rows of `form.row_bytes(n_in)`.
    pub(super) data: Memory<u8>,
}

impl DeviceMatrix {
    /// Returns how many bytes it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        self.data.len()
    }
}

/// What of a model is compiled into the kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelShape {
    pub(crate) head_dim: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) n_rotated: usize,
    pub(crate) pairing: RopePairing,
}

impl KernelShape {
    /// Returns the shape of a model that the kernels can compute.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what they cannot.
    pub(crate) fn of(spec: &ModelSpec) -> Result<Self, Error> {
        let refuse = |what: String| {
            Err(Error::Unsupported {
                architecture: spec.architecture.clone(),
                what: format!("{what} on a GPU"),
            })
        };
        if spec.experts.is_some() {
            return refuse("a mixture of experts".into());
        }
        if spec.has_qkv_bias && spec.has_qk_norm {
            // The kernels would normalise before they add.
            return refuse("norms of heads with a bias".into());
        }
        if !spec.head_dim.is_multiple_of(32) || spec.head_dim > 256 {
            return refuse(format!("heads of {} dimensions", spec.head_dim));
        }
        if !spec.n_embd.is_multiple_of(32) || !spec.n_ff.is_multiple_of(32) {
            return refuse(format!("rows of {} or {} numbers", spec.n_embd, spec.n_ff));
        }
        Ok(Self {
            head_dim: spec.head_dim,
            n_heads: spec.n_heads,
            n_kv_heads: spec.n_kv_heads,
            n_rotated: spec.rope.n_dims,
            pairing: spec.rope.pairing,
        })
    }

    /// Returns how many numbers a row's queries, keys and values are.
    pub(super) fn n_qkv(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Returns how many query heads of one key-value head are computed together: as many as registers hold.
    pub(super) fn n_together(&self) -> usize {
        let group = self.n_heads / self.n_kv_heads;
        (1..=group.min(8)).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1)
    }
}

/// A GPU with the kernels for one model.
pub(crate) struct Gpu {
    pub(super) stream: Arc<CudaStream>,
    pub(super) shape: KernelShape,
    /// cuBLAS, for products of many rows, where it is installed.
    pub(super) blas: Option<CudaBlas>,
    kernels: HashMap<String, CudaFunction>,
    name: String,
}

impl Gpu {
    /// Opens the first GPU and compiles the kernels for a model whose matrices have some forms.
    ///
    /// # Errors
    /// [`Error::NoGpu`] when there is none to use, and why; [`Error::Gpu`] when one fails.
    pub(crate) fn open(shape: KernelShape, forms: &BTreeSet<Form>) -> Result<Self, Error> {
        // SAFETY: looks for libraries whose initialisers are the driver's and CUDA's own.
        let (has_driver, has_compiler, has_blas) = unsafe {
            (
                cudarc::driver::sys::is_culib_present(),
                cudarc::nvrtc::sys::is_culib_present(),
                cublas::sys::is_culib_present(),
            )
        };
        if !has_driver {
            return Err(Error::NoGpu("there is no driver of NVIDIA's (libcuda)".into()));
        }
        if !has_compiler {
            return Err(Error::NoGpu("CUDA's compiler library (libnvrtc) is not installed".into()));
        }
        let context = CudaContext::new(0).map_err(|error| Error::NoGpu(describe(error)))?;
        let (major, minor) = context.compute_capability().map_err(failed)?;
        if major * 10 + minor < MIN_CAPABILITY {
            return Err(Error::NoGpu(format!("its compute capability {major}.{minor} is below 8.0")));
        }
        // SAFETY: all work is on the one stream below, which keeps it in order without events.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(failed)?;
        let module = compile(&context, shape, forms, major * 10 + minor)?;
        let mut kernels = HashMap::new();
        let of_forms = forms.iter().flat_map(|form| {
            ["multiply_@_1", "multiply_@_2", "multiply_@_4", "multiply_@_8", "embed_@", "unpack_@"]
                .map(|name| name.replace('@', form.name()))
        });
        for name in KERNELS.map(str::to_owned).into_iter().chain(of_forms) {
            let function = module.load_function(&name).map_err(failed)?;
            kernels.insert(name, function);
        }
        let blas = match has_blas {
            true => Some(CudaBlas::new(Arc::clone(&stream)).map_err(|error| Error::Gpu(error.to_string()))?),
            false => None,
        };
        let name = context.name().map_err(failed)?;
        Ok(Self { stream, shape, blas, kernels, name })
    }

    /// Returns the GPU's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether cuBLAS multiplies many rows.
    pub(crate) fn has_blas(&self) -> bool {
        self.blas.is_some()
    }

    /// Returns memory filled with zeros.
    pub(crate) fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, n: usize) -> Result<Memory<T>, Error> {
        self.stream.alloc_zeros(n.max(1)).map_err(failed)
    }

    /// Copies values to new memory.
    pub(crate) fn upload<T: DeviceRepr>(&self, values: &[T]) -> Result<Memory<T>, Error> {
        self.stream.clone_htod(values).map_err(failed)
    }

    /// Copies values to the beginning of memory.
    pub(crate) fn write<T: DeviceRepr>(&self, values: &[T], to: &mut Memory<T>) -> Result<(), Error> {
        self.stream.memcpy_htod(values, to).map_err(failed)
    }

    /// Copies the beginning of memory to `to`, and waits until all is done.
    ///
    /// # Panics
    /// If there is less.
    pub(crate) fn read<T: DeviceRepr>(&self, from: &Memory<T>, to: &mut [T]) -> Result<(), Error> {
        self.stream.memcpy_dtoh(&from.slice(..to.len()), to).map_err(failed)?;
        self.wait()
    }

    /// Returns memory of the host that the GPU can write by itself.
    pub(crate) fn staging(&self, n: usize) -> Result<Staging, Error> {
        // SAFETY: any bits are f32.
        let memory = unsafe { self.stream.context().alloc_pinned_with_flags::<f32>(n, 0) }.map_err(failed)?;
        Ok(Staging { memory, n })
    }

    /// Copies the beginning of memory to `to` by way of `staging`, several times as fast as [`Gpu::read`], and waits until
    /// all is done.
    ///
    /// # Panics
    /// If there is less.
    pub(crate) fn read_staged(
        &self,
        from: &Memory<f32>,
        staging: &mut Staging,
        to: &mut [f32],
    ) -> Result<(), Error> {
        let n_at_once = staging.n.max(1);
        for (idx, to) in to.chunks_mut(n_at_once).enumerate() {
            let first = idx * n_at_once;
            let part = from.slice(first..first + to.len());
            let staged = &mut staging.memory.as_mut_slice().map_err(failed)?[..to.len()];
            self.stream.memcpy_dtoh(&part, staged).map_err(failed)?;
            self.wait()?;
            to.copy_from_slice(staged);
        }
        Ok(())
    }

    /// Copies memory to memory.
    pub(crate) fn copy(&self, from: &Memory<u8>, to: &mut Memory<u8>) -> Result<(), Error> {
        self.stream.memcpy_dtod(from, to).map_err(failed)
    }

    /// Waits until all is done.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        self.stream.synchronize().map_err(failed)
    }

    /// Returns a matrix of the bytes of its rows.
    ///
    /// # Panics
    /// If they are not as many as its form says.
    pub(crate) fn matrix(
        &self,
        form: Form,
        n_out: usize,
        n_in: usize,
        rows: &[u8],
    ) -> Result<DeviceMatrix, Error> {
        assert_eq!(rows.len(), n_out * form.row_bytes(n_in), "not {n_out} rows of {n_in} weights");
        Ok(DeviceMatrix { form, n_out, n_in, data: self.upload(rows)? })
    }

    /// Returns a kernel.
    pub(super) fn kernel(&self, name: &str) -> Result<&CudaFunction, Error> {
        self.kernels.get(name).ok_or_else(|| Error::Gpu(format!("no kernel `{name}`")))
    }
}

fn compile(
    context: &Arc<CudaContext>,
    shape: KernelShape,
    forms: &BTreeSet<Form>,
    capability: i32,
) -> Result<Arc<CudaModule>, Error> {
    let mut options = vec![format!("--gpu-architecture=compute_{capability}")];
    let numbers = [
        ("HEAD_DIM", shape.head_dim),
        ("N_HEADS", shape.n_heads),
        ("N_KV_HEADS", shape.n_kv_heads),
        ("N_ROTATED", shape.n_rotated),
        ("IS_NEOX", usize::from(shape.pairing == RopePairing::Neox)),
        ("N_TOGETHER", shape.n_together()),
    ];
    options.extend(numbers.map(|(name, value)| format!("-D{name}={value}")));
    options.extend(forms.iter().map(|form| format!("-DUSES_{}", form.name().to_uppercase())));
    let options = CompileOptions { options, ..CompileOptions::default() };
    let ptx = compile_ptx_with_opts(SOURCE, options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => Error::Gpu(log.to_string_lossy().into_owned()),
        other => Error::Gpu(other.to_string()),
    })?;
    context.load_module(ptx).map_err(failed)
}

/// Returns a failed call of the driver's as an error.
pub(super) fn failed(error: DriverError) -> Error {
    Error::Gpu(describe(error))
}

fn describe(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{} ({})", text.to_string_lossy(), name.to_string_lossy()),
        _ => format!("{error:?}"),
    }
}

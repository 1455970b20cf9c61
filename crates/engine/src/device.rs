//! Where a model runs: on the CPU, or on a GPU where the build and the machine have one.
//!
//! In: a model file and what was asked for. Out: a backend with its pool. Never: fails for want of a GPU; then the CPU
//! runs the model, and a sentence says why.

use std::fmt;
use std::str::FromStr;

use crate::{Backend, CpuBackend, Error, Gguf, KvPool, KvType, LoadProgress, ModelSpec};

/// Where a model should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// On a GPU if there is one that can, else on the CPU.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On a GPU of NVIDIA; on the CPU, with a remark, where there is none.
    Cuda,
}

impl Device {
    const ALL: [Self; 3] = [Self::Auto, Self::Cpu, Self::Cuda];

    /// Returns the name that [`Device::from_str`] and `--device` take.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of a [`Device`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: there are auto, cpu and cuda")]
pub struct UnknownDevice(pub String);

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        Self::ALL
            .into_iter()
            .find(|device| device.name() == name)
            .ok_or_else(|| UnknownDevice(name.to_owned()))
    }
}

/// A model loaded where it runs.
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) kv: KvPool,
    /// What is not as it was asked for.
    pub(crate) remark: Option<String>,
}

/// A backend, whichever it is.
pub(crate) enum Place {
    Cpu(Box<CpuBackend>),
    #[cfg(feature = "cuda")]
    Cuda(Box<crate::CudaBackend>),
}

impl Place {
    /// Returns the CPU's backend, whose threads a draft model can share.
    pub(crate) fn cpu(&self) -> Option<&CpuBackend> {
        match self {
            Self::Cpu(backend) => Some(backend),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => None,
        }
    }

    /// Returns how many bytes the weights take.
    pub(crate) fn n_weight_bytes(&self) -> usize {
        match self {
            Self::Cpu(backend) => backend.n_weight_bytes(),
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend.n_weight_bytes(),
        }
    }

    /// Returns the backend.
    pub(crate) fn backend_mut(&mut self) -> &mut dyn Backend {
        match self {
            Self::Cpu(backend) => &mut **backend,
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => &mut **backend,
        }
    }

    /// Returns the backend for the engine thread.
    pub(crate) fn into_backend(self) -> Box<dyn Backend> {
        match self {
            Self::Cpu(backend) => backend,
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend,
        }
    }
}

/// Loads a model where it should run, with room for `n_kv_tokens` positions.
///
/// # Errors
/// Those of the file; none for want of a GPU.
pub(crate) fn load(
    gguf: &Gguf,
    spec: &ModelSpec,
    (kv_type, n_kv_tokens): (KvType, usize),
    device: Device,
    progress: LoadProgress<'_>,
) -> Result<Placed, Error> {
    let remark = match device {
        Device::Cpu => None,
        Device::Auto | Device::Cuda => {
            match load_on_gpu(gguf, spec, (kv_type, n_kv_tokens), &mut *progress) {
                Ok(placed) => return Ok(placed),
                Err(why) => {
                    tracing::info!(%why, "the model runs on the CPU");
                    (device == Device::Cuda).then(|| format!("the model runs on the CPU: {why}"))
                }
            }
        }
    };
    let backend = Box::new(CpuBackend::load(gguf, spec, None, progress)?);
    Ok(Placed { place: Place::Cpu(backend), kv: KvPool::new(spec, n_kv_tokens, kv_type), remark })
}

/// Loads a model on a GPU.
///
/// # Errors
/// [`Error::NoGpu`] where there is none to use, and those of [`CudaBackend::load`](crate::CudaBackend::load).
#[cfg(feature = "cuda")]
pub(crate) fn load_on_gpu(
    gguf: &Gguf,
    spec: &ModelSpec,
    (kv_type, n_kv_tokens): (KvType, usize),
    progress: LoadProgress<'_>,
) -> Result<Placed, Error> {
    let (backend, kv) = crate::CudaBackend::load(gguf, spec, n_kv_tokens, progress)?;
    tracing::info!(gpu = backend.gpu_name(), "the model runs on a GPU");
    let remark = (kv_type != KvType::F16).then(|| {
        format!("on a GPU the KV cache stores f16 and not {kv_type}; `--device cpu` runs it on the CPU")
    });
    Ok(Placed { place: Place::Cuda(Box::new(backend)), kv, remark })
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn load_on_gpu(
    _: &Gguf,
    _: &ModelSpec,
    _: (KvType, usize),
    _: LoadProgress<'_>,
) -> Result<Placed, Error> {
    Err(Error::NoGpu("this program was built without CUDA (`--features cuda`)".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_name() {
        for device in Device::ALL {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("gpu".parse::<Device>(), Err(UnknownDevice("gpu".into())));
    }
}

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
    /// On the GPU of a Mac; on the CPU, with a remark, where there is none.
    Metal,
}

impl Device {
    const ALL: [Self; 4] = [Self::Auto, Self::Cpu, Self::Cuda, Self::Metal];

    /// Returns the name that [`Device::from_str`] and `--device` take.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
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
#[error("`{0}` is no device: there are auto, cpu, cuda and metal")]
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
    #[cfg(feature = "metal")]
    Metal(Box<crate::CandleBackend>),
}

impl Place {
    /// Returns the CPU's backend, whose threads a draft model can share.
    pub(crate) fn cpu(&self) -> Option<&CpuBackend> {
        match self {
            Self::Cpu(backend) => Some(backend),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => None,
            #[cfg(feature = "metal")]
            Self::Metal(_) => None,
        }
    }

    /// Returns how many bytes the weights take.
    pub(crate) fn n_weight_bytes(&self) -> usize {
        match self {
            Self::Cpu(backend) => backend.n_weight_bytes(),
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend.n_weight_bytes(),
            #[cfg(feature = "metal")]
            Self::Metal(backend) => backend.n_weight_bytes(),
        }
    }

    /// Returns the backend.
    pub(crate) fn backend_mut(&mut self) -> &mut dyn Backend {
        match self {
            Self::Cpu(backend) => &mut **backend,
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => &mut **backend,
            #[cfg(feature = "metal")]
            Self::Metal(backend) => &mut **backend,
        }
    }

    /// Returns the backend for the engine thread.
    pub(crate) fn into_backend(self) -> Box<dyn Backend> {
        match self {
            Self::Cpu(backend) => backend,
            #[cfg(feature = "cuda")]
            Self::Cuda(backend) => backend,
            #[cfg(feature = "metal")]
            Self::Metal(backend) => backend,
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
    let remark = if device == Device::Cpu {
        None
    } else {
        match load_on_gpu(gguf, spec, (kv_type, n_kv_tokens), device, &mut *progress) {
            Ok(placed) => return Ok(placed),
            Err(why) => {
                tracing::info!(%why, "the model runs on the CPU");
                (device != Device::Auto).then(|| format!("the model runs on the CPU: {why}"))
            }
        }
    };
    let backend = Box::new(CpuBackend::load(gguf, spec, None, progress)?);
    Ok(Placed { place: Place::Cpu(backend), kv: KvPool::new(spec, n_kv_tokens, kv_type), remark })
}

/// Loads a model on a GPU of the kind that `device` names.
///
/// # Errors
/// [`Error::NoGpu`] where there is none to use or this program was built without it, and those of the backend's `load`.
#[cfg_attr(
    not(any(feature = "cuda", feature = "metal")),
    expect(unused_variables, reason = "no GPU is built in")
)]
pub(crate) fn load_on_gpu(
    gguf: &Gguf,
    spec: &ModelSpec,
    (kv_type, n_kv_tokens): (KvType, usize),
    device: Device,
    progress: LoadProgress<'_>,
) -> Result<Placed, Error> {
    #[cfg(any(feature = "cuda", feature = "metal"))]
    let remark = (kv_type != KvType::F16).then(|| {
        format!("on a GPU the KV cache stores f16 and not {kv_type}; `--device cpu` runs it on the CPU")
    });
    #[cfg(feature = "metal")]
    if device != Device::Cuda {
        let (backend, kv) = crate::CandleBackend::load(gguf, spec, n_kv_tokens, progress)?;
        tracing::info!("the model runs on the GPU of a Mac");
        return Ok(Placed { place: Place::Metal(Box::new(backend)), kv, remark });
    }
    #[cfg(feature = "cuda")]
    if device != Device::Metal {
        let (backend, kv) = crate::CudaBackend::load(gguf, spec, n_kv_tokens, progress)?;
        tracing::info!(gpu = backend.gpu_name(), "the model runs on a GPU");
        return Ok(Placed { place: Place::Cuda(Box::new(backend)), kv, remark });
    }
    let feature = if device == Device::Metal { "metal" } else { "cuda" };
    Err(Error::NoGpu(format!("this program was built without `--features {feature}`")))
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

//! Where a step is computed.
//!
//! In: a [`StepBatch`] and the KV pool. Out: logits of the rows asked for, keys and values written.

mod attention;
#[cfg(any(feature = "metal", test))]
mod candle;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub(crate) mod float;
mod weights;

#[cfg(feature = "metal")]
pub use candle::CandleBackend;
pub use cpu::CpuBackend;
#[cfg(feature = "cuda")]
pub use cuda::CudaBackend;

use crate::{Error, KvPool, Logits, StepBatch};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// All rows are computed.
    Done,
    /// The step was given up between two layers; what it wrote lies behind every sequence's committed end.
    Stopped,
}

/// Asked between layers whether the step is still wanted.
pub struct StepControl<'a> {
    /// Returns true when the step should be given up (I-6: within one layer).
    pub should_stop: &'a dyn Fn() -> bool,
}

/// Computes steps. The engine thread owns it.
pub trait Backend: Send {
    /// Computes all rows of `batch` and fills `logits` for those asked for, in order.
    ///
    /// The result of a row depends on its sequence only, never on the other rows or on how a prompt was cut into
    /// steps (I-7). On a GPU that holds for short steps of CUDA's alone.
    ///
    /// # Errors
    /// [`Error::Candle`] when an operation fails, which is a bug or, on a GPU, want of memory.
    fn forward(
        &mut self,
        batch: &StepBatch<'_>,
        kv: &mut KvPool,
        logits: &mut Logits,
        control: &StepControl<'_>,
    ) -> Result<StepEnd, Error>;
}

//! What a GPU of NVIDIA computes: products of matrices with rows, and what stands between them.
//!
//! In: device memory. Out: device memory. Never: waits for the GPU, except where it says so.
//! Thread: the engine thread; everything is put on one stream, in order.
//!
//! The kernels are our own, compiled for the model at hand by NVRTC when it is loaded. The driver and CUDA's libraries
//! are looked for at run time, so a build needs nothing of them, and a machine without a GPU starts the same program.

mod device;
mod form;
mod launch;

pub(crate) use device::{DeviceMatrix, Gpu, Halves, Ints, KernelShape, Memory, Staging};
pub(crate) use form::{Form, pack_rows};
pub(crate) use launch::{Attention, Ending, N_MAX_TILE_ROWS, N_PIECE, Recording};

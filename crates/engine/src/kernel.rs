//! Products of quantised weights with quantised activations.
//!
//! In: weights repacked into [`Panels`], activations as [`Activations`]. Out: `f32` sums.
//! Never: depends on how many rows are computed together, on threads, or on the instruction set: every sum is added
//! up in the same order with the same roundings, so results are equal bit by bit (I-7, I-11).
//! Thread: any; the work is shared with rayon's. The instruction set is chosen once, at run time.
//!
//! A panel is 16 weight rows, interleaved so that one 64-byte load holds four weights of each: each 32-bit lane then
//! adds up one output, and nothing is ever summed across lanes. The blocks of 32 are those of ggml; the formats with
//! blocks of 256 still go through candle (issue 3).

/// Calls a kernel that is generic over rows, a code's bits, the code of zero, and whether blocks have a min.
#[cfg(target_arch = "x86_64")]
macro_rules! for_format {
    ($format:expr, $kernel:ident::<$n:ident>($($arg:expr),*)) => {
        for_format!(@match $format, $kernel, $n, ($($arg),*), Q4_0 Q4_1 Q5_0 Q5_1 Q8_0)
    };
    (@match $format:expr, $kernel:ident, $n:ident, $args:tt, $($name:ident)*) => {
        match $format {
            $(Format::$name => for_format!(@call $kernel, $n, $name, $args),)*
        }
    };
    (@call $kernel:ident, $n:ident, $name:ident, ($($arg:expr),*)) => {
        $kernel::<
            $n,
            { Format::$name.n_bits() },
            { Format::$name.zero() },
            { Format::$name.has_min() },
        >($($arg),*)
    };
}

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod format;
mod panels;
mod scalar;

use std::sync::OnceLock;

use rayon::prelude::*;

pub(crate) use activations::Activations;
use activations::{COARSE, Row};
pub(crate) use format::Format;
#[cfg(target_arch = "x86_64")]
use panels::Layout;
pub(crate) use panels::Panels;

/// Weights in a block: ggml's `QK4_0` to `QK8_0`.
pub(crate) const BLOCK: usize = 32;
/// Weight rows in a panel.
pub(crate) const PANEL: usize = 16;
/// Rows of activations that share one read of a panel.
const N_TOGETHER: usize = 8;
/// Most rows for which a panel comes from memory, and not from a cache where an earlier group of rows left it.
#[cfg(target_arch = "x86_64")]
const N_PREFETCHED: usize = 4;
/// How far ahead it is fetched, past the panel's end into the next; 1.2 times the decoding speed.
#[cfg(target_arch = "x86_64")]
const PREFETCH_AHEAD: usize = 2048;
/// Tasks for each thread, so that one that is held up is helped out.
const TASKS_PER_THREAD: usize = 4;
/// Fewest multiplications worth a second thread.
const PARALLEL_WORK: usize = 1 << 16;

/// Sums of one panel: `[row of activations][row of the panel]`.
type Sums<const N: usize> = [[f32; PANEL]; N];

/// Returns the blocks of a panel, after making sure that it and the rows are as long as a kernel will read.
///
/// # Panics
/// If they are not.
#[cfg(target_arch = "x86_64")]
fn n_checked_blocks(layout: Layout, panel: &[u8], rows: &[Row<'_>]) -> usize {
    let n_blocks = panel.len() / layout.n_bytes;
    assert_eq!(panel.len(), n_blocks * layout.n_bytes);
    for row in rows {
        assert!(row.quants.len() == n_blocks * 2 * BLOCK && row.blocks.len() == n_blocks);
    }
    n_blocks
}

/// An instruction set with kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Isa {
    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "avx512-vnni",
        }
    }
}

/// Returns the best instruction set of this machine, or the one that `TANDEM_ISA` names.
fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let available = available();
        let wanted = std::env::var("TANDEM_ISA").ok();
        let named = wanted.as_ref().and_then(|wanted| available.iter().find(|isa| isa.name() == wanted));
        if let (Some(wanted), None) = (&wanted, named) {
            tracing::warn!(wanted, ?available, "TANDEM_ISA names none of this machine's instruction sets");
        }
        named.or(available.last()).copied().unwrap_or(Isa::Scalar)
    })
}

/// Returns the instruction sets this machine has, the best last.
fn available() -> Vec<Isa> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "only x86 adds to it so far"))]
    let mut available = vec![Isa::Scalar];
    #[cfg(target_arch = "x86_64")]
    {
        if avx2::is_here() {
            available.push(Isa::Avx2);
        }
        if avx512::is_here() {
            available.push(Isa::Avx512Vnni);
        }
    }
    available
}

/// One of the products that share their activations.
pub(crate) struct Product<'a> {
    /// `[n_out, n_in]`.
    pub(crate) weights: &'a Panels,
    /// `[n_rows, n_out]`; overwritten.
    pub(crate) y: &'a mut [f32],
}

/// Computes `y = x · Wᵀ` of every product, in one go over all threads.
///
/// # Panics
/// If a product's shapes do not fit `x: [n_rows, n_in]`.
pub(crate) fn multiply(x: &Activations, products: &mut [Product<'_>]) {
    multiply_with(isa(), x, products);
}

fn multiply_with(isa: Isa, x: &Activations, products: &mut [Product<'_>]) {
    let mut targets = Vec::with_capacity(products.len());
    let mut n_panels = 0;
    let mut work = 0;
    for product in products {
        let Product { weights, y } = product;
        assert_eq!(weights.n_blocks(), x.n_blocks(), "activations of another width");
        assert_eq!(y.len(), x.n_rows() * weights.n_out(), "a result of the wrong size");
        n_panels += weights.n_panels();
        work += y.len() * weights.n_blocks() * BLOCK;
        targets.push(Target { weights, y: y.as_mut_ptr() });
    }
    let n_tasks = if work < PARALLEL_WORK { 1 } else { rayon::current_num_threads() * TASKS_PER_THREAD };
    let panels_per_task = n_panels.div_ceil(n_tasks).max(1);
    let mut tasks = Vec::with_capacity(n_tasks + targets.len());
    for target in &targets {
        let n = target.weights.n_panels();
        let starts = (0..n).step_by(panels_per_task);
        tasks.extend(starts.map(|start| (target, start..(start + panels_per_task).min(n))));
    }
    let run = |(target, panels): &(&Target<'_>, std::ops::Range<usize>)| {
        for panel_idx in panels.clone() {
            target.compute(isa, x, panel_idx);
        }
    };
    if n_tasks == 1 {
        tasks.iter().for_each(run);
    } else {
        tasks.par_iter().for_each(run);
    }
}

/// Where the sums of a product go.
struct Target<'a> {
    weights: &'a Panels,
    // INVARIANT: the start of `n_rows · n_out` floats that nobody else uses while this value lives.
    y: *mut f32,
}

// SAFETY: a panel's sums are written by whoever computes it, and every panel is computed by one task.
#[expect(unsafe_code, reason = "the columns of a row-major result cannot be lent out one by one")]
unsafe impl Sync for Target<'_> {}

impl Target<'_> {
    /// Computes one panel's outputs for all rows of activations.
    fn compute(&self, isa: Isa, x: &Activations, panel_idx: usize) {
        let mut row_idx = 0;
        while row_idx < x.n_rows() {
            let n = match x.n_rows() - row_idx {
                1 => self.rows::<1>(isa, x, panel_idx, row_idx),
                2 | 3 => self.rows::<2>(isa, x, panel_idx, row_idx),
                4..N_TOGETHER => self.rows::<4>(isa, x, panel_idx, row_idx),
                _ => self.rows::<N_TOGETHER>(isa, x, panel_idx, row_idx),
            };
            row_idx += n;
        }
    }

    fn rows<const N: usize>(&self, isa: Isa, x: &Activations, panel_idx: usize, row_idx: usize) -> usize {
        let rows: [Row<'_>; N] = std::array::from_fn(|idx| x.row(row_idx + idx));
        let (format, panel) = (self.weights.format(), self.weights.panel(panel_idx));
        let sums = match isa {
            Isa::Scalar => scalar::panel(format, panel, &rows),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::panel(format, panel, &rows),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::panel(format, panel, &rows),
        };
        let n_out = self.weights.n_out();
        let first = panel_idx * PANEL;
        let n_valid = PANEL.min(n_out - first);
        for (idx, sums) in sums.iter().enumerate() {
            #[expect(unsafe_code, reason = "see `Sync` above")]
            // SAFETY: `row_idx + idx` is a row of `x` and `first + n_valid` at most `n_out`, so this lies in the
            // `n_rows · n_out` floats of `y`, and no other panel writes these columns.
            unsafe {
                let y = self.y.add((row_idx + idx) * n_out + first);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), y, n_valid);
            }
        }
        N
    }
}

#[cfg(test)]
mod tests;

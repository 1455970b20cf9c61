//! Products of a model's weights with activations.
//!
//! In: weights repacked into [`Panels`], activations as [`Activations`]. Out: `f32` sums.
//! Never: depends on how many rows are computed together, on threads, or on the instruction set: every sum is added
//! up in the same order with the same roundings, so results are equal bit by bit (I-7, I-11).
//! Thread: any; the work is shared by a [`Pool`]. The instruction set is chosen once, at run time.
//!
//! A panel is 16 weight rows, interleaved so that one 64-byte load holds four weights of each: each 32-bit lane then
//! adds up one output, and nothing is ever summed across lanes. What a format is, only `format` and `panels` know: a
//! variant multiplies blocks of bytes with scales and mins. [`scalar`] says what it must compute.

/// Evaluates an expression that is generic over a format's place in [`Format::QUANTISED`] and its scales in a block.
macro_rules! for_format {
    ($format:expr, |$idx:ident, $n_scales:ident| $value:expr) => {
        match $format {
            Format::Q4_0 => for_format!(@arm 0, 1, $idx, $n_scales, $value),
            Format::Q4_1 => for_format!(@arm 1, 1, $idx, $n_scales, $value),
            Format::Q5_0 => for_format!(@arm 2, 1, $idx, $n_scales, $value),
            Format::Q5_1 => for_format!(@arm 3, 1, $idx, $n_scales, $value),
            Format::Q8_0 => for_format!(@arm 4, 1, $idx, $n_scales, $value),
            Format::Q4K => for_format!(@arm 5, 1, $idx, $n_scales, $value),
            Format::Q5K => for_format!(@arm 6, 1, $idx, $n_scales, $value),
            Format::Q6K => for_format!(@arm 7, 2, $idx, $n_scales, $value),
            Format::F16 | Format::BF16 | Format::F32 => unreachable!("numbers have no codes"),
        }
    };
    (@arm $at:literal, $n:literal, $idx:ident, $n_scales:ident, $value:expr) => {{
        const $idx: usize = $at;
        const $n_scales: usize = $n;
        const { assert!(Format::QUANTISED[$idx].n_scales() == $n_scales) };
        $value
    }};
}

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod float;
mod format;
#[cfg(target_arch = "aarch64")]
mod i8mm;
mod isa;
pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod pool;
mod scalar;

use std::cell::RefCell;
use std::ops::Range;

use activations::Rows;
pub(crate) use activations::{Activations, GroupMut, N_GROUPED};
pub(crate) use buffer::Buffer;
pub(crate) use format::Format;
pub use isa::isa_name;
pub(crate) use isa::{Isa, isa, vectorised};
pub(crate) use lanes::{Lanes, N_LANES, ROUNDER};
use panels::Block;
pub(crate) use panels::{Packer, Panels};
pub(crate) use pool::Pool;

/// Weights in a block: ggml's `QK4_0` to `QK8_0`, an eighth of its `QK_K`.
pub(crate) const BLOCK: usize = 32;
/// Weight rows in a panel.
pub(crate) const PANEL: usize = 16;
/// Most rows for which a panel's blocks are multiplied as they are unpacked, and not written down first.
const N_DIRECT: usize = 8;
/// Rows that all panels of a task meet before the next ones: few enough for a core's own cache, many enough that
/// unpacking the panels again for each of them does not count (48 rows of 8,960 values were slower).
const N_CACHED: usize = 128;
/// How far ahead weights are fetched, past the panel's end into the next, to the second cache: it waits for more lines
/// at once than the first, and decoding is 1.3 times as fast as with 2 KiB to the first.
const PREFETCH_AHEAD: usize = 8192;
/// Tasks for each thread, so that one that is held up is helped out.
const TASKS_PER_THREAD: usize = 4;
/// Fewest multiplications worth a second thread.
const PARALLEL_WORK: usize = 1 << 16;

/// Sums of one panel: `[row of activations][row of the panel]`.
type Sums<const N: usize> = [[f32; PANEL]; N];

/// Fetches the bytes that a panel's block comes to after [`PREFETCH_AHEAD`].
#[inline(always)]
fn prefetch<const F: usize>(panel: &[u8], block_idx: usize) {
    let (at, n_bytes) = panels::place::<F>(block_idx);
    fetch_ahead(panel.as_ptr().wrapping_add(at), n_bytes);
}

/// Fetches `n_bytes` that lie [`PREFETCH_AHEAD`] behind an address.
#[inline(always)]
fn fetch_ahead(start: *const u8, n_bytes: usize) {
    fetch_lines(start.wrapping_add(PREFETCH_AHEAD), n_bytes);
}

/// Fetches all of a slice.
#[inline(always)]
pub(crate) fn fetch_all<T>(numbers: &[T]) {
    fetch_lines(numbers.as_ptr().cast(), size_of_val(numbers));
}

#[inline(always)]
fn fetch_lines(start: *const u8, n_bytes: usize) {
    for line in (0..n_bytes).step_by(64) {
        isa::fetch(start.wrapping_add(line));
    }
}

/// One of the products that are computed together.
pub(crate) struct Product<'a> {
    /// `[n_out, n_in]`.
    pub(crate) weights: &'a Panels,
    /// `[n_rows, n_in]`.
    pub(crate) x: &'a Activations,
    /// `[n_rows, n_out]`; overwritten.
    pub(crate) y: &'a mut [f32],
}

/// Computes `y = x · Wᵀ` of every product, in one go over all threads.
///
/// # Panics
/// If a product's shapes do not fit each other.
pub(crate) fn multiply(pool: &Pool, products: &mut [Product<'_>]) {
    multiply_with(isa(), pool, products);
}

fn multiply_with(isa: Isa, pool: &Pool, products: &mut [Product<'_>]) {
    let mut targets = Vec::with_capacity(products.len());
    let mut n_panels = 0;
    let mut work = 0;
    for product in products {
        let Product { weights, x, y } = product;
        assert_eq!(weights.n_blocks(), x.n_blocks(), "activations of another width");
        assert_eq!(y.len(), x.n_rows() * weights.n_out(), "a result of the wrong size");
        n_panels += weights.n_panels();
        work += y.len() * weights.n_blocks() * BLOCK;
        targets.push(Target { weights, x, y: y.as_mut_ptr() });
    }
    let n_tasks = if work < PARALLEL_WORK { 1 } else { pool.n_threads() * TASKS_PER_THREAD };
    let panels_per_task = n_panels.div_ceil(n_tasks).max(1);
    let mut tasks = Vec::with_capacity(n_tasks + targets.len());
    for target in &targets {
        let n = target.weights.n_panels();
        let starts = (0..n).step_by(panels_per_task);
        tasks.extend(starts.map(|start| (target, start..(start + panels_per_task).min(n))));
    }
    let run = |task_idx: usize| {
        let (target, panels) = &tasks[task_idx];
        let n_rows = target.x.n_rows();
        for first in (0..n_rows).step_by(N_CACHED) {
            let rows = first..(first + N_CACHED).min(n_rows);
            for panel_idx in panels.clone() {
                target.compute(isa, rows.clone(), panel_idx);
            }
        }
        #[cfg(target_arch = "x86_64")]
        amx::release();
    };
    if n_tasks == 1 {
        (0..tasks.len()).for_each(run);
    } else {
        pool.run(tasks.len(), &run);
    }
}

/// Where the sums of a product go.
struct Target<'a> {
    weights: &'a Panels,
    x: &'a Activations,
    // INVARIANT: the start of `n_rows · n_out` floats that nobody else uses while this value lives.
    y: *mut f32,
}

// SAFETY: a panel's sums are written by whoever computes it, and every panel is computed by one task.
#[expect(unsafe_code, reason = "the columns of a row-major result cannot be lent out one by one")]
unsafe impl Sync for Target<'_> {}

thread_local! {
    /// A panel's blocks, unpacked.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

impl Target<'_> {
    /// Computes one panel's outputs for some rows of activations.
    fn compute(&self, isa: Isa, rows: Range<usize>, panel_idx: usize) {
        let x = self.x;
        let (format, panel) = (self.weights.format(), self.weights.panel(panel_idx));
        if format.is_float() {
            // Groups of rows are two times this.
            for first in rows.clone().step_by(float::N_TOGETHER) {
                let n = float::N_TOGETHER.min(rows.end - first);
                let sums = float::panel(format, panel, x.rows(first, n, 1), n);
                self.write(x, panel_idx, first, &sums[..n]);
            }
        } else {
            for_format!(format, |F, S| compute_codes::<F, S>(self, isa, x, rows, panel_idx));
        }
    }

    /// Fetches the lines that the sums of rows will be written to: each is a row's, far from the next,
    /// and writes that miss would hold up everything written after them.
    fn fetch(&self, panel_idx: usize, rows: Range<usize>) {
        for row_idx in rows {
            let at = row_idx * self.weights.n_out() + panel_idx * PANEL;
            isa::fetch_to_write(self.y.wrapping_add(at).cast());
        }
    }

    /// Writes the sums of rows from `first` on; returns how many they are.
    fn write(&self, x: &Activations, panel_idx: usize, first: usize, sums: &[[f32; PANEL]]) -> usize {
        let n_out = self.weights.n_out();
        let first_out = panel_idx * PANEL;
        let n_valid = PANEL.min(n_out - first_out);
        assert!(first + sums.len() <= x.n_rows());
        for (idx, sums) in sums.iter().enumerate() {
            #[expect(unsafe_code, reason = "see `Sync` above")]
            // SAFETY: `first + idx` is a row of `x` and `first_out + n_valid` at most `n_out`, so this lies in the
            // `n_rows · n_out` floats of `y`, and no other panel writes these columns.
            unsafe {
                let y = self.y.add((first + idx) * n_out + first_out);
                if n_valid == PANEL {
                    y.cast::<[f32; PANEL]>().write_unaligned(*sums);
                } else {
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), y, n_valid);
                }
            }
        }
        sums.len()
    }
}

fn compute_codes<const F: usize, const S: usize>(
    target: &Target<'_>,
    isa: Isa,
    x: &Activations,
    rows: Range<usize>,
    panel_idx: usize,
) {
    let first = rows.start;
    if rows.len() <= N_DIRECT {
        match rows.len() {
            1 => packed_rows::<F, S, 1>(target, isa, x, first, panel_idx),
            2 => packed_rows::<F, S, 2>(target, isa, x, first, panel_idx),
            3 => packed_rows::<F, S, 3>(target, isa, x, first, panel_idx),
            4 => packed_rows::<F, S, 4>(target, isa, x, first, panel_idx),
            5 => packed_rows::<F, S, 5>(target, isa, x, first, panel_idx),
            6 => packed_rows::<F, S, 6>(target, isa, x, first, panel_idx),
            7 => packed_rows::<F, S, 7>(target, isa, x, first, panel_idx),
            _ => packed_rows::<F, S, 8>(target, isa, x, first, panel_idx),
        };
        return;
    }
    BLOCKS.with_borrow_mut(|blocks| {
        blocks.resize(x.n_blocks(), Block::EMPTY);
        unpack_all::<F, S>(isa, target.weights.panel(panel_idx), blocks);
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::AmxInt8 {
            for first in rows.clone().step_by(N_GROUPED) {
                let n = N_GROUPED.min(rows.end - first);
                target.fetch(panel_idx, first..first + n);
                let rows = x.rows(first, n, S);
                check::<S>(isa, rows, n);
                #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
                // SAFETY: `isa` is one that the processor has, the rows were checked right above.
                let sums = unsafe { amx::unpacked::<S>(blocks, rows, n) };
                target.write(x, panel_idx, first, &sums[..n]);
            }
            return;
        }
        let mut first = rows.start;
        while first < rows.end {
            first += match rows.end - first {
                1 => unpacked_rows::<F, S, 1>(target, isa, x, first, panel_idx, blocks),
                2 | 3 => unpacked_rows::<F, S, 2>(target, isa, x, first, panel_idx, blocks),
                4..8 => unpacked_rows::<F, S, 4>(target, isa, x, first, panel_idx, blocks),
                _ => unpacked_rows::<F, S, 8>(target, isa, x, first, panel_idx, blocks),
            };
        }
    });
}

fn packed_rows<const F: usize, const S: usize, const N: usize>(
    target: &Target<'_>,
    isa: Isa,
    x: &Activations,
    first: usize,
    panel_idx: usize,
) {
    let panel = target.weights.panel(panel_idx);
    target.write(x, panel_idx, first, &packed::<F, S, N>(isa, panel, x.rows(first, N, S)));
}

fn unpacked_rows<const F: usize, const S: usize, const N: usize>(
    target: &Target<'_>,
    isa: Isa,
    x: &Activations,
    first: usize,
    panel_idx: usize,
    blocks: &[Block],
) -> usize {
    target.fetch(panel_idx, first..first + N);
    target.write(x, panel_idx, first, &unpacked::<F, S, N>(isa, blocks, x.rows(first, N, S)))
}

/// Reads every byte of the weights packed with these, on all threads; returns how many they are. Nothing that computes
/// with all of them can be quicker.
pub(crate) fn read_all(pool: &Pool, panels: &Panels) -> usize {
    let bytes = panels.all_bytes();
    let part = bytes.len().div_ceil(pool.n_threads() * TASKS_PER_THREAD).max(1);
    pool.for_each(bytes.chunks(part), |part| _ = std::hint::black_box(xor_of(part)));
    bytes.len()
}

vectorised! {
    fn xor_of(bytes: &[u8]) -> u64 {
        let mut sums = [[0u64; 8]; 4];
        for lines in bytes.as_chunks::<8>().0.as_chunks::<8>().0.as_chunks::<4>().0 {
            fetch_ahead(lines.as_ptr().cast(), size_of_val(lines));
            for (sums, line) in sums.iter_mut().zip(lines) {
                for (sum, word) in sums.iter_mut().zip(line) {
                    *sum ^= u64::from_ne_bytes(*word);
                }
            }
        }
        sums.into_iter().flatten().fold(0, |sum, word| sum ^ word)
    }
}

/// Makes sure that `rows` has what a kernel will read of `n_rows` rows.
///
/// # Panics
/// If not.
fn check<const S: usize>(isa: Isa, rows: Rows<'_>, n_rows: usize) {
    assert!(n_rows <= rows.stride);
    assert!(!isa.takes_words() || rows.words.len() == rows.quants.len());
    let n = (rows.n_blocks * rows.stride).saturating_sub(rows.stride - n_rows);
    assert!(rows.quants.len() >= n && rows.scales.len() >= n && rows.sums.len() >= n * S);
}

/// Returns the sums of a packed panel for `N` rows.
fn packed<const F: usize, const S: usize, const N: usize>(isa: Isa, panel: &[u8], rows: Rows<'_>) -> Sums<N> {
    check::<S>(isa, rows, N);
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: `isa` is one that the processor has, the rows were checked right above.
        Isa::Avx512Vnni | Isa::AmxInt8 => unsafe { avx512::packed::<F, S, N>(panel, rows) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { avx2::avx_vnni::packed::<F, S, N>(panel, rows) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::avx2::packed::<F, S, N>(panel, rows) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::NeonDotprod => unsafe { neon::packed::<F, S, N>(panel, rows) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { i8mm::packed::<F, S, N>(panel, rows) },
        _ => {
            let (mut sums, mut block) = ([[0.0; PANEL]; N], Block::EMPTY);
            for block_idx in 0..rows.n_blocks {
                panels::unpack::<F, S>(panel, block_idx, &mut block);
                scalar::add_block::<N, S>(&block, rows, block_idx, &mut sums);
            }
            sums
        }
    }
}

/// Returns the sums of a panel's blocks for `N` rows.
fn unpacked<const F: usize, const S: usize, const N: usize>(
    isa: Isa,
    blocks: &[Block],
    rows: Rows<'_>,
) -> Sums<N> {
    check::<S>(isa, rows, N);
    assert_eq!(blocks.len(), rows.n_blocks);
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: `isa` is one that the processor has, the rows were checked right above.
        Isa::Avx512Vnni | Isa::AmxInt8 => unsafe { avx512::unpacked::<S, N>(blocks, rows) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { avx2::avx_vnni::unpacked::<S, N>(blocks, rows) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::avx2::unpacked::<S, N>(blocks, rows) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::NeonDotprod => unsafe { neon::unpacked::<F, S, N>(blocks, rows) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { i8mm::unpacked::<S, N>(blocks, rows) },
        _ => {
            let mut sums = [[0.0; PANEL]; N];
            for (block_idx, block) in blocks.iter().enumerate() {
                scalar::add_block::<N, S>(block, rows, block_idx, &mut sums);
            }
            sums
        }
    }
}

fn unpack_all<const F: usize, const S: usize>(isa: Isa, panel: &[u8], blocks: &mut [Block]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: `isa` is one that the processor has.
        Isa::Avx512Vnni | Isa::AmxInt8 => unsafe { avx512::unpack_all::<F, S>(panel, blocks) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::Avx2 | Isa::AvxVnni => unsafe { avx2::unpack_all::<F, S>(panel, blocks) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { i8mm::unpack_all::<F, S>(panel, blocks) },
        _ => {
            (blocks.iter_mut().enumerate()).for_each(|(idx, block)| panels::unpack::<F, S>(panel, idx, block))
        }
    }
}

#[cfg(test)]
mod tests;

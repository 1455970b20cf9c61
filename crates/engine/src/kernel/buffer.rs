//! Floats that begin with a line of the cache.
#![expect(unsafe_code, reason = "lines are read as the floats they consist of (STYLE rule 32)")]

use std::ops::{Deref, DerefMut};

/// Floats of a cache line.
const N_IN_LINE: usize = 16;

/// A vector of floats whose first begins a cache line. Where rows are whole lines, what a panel writes of a row is then
/// one line, and not parts of two that another thread may be writing.
#[derive(Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; N_IN_LINE]);

impl Buffer {
    /// Makes this `len` floats long. What the new ones are is not said.
    pub(crate) fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(N_IN_LINE), Line([0.0; N_IN_LINE]));
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `Line` is 16 floats and no padding, so the lines are at least `len` floats in a row.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the lines are borrowed as long as the floats.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

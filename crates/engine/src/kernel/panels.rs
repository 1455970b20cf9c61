//! Weights repacked for the kernels, in the bits they have in the file.

use std::sync::{Arc, OnceLock};

use super::{BLOCK, Format, PANEL, Pool};
use crate::mmap::Pages;

/// Weights that stand together in a 32-bit lane.
pub(super) const LANE: usize = 4;
/// Lanes' worth of weights in a block.
pub(super) const N_GROUPS: usize = BLOCK / LANE;
/// Bytes of a group: a register of 512 bits.
const GROUP: usize = PANEL * LANE;
/// Bytes of a panel's f16 scales or mins.
const HALVES: usize = 2 * PANEL;

/// Panels packed between two reports.
const N_AT_ONCE: usize = 256;

/// A matrix `[n_out, n_in]` in panels of 16 rows; the last is filled up with zeros.
///
/// A panel of codes is `n_in / 32` blocks, one after the other. A block has 16 scales and 16 mins, one for each row, if
/// the format has them; the upper bits; the lower bits of the codes. Scales and mins are f16; in the formats of 256
/// they are bytes, and before each eighth block stand the f16 they are multiplied with. 8-bit codes are
/// `[8 groups][16 rows][4]`; of the others byte `[g][row][j]`, g < 4, holds the low bits of weight `4 · g + j` below
/// and of weight `16 + 4 · g + j` above. Upper bits are `[row][4]`, a byte holding a bit of each of the 8 groups; of two
/// bits there are two such, the first for the first 4 groups.
///
/// A panel of numbers is `[n_in][16 rows]`.
#[derive(Debug)]
pub(crate) struct Panels {
    format: Format,
    n_out: usize,
    n_blocks: usize,
    at: usize,
    pages: Arc<OnceLock<Pages>>,
}

/// Where the parts of a panel's block are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    n_blocks_per_super: usize,
    /// Bytes before the first of these blocks.
    head: usize,
    mins: usize,
    high: usize,
    codes: usize,
    n_bytes: usize,
}

impl Layout {
    const fn of(format: Format) -> Self {
        let n_blocks_per_super = format.n_blocks_per_super();
        let is_super = n_blocks_per_super > 1;
        let n_mins = if format.has_min() { 1 } else { 0 };
        let entry = if is_super { PANEL } else { HALVES };
        let mins = entry * format.n_scales();
        let high = mins + entry * n_mins;
        let codes = high + GROUP * if format.n_bits() < 8 { format.n_bits() - 4 } else { 0 };
        let n_code_bytes = if format.n_bits() == 8 { N_GROUPS * GROUP } else { N_GROUPS * GROUP / 2 };
        let head = if is_super { HALVES * (1 + n_mins) } else { 0 };
        Self { n_blocks_per_super, head, mins, high, codes, n_bytes: codes + n_code_bytes }
    }

    /// Returns where the head of a block is, and where the block.
    const fn find(&self, block_idx: usize) -> (usize, usize) {
        let head = block_idx / self.n_blocks_per_super * (self.head + self.n_blocks_per_super * self.n_bytes);
        (head, head + self.head + block_idx % self.n_blocks_per_super * self.n_bytes)
    }
}

/// A block of a panel as kernels read it, whatever its format: 32 weights of 16 rows.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// `[group][row][4]`; `i8mm` turns it to `[pair of groups][row][8]`, for itself.
    pub(super) codes: [[u8; GROUP]; N_GROUPS],
    /// Of all 32 weights, or of each half.
    pub(super) scales: [[f32; PANEL]; 2],
    /// The weights of code 0.
    pub(super) mins: [[f32; PANEL]; 2],
}

impl Block {
    pub(super) const EMPTY: Self =
        Self { codes: [[0; GROUP]; N_GROUPS], scales: [[0.0; PANEL]; 2], mins: [[0.0; PANEL]; 2] };
}

/// Collects matrices, and then repacks them all into one piece of memory.
#[derive(Default)]
pub(crate) struct Packer<'a> {
    files: Vec<File<'a>>,
    n_bytes: usize,
    pages: Arc<OnceLock<Pages>>,
}

/// A matrix as the file has it, and the panels it becomes.
struct File<'a> {
    format: Format,
    rows: &'a [u8],
    n_out: usize,
    n_blocks: usize,
}

impl<'a> Packer<'a> {
    /// Takes a file's rows; the panels can be used after [`Packer::pack`].
    ///
    /// # Panics
    /// If `rows` is not `n_out` rows of `n_in` weights, or `n_in` not a multiple of the format's blocks.
    pub(crate) fn add(&mut self, format: Format, rows: &'a [u8], n_out: usize, n_in: usize) -> Panels {
        assert_eq!(n_in % format.row_multiple(), 0, "rows of {n_in} do not divide into blocks");
        let n_blocks = n_in / BLOCK;
        let file_bytes = n_in / format.row_multiple() * format.file_bytes();
        assert_eq!(rows.len(), n_out * file_bytes, "not {n_out} rows of {n_in} weights");
        let file = File { format, rows, n_out, n_blocks };
        let at = self.n_bytes;
        self.n_bytes += file.n_panels() * panel_bytes(format, n_blocks);
        self.files.push(file);
        Panels { format, n_out, n_blocks, at, pages: Arc::clone(&self.pages) }
    }

    /// Returns the bytes of all rows added.
    pub(crate) fn n_file_bytes(&self) -> usize {
        self.files.iter().map(|file| file.rows.len()).sum()
    }

    /// Repacks all matrices. `done` hears which rows were read and will not be again.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn pack(self, pool: &Pool, mut done: impl FnMut(&'a [u8])) -> std::io::Result<()> {
        let mut pages = Pages::new(self.n_bytes)?;
        let mut rest = &mut pages[..];
        for file in &self.files {
            let panel_bytes = panel_bytes(file.format, file.n_blocks);
            let (panels, others) = rest.split_at_mut(file.n_panels() * panel_bytes);
            rest = others;
            let row_bytes = file.rows.len() / file.n_out;
            for (idx, panels) in panels.chunks_mut(N_AT_ONCE * panel_bytes).enumerate() {
                let first = idx * N_AT_ONCE;
                let panels = panels.chunks_exact_mut(panel_bytes).enumerate();
                pool.for_each(panels, |(panel_idx, panel)| file.pack_panel(first + panel_idx, panel));
                let end = ((first + N_AT_ONCE) * PANEL).min(file.n_out);
                done(&file.rows[first * PANEL * row_bytes..end * row_bytes]);
            }
        }
        self.pages.set(pages).expect("a packer packs once");
        Ok(())
    }
}

/// Returns the bytes of a panel of `n_blocks` blocks.
const fn panel_bytes(format: Format, n_blocks: usize) -> usize {
    if format.is_float() {
        return n_blocks * BLOCK * PANEL * format.n_bits() / 8;
    }
    let layout = Layout::of(format);
    n_blocks / layout.n_blocks_per_super * (layout.head + layout.n_blocks_per_super * layout.n_bytes)
}

impl File<'_> {
    fn n_panels(&self) -> usize {
        self.n_out.div_ceil(PANEL)
    }

    fn pack_panel(&self, panel_idx: usize, panel: &mut [u8]) {
        let row_bytes = self.rows.len() / self.n_out;
        let rows = self.rows.chunks_exact(row_bytes).skip(panel_idx * PANEL).take(PANEL).enumerate();
        if self.format.is_float() {
            let n_bytes = self.format.n_bits() / 8;
            for (row, numbers) in rows {
                for (idx, number) in numbers.chunks_exact(n_bytes).enumerate() {
                    panel[(idx * PANEL + row) * n_bytes..][..n_bytes].copy_from_slice(number);
                }
            }
            return;
        }
        let layout = Layout::of(self.format);
        for (row, file_row) in rows {
            for block_idx in 0..self.n_blocks {
                let n_per_super = layout.n_blocks_per_super;
                let file = &file_row[block_idx / n_per_super * self.format.file_bytes()..];
                pack(self.format, layout, file, block_idx, row, panel);
            }
        }
    }
}

fn pack(format: Format, layout: Layout, file: &[u8], block_idx: usize, row: usize, panel: &mut [u8]) {
    let read = format.read(file, block_idx % layout.n_blocks_per_super);
    let (head, at) = layout.find(block_idx);
    if layout.head > 0 {
        panel[head + 2 * row..][..2].copy_from_slice(&read.d);
        if format.has_min() {
            panel[head + HALVES + 2 * row..][..2].copy_from_slice(&read.dmin);
        }
    }
    let block = &mut panel[at..][..layout.n_bytes];
    if layout.head > 0 {
        for (idx, scale) in read.scales.into_iter().enumerate().take(format.n_scales()) {
            block[idx * PANEL + row] = scale;
        }
        if format.has_min() {
            block[layout.mins + row] = read.min;
        }
    } else {
        block[2 * row..][..2].copy_from_slice(&read.d);
        if format.has_min() {
            block[layout.mins + 2 * row..][..2].copy_from_slice(&read.dmin);
        }
    }
    let (groups, _) = read.codes.as_chunks::<LANE>();
    let (high, codes) = block[layout.high..].split_at_mut(layout.codes - layout.high);
    let place = |group: usize| group * GROUP + row * LANE..group * GROUP + (row + 1) * LANE;
    if format.n_bits() == 8 {
        for (group, four) in groups.iter().enumerate() {
            codes[place(group)].copy_from_slice(four);
        }
        return;
    }
    for group in 0..N_GROUPS / 2 {
        let (below, above) = (groups[group], groups[N_GROUPS / 2 + group]);
        for ((byte, below), above) in codes[place(group)].iter_mut().zip(below).zip(above) {
            *byte = below & 15 | above << 4;
        }
    }
    let n_high_bits = format.n_bits() - 4;
    for (group, four) in groups.iter().enumerate().take(if n_high_bits > 0 { N_GROUPS } else { 0 }) {
        let (plane, shift) = high_place(n_high_bits, group);
        for (byte, code) in high[place(plane)].iter_mut().zip(four) {
            *byte |= (code >> 4) << shift;
        }
    }
}

/// Returns in which bytes a group's upper bits are, and how far they are shifted.
#[inline(always)]
const fn high_place(n_high_bits: usize, group: usize) -> (usize, usize) {
    if n_high_bits == 1 { (0, group) } else { (group / 4, group % 4 * 2) }
}

/// Returns about where a panel's block begins, and its length.
#[inline(always)]
pub(super) const fn place<const F: usize>(block_idx: usize) -> (usize, usize) {
    let n_bytes = const { Layout::of(Format::QUANTISED[F]).n_bytes };
    (block_idx * n_bytes, n_bytes)
}

/// Reads block `block_idx` of a panel of format `Format::QUANTISED[F]`, which has `S` scales.
#[inline(always)]
pub(super) fn unpack<const F: usize, const S: usize>(panel: &[u8], block_idx: usize, out: &mut Block) {
    let format = const { Format::QUANTISED[F] };
    let layout = const { Layout::of(Format::QUANTISED[F]) };
    let (head, at) = layout.find(block_idx);
    let block = &panel[at..][..layout.n_bytes];
    unpack_codes(format, layout, block, &mut out.codes);

    let halves = |at: usize| -> [f32; PANEL] { half_values(panel[at..].first_chunk().expect("16 halves")) };
    let bytes = |at: usize| -> &[u8; PANEL] { block[at..].first_chunk().expect("16 bytes") };
    for (idx, (scales, mins)) in out.scales.iter_mut().zip(&mut out.mins).enumerate().take(S) {
        if layout.head == 0 {
            *scales = halves(at);
            if format.has_min() {
                *mins = halves(at + layout.mins);
            } else {
                *mins = scales.map(|scale| scale * -f32::from(format.zero()));
            }
            continue;
        }
        let (d, codes) = (halves(head), bytes(idx * PANEL));
        if format.has_min() {
            let (dmin, min_codes) = (halves(head + HALVES), bytes(layout.mins));
            for row in 0..PANEL {
                scales[row] = d[row] * f32::from(codes[row]);
                mins[row] = -dmin[row] * f32::from(min_codes[row]);
            }
        } else {
            for row in 0..PANEL {
                scales[row] = d[row] * f32::from(codes[row].cast_signed());
                mins[row] = scales[row] * -f32::from(format.zero());
            }
        }
    }
}

#[inline(always)]
fn unpack_codes(format: Format, layout: Layout, block: &[u8], codes: &mut [[u8; GROUP]; N_GROUPS]) {
    let (packed, _) = block[layout.codes..].as_chunks::<GROUP>();
    if format.n_bits() == 8 {
        codes.copy_from_slice(packed);
        return;
    }
    for group in 0..N_GROUPS / 2 {
        for lane in 0..GROUP {
            codes[group][lane] = packed[group][lane] & 15;
            codes[N_GROUPS / 2 + group][lane] = packed[group][lane] >> 4;
        }
    }
    let n_high_bits = format.n_bits() - 4;
    if n_high_bits > 0 {
        let (planes, _) = block[layout.high..layout.codes].as_chunks::<GROUP>();
        for (group, codes) in codes.iter_mut().enumerate() {
            let (plane, shift) = high_place(n_high_bits, group);
            for (code, high) in codes.iter_mut().zip(&planes[plane]) {
                *code |= (high >> shift & ((1 << n_high_bits) - 1)) << 4;
            }
        }
    }
}

#[inline(always)]
fn half_values(bytes: &[u8; HALVES]) -> [f32; PANEL] {
    let mut values = [0.0; PANEL];
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = half_value(u16::from_le_bytes(*bytes));
    }
    values
}

/// Returns the value of an f16, without a branch; infinity and what is no number count on from 65,504.
#[inline(always)]
fn half_value(half: u16) -> f32 {
    /// 2⁻¹⁴: the smallest f16 with a whole mantissa.
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    let bits = u32::from(half & 0x7fff) << 13;
    // A smaller one has its mantissa without the leading 1: with it, that is taken off again. Never through an f32
    // without it, which costs a hundred cycles.
    let normal = f32::from_bits(bits + ((127 - 15) << 23));
    let small = f32::from_bits(bits + SMALLEST_NORMAL) - f32::from_bits(SMALLEST_NORMAL);
    let magnitude = if bits < 1 << 23 { small } else { normal };
    f32::from_bits(magnitude.to_bits() | u32::from(half & 0x8000) << 16)
}

impl Panels {
    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn n_out(&self) -> usize {
        self.n_out
    }

    pub(super) fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    pub(super) fn n_panels(&self) -> usize {
        self.n_out.div_ceil(PANEL)
    }

    /// Returns the bytes of all matrices that were packed together.
    ///
    /// # Panics
    /// Before their packer has packed.
    pub(super) fn all_bytes(&self) -> &[u8] {
        self.pages.get().expect("packed")
    }

    /// Returns how many bytes all panels of its packer take.
    ///
    /// # Panics
    /// Before their packer has packed.
    pub(crate) fn n_all_bytes(&self) -> usize {
        self.all_bytes().len()
    }

    /// Returns a panel's bytes.
    ///
    /// # Panics
    /// Before its packer has packed.
    pub(super) fn panel(&self, panel_idx: usize) -> &[u8] {
        let n_bytes = panel_bytes(self.format, self.n_blocks);
        &self.pages.get().expect("packed")[self.at + panel_idx * n_bytes..][..n_bytes]
    }

    /// Appends row `row_idx` as `[n_in] f32`.
    pub(crate) fn dequantise_row(&self, row_idx: usize, out: &mut Vec<f32>) {
        let (panel, row) = (self.panel(row_idx / PANEL), row_idx % PANEL);
        if self.format.is_float() {
            super::float::row(self.format, panel, row, out);
        } else {
            for_format!(self.format, |F, S| dequantise::<F, S>(panel, self.n_blocks, row, out));
        }
    }
}

fn dequantise<const F: usize, const S: usize>(panel: &[u8], n_blocks: usize, row: usize, out: &mut Vec<f32>) {
    let mut block = Block::EMPTY;
    for block_idx in 0..n_blocks {
        unpack::<F, S>(panel, block_idx, &mut block);
        let codes = block.codes.iter().flat_map(|group| &group[row * LANE..(row + 1) * LANE]);
        out.extend(codes.enumerate().map(|(idx, &code)| {
            let part = idx / (BLOCK / S);
            block.scales[part][row] * f32::from(code) + block.mins[part][row]
        }));
    }
}

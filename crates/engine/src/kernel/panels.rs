//! Weights repacked for the kernels, in the bits they have in the file.

use half::f16;

use super::{BLOCK, Format, PANEL};

/// Weights that stand together in a 32-bit lane.
pub(super) const LANE: usize = 4;
/// Lanes' worth of weights in a block.
pub(super) const N_GROUPS: usize = BLOCK / LANE;
/// Bytes of the scales, and of the mins, of a panel's block.
const HALVES: usize = 2 * PANEL;

/// A matrix `[n_out, n_in]` in panels of 16 rows; the last is filled up with zeros.
///
/// A panel is `n_in / 32` blocks, one after the other, each with: 16 scales (f16); 16 mins (f16), if the format has
/// them; for 5 bits 8 masks (u64), bit `4 · row + j` of mask g being the high bit of weight `4 · g + j`; the codes.
/// 8-bit codes are `[8 groups][16 rows][4]`; of 4-bit ones byte `[g][row][j]`, g < 4, holds weight `4 · g + j` below
/// and weight `16 + 4 · g + j` above.
#[derive(Debug)]
pub(crate) struct Panels {
    format: Format,
    n_out: usize,
    n_blocks: usize,
    bytes: Vec<u8>,
}

/// Where the parts of a panel's block begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) mins: usize,
    pub(super) masks: usize,
    pub(super) codes: usize,
    pub(super) n_bytes: usize,
}

impl Layout {
    pub(super) const fn of(format: Format) -> Self {
        let mins = HALVES;
        let masks = mins + if format.has_min() { HALVES } else { 0 };
        let codes = masks + if format.n_bits() == 5 { N_GROUPS * 8 } else { 0 };
        let code_bytes = if format.n_bits() == 8 { BLOCK * PANEL } else { BLOCK * PANEL / 2 };
        Self { mins, masks, codes, n_bytes: codes + code_bytes }
    }
}

impl Panels {
    /// Repacks a file's rows.
    ///
    /// # Panics
    /// If `rows` is not `n_out` rows of `n_in` weights, or `n_in` no multiple of 32.
    pub(crate) fn new(format: Format, rows: &[u8], n_out: usize, n_in: usize) -> Self {
        assert_eq!(n_in % BLOCK, 0, "rows of {n_in} do not divide into blocks");
        let n_blocks = n_in / BLOCK;
        assert_eq!(rows.len(), n_out * n_blocks * format.block_bytes(), "not {n_out} rows of {n_in} weights");
        let layout = Layout::of(format);
        let n_panels = n_out.div_ceil(PANEL);
        let mut bytes = vec![0; n_panels * n_blocks * layout.n_bytes];
        for (block_idx, block) in rows.chunks_exact(format.block_bytes()).enumerate() {
            let (row, at) = (block_idx / n_blocks, block_idx % n_blocks);
            let panel_block = row / PANEL * n_blocks + at;
            let panel_block = &mut bytes[panel_block * layout.n_bytes..][..layout.n_bytes];
            pack(format, layout, block, row % PANEL, panel_block);
        }
        Self { format, n_out, n_blocks, bytes }
    }

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

    /// Returns a panel's blocks.
    pub(super) fn panel(&self, panel_idx: usize) -> &[u8] {
        let n_bytes = self.n_blocks * Layout::of(self.format).n_bytes;
        &self.bytes[panel_idx * n_bytes..][..n_bytes]
    }

    /// Appends row `row_idx` as `[n_in] f32`.
    pub(crate) fn dequantise_row(&self, row_idx: usize, out: &mut Vec<f32>) {
        let layout = Layout::of(self.format);
        let row = row_idx % PANEL;
        for block in self.panel(row_idx / PANEL).chunks_exact(layout.n_bytes) {
            let scale = half(block, row).to_f32();
            let min = if self.format.has_min() { half(&block[layout.mins..], row).to_f32() } else { 0.0 };
            let codes = codes(self.format, layout, block);
            let codes = codes.iter().flat_map(|group| &group[row * LANE..(row + 1) * LANE]);
            out.extend(codes.map(|&code| scale * (i32::from(code) - self.format.zero()) as f32 + min));
        }
    }
}

fn pack(format: Format, layout: Layout, file_block: &[u8], row: usize, block: &mut [u8]) {
    let file_block = format.read(file_block);
    block[2 * row..][..2].copy_from_slice(&file_block.scale.to_le_bytes());
    if format.has_min() {
        block[layout.mins + 2 * row..][..2].copy_from_slice(&file_block.min.to_le_bytes());
    }
    for (idx, &code) in file_block.codes.iter().enumerate() {
        let (group, j) = (idx / LANE, idx % LANE);
        let lane = row * LANE + j;
        if format.n_bits() == 8 {
            block[layout.codes + group * PANEL * LANE + lane] = code;
            continue;
        }
        let (group_byte, shift) = (group % (N_GROUPS / 2), group / (N_GROUPS / 2) * 4);
        block[layout.codes + group_byte * PANEL * LANE + lane] |= (code & 15) << shift;
        if format.n_bits() == 5 {
            block[layout.masks + group * 8 + lane / 8] |= (code >> 4) << (lane % 8);
        }
    }
}

/// Returns the scale or min of a row.
pub(super) fn half(halves: &[u8], row: usize) -> f16 {
    f16::from_le_bytes([halves[2 * row], halves[2 * row + 1]])
}

/// Returns a block's codes, a byte each: `[group][row][4]`.
pub(super) fn codes(format: Format, layout: Layout, block: &[u8]) -> [[u8; PANEL * LANE]; N_GROUPS] {
    let group_bytes = |group: usize| &block[layout.codes + group * PANEL * LANE..][..PANEL * LANE];
    let mut codes = [[0; PANEL * LANE]; N_GROUPS];
    for (group, codes) in codes.iter_mut().enumerate() {
        if format.n_bits() == 8 {
            codes.copy_from_slice(group_bytes(group));
            continue;
        }
        let (group_byte, shift) = (group % (N_GROUPS / 2), group / (N_GROUPS / 2) * 4);
        for (code, byte) in codes.iter_mut().zip(group_bytes(group_byte)) {
            *code = byte >> shift & 15;
        }
        if format.n_bits() == 5 {
            let mask = &block[layout.masks + group * 8..][..8];
            for (lane, code) in codes.iter_mut().enumerate() {
                *code |= (mask[lane / 8] >> (lane % 8) & 1) << 4;
            }
        }
    }
    codes
}

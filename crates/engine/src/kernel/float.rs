//! Panels of numbers: f16, bf16 and f32, multiplied as f32.

use half::{bf16, f16};

use super::activations::Rows;
use super::{Format, Lanes, N_LANES, PANEL, Sums, fetch_ahead, vectorised};

/// Partial sums of an output, added up at the end.
const N_PARTS: usize = 2;

/// Most rows multiplied together.
pub(super) const N_TOGETHER: usize = 8;

/// Returns the sums of a panel for up to 8 rows; the others are 0.
pub(super) fn panel(format: Format, panel: &[u8], rows: Rows<'_>, n_rows: usize) -> Sums<N_TOGETHER> {
    let mut sums = [[0.0; PANEL]; N_TOGETHER];
    match format {
        Format::F16 => panel_f16(panel, rows, n_rows, &mut sums),
        Format::BF16 => panel_bf16(panel, rows, n_rows, &mut sums),
        _ => panel_f32(panel, rows, n_rows, &mut sums),
    }
    sums
}

vectorised! {
    fn panel_f16<L>(panel: &[u8], rows: Rows<'_>, n_rows: usize, sums: &mut Sums<N_TOGETHER>) {
        any::<L, F16, 2>(panel, rows, n_rows, sums);
    }
}
vectorised! {
    fn panel_bf16<L>(panel: &[u8], rows: Rows<'_>, n_rows: usize, sums: &mut Sums<N_TOGETHER>) {
        any::<L, BF16, 2>(panel, rows, n_rows, sums);
    }
}
vectorised! {
    fn panel_f32<L>(panel: &[u8], rows: Rows<'_>, n_rows: usize, sums: &mut Sums<N_TOGETHER>) {
        any::<L, F32, 4>(panel, rows, n_rows, sums);
    }
}

/// A kind of number of `B` bytes.
trait Number<const B: usize> {
    fn load<L: Lanes>(bytes: &[[u8; B]; N_LANES]) -> L;
}

struct F16;
struct BF16;
struct F32;

impl Number<2> for F16 {
    #[inline(always)]
    fn load<L: Lanes>(bytes: &[[u8; 2]; N_LANES]) -> L {
        L::load_f16(&bytes.map(f16::from_le_bytes))
    }
}

impl Number<2> for BF16 {
    #[inline(always)]
    fn load<L: Lanes>(bytes: &[[u8; 2]; N_LANES]) -> L {
        L::load_bf16(&bytes.map(bf16::from_le_bytes))
    }
}

impl Number<4> for F32 {
    #[inline(always)]
    fn load<L: Lanes>(bytes: &[[u8; 4]; N_LANES]) -> L {
        L::load(&bytes.map(f32::from_le_bytes))
    }
}

#[inline(always)]
fn any<L: Lanes, T: Number<B>, const B: usize>(
    panel: &[u8],
    rows: Rows<'_>,
    n_rows: usize,
    sums: &mut Sums<N_TOGETHER>,
) {
    match n_rows {
        1 => some::<L, T, B, 1>(panel, rows, sums),
        2 => some::<L, T, B, 2>(panel, rows, sums),
        3 => some::<L, T, B, 3>(panel, rows, sums),
        4 => some::<L, T, B, 4>(panel, rows, sums),
        5 => some::<L, T, B, 5>(panel, rows, sums),
        6 => some::<L, T, B, 6>(panel, rows, sums),
        7 => some::<L, T, B, 7>(panel, rows, sums),
        _ => some::<L, T, B, N_TOGETHER>(panel, rows, sums),
    }
}

#[inline(always)]
fn some<L: Lanes, T: Number<B>, const B: usize, const N: usize>(
    panel: &[u8],
    rows: Rows<'_>,
    sums: &mut Sums<N_TOGETHER>,
) {
    let n_in = rows.x.len() / N;
    let mut xs = [&[][..]; N];
    for (n, xs) in xs.iter_mut().enumerate() {
        *xs = rows.x[n * n_in..(n + 1) * n_in].as_chunks::<N_PARTS>().0;
    }
    let (numbers, _) = panel.as_chunks::<B>();
    let (lines, _) = numbers.as_chunks::<N_LANES>();
    let mut parts = [[L::splat(0.0); N_PARTS]; N];
    for (idx, lines) in lines.as_chunks::<N_PARTS>().0.iter().enumerate() {
        fetch_ahead(lines.as_ptr().cast(), size_of_val(lines));
        for (part, line) in lines.iter().enumerate() {
            let weights: L = T::load(line);
            for n in 0..N {
                parts[n][part] = L::splat(xs[n][idx][part]).mul_add(weights, parts[n][part]);
            }
        }
    }
    for (sums, parts) in sums.iter_mut().zip(parts) {
        parts[0].add(parts[1]).store(sums);
    }
}

/// Appends one row of a panel.
pub(super) fn row(format: Format, panel: &[u8], row: usize, out: &mut Vec<f32>) {
    let n_bytes = format.n_bits() / 8;
    let numbers = panel.chunks_exact(n_bytes).skip(row).step_by(PANEL);
    out.extend(numbers.map(|bytes| match (format, bytes) {
        (Format::F16, [a, b]) => f16::from_le_bytes([*a, *b]).to_f32(),
        (Format::BF16, [a, b]) => bf16::from_le_bytes([*a, *b]).to_f32(),
        (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        _ => unreachable!("numbers of 2 or 4 bytes"),
    }));
}

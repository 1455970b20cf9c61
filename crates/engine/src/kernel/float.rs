//! Panels of numbers: f16, bf16 and f32, multiplied as f32.

use super::activations::Rows;
use super::panels::half_value;
use super::{Format, PANEL, Sums, vectorised};

/// Partial sums of an output, added up at the end.
const N_PARTS: usize = 4;

/// Returns the sums of a panel for `N` of 1, 2 or 4 rows.
pub(super) fn panel<const N: usize>(format: Format, panel: &[u8], rows: Rows<'_>) -> Sums<N> {
    let mut sums = [[0.0; PANEL]; N];
    match N {
        1 => one(format, panel, rows, &mut sums),
        2 => two(format, panel, rows, &mut sums),
        4 => four(format, panel, rows, &mut sums),
        _ => unreachable!("numbers are multiplied by 1, 2 or 4 rows"),
    }
    sums
}

vectorised! {
    fn one(format: Format, panel: &[u8], rows: Rows<'_>, sums: &mut [[f32; PANEL]]) {
        any::<1>(format, panel, rows, sums);
    }
}
vectorised! {
    fn two(format: Format, panel: &[u8], rows: Rows<'_>, sums: &mut [[f32; PANEL]]) {
        any::<2>(format, panel, rows, sums);
    }
}
vectorised! {
    fn four(format: Format, panel: &[u8], rows: Rows<'_>, sums: &mut [[f32; PANEL]]) {
        any::<4>(format, panel, rows, sums);
    }
}

#[inline(always)]
fn any<const N: usize>(format: Format, panel: &[u8], rows: Rows<'_>, sums: &mut [[f32; PANEL]]) {
    match format {
        Format::F16 => of::<N, 2>(panel, rows, sums, |bytes| half_value(u16::from_le_bytes(bytes))),
        Format::BF16 => of::<N, 2>(panel, rows, sums, |bytes| bf16_value(u16::from_le_bytes(bytes))),
        _ => of::<N, 4>(panel, rows, sums, f32::from_le_bytes),
    }
}

/// The same for numbers of `B` bytes.
#[inline(always)]
fn of<const N: usize, const B: usize>(
    panel: &[u8],
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL]],
    value: impl Fn([u8; B]) -> f32,
) {
    let n_in = rows.x.len() / N;
    let xs: [&[[f32; N_PARTS]]; N] =
        std::array::from_fn(|n| rows.x[n * n_in..(n + 1) * n_in].as_chunks::<N_PARTS>().0);
    let (numbers, _) = panel.as_chunks::<B>();
    let (lines, _) = numbers.as_chunks::<PANEL>();
    let mut parts = [[[0.0f32; PANEL]; N_PARTS]; N];
    for (idx, lines) in lines.as_chunks::<N_PARTS>().0.iter().enumerate() {
        for part in 0..N_PARTS {
            let mut weights = [0.0; PANEL];
            for (weight, bytes) in weights.iter_mut().zip(&lines[part]) {
                *weight = value(*bytes);
            }
            for n in 0..N {
                let x = xs[n][idx][part];
                for (sum, weight) in parts[n][part].iter_mut().zip(&weights) {
                    *sum = weight.mul_add(x, *sum);
                }
            }
        }
    }
    for (sums, [a, b, c, d]) in sums.iter_mut().zip(parts) {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = (a[row] + b[row]) + (c[row] + d[row]);
        }
    }
}

/// Appends one row of a panel.
pub(super) fn row(format: Format, panel: &[u8], row: usize, out: &mut Vec<f32>) {
    let n_bytes = format.n_bits() / 8;
    let numbers = panel.chunks_exact(n_bytes).skip(row).step_by(PANEL);
    out.extend(numbers.map(|bytes| match (format, bytes) {
        (Format::F16, [a, b]) => half_value(u16::from_le_bytes([*a, *b])),
        (Format::BF16, [a, b]) => bf16_value(u16::from_le_bytes([*a, *b])),
        (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        _ => unreachable!("numbers of 2 or 4 bytes"),
    }));
}

#[inline(always)]
fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

//! x86-64 with AVX-512 VNNI: a panel's 16 rows are the 16 lanes.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::x86_64::*;

use super::panels::{Layout, N_GROUPS};
use super::{BLOCK, Format, N_PREFETCHED, PANEL, PREFETCH_AHEAD, Row, Sums, n_checked_blocks};

/// Returns whether these kernels run here.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// Returns the sums of one panel for each row of activations.
pub(super) fn panel<const N: usize>(format: Format, panel: &[u8], rows: &[Row<'_>; N]) -> Sums<N> {
    let layout = Layout::of(format);
    assert!(is_here(), "this machine lacks AVX-512 VNNI");
    let n_blocks = n_checked_blocks(layout, panel, rows);
    // SAFETY: the features and all lengths were checked right above.
    unsafe { for_format!(format, kernel::<N>(layout, n_blocks, panel, rows)) }
}

/// The kernel for codes of `BITS` bits with the given zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn kernel<const N: usize, const BITS: u32, const ZERO: i32, const MIN: bool>(
    layout: Layout,
    n_blocks: usize,
    panel: &[u8],
    rows: &[Row<'_>; N],
) -> Sums<N> {
    let mut sums = [_mm512_setzero_ps(); N];
    for block_idx in 0..n_blocks {
        // SAFETY: the caller checked that the panel holds `n_blocks` blocks of `layout.n_bytes`, and each row as many
        // blocks of 2 · 32 quants.
        unsafe {
            let block = panel.as_ptr().add(block_idx * layout.n_bytes);
            if N <= N_PREFETCHED {
                for line in (0..layout.n_bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(PREFETCH_AHEAD + line).cast());
                }
            }
            let scales = _mm512_cvtph_ps(_mm256_loadu_si256(block.cast()));
            let quants: [*const i32; N] =
                std::array::from_fn(|n| rows[n].quants.as_ptr().add(block_idx * 2 * BLOCK).cast());
            // The groups outside, the rows inside: all sums stay in registers.
            let mut coarse = [_mm512_setzero_si512(); N];
            let mut fine = [_mm512_setzero_si512(); N];
            for group in 0..N_GROUPS {
                let codes = codes::<BITS>(layout, block, group);
                for n in 0..N {
                    let quant = _mm512_set1_epi32(quants[n].add(group).read_unaligned());
                    coarse[n] = _mm512_dpbusd_epi32(coarse[n], codes, quant);
                    let quant = _mm512_set1_epi32(quants[n].add(N_GROUPS + group).read_unaligned());
                    fine[n] = _mm512_dpbusd_epi32(fine[n], codes, quant);
                }
            }
            let mins = if MIN {
                _mm512_cvtph_ps(_mm256_loadu_si256(block.add(layout.mins).cast()))
            } else {
                _mm512_setzero_ps()
            };
            for n in 0..N {
                // 254 · coarse + fine; at most 255 · 127 · 32 · 254 in a lane, which fits.
                let times_254 =
                    _mm512_sub_epi32(_mm512_slli_epi32::<8>(coarse[n]), _mm512_slli_epi32::<1>(coarse[n]));
                let mut dot = _mm512_add_epi32(times_254, fine[n]);
                let known = rows[n].blocks.get_unchecked(block_idx);
                if ZERO != 0 {
                    dot = _mm512_sub_epi32(dot, _mm512_set1_epi32(ZERO * known.n_sum));
                }
                let factor = _mm512_mul_ps(scales, _mm512_set1_ps(known.scale));
                sums[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[n]);
                if MIN {
                    sums[n] = _mm512_fmadd_ps(mins, _mm512_set1_ps(known.sum), sums[n]);
                }
            }
        }
    }
    let mut out = [[0.0; PANEL]; N];
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: `out` is 16 floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
    }
    out
}

/// Returns a group's codes, a byte each: `[row][4]`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn codes<const BITS: u32>(layout: Layout, block: *const u8, group: usize) -> __m512i {
    // SAFETY: the caller's block holds `layout.n_bytes`.
    unsafe {
        let bytes = block.add(layout.codes);
        let load = |group: usize| _mm512_loadu_si512(bytes.add(group * 64).cast());
        if BITS == 8 {
            return load(group);
        }
        let nibble = _mm512_set1_epi8(15);
        let codes = if group < N_GROUPS / 2 {
            _mm512_and_si512(load(group), nibble)
        } else {
            _mm512_and_si512(_mm512_srli_epi16::<4>(load(group - N_GROUPS / 2)), nibble)
        };
        if BITS == 4 {
            return codes;
        }
        let mask = block.add(layout.masks + group * 8).cast::<u64>().read_unaligned();
        _mm512_mask_add_epi8(codes, mask, codes, _mm512_set1_epi8(16))
    }
}

//! x86-64 with AVX2: a panel's 16 rows are twice 8 lanes.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::x86_64::*;

use super::panels::{Layout, N_GROUPS};
use super::{BLOCK, Format, N_PREFETCHED, PANEL, PREFETCH_AHEAD, Row, Sums, n_checked_blocks};

/// Lanes of a register.
const LANES: usize = 8;

/// Returns whether these kernels run here.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Returns the sums of one panel for each row of activations.
pub(super) fn panel<const N: usize>(format: Format, panel: &[u8], rows: &[Row<'_>; N]) -> Sums<N> {
    let layout = Layout::of(format);
    assert!(is_here(), "this machine lacks AVX2, FMA or F16C");
    let n_blocks = n_checked_blocks(layout, panel, rows);
    let mut sums = [[0.0; PANEL]; N];
    for half in 0..PANEL / LANES {
        // SAFETY: the features and all lengths were checked right above.
        unsafe {
            for_format!(format, kernel::<N>(layout, n_blocks, panel, rows, half, &mut sums));
        }
    }
    sums
}

/// The kernel for codes of `BITS` bits with the given zero, for half of a panel's rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn kernel<const N: usize, const BITS: u32, const ZERO: i32, const MIN: bool>(
    layout: Layout,
    n_blocks: usize,
    panel: &[u8],
    rows: &[Row<'_>; N],
    half: usize,
    out: &mut Sums<N>,
) {
    let mut sums = [_mm256_setzero_ps(); N];
    for block_idx in 0..n_blocks {
        // SAFETY: the caller checked that the panel holds `n_blocks` blocks of `layout.n_bytes`, and each row as many
        // blocks of 2 · 32 quants.
        unsafe {
            let block = panel.as_ptr().add(block_idx * layout.n_bytes);
            if half == 0 && N <= N_PREFETCHED {
                for line in (0..layout.n_bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(PREFETCH_AHEAD + line).cast());
                }
            }
            let halves = |at: usize| {
                _mm256_cvtph_ps(_mm_loadu_si128(block.add(at + half * 2 * LANES).cast::<__m128i>()))
            };
            let scales = halves(0);
            let codes = codes::<BITS>(layout, block, half);
            for (row, sum) in rows.iter().zip(&mut sums) {
                let quants = row.quants.as_ptr().add(block_idx * 2 * BLOCK).cast::<i32>();
                let coarse = dot::<BITS>(&codes, quants);
                let fine = dot::<BITS>(&codes, quants.add(N_GROUPS));
                // 254 · coarse + fine; at most 128 · 127 · 32 · 254 in a lane, which fits.
                let coarse = _mm256_sub_epi32(_mm256_slli_epi32::<8>(coarse), _mm256_slli_epi32::<1>(coarse));
                let mut dot = _mm256_add_epi32(coarse, fine);
                let known = row.blocks.get_unchecked(block_idx);
                // `dot` has taken the zero of 8-bit codes off already.
                if ZERO != 0 && BITS != 8 {
                    dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(ZERO * known.n_sum));
                }
                let factor = _mm256_mul_ps(scales, _mm256_set1_ps(known.scale));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, *sum);
                if MIN {
                    *sum = _mm256_fmadd_ps(halves(layout.mins), _mm256_set1_ps(known.sum), *sum);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: `out` is 16 floats, this half of them 8.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(half * LANES), sums) };
    }
}

/// Returns a block's codes for half of the rows, a byte each: `[group][row][4]`; of 8 bits as signed numbers.
#[target_feature(enable = "avx2")]
unsafe fn codes<const BITS: u32>(layout: Layout, block: *const u8, half: usize) -> [__m256i; N_GROUPS] {
    // SAFETY: the caller's block holds `layout.n_bytes`.
    unsafe {
        let bytes = block.add(layout.codes + half * 32);
        let load = |group: usize| _mm256_loadu_si256(bytes.add(group * 64).cast());
        let mut codes = [_mm256_setzero_si256(); N_GROUPS];
        if BITS == 8 {
            for (group, codes) in codes.iter_mut().enumerate() {
                *codes = _mm256_xor_si256(load(group), _mm256_set1_epi8(-128));
            }
            return codes;
        }
        let nibble = _mm256_set1_epi8(15);
        for group in 0..N_GROUPS / 2 {
            let packed = load(group);
            codes[group] = _mm256_and_si256(packed, nibble);
            codes[N_GROUPS / 2 + group] = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
        }
        if BITS == 5 {
            // Byte i of the register takes byte i / 8 of the mask, and of that bit i % 8.
            let spread =
                _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            for (group, codes) in codes.iter_mut().enumerate() {
                let mask = block.add(layout.masks + group * 8 + half * 4).cast::<i32>().read_unaligned();
                let mask = _mm256_shuffle_epi8(_mm256_set1_epi32(mask), spread);
                let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(mask, bits), bits);
                *codes = _mm256_or_si256(*codes, _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
            }
        }
        codes
    }
}

/// Returns the sums of products of 8 rows' codes with one block of quants.
#[target_feature(enable = "avx2")]
unsafe fn dot<const BITS: u32>(codes: &[__m256i; N_GROUPS], quants: *const i32) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for (four_idx, four) in codes.chunks_exact(4).enumerate() {
        let mut pairs = _mm256_setzero_si256();
        for (idx, &codes) in four.iter().enumerate() {
            // SAFETY: the caller's block has a quant for each code.
            let quant = _mm256_set1_epi32(unsafe { quants.add(four_idx * 4 + idx).read_unaligned() });
            if BITS == 8 {
                // Unsigned times signed: the code's sign goes over to the quant. 128 · 127 · 2 fits 16 bits.
                let products = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(quant, codes));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
            } else {
                // Four of them, 31 · 127 · 2 each at most, fit 16 bits.
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes, quant));
            }
        }
        if BITS != 8 {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    sum
}

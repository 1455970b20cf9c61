//! x86-64 with AMX: tiles of up to 16 rows of activations and 16 rows of weights, for prefill and verification.
//!
//! A tile's dot products are integers, so they are those of the other variants bit by bit, and AVX-512 turns them into
//! sums as there. rustc's intrinsics for tiles are unstable; a tile lives in no variable, so assembly says it as well.
#![expect(unsafe_code, reason = "kernels are where unsafe is allowed (STYLE rule 32)")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::activations::{COARSE_BITS, N_GROUPED, Quants, Rows};
use super::avx512::{add_dots, stored};
use super::panels::{Block, N_GROUPS};
use super::{BLOCK, PANEL, Sums};

/// Returns whether this machine has tiles of bytes and the system lets this process use them.
pub(super) fn is_here() -> bool {
    const AMX_TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8 && is_permitted()
}

/// Asks Linux for the tiles' 8 KiB of state, which it grants to the process.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this system call reads two numbers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// What `ldtilecfg` reads: shapes of the 8 tiles.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    first_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    n_rows: [u8; 16],
}

thread_local! {
    /// Rows and parts of a block that this thread's tiles are shaped for.
    static SHAPE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Shapes this thread's tiles for `n_rows` rows of activations and `S` parts of a block: 0 and 1 for coarse and fine
/// quants, 2 for codes, 3 to 6 for dot products.
unsafe fn shape<const S: usize>(n_rows: usize) {
    if SHAPE.get() == (n_rows, S) {
        return;
    }
    let mut config =
        TileConfig { palette: 1, first_row: 0, reserved: [0; 14], row_bytes: [0; 16], n_rows: [0; 16] };
    for tile in 0..7 {
        (config.n_rows[tile], config.row_bytes[tile]) = match tile {
            0 | 1 => (n_rows as u8, (BLOCK / S) as u16),
            2 => ((N_GROUPS / S) as u8, 64),
            _ => (n_rows as u8, 64),
        };
    }
    // SAFETY: the caller says that the machine has tiles; the configuration is a valid one of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
    SHAPE.set((n_rows, S));
}

/// Gives this thread's tiles back, so that the system need not save them.
pub(super) fn release() {
    if SHAPE.get() != (0, 0) {
        // SAFETY: the tiles were shaped by this thread, so the machine has them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
        SHAPE.set((0, 0));
    }
}

/// Coarse and fine dot products of up to 16 rows with a panel.
#[repr(C, align(64))]
struct Dots([[[i32; PANEL]; N_GROUPED]; 2]);

/// Rows whose sums are added up in one unrolled loop.
const N_UNROLLED: usize = 8;

/// Returns the sums of a panel's blocks for the first `n_rows` rows, 16 at most.
///
/// While products of one part of a block are made, those of the part before are on their way to memory, and those of
/// the part before that are added up.
///
/// # Safety
/// The machine has AMX and AVX-512 VNNI, and `rows` was checked for `n_rows` and `S`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn unpacked<const S: usize>(
    blocks: &[Block],
    rows: Rows<'_>,
    n_rows: usize,
) -> Sums<N_GROUPED> {
    // Two arrays and not one of 16, whose loop would not be unrolled and leave the sums in memory.
    let mut sums = [[_mm512_setzero_ps(); N_UNROLLED]; 2];
    let mut dots = [const { MaybeUninit::<Dots>::uninit() }; 2];
    let n_parts = blocks.len() * S;
    // SAFETY: the caller has checked the rows, and says that the machine has what this needs. Of the dot products only
    // the lines of `n_rows` rows are read, which were stored an iteration before.
    unsafe {
        shape::<S>(n_rows);
        for idx in 0..n_parts + 2 {
            if let Some(stored) = idx.checked_sub(1).filter(|stored| *stored < n_parts) {
                let dots = dots[stored % 2].as_mut_ptr();
                if stored % 2 == 0 { store_even(dots) } else { store_odd(dots) }
            }
            if idx < n_parts {
                let codes = blocks[idx / S].codes[idx % S * N_GROUPS / S..].as_ptr().cast();
                let quants =
                    rows.quants.as_ptr().add(idx / S * rows.stride).cast::<u8>().add(idx % S * BLOCK / S);
                if idx % 2 == 0 { multiply_even(quants, codes) } else { multiply_odd(quants, codes) }
            }
            if let Some(added) = idx.checked_sub(2) {
                let dots = dots[added % 2].as_ptr();
                let (block, at) = (&blocks[added / S], added / S * rows.stride);
                let [low, high] = &mut sums;
                if n_rows >= N_UNROLLED {
                    add::<S, N_UNROLLED>(block, added % S, dots, rows, at, 0, low);
                    if n_rows == N_GROUPED {
                        add::<S, N_UNROLLED>(block, added % S, dots, rows, at, N_UNROLLED, high);
                    } else {
                        add_some::<S>(block, added % S, dots, rows, at, N_UNROLLED..n_rows, high);
                    }
                } else {
                    add_some::<S>(block, added % S, dots, rows, at, 0..n_rows, low);
                }
            }
        }
    }
    let (low, high) = (stored(sums[0]), stored(sums[1]));
    std::array::from_fn(|n| if n < N_UNROLLED { low[n] } else { high[n - N_UNROLLED] })
}

/// Adds the dot products of `N` rows from `first` on to their sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add<const S: usize, const N: usize>(
    block: &Block,
    part: usize,
    dots: *const Dots,
    rows: Rows<'_>,
    at: usize,
    first: usize,
    sums: &mut [__m512; N_UNROLLED],
) {
    for (n, sums) in sums.iter_mut().enumerate().take(N) {
        // SAFETY: a line is 64 bytes, aligned as the dot products are; the caller has checked the rows.
        unsafe {
            let line = |part: usize| dots.cast::<__m512i>().add(part * N_GROUPED + first + n);
            let (coarse, fine) = (_mm512_load_si512(line(0)), _mm512_load_si512(line(1)));
            let dots = _mm512_add_epi32(_mm512_slli_epi32::<COARSE_BITS>(coarse), fine);
            add_dots::<S>(block, part, dots, rows, at + first + n, sums);
        }
    }
}

/// The same for fewer than 8 rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_some<const S: usize>(
    block: &Block,
    part: usize,
    dots: *const Dots,
    rows: Rows<'_>,
    at: usize,
    range: Range<usize>,
    sums: &mut [__m512; N_UNROLLED],
) {
    let first = range.start;
    // SAFETY: the caller's.
    unsafe {
        match range.len() {
            0 => {}
            1 => add::<S, 1>(block, part, dots, rows, at, first, sums),
            2 => add::<S, 2>(block, part, dots, rows, at, first, sums),
            3 => add::<S, 3>(block, part, dots, rows, at, first, sums),
            4 => add::<S, 4>(block, part, dots, rows, at, first, sums),
            5 => add::<S, 5>(block, part, dots, rows, at, first, sums),
            6 => add::<S, 6>(block, part, dots, rows, at, first, sums),
            _ => add::<S, 7>(block, part, dots, rows, at, first, sums),
        }
    }
}

/// Defines functions that multiply one part of a block, leaving dot products in two tiles, and that store these.
macro_rules! with_tiles {
    ($multiply:ident, $store:ident, $coarse:literal, $fine:literal) => {
        /// # Safety
        /// The tiles are shaped for the rows at `quants` and for the codes.
        #[inline(always)]
        unsafe fn $multiply(quants: *const u8, codes: *const u8) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "tileloadd tmm2, [{codes} + {line}*1]",
                    "tileloadd tmm0, [{quants} + {line}*1]",
                    "tileloadd tmm1, [{quants} + {line}*1 + 32]",
                    concat!("tilezero tmm", $coarse),
                    concat!("tdpbsud tmm", $coarse, ", tmm0, tmm2"),
                    concat!("tilezero tmm", $fine),
                    concat!("tdpbsud tmm", $fine, ", tmm1, tmm2"),
                    codes = in(reg) codes,
                    quants = in(reg) quants,
                    line = in(reg) size_of::<Quants>(),
                    options(nostack, readonly),
                );
            }
        }

        /// # Safety
        /// The tiles are shaped for 16 rows at most.
        #[inline(always)]
        unsafe fn $store(dots: *mut Dots) {
            // SAFETY: `dots` has a line for each of 16 rows.
            unsafe {
                asm!(
                    concat!("tilestored [{dots} + {line}*1], tmm", $coarse),
                    concat!("tilestored [{fine} + {line}*1], tmm", $fine),
                    dots = in(reg) dots,
                    fine = in(reg) &raw mut (*dots).0[1],
                    line = in(reg) size_of::<[i32; PANEL]>(),
                    options(nostack),
                );
            }
        }
    };
}

with_tiles!(multiply_even, store_even, "3", "4");
with_tiles!(multiply_odd, store_odd, "5", "6");

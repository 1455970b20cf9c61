//! Which instructions this machine has.
//!
//! In: the processor's own word, and `TANDEM_ISA`. Out: one choice for the whole process, made at run time, so that one
//! build is the fast build everywhere.

use std::sync::OnceLock;

/// A set of instructions with kernels, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// What the build's target has.
    Scalar,
    /// aarch64 with dot products of bytes.
    NeonDotprod,
    /// The same with products of matrices of bytes.
    NeonI8mm,
    /// AVX2, FMA and F16C.
    Avx2,
    /// The same with dot products of words.
    AvxVnni,
    /// AVX-512 with dot products of bytes.
    Avx512Vnni,
    /// The same with tiles of bytes.
    AmxInt8,
}

impl Isa {
    const ALL: [Self; 7] = [
        Self::Scalar,
        Self::NeonDotprod,
        Self::NeonI8mm,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::AmxInt8,
    ];

    /// Returns whether its kernels take quants as words, and not as two bytes.
    pub(super) fn takes_words(self) -> bool {
        matches!(self, Self::Avx2 | Self::AvxVnni)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AmxInt8 => "amx-int8",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_here(self) -> bool {
        let has_avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let has_avx512 = has_avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        match self {
            Self::Scalar => true,
            Self::NeonDotprod | Self::NeonI8mm => false,
            Self::Avx2 => has_avx2,
            Self::AvxVnni => has_avx2 && is_x86_feature_detected!("avxvnni"),
            Self::Avx512Vnni => has_avx512,
            Self::AmxInt8 => has_avx512 && super::amx::is_here(),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_here(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::NeonDotprod => super::neon::is_here(),
            Self::NeonI8mm => super::i8mm::is_here(),
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni | Self::AmxInt8 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_here(self) -> bool {
        self == Self::Scalar
    }
}

/// Returns the best instruction set of this machine, or the one that `TANDEM_ISA` names.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let available = available();
        let wanted = std::env::var("TANDEM_ISA").ok();
        let named = wanted.as_ref().and_then(|wanted| available.iter().find(|isa| isa.name() == wanted));
        if let (Some(wanted), None) = (&wanted, named) {
            tracing::warn!(wanted, ?available, "TANDEM_ISA names none of this machine's instruction sets");
        }
        let isa = named.or(available.last()).copied().unwrap_or(Isa::Scalar);
        tracing::debug!(isa = isa.name(), "instruction set chosen");
        isa
    })
}

/// Returns the name of the instruction set that this process computes with, as `TANDEM_ISA` takes it.
pub fn isa_name() -> &'static str {
    isa().name()
}

/// Returns the instruction sets this machine has, the best last.
pub(crate) fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_here()).collect()
}

/// Asks for the line of an address to be brought to the second cache, and goes on.
#[inline(always)]
pub(super) fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "a hint about an address that is never read")]
    // SAFETY: fetching what is not there does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    #[expect(unsafe_code, reason = "a hint about an address that is never read")]
    // SAFETY: fetching what is not there does nothing.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// The same to the first cache, to be written.
#[inline(always)]
pub(super) fn fetch_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "a hint about an address that is not read here")]
    // SAFETY: fetching what is not there does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    #[expect(unsafe_code, reason = "a hint about an address that is not read here")]
    // SAFETY: fetching what is not there does nothing.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{at}]", at = in(reg) at, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Compiles a function's body once for each width of vectors and calls the one this machine has.
///
/// With a parameter `L` the body gets the [`Lanes`](crate::kernel::Lanes) of that width. Rust never fuses or reorders
/// float operations by itself, so all give the same bits. What the body calls must be `#[inline(always)]`, or it is
/// compiled for the build's target only.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident$(<$lanes:ident>)?($($arg:ident: $type:ty),* $(,)?)
        $(-> $out:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body$(<$lanes: $crate::kernel::Lanes>)?($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                $(use $crate::kernel::lanes::Twice8 as $lanes;)?
                body$(::<$lanes>)?($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $type),*) $(-> $out)? {
                $(use $crate::kernel::lanes::Once16 as $lanes;)?
                body$(::<$lanes>)?($($arg),*)
            }

            match $crate::kernel::isa() {
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
                // SAFETY: `isa` returns only what the processor says it has.
                $crate::kernel::Isa::Avx2 | $crate::kernel::Isa::AvxVnni => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls what is compiled for an instruction set found here")]
                // SAFETY: `isa` returns only what the processor says it has.
                $crate::kernel::Isa::Avx512Vnni | $crate::kernel::Isa::AmxInt8 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::kernel::Isa::NeonDotprod | $crate::kernel::Isa::NeonI8mm => {
                    // Every aarch64 has NEON.
                    $(use $crate::kernel::lanes::Four4 as $lanes;)?
                    body$(::<$lanes>)?($($arg),*)
                }
                _ => {
                    $(use $crate::kernel::lanes::Portable as $lanes;)?
                    body$(::<$lanes>)?($($arg),*)
                }
            }
        }
    };
}
pub(crate) use vectorised;

//! The instruction sets, and the one dispatch on them.

use super::{Elem, Kernel};
use crate::error::Error;

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// One element at a time, anywhere.
    Scalar,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// AVX-512 F, BW, CD, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
    /// WebAssembly's vectors of 128 bits, where it was compiled with them: a module asks for them as a whole or not at all.
    #[cfg(target_family = "wasm")]
    Simd128(pulp::wasm::Simd128),
}

impl Isa {
    /// Every instruction set that this machine has, the best first.
    pub fn all() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(pulp::x86::V4::try_new().map(Isa::Avx512));
            found.extend(pulp::x86::V3::try_new().map(Isa::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        found.extend(pulp::aarch64::Neon::try_new().map(Isa::Neon));
        #[cfg(target_family = "wasm")]
        found.extend(pulp::wasm::Simd128::try_new().map(Isa::Simd128));
        found.push(Isa::Scalar);
        found
    }

    /// The best one, or the one that the environment variable `SSMRT_ISA` names.
    ///
    /// # Errors
    /// [`Error::Value`] where this machine has none of that name.
    pub fn choose() -> Result<Isa, Error> {
        let all = Isa::all();
        match std::env::var("SSMRT_ISA") {
            Ok(name) if !name.is_empty() => all.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
                let names: Vec<_> = all.iter().map(Isa::name).collect();
                Error::Value(format!("SSMRT_ISA: expected one of {}, found {name:?}", names.join(", ")))
            }),
            _ => Ok(all[0]),
        }
    }

    /// `"avx512"`, `"avx2"`, `"neon"`, `"simd128"` or `"scalar"`.
    pub fn name(&self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_family = "wasm")]
            Isa::Simd128(_) => "simd128",
        }
    }

    /// Runs a kernel on this instruction set.
    #[inline]
    pub fn run<E: Elem, K: Kernel<E>>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar => E::vectorize(pulp::Scalar::new(), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => E::vectorize(simd, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => E::vectorize(simd, kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => E::vectorize(simd, kernel),
            #[cfg(target_family = "wasm")]
            Isa::Simd128(simd) => E::vectorize(simd, kernel),
        }
    }
}

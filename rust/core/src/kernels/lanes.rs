//! The few vector operations that the kernels are written in, over pulp's instruction sets, for both precisions.

use pulp::Simd;

/// The engine's number: `f32` or `f64`.
pub trait Elem:
    Copy
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::AddAssign
    + 'static
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// States below this are flushed to zero: far below any output's last digit, far above the denormals.
    const TINY: Self;
    /// `"float32"` or `"float64"`.
    const NAME: &'static str;
    /// Rounds to this precision.
    fn of(x: f64) -> Self;
    /// Widens.
    fn f64(self) -> f64;
    /// Runs `kernel` on the instruction set of `simd`.
    fn vectorize<S: Simd, K: Kernel<Self>>(simd: S, kernel: K) -> K::Output;
}

/// Work written once over [`Lanes`] and run on whichever instruction set was chosen.
pub trait Kernel<E: Elem> {
    /// What it answers.
    type Output;
    /// The body; `#[inline(always)]`, or it is compiled without the instruction set.
    fn run<L: Lanes<E = E>>(self, lanes: L) -> Self::Output;
}

/// Vectors of one element type on one instruction set.
///
/// The `unsafe` loads and stores take `LANES` elements at the pointer, of any alignment.
#[allow(clippy::missing_safety_doc)]
pub trait Lanes: Copy {
    /// The element.
    type E: Elem;
    /// The vector.
    type V: Copy;
    /// Elements a vector.
    const LANES: usize;
    /// Vector registers of the machine.
    const REGISTERS: usize;

    /// All lanes `x`.
    fn splat(self, x: Self::E) -> Self::V;
    /// Reads a vector.
    unsafe fn load(self, p: *const Self::E) -> Self::V;
    /// Writes a vector.
    unsafe fn store(self, p: *mut Self::E, v: Self::V);
    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, fused where the machine can
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c - a b, fused where the machine can
    fn nfma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// |a|
    fn abs(self, a: Self::V) -> Self::V;
    /// The greater; a NaN in `a` stays.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; a NaN in `a` stays.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Where a > b, `yes`, else (NaN too) `no`.
    fn select_gt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// Sum over the lanes.
    fn sum(self, a: Self::V) -> Self::E;
    /// 2^a for a clamped to the range in which it is a normal number; within 1 ulp.
    fn exp2(self, a: Self::V) -> Self::V;
    /// Applies a function lane by lane, for what has no vector form.
    fn map(self, a: Self::V, f: impl Fn(Self::E) -> Self::E) -> Self::V;

    /// a with lanes below [`Elem::TINY`] in magnitude set to zero; NaN stays.
    #[inline(always)]
    fn flush(self, a: Self::V) -> Self::V {
        let zero = self.splat(Self::E::ZERO);
        self.select_gt(self.splat(Self::E::TINY), self.abs(a), zero, a)
    }
}

/// `f32` lanes of an instruction set.
#[derive(Clone, Copy)]
pub struct F32<S>(S);

/// `f64` lanes of an instruction set.
#[derive(Clone, Copy)]
pub struct F64<S>(S);

macro_rules! common {
    ($elem:ty, $vs:ident, $lanes:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $fma:ident,
     $nfma:ident, $abs:ident, $sqrt:ident, $gt:ident, $select:ident, $sum:ident) => {
        type E = $elem;
        type V = S::$vs;
        const LANES: usize = S::$lanes;
        const REGISTERS: usize = S::REGISTER_COUNT;

        #[inline(always)]
        fn splat(self, x: $elem) -> S::$vs {
            self.0.$splat(x)
        }
        #[inline(always)]
        unsafe fn load(self, p: *const $elem) -> S::$vs {
            // SAFETY: the caller answers for LANES elements; vectors are plain old data.
            unsafe { p.cast::<S::$vs>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut $elem, v: S::$vs) {
            // SAFETY: the caller answers for LANES elements; vectors are plain old data.
            unsafe { p.cast::<S::$vs>().write_unaligned(v) }
        }
        #[inline(always)]
        fn add(self, a: S::$vs, b: S::$vs) -> S::$vs {
            self.0.$add(a, b)
        }
        #[inline(always)]
        fn sub(self, a: S::$vs, b: S::$vs) -> S::$vs {
            self.0.$sub(a, b)
        }
        #[inline(always)]
        fn mul(self, a: S::$vs, b: S::$vs) -> S::$vs {
            self.0.$mul(a, b)
        }
        #[inline(always)]
        fn div(self, a: S::$vs, b: S::$vs) -> S::$vs {
            self.0.$div(a, b)
        }
        #[inline(always)]
        fn fma(self, a: S::$vs, b: S::$vs, c: S::$vs) -> S::$vs {
            self.0.$fma(a, b, c)
        }
        #[inline(always)]
        fn nfma(self, a: S::$vs, b: S::$vs, c: S::$vs) -> S::$vs {
            self.0.$nfma(a, b, c)
        }
        #[inline(always)]
        fn abs(self, a: S::$vs) -> S::$vs {
            self.0.$abs(a)
        }
        #[inline(always)]
        fn max(self, a: S::$vs, b: S::$vs) -> S::$vs {
            self.select_gt(b, a, b, a)
        }
        #[inline(always)]
        fn min(self, a: S::$vs, b: S::$vs) -> S::$vs {
            self.select_gt(a, b, b, a)
        }
        #[inline(always)]
        fn sqrt(self, a: S::$vs) -> S::$vs {
            self.0.$sqrt(a)
        }
        #[inline(always)]
        fn select_gt(self, a: S::$vs, b: S::$vs, yes: S::$vs, no: S::$vs) -> S::$vs {
            self.0.$select(self.0.$gt(a, b), yes, no)
        }
        #[inline(always)]
        fn sum(self, a: S::$vs) -> $elem {
            self.0.$sum(a)
        }
        #[inline(always)]
        fn map(self, a: S::$vs, f: impl Fn($elem) -> $elem) -> S::$vs {
            let mut v = a;
            let p = (&raw mut v).cast::<$elem>();
            for i in 0..Self::LANES {
                // SAFETY: a vector is LANES plain elements.
                unsafe { *p.add(i) = f(*p.add(i)) };
            }
            v
        }
    };
}

impl<S: Simd> Lanes for F32<S> {
    common!(
        f32, f32s, F32_LANES, splat_f32s, add_f32s, sub_f32s, mul_f32s, div_f32s, mul_add_e_f32s,
        negate_mul_add_e_f32s, abs_f32s, sqrt_f32s, greater_than_f32s, select_f32s,
        reduce_sum_f32s
    );

    /// Adding 1.5 2^23 rounds to an integer n whose bits are then the sum's lowest; 2^n is n shifted into the
    /// exponent. 2^f on [-1/2, 1/2] by the Chebyshev fit of degree 6 (relative error 2e-9).
    #[inline(always)]
    fn exp2(self, a: S::f32s) -> S::f32s {
        const ROUND: f32 = 12_582_912.0;
        const FIT: [f32; 7] = EXP2_FIT;
        let simd = self.0;
        let a = self.max(self.min(a, self.splat(127.0)), self.splat(-126.0));
        let shifted = self.add(a, self.splat(ROUND));
        let f = self.sub(a, self.sub(shifted, self.splat(ROUND)));
        let mut p = self.splat(FIT[6]);
        for &c in FIT[..6].iter().rev() {
            p = self.fma(p, f, self.splat(c));
        }
        let n = simd.transmute_u32s_f32s(shifted);
        let scale = simd.wrapping_dyn_shl_u32s(n, simd.splat_u32s(23));
        simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), scale))
    }
}

/// 2^f = sum c_k f^k, k = 0..6, on [-1/2, 1/2].
const EXP2_FIT: [f32; 7] = [1.0, 0.693_147_2, 0.240_226_5, 0.055_504_087, 0.009_618_129, 0.001_333_355_8, 0.000_154_035_3];

impl<S: Simd> Lanes for F64<S> {
    common!(
        f64, f64s, F64_LANES, splat_f64s, add_f64s, sub_f64s, mul_f64s, div_f64s, mul_add_e_f64s,
        negate_mul_add_e_f64s, abs_f64s, sqrt_f64s, greater_than_f64s, select_f64s,
        reduce_sum_f64s
    );

    #[inline(always)]
    fn exp2(self, a: S::f64s) -> S::f64s {
        self.map(a, |x| x.clamp(-1022.0, 1023.0).exp2())
    }
}

struct On32<K>(K);
struct On64<K>(K);

impl<K: Kernel<f32>> pulp::WithSimd for On32<K> {
    type Output = K::Output;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        self.0.run(F32(simd))
    }
}

impl<K: Kernel<f64>> pulp::WithSimd for On64<K> {
    type Output = K::Output;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        self.0.run(F64(simd))
    }
}

impl Elem for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const TINY: f32 = 1e-30;
    const NAME: &'static str = "float32";
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn vectorize<S: Simd, K: Kernel<f32>>(simd: S, kernel: K) -> K::Output {
        simd.vectorize(On32(kernel))
    }
}

impl Elem for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const TINY: f64 = 1e-290;
    const NAME: &'static str = "float64";
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn vectorize<S: Simd, K: Kernel<f64>>(simd: S, kernel: K) -> K::Output {
        simd.vectorize(On64(kernel))
    }
}

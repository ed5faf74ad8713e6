//! The few vector operations that the kernels are written in, over pulp's instruction sets, for both precisions.

use pulp::Simd;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The engine's number: `f32` or `f64`, and no other type.
pub trait Elem:
    sealed::Sealed
    + Copy
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
    /// The least and the greatest n for which 2^n is a normal number.
    const EXPONENTS: (Self, Self);
    /// Whether recurrences compensate the rounding errors of their states.
    const COMPENSATED: bool;
    /// `"float32"` or `"float64"`.
    const NAME: &'static str;
    /// Rounds to this precision.
    fn of(x: f64) -> Self;
    /// Widens.
    fn f64(self) -> f64;
    /// Its bits, the lowest ones where it has fewer than 64.
    fn to_bits(self) -> u64;
    /// Of such bits.
    fn from_bits(bits: u64) -> Self;
    /// Runs `kernel` on the instruction set of `simd`.
    fn vectorize<S: Simd, K: Kernel<Self>>(simd: S, kernel: K) -> K::Output;
}

/// Work written once over [`Lanes`] and run on whichever instruction set was chosen.
pub trait Kernel<E: Elem> {
    /// The result of the body.
    type Output;
    /// The body; `#[inline(always)]`, or it is compiled without the instruction set.
    fn run<L: Lanes<E = E>>(self, lanes: L) -> Self::Output;
}

/// Vectors of one element type on one instruction set.
///
/// # Safety
/// A `V` is `LANES` elements of type `E`, one after the other and nothing else, and loads and stores access just
/// these. The machine has the instruction set.
pub unsafe trait Lanes: Copy {
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
    ///
    /// # Safety
    /// `LANES` elements at `p`, of any alignment, are valid to read.
    unsafe fn load(self, p: *const Self::E) -> Self::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// `LANES` elements at `p`, of any alignment, are valid to write.
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
    /// The integer n nearest to a, and 2^n, for a where that is a normal number; undefined elsewhere.
    fn round2(self, a: Self::V) -> (Self::V, Self::V);
    /// 2^f for f in [-1/2, 1/2], exactly 1 at 0.
    fn exp2_poly(self, f: Self::V) -> Self::V;
    /// 2^f - 1 for f in [-1/2, 1/2], as accurate near 0.
    fn exp2m1_poly(self, f: Self::V) -> Self::V;
    /// Applies a function lane by lane, for those without a vector form.
    fn map(self, a: Self::V, f: impl Fn(Self::E) -> Self::E) -> Self::V;

    /// Runs a kernel as a function of its own, so that no register of the caller's loops is taken by its constants.
    fn call<K: Kernel<Self::E>>(self, kernel: K) -> K::Output;

    /// The function's value for each lane's number.
    #[inline(always)]
    fn by_lane(self, f: impl Fn(usize) -> Self::E) -> Self::V {
        let mut v = self.splat(Self::E::ZERO);
        let p = (&raw mut v).cast::<Self::E>();
        for i in 0..Self::LANES {
            // SAFETY: `v` is LANES elements (`Lanes`), and i < LANES.
            unsafe { *p.add(i) = f(i) };
        }
        v
    }
    /// The lanes rotated right by `by` places: the last ones become the first.
    #[inline(always)]
    fn rotate(self, a: Self::V, by: usize) -> Self::V {
        let p = (&raw const a).cast::<Self::E>();
        // SAFETY: `a` is LANES elements (`Lanes`), and the remainder is below LANES.
        self.by_lane(|i| unsafe { *p.add((i + Self::LANES - by) % Self::LANES) })
    }
    /// sum c_k a^k, fused.
    #[inline(always)]
    fn poly<const N: usize>(self, a: Self::V, c: &[Self::E; N]) -> Self::V {
        let mut p = self.splat(c[N - 1]);
        for &c in c[..N - 1].iter().rev() {
            p = self.fma(p, a, self.splat(c));
        }
        p
    }
    /// 2^a, within 1 ulp, for an a for which that is a normal number; NaN stays NaN.
    #[inline(always)]
    fn exp2_normal(self, a: Self::V) -> Self::V {
        let (n, scale) = self.round2(a);
        self.mul(self.exp2_poly(self.sub(a, n)), scale)
    }
    /// 2^a, within 1 ulp, for a clamped to the range in which that is a normal number; NaN stays NaN.
    #[inline(always)]
    fn exp2(self, a: Self::V) -> Self::V {
        let (least, greatest) = Self::E::EXPONENTS;
        self.exp2_normal(self.max(self.min(a, self.splat(greatest)), self.splat(least)))
    }

    /// 2^a - 1, as accurate near 0, for an a of at most 0; NaN stays NaN.
    #[inline(always)]
    fn exp2m1(self, a: Self::V) -> Self::V {
        let a = self.max(a, self.splat(Self::E::EXPONENTS.0));
        let (n, scale) = self.round2(a);
        self.fma(self.exp2m1_poly(self.sub(a, n)), scale, self.sub(scale, self.splat(Self::E::ONE)))
    }

    /// x + change, and the rounding error of that sum (Dekker's fast two-sum).
    #[inline(always)]
    fn fast_two_sum(self, x: Self::V, change: Self::V) -> (Self::V, Self::V) {
        let next = self.add(x, change);
        (next, self.sub(change, self.sub(next, x)))
    }

    /// Two vectors in the memory of one, each number rounded to half its bits (an f32 to bfloat16).
    fn halves(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` of [`Lanes::halves`].
    fn first(self, halves: Self::V) -> Self::V;
    /// `b` of [`Lanes::halves`].
    fn second(self, halves: Self::V) -> Self::V;
    /// Four vectors in the memory of one, each number, which is of -128 to 127, rounded to an integer.
    fn quarters(self, a: Self::V, b: Self::V, c: Self::V, d: Self::V) -> Self::V;
    /// Number `i` of the vectors of [`Lanes::quarters`].
    fn quarter(self, quarters: Self::V, i: usize) -> Self::V;

    /// a with lanes below [`Elem::TINY`] in magnitude set to zero; NaN stays.
    #[inline(always)]
    fn flush(self, a: Self::V) -> Self::V {
        let zero = self.splat(Self::E::ZERO);
        self.select_gt(self.splat(Self::E::TINY), self.abs(a), zero, a)
    }
}

/// Added to a number of -128 to 127 it leaves that, rounded and 128 higher, in the sum's lowest eight bits.
const BYTES_32: f32 = 8_388_608.0 + 128.0;

/// `f32` lanes of an instruction set.
#[derive(Clone, Copy)]
pub struct F32<S>(S);

/// `f64` lanes of an instruction set.
#[derive(Clone, Copy)]
pub struct F64<S>(S);

macro_rules! common {
    ($elem:ty, $vs:ident, $lanes:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $fma:ident,
     $nfma:ident, $abs:ident, $max:ident, $min:ident, $sqrt:ident, $gt:ident, $select:ident, $sum:ident, $rotate:ident) => {
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
            // SAFETY: the caller's LANES elements are as long as the vector, and any bits of them make one.
            unsafe { p.cast::<S::$vs>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut $elem, v: S::$vs) {
            // SAFETY: the caller's LANES elements are as long as the vector.
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
            // Where an operand is NaN, the machines' instructions give the second operand or NaN; f32::max would lose
            // it.
            if S::IS_SCALAR { self.select_gt(b, a, b, a) } else { self.0.$max(b, a) }
        }
        #[inline(always)]
        fn min(self, a: S::$vs, b: S::$vs) -> S::$vs {
            if S::IS_SCALAR { self.select_gt(a, b, b, a) } else { self.0.$min(b, a) }
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
        fn rotate(self, a: S::$vs, by: usize) -> S::$vs {
            self.0.$rotate(a, by)
        }
        #[inline(always)]
        fn call<K: Kernel<$elem>>(self, kernel: K) -> K::Output {
            outlined(self.0, kernel)
        }
        #[inline(always)]
        fn map(self, a: S::$vs, f: impl Fn($elem) -> $elem) -> S::$vs {
            let mut v = a;
            let p = (&raw mut v).cast::<$elem>();
            for i in 0..Self::LANES {
                // SAFETY: `v` is LANES elements, and i < LANES.
                unsafe { *p.add(i) = f(*p.add(i)) };
            }
            v
        }
    };
}

// SAFETY: pulp's f32s is F32_LANES floats, and only who has the instruction set has its token S.
unsafe impl<S: Simd> Lanes for F32<S> {
    common!(
        f32,
        f32s,
        F32_LANES,
        splat_f32s,
        add_f32s,
        sub_f32s,
        mul_f32s,
        div_f32s,
        mul_add_e_f32s,
        negate_mul_add_e_f32s,
        abs_f32s,
        max_f32s,
        min_f32s,
        sqrt_f32s,
        greater_than_f32s,
        select_f32s,
        reduce_sum_f32s,
        rotate_right_f32s
    );

    #[inline(always)]
    fn round2(self, a: S::f32s) -> (S::f32s, S::f32s) {
        // Adding 1.5 2^23 + 127 rounds to an integer n, with n + 127 in the sum's lowest bits: shifted into the
        // exponent they are 2^n.
        const ROUND: f32 = 12_582_912.0 + 127.0;
        let simd = self.0;
        let shifted = self.add(a, self.splat(ROUND));
        let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
        (self.sub(shifted, self.splat(ROUND)), simd.transmute_f32s_u32s(bits))
    }

    #[inline(always)]
    fn halves(self, a: S::f32s, b: S::f32s) -> S::f32s {
        let simd = self.0;
        // Half a unit of the last digit kept is added before the others are cut off: that rounds to nearest, whatever
        // the sign.
        let half = simd.splat_u32s(1 << 15);
        let a = simd.add_u32s(simd.transmute_u32s_f32s(a), half);
        let b = simd.add_u32s(simd.transmute_u32s_f32s(b), half);
        let high = simd.and_u32s(a, simd.splat_u32s(0xffff << 16));
        let low = simd.wrapping_dyn_shr_u32s(b, simd.splat_u32s(16));
        simd.transmute_f32s_u32s(simd.or_u32s(high, low))
    }

    #[inline(always)]
    fn first(self, halves: S::f32s) -> S::f32s {
        self.0.and_f32s(halves, self.splat(f32::from_bits(0xffff << 16)))
    }

    #[inline(always)]
    fn second(self, halves: S::f32s) -> S::f32s {
        let simd = self.0;
        let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(halves), simd.splat_u32s(16));
        simd.transmute_f32s_u32s(bits)
    }

    #[inline(always)]
    fn quarters(self, a: S::f32s, b: S::f32s, c: S::f32s, d: S::f32s) -> S::f32s {
        let simd = self.0;
        let mut all = simd.splat_u32s(0);
        for (i, v) in [a, b, c, d].into_iter().enumerate() {
            let shifted = simd.transmute_u32s_f32s(self.add(v, self.splat(BYTES_32)));
            let byte = simd.and_u32s(shifted, simd.splat_u32s(0xff));
            all = simd.or_u32s(all, simd.wrapping_dyn_shl_u32s(byte, simd.splat_u32s(8 * i as u32)));
        }
        simd.transmute_f32s_u32s(all)
    }

    #[inline(always)]
    fn quarter(self, quarters: S::f32s, i: usize) -> S::f32s {
        let simd = self.0;
        let bits = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_f32s(quarters), simd.splat_u32s(8 * i as u32));
        // As the last digits of a number that 2^23 makes an integer.
        let byte = simd.and_u32s(bits, simd.splat_u32s(0xff));
        let shifted = simd.or_u32s(byte, simd.splat_u32s(0x4b00_0000));
        self.sub(simd.transmute_f32s_u32s(shifted), self.splat(BYTES_32))
    }

    #[inline(always)]
    fn exp2_poly(self, f: S::f32s) -> S::f32s {
        self.poly(f, &EXP2_32)
    }

    #[inline(always)]
    fn exp2m1_poly(self, f: S::f32s) -> S::f32s {
        let [_, slope @ ..] = EXP2_32;
        self.mul(f, self.poly(f, &slope))
    }
}

// SAFETY: pulp's f64s is F64_LANES doubles, and only who has the instruction set has its token S.
unsafe impl<S: Simd> Lanes for F64<S> {
    common!(
        f64,
        f64s,
        F64_LANES,
        splat_f64s,
        add_f64s,
        sub_f64s,
        mul_f64s,
        div_f64s,
        mul_add_e_f64s,
        negate_mul_add_e_f64s,
        abs_f64s,
        max_f64s,
        min_f64s,
        sqrt_f64s,
        greater_than_f64s,
        select_f64s,
        reduce_sum_f64s,
        rotate_right_f64s
    );

    #[inline(always)]
    fn round2(self, a: S::f64s) -> (S::f64s, S::f64s) {
        // Adding 1.5 2^52 + 1023 does the same for the 52 bits of fraction of an f64.
        const ROUND: f64 = 6_755_399_441_055_744.0 + 1023.0;
        let shifted = self.add(a, self.splat(ROUND));
        (self.sub(shifted, self.splat(ROUND)), self.map(shifted, |x| f64::from_bits(x.to_bits() << 52)))
    }

    #[inline(always)]
    fn halves(self, a: S::f64s, b: S::f64s) -> S::f64s {
        let simd = self.0;
        let half = simd.splat_u64s(1 << 31);
        let rounded = |x| simd.add_u64s(simd.transmute_u64s_f64s(x), half);
        let high = simd.and_u64s(rounded(a), simd.splat_u64s(0xffff_ffff << 32));
        let low = self.map(simd.transmute_f64s_u64s(rounded(b)), |x| f64::from_bits(x.to_bits() >> 32));
        simd.transmute_f64s_u64s(simd.or_u64s(high, simd.transmute_u64s_f64s(low)))
    }

    #[inline(always)]
    fn first(self, halves: S::f64s) -> S::f64s {
        self.0.and_f64s(halves, self.splat(f64::from_bits(0xffff_ffff << 32)))
    }

    #[inline(always)]
    fn second(self, halves: S::f64s) -> S::f64s {
        self.map(halves, |x| f64::from_bits(x.to_bits() << 32))
    }

    #[inline(always)]
    fn quarters(self, a: S::f64s, b: S::f64s, c: S::f64s, d: S::f64s) -> S::f64s {
        let simd = self.0;
        let mut all = simd.splat_u64s(0);
        for (i, v) in [a, b, c, d].into_iter().enumerate() {
            let byte = self.map(v, |x| f64::from_bits(((x + 128.0).round_ties_even() as u64) << (16 * i)));
            all = simd.or_u64s(all, simd.transmute_u64s_f64s(byte));
        }
        simd.transmute_f64s_u64s(all)
    }

    #[inline(always)]
    fn quarter(self, quarters: S::f64s, i: usize) -> S::f64s {
        self.map(quarters, |x| (x.to_bits() >> (16 * i) & 0xff) as f64 - 128.0)
    }

    #[inline(always)]
    fn exp2_poly(self, f: S::f64s) -> S::f64s {
        self.poly(f, &EXP2_64)
    }

    #[inline(always)]
    fn exp2m1_poly(self, f: S::f64s) -> S::f64s {
        let [_, slope @ ..] = EXP2_64;
        self.mul(f, self.poly(f, &slope))
    }
}

/// 2^f = sum c_k f^k on [-1/2, 1/2], relative error 6e-9. Made by tools/fit_functions.py.
const EXP2_32: [f32; 7] = [1.0, 6.9314724e-1, 2.4022655e-1, 5.5502728e-2, 9.617064e-3, 1.3417747e-3, 1.582633e-4];

/// 2^f on [-1/2, 1/2] for `f64`, relative error 2e-17. Made by tools/fit_functions.py.
const EXP2_64: [f64; 12] = [
    1.0,
    6.931471805599457e-1,
    2.40226506959101e-1,
    5.550410866478794e-2,
    9.618129107606208e-3,
    1.333355815394949e-3,
    1.5403530442109202e-4,
    1.5252726932853824e-5,
    1.3215442626763872e-6,
    1.0180827696089187e-7,
    7.072549206608418e-9,
    4.0517183951396866e-10,
];

#[inline(never)]
fn outlined<S: Simd, E: Elem, K: Kernel<E>>(simd: S, kernel: K) -> K::Output {
    E::vectorize(simd, kernel)
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
    const COMPENSATED: bool = true;
    const EXPONENTS: (f32, f32) = (-126.0, 127.0);
    const NAME: &'static str = "float32";
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    fn to_bits(self) -> u64 {
        f32::to_bits(self).into()
    }
    fn from_bits(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
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
    const COMPENSATED: bool = false;
    const EXPONENTS: (f64, f64) = (-1022.0, 1023.0);
    const NAME: &'static str = "float64";
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    fn to_bits(self) -> u64 {
        f64::to_bits(self)
    }
    fn from_bits(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    #[inline(always)]
    fn vectorize<S: Simd, K: Kernel<f64>>(simd: S, kernel: K) -> K::Output {
        simd.vectorize(On64(kernel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use proptest::prelude::*;

    /// A vector's worth of numbers, there and back.
    struct ThereAndBack<E>(Vec<E>, Vec<E>);

    impl<E: Elem> Kernel<E> for ThereAndBack<E> {
        type Output = (Vec<E>, Vec<E>);

        #[inline(always)]
        fn run<L: Lanes<E = E>>(self, lanes: L) -> (Vec<E>, Vec<E>) {
            let Self(mut a, mut b) = self;
            for i in (0..a.len()).step_by(L::LANES) {
                // SAFETY: both have 16 elements, whole vectors.
                unsafe {
                    let (a, b) = (a.as_mut_ptr().add(i), b.as_mut_ptr().add(i));
                    let halves = lanes.halves(lanes.load(a), lanes.load(b));
                    lanes.store(a, lanes.first(halves));
                    lanes.store(b, lanes.second(halves));
                }
            }
            (a, b)
        }
    }

    fn check<E: Elem>(a: &[f64], b: &[f64], digits: i32) {
        let numbers = |x: &[f64]| x.iter().map(|&x| E::of(x)).collect::<Vec<E>>();
        for isa in Isa::all() {
            let (first, second) = isa.run(ThereAndBack(numbers(a), numbers(b)));
            for (half, x) in first.iter().chain(&second).zip(numbers(a).into_iter().chain(numbers(b))) {
                let (half, x) = (half.f64(), x.f64());
                assert!((half - x).abs() <= x.abs() * 0.5f64.powi(digits), "{isa:?}: {half} for {x}");
            }
        }
    }

    /// Four vectors' worth of numbers, there and back.
    struct InQuarters<E>([Vec<E>; 4]);

    impl<E: Elem> Kernel<E> for InQuarters<E> {
        type Output = [Vec<E>; 4];

        #[inline(always)]
        fn run<L: Lanes<E = E>>(self, lanes: L) -> [Vec<E>; 4] {
            let Self(mut v) = self;
            for i in (0..v[0].len()).step_by(L::LANES) {
                // SAFETY: all have 16 elements, whole vectors.
                unsafe {
                    let of = |v: &Vec<E>| lanes.load(v.as_ptr().add(i));
                    let quarters = lanes.quarters(of(&v[0]), of(&v[1]), of(&v[2]), of(&v[3]));
                    for (k, v) in v.iter_mut().enumerate() {
                        lanes.store(v.as_mut_ptr().add(i), lanes.quarter(quarters, k));
                    }
                }
            }
            v
        }
    }

    fn check_quarters<E: Elem>(numbers: &[f64]) {
        let v: [Vec<E>; 4] = [0, 1, 2, 3].map(|k| numbers[16 * k..][..16].iter().map(|&x| E::of(x)).collect());
        for isa in Isa::all() {
            let found = isa.run(InQuarters(v.clone()));
            for (found, x) in found.iter().flatten().zip(v.iter().flatten()) {
                assert_eq!(found.f64(), x.f64().round_ties_even(), "{isa:?}: for {}", x.f64());
            }
        }
    }

    proptest! {
        #[test]
        fn quarters_are_rounded(x in prop::collection::vec(-128f64..127.4, 64)) {
            check_quarters::<f32>(&x);
            check_quarters::<f64>(&x);
        }

        #[test]
        fn halves_are_rounded(x in prop::collection::vec(-1e6f64..1e6, 32), scale in -20i32..20) {
            let (a, b): (Vec<f64>, Vec<f64>) = x.chunks(2).map(|x| (x[0], x[1] * 10f64.powi(scale))).unzip();
            check::<f32>(&a, &b, 8);
            check::<f64>(&a, &b, 21);
        }
    }
}

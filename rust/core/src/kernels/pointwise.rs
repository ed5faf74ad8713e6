//! Element-wise functions, and gated linear units.
//!
//! The error of a function f is below 2e-7 max(1, |f|) in `f32` and below 1e-13 max(1, |f|) in `f64`, for every
//! argument. NaN gives NaN, and an infinity the limit.

use super::layout::holds;
use super::{Elem, GROUP, Isa, Kernel, Lanes, padded};
use std::f64::consts::{LN_2, LOG2_E};

/// A function as a type, so that a loop over it is compiled for it.
pub trait Elementwise {
    /// The function, lane by lane.
    fn apply<L: Lanes>(lanes: L, x: L::V) -> L::V;
}

/// Makes the one list of element-wise functions: the enum with its names, a type for each, and `with_function!`, which
/// evaluates an expression in which a name stands for that type: the function is chosen once, outside the loop.
macro_rules! functions {
    ($dollar:tt $($(#[$doc:meta])* $function:ident $name:literal |$lanes:ident, $x:ident| $body:expr;)+) => {
        named! {
            /// An element-wise function, by its name in a Document.
            pub enum Function { $($(#[$doc])* $function = $name,)+ }
        }

        mod functions {
            use super::*;
            $(
                pub struct $function;
                impl Elementwise for $function {
                    #[inline(always)]
                    fn apply<L: Lanes>($lanes: L, $x: L::V) -> L::V {
                        $body
                    }
                }
            )+
        }

        macro_rules! with_function {
            ($dollar chosen:expr, $dollar typed:ident => $dollar then:expr) => {
                match $dollar chosen {
                    $(Function::$function => {
                        type $dollar typed = functions::$function;
                        $dollar then
                    })+
                }
            };
        }
    };
}

functions! {$
    /// x
    Identity "identity" |_lanes, x| x;

    /// x Phi(x), by erf.
    // The tail Phi(-t) is 2^q(t). At t = 12 it is below 1e-32, and q still above the least exponent.
    Gelu "gelu" |lanes, x| if single::<L>() {
        let t = lanes.min(lanes.abs(x), number(lanes, 12.0));
        let tail = lanes.exp2_normal(poly32(lanes, t, &LOG2_TAIL));
        lanes.nfma(t, tail, relu(lanes, x))
    } else {
        lanes.map(x, |x| L::E::of(gelu64(x.f64())))
    };

    /// GELU's tanh approximation.
    // (1 + tanh(v)) / 2 is 1 / (1 + exp(-2 v)).
    GeluTanh "gelu_tanh" |lanes, x| {
        const SLOPE: f64 = -2.0 * 0.797_884_560_802_865_4 * LOG2_E;
        let low = lanes.max(x, number(lanes, -10.0));
        let t = lanes.min(low, number(lanes, 10.0));
        let slope = lanes.fma(lanes.mul(t, t), number(lanes, SLOPE * 0.044_715), number(lanes, SLOPE));
        let e = lanes.exp2_normal(lanes.mul(t, slope));
        lanes.div(low, lanes.add(e, number(lanes, 1.0)))
    };

    /// max(x, 0)
    Relu "relu" |lanes, x| relu(lanes, x);

    /// Slope 0.01 below zero.
    LeakyRelu "leaky_relu" |lanes, x| lanes.max(x, lanes.mul(x, number(lanes, 0.01)));

    /// x sigmoid(x)
    Silu "silu" |lanes, x| {
        let low = lanes.max(x, number(lanes, -exp_range::<L>()));
        let e = exp(lanes, lanes.min(low, number(lanes, exp_range::<L>())), -1.0);
        lanes.div(low, lanes.add(e, number(lanes, 1.0)))
    };

    /// 1 / (1 + exp(-x))
    Sigmoid "sigmoid" |lanes, x| {
        let one = number(lanes, 1.0);
        lanes.div(one, lanes.add(exp(lanes, clamp(lanes, x, exp_range::<L>()), -1.0), one))
    };

    /// tanh(x)
    // With E = exp(2 x) - 1, E / (E + 2).
    Tanh "tanh" |lanes, x| {
        let e = expm1(lanes, clamp(lanes, x, if single::<L>() { 10.0 } else { 20.0 }), 2.0);
        lanes.div(e, lanes.add(e, number(lanes, 2.0)))
    };

    /// log(1 + exp(x)), linear above 20.
    // max(x, 0) + log1p(exp(-|x|)); above 20 float32 does not tell it from x.
    Softplus "softplus" |lanes, x| if single::<L>() {
        let u = exp(lanes, lanes.min(lanes.abs(x), number(lanes, exp_range::<L>())), -1.0);
        lanes.fma(u, poly32(lanes, u, &LOG1P), relu(lanes, x))
    } else {
        lanes.map(x, |x| if x.f64() > 20.0 { x } else { L::E::of(libm::log1p(libm::exp(x.f64()))) })
    };

    /// exp(x) - 1 below zero, else x.
    Elu "elu" |lanes, x| {
        let low = lanes.max(lanes.min(x, number(lanes, 0.0)), number(lanes, -exp_range::<L>()));
        lanes.add(relu(lanes, x), expm1(lanes, low, 1.0))
    };

    /// max(x, 0)^2
    Sqrelu "sqrelu" |lanes, x| {
        let r = relu(lanes, x);
        lanes.mul(r, r)
    };
}

#[inline(always)]
fn single<L: Lanes>() -> bool {
    size_of::<L::E>() == 4
}

#[inline(always)]
fn number<L: Lanes>(lanes: L, x: f64) -> L::V {
    lanes.splat(L::E::of(x))
}

#[inline(always)]
fn poly32<L: Lanes, const N: usize>(lanes: L, x: L::V, coefficients: &[f32; N]) -> L::V {
    lanes.poly(x, &coefficients.map(|c| L::E::of(f64::from(c))))
}

#[inline(always)]
fn relu<L: Lanes>(lanes: L, x: L::V) -> L::V {
    lanes.max(x, number(lanes, 0.0))
}

#[inline(always)]
fn clamp<L: Lanes>(lanes: L, x: L::V, bound: f64) -> L::V {
    lanes.max(lanes.min(x, number(lanes, bound)), number(lanes, -bound))
}

/// The bound on |x| up to which exp(x) is a normal number.
#[inline(always)]
pub(super) fn exp_range<L: Lanes>() -> f64 {
    -L::E::EXPONENTS.0.f64() * LN_2 - 0.01
}

/// f and 2^n with rate x log2(e) = n + f; f is a fused product less n, rounded once.
#[inline(always)]
fn exp_parts<L: Lanes>(lanes: L, x: L::V, rate: f64) -> (L::V, L::V) {
    let slope = number(lanes, rate * LOG2_E);
    let (n, scale) = lanes.round2(lanes.mul(x, slope));
    (lanes.fma(x, slope, lanes.sub(number(lanes, -0.0), n)), scale)
}

/// exp(rate x), within [`exp_range`].
#[inline(always)]
fn exp<L: Lanes>(lanes: L, x: L::V, rate: f64) -> L::V {
    let (f, scale) = exp_parts(lanes, x, rate);
    lanes.mul(lanes.exp2_poly(f), scale)
}

/// exp(rate x) - 1, within [`exp_range`].
#[inline(always)]
pub(super) fn expm1<L: Lanes>(lanes: L, x: L::V, rate: f64) -> L::V {
    let (f, scale) = exp_parts(lanes, x, rate);
    lanes.fma(lanes.exp2m1_poly(f), scale, lanes.sub(scale, number(lanes, 1.0)))
}

fn gelu64(x: f64) -> f64 {
    // erfc is 0 below this, and an infinity times 0 would be NaN.
    if x < -40.0 { -0.0 } else { 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) }
}

/// log2(Phi(-t)), with an error that makes t Phi(-t) wrong by less than 9e-8. Made by tools/fit_functions.py.
const LOG2_TAIL: [f32; 7] = [-1.0, -1.1511471e0, -4.5891544e-1, -5.323864e-2, 7.977834e-3, -7.400091e-4, 2.9941808e-5];

/// log(1 + u) / u on [0, 1], relative error 4e-8. Made by tools/fit_functions.py.
const LOG1P: [f32; 9] = [
    1.0,
    -4.9999774e-1,
    3.3323777e-1,
    -2.4874884e-1,
    1.9217367e-1,
    -1.3880126e-1,
    8.0609635e-2,
    -3.0887682e-2,
    5.561648e-3,
];

/// Several vectors as one: their chains of dependent operations overlap.
///
/// Its methods are loops, because a closure that the standard library calls would be compiled without the instruction
/// set.
#[derive(Clone, Copy)]
struct Abreast<L, const N: usize>(L);

macro_rules! each {
    ($($name:ident($first:ident $(, $other:ident)*);)+) => {$(
        #[inline(always)]
        fn $name(self, mut $first: [L::V; N] $(, $other: [L::V; N])*) -> [L::V; N] {
            for i in 0..N {
                $first[i] = self.0.$name($first[i] $(, $other[i])*);
            }
            $first
        }
    )+};
}

// SAFETY: an array of N vectors is N times LANES elements, and so many are loaded and stored.
unsafe impl<L: Lanes, const N: usize> Lanes for Abreast<L, N> {
    type E = L::E;
    type V = [L::V; N];
    const LANES: usize = N * L::LANES;
    const REGISTERS: usize = L::REGISTERS / N;

    #[inline(always)]
    fn splat(self, x: L::E) -> [L::V; N] {
        [self.0.splat(x); N]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const L::E) -> [L::V; N] {
        let mut v = [self.0.splat(L::E::ZERO); N];
        for (i, v) in v.iter_mut().enumerate() {
            // SAFETY: i < N, and the caller's elements are N times L::LANES.
            *v = unsafe { self.0.load(p.add(i * L::LANES)) };
        }
        v
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut L::E, v: [L::V; N]) {
        for (i, &v) in v.iter().enumerate() {
            // SAFETY: i < N, and the caller's elements are N times L::LANES.
            unsafe { self.0.store(p.add(i * L::LANES), v) };
        }
    }
    each! {
        add(a, b);
        sub(a, b);
        mul(a, b);
        div(a, b);
        fma(a, b, c);
        nfma(a, b, c);
        abs(a);
        max(a, b);
        min(a, b);
        sqrt(a);
        select_gt(a, b, yes, no);
        exp2_poly(f);
        exp2m1_poly(f);
        halves(a, b);
        first(halves);
        second(halves);
    }
    #[inline(always)]
    fn call<K: Kernel<L::E>>(self, kernel: K) -> K::Output {
        self.0.call(kernel)
    }
    #[inline(always)]
    fn sum(self, a: [L::V; N]) -> L::E {
        let mut sum = L::E::ZERO;
        for a in a {
            sum += self.0.sum(a);
        }
        sum
    }
    #[inline(always)]
    fn round2(self, a: [L::V; N]) -> ([L::V; N], [L::V; N]) {
        let (mut n, mut scale) = (a, a);
        for i in 0..N {
            (n[i], scale[i]) = self.0.round2(a[i]);
        }
        (n, scale)
    }
    #[inline(always)]
    fn map(self, mut a: [L::V; N], f: impl Fn(L::E) -> L::E) -> [L::V; N] {
        for a in &mut a {
            *a = self.0.map(*a, &f);
        }
        a
    }
}

/// A function of `rows` rows of `len` elements, which start `stride` apart from `p` on. Whoever makes one guarantees
/// that these are valid to read and write, and that `len` is whole vectors.
struct Rows<E> {
    function: Function,
    rows: usize,
    len: usize,
    p: *mut E,
    stride: usize,
}

impl<E: Elem> Kernel<E> for Rows<E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        if L::REGISTERS >= 32 { self.abreast::<L, 4>(lanes) } else { self.abreast::<L, 2>(lanes) }
    }
}

impl<E: Elem> Rows<E> {
    #[inline(always)]
    fn abreast<L: Lanes<E = E>, const N: usize>(self, lanes: L) {
        let Self { function, rows, len, p, stride } = self;
        let wide = len - len % (N * L::LANES);
        with_function!(function, C => {
            for row in 0..rows {
                // SAFETY: row < rows, and i + LANES <= len, since `len` and `wide` are whole vectors.
                unsafe {
                    let p = p.add(row * stride);
                    for i in (0..wide).step_by(N * L::LANES) {
                        let lanes = Abreast::<L, N>(lanes);
                        lanes.store(p.add(i), C::apply(lanes, lanes.load(p.add(i))));
                    }
                    for i in (wide..len).step_by(L::LANES) {
                        lanes.store(p.add(i), C::apply(lanes, lanes.load(p.add(i))));
                    }
                }
            }
        });
    }
}

/// Applies `function` to `rows` rows of `len` elements, which start `stride` apart from `p` on.
///
/// # Safety
/// These elements are valid to read and write, and `len` is a multiple of `L::LANES`.
#[inline(always)]
pub unsafe fn apply_rows<L: Lanes>(lanes: L, function: Function, rows: usize, len: usize, p: *mut L::E, stride: usize) {
    if function != Function::Identity {
        lanes.call(Rows { function, rows, len, p, stride });
    }
}

/// Applies `function` to `rows` rows of `d` channels (stride [`padded`]) in place.
pub fn run<E: Elem>(isa: Isa, function: Function, rows: usize, d: usize, x: &mut [E]) {
    assert!(holds(x.len(), rows, padded(d)), "expected {rows} rows of {d} channels");
    if function != Function::Identity {
        let len = rows * padded(d);
        isa.run(Rows { function, rows: 1, len, p: x.as_mut_ptr(), stride: len });
    }
}

/// Applies `function` to `n` rows of G neighbouring groups, each group packed `apart` elements after the one before,
/// and writes them as rows that start `step` elements apart from `y` on.
///
/// # Safety
/// The `n` rows of G * GROUP elements from `y` on are valid to write, and nothing else accesses them meanwhile.
pub unsafe fn unpack<E: Elem, const G: usize>(
    isa: Isa,
    function: Function,
    n: usize,
    packed: &[E],
    apart: usize,
    (y, step): (*mut E, isize),
) {
    assert!(holds(apart, n, GROUP) && holds(packed.len(), G, apart));
    isa.run(Unpack::<E, G> { function, n, from: (packed.as_ptr(), apart), to: (y, step) });
}

struct Unpack<E, const G: usize> {
    function: Function,
    n: usize,
    from: (*const E, usize),
    to: (*mut E, isize),
}

impl<E: Elem, const G: usize> Kernel<E> for Unpack<E, G> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        if L::REGISTERS >= 32 { self.abreast::<L, 4>(lanes) } else { self.abreast::<L, 2>(lanes) }
    }
}

impl<E: Elem, const G: usize> Unpack<E, G> {
    /// In the order of the rows written, N vectors at once.
    #[inline(always)]
    fn abreast<L: Lanes<E = E>, const N: usize>(self, lanes: L) {
        let Self { function, n, from, to } = self;
        let several = Abreast::<L, N>(lanes);
        let len = n * G * GROUP;
        // SAFETY: for i below n rows of G groups, `unpack` checked that the packed groups have the element, and its
        // caller guarantees that the row has it.
        let at = |i: usize| unsafe {
            let (row, i) = (i / (G * GROUP), i % (G * GROUP));
            (from.0.add(i / GROUP * from.1 + row * GROUP + i % GROUP), to.0.offset(row as isize * to.1).add(i))
        };
        with_function!(function, C => {
            let mut i = 0;
            // SAFETY: both ends of each vector are below `len`, and a vector does not cross a group.
            unsafe {
                while i + N * L::LANES <= len {
                    let mut v = several.splat(E::ZERO);
                    for (k, v) in v.iter_mut().enumerate() {
                        *v = lanes.load(at(i + k * L::LANES).0);
                    }
                    for (k, v) in C::apply(several, v).into_iter().enumerate() {
                        lanes.store(at(i + k * L::LANES).1, v);
                    }
                    i += N * L::LANES;
                }
                while i < len {
                    let (from, to) = at(i);
                    lanes.store(to, C::apply(lanes, lanes.load(from)));
                    i += L::LANES;
                }
            }
        });
    }
}

/// The gated linear unit (Dauphin et al. 2017, eq. 1) y = a `gate`(b) of x = (a, b): `rows` rows of 2 d channels into
/// as many rows of d. b starts at channel `d`, which need not be the first of a group.
pub fn glu<E: Elem>(isa: Isa, gate: Function, rows: usize, d: usize, x: &[E], y: &mut [E]) {
    assert!(holds(y.len(), rows, padded(d)) && holds(x.len(), rows, padded(2 * d)));
    isa.run(GluKernel { gate, rows, d, x, y });
}

struct GluKernel<'a, E> {
    gate: Function,
    rows: usize,
    d: usize,
    x: &'a [E],
    y: &'a mut [E],
}

impl<E: Elem> Kernel<E> for GluKernel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { gate, rows, d, x, y } = self;
        let whole = d / GROUP * GROUP;
        with_function!(gate, C => {
            for row in 0..rows {
                // SAFETY: `glu` checked that x has rows of 2 d and y of d channels, padded. The whole groups of a and
                // b lie within a row of x; what remains of each is copied first, since the last group of b may end
                // beyond it.
                unsafe {
                    let x = x.as_ptr().add(row * padded(2 * d));
                    let y = y.as_mut_ptr().add(row * padded(d));
                    for i in (0..whole).step_by(L::LANES) {
                        let gate = C::apply(lanes, lanes.load(x.add(d + i)));
                        lanes.store(y.add(i), lanes.mul(lanes.load(x.add(i)), gate));
                    }
                    if whole < d {
                        let mut value = [E::ZERO; GROUP];
                        let mut gate = [E::ZERO; GROUP];
                        std::ptr::copy_nonoverlapping(x.add(whole), value.as_mut_ptr(), d - whole);
                        std::ptr::copy_nonoverlapping(x.add(d + whole), gate.as_mut_ptr(), d - whole);
                        for i in (0..GROUP).step_by(L::LANES) {
                            let gate = C::apply(lanes, lanes.load(gate.as_ptr().add(i)));
                            lanes.store(y.add(whole + i), lanes.mul(lanes.load(value.as_ptr().add(i)), gate));
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Named;

    const SIZES: [usize; 8] = [1, 3, 15, 16, 17, 24, 64, 100];

    fn exact(function: Function, x: f64) -> f64 {
        match function {
            Function::Identity => x,
            Function::Gelu => gelu64(x),
            Function::GeluTanh => {
                let v = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                if x < -30.0 { 0.0 } else { x / (1.0 + libm::exp(-2.0 * v)) }
            }
            Function::Relu => x.max(0.0),
            Function::LeakyRelu => x.max(0.01 * x),
            Function::Silu if x < -700.0 => 0.0,
            Function::Silu => x / (1.0 + libm::exp(-x)),
            Function::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Function::Tanh => libm::tanh(x),
            Function::Softplus if x > 20.0 => x,
            Function::Softplus => libm::log1p(libm::exp(x)),
            Function::Elu if x > 0.0 => x,
            Function::Elu => libm::expm1(x),
            Function::Sqrelu => x.max(0.0) * x.max(0.0),
        }
    }

    /// Arguments of both signs, dense around zero and sparse towards the extremes.
    fn arguments<E: Elem>() -> Vec<E> {
        let mut xs: Vec<f64> = (0..60_000).map(|i| f64::from(i) * 5e-4).collect();
        xs.extend((0..4_000).map(|i| 2f64.powf(-120.0 + f64::from(i) * 0.06)));
        xs.extend([87.0, 87.4, 88.0, 88.8, 103.0, 126.0, 127.0, 128.0, 700.0, 1e18, 1e19, 1e37]);
        xs.extend(xs.clone().iter().map(|x| -x));
        xs.retain(|x| x.abs() < if size_of::<E>() == 4 { 3e38 } else { 1e300 });
        xs.resize(padded(xs.len()), 0.0);
        xs.into_iter().map(E::of).collect()
    }

    fn worst<E: Elem>(isa: Isa, function: Function) -> (f64, f64) {
        let xs = arguments::<E>();
        let mut ys = xs.clone();
        run(isa, function, 1, xs.len(), &mut ys);
        let mut worst = (0.0, 0.0);
        for (x, y) in xs.iter().zip(&ys) {
            let f = exact(function, x.f64());
            let error = if f.is_infinite() || E::of(f).f64().is_infinite() {
                if y.f64() == E::of(f).f64() { 0.0 } else { f64::INFINITY }
            } else {
                (y.f64() - f).abs() / f.abs().max(1.0)
            };
            assert!(!error.is_nan(), "{function:?}({x:?}) = {y:?}, expected {f}");
            if error > worst.0 {
                worst = (error, x.f64());
            }
        }
        worst
    }

    #[test]
    fn functions_are_within_2e7_of_float64() {
        for isa in Isa::all() {
            for &(_, function) in Function::NAMES {
                let (error, x) = worst::<f32>(isa, function);
                eprintln!("{} {function:?}: {error:.2e} at {x}", isa.name());
                assert!(error <= 2e-7, "{} {function:?}: {error:.2e} at {x}", isa.name());
            }
        }
    }

    #[test]
    fn float64_functions_are_within_1e13() {
        for isa in Isa::all() {
            for &(_, function) in Function::NAMES {
                let (error, x) = worst::<f64>(isa, function);
                assert!(error <= 1e-13, "{} {function:?}: {error:.2e} at {x}", isa.name());
            }
        }
    }

    fn check_special<E: Elem>() {
        let payload = E::of(f64::NAN);
        for isa in Isa::all() {
            for &(_, function) in Function::NAMES {
                let mut x = [E::ZERO; GROUP];
                let inf = E::of(f64::INFINITY);
                x[..3].copy_from_slice(&[payload, inf, E::ZERO - inf]);
                run(isa, function, 1, GROUP, &mut x);
                assert!(x[0].f64().is_nan(), "{} {function:?} loses NaN", isa.name());
                let high = if matches!(function, Function::Sigmoid | Function::Tanh) { 1.0 } else { f64::INFINITY };
                assert_eq!(x[1].f64(), high, "{} {function:?}(inf)", isa.name());
                let low = match function {
                    Function::Identity | Function::LeakyRelu => f64::NEG_INFINITY,
                    Function::Tanh | Function::Elu => -1.0,
                    _ => 0.0,
                };
                let same = x[2].f64() == low || (x[2].f64() - low).abs() < 1e-29;
                assert!(same, "{} {function:?}(-inf) = {:?}", isa.name(), x[2]);
            }
        }
    }

    #[test]
    fn nan_stays_and_infinities_have_the_limit() {
        check_special::<f32>();
        check_special::<f64>();
    }

    #[test]
    fn every_nan_stays() {
        for isa in Isa::all() {
            for &(_, function) in Function::NAMES {
                for bits in [0x7fc0_0001_u32, 0xffc0_0080, 0x7fff_ffff, 0x7f80_0001] {
                    let mut x = [f32::from_bits(bits); GROUP];
                    run(isa, function, 1, GROUP, &mut x);
                    assert!(x.iter().all(|x| x.is_nan()), "{} {function:?} loses {bits:#x}", isa.name());
                }
            }
        }
    }

    #[test]
    fn exponentials_are_accurate_near_zero() {
        for isa in Isa::all() {
            for function in [Function::Tanh, Function::Elu, Function::Silu] {
                let xs: Vec<f32> =
                    (0..64).map(|i| -(10f32.powf(-8.0 + i as f32 / 10.0))).filter(|x| *x > -0.05).collect();
                let mut ys = xs.clone();
                ys.resize(padded(xs.len()), 0.0);
                run(isa, function, 1, xs.len(), &mut ys);
                for (&x, &y) in xs.iter().zip(&ys) {
                    let f = exact(function, f64::from(x));
                    let error = (f64::from(y) / f - 1.0).abs();
                    assert!(error < 3e-7, "{} {function:?}({x}): {error:.1e}", isa.name());
                }
            }
        }
    }

    #[test]
    fn softplus_is_accurate_far_below_zero() {
        for isa in Isa::all() {
            let xs: Vec<f32> = (0..800).map(|i| -(i as f32) / 10.0).collect();
            let mut ys = xs.clone();
            run(isa, Function::Softplus, 1, xs.len(), &mut ys);
            for (&x, &y) in xs.iter().zip(&ys) {
                let error = (f64::from(y) / exact(Function::Softplus, f64::from(x)) - 1.0).abs();
                assert!(error < 2e-7 + 1e-7 * f64::from(-x), "{} softplus({x}): {error:.1e}", isa.name());
            }
        }
    }

    fn check_exp2<E: Elem>(bound: f64) {
        struct Exp2<'a, E>(&'a mut [E]);
        impl<E: Elem> Kernel<E> for Exp2<'_, E> {
            type Output = ();
            #[inline(always)]
            fn run<L: Lanes<E = E>>(self, lanes: L) {
                for x in self.0.chunks_exact_mut(L::LANES) {
                    // SAFETY: `x` is LANES elements.
                    unsafe { lanes.store(x.as_mut_ptr(), lanes.exp2(lanes.load(x.as_ptr()))) };
                }
            }
        }
        let (least, greatest) = (E::EXPONENTS.0.f64(), E::EXPONENTS.1.f64());
        for isa in Isa::all() {
            let xs: Vec<E> =
                (0..=16_000).map(|i| E::of(least - 1.0 + (greatest - least + 2.0) * f64::from(i) / 16_000.0)).collect();
            let mut ys = xs.clone();
            ys.resize(padded(xs.len()), E::ZERO);
            isa.run(Exp2(&mut ys));
            for (x, y) in xs.iter().zip(&ys) {
                let error = (y.f64() / libm::exp2(x.f64().clamp(least, greatest)) - 1.0).abs();
                assert!(error <= bound, "{} {} exp2({x:?}): {error:.2e}", isa.name(), E::NAME);
            }
        }
    }

    #[test]
    fn exp2_is_within_one_ulp() {
        check_exp2::<f32>(f64::from(f32::EPSILON));
        check_exp2::<f64>(2.0 * f64::EPSILON);
    }

    fn check_glu<E: Elem>(bound: f64) {
        for isa in Isa::all() {
            for d in SIZES {
                for &(_, gate) in Function::NAMES {
                    let (rows, stride) = (3, padded(2 * d));
                    let mut x = vec![E::of(f64::NAN); rows * stride];
                    for (row, x) in x.chunks_exact_mut(stride).enumerate() {
                        x[..2 * d]
                            .iter_mut()
                            .enumerate()
                            .for_each(|(i, x)| *x = E::of(((i * 7 + row) as f64).sin() * 3.0));
                    }
                    let mut y = vec![E::ZERO; rows * padded(d)];
                    glu(isa, gate, rows, d, &x, &mut y);
                    for row in 0..rows {
                        for i in 0..d {
                            let expected = x[row * stride + i].f64() * exact(gate, x[row * stride + d + i].f64());
                            let error = (y[row * padded(d) + i].f64() - expected).abs();
                            assert!(
                                error <= bound * expected.abs().max(3.0),
                                "{} {gate:?} d {d} channel {i}: {error:.1e}",
                                isa.name()
                            );
                        }
                        assert!(y[row * padded(d) + d..(row + 1) * padded(d)].iter().all(|y| y.f64() == 0.0));
                    }
                }
            }
        }
    }

    #[test]
    fn glu_is_the_product_of_its_halves() {
        check_glu::<f32>(4e-7);
        check_glu::<f64>(1e-13);
    }
}

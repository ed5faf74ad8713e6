//! The diagonal-plus-low-rank recurrence of S4, for a group of channels, in O(N K) a sample:
//! x' = x + delta x - sum_k w_k s_k + b u, s_k = Re(v_k . x), y = Re(c . x').
//!
//! delta is the discrete pole less one: it keeps in float32 what the pole itself would round away.

use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes};
use num_complex::Complex64;

/// The most inner products that the kernel is compiled for: rank 4 with conjugate pairs, rank 2 without, twice that.
pub const MAX_PRODUCTS: usize = 8;

/// Rows of [`GROUP`] a mode takes before those of its products: delta, b and c, each (re, im).
const FIXED: usize = 6;
/// And for each product: v and w, each (re, im).
const EACH: usize = 4;

/// The system of one group of channels.
#[derive(Clone, Debug)]
pub struct LowRank<E> {
    modes: usize,
    products: usize,
    coefficients: Aligned<E>,
}

/// One mode of one channel.
#[derive(Clone, Debug)]
pub struct Mode {
    /// The discrete pole, less one.
    pub delta: Complex64,
    /// What the input is multiplied with.
    pub b: Complex64,
    /// What reads it, with the factor 2 of conjugate pairs.
    pub c: Complex64,
    /// For each product, what it reads (v) and what it subtracts (w).
    pub vw: Vec<(Complex64, Complex64)>,
}

impl<E: Elem> LowRank<E> {
    /// `modes` modes and `products` inner products a lane; `mode(lane, n)` gives each, None for an unused lane.
    pub fn new(modes: usize, products: usize, mode: impl Fn(usize, usize) -> Option<Mode>) -> Self {
        assert!(products <= MAX_PRODUCTS);
        let rows = FIXED + EACH * products;
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        for n in 0..modes {
            for lane in 0..GROUP {
                let Some(m) = mode(lane, n) else { continue };
                let pairs = [m.delta, m.b, m.c].into_iter().chain(m.vw.iter().flat_map(|&(v, w)| [v, w]));
                for (row, value) in pairs.flat_map(|z| [z.re, z.im]).enumerate() {
                    coefficients[(n * rows + row) * GROUP + lane] = E::of(value);
                }
            }
        }
        Self { modes, products, coefficients }
    }

    /// Elements of state: (re, im) a mode, then the inner products of the state, each a row of [`GROUP`].
    pub fn state_len(&self) -> usize {
        (self.modes * 2 + self.products) * GROUP
    }

    /// `u` and `y` are `rows` rows of [`GROUP`]; `y` is overwritten.
    pub fn scan(&self, isa: Isa, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && state.len() == self.state_len());
        isa.run(Scan { system: self, rows, u, y, state });
    }

    /// Computes the inner products of a state whose modes were set from outside.
    pub fn refresh(&self, isa: Isa, state: &mut [E]) {
        assert!(state.len() == self.state_len());
        isa.run(Refresh { system: self, state });
    }
}

struct Scan<'a, E> {
    system: &'a LowRank<E>,
    rows: usize,
    u: &'a [E],
    y: &'a mut [E],
    state: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        macro_rules! compiled_for {
            ($($k:literal)*) => { match self.system.products { $($k => scan::<L, $k>(lanes, self),)* _ => unreachable!() } };
        }
        compiled_for!(0 1 2 3 4 5 6 7 8);
    }
}

#[inline(always)]
fn scan<L: Lanes, const K: usize>(lanes: L, s: Scan<'_, L::E>) {
    let rows = FIXED + EACH * K;
    let modes = s.system.modes;
    let zero = lanes.splat(L::E::ZERO);
    for lane in (0..GROUP).step_by(L::LANES) {
        // SAFETY: `LowRank::scan` checked the lengths; every pointer stays within its rows of GROUP.
        unsafe {
            let k = s.system.coefficients.as_ptr().add(lane);
            let x = s.state.as_mut_ptr().add(lane);
            let products = x.add(modes * 2 * GROUP);
            let mut now = [zero; K];
            for (i, p) in now.iter_mut().enumerate() {
                *p = lanes.load(products.add(i * GROUP));
            }
            for t in 0..s.rows {
                let u = lanes.load(s.u.as_ptr().add(t * GROUP + lane));
                let mut next = [(zero, zero); K];
                let mut y = (zero, zero);
                for n in 0..modes {
                    let row = |i: usize| lanes.load(k.add((n * rows + i) * GROUP));
                    let (pr, pi) = (x.add(n * 2 * GROUP), x.add((n * 2 + 1) * GROUP));
                    let (xr, xi) = (lanes.load(pr), lanes.load(pi));
                    let (dr, di) = (row(0), row(1));
                    let mut fr = lanes.mul(row(2), u);
                    let mut fi = lanes.mul(row(3), u);
                    for (i, p) in now.iter().enumerate() {
                        fr = lanes.nfma(row(FIXED + EACH * i + 2), *p, fr);
                        fi = lanes.nfma(row(FIXED + EACH * i + 3), *p, fi);
                    }
                    fr = lanes.fma(dr, xr, lanes.nfma(di, xi, fr));
                    fi = lanes.fma(dr, xi, lanes.fma(di, xr, fi));
                    let (zr, zi) = (lanes.add(xr, fr), lanes.add(xi, fi));
                    lanes.store(pr, zr);
                    lanes.store(pi, zi);
                    y = (lanes.fma(row(4), zr, y.0), lanes.nfma(row(5), zi, y.1));
                    for (i, p) in next.iter_mut().enumerate() {
                        *p = (
                            lanes.fma(row(FIXED + EACH * i), zr, p.0),
                            lanes.nfma(row(FIXED + EACH * i + 1), zi, p.1),
                        );
                    }
                }
                for (now, next) in now.iter_mut().zip(next) {
                    *now = lanes.add(next.0, next.1);
                }
                lanes.store(s.y.as_mut_ptr().add(t * GROUP + lane), lanes.add(y.0, y.1));
            }
            for (i, p) in now.iter().enumerate() {
                lanes.store(products.add(i * GROUP), *p);
            }
        }
    }
}

struct Refresh<'a, E> {
    system: &'a LowRank<E>,
    state: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Refresh<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let (modes, products) = (self.system.modes, self.system.products);
        let rows = FIXED + EACH * products;
        for lane in (0..GROUP).step_by(L::LANES) {
            for i in 0..products {
                // SAFETY: `refresh` checked the length; every pointer stays within its rows of GROUP.
                unsafe {
                    let k = self.system.coefficients.as_ptr().add((FIXED + EACH * i) * GROUP + lane);
                    let x = self.state.as_mut_ptr().add(lane);
                    let mut sum = (lanes.splat(E::ZERO), lanes.splat(E::ZERO));
                    for n in 0..modes {
                        let (xr, xi) = (lanes.load(x.add(n * 2 * GROUP)), lanes.load(x.add((n * 2 + 1) * GROUP)));
                        let (vr, vi) = (lanes.load(k.add(n * rows * GROUP)), lanes.load(k.add((n * rows + 1) * GROUP)));
                        sum = (lanes.fma(vr, xr, sum.0), lanes.nfma(vi, xi, sum.1));
                    }
                    lanes.store(x.add((modes * 2 + i) * GROUP), lanes.add(sum.0, sum.1));
                }
            }
        }
    }
}

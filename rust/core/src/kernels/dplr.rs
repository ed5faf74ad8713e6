//! The diagonal-plus-low-rank recurrence of S4 for a group of channels, in O(N K) a sample:
//! x' = x + delta x - sum_k w_k s_k + b u, s_k = Re(v_k . x), y = Re(c . x').
//!
//! delta is the discrete pole less one, and in float32 summation is compensated; see
//! [`mode_state`](super::mode_state). Where modes are scaled so that b is 1, and the inner products are few, they are
//! visited once in a look-ahead block: see [`lookahead`](super::lookahead).

use super::layout::holds;
use super::lookahead::LookAhead;
use super::modal::Modal;
use super::mode_state::{Compensated, CompensatedAt, flush, modes_len};
use super::{Aligned, Elem, GROUP, Lanes};
use num_complex::Complex64;

/// The most inner products that the kernel is compiled for: rank 4 with conjugate pairs, rank 2 without, twice that.
pub const MAX_PRODUCTS: usize = 8;

/// Rows of [`GROUP`] a mode takes before those of its products: delta, c and b, each (re, im).
const FIXED: usize = 6;
/// And for each product: v and w, each (re, im).
const EACH: usize = 4;

/// The system of one group of channels.
#[derive(Debug)]
pub struct LowRank<E> {
    modes: usize,
    products: usize,
    coefficients: Aligned<E>,
    /// Present where every b is 1, and the inner products are few.
    look_ahead: Option<LookAhead<E>>,
}

/// One mode of one channel.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// The discrete pole, less one.
    pub delta: Complex64,
    /// The input's coefficient.
    pub b: Complex64,
    /// The output's coefficient, with the factor 2 of conjugate pairs.
    pub c: Complex64,
    /// (v, w) of each inner product: the mode's coefficient in it, and its coefficient in what the mode subtracts.
    pub vw: Vec<(Complex64, Complex64)>,
}

impl<E: Elem> LowRank<E> {
    /// `modes` modes and `products` inner products a lane; `mode(lane, n)` gives each, None for an unused lane. With
    /// `unit_gain` every b is 1.
    pub fn new(modes: usize, products: usize, unit_gain: bool, mode: impl Fn(usize, usize) -> Option<Mode>) -> Self {
        assert!(products <= MAX_PRODUCTS);
        let rows = FIXED + EACH * products;
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        let all: Vec<Mode> = (0..modes * GROUP).map(|i| mode(i % GROUP, i / GROUP).unwrap_or_default()).collect();
        for (i, m) in all.iter().enumerate() {
            let pairs = [m.delta, m.c, m.b].into_iter().chain(m.vw.iter().flat_map(|&(v, w)| [v, w]));
            for (row, value) in pairs.flat_map(|z| [z.re, z.im]).enumerate() {
                coefficients[(i / GROUP * rows + row) * GROUP + i % GROUP] = E::of(value);
            }
        }
        let look_ahead = (unit_gain && products <= Self::MOST_PRODUCTS).then(|| {
            LookAhead::new(modes, products, |lane, n| {
                let Mode { delta, c, vw, .. } = &all[n * GROUP + lane];
                (*delta, *c, vw)
            })
        });
        Self { modes, products, coefficients, look_ahead }
    }
}

impl<E: Elem> Modal<E> for LowRank<E> {
    /// A block's taps grow with the square of the number of products.
    const MOST_PRODUCTS: usize = 2;

    #[inline(always)]
    fn modes(&self) -> usize {
        self.modes
    }

    #[inline(always)]
    fn products(&self) -> usize {
        self.products
    }

    #[inline(always)]
    fn look_ahead(&self) -> Option<&LookAhead<E>> {
        self.look_ahead.as_ref()
    }

    #[inline(always)]
    fn one_by_one<L: Lanes<E = E>>(&self, lanes: L, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        compiled_for!(self.products, K, one_by_one::<L, K>(lanes, self, phase, rows, u, y, x), 0 1 2 3 4 5 6 7 8);
    }
}

#[inline(always)]
fn one_by_one<L: Lanes, const K: usize>(
    lanes: L,
    system: &LowRank<L::E>,
    phase: usize,
    rows: usize,
    u: &[L::E],
    y: &mut [L::E],
    x: &mut [L::E],
) {
    let modes = system.modes;
    assert!(holds(u.len(), rows, GROUP) && holds(y.len(), rows, GROUP) && x.len() == modes_len::<L::E>(modes));
    for lane in (0..GROUP).step_by(L::LANES) {
        // SAFETY: the coefficients are those of `modes` modes with K products; u and y have `rows` rows and x is the
        // state of `modes` modes, as just checked. lane + LANES <= GROUP.
        unsafe {
            let (k, x) = (system.coefficients.as_ptr().add(lane), x.as_mut_ptr().add(lane));
            let mut sums = products::<L, K>(lanes, modes, k, x);
            for t in 0..rows {
                let u = lanes.load(u.as_ptr().add(t * GROUP + lane));
                // Tiny numbers are flushed with the last row: denormals before it cannot be many.
                let output = if rows == 1 || t + 1 < rows {
                    row::<L, K, false>(lanes, modes, k, x, u, &mut sums)
                } else {
                    row::<L, K, true>(lanes, modes, k, x, u, &mut sums)
                };
                lanes.store(y.as_mut_ptr().add(t * GROUP + lane), output);
            }
            if rows == 1 {
                flush(lanes, phase, modes, x);
            }
        }
    }
}

/// The inner products of a state.
///
/// # Safety
/// `k` and `x` address the coefficients, with K products, and the state of `modes` modes.
#[inline(always)]
unsafe fn products<L: Lanes, const K: usize>(lanes: L, modes: usize, k: *const L::E, x: *const L::E) -> [L::V; K] {
    let zero = lanes.splat(L::E::ZERO);
    let mut sums = [(zero, zero); K];
    for n in 0..modes {
        // SAFETY: mode n < modes has these rows of coefficients and of state.
        unsafe {
            let (xr, xi) = (lanes.load(x.add(n * 2 * GROUP)), lanes.load(x.add((n * 2 + 1) * GROUP)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let v = k.add((n * (FIXED + EACH * K) + FIXED + EACH * i) * GROUP);
                *sum = (lanes.fma(lanes.load(v), xr, sum.0), lanes.nfma(lanes.load(v.add(GROUP)), xi, sum.1));
            }
        }
    }
    let mut products = [zero; K];
    for (product, (re, im)) in products.iter_mut().zip(sums) {
        *product = lanes.add(re, im);
    }
    products
}

/// One sample: moves the state `x` and its inner products on, and returns the output. With `LAST` tiny numbers are
/// flushed.
///
/// # Safety
/// `k` and `x` address the coefficients, with K products, and the state of `modes` modes.
#[inline(always)]
unsafe fn row<L: Lanes, const K: usize, const LAST: bool>(
    lanes: L,
    modes: usize,
    k: *const L::E,
    x: *mut L::E,
    u: L::V,
    products: &mut [L::V; K],
) -> L::V {
    let zero = lanes.splat(L::E::ZERO);
    let mut next = [(zero, zero); K];
    let mut y = (zero, zero);
    // SAFETY: mode n < modes has these rows of coefficients and of state.
    unsafe {
        for n in 0..modes {
            let (k, place) = (k.add(n * (FIXED + EACH * K) * GROUP), CompensatedAt::of(x, modes, n));
            let mut by = (lanes.mul(lanes.load(k.add(4 * GROUP)), u), lanes.mul(lanes.load(k.add(5 * GROUP)), u));
            for (i, p) in products.iter().enumerate() {
                let w = k.add((FIXED + EACH * i + 2) * GROUP);
                by.0 = lanes.nfma(lanes.load(w), *p, by.0);
                by.1 = lanes.nfma(lanes.load(w.add(GROUP)), *p, by.1);
            }
            let mut z =
                Compensated::load(lanes, place).advance_rounded(lanes, (lanes.load(k), lanes.load(k.add(GROUP))), by);
            if LAST {
                z = z.flushed(lanes);
            }
            z.store(lanes, place);
            let (c_re, c_im) = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
            y = (lanes.fma(c_re, z.re, y.0), lanes.nfma(c_im, z.im, y.1));
            for (i, p) in next.iter_mut().enumerate() {
                let v = k.add((FIXED + EACH * i) * GROUP);
                *p = (lanes.fma(lanes.load(v), z.re, p.0), lanes.nfma(lanes.load(v.add(GROUP)), z.im, p.1));
            }
        }
    }
    for (now, next) in products.iter_mut().zip(next) {
        *now = lanes.add(next.0, next.1);
    }
    lanes.add(y.0, y.1)
}

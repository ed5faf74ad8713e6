//! The diagonal-plus-low-rank recurrence of S4, for a group of channels, in O(N K) a sample:
//! x' = x + delta x - sum_k w_k s_k + b u, s_k = Re(v_k . x), y = Re(c . x'). Where modes are scaled so that b is 1, it
//! is not read.
//!
//! Runs go two samples at a time, so that coefficients and state are read half as often: what the second needs of the
//! first is s_k' = Re(v_k (1 + delta) . x) - sum_j Re(v_k . w_j) s_j + Re(v_k . b) u.
//!
//! delta is the discrete pole less one, and in float32 what the rounding of each sum left over is carried to the
//! next: what a slow mode would otherwise lose.

use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes};
use num_complex::Complex64;

/// The most inner products that the kernel is compiled for: rank 4 with conjugate pairs, rank 2 without, twice that.
pub const MAX_PRODUCTS: usize = 8;

/// Rows of [`GROUP`] a mode takes before those of its products: delta, c, and b where that is not 1, each (re, im).
const fn fixed(unit_gain: bool) -> usize {
    if unit_gain { 4 } else { 6 }
}
/// And for each product: v and w, each (re, im).
const EACH: usize = 4;

/// The most inner products for which runs go two samples at a time: their sums stay in registers.
const PAIRED_PRODUCTS: usize = 2;

/// The system of one group of channels.
#[derive(Debug)]
pub struct LowRank<E> {
    modes: usize,
    products: usize,
    unit_gain: bool,
    coefficients: Aligned<E>,
    /// What looks a sample ahead, where runs go two at a time: v (1 + delta), (re, im) a product and mode; then
    /// Re(v_k . w_j) and Re(v_k . b).
    ahead: Aligned<E>,
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
    /// `modes` modes and `products` inner products a lane; `mode(lane, n)` gives each, None for an unused lane. With
    /// `unit_gain` every b is 1.
    pub fn new(modes: usize, products: usize, unit_gain: bool, mode: impl Fn(usize, usize) -> Option<Mode>) -> Self {
        assert!(products <= MAX_PRODUCTS);
        let rows = fixed(unit_gain) + EACH * products;
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        let ahead_rows = if products <= PAIRED_PRODUCTS { (2 * modes + products + 1) * products } else { 0 };
        let mut ahead = vec![0.0; ahead_rows * GROUP];
        for n in 0..modes {
            for lane in 0..GROUP {
                let Some(m) = mode(lane, n) else { continue };
                for (i, (v, _)) in m.vw.iter().enumerate().take_while(|_| ahead_rows > 0) {
                    let moved = v * (1.0 + m.delta);
                    let mut at = (n * products + i) * 2 * GROUP + lane;
                    ahead[at] = moved.re;
                    ahead[at + GROUP] = moved.im;
                    at = (2 * modes + i) * products * GROUP + lane;
                    for (j, (_, w)) in m.vw.iter().enumerate() {
                        ahead[at + j * GROUP] += (v * w).re;
                    }
                    ahead[((2 * modes + products) * products + i) * GROUP + lane] += (v * m.b).re;
                }
                let gain = (!unit_gain).then_some(m.b);
                let pairs = [m.delta, m.c].into_iter().chain(gain).chain(m.vw.iter().flat_map(|&(v, w)| [v, w]));
                for (row, value) in pairs.flat_map(|z| [z.re, z.im]).enumerate() {
                    coefficients[(n * rows + row) * GROUP + lane] = E::of(value);
                }
            }
        }
        Self { modes, products, unit_gain, coefficients, ahead: ahead.into_iter().map(E::of).collect() }
    }

    /// Elements of the state proper: (re, im) a mode, each a row of [`GROUP`].
    pub fn core_len(&self) -> usize {
        self.modes * 2 * GROUP
    }

    /// Elements of state: the state proper, what its rounding left over, and its inner products.
    pub fn state_len(&self) -> usize {
        let left = if E::COMPENSATED { self.core_len() } else { 0 };
        self.core_len() + self.products * GROUP + left
    }

    /// `u` and `y` are `rows` rows of [`GROUP`]; `y` is overwritten.
    ///
    /// A single sample flushes what is tiny of every [`PHASES`](super::diagonal::PHASES)th mode, from mode `phase` on.
    pub fn scan(&self, isa: Isa, phase: usize, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && state.len() == self.state_len());
        isa.run(Scan { system: self, phase, rows, u, y, state });
    }

    /// Computes the inner products of a state whose modes were set from outside.
    pub fn refresh(&self, isa: Isa, state: &mut [E]) {
        assert!(state.len() == self.state_len());
        isa.run(Refresh { system: self, state });
    }
}

struct Scan<'a, E> {
    system: &'a LowRank<E>,
    phase: usize,
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
            ($($k:literal)*) => {
                match (self.system.products, self.system.unit_gain) {
                    $(($k, true) => scan::<L, $k, true>(lanes, self), ($k, false) => scan::<L, $k, false>(lanes, self),)*
                    _ => unreachable!(),
                }
            };
        }
        compiled_for!(0 1 2 3 4 5 6 7 8);
    }
}

#[inline(always)]
fn scan<L: Lanes, const K: usize, const UNIT: bool>(lanes: L, s: Scan<'_, L::E>) {
    let modes = s.system.modes;
    let held = if L::E::COMPENSATED { 4 * modes } else { 2 * modes };
    let zero = lanes.splat(L::E::ZERO);
    for lane in (0..GROUP).step_by(L::LANES) {
        // SAFETY: `LowRank::scan` checked the lengths; every pointer stays within its rows of GROUP.
        unsafe {
            let k = s.system.coefficients.as_ptr().add(lane);
            let x = s.state.as_mut_ptr().add(lane);
            let products = x.add(held * GROUP);
            let mut now = [zero; K];
            for (i, p) in now.iter_mut().enumerate() {
                *p = lanes.load(products.add(i * GROUP));
            }
            let mut done = 0;
            if K <= PAIRED_PRODUCTS && L::REGISTERS >= 32 && s.rows > 2 {
                let ahead = s.system.ahead.as_ptr().add(lane);
                let mut next = moved_products::<L, K>(lanes, modes, ahead, x);
                while done + 2 < s.rows {
                    let u = s.u.as_ptr().add(done * GROUP + lane);
                    let y = s.y.as_mut_ptr().add(done * GROUP + lane);
                    two_rows::<L, K, UNIT>(lanes, modes, (k, ahead), x, u, y, &mut now, &mut next);
                    done += 2;
                }
            }
            for t in done..s.rows {
                let u = lanes.load(s.u.as_ptr().add(t * GROUP + lane));
                // What is tiny is flushed with the last row: denormals before it cannot be many.
                let y = if s.rows == 1 || t + 1 < s.rows {
                    row::<L, K, UNIT, false>(lanes, modes, k, x, u, &mut now)
                } else {
                    row::<L, K, UNIT, true>(lanes, modes, k, x, u, &mut now)
                };
                lanes.store(s.y.as_mut_ptr().add(t * GROUP + lane), y);
            }
            for (i, p) in now.iter().enumerate() {
                lanes.store(products.add(i * GROUP), lanes.flush(*p));
            }
            if s.rows == 1 {
                super::diagonal::flush(lanes, s.phase, modes, x);
            }
        }
    }
}

/// Re(v_k (1 + delta) . x) of a state.
///
/// # Safety
/// The pointers address the rows of the system and of its state.
#[inline(always)]
unsafe fn moved_products<L: Lanes, const K: usize>(
    lanes: L,
    modes: usize,
    ahead: *const L::E,
    x: *const L::E,
) -> [L::V; K] {
    let mut sums = [lanes.splat(L::E::ZERO); K];
    for n in 0..modes {
        // SAFETY: as the caller's.
        unsafe {
            let (xr, xi) = (lanes.load(x.add(n * 2 * GROUP)), lanes.load(x.add((n * 2 + 1) * GROUP)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let v = ahead.add((n * K + i) * 2 * GROUP);
                *sum = lanes.fma(lanes.load(v), xr, lanes.nfma(lanes.load(v.add(GROUP)), xi, *sum));
            }
        }
    }
    sums
}

/// Two samples, one pass over the modes: moves the state `x` on, its inner products `now` and, of the state moved,
/// `next`; and answers.
///
/// # Safety
/// The pointers address the rows of the system, of its state and of both samples.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn two_rows<L: Lanes, const K: usize, const UNIT: bool>(
    lanes: L,
    modes: usize,
    (k, ahead): (*const L::E, *const L::E),
    x: *mut L::E,
    u: *const L::E,
    y: *mut L::E,
    now: &mut [L::V; K],
    next: &mut [L::V; K],
) {
    let rows = fixed(UNIT) + EACH * K;
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: as the caller's.
    unsafe {
        let u = [lanes.load(u), lanes.load(u.add(GROUP))];
        let of_two = ahead.add(2 * modes * K * GROUP);
        let mut products = [*now, *next];
        for i in 0..K {
            for j in 0..K {
                products[1][i] = lanes.nfma(lanes.load(of_two.add((i * K + j) * GROUP)), now[j], products[1][i]);
            }
            products[1][i] = lanes.fma(lanes.load(of_two.add((K * K + i) * GROUP)), u[0], products[1][i]);
        }
        let mut answers = [(zero, zero); 2];
        (*now, *next) = ([zero; K], [zero; K]);
        let left = x.add(modes * 2 * GROUP);
        for n in 0..modes {
            let k = k.add(n * rows * GROUP);
            let (pr, pi) = (x.add(n * 2 * GROUP), x.add((n * 2 + 1) * GROUP));
            let (lr, li) = (left.add(n * 2 * GROUP), left.add((n * 2 + 1) * GROUP));
            let (mut xr, mut xi) = (lanes.load(pr), lanes.load(pi));
            let (mut over_re, mut over_im) = (zero, zero);
            if L::E::COMPENSATED {
                (over_re, over_im) = (lanes.load(lr), lanes.load(li));
            }
            let (dr, di) = (lanes.load(k), lanes.load(k.add(GROUP)));
            let (cr, ci) = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
            for t in 0..2 {
                let (mut by_re, mut by_im) = (u[t], zero);
                if !UNIT {
                    by_re = lanes.mul(lanes.load(k.add(4 * GROUP)), u[t]);
                    by_im = lanes.mul(lanes.load(k.add(5 * GROUP)), u[t]);
                }
                for i in 0..K {
                    let w = k.add((fixed(UNIT) + EACH * i + 2) * GROUP);
                    by_re = lanes.nfma(lanes.load(w), products[t][i], by_re);
                    by_im = lanes.nfma(lanes.load(w.add(GROUP)), products[t][i], by_im);
                }
                by_re = lanes.fma(dr, xr, lanes.nfma(di, xi, by_re));
                by_im = lanes.fma(dr, xi, lanes.fma(di, xr, by_im));
                if L::E::COMPENSATED {
                    (by_re, by_im) = (lanes.add(by_re, over_re), lanes.add(by_im, over_im));
                }
                (xr, over_re) = lanes.moved(xr, by_re);
                (xi, over_im) = lanes.moved(xi, by_im);
                answers[t] = (lanes.fma(cr, xr, answers[t].0), lanes.nfma(ci, xi, answers[t].1));
            }
            lanes.store(pr, xr);
            lanes.store(pi, xi);
            if L::E::COMPENSATED {
                lanes.store(lr, over_re);
                lanes.store(li, over_im);
            }
            for i in 0..K {
                let v = k.add((fixed(UNIT) + EACH * i) * GROUP);
                now[i] = lanes.fma(lanes.load(v), xr, lanes.nfma(lanes.load(v.add(GROUP)), xi, now[i]));
                let v = ahead.add((n * K + i) * 2 * GROUP);
                next[i] = lanes.fma(lanes.load(v), xr, lanes.nfma(lanes.load(v.add(GROUP)), xi, next[i]));
            }
        }
        lanes.store(y, lanes.add(answers[0].0, answers[0].1));
        lanes.store(y.add(GROUP), lanes.add(answers[1].0, answers[1].1));
    }
}

/// One sample: moves the state `x` and its inner products on, and answers.
///
/// # Safety
/// The pointers address the rows of the system and of its state.
#[inline(always)]
unsafe fn row<L: Lanes, const K: usize, const UNIT: bool, const LAST: bool>(
    lanes: L,
    modes: usize,
    k: *const L::E,
    x: *mut L::E,
    u: L::V,
    products: &mut [L::V; K],
) -> L::V {
    let rows = fixed(UNIT) + EACH * K;
    let zero = lanes.splat(L::E::ZERO);
    let mut next = [(zero, zero); K];
    let mut y = (zero, zero);
    // SAFETY: as the caller's.
    unsafe {
        let left = x.add(modes * 2 * GROUP);
        for n in 0..modes {
            let k = k.add(n * rows * GROUP);
            let (pr, pi) = (x.add(n * 2 * GROUP), x.add((n * 2 + 1) * GROUP));
            let (xr, xi) = (lanes.load(pr), lanes.load(pi));
            let (dr, di) = (lanes.load(k), lanes.load(k.add(GROUP)));
            let (mut by_re, mut by_im) = (u, zero);
            if !UNIT {
                by_re = lanes.mul(lanes.load(k.add(4 * GROUP)), u);
                by_im = lanes.mul(lanes.load(k.add(5 * GROUP)), u);
            }
            for (i, p) in products.iter().enumerate() {
                let w = k.add((fixed(UNIT) + EACH * i + 2) * GROUP);
                by_re = lanes.nfma(lanes.load(w), *p, by_re);
                by_im = lanes.nfma(lanes.load(w.add(GROUP)), *p, by_im);
            }
            by_re = lanes.fma(dr, xr, lanes.nfma(di, xi, by_re));
            by_im = lanes.fma(dr, xi, lanes.fma(di, xr, by_im));
            let (lr, li) = (left.add(n * 2 * GROUP), left.add((n * 2 + 1) * GROUP));
            if L::E::COMPENSATED {
                by_re = lanes.add(by_re, lanes.load(lr));
                by_im = lanes.add(by_im, lanes.load(li));
            }
            let (mut zr, mut left_re) = lanes.moved(xr, by_re);
            let (mut zi, mut left_im) = lanes.moved(xi, by_im);
            if LAST {
                (zr, zi) = (lanes.flush(zr), lanes.flush(zi));
                (left_re, left_im) = (lanes.flush(left_re), lanes.flush(left_im));
            }
            lanes.store(pr, zr);
            lanes.store(pi, zi);
            if L::E::COMPENSATED {
                lanes.store(lr, left_re);
                lanes.store(li, left_im);
            }
            y = (lanes.fma(lanes.load(k.add(2 * GROUP)), zr, y.0), lanes.nfma(lanes.load(k.add(3 * GROUP)), zi, y.1));
            for (i, p) in next.iter_mut().enumerate() {
                let v = k.add((fixed(UNIT) + EACH * i) * GROUP);
                *p = (lanes.fma(lanes.load(v), zr, p.0), lanes.nfma(lanes.load(v.add(GROUP)), zi, p.1));
            }
        }
    }
    for (now, next) in products.iter_mut().zip(next) {
        *now = lanes.add(next.0, next.1);
    }
    lanes.add(y.0, y.1)
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
        let fixed = fixed(self.system.unit_gain);
        let rows = fixed + EACH * products;
        for lane in (0..GROUP).step_by(L::LANES) {
            for i in 0..products {
                // SAFETY: `refresh` checked the length; every pointer stays within its rows of GROUP.
                unsafe {
                    let k = self.system.coefficients.as_ptr().add((fixed + EACH * i) * GROUP + lane);
                    let x = self.state.as_mut_ptr().add(lane);
                    let mut sum = (lanes.splat(E::ZERO), lanes.splat(E::ZERO));
                    for n in 0..modes {
                        let (xr, xi) = (lanes.load(x.add(n * 2 * GROUP)), lanes.load(x.add((n * 2 + 1) * GROUP)));
                        let (vr, vi) = (lanes.load(k.add(n * rows * GROUP)), lanes.load(k.add((n * rows + 1) * GROUP)));
                        sum = (lanes.fma(vr, xr, sum.0), lanes.nfma(vi, xi, sum.1));
                    }
                    let held = if E::COMPENSATED { 4 * modes } else { 2 * modes };
                    lanes.store(x.add((held + i) * GROUP), lanes.add(sum.0, sum.1));
                }
            }
        }
    }
}

//! The diagonal recurrence x' = a x + u, y = Re(c x), for a group of channels.
//!
//! A pole close to the unit circle forgets so slowly that its rounding to float32 would be heard: float32 poles
//! are carried as a pair (high, low) whose sum is right to 48 bits.

use super::chunk::{ChunkMatrices, Transition};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes};
use num_complex::Complex64;

/// Rows of [`GROUP`] a mode takes in [`Modes`]: a_re, a_im, their low parts, c_re, c_im, and the gain of the input.
const ROWS: usize = 8;

/// The modes of one group of channels: x' = a x + gain u, y = sum Re(c x).
#[derive(Clone, Debug)]
pub struct Modes<E> {
    modes: usize,
    unit_gain: bool,
    coefficients: Aligned<E>,
}

/// One mode of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// The discrete pole.
    pub a: Complex64,
    /// What reads it, with B and the factor 2 of conjugate pairs folded in.
    pub c: Complex64,
    /// What the input is multiplied with.
    pub gain: Complex64,
}

impl<E: Elem> Modes<E> {
    /// `modes` modes a lane; `mode(lane, n)` gives each.
    pub fn new(modes: usize, unit_gain: bool, mode: impl Fn(usize, usize) -> Mode) -> Self {
        let mut coefficients = Aligned::zeros(modes * ROWS * GROUP);
        for n in 0..modes {
            for lane in 0..GROUP {
                let m = mode(lane, n);
                let high = (E::of(m.a.re), E::of(m.a.im));
                let low = (m.a.re - high.0.f64(), m.a.im - high.1.f64());
                let values =
                    [high.0.f64(), high.1.f64(), low.0, low.1, m.c.re, m.c.im, m.gain.re, m.gain.im];
                for (row, value) in values.into_iter().enumerate() {
                    coefficients[(n * ROWS + row) * GROUP + lane] = E::of(value);
                }
            }
        }
        Self { modes, unit_gain, coefficients }
    }

    /// Elements of state: (re, im) a mode, each a row of [`GROUP`].
    pub fn state_len(&self) -> usize {
        self.modes * 2 * GROUP
    }

    /// `u` and `y` are `rows` rows of [`GROUP`]; `y` is overwritten.
    pub fn scan(&self, isa: Isa, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && state.len() == self.state_len());
        isa.run(Scan { modes: self, rows, u, y, state });
    }
}

impl Modes<f64> {
    /// The chunk matrices for `t` samples: powers of the poles.
    pub fn chunk(&self, t: usize) -> ChunkMatrices {
        let n = self.modes * 2;
        let mut m = ChunkMatrices::zeros(t, n);
        let mut poles = Aligned::zeros(n * GROUP);
        for mode in 0..self.modes {
            let row = |i: usize| &self.coefficients[(mode * ROWS + i) * GROUP..][..GROUP];
            for lane in 0..GROUP {
                let a = Complex64::new(row(0)[lane] + row(2)[lane], row(1)[lane] + row(3)[lane]);
                let c = Complex64::new(row(4)[lane], row(5)[lane]);
                let mut power = Complex64::ONE;
                for i in 0..t {
                    let back = (mode * 2 * t + t - 1 - i) * GROUP + lane;
                    m.w[back] = power.re;
                    m.w[back + t * GROUP] = power.im;
                    m.kernel[i * GROUP + lane] += (c * power).re;
                    power *= a;
                    let read = c * power;
                    let at = (i * n + mode * 2) * GROUP + lane;
                    m.g[at] = read.re;
                    m.g[at + GROUP] = -read.im;
                }
                poles[mode * 2 * GROUP + lane] = power.re;
                poles[(mode * 2 + 1) * GROUP + lane] = power.im;
            }
        }
        m.transition = Transition::Poles(poles);
        m
    }
}

struct Scan<'a, E> {
    modes: &'a Modes<E>,
    rows: usize,
    u: &'a [E],
    y: &'a mut [E],
    state: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let (k, u, y, x) =
            (self.modes.coefficients.as_ptr(), self.u.as_ptr(), self.y.as_mut_ptr(), self.state.as_mut_ptr());
        let (modes, rows) = (self.modes.modes, self.rows);
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `scan` checked the lengths; every pointer stays within `modes` or `rows` rows of GROUP.
            unsafe {
                let (k, u, y, x) = (k.add(lane), u.add(lane), y.add(lane), x.add(lane));
                if self.modes.unit_gain {
                    channels::<L, true>(lanes, modes, rows, k, u, y, x);
                } else {
                    channels::<L, false>(lanes, modes, rows, k, u, y, x);
                }
            }
        }
    }
}

/// # Safety
/// The pointers address `modes` or `rows` rows of GROUP, less the lanes skipped.
#[inline(always)]
unsafe fn channels<L: Lanes, const UNIT: bool>(
    lanes: L,
    modes: usize,
    rows: usize,
    k: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    x: *mut L::E,
) {
    // SAFETY: as the caller's.
    unsafe {
        if rows == 1 {
            one_row::<L, UNIT>(lanes, modes, k, u, y, x);
            return;
        }
        for t in 0..rows {
            lanes.store(y.add(t * GROUP), lanes.splat(L::E::ZERO));
        }
        let mut n = 0;
        // As many modes at once as the registers hold with their coefficients: three hide the latency of the
        // four dependent multiply-adds.
        if L::REGISTERS >= 32 {
            while n + 3 <= modes {
                block::<L, UNIT, 3>(lanes, rows, k.add(n * ROWS * GROUP), u, y, x.add(n * 2 * GROUP));
                n += 3;
            }
        }
        while n < modes {
            block::<L, UNIT, 1>(lanes, rows, k.add(n * ROWS * GROUP), u, y, x.add(n * 2 * GROUP));
            n += 1;
        }
    }
}

/// The next state of one mode.
#[inline(always)]
fn advance<L: Lanes, const UNIT: bool>(
    lanes: L,
    [ar, ai, lr, li, gr, gi]: [L::V; 6],
    (xr, xi): (L::V, L::V),
    u: L::V,
) -> (L::V, L::V) {
    let (ur, ui) = if UNIT { (u, lanes.mul(li, xr)) } else { (lanes.mul(gr, u), lanes.fma(li, xr, lanes.mul(gi, u))) };
    let re = lanes.fma(ar, xr, lanes.nfma(ai, xi, lanes.fma(lr, xr, lanes.nfma(li, xi, ur))));
    let im = lanes.fma(ar, xi, lanes.fma(ai, xr, lanes.fma(lr, xi, ui)));
    (re, im)
}

/// # Safety
/// As [`channels`].
#[inline(always)]
unsafe fn one_row<L: Lanes, const UNIT: bool>(
    lanes: L,
    modes: usize,
    k: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    x: *mut L::E,
) {
    // SAFETY: as the caller's.
    unsafe {
        let row = |n: usize, i: usize| lanes.load(k.add((n * ROWS + i) * GROUP));
        let u = lanes.load(u);
        let mut sums = [lanes.splat(L::E::ZERO); 4];
        for n in 0..modes {
            let (px, qx) = (x.add(n * 2 * GROUP), x.add((n * 2 + 1) * GROUP));
            let a = [row(n, 0), row(n, 1), row(n, 2), row(n, 3)];
            let g = if UNIT { (u, u) } else { (row(n, 6), row(n, 7)) };
            let old = (lanes.load(px), lanes.load(qx));
            let (xr, xi) = advance::<L, UNIT>(lanes, [a[0], a[1], a[2], a[3], g.0, g.1], old, u);
            lanes.store(px, lanes.flush(xr));
            lanes.store(qx, lanes.flush(xi));
            let i = n % 2 * 2;
            sums[i] = lanes.fma(row(n, 4), xr, sums[i]);
            sums[i + 1] = lanes.nfma(row(n, 5), xi, sums[i + 1]);
        }
        lanes.store(y, lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3])));
    }
}

/// # Safety
/// As [`channels`], with M modes from `k` and `x` on.
#[inline(always)]
unsafe fn block<L: Lanes, const UNIT: bool, const M: usize>(
    lanes: L,
    rows: usize,
    k: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    x: *mut L::E,
) {
    // SAFETY: as the caller's.
    unsafe {
        let row = |m: usize, i: usize| lanes.load(k.add((m * ROWS + i) * GROUP));
        let mut a = [[lanes.splat(L::E::ZERO); 6]; M];
        let mut c = [(lanes.splat(L::E::ZERO), lanes.splat(L::E::ZERO)); M];
        let mut state = c;
        for m in 0..M {
            a[m] = [row(m, 0), row(m, 1), row(m, 2), row(m, 3), row(m, 6), row(m, 7)];
            c[m] = (row(m, 4), row(m, 5));
            state[m] = (lanes.load(x.add(m * 2 * GROUP)), lanes.load(x.add((m * 2 + 1) * GROUP)));
        }
        for t in 0..rows {
            let input = lanes.load(u.add(t * GROUP));
            let mut sum = lanes.load(y.add(t * GROUP));
            for m in 0..M {
                state[m] = advance::<L, UNIT>(lanes, a[m], state[m], input);
                sum = lanes.fma(c[m].0, state[m].0, lanes.nfma(c[m].1, state[m].1, sum));
            }
            lanes.store(y.add(t * GROUP), sum);
        }
        for m in 0..M {
            lanes.store(x.add(m * 2 * GROUP), lanes.flush(state[m].0));
            lanes.store(x.add((m * 2 + 1) * GROUP), lanes.flush(state[m].1));
        }
    }
}

/// Diagonal systems with many inputs and outputs: the lanes are modes, x' = a x + v with v already B u.
#[derive(Clone, Debug)]
pub struct Spectrum<E> {
    modes: usize,
    coefficients: Aligned<E>,
}

/// Rows of [`GROUP`] that a group of modes takes in [`Spectrum`]: a_re, a_im and their low parts.
const SPECTRUM_ROWS: usize = 4;

impl<E: Elem> Spectrum<E> {
    /// The discrete poles.
    pub fn new(a: &[Complex64]) -> Self {
        let groups = a.len().div_ceil(GROUP);
        let mut coefficients = Aligned::zeros(groups * SPECTRUM_ROWS * GROUP);
        for (n, a) in a.iter().enumerate() {
            let high = (E::of(a.re), E::of(a.im));
            let values = [high.0.f64(), high.1.f64(), a.re - high.0.f64(), a.im - high.1.f64()];
            for (row, value) in values.into_iter().enumerate() {
                coefficients[(n / GROUP * SPECTRUM_ROWS + row) * GROUP + n % GROUP] = E::of(value);
            }
        }
        Self { modes: a.len(), coefficients }
    }

    /// Elements of state, and of a row of `v`: all real parts, then all imaginary ones, each padded to groups.
    pub fn state_len(&self) -> usize {
        super::padded(self.modes) * 2
    }

    /// Turns the `rows` rows of `v` into the states after each; from the last row to the first if `reverse`.
    pub fn scan(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], reverse: bool) {
        assert!(v.len() >= rows * self.state_len() && state.len() == self.state_len());
        isa.run(SpectrumScan { spectrum: self, rows, v, state, reverse });
    }
}

struct SpectrumScan<'a, E> {
    spectrum: &'a Spectrum<E>,
    rows: usize,
    v: &'a mut [E],
    state: &'a mut [E],
    reverse: bool,
}

impl<E: Elem> Kernel<E> for SpectrumScan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let width = self.spectrum.state_len();
        let half = width / 2;
        for first in (0..half).step_by(L::LANES) {
            let (group, lane) = (first / GROUP, first % GROUP);
            // SAFETY: `scan` checked the lengths; `first + LANES <= half`, since both are whole groups.
            unsafe {
                let k = self.spectrum.coefficients.as_ptr().add(group * SPECTRUM_ROWS * GROUP + lane);
                let row = |i: usize| lanes.load(k.add(i * GROUP));
                let a = [row(0), row(1), row(2), row(3)];
                let state = self.state.as_mut_ptr().add(first);
                let mut x = (lanes.load(state), lanes.load(state.add(half)));
                for i in 0..self.rows {
                    let t = if self.reverse { self.rows - 1 - i } else { i };
                    let v = self.v.as_mut_ptr().add(t * width + first);
                    let (vr, vi) = (lanes.load(v), lanes.load(v.add(half)));
                    let lr = lanes.fma(a[2], x.0, lanes.nfma(a[3], x.1, vr));
                    let li = lanes.fma(a[2], x.1, lanes.fma(a[3], x.0, vi));
                    x = (
                        lanes.fma(a[0], x.0, lanes.nfma(a[1], x.1, lr)),
                        lanes.fma(a[0], x.1, lanes.fma(a[1], x.0, li)),
                    );
                    lanes.store(v, x.0);
                    lanes.store(v.add(half), x.1);
                }
                lanes.store(state, lanes.flush(x.0));
                lanes.store(state.add(half), lanes.flush(x.1));
            }
        }
    }
}

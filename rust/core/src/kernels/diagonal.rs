//! The diagonal recurrence x' = a x + u, y = Re(c x), for a group of channels.
//!
//! It is computed as x' = x + (delta x + u) with delta = a - 1 as a pair of numbers (high, low), and in float32 with
//! compensated summation; see [`mode_state`](super::mode_state).

use super::chunk::{ChunkMatrices, Transition};
use super::layout::holds;
use super::lookahead::LookAhead;
use super::modal::Modal;
use super::mode_state::{Compensated, CompensatedAt, flush, modes_len, pair};
use super::{Aligned, Elem, GROUP, Lanes};
use num_complex::Complex64;

/// Rows of [`GROUP`] a mode takes in [`DiagonalModes`]: delta_re, delta_im, their low parts, c_re, c_im, and the gain
/// of the input where that is not 1.
const fn rows_of(unit_gain: bool) -> usize {
    if unit_gain { 6 } else { 8 }
}

/// The modes of one group of channels: x' = a x + gain u, y = sum Re(c x).
#[derive(Debug)]
pub struct DiagonalModes<E> {
    modes: usize,
    unit_gain: bool,
    coefficients: Aligned<E>,
    /// Present where the inputs' gain is 1.
    look_ahead: Option<LookAhead<E>>,
}

/// One mode of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// The discrete pole, less one.
    pub delta: Complex64,
    /// The output's coefficient, with B and the factor 2 of conjugate pairs folded in.
    pub c: Complex64,
    /// The input's coefficient.
    pub gain: Complex64,
}

impl<E: Elem> DiagonalModes<E> {
    /// `modes` modes a lane; `mode(lane, n)` gives each.
    pub fn new(modes: usize, unit_gain: bool, mode: impl Fn(usize, usize) -> Mode) -> Self {
        let rows = rows_of(unit_gain);
        let all: Vec<Mode> = (0..modes * GROUP).map(|i| mode(i % GROUP, i / GROUP)).collect();
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        for (i, m) in all.iter().enumerate() {
            let [hr, hi, lr, li] = pair::<E>(m.delta);
            let values = [hr, hi, lr, li, m.c.re, m.c.im, m.gain.re, m.gain.im];
            for (row, value) in values.into_iter().enumerate().take(rows) {
                coefficients[(i / GROUP * rows + row) * GROUP + i % GROUP] = E::of(value);
            }
        }
        let look_ahead = unit_gain.then(|| {
            LookAhead::new(modes, 0, |lane, n| {
                let Mode { delta, c, .. } = all[n * GROUP + lane];
                (delta, c, &[])
            })
        });
        Self { modes, unit_gain, coefficients, look_ahead }
    }
}

impl<E: Elem> Modal<E> for DiagonalModes<E> {
    const MOST_PRODUCTS: usize = 0;

    #[inline(always)]
    fn modes(&self) -> usize {
        self.modes
    }

    #[inline(always)]
    fn products(&self) -> usize {
        0
    }

    #[inline(always)]
    fn look_ahead(&self) -> Option<&LookAhead<E>> {
        self.look_ahead.as_ref()
    }

    #[inline(always)]
    fn one_by_one<L: Lanes<E = E>>(&self, lanes: L, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        assert!(holds(u.len(), rows, GROUP) && holds(y.len(), rows, GROUP) && x.len() == modes_len::<E>(self.modes));
        let (k, u, y, x) = (self.coefficients.as_ptr(), u.as_ptr(), y.as_mut_ptr(), x.as_mut_ptr());
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the coefficients are those of `modes` modes; u and y have `rows` rows and x is the state of
            // `modes` modes, as just checked. lane + LANES <= GROUP.
            unsafe {
                let (k, u, y, x) = (k.add(lane), u.add(lane), y.add(lane), x.add(lane));
                if self.unit_gain {
                    channels::<L, true>(lanes, self.modes, rows, k, u, y, x);
                } else {
                    channels::<L, false>(lanes, self.modes, rows, k, u, y, x);
                }
                if rows == 1 {
                    flush(lanes, phase, self.modes, x);
                }
            }
        }
    }
}

impl DiagonalModes<f64> {
    /// The chunk matrices for `t` samples: powers of the poles.
    pub fn chunk(&self, t: usize) -> ChunkMatrices {
        let n = self.modes * 2;
        let mut m = ChunkMatrices::zeros(t, n);
        let mut poles = vec![0.0; n * GROUP];
        for mode in 0..self.modes {
            let row = |i: usize| &self.coefficients[(mode * rows_of(self.unit_gain) + i) * GROUP..][..GROUP];
            for lane in 0..GROUP {
                let a = Complex64::new(1.0 + row(0)[lane], row(1)[lane]);
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

/// Runs over `rows` rows.
///
/// # Safety
/// From one lane of a group on, `k` addresses the coefficients and `x` the state of `modes` modes, `u` and `y` `rows`
/// rows.
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
    // SAFETY: n stays below `modes` and t below `rows`.
    unsafe {
        if rows == 1 {
            one_row::<L, UNIT>(lanes, modes, k, u, y, x);
            return;
        }
        for t in 0..rows {
            lanes.store(y.add(t * GROUP), lanes.splat(L::E::ZERO));
        }
        let mut n = 0;
        // Two modes at once hide the latency of the dependent operations, where registers hold them.
        if L::REGISTERS >= 32 {
            while n + 2 <= modes {
                block::<L, UNIT, 2>(
                    lanes,
                    rows,
                    k.add(n * rows_of(UNIT) * GROUP),
                    u,
                    y,
                    CompensatedAt::of(x, modes, n),
                );
                n += 2;
            }
        }
        while n < modes {
            block::<L, UNIT, 1>(lanes, rows, k.add(n * rows_of(UNIT) * GROUP), u, y, CompensatedAt::of(x, modes, n));
            n += 1;
        }
    }
}

/// The input times the gain of a mode: (re, im), without im where the gain is 1.
///
/// # Safety
/// `k` addresses the mode's rows of coefficients.
#[inline(always)]
unsafe fn gained<L: Lanes, const UNIT: bool>(lanes: L, k: *const L::E, u: L::V) -> (L::V, Option<L::V>) {
    if UNIT {
        return (u, None);
    }
    // SAFETY: without unit gain a mode has 8 rows.
    unsafe { (lanes.mul(lanes.load(k.add(6 * GROUP)), u), Some(lanes.mul(lanes.load(k.add(7 * GROUP)), u))) }
}

/// Runs over a single row.
///
/// # Safety
/// As for [`channels`] with a single row.
#[inline(always)]
unsafe fn one_row<L: Lanes, const UNIT: bool>(
    lanes: L,
    modes: usize,
    k: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    x: *mut L::E,
) {
    // SAFETY: all modes are below `modes`, and u and y have a row.
    unsafe {
        let u = lanes.load(u);
        let zero = lanes.splat(L::E::ZERO);
        // Two independent sums, each in registers.
        let (mut even, mut odd) = ((zero, zero), (zero, zero));
        for n in (0..modes / 2 * 2).step_by(2) {
            even = one_mode::<L, UNIT>(lanes, n, modes, k, u, x, even);
            odd = one_mode::<L, UNIT>(lanes, n + 1, modes, k, u, x, odd);
        }
        if !modes.is_multiple_of(2) {
            even = one_mode::<L, UNIT>(lanes, modes - 1, modes, k, u, x, even);
        }
        lanes.store(y, lanes.add(lanes.add(even.0, even.1), lanes.add(odd.0, odd.1)));
    }
}

/// Moves mode `n` on, and adds its output to `sums`.
///
/// # Safety
/// `k` and `x` address the coefficients and the state of `modes` modes, and n < modes.
#[inline(always)]
unsafe fn one_mode<L: Lanes, const UNIT: bool>(
    lanes: L,
    n: usize,
    modes: usize,
    k: *const L::E,
    u: L::V,
    x: *mut L::E,
    sums: (L::V, L::V),
) -> (L::V, L::V) {
    // SAFETY: mode n < modes has these rows of coefficients and of state.
    unsafe {
        let (k, place) = (k.add(n * rows_of(UNIT) * GROUP), CompensatedAt::of(x, modes, n));
        let pole =
            [lanes.load(k), lanes.load(k.add(GROUP)), lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP))];
        let next = Compensated::load(lanes, place).advance(lanes, pole, gained::<L, UNIT>(lanes, k, u));
        next.store(lanes, place);
        let (c_re, c_im) = (lanes.load(k.add(4 * GROUP)), lanes.load(k.add(5 * GROUP)));
        (lanes.fma(c_re, next.re, sums.0), lanes.nfma(c_im, next.im, sums.1))
    }
}

/// Runs M modes over `rows` rows, adding their outputs to `y`.
///
/// # Safety
/// `k` and `place` address the coefficients and the states of M modes, `u` and `y` `rows` rows.
#[inline(always)]
unsafe fn block<L: Lanes, const UNIT: bool, const M: usize>(
    lanes: L,
    rows: usize,
    k: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    place: CompensatedAt<L::E>,
) {
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: m < M and t < rows.
    unsafe {
        let mut pole = [[zero; 4]; M];
        let mut c = [(zero, zero); M];
        let mut state = [Compensated::zero(lanes); M];
        for m in 0..M {
            let k = k.add(m * rows_of(UNIT) * GROUP);
            for (i, pole) in pole[m].iter_mut().enumerate() {
                *pole = lanes.load(k.add(i * GROUP));
            }
            c[m] = (lanes.load(k.add(4 * GROUP)), lanes.load(k.add(5 * GROUP)));
            state[m] = Compensated::load(lanes, place.offset(m));
        }
        for t in 0..rows {
            let input = lanes.load(u.add(t * GROUP));
            let mut sum = lanes.load(y.add(t * GROUP));
            for m in 0..M {
                let u = gained::<L, UNIT>(lanes, k.add(m * rows_of(UNIT) * GROUP), input);
                state[m] = state[m].advance(lanes, pole[m], u);
                sum = lanes.fma(c[m].0, state[m].re, lanes.nfma(c[m].1, state[m].im, sum));
            }
            lanes.store(y.add(t * GROUP), sum);
        }
        for m in 0..M {
            state[m].flushed(lanes).store(lanes, place.offset(m));
        }
    }
}

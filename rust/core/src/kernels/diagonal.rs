//! The diagonal recurrence x' = a x + u, y = Re(c x), for a group of channels.
//!
//! It is computed as x' = x + (delta x + u) with delta = a - 1 as a pair (high, low), and in float32 with what the
//! rounding of each sum left over carried to the next: a pole close to the unit circle forgets so slowly that its
//! own rounding, or that of its state, would be heard.

use super::ahead::{Ahead, Sample};
use super::by_modes::{ByModes, modes_len};
use super::chunk::{ChunkMatrices, Transition};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, fetch};
use num_complex::Complex64;

/// Rows of [`GROUP`] a mode takes in [`Modes`]: delta_re, delta_im, their low parts, c_re, c_im, and the gain of the
/// input where that is not 1.
const fn rows_of(unit_gain: bool) -> usize {
    if unit_gain { 6 } else { 8 }
}

/// The modes of one group of channels: x' = a x + gain u, y = sum Re(c x).
#[derive(Debug)]
pub struct Modes<E> {
    modes: usize,
    unit_gain: bool,
    coefficients: Aligned<E>,
    /// Where the inputs' gain is 1.
    ahead: Option<Ahead<E>>,
}

/// One mode of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// The discrete pole, less one.
    pub delta: Complex64,
    /// What reads it, with B and the factor 2 of conjugate pairs folded in.
    pub c: Complex64,
    /// What the input is multiplied with.
    pub gain: Complex64,
}

/// (re, im) rounded, and what the rounding left over.
pub(super) fn pair<E: Elem>(z: Complex64) -> [f64; 4] {
    let (re, im) = (E::of(z.re).f64(), E::of(z.im).f64());
    [re, im, z.re - re, z.im - im]
}

impl<E: Elem> Modes<E> {
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
        let ahead = unit_gain.then(|| {
            Ahead::new(modes, 0, |lane, n| {
                let Mode { delta, c, .. } = all[n * GROUP + lane];
                (delta, c, &[])
            })
        });
        Self { modes, unit_gain, coefficients, ahead }
    }
}

impl<E: Elem> ByModes<E> for Modes<E> {
    #[inline(always)]
    fn modes(&self) -> usize {
        self.modes
    }

    #[inline(always)]
    fn products(&self) -> usize {
        0
    }

    #[inline(always)]
    fn ahead(&self) -> Option<&Ahead<E>> {
        self.ahead.as_ref()
    }

    #[inline(always)]
    fn one_by_one<L: Lanes<E = E>>(&self, lanes: L, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && x.len() == modes_len::<E>(self.modes));
        let (k, u, y, x) = (self.coefficients.as_ptr(), u.as_ptr(), y.as_mut_ptr(), x.as_mut_ptr());
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the lengths were checked; every pointer stays within `modes` or `rows` rows of GROUP.
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

    fn blocks(&self, isa: Isa, ahead: &Ahead<E>, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        ahead.scan::<0>(isa, blocks, u, y, x);
    }

    #[inline(always)]
    fn sample<L: Lanes<E = E>>(&self, lanes: L, sample: Sample<'_, E>, u: &[E], y: &mut [E]) {
        sample.run::<L, 0>(lanes, u, y);
    }
}

impl Modes<f64> {
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

/// Where a mode's state stands: a row each of the real and the imaginary part, and one of what their rounding left
/// over, in halves: it is less than half a unit of the last digit, and half its bits are eight digits more.
#[derive(Clone, Copy)]
pub(super) struct HeldAt<E> {
    x: *mut E,
    left: *mut E,
}

impl<E: Elem> HeldAt<E> {
    /// Of mode `n` of `modes`, of whose states `x` is the first.
    #[inline(always)]
    pub fn of(x: *mut E, modes: usize, n: usize) -> Self {
        Self { x: x.wrapping_add(n * 2 * GROUP), left: x.wrapping_add((modes * 2 + n) * GROUP) }
    }

    /// Of the mode `n` modes on.
    #[inline(always)]
    pub fn after(self, n: usize) -> Self {
        Self { x: self.x.wrapping_add(n * 2 * GROUP), left: self.left.wrapping_add(n * GROUP) }
    }

    /// Fetches what stands `next` elements on.
    #[inline(always)]
    pub fn fetch(self, next: usize) {
        fetch(self.x.wrapping_add(next).cast_const());
        fetch(self.x.wrapping_add(next + GROUP).cast_const());
        if E::COMPENSATED {
            fetch(self.left.wrapping_add(next).cast_const());
        }
    }
}

/// One mode's state, and what its rounding left over.
#[derive(Clone, Copy)]
pub(super) struct Held<V> {
    pub re: V,
    pub im: V,
    left_re: V,
    left_im: V,
}

impl<V: Copy> Held<V> {
    /// # Safety
    /// The place addresses rows of a state.
    #[inline(always)]
    pub unsafe fn load<L: Lanes<V = V>>(lanes: L, place: HeldAt<L::E>) -> Self {
        let zero = lanes.splat(L::E::ZERO);
        // SAFETY: as the caller's.
        unsafe {
            let (re, im) = (lanes.load(place.x), lanes.load(place.x.add(GROUP)));
            if L::E::COMPENSATED {
                let left = lanes.load(place.left);
                Self { re, im, left_re: lanes.first(left), left_im: lanes.second(left) }
            } else {
                Self { re, im, left_re: zero, left_im: zero }
            }
        }
    }

    /// # Safety
    /// As [`Held::load`].
    #[inline(always)]
    pub unsafe fn store<L: Lanes<V = V>>(self, lanes: L, place: HeldAt<L::E>) {
        // SAFETY: as the caller's.
        unsafe {
            lanes.store(place.x, self.re);
            lanes.store(place.x.add(GROUP), self.im);
            if L::E::COMPENSATED {
                lanes.store(place.left, lanes.halves(self.left_re, self.left_im));
            }
        }
    }

    /// With what is tiny set to zero.
    #[inline(always)]
    pub fn flushed<L: Lanes<V = V>>(self, lanes: L) -> Self {
        Self {
            re: lanes.flush(self.re),
            im: lanes.flush(self.im),
            left_re: lanes.flush(self.left_re),
            left_im: lanes.flush(self.left_im),
        }
    }

    /// The next state, for the pole [delta_re, delta_im, low parts] and the input (re, im).
    #[inline(always)]
    pub fn advance<L: Lanes<V = V>>(self, lanes: L, [dr, di, lr, li]: [V; 4], u: (V, Option<V>)) -> Self {
        let low_im = match u.1 {
            Some(u) => lanes.fma(li, self.re, u),
            None => lanes.mul(li, self.re),
        };
        let low = (lanes.fma(lr, self.re, lanes.nfma(li, self.im, u.0)), lanes.fma(lr, self.im, low_im));
        self.moved(lanes, (dr, di), low)
    }

    /// The state moved by delta times itself and `by`.
    #[inline(always)]
    pub fn moved<L: Lanes<V = V>>(self, lanes: L, (dr, di): (V, V), by: (V, V)) -> Self {
        let Self { re, im, left_re, left_im } = self;
        let mut by_re = lanes.fma(dr, re, lanes.nfma(di, im, by.0));
        let mut by_im = lanes.fma(dr, im, lanes.fma(di, re, by.1));
        if !L::E::COMPENSATED {
            return Self { re: lanes.add(re, by_re), im: lanes.add(im, by_im), left_re, left_im };
        }
        by_re = lanes.add(by_re, left_re);
        by_im = lanes.add(by_im, left_im);
        let (re, left_re) = lanes.moved(re, by_re);
        let (im, left_im) = lanes.moved(im, by_im);
        Self { re, im, left_re, left_im }
    }
}

/// Steps after which every mode has been looked at for tiny numbers: they would be slow if they became denormal.
pub const PHASES: usize = 8;

/// Sets to zero what is tiny of every [`PHASES`]th mode's state.
///
/// # Safety
/// `x` addresses the rows of `modes` modes, and of what is left over.
#[inline(always)]
pub(super) unsafe fn flush<L: Lanes>(lanes: L, phase: usize, modes: usize, x: *mut L::E) {
    for n in (phase % PHASES..modes).step_by(PHASES) {
        let place = HeldAt::of(x, modes, n);
        // SAFETY: as the caller's.
        unsafe { Held::load(lanes, place).flushed(lanes).store(lanes, place) };
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
        // Two modes at once hide the latency of the dependent operations, where registers hold them.
        if L::REGISTERS >= 32 {
            while n + 2 <= modes {
                block::<L, UNIT, 2>(lanes, rows, k.add(n * rows_of(UNIT) * GROUP), u, y, HeldAt::of(x, modes, n));
                n += 2;
            }
        }
        while n < modes {
            block::<L, UNIT, 1>(lanes, rows, k.add(n * rows_of(UNIT) * GROUP), u, y, HeldAt::of(x, modes, n));
            n += 1;
        }
    }
}

/// The input as a mode sees it.
///
/// # Safety
/// `k` addresses the mode's rows.
#[inline(always)]
unsafe fn seen<L: Lanes, const UNIT: bool>(lanes: L, k: *const L::E, u: L::V) -> (L::V, Option<L::V>) {
    if UNIT {
        return (u, None);
    }
    // SAFETY: as the caller's.
    unsafe { (lanes.mul(lanes.load(k.add(6 * GROUP)), u), Some(lanes.mul(lanes.load(k.add(7 * GROUP)), u))) }
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
        let u = lanes.load(u);
        let zero = lanes.splat(L::E::ZERO);
        // Two chains of sums, each in registers.
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

/// Moves mode `n` on, and adds what it says to `sums`.
///
/// # Safety
/// As [`channels`].
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
    // SAFETY: as the caller's.
    unsafe {
        let (k, place) = (k.add(n * rows_of(UNIT) * GROUP), HeldAt::of(x, modes, n));
        let pole =
            [lanes.load(k), lanes.load(k.add(GROUP)), lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP))];
        let next = Held::load(lanes, place).advance(lanes, pole, seen::<L, UNIT>(lanes, k, u));
        next.store(lanes, place);
        let (c_re, c_im) = (lanes.load(k.add(4 * GROUP)), lanes.load(k.add(5 * GROUP)));
        (lanes.fma(c_re, next.re, sums.0), lanes.nfma(c_im, next.im, sums.1))
    }
}

/// # Safety
/// As [`channels`], with M modes from `k` and `place` on.
#[inline(always)]
unsafe fn block<L: Lanes, const UNIT: bool, const M: usize>(
    lanes: L,
    rows: usize,
    k: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    place: HeldAt<L::E>,
) {
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: as the caller's.
    unsafe {
        let mut pole = [[zero; 4]; M];
        let mut c = [(zero, zero); M];
        let mut state = [Held { re: zero, im: zero, left_re: zero, left_im: zero }; M];
        for m in 0..M {
            let k = k.add(m * rows_of(UNIT) * GROUP);
            for (i, pole) in pole[m].iter_mut().enumerate() {
                *pole = lanes.load(k.add(i * GROUP));
            }
            c[m] = (lanes.load(k.add(4 * GROUP)), lanes.load(k.add(5 * GROUP)));
            state[m] = Held::load(lanes, place.after(m));
        }
        for t in 0..rows {
            let input = lanes.load(u.add(t * GROUP));
            let mut sum = lanes.load(y.add(t * GROUP));
            for m in 0..M {
                let u = seen::<L, UNIT>(lanes, k.add(m * rows_of(UNIT) * GROUP), input);
                state[m] = state[m].advance(lanes, pole[m], u);
                sum = lanes.fma(c[m].0, state[m].re, lanes.nfma(c[m].1, state[m].im, sum));
            }
            lanes.store(y.add(t * GROUP), sum);
        }
        for m in 0..M {
            state[m].flushed(lanes).store(lanes, place.after(m));
        }
    }
}

/// Diagonal systems with many inputs and outputs: the lanes are modes, x' = a x + v with v already B u.
#[derive(Debug)]
pub struct Spectrum<E> {
    modes: usize,
    coefficients: Aligned<E>,
}

/// Rows of [`GROUP`] that a group of modes takes in [`Spectrum`]: delta_re, delta_im and their low parts.
const SPECTRUM_ROWS: usize = 4;

impl<E: Elem> Spectrum<E> {
    /// The discrete poles, less one.
    pub fn new(delta: &[Complex64]) -> Self {
        let groups = delta.len().div_ceil(GROUP);
        let mut coefficients = Aligned::zeros(groups * SPECTRUM_ROWS * GROUP);
        for (n, &delta) in delta.iter().enumerate() {
            for (row, value) in pair::<E>(delta).into_iter().enumerate() {
                coefficients[(n / GROUP * SPECTRUM_ROWS + row) * GROUP + n % GROUP] = E::of(value);
            }
        }
        Self { modes: delta.len(), coefficients }
    }

    /// Elements of a row of `v`: all real parts, then all imaginary ones, each padded to groups.
    pub fn row_len(&self) -> usize {
        super::padded(self.modes) * 2
    }

    /// Elements of state: as those of a group of channels that has a mode for each group of modes here.
    pub fn state_len(&self) -> usize {
        modes_len::<E>(super::padded(self.modes) / GROUP)
    }

    /// Turns the `rows` rows of `v` into the states after each; from the last row to the first if `reverse`.
    pub fn scan(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], reverse: bool) {
        assert!(v.len() >= rows * self.row_len() && state.len() == self.state_len());
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
        let width = self.spectrum.row_len();
        let half = width / 2;
        for first in (0..half).step_by(L::LANES) {
            let (group, lane) = (first / GROUP, first % GROUP);
            // SAFETY: `scan` checked the lengths; `first + LANES <= half`, since both are whole groups.
            unsafe {
                let k = self.spectrum.coefficients.as_ptr().add(group * SPECTRUM_ROWS * GROUP + lane);
                let row = |i: usize| lanes.load(k.add(i * GROUP));
                let pole = [row(0), row(1), row(2), row(3)];
                let place = HeldAt::of(self.state.as_mut_ptr().add(lane), half / GROUP, group);
                let mut x = Held::load(lanes, place);
                for i in 0..self.rows {
                    let t = if self.reverse { self.rows - 1 - i } else { i };
                    let v = self.v.as_mut_ptr().add(t * width + first);
                    x = x.advance(lanes, pole, (lanes.load(v), Some(lanes.load(v.add(half)))));
                    lanes.store(v, x.re);
                    lanes.store(v.add(half), x.im);
                }
                x.flushed(lanes).store(lanes, place);
            }
        }
    }
}

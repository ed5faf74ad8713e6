//! Oscillators with many inputs and outputs (LinOSS): the lanes are oscillators, driven by complex forces made before.
//!
//! The state of each is a position x, which is read, and w beside it; (w, x)' = sign (w, x) + delta (w, x) + (drive f, f).

use super::layout::holds;
use super::mode_state::{Compensated, CompensatedAt, modes_len};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};

/// The oscillators of one system.
#[derive(Debug)]
pub struct Oscillators<E> {
    count: usize,
    /// Whether x' = sign x + w', as it is at the step size that the state is of.
    regular: bool,
    coefficients: Aligned<E>,
}

/// What an oscillator is stepped by.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1 or -1.
    pub sign: f64,
    /// (2, 2), row-major.
    pub delta: [f64; 4],
    /// What a force of 1 adds to w.
    pub drive: f64,
}

/// Rows of [`GROUP`] that the coefficients of a group take.
const fn coefficient_rows(regular: bool) -> usize {
    if regular { 4 } else { 10 }
}

impl<E: Elem> Oscillators<E> {
    /// From the step of each. Of `regular` ones the second row of delta, and drive, follow from the first.
    pub fn new(regular: bool, steps: &[Step]) -> Self {
        let groups = steps.len().div_ceil(GROUP);
        let rows = coefficient_rows(regular);
        let mut coefficients = Aligned::zeros(groups * rows * GROUP);
        for (n, &Step { sign, delta: [ww, wx, xw, xx], drive }) in steps.iter().enumerate() {
            let low = |number: f64| number - E::of(number).f64();
            // The regular ww is the drag alone, whose rounding changes a decay by less than 1e-7 of it.
            let numbers = [sign, ww, wx, low(wx), drive, low(ww), xw, low(xw), xx, low(xx)];
            for (row, &number) in numbers[..rows].iter().enumerate() {
                coefficients[(n / GROUP * rows + row) * GROUP + n % GROUP] = E::of(number);
            }
        }
        Self { count: steps.len(), regular, coefficients }
    }

    /// Elements of a row of forces: all real parts, then all imaginary ones, each padded to groups.
    pub fn row_len(&self) -> usize {
        padded(self.count) * 2
    }

    /// Elements of state: w of all groups, then the positions.
    pub fn state_len(&self) -> usize {
        modes_len::<E>(2 * padded(self.count) / GROUP)
    }

    /// Replaces each of the `rows` rows of forces by the positions after it.
    pub fn scan(&self, isa: Isa, rows: usize, forces: &mut [E], state: &mut [E]) {
        assert!(holds(forces.len(), rows, self.row_len()) && state.len() == self.state_len());
        isa.run(Scan { oscillators: self, rows, forces, state });
    }
}

struct Scan<'a, E> {
    oscillators: &'a Oscillators<E>,
    rows: usize,
    forces: &'a mut [E],
    state: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        if self.oscillators.regular { self.scan::<L, true>(lanes) } else { self.scan::<L, false>(lanes) }
    }
}

impl<E: Elem> Scan<'_, E> {
    #[inline(always)]
    fn scan<L: Lanes<E = E>, const REGULAR: bool>(self, lanes: L) {
        let width = self.oscillators.row_len();
        let half = width / 2;
        let groups = half / GROUP;
        let rows = coefficient_rows(REGULAR);
        for first in (0..half).step_by(L::LANES) {
            let (group, lane) = (first / GROUP, first % GROUP);
            // SAFETY: `Oscillators::scan` checked that there are `rows` rows of forces and a state of 2 `groups` modes a
            // lane, and the coefficients have `groups`; first + LANES <= half, since `half` is whole groups.
            unsafe {
                let k = self.oscillators.coefficients.as_ptr().add(group * rows * GROUP + lane);
                let row = |i: usize| lanes.load(k.add(i * GROUP));
                let [sign, ww, wx, wx_low] = [row(0), row(1), row(2), row(3)];
                let [drive, ww_low, xw, xw_low, xx, xx_low] =
                    if REGULAR { [sign; 6] } else { [row(4), row(5), row(6), row(7), row(8), row(9)] };
                let state = self.state.as_mut_ptr().add(lane);
                let w_at = CompensatedAt::of(state, 2 * groups, group);
                let x_at = w_at.offset(groups);
                let mut w = Compensated::load(lanes, w_at);
                let mut x = Compensated::load(lanes, x_at);
                for t in 0..self.rows {
                    let force = self.forces.as_mut_ptr().add(t * width + first);
                    let (re, im) = (lanes.load(force), lanes.load(force.add(half)));
                    let (kept_w, kept_x) = (w.times(lanes, sign), x.times(lanes, sign));
                    let (mut w_re, mut w_im) = (re, im);
                    if !REGULAR {
                        (w_re, w_im) = (lanes.mul(drive, re), lanes.mul(drive, im));
                        (w_re, w_im) = (lanes.fma(ww_low, w.re, w_re), lanes.fma(ww_low, w.im, w_im));
                    }
                    (w_re, w_im) = (lanes.fma(ww, w.re, w_re), lanes.fma(ww, w.im, w_im));
                    (w_re, w_im) = (lanes.fma(wx_low, x.re, w_re), lanes.fma(wx_low, x.im, w_im));
                    (w_re, w_im) = (lanes.fma(wx, x.re, w_re), lanes.fma(wx, x.im, w_im));
                    let (mut x_re, mut x_im) = (re, im);
                    if REGULAR {
                        (x_re, x_im) = (lanes.add(kept_w.re, w_re), lanes.add(kept_w.im, w_im));
                    } else {
                        (x_re, x_im) = (lanes.fma(xw_low, w.re, x_re), lanes.fma(xw_low, w.im, x_im));
                        (x_re, x_im) = (lanes.fma(xw, w.re, x_re), lanes.fma(xw, w.im, x_im));
                        (x_re, x_im) = (lanes.fma(xx_low, x.re, x_re), lanes.fma(xx_low, x.im, x_im));
                        (x_re, x_im) = (lanes.fma(xx, x.re, x_re), lanes.fma(xx, x.im, x_im));
                    }
                    w = kept_w.changed(lanes, (w_re, w_im));
                    x = kept_x.changed(lanes, (x_re, x_im));
                    lanes.store(force, x.re);
                    lanes.store(force.add(half), x.im);
                }
                w.flushed(lanes).store(lanes, w_at);
                x.flushed(lanes).store(lanes, x_at);
            }
        }
    }
}

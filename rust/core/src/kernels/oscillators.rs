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
    coefficients: Aligned<E>,
}

/// Rows of [`GROUP`] that a group of oscillators takes in [`Oscillators`]: sign, drive, delta and delta's low parts.
const ROWS: usize = 10;

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

impl<E: Elem> Oscillators<E> {
    /// From the step of each.
    pub fn new(steps: &[Step]) -> Self {
        let groups = steps.len().div_ceil(GROUP);
        let mut coefficients = Aligned::zeros(groups * ROWS * GROUP);
        for (n, step) in steps.iter().enumerate() {
            let at = n / GROUP * ROWS * GROUP + n % GROUP;
            coefficients[at] = E::of(step.sign);
            coefficients[at + GROUP] = E::of(step.drive);
            for (i, &number) in step.delta.iter().enumerate() {
                let high = E::of(number);
                coefficients[at + (2 + i) * GROUP] = high;
                coefficients[at + (6 + i) * GROUP] = E::of(number - high.f64());
            }
        }
        Self { count: steps.len(), coefficients }
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
        let width = self.oscillators.row_len();
        let half = width / 2;
        let groups = half / GROUP;
        for first in (0..half).step_by(L::LANES) {
            let (group, lane) = (first / GROUP, first % GROUP);
            // SAFETY: `Oscillators::scan` checked that there are `rows` rows of forces and a state of 2 `groups` modes a
            // lane, and the coefficients have `groups`; first + LANES <= half, since `half` is whole groups.
            unsafe {
                let k = self.oscillators.coefficients.as_ptr().add(group * ROWS * GROUP + lane);
                let row = |i: usize| lanes.load(k.add(i * GROUP));
                let (sign, drive) = (row(0), row(1));
                let (ww, wx, xw, xx) = (row(2), row(3), row(4), row(5));
                let (ww_low, wx_low, xw_low, xx_low) = (row(6), row(7), row(8), row(9));
                let state = self.state.as_mut_ptr().add(lane);
                let w_at = CompensatedAt::of(state, 2 * groups, group);
                let x_at = w_at.offset(groups);
                let mut w = Compensated::load(lanes, w_at);
                let mut x = Compensated::load(lanes, x_at);
                for t in 0..self.rows {
                    let force = self.forces.as_mut_ptr().add(t * width + first);
                    let (re, im) = (lanes.load(force), lanes.load(force.add(half)));
                    let (w_re, w_im) = (lanes.mul(drive, re), lanes.mul(drive, im));
                    let w_re = lanes.fma(ww, w.re, lanes.fma(ww_low, w.re, w_re));
                    let w_im = lanes.fma(ww, w.im, lanes.fma(ww_low, w.im, w_im));
                    let x_re = lanes.fma(xw, w.re, lanes.fma(xw_low, w.re, re));
                    let x_im = lanes.fma(xw, w.im, lanes.fma(xw_low, w.im, im));
                    let w_re = lanes.add(w_re, lanes.fma(wx, x.re, lanes.mul(wx_low, x.re)));
                    let w_im = lanes.add(w_im, lanes.fma(wx, x.im, lanes.mul(wx_low, x.im)));
                    let x_re = lanes.add(x_re, lanes.fma(xx, x.re, lanes.mul(xx_low, x.re)));
                    let x_im = lanes.add(x_im, lanes.fma(xx, x.im, lanes.mul(xx_low, x.im)));
                    w = w.times(lanes, sign).changed(lanes, (w_re, w_im));
                    x = x.times(lanes, sign).changed(lanes, (x_re, x_im));
                    lanes.store(force, x.re);
                    lanes.store(force.add(half), x.im);
                }
                w.flushed(lanes).store(lanes, w_at);
                x.flushed(lanes).store(lanes, x_at);
            }
        }
    }
}

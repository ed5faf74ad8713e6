//! Diagonal systems with many inputs and outputs (S5, LRU): the lanes are modes, x' = a x + v with v = B u made before.

use super::layout::holds;
use super::mode_state::{Compensated, CompensatedAt, modes_len, pair, placed};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};
use num_complex::Complex64;

/// The modes of one system.
#[derive(Debug)]
pub struct MimoModes<E> {
    modes: usize,
    coefficients: Aligned<E>,
}

/// Rows of [`GROUP`] that a group of modes takes in [`MimoModes`]: delta_re, delta_im and their low parts.
const ROWS: usize = 4;

impl<E: Elem> MimoModes<E> {
    /// From the discrete poles less one.
    pub fn new(delta: &[Complex64]) -> Self {
        let groups = delta.len().div_ceil(GROUP);
        let mut coefficients = Aligned::zeros(groups * ROWS * GROUP);
        for (n, &delta) in delta.iter().enumerate() {
            for (row, value) in pair::<E>(delta).into_iter().enumerate() {
                coefficients[(n / GROUP * ROWS + row) * GROUP + n % GROUP] = E::of(value);
            }
        }
        Self { modes: delta.len(), coefficients }
    }

    /// Elements of a row of `v`: all real parts, then all imaginary ones, each padded to groups.
    pub fn row_len(&self) -> usize {
        padded(self.modes) * 2
    }

    /// Elements of state: those of a group of channels with as many modes as there are groups of modes here.
    pub fn state_len(&self) -> usize {
        modes_len::<E>(padded(self.modes) / GROUP)
    }

    /// The state whose mode n is at `x[n]`.
    pub fn state(&self, x: &[Complex64]) -> Vec<E> {
        placed(padded(self.modes) / GROUP, |group, lane| x.get(group * GROUP + lane).copied().unwrap_or_default())
    }

    /// Replaces each of the `rows` rows of `v` by the state after it; from the last row to the first if `reverse`.
    pub fn scan(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], reverse: bool) {
        assert!(holds(v.len(), rows, self.row_len()) && state.len() == self.state_len());
        isa.run(Scan { modes: self, rows, v, state, reverse });
    }
}

struct Scan<'a, E> {
    modes: &'a MimoModes<E>,
    rows: usize,
    v: &'a mut [E],
    state: &'a mut [E],
    reverse: bool,
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let width = self.modes.row_len();
        let half = width / 2;
        for first in (0..half).step_by(L::LANES) {
            let (group, lane) = (first / GROUP, first % GROUP);
            // SAFETY: `MimoModes::scan` checked that v has `rows` rows and the state `half / GROUP` modes a lane, as
            // the coefficients have; first + LANES <= half, since `half` is whole groups.
            unsafe {
                let k = self.modes.coefficients.as_ptr().add(group * ROWS * GROUP + lane);
                let row = |i: usize| lanes.load(k.add(i * GROUP));
                let pole = [row(0), row(1), row(2), row(3)];
                let place = CompensatedAt::of(self.state.as_mut_ptr().add(lane), half / GROUP, group);
                let mut x = Compensated::load(lanes, place);
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

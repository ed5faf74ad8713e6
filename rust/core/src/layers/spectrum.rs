//! The diagonal core of S5 and LRU between its dense B and C: complex inputs to states, in place.

use crate::discretize::{self, Disc};
use crate::kernels::mimo::MimoModes;
use crate::kernels::{Elem, Isa};
use num_complex::Complex64;

/// x\[t\] = Abar x\[t-1\] + v\[t\], with v = Bbar u made before.
#[derive(Debug)]
pub struct Mimo<E> {
    modes: MimoModes<E>,
    lambda: Vec<Complex64>,
    step: Vec<f64>,
    disc: Disc,
    alpha: f64,
    reverse: bool,
}

impl<E: Elem> Mimo<E> {
    /// The modes `lambda` with step sizes `step` (rate included). `reverse` runs from the last sample to the first.
    pub fn new(lambda: Vec<Complex64>, step: Vec<f64>, disc: Disc, alpha: f64, reverse: bool) -> Self {
        let pole = |(&l, &dt): (&Complex64, &f64)| discretize::discretize_mode(disc, alpha, l, dt).a_minus_one;
        let delta: Vec<_> = lambda.iter().zip(&step).map(pole).collect();
        Self { modes: MimoModes::new(&delta), lambda, step, disc, alpha, reverse }
    }

    /// Elements a row: all real parts, then all imaginary ones, each padded.
    pub fn row_len(&self) -> usize {
        self.modes.row_len()
    }

    /// Elements of state.
    pub fn state_len(&self) -> usize {
        self.modes.state_len()
    }

    /// Makes states of the rows `v`. `dt` multiplies the step sizes; the rows are those of `dt` = 1.
    pub fn run(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], dt: f64) {
        if self.reverse {
            state.fill(E::ZERO);
        }
        if dt == 1.0 {
            self.modes.scan(isa, rows, v, state, self.reverse);
            return;
        }
        let half = self.row_len() / 2;
        let modes: Vec<_> = self
            .lambda
            .iter()
            .zip(&self.step)
            .map(|(&lambda, &step)| {
                let regular = discretize::discretize_mode(self.disc, self.alpha, lambda, step);
                let bar = discretize::discretize_mode(self.disc, self.alpha, lambda, step * dt);
                (bar.a_minus_one, bar.f / regular.f)
            })
            .collect();
        for row in v.chunks_exact_mut(2 * half).take(rows) {
            for (n, (_, gain)) in modes.iter().enumerate() {
                let z = Complex64::new(row[n].f64(), row[half + n].f64()) * gain;
                (row[n], row[half + n]) = (E::of(z.re), E::of(z.im));
            }
        }
        let poles: Vec<_> = modes.iter().map(|m| m.0).collect();
        MimoModes::new(&poles).scan(isa, rows, v, state, self.reverse);
    }
}

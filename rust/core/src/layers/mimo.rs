//! The diagonal core of S5 and LRU between its dense B and C: complex inputs to states, in place.

use crate::document::DiagonalMimo;
use crate::kernels::mimo::MimoModes;
use crate::kernels::{Elem, Isa};
use num_complex::Complex64;

/// x\[t\] = Abar x\[t-1\] + v\[t\], with v = Bbar u made before.
#[derive(Debug)]
pub struct Mimo<E> {
    recurrence: MimoModes<E>,
    node: DiagonalMimo,
    rate: f64,
    reverse: bool,
}

impl<E: Elem> Mimo<E> {
    /// The modes of `node` at `rate`. `reverse` runs from the last sample to the first.
    pub fn new(node: &DiagonalMimo, rate: f64, reverse: bool) -> Self {
        let delta: Vec<_> = (0..node.modes()).map(|n| node.mode(n, rate).a_minus_one).collect();
        Self { recurrence: MimoModes::new(&delta), node: node.clone(), rate, reverse }
    }

    /// Elements a row: all real parts, then all imaginary ones, each padded.
    pub fn row_len(&self) -> usize {
        self.recurrence.row_len()
    }

    /// Elements of state.
    pub fn state_len(&self) -> usize {
        self.recurrence.state_len()
    }

    /// The state at a stream's start, where that is not zero. Backwards it is always zero.
    pub fn start(&self) -> Option<Vec<E>> {
        let x0 = self.node.x0.as_ref().filter(|_| !self.reverse)?;
        Some(self.recurrence.state(&x0.data))
    }

    /// Makes states of the rows `v`. `dt` multiplies the step sizes; the rows are those of `dt` = 1.
    pub fn run(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], dt: f64) {
        if self.reverse {
            state.fill(E::ZERO);
        }
        if dt == 1.0 {
            self.recurrence.scan(isa, rows, v, state, self.reverse);
            return;
        }
        let half = self.row_len() / 2;
        let modes: Vec<_> = (0..self.node.modes())
            .map(|n| {
                let (regular, bar) = (self.node.mode(n, self.rate), self.node.mode(n, self.rate * dt));
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

//! The core of S5, LRU and LinOSS between their dense B and C: complex inputs to states, in place.

use crate::discretize::OscillatorStep;
use crate::document::{DiagonalMimo, Linoss};
use crate::kernels::mimo::MimoModes;
use crate::kernels::oscillators::{Oscillators, Step};
use crate::kernels::{Elem, Isa};
use num_complex::Complex64;

/// x\[t\] = Abar x\[t-1\] + v\[t\], with v = Bbar u made before.
#[derive(Debug)]
pub struct Mimo<E> {
    recurrence: Recurrence<E>,
    core: Core,
    rate: f64,
}

/// What there is one of in each column of a row.
#[derive(Debug)]
pub enum Core {
    /// S5, LRU: a mode. `reverse` runs from the last sample to the first.
    Modes { node: DiagonalMimo, reverse: bool },
    /// LinOSS: an oscillator, whose position is driven and read.
    Oscillators(Linoss),
}

#[derive(Debug)]
enum Recurrence<E> {
    Modes(MimoModes<E>),
    Oscillators(Oscillators<E>),
}

impl Core {
    /// The recurrence at `dt` times the step sizes of `rate`, on the state that it has at these.
    fn recurrence<E: Elem>(&self, rate: f64, dt: f64) -> Recurrence<E> {
        match self {
            Core::Modes { node, .. } => {
                let delta: Vec<_> = (0..node.modes()).map(|n| node.mode(n, rate * dt).a_minus_one).collect();
                Recurrence::Modes(MimoModes::new(&delta))
            }
            Core::Oscillators(node) => {
                let bars = node.bars(rate * dt).into_iter().zip(node.bars(rate));
                let step = |OscillatorStep { sign, delta, drive }| Step { sign, delta, drive };
                let steps: Vec<_> = bars.map(|(bar, regular)| step(bar.step_at(&regular))).collect();
                Recurrence::Oscillators(Oscillators::new(dt == 1.0, &steps))
            }
        }
    }

    /// What B is multiplied with at `rate`, column by column.
    fn gains(&self, rate: f64) -> Vec<Complex64> {
        match self {
            Core::Modes { node, .. } => (0..node.modes()).map(|n| node.mode(n, rate).f).collect(),
            Core::Oscillators(node) => node.bars(rate).iter().map(|bar| bar.gain.into()).collect(),
        }
    }

    fn reverse(&self) -> bool {
        matches!(self, Core::Modes { reverse: true, .. })
    }
}

impl<E: Elem> Recurrence<E> {
    fn row_len(&self) -> usize {
        match self {
            Recurrence::Modes(modes) => modes.row_len(),
            Recurrence::Oscillators(oscillators) => oscillators.row_len(),
        }
    }

    fn scan(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], reverse: bool) {
        match self {
            Recurrence::Modes(modes) => modes.scan(isa, rows, v, state, reverse),
            Recurrence::Oscillators(oscillators) => oscillators.scan(isa, rows, v, state),
        }
    }
}

impl<E: Elem> Mimo<E> {
    /// That of `core` at `rate`.
    pub fn new(core: Core, rate: f64) -> Self {
        Self { recurrence: core.recurrence(rate, 1.0), core, rate }
    }

    /// Elements a row: all real parts, then all imaginary ones, each padded.
    pub fn row_len(&self) -> usize {
        self.recurrence.row_len()
    }

    /// Elements of state.
    pub fn state_len(&self) -> usize {
        match &self.recurrence {
            Recurrence::Modes(modes) => modes.state_len(),
            Recurrence::Oscillators(oscillators) => oscillators.state_len(),
        }
    }

    /// The state at a stream's start, where that is not zero. Backwards it is always zero.
    pub fn start(&self) -> Option<Vec<E>> {
        match (&self.core, &self.recurrence) {
            (Core::Modes { node, reverse: false }, Recurrence::Modes(modes)) => {
                Some(modes.state(&node.x0.as_ref()?.data))
            }
            _ => None,
        }
    }

    /// Makes states of the rows `v`. `dt` multiplies the step sizes; the rows are those of `dt` = 1.
    pub fn run(&self, isa: Isa, rows: usize, v: &mut [E], state: &mut [E], dt: f64) {
        let reverse = self.core.reverse();
        if reverse {
            state.fill(E::ZERO);
        }
        if dt == 1.0 {
            self.recurrence.scan(isa, rows, v, state, reverse);
            return;
        }
        let half = self.row_len() / 2;
        let regular = self.core.gains(self.rate);
        let gains: Vec<_> = self.core.gains(self.rate * dt).into_iter().zip(regular).map(|(f, r)| f / r).collect();
        for row in v.chunks_exact_mut(2 * half).take(rows) {
            for (n, gain) in gains.iter().enumerate() {
                let z = Complex64::new(row[n].f64(), row[half + n].f64()) * gain;
                (row[n], row[half + n]) = (E::of(z.re), E::of(z.im));
            }
        }
        self.core.recurrence(self.rate, dt).scan(isa, rows, v, state, reverse);
    }
}

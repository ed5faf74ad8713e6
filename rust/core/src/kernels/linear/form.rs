//! How the weights of a matrix are stored: as they are, or in half or a quarter of their bits.

use super::{GROUP, PANEL};
use crate::kernels::{Elem, Isa, Kernel, Lanes};
use std::ops::AddAssign;

/// What an element of a packed matrix holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A weight.
    #[default]
    Whole,
    /// The weights of two neighbouring inputs in half its bits: of an f32 as bfloat16.
    Halved,
    /// Those of four in a byte each, which is multiplied by a scale of the output's own: the largest weight of each output
    /// is 127 scales.
    Quartered,
}

/// Of weights that are not stored as they were given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounding {
    /// The sum of their squares as they were given.
    pub signal: f64,
    /// The sum of the squares of what they are off.
    pub noise: f64,
}

impl AddAssign for Rounding {
    fn add_assign(&mut self, other: Self) {
        self.signal += other.signal;
        self.noise += other.noise;
    }
}

impl Form {
    /// Inputs a row of weights.
    pub const fn inputs(self) -> usize {
        match self {
            Form::Whole => 1,
            Form::Halved => 2,
            Form::Quartered => 4,
        }
    }

    /// Rows of a panel with so many inputs: biases, scales if any, weights.
    #[inline(always)]
    pub const fn rows(self, d_in: usize) -> usize {
        match self {
            Form::Whole => d_in + 1,
            Form::Halved => d_in.div_ceil(2) + 1,
            Form::Quartered => d_in.div_ceil(4) + 2,
        }
    }

    /// Packs a panel's whole weights, rows of PANEL * GROUP, into what follows its biases.
    pub(super) fn pack<E: Elem>(self, from: &[E], to: &mut [E]) -> Rounding {
        let [signal, noise] = Isa::Scalar.run(Pack { form: self, from, to });
        Rounding { signal, noise }
    }

    /// The weights of one output, which lie PANEL * GROUP elements apart from the first row behind the biases on.
    pub(super) fn unpack<E: Elem>(self, packed: &[E], out: &mut [E]) {
        Isa::Scalar.run(Unpack { form: self, packed, out });
    }
}

/// A row of a panel.
const ROW: usize = PANEL * GROUP;

struct Pack<'a, E> {
    form: Form,
    from: &'a [E],
    to: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Pack<'_, E> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) -> [f64; 2] {
        let Self { form, from, to } = self;
        let (zero, one) = (lanes.splat(E::ZERO), lanes.splat(E::ONE));
        let inputs = from.len() / ROW;
        let mut rounding = [0.0; 2];
        for column in (0..ROW).step_by(L::LANES) {
            // SAFETY: `from` has whole rows, of which these are vectors, and `to` the rows that `Form::rows` counts but
            // for the biases.
            unsafe {
                let weight = |k: usize| {
                    if k < inputs { lanes.load(from.as_ptr().add(k * ROW + column)) } else { zero }
                };
                let mut to = to.as_mut_ptr().add(column);
                let (mut scale, mut inverse) = (one, one);
                if form == Form::Quartered {
                    let mut largest = zero;
                    for k in 0..inputs {
                        largest = lanes.max(largest, lanes.abs(weight(k)));
                    }
                    // Of few digits, so that its products with integers are exact.
                    scale = lanes.mul(largest, lanes.splat(E::of(1.0 / 127.0)));
                    scale = lanes.flush(lanes.first(lanes.halves(scale, zero)));
                    inverse = lanes.select_gt(scale, zero, lanes.div(one, scale), zero);
                    lanes.store(to, scale);
                    to = to.add(ROW);
                }
                let (mut signal, mut noise) = (zero, zero);
                for (row, first) in (0..inputs).step_by(form.inputs()).enumerate() {
                    let given = [weight(first), weight(first + 1), weight(first + 2), weight(first + 3)];
                    let mut kept = given;
                    let stored = match form {
                        Form::Whole => given[0],
                        Form::Halved => {
                            let halves = lanes.halves(given[0], given[1]);
                            (kept[0], kept[1]) = (lanes.first(halves), lanes.second(halves));
                            halves
                        }
                        Form::Quartered => {
                            let mut scaled = given;
                            for i in 0..4 {
                                scaled[i] = lanes.mul(given[i], inverse);
                            }
                            let quarters = lanes.quarters(scaled[0], scaled[1], scaled[2], scaled[3]);
                            for i in 0..4 {
                                kept[i] = lanes.mul(lanes.quarter(quarters, i), scale);
                            }
                            quarters
                        }
                    };
                    lanes.store(to.add(row * ROW), stored);
                    for i in 0..form.inputs() {
                        let error = lanes.sub(given[i], kept[i]);
                        signal = lanes.fma(given[i], given[i], signal);
                        noise = lanes.fma(error, error, noise);
                    }
                }
                rounding[0] += lanes.sum(signal).f64();
                rounding[1] += lanes.sum(noise).f64();
            }
        }
        rounding
    }
}

struct Unpack<'a, E> {
    form: Form,
    packed: &'a [E],
    out: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Unpack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { form, packed, out } = self;
        let number = |v: L::V| {
            let mut all = [E::ZERO; GROUP];
            // SAFETY: a vector is no longer than a group.
            unsafe { lanes.store(all.as_mut_ptr(), v) };
            all[0]
        };
        let skipped = form.rows(0) - 1;
        let rows = packed.iter().step_by(ROW).skip(skipped);
        for (out, &stored) in out.chunks_mut(form.inputs()).zip(rows) {
            let stored = lanes.splat(stored);
            for (i, out) in out.iter_mut().enumerate() {
                *out = match form {
                    Form::Whole => number(stored),
                    Form::Halved if i == 0 => number(lanes.first(stored)),
                    Form::Halved => number(lanes.second(stored)),
                    Form::Quartered => number(lanes.mul(lanes.quarter(stored, i), lanes.splat(packed[0]))),
                };
            }
        }
    }
}

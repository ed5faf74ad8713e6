//! Layers that are no recurrence: kernels that depend on the length, or that are cut off on both sides.
//! They are convolved with their kernels, by FFT, a whole sequence at a time.

use super::system::System;
use crate::discretize::{Disc, discretize_mode};
use crate::document::Diagonal;
use crate::error::Result;
use crate::kernels::fft::Fft;
use crate::kernels::{Aligned, Elem, GROUP, Isa, padded};
use crate::layers::lti::{kernels_of, kernels_of_modes};
use crate::shared::Shared;
use crate::threads::Team;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the kernels come from.
#[derive(Debug)]
pub enum Source {
    /// What a system answers to an impulse, for so many samples.
    System(System, usize),
    /// DSS as upstream's S4 has it: normalised by the length.
    Dss(Diagonal, f64),
}

/// The layer. Kernel v is output v's; outputs are in the order of the layer's own.
#[derive(Debug)]
pub struct Convolution<E> {
    forward: Source,
    /// Kernels for the samples that come after.
    backward: Option<Source>,
    head_major: bool,
    skip: Vec<f64>,
    precision: PhantomData<E>,
}

impl Source {
    fn shape(&self) -> (usize, usize) {
        match self {
            Source::System(s, _) => (s.outputs(), s.channels()),
            Source::Dss(d, _) => (d.ssm.outputs(), d.ssm.channels()),
        }
    }

    /// (M, H, length) in float64; shorter sequences than the cut have shorter kernels.
    ///
    /// # Errors
    /// As [`System::recurrence`].
    pub fn kernels(&self, isa: Isa, team: &Team, length: usize) -> Result<(usize, Vec<f64>)> {
        match self {
            Source::System(system, cut) => {
                let n = length.min(*cut);
                Ok((n, kernels_of(system, isa, team, n)?))
            }
            Source::Dss(node, rate) => Ok((length, dss_kernels(node, *rate, isa, team, length))),
        }
    }
}

/// K\[l\] = Re sum_n C B (e^{dt A} - 1) conj(x) / (|x|^2 + 1e-7) e^{dt A l}, x = A (e^{dt A L} - 1), where modes
/// with Re A > 0 are normalised at their last sample instead (Gupta et al. 2022, eq. 9).
fn dss_kernels(node: &Diagonal, rate: f64, isa: Isa, team: &Team, length: usize) -> Vec<f64> {
    const EPSILON: f64 = 1e-7;
    let (m, h, n) = (node.ssm.outputs(), node.ssm.channels(), node.ssm.modes());
    kernels_of_modes(isa, team, (m * h, n, length), |v, i| {
        let channel = v % h;
        let a = node.a.row(channel % node.systems())[i];
        let z = a * (node.ssm.step(channel, i) * rate);
        let x = a * ((z * length as f64).exp() - 1.0);
        let scale = node.ssm.c.data[v * n + i]
            * node.input(channel, i)
            * discretize_mode(Disc::Zoh, 0.5, z, 1.0).a_minus_one
            * (x.conj() / (x.norm_sqr() + EPSILON));
        (z.exp(), scale)
    })
}

impl<E: Elem> Convolution<E> {
    /// `skip(m, h)` is the direct path D.
    ///
    /// # Errors
    /// As [`System::recurrence`].
    pub fn new(
        forward: Source,
        backward: Option<Source>,
        head_major: bool,
        skip: impl Fn(usize, usize) -> f64,
    ) -> Result<Self> {
        for source in [Some(&forward), backward.as_ref()].into_iter().flatten() {
            source.kernels(Isa::Scalar, &Team::ALONE, 1)?;
        }
        let (m, h) = forward.shape();
        let skip = (0..m * h).map(|v| skip(v / h, v % h)).collect();
        Ok(Self { forward, backward, head_major, skip, precision: PhantomData })
    }

    /// Convolves `rows` samples of one stream: `x` rows of padded(H), `y` rows of padded(M H). Once `stop` is set, what is
    /// left stays as it is.
    pub fn run(&self, isa: Isa, team: &Team, stop: &AtomicBool, rows: usize, x: &[E], y: &mut [E]) {
        const CHECKED: &str = "checked when it was made";
        let (m, h) = self.forward.shape();
        let (from, to) = (padded(h), padded(m * h));
        let fft = Fft::new(rows);
        let (n, forward) = self.forward.kernels(isa, team, rows).expect(CHECKED);
        let backward = self.backward.as_ref().map(|b| b.kernels(isa, team, rows).expect(CHECKED));
        let out = Shared::new(y.as_mut_ptr());
        assert!(y.len() >= rows * to && x.len() >= rows * from);
        team.each((m * h).div_ceil(GROUP), |_, group| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let these = group * GROUP..(m * h).min((group + 1) * GROUP);
            let room = || Aligned::<f64>::zeros(fft.rows() * GROUP);
            let (mut lanes, mut work) = (room(), room());
            let mut convolve = |n: usize, kernels: &[f64], u: &dyn Fn(usize, usize) -> f64| -> Aligned<f64> {
                lanes.fill(0.0);
                for (lane, v) in these.clone().enumerate() {
                    for (t, &k) in kernels[v * n..][..n].iter().enumerate() {
                        lanes[t * GROUP + lane] = k;
                    }
                }
                let spectra = fft.spectra(isa, these.len(), &mut lanes, &mut work);
                let mut answers = room();
                for (lane, v) in these.clone().enumerate() {
                    for t in 0..rows {
                        answers[t * GROUP + lane] = u(t, v);
                    }
                }
                fft.convolve(isa, these.len(), &mut answers, &spectra, &mut work);
                answers
            };
            let column = |v: usize| if self.head_major { v % h * m + v / h } else { v };
            let u = |t: usize, v: usize| x[t * from + v % h].f64();
            let answers = convolve(n, &forward, &u);
            for (lane, v) in these.clone().enumerate() {
                for t in 0..rows {
                    let answer = E::of(answers[t * GROUP + lane] + self.skip[v] * u(t, v));
                    // SAFETY: `y` has `rows` rows of `to` elements, and no other item has this column.
                    unsafe { out.part(t * to + column(v), 1)[0] = answer };
                }
            }
            if let Some((n, backward)) = &backward {
                let answers = convolve(*n, backward, &|t, v| u(rows - 1 - t, v));
                for (lane, v) in these.clone().enumerate() {
                    for t in 0..rows - 1 {
                        // The answer to all samples after t.
                        let answer = E::of(answers[(rows - 2 - t) * GROUP + lane]);
                        // SAFETY: row t is one of `rows`, and no other item has this column.
                        unsafe { out.part(t * to + column(v), 1)[0] += answer };
                    }
                }
            }
        });
    }
}

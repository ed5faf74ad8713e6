//! Layers that are no recurrence: kernels that depend on the length, or that are cut off on both sides.
//! They are convolved with their kernels, by FFT, a whole sequence at a time.

use super::system::System;
use crate::conv::CausalConv;
use crate::discretize::{Disc, discretize_mode};
use crate::document::Diagonal;
use crate::error::Result;
use crate::kernels::{Elem, Isa, padded};
use crate::layers::lti::kernels_of;
use crate::shared::Shared;
use crate::threads::Team;
use num_complex::Complex64;
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
            Source::Dss(node, rate) => Ok((length, dss_kernels(node, *rate, length))),
        }
    }
}

/// K\[l\] = Re sum_n C B (e^{dt A} - 1) conj(x) / (|x|^2 + 1e-7) e^{dt A l}, x = A (e^{dt A L} - 1), where modes
/// with Re A > 0 are normalised at their last sample instead (Gupta et al. 2022, eq. 9).
fn dss_kernels(node: &Diagonal, rate: f64, length: usize) -> Vec<f64> {
    const EPSILON: f64 = 1e-7;
    let (m, h, n) = (node.ssm.outputs(), node.ssm.channels(), node.ssm.modes());
    let mut kernels = vec![0.0; m * h * length];
    for (v, kernel) in kernels.chunks_exact_mut(length).enumerate() {
        let channel = v % h;
        for i in 0..n {
            let a = node.a.row(channel % node.systems())[i];
            let z = a * (node.ssm.step(channel, i) * rate);
            let x = a * ((z * length as f64).exp() - 1.0);
            let scale = node.ssm.c.data[v * n + i]
                * node.input(channel, i)
                * discretize_mode(Disc::Zoh, 0.5, z, 1.0).a_minus_one
                * (x.conj() / (x.norm_sqr() + EPSILON));
            for (l, k) in kernel.iter_mut().enumerate() {
                let power: Complex64 = (z * l as f64).exp();
                *k += (scale * power).re;
            }
        }
    }
    kernels
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
        let conv = CausalConv::new(rows);
        let (n, forward) = self.forward.kernels(isa, team, rows).expect(CHECKED);
        let backward = self.backward.as_ref().map(|b| b.kernels(isa, team, rows).expect(CHECKED));
        let out = Shared::new(y.as_mut_ptr());
        assert!(y.len() >= rows * to && x.len() >= rows * from);
        team.each(m * h, |_, v| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let (output, channel) = (v / h, v % h);
            let column = if self.head_major { channel * m + output } else { v };
            let mut scratch = conv.scratch();
            let kernel = conv.spectrum(forward[v * n..][..n].iter().copied(), &mut scratch);
            let u = |t: usize| x[t * from + channel].f64();
            let answers = conv.run((0..rows).map(u), &kernel, &mut scratch);
            for (t, &answer) in answers.iter().enumerate().take(rows) {
                // SAFETY: `y` has `rows` rows of `to` elements, and no other item has this column.
                unsafe { out.part(t * to + column, 1)[0] = E::of(answer + self.skip[v] * u(t)) };
            }
            if let Some((n, backward)) = &backward {
                let kernel = conv.spectrum(backward[v * n..][..*n].iter().copied(), &mut scratch);
                let answers = conv.run((0..rows).rev().map(u), &kernel, &mut scratch);
                for t in 0..rows.saturating_sub(1) {
                    // The answer to all samples after t.
                    // SAFETY: row t is one of `rows`, and no other item has this column.
                    unsafe { out.part(t * to + column, 1)[0] += E::of(answers[rows - 2 - t]) };
                }
            }
        });
    }
}

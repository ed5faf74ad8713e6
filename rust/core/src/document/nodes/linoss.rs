use num_complex::Complex64;

use super::super::Node;
use super::super::array::{Array, ComplexArray};
use super::super::fields::{Choice, Complex, Flag, Optional, Positive, Real};
use super::super::node::{Layer, Memory, node};
use super::super::systems::{Discrete, Eigenvalue, Systems};
use super::state_space::check_direct;
use crate::discretize::{OscillatorBar, Scheme, discretize_oscillator};
use crate::error::Result;
use crate::threads::Team;

node! {
    /// LinOSS (Rusch & Rus 2025): P oscillators x'' = -A x - G x' + B u, all inputs to all outputs.
    ///
    /// y = Re(C x) + D u.
    "linoss" Linoss {
        /// (P,), never negative
        a: Array = "A" Real("P");
        /// (P, d_in)
        b: ComplexArray = "B" Complex("P d_in");
        /// (d_out, P)
        c: ComplexArray = "C" Complex("d_out P");
        /// (d_out,), where d_out == d_in
        d: Option<Array> = "D" Optional(Real("d_out"));
        /// (P,), positive
        dt: Array = "dt" Positive(&["P"]);
        /// (P,), never negative; `None` is no damping, as [`Scheme::Im`] wants it.
        g: Option<Array> = "G" Optional(Real("P"));
        /// How the oscillators are stepped.
        disc: Scheme = "disc" Choice(Some(Scheme::Imex));
        /// Whether eigenvalues outside the unit circle are let through.
        allow_unstable: bool = "allow_unstable" Flag(false);
    }
}

impl Linoss {
    /// P
    pub fn oscillators(&self) -> usize {
        self.a.data.len()
    }

    /// d_in
    pub fn d_input(&self) -> usize {
        self.b.shape[1]
    }

    /// d_out
    pub fn d_output(&self) -> usize {
        self.c.shape[0]
    }

    /// The oscillators at `rate`.
    pub fn bars(&self, rate: f64) -> Vec<OscillatorBar> {
        let g = |n| self.g.as_ref().map_or(0.0, |g| g.data[n]);
        let bar = |n| discretize_oscillator(self.disc, self.a.data[n], g(n), self.dt.data[n] * rate);
        (0..self.oscillators()).map(bar).collect()
    }

    /// What drives the positions, (P, d_in), at `rate`.
    pub fn input(&self, rate: f64) -> Vec<Complex64> {
        let rows = self.bars(rate).into_iter().enumerate().map(|(n, bar)| (self.b.row(n), bar.gain));
        rows.flat_map(|(row, gain)| row.iter().map(move |b| b * gain)).collect()
    }
}

impl Layer for Linoss {
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, array) in [("A", Some(&self.a)), ("G", self.g.as_ref())] {
            let data = array.map_or(&[][..], |array| &array.data);
            if let Some(i) = data.iter().position(|&x| x < 0.0) {
                return Err((key, format!("expected no negative number, found {} at flat index {i}", data[i])));
            }
        }
        if self.disc == Scheme::Im && self.g.is_some() {
            return Err(("G", "expected null, for disc \"im\" has no damping, found an array".into()));
        }
        check_direct(self.d.as_ref(), self.d_input(), self.d_output())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        Some(self.d_input())
    }

    fn d_out(&self, _: usize, _: &str) -> Result<usize> {
        Ok(self.c.shape[0])
    }

    fn memory(&self) -> Memory<'_> {
        Memory::Systems(self)
    }
}

impl Systems for Linoss {
    fn place(&self) -> &'static str {
        "oscillator"
    }

    fn allows_unstable(&self) -> bool {
        self.allow_unstable
    }

    fn always_stable(&self) -> bool {
        self.disc == Scheme::Im
    }

    fn has_step_size(&self) -> bool {
        true
    }

    fn bidirectional(&self) -> bool {
        false
    }

    fn cut(&self, _: f64) -> Result<Option<usize>> {
        Ok(None)
    }

    /// None aliases: neither scheme turns past half a circle a sample before it is unstable.
    fn aliased(&self, _: f64) -> (usize, usize) {
        let driven = |n| self.b.row(n).iter().any(|b| *b != Complex64::ZERO);
        let read = |n| (0..self.d_output()).any(|o| self.c.row(o)[n] != Complex64::ZERO);
        (0, 2 * (0..self.oscillators()).filter(|&n| driven(n) && read(n)).count())
    }

    fn prepare(&self, _: &Team) -> Result<()> {
        Ok(())
    }

    fn eigenvalues(&self, rate: f64) -> Result<Vec<Eigenvalue>> {
        let pairs = self.bars(rate).into_iter().enumerate();
        Ok(pairs.flat_map(|(n, bar)| bar.eigenvalues().map(|value| Eigenvalue { place: n, value })).collect())
    }

    fn discrete(&self, rate: f64) -> Result<Discrete> {
        let bars = self.bars(rate);
        let each = |of: fn(&OscillatorBar) -> f64| Array::new(&self.a.shape, bars.iter().map(of).collect());
        Ok(Discrete::Oscillators {
            sign: each(OscillatorBar::sign),
            drag: each(|bar| bar.drag),
            spring: each(OscillatorBar::spring),
            b: Array::new(&self.b.shape, self.input(rate)),
            c: self.c.clone(),
            d: self.d.clone(),
        })
    }
}

use num_complex::Complex64;

use super::super::Node;
use super::super::array::{Array, ComplexArray};
use super::super::fields::{Choice, Complex, Flag, Number, Optional, Positive, Real};
use super::super::node::{Layer, Memory, node};
use super::super::systems::{Discrete, Eigenvalue, Systems};
use super::diagonal::aliased;
use super::state_space::{check_direct, check_steps};
use crate::discretize::{Disc, ModeBar, discretize_mode};
use crate::error::Result;
use crate::threads::Team;

node! {
    /// S5 (Smith et al. 2023), LRU (Orvieto et al. 2023): one diagonal system, all inputs to all outputs.
    ///
    /// y = (2 if `conjugate_pairs` else 1) Re(C x + C_reverse z) + D u, where z runs backwards from the end:
    /// z\[t\] = Abar z\[t+1\] + Bbar u\[t\].
    "diagonal_mimo" DiagonalMimo {
        /// (N,)
        a: ComplexArray = "A" Complex("N");
        /// (N, d_in)
        b: ComplexArray = "B" Complex("N d_in");
        /// (d_out, N)
        c: ComplexArray = "C" Complex("d_out N");
        /// (d_out,), where d_out == d_in
        d: Option<Array> = "D" Optional(Real("d_out"));
        /// (N,), positive; `None` where the disc is discrete.
        dt: Option<Array> = "dt" Optional(Positive(&["N"]));
        /// Any but [`Disc::Dss`].
        disc: Disc = "disc" Choice(Some(Disc::Zoh));
        /// In \[0, 1\], for [`Disc::Gbt`].
        alpha: f64 = "alpha" Number { default: 0.5, least: 0.0, most: 1.0 };
        /// Whether each stored mode stands for itself and its conjugate.
        conjugate_pairs: bool = "conjugate_pairs" Flag(true);
        /// (d_out, N)
        c_reverse: Option<ComplexArray> = "C_reverse" Optional(Complex("d_out N"));
        /// Whether the backward pass starts at the end of the padding.
        reverse_over_padding: bool = "reverse_over_padding" Flag(false);
        /// Whether eigenvalues outside the unit circle are let through.
        allow_unstable: bool = "allow_unstable" Flag(false);
        /// (N,), x before a stream's first sample; `None`: zero.
        x0: Option<ComplexArray> = "x0" Optional(Complex("N"));
    }
}

impl DiagonalMimo {
    /// N
    pub fn modes(&self) -> usize {
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

    /// Mode `n` at `rate`.
    pub fn mode(&self, n: usize, rate: f64) -> ModeBar {
        let step = self.dt.as_ref().map_or(1.0, |dt| dt.data[n]);
        discretize_mode(self.disc, self.alpha, self.a.data[n], step * rate)
    }

    /// What C is multiplied with, so that the real part of the sum over the stored modes is the answer.
    pub fn factor(&self) -> f64 {
        if self.conjugate_pairs { 2.0 } else { 1.0 }
    }

    /// Bbar (N, d_in) at `rate`.
    pub fn input(&self, rate: f64) -> Vec<Complex64> {
        let rows = (0..self.modes()).map(|n| (self.b.row(n), self.mode(n, rate).f));
        rows.flat_map(|(row, f)| row.iter().map(move |b| b * f)).collect()
    }
}

impl Layer for DiagonalMimo {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.disc == Disc::Dss {
            return Err(("disc", "expected one that is a recurrence, found \"dss\"".into()));
        }
        check_steps(self.disc, self.dt.as_ref())?;
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

impl Systems for DiagonalMimo {
    fn place(&self) -> &'static str {
        "mode"
    }

    fn allows_unstable(&self) -> bool {
        self.allow_unstable
    }

    fn always_stable(&self) -> bool {
        self.disc == Disc::Zoh && self.a.data.iter().all(|lambda| lambda.re <= 0.0)
    }

    fn has_step_size(&self) -> bool {
        self.disc != Disc::Discrete
    }

    fn bidirectional(&self) -> bool {
        self.c_reverse.is_some()
    }

    fn cut(&self, _: f64) -> Result<Option<usize>> {
        Ok(None)
    }

    fn aliased(&self, rate: f64) -> (usize, usize) {
        let column = |c: &ComplexArray, n: usize| (0..c.shape[0]).any(|o| c.row(o)[n] != Complex64::ZERO);
        let read = |n| column(&self.c, n) || self.c_reverse.as_ref().is_some_and(|c| column(c, n));
        let reaches = |&n: &usize| self.b.row(n).iter().any(|b| *b != Complex64::ZERO) && read(n);
        let step = |n: usize| self.dt.as_ref().map_or(1.0, |dt| dt.data[n]);
        aliased(self.disc, rate, (0..self.modes()).filter(reaches).map(|n| self.a.data[n].im * step(n)))
    }

    fn prepare(&self, _: &Team) -> Result<()> {
        Ok(())
    }

    fn eigenvalues(&self, rate: f64) -> Result<Vec<Eigenvalue>> {
        Ok((0..self.modes()).map(|n| Eigenvalue { place: n, value: self.mode(n, rate).a }).collect())
    }

    fn discrete(&self, rate: f64) -> Result<Discrete> {
        let n = self.modes();
        Ok(Discrete::Mimo {
            a_minus_one: Array::new(&[n], (0..n).map(|n| self.mode(n, rate).a_minus_one).collect()),
            b: Array::new(&[n, self.d_input()], self.input(rate)),
            c: Array::new(&self.c.shape, self.c.data.iter().map(|c| self.factor() * c).collect()),
            d: self.d.clone(),
        })
    }
}

use num_complex::Complex64;

use super::super::Node;
use super::super::array::{Array, ComplexArray};
use super::super::fields::{Complex, Flag, Optional};
use super::super::node::{Layer, Memory, node};
use super::super::systems::{Discrete, Eigenvalue, Systems};
use super::state_space::{Cache, Siso, StateSpace, check_steps};
use crate::discretize::{Disc, DplrBar, RealSchur, discretize_dplr, discretize_mode};
use crate::error::Result;
use crate::threads::Team;

node! {
    /// S4 (Gu et al. 2021): A_full = diag(A) - sum_r P_r Q_r^H, always bilinear.
    ///
    /// With `conjugate_pairs` the full system has modes \[A, conj A\], vectors \[P, conj P\], ... and
    /// y = 2 Re(C x) + D u over the stored half; else y = Re(C x) + D u.
    "dplr" Dplr {
        /// What it shares with the other kinds.
        ssm: StateSpace = "" Siso(Complex("M H N"));
        /// (S, N)
        a: ComplexArray = "A" Complex("S N");
        /// (R, S, N)
        p: ComplexArray = "P" Complex("R S N");
        /// (S, N)
        b: ComplexArray = "B" Complex("S N");
        /// (R, S, N); `None` means P.
        q: Option<ComplexArray> = "Q" Optional(Complex("R S N"));
        /// Whether each stored mode stands for itself and its conjugate.
        conjugate_pairs: bool = "conjugate_pairs" Flag(true);
    }
    derived {
        /// The eigenvalues of each system's A_full.
        spectra: Cache<Vec<Vec<Complex64>>>;
    }
}

impl Dplr {
    /// S
    pub fn systems(&self) -> usize {
        self.a.shape[0]
    }

    /// R
    pub fn rank(&self) -> usize {
        self.p.shape[0]
    }

    /// P of system `s`: R rows of N.
    pub fn p_of(&self, s: usize) -> Vec<&[Complex64]> {
        self.rows_of(&self.p, s)
    }

    /// Q of system `s`, which is P where there is none: R rows of N.
    pub fn q_of(&self, s: usize) -> Vec<&[Complex64]> {
        self.rows_of(self.q.as_ref().unwrap_or(&self.p), s)
    }

    fn rows_of<'a>(&self, array: &'a ComplexArray, s: usize) -> Vec<&'a [Complex64]> {
        (0..self.rank()).map(|r| array.row(r * self.systems() + s)).collect()
    }

    /// Channel `h` at `rate`.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) where the transform has a pole.
    pub fn bar(&self, h: usize, rate: f64) -> Result<DplrBar> {
        let s = h % self.systems();
        let step = self.ssm.step(h, 0) * rate;
        discretize_dplr(self.a.row(s), &self.p_of(s), &self.q_of(s), self.b.row(s), step, self.conjugate_pairs)
    }

    /// What C is multiplied with, so that the real part of the sum over the stored modes is the answer.
    pub fn factor(&self) -> f64 {
        if self.conjugate_pairs { 2.0 } else { 1.0 }
    }

    /// System `s` as a real matrix (2N, 2N) that acts on (Re x, Im x).
    ///
    /// With conjugate pairs it has the eigenvalues of the full system, else those of the system and their conjugates.
    fn real_form(&self, s: usize) -> Vec<f64> {
        let n = self.ssm.modes();
        let (lambda, p, q) = (self.a.row(s), self.p_of(s), self.q_of(s));
        let mut out = vec![0.0; 4 * n * n];
        let mut add = |i: usize, j: usize, [[rr, ri], [ir, ii]]: [[f64; 2]; 2]| {
            out[i * 2 * n + j] += rr;
            out[i * 2 * n + n + j] += ri;
            out[(n + i) * 2 * n + j] += ir;
            out[(n + i) * 2 * n + n + j] += ii;
        };
        for i in 0..n {
            add(i, i, [[lambda[i].re, -lambda[i].im], [lambda[i].im, lambda[i].re]]);
            for (p, q) in p.iter().zip(&q) {
                for j in 0..n {
                    let (p, q) = (-p[i], q[j]);
                    add(
                        i,
                        j,
                        if self.conjugate_pairs {
                            // p (q^H x + its conjugate) = 2 p Re(q^H x)
                            [[2.0 * p.re * q.re, 2.0 * p.re * q.im], [2.0 * p.im * q.re, 2.0 * p.im * q.im]]
                        } else {
                            let pq = p * q.conj();
                            [[pq.re, -pq.im], [pq.im, pq.re]]
                        },
                    );
                }
            }
        }
        out
    }
}

impl Layer for Dplr {
    fn check(&self) -> Result<(), (&'static str, String)> {
        self.ssm.check(self.systems())?;
        check_steps(Disc::Bilinear, self.ssm.dt.as_ref())?;
        self.ssm.check_step_a_channel()
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        Some(self.ssm.channels())
    }

    fn d_out(&self, d_in: usize, _: &str) -> Result<usize> {
        Ok(self.ssm.outputs() * d_in)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::Systems(self)
    }
}

impl Systems for Dplr {
    fn place(&self) -> &'static str {
        "channel"
    }

    fn allows_unstable(&self) -> bool {
        self.ssm.allow_unstable
    }

    /// Where Re(Lambda) <= 0 and Q is P, A + A^H = 2 Re(Lambda) - 2 P P^H is negative semidefinite, so that no
    /// eigenvalue of A has a positive real part, and the bilinear transform maps them all into the unit circle.
    fn always_stable(&self) -> bool {
        self.q.is_none() && self.a.data.iter().all(|lambda| lambda.re <= 0.0)
    }

    fn has_step_size(&self) -> bool {
        true
    }

    fn bidirectional(&self) -> bool {
        self.ssm.c_reverse.is_some()
    }

    fn cut(&self, rate: f64) -> Result<Option<usize>> {
        self.ssm.cut(rate)
    }

    fn aliased(&self, _: f64) -> (usize, usize) {
        // The bilinear transform bends the frequencies, however high, into half a circle.
        (0, self.ssm.channels() * self.ssm.modes())
    }

    fn prepare(&self, _: &Team) -> Result<()> {
        Ok(())
    }

    fn eigenvalues(&self, rate: f64) -> Result<Vec<Eigenvalue>> {
        let spectra = self.spectra.get(|| {
            let n = 2 * self.ssm.modes();
            (0..self.systems()).map(|s| Ok(RealSchur::new(&self.real_form(s), n)?.eigenvalues())).collect()
        })?;
        let of = |h: usize| {
            let step = self.ssm.step(h, 0) * rate;
            spectra[h % self.systems()].iter().map(move |&lambda| Eigenvalue {
                place: h,
                value: discretize_mode(Disc::Bilinear, 0.5, lambda, step).a,
            })
        };
        Ok((0..self.ssm.channels()).flat_map(of).collect())
    }

    fn discrete(&self, rate: f64) -> Result<Discrete> {
        let (h, n) = (self.ssm.channels(), self.ssm.modes());
        let bars = (0..h).map(|h| self.bar(h, rate)).collect::<Result<Vec<_>>>()?;
        let products = bars.first().map_or(0, |bar| bar.w.len());
        let each = |of: &dyn Fn(&DplrBar) -> &Vec<Complex64>| bars.iter().flat_map(|bar| of(bar).clone()).collect();
        let couplings = |of: &dyn Fn(&DplrBar) -> &Vec<Vec<Complex64>>| {
            let rows = (0..products).flat_map(|k| bars.iter().flat_map(move |bar| of(bar)[k].clone()));
            Array::new(&[products, h, n], rows.collect())
        };
        Ok(Discrete::Modes {
            a_minus_one: Array::new(&[h, n], each(&|bar| &bar.a_minus_one)),
            b: Array::new(&[h, n], each(&|bar| &bar.b)),
            c: Array::new(&self.ssm.c.shape, self.ssm.c.data.iter().map(|c| self.factor() * c).collect()),
            w: couplings(&|bar| &bar.w),
            v: couplings(&|bar| &bar.v),
            d: self.ssm.d.clone(),
        })
    }
}

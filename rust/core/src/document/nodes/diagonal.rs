use num_complex::Complex64;

use super::super::Node;
use super::super::array::{Array, ComplexArray};
use super::super::fields::{Choice, Complex, Flag, Number};
use super::super::node::{Layer, Memory, node};
use super::super::systems::{Discrete, Eigenvalue, Systems};
use super::state_space::{Siso, StateSpace, check_steps};
use crate::discretize::{Disc, ModeBar, discretize_mode};
use crate::error::{Error, Result};
use crate::threads::Team;

node! {
    /// S4D (Gu et al. 2022), DSS (Gupta et al. 2022): A diagonal.
    ///
    /// y = 2 Re(C x) + D u with `conjugate_pairs`, else Re(C x) + D u. With [`Disc::Dss`] K\[l\] = Re sum_n C B
    /// (e^{dt A}-1) conj(x)/(|x|^2+1e-7) e^{dt A l}, x = A (e^{dt A L}-1), whatever `conjugate_pairs` says.
    "diagonal" Diagonal {
        /// What it shares with the other kinds.
        ssm: StateSpace = "" Siso(Complex("M H N"));
        /// (S, N)
        a: ComplexArray = "A" Complex("S N");
        /// (S, N)
        b: ComplexArray = "B" Complex("S N");
        /// How it is discretised.
        disc: Disc = "disc" Choice(Some(Disc::Zoh));
        /// In \[0, 1\], for [`Disc::Gbt`].
        alpha: f64 = "alpha" Number { default: 0.5, least: 0.0, most: 1.0 };
        /// Whether each stored mode stands for itself and its conjugate.
        conjugate_pairs: bool = "conjugate_pairs" Flag(true);
    }
}

impl Diagonal {
    /// S
    pub fn systems(&self) -> usize {
        self.a.shape[0]
    }

    /// Mode `n` of channel `h` at `rate`.
    pub fn mode(&self, h: usize, n: usize, rate: f64) -> ModeBar {
        let lambda = self.a.row(h % self.systems())[n];
        discretize_mode(self.disc, self.alpha, lambda, self.ssm.step(h, n) * rate)
    }

    /// B of mode `n` of channel `h`.
    pub fn input(&self, h: usize, n: usize) -> Complex64 {
        self.b.row(h % self.systems())[n]
    }

    /// What C is multiplied with, so that the real part of the sum over the stored modes is the answer.
    pub fn factor(&self) -> f64 {
        if self.conjugate_pairs { 2.0 } else { 1.0 }
    }

    /// The same read by C_reverse.
    pub fn reversed(&self) -> Diagonal {
        let mut reversed = self.clone();
        if let Some(c) = reversed.ssm.c_reverse.take() {
            reversed.ssm.c = c;
        }
        reversed
    }

    /// All (channel, mode).
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let n = self.ssm.modes();
        (0..self.ssm.channels() * n).map(move |i| (i / n, i % n))
    }
}

impl Layer for Diagonal {
    fn check(&self) -> Result<(), (&'static str, String)> {
        self.ssm.check(self.systems())?;
        check_steps(self.disc, self.ssm.dt.as_ref())
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

impl Systems for Diagonal {
    fn place(&self) -> &'static str {
        "channel"
    }

    fn allows_unstable(&self) -> bool {
        // DSS's kernel is normalised by its length.
        self.ssm.allow_unstable || self.disc == Disc::Dss
    }

    fn always_stable(&self) -> bool {
        self.disc == Disc::Zoh && self.a.data.iter().all(|lambda| lambda.re <= 0.0)
    }

    fn has_step_size(&self) -> bool {
        self.disc != Disc::Discrete
    }

    fn bidirectional(&self) -> bool {
        self.ssm.c_reverse.is_some()
    }

    fn cut(&self, rate: f64) -> Result<Option<usize>> {
        self.ssm.cut(rate)
    }

    fn aliased(&self, rate: f64) -> (usize, usize) {
        let read = |h: usize, n: usize, reverse: bool| {
            (0..self.ssm.outputs()).any(|m| self.ssm.reader(m, h, reverse)[n] != Complex64::ZERO)
        };
        let reaches =
            |h: usize, n: usize| self.input(h, n) != Complex64::ZERO && (read(h, n, false) || read(h, n, true));
        let turn = |h: usize, n: usize| self.a.row(h % self.systems())[n].im * self.ssm.step(h, n);
        aliased(self.disc, rate, self.places().filter(|&(h, n)| reaches(h, n)).map(|(h, n)| turn(h, n)))
    }

    fn prepare(&self, _: &Team) -> Result<()> {
        Ok(())
    }

    fn eigenvalues(&self, rate: f64) -> Result<Vec<Eigenvalue>> {
        Ok(self.places().map(|(h, n)| Eigenvalue { place: h, value: self.mode(h, n, rate).a }).collect())
    }

    fn discrete(&self, rate: f64) -> Result<Discrete> {
        if self.disc == Disc::Dss {
            return Err(Error::Unsupported("its kernel depends on the whole sequence, and is no recurrence".into()));
        }
        let (h, n) = (self.ssm.channels(), self.ssm.modes());
        let modes: Vec<_> = self.places().map(|(h, n)| self.mode(h, n, rate)).collect();
        let b = self.places().zip(&modes).map(|((h, n), mode)| self.input(h, n) * mode.f);
        let none = Array { shape: vec![0, h, n], ..Array::new(&[0], Vec::new()) };
        Ok(Discrete::Modes {
            a_minus_one: Array::new(&[h, n], modes.iter().map(|mode| mode.a_minus_one).collect()),
            b: Array::new(&[h, n], b.collect()),
            c: Array::new(&self.ssm.c.shape, self.ssm.c.data.iter().map(|c| self.factor() * c).collect()),
            w: none.clone(),
            v: none,
            d: self.ssm.d.clone(),
        })
    }
}

/// How many of some modes turn past half a circle a sample at `rate` and not at rate 1, and how many there are. Only
/// the exponential of zero-order hold turns by as much as the continuous mode does.
pub(super) fn aliased(disc: Disc, rate: f64, turns: impl Iterator<Item = f64>) -> (usize, usize) {
    let half = std::f64::consts::PI;
    turns.fold((0, 0), |(over, all), turn| {
        let aliases = disc == Disc::Zoh && turn.abs() < half && turn.abs() * rate >= half;
        (over + usize::from(aliases), all + 1)
    })
}

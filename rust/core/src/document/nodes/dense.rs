use num_complex::Complex64;

use super::super::Node;
use super::super::array::Array;
use super::super::fields::{Choice, Number, Optional, Real};
use super::super::node::{Layer, Memory, node};
use super::super::systems::{Discrete, Eigenvalue, Systems};
use super::diagonal::aliased;
use super::state_space::{Cache, Siso, StateSpace, check_steps};
use crate::discretize::{Disc, RealSchur, discretize_matrix, discretize_mode};
use crate::error::{Error, Result};
use crate::threads::Team;

node! {
    /// LSSL (Gu et al. 2021b): a full real matrix.
    "dense" Dense {
        /// What it shares with the other kinds.
        ssm: StateSpace<f64> = "" Siso(Real("M H N"));
        /// (S, N, N)
        a: Array = "A" Real("S N N");
        /// (S, N)
        b: Array = "B" Real("S N");
        /// How it is discretised: any but [`Disc::Dss`].
        disc: Disc = "disc" Choice(Some(Disc::Gbt));
        /// In \[0, 1\], for [`Disc::Gbt`].
        alpha: f64 = "alpha" Number { default: 0.5, least: 0.0, most: 1.0 };
        /// (H, N), x before a stream's first sample, where the kernel is not cut off; `None`: zero.
        x0: Option<Array> = "x0" Optional(Real("H N"));
    }
    derived {
        /// Each system's A in its real Schur form, which serves every step size.
        schur: Cache<Vec<RealSchur>>;
    }
}

impl Dense {
    /// S
    pub fn systems(&self) -> usize {
        self.a.shape[0]
    }

    /// A of system `s`, (N, N) row-major.
    pub fn a_of(&self, s: usize) -> &[f64] {
        let size = self.a.data.len() / self.systems();
        &self.a.data[s * size..(s + 1) * size]
    }

    /// The Schur forms of all systems, computed at the first call.
    fn forms(&self, team: &Team) -> Result<&[RealSchur]> {
        let n = self.ssm.modes();
        let make = || team.map(self.systems(), |s| RealSchur::new(self.a_of(s), n)).into_iter().collect();
        self.schur.get(make).map(Vec::as_slice)
    }

    /// The Schur form of the system of channel `h`.
    ///
    /// # Errors
    /// [`Error::Value`] where it has none.
    pub fn schur(&self, h: usize) -> Result<&RealSchur> {
        Ok(&self.forms(&Team::ALONE)?[h % self.systems()])
    }

    /// (Abar (N, N), Bbar (N,)) of channel `h` at `rate`, in the Schur basis.
    ///
    /// # Errors
    /// As [`Dense::schur`], and where the transform has a pole.
    pub fn bar(&self, h: usize, rate: f64) -> Result<(Vec<f64>, Vec<f64>)> {
        let schur = self.schur(h)?;
        let (step, b) = (self.ssm.step(h, 0) * rate, schur.rotate(self.b.row(h % self.systems())));
        match self.disc.alpha(self.alpha) {
            Some(alpha) => {
                let near = |l: &Complex64| (1.0 - alpha * step * l).norm() < 1e-12;
                if let Some(pole) = schur.eigenvalues().iter().find(|l| near(l)) {
                    return Err(Error::Value(format!(
                        "channel {h}: the eigenvalue {pole} times the step size {step} is a pole of the transform"
                    )));
                }
                Ok(schur.gbt(alpha, step, &b))
            }
            // A function of a triangular matrix is triangular in the same basis.
            None => discretize_matrix(self.disc, self.alpha, &schur.t, &b, self.ssm.modes(), step),
        }
    }

    /// What reads the states of channel `h` for output `m`, in the Schur basis.
    ///
    /// # Errors
    /// As [`Dense::schur`].
    pub fn reader(&self, m: usize, h: usize, reverse: bool) -> Result<Vec<f64>> {
        Ok(self.schur(h)?.rotate(self.ssm.reader(m, h, reverse)))
    }

    /// x of channel `h` before a stream's first sample, in the Schur basis; `None` where all channels' are zero.
    ///
    /// # Errors
    /// As [`Dense::schur`].
    pub fn start(&self, h: usize) -> Result<Option<Vec<f64>>> {
        self.x0.as_ref().map(|x0| Ok(self.schur(h)?.rotate(x0.row(h)))).transpose()
    }
}

impl Layer for Dense {
    fn check(&self) -> Result<(), (&'static str, String)> {
        self.ssm.check(self.systems())?;
        if self.disc == Disc::Dss {
            return Err(("disc", "expected one of a full matrix, found \"dss\"".into()));
        }
        if self.x0.is_some() && self.ssm.kernel_length.is_some() {
            return Err(("x0", "expected null, for a kernel that is cut off forgets its start, found an array".into()));
        }
        check_steps(self.disc, self.ssm.dt.as_ref())?;
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

impl Systems for Dense {
    fn place(&self) -> &'static str {
        "channel"
    }

    fn allows_unstable(&self) -> bool {
        self.ssm.allow_unstable
    }

    fn always_stable(&self) -> bool {
        false
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
        let turns = |h: usize| {
            let step = self.ssm.step(h, 0);
            let values = self.schur(h).map(RealSchur::eigenvalues).unwrap_or_default();
            values.into_iter().map(move |lambda| lambda.im * step)
        };
        aliased(self.disc, rate, (0..self.ssm.channels()).flat_map(turns))
    }

    fn prepare(&self, team: &Team) -> Result<()> {
        self.forms(team).map(|_| ())
    }

    fn eigenvalues(&self, rate: f64) -> Result<Vec<Eigenvalue>> {
        let mut all = Vec::new();
        let spectra: Vec<_> = self.forms(&Team::ALONE)?.iter().map(RealSchur::eigenvalues).collect();
        for h in 0..self.ssm.channels() {
            let step = self.ssm.step(h, 0) * rate;
            let bar = |&lambda| discretize_mode(self.disc, self.alpha, lambda, step).a;
            all.extend(spectra[h % self.systems()].iter().map(bar).map(|value| Eigenvalue { place: h, value }));
        }
        Ok(all)
    }

    fn discrete(&self, rate: f64) -> Result<Discrete> {
        let (m, h, n) = (self.ssm.outputs(), self.ssm.channels(), self.ssm.modes());
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for h in 0..h {
            let (abar, bbar) = self.bar(h, rate)?;
            a.extend(abar.into_iter().enumerate().map(|(i, a)| a - f64::from(u8::from(i / n == i % n))));
            b.extend(bbar);
        }
        for v in 0..m * h {
            c.extend(self.reader(v / h, v % h, false)?);
        }
        let x0: Option<Vec<_>> = (0..h).map(|h| self.start(h)).collect::<Result<Vec<_>>>()?.into_iter().collect();
        Ok(Discrete::Matrices {
            a_minus_one: Array::new(&[h, n, n], a),
            b: Array::new(&[h, n], b),
            c: Array::new(&[m, h, n], c),
            d: self.ssm.d.clone(),
            x0: x0.map(|rows| Array::new(&[h, n], rows.concat())),
        })
    }
}

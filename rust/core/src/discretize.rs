//! From continuous to discrete time, in float64: x' = A x + B u becomes x\[t\] = Abar x\[t-1\] + Bbar u\[t\].

use crate::error::{Error, Result};
use crate::names::Named;
use nalgebra::{DMatrix, DVector, Schur};
use num_complex::Complex64;

named! {
    /// How a state-space system is discretised.
    pub enum Disc {
        /// Zero-order hold: the input is constant between samples. Abar = e^{dt A}, Bbar = (Abar - I) A^-1 B.
        Zoh = "zoh",
        /// [`Disc::Gbt`] with alpha = 1/2 (Tustin).
        Bilinear = "bilinear",
        /// [`Disc::Gbt`] with alpha = 0: Abar = I + dt A.
        Euler = "euler",
        /// [`Disc::Gbt`] with alpha = 1: Abar = (I - dt A)^-1.
        BackwardEuler = "backward_euler",
        /// The generalised bilinear transform (Gu et al. 2021b, eq. 3):
        /// Abar = (I - alpha dt A)^-1 (I + (1 - alpha) dt A), Bbar = (I - alpha dt A)^-1 dt B.
        Gbt = "gbt",
        /// A and B are the discrete ones as they stand.
        Discrete = "discrete",
        /// DSS's kernel (Gupta et al. 2022), which is no recurrence; what it shares with one is that of [`Disc::Zoh`].
        Dss = "dss",
    }
}

impl Disc {
    /// The one of that name, of those that are a transform of A and B.
    ///
    /// # Errors
    /// [`Error::Value`] where there is none.
    pub fn transform(name: &str) -> Result<Disc> {
        Disc::named(name).filter(|disc| !matches!(disc, Disc::Discrete | Disc::Dss)).ok_or_else(|| {
            Error::Value(format!("method: expected zoh, bilinear, euler, backward_euler or gbt, found {name:?}"))
        })
    }

    /// The alpha of those that are generalised bilinear transforms; `alpha` is [`Disc::Gbt`]'s.
    pub fn alpha(self, alpha: f64) -> Option<f64> {
        match self {
            Disc::Bilinear => Some(0.5),
            Disc::Euler => Some(0.0),
            Disc::BackwardEuler => Some(1.0),
            Disc::Gbt => Some(alpha),
            Disc::Zoh | Disc::Dss | Disc::Discrete => None,
        }
    }
}

const ONE: Complex64 = Complex64::new(1.0, 0.0);

/// One mode after discretisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeBar {
    /// Abar
    pub a: Complex64,
    /// Abar - 1, with the relative accuracy that the difference would lose near Abar = 1.
    pub a_minus_one: Complex64,
    /// Bbar = f B
    pub f: Complex64,
}

/// The mode with eigenvalue `lambda`.
///
/// Not finite where a generalised bilinear transform has its pole, alpha dt lambda = 1.
pub fn discretize_mode(disc: Disc, alpha: f64, lambda: Complex64, dt: f64) -> ModeBar {
    match disc.alpha(alpha) {
        Some(alpha) => {
            let pole = ONE - alpha * dt * lambda;
            ModeBar {
                a: (ONE + (1.0 - alpha) * dt * lambda).fdiv(pole),
                a_minus_one: (dt * lambda).fdiv(pole),
                f: Complex64::from(dt).fdiv(pole),
            }
        }
        None if disc == Disc::Discrete => ModeBar { a: lambda, a_minus_one: lambda - ONE, f: ONE },
        None => {
            let z = dt * lambda;
            let (a, a_minus_one) = exp_and_expm1(z);
            // Below this (e^z - 1) / z is 1 to the last bit, and division by a tiny z would underflow.
            let f = if z.l1_norm() < 1e-17 { dt.into() } else { dt * a_minus_one.fdiv(z) };
            ModeBar { a, a_minus_one, f }
        }
    }
}

named! {
    /// How an oscillator x'' = -A x - G x' + f is stepped (Rusch & Rus 2025; with damping Boyer, Rusch & Rus 2025): its
    /// velocity first, and its position by the new velocity.
    pub enum Scheme {
        /// Implicit: the force of the spring is that of the new position. Undamped, G = 0.
        Im = "im",
        /// Implicit-explicit: the force of the spring is that of the old position, that of the damping of the new velocity.
        Imex = "imex",
    }
}

/// One oscillator after discretisation, driven by a force f.
///
/// It is never stepped by its two modes: where these are near each other they all but cancel, and at critical damping, or
/// where A = 0, there is one of them only. Its state is its position x and w = x - sign x_before, its change, or, where it
/// turns by more than a quarter of a circle a sample, its sum with the position before:
///
/// w' = sign (w + drag w) + spring x + gain f, then x' = sign x + w'.
///
/// Where the modes meet, at 1 or at -1, w is what grows slowly, and has digits of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OscillatorBar {
    /// The product of the eigenvalues, less 1.
    pub drag: f64,
    /// What a position of 1 pulls itself back by: the product of the eigenvalues less 1 each.
    pub pull: f64,
    /// What a position changes by for a force of 1.
    pub gain: f64,
    /// The step size.
    pub dt: f64,
}

/// A step of an oscillator on its state (w, x), which is sign (w, x) + delta (w, x) + (drive f, f).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OscillatorStep {
    /// 1 or -1.
    pub sign: f64,
    /// (2, 2), row-major.
    pub delta: [f64; 4],
    /// What w changes by where x changes by 1.
    pub drive: f64,
}

/// The oscillator with stiffness `a` and damping `g`.
pub fn discretize_oscillator(scheme: Scheme, a: f64, g: f64, dt: f64) -> OscillatorBar {
    let braked = match scheme {
        Scheme::Im => dt * (dt * a),
        Scheme::Imex => dt * g,
    };
    let gain = dt * (dt / (1.0 + braked));
    OscillatorBar { drag: -braked / (1.0 + braked), pull: a * gain, gain, dt }
}

impl OscillatorBar {
    /// 1, or -1 where it turns by more than a quarter of a circle a sample.
    pub fn sign(&self) -> f64 {
        if 2.0 + self.drag >= self.pull { 1.0 } else { -1.0 }
    }

    /// What w changes by for a position of 1.
    pub fn spring(&self) -> f64 {
        if self.sign() > 0.0 { -self.pull } else { 4.0 + 2.0 * self.drag - self.pull }
    }

    /// The two eigenvalues of its step.
    pub fn eigenvalues(&self) -> [Complex64; 2] {
        let middle = 0.5 * (self.drag - self.pull);
        let apart = middle * middle - self.pull;
        // Of a difference as small as its own rounding nothing is known but that it is small; its root would not be.
        let apart = if apart.abs() <= 16.0 * f64::EPSILON * middle * middle { 0.0 } else { apart };
        let root = Complex64::from(apart).sqrt();
        [ONE + middle + root, ONE + middle - root]
    }

    /// Its step on the state that it has at the step size of `regular`. x is driven by `gain` f.
    ///
    /// With the velocity v of the oscillator and the regular step s, w is s v, or 2 x - s v where the sign is -1.
    pub fn step_at(&self, regular: &OscillatorBar) -> OscillatorStep {
        let (ratio, kept, sign) = (self.dt / regular.dt, 1.0 + self.drag, regular.sign());
        if sign > 0.0 {
            let delta = [self.drag, -self.pull / ratio, ratio * kept, -self.pull];
            return OscillatorStep { sign, delta, drive: 1.0 / ratio };
        }
        let (more, pulled) = (2.0 * ratio - 1.0, 2.0 * kept - self.pull / ratio);
        let delta = [1.0 - more * kept, 2.0 + more * pulled, -ratio * kept, 2.0 + ratio * pulled];
        OscillatorStep { sign, delta, drive: 2.0 - 1.0 / ratio }
    }

    /// How its position answers a force of 1 at the first sample, sample by sample.
    pub fn impulse_response(self) -> impl Iterator<Item = f64> {
        let (sign, spring) = (self.sign(), self.spring());
        let (mut w, mut x, mut force) = (0.0, 0.0, self.gain);
        std::iter::repeat_with(move || {
            w = sign * (w + self.drag * w) + spring * x + std::mem::take(&mut force);
            x = sign * x + w;
            x
        })
    }
}

/// e^z, and e^z - 1 without cancellation near z = 0.
fn exp_and_expm1(z: Complex64) -> (Complex64, Complex64) {
    let (half_sin, half_cos) = (0.5 * z.im).sin_cos();
    let (scale, grown) = (z.re.exp(), z.re.exp_m1());
    // cos y = 1 - 2 sin^2(y / 2), and e^x cos y - 1 = (e^x - 1) cos y - 2 sin^2(y / 2)
    let less = 2.0 * half_sin * half_sin;
    let (sin, cos) = (2.0 * half_sin * half_cos, 1.0 - less);
    (Complex64::new(scale * cos, scale * sin), Complex64::new(grown * cos - less, scale * sin))
}

/// A diagonal plus low-rank system after the bilinear transform, with N stored modes and K real inner products:
///
/// x\[t\] = a x\[t-1\] - sum_k w_k Re(sum_n v_k\[n\] x\[t-1\]\[n\]) + b u\[t\]
#[derive(Debug, Clone, PartialEq)]
pub struct DplrBar {
    /// The diagonal's own Abar (N,).
    pub a: Vec<Complex64>,
    /// `a` - 1, without cancellation (N,).
    pub a_minus_one: Vec<Complex64>,
    /// (K, N)
    pub w: Vec<Vec<Complex64>>,
    /// (K, N)
    pub v: Vec<Vec<Complex64>>,
    /// Bbar (N,).
    pub b: Vec<Complex64>,
}

/// The bilinear transform of A = diag(lambda) - sum_r p_r q_r^H (Gu et al. 2021, appendix C.2).
///
/// `lambda`, `b` and every `p[r]`, `q[r]` have N modes. With `conjugate_pairs` the full system is
/// \[lambda, conj lambda\], \[p, conj p\], ..., of which the answer is the stored half and K = R;
/// else the inner products are complex and take two real ones each, K = 2 R.
///
/// By Woodbury's identity, with E = diag(1 / (1 - dt/2 lambda)) and M = I + dt/2 q^H E p over the full system,
/// (I - dt/2 A)^-1 = E - dt/2 E p M^-1 q^H E, and Abar = 2 (I - dt/2 A)^-1 - I.
///
/// # Errors
/// [`Error::Value`] where I - dt/2 A is singular, or anything is not finite.
pub fn discretize_dplr(
    lambda: &[Complex64],
    p: &[&[Complex64]],
    q: &[&[Complex64]],
    b: &[Complex64],
    dt: f64,
    conjugate_pairs: bool,
) -> Result<DplrBar> {
    let rank = p.len();
    let half = 0.5 * dt;
    let e: Vec<_> = lambda.iter().map(|&l| ONE.fdiv(ONE - half * l)).collect();
    // Over the full system a sum gets the conjugate of what the stored half adds.
    let full = |sum: Complex64| if conjugate_pairs { Complex64::from(2.0 * sum.re) } else { sum };
    let through = |r: usize, x: &[Complex64]| -> Complex64 {
        full(q[r].iter().zip(&e).zip(x).map(|((q, e), x)| q.conj() * e * x).sum())
    };
    let m = DMatrix::from_fn(rank, rank, |r, s| half * through(r, p[s]) + if r == s { ONE } else { 0.0.into() });
    let singular = || Error::Value(format!("expected 1 - dt/2 A to be invertible, found it singular at dt = {dt}"));
    let inverse = m.try_inverse().ok_or_else(singular)?;

    // E p M^-1, a column for each r.
    let ep: Vec<Vec<_>> = (0..rank)
        .map(|r| (0..e.len()).map(|n| e[n] * (0..rank).map(|s| p[s][n] * inverse[(s, r)]).sum::<Complex64>()).collect())
        .collect();
    let qb: Vec<_> = (0..rank).map(|r| through(r, b)).collect();
    let b = (0..e.len())
        .map(|n| dt * (e[n] * b[n] - half * (0..rank).map(|r| ep[r][n] * qb[r]).sum::<Complex64>()))
        .collect();
    let mut w: Vec<Vec<_>> = ep.iter().map(|ep| ep.iter().map(|x| 2.0 * x).collect()).collect();
    let twice = if conjugate_pairs { 2.0 } else { 1.0 };
    let mut v: Vec<Vec<_>> =
        q.iter().map(|q| q.iter().zip(&e).map(|(q, e)| twice * half * q.conj() * e).collect()).collect();
    if !conjugate_pairs {
        // w s = w Re(s) + i w Im(s), and Im(v x) = Re(-i v x).
        let times = |x: &Vec<Complex64>, factor: Complex64| x.iter().map(|x| factor * x).collect::<Vec<_>>();
        w = w.into_iter().flat_map(|w| [w.clone(), times(&w, Complex64::I)]).collect();
        v = v.into_iter().flat_map(|v| [v.clone(), times(&v, -Complex64::I)]).collect();
    }
    let modes: Vec<_> = lambda.iter().map(|&l| discretize_mode(Disc::Bilinear, 0.5, l, dt)).collect();
    let bar = DplrBar {
        a: modes.iter().map(|m| m.a).collect(),
        a_minus_one: modes.iter().map(|m| m.a_minus_one).collect(),
        w,
        v,
        b,
    };
    let finite = bar.w.iter().chain(&bar.v).chain([&bar.a, &bar.b]).flatten().all(|x| x.is_finite());
    if finite { Ok(bar) } else { Err(singular()) }
}

/// A = Z T Z^T with Z orthogonal and T quasi upper triangular: blocks of 1 and 2 on its diagonal.
///
/// Orthogonal, so that no accuracy is lost however far A is from normal; and one Z serves every step size,
/// for Abar is a function of A. A vector x is Z^T x in the Schur basis: see [`RealSchur::rotate`].
#[derive(Debug, Clone)]
pub struct RealSchur {
    /// (n, n), row-major.
    pub z: Vec<f64>,
    /// (n, n), row-major, exactly zero below the blocks.
    pub t: Vec<f64>,
    /// The size.
    pub n: usize,
}

impl RealSchur {
    /// The decomposition of `a` (n, n), row-major.
    ///
    /// # Errors
    /// [`Error::Value`] where `a` is not square or the iteration does not converge, as for numbers near overflow.
    pub fn new(a: &[f64], n: usize) -> Result<RealSchur> {
        let a = square("A", a, n)?;
        let decompose = |a| Schur::try_new(a, f64::EPSILON, 100 * n.max(1)).map(Schur::unpack);
        // The shifted iteration has cycles (a cyclic permutation is one); a reflection of the basis leaves them.
        let reflected = || {
            let axis = DVector::from_fn(n, |i, _| 1.0 / (1.0 + i as f64)).normalize();
            let h = DMatrix::identity(n, n) - 2.0 * &axis * axis.transpose();
            decompose(&h * &a * &h).map(|(z, t)| (h * z, t))
        };
        let (z, t) = decompose(a.clone())
            .or_else(reflected)
            .filter(|(z, t)| z.iter().chain(t.iter()).all(|x| x.is_finite()))
            .ok_or_else(|| Error::Value("expected a matrix with a Schur form, found none: no convergence".into()))?;
        let mut t = row_major(&t);
        for i in 0..n {
            t[i * n..i * n + i.saturating_sub(1)].fill(0.0);
        }
        Ok(RealSchur { z: row_major(&z), t, n })
    }

    /// Z^T x: x (n,) in the Schur basis; of a row vector c, what c Z is.
    pub fn rotate(&self, x: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.n];
        for (row, &x) in self.z.chunks_exact(self.n).zip(x) {
            axpy(x, row, &mut out);
        }
        out
    }

    /// The eigenvalues, as they stand on the diagonal of T.
    pub fn eigenvalues(&self) -> Vec<Complex64> {
        let t = |i: usize, j: usize| self.t[i * self.n + j];
        let mut values = Vec::with_capacity(self.n);
        while values.len() < self.n {
            let i = values.len();
            if i + 1 < self.n && t(i + 1, i) != 0.0 {
                let middle = 0.5 * (t(i, i) + t(i + 1, i + 1));
                let apart = 0.5 * (t(i, i) - t(i + 1, i + 1));
                let root = Complex64::from(apart * apart + t(i, i + 1) * t(i + 1, i)).sqrt();
                values.extend([middle + root, middle - root]);
            } else {
                values.push(t(i, i).into());
            }
        }
        values
    }

    /// The generalised bilinear transform in the Schur basis: (Abar (n, n) row-major, Bbar (n,)).
    ///
    /// `b` is in the Schur basis too. Abar has T's blocks, and exact zeros below them.
    /// Not finite where I - alpha dt A is singular.
    pub fn gbt(&self, alpha: f64, dt: f64, b: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = self.n;
        let mut a: Vec<f64> = self.t.iter().map(|t| (1.0 - alpha) * dt * t).collect();
        for i in 0..n {
            a[i * n + i] += 1.0;
        }
        self.solve_rows(alpha * dt, &mut a, n, |row| row.saturating_sub(1));
        let mut b: Vec<f64> = b.iter().map(|b| dt * b).collect();
        self.solve(alpha * dt, &mut b);
        (a, b)
    }

    /// Solves (I - shift T) x = `x` (n,) in place.
    pub fn solve(&self, shift: f64, x: &mut [f64]) {
        self.solve_rows(shift, x, 1, |_| 0);
    }

    /// x = Abar x + Bbar u for this dt alone, with x and b (n,) in the Schur basis; allocates nothing.
    pub fn step(&self, alpha: f64, dt: f64, b: &[f64], u: f64, x: &mut [f64]) {
        let keep = (1.0 - alpha) * dt;
        let mut before = 0.0;
        for (i, row) in self.t.chunks_exact(self.n).enumerate() {
            // Rows above are done already, and T has one number left of its diagonal at most.
            let left = if i > 0 { row[i - 1] * before } else { 0.0 };
            let sum: f64 = row[i..].iter().zip(&x[i..]).map(|(t, x)| t * x).sum();
            before = x[i];
            x[i] += keep * (left + sum) + dt * b[i] * u;
        }
        self.solve(alpha * dt, x);
    }

    /// Solves (I - shift T) X = `x` (n, columns) in place, X being zero left of column `first(row)`.
    fn solve_rows(&self, shift: f64, x: &mut [f64], columns: usize, first: impl Fn(usize) -> usize) {
        let t = |i: usize, j: usize| self.t[i * self.n + j];
        let mut end = self.n;
        while end > 0 {
            let size = if end > 1 && t(end - 1, end - 2) != 0.0 { 2 } else { 1 };
            let start = end - size;
            let (head, solved) = x.split_at_mut(end * columns);
            let block = &mut head[start * columns..];
            for (i, row) in block.chunks_exact_mut(columns).enumerate() {
                for (k, below) in solved.chunks_exact(columns).enumerate() {
                    let from = first(end + k);
                    axpy(shift * t(start + i, end + k), &below[from..], &mut row[from..]);
                }
            }
            if size == 1 {
                let pole = 1.0 - shift * t(start, start);
                block.iter_mut().for_each(|x| *x /= pole);
            } else {
                let m = |i: usize, j: usize| f64::from(i == j) - shift * t(start + i, start + j);
                let (upper, lower) = block.split_at_mut(columns);
                for (x, y) in upper.iter_mut().zip(lower) {
                    (*x, *y) = solve2([[m(0, 0), m(0, 1)], [m(1, 0), m(1, 1)]], *x, *y);
                }
            }
            end = start;
        }
    }
}

/// Gaussian elimination with pivoting.
fn solve2(m: [[f64; 2]; 2], x: f64, y: f64) -> (f64, f64) {
    let ([p, q], x, y) = if m[0][0].abs() >= m[1][0].abs() { (m, x, y) } else { ([m[1], m[0]], y, x) };
    let factor = q[0] / p[0];
    let second = (y - factor * x) / (q[1] - factor * p[1]);
    ((x - p[1] * second) / p[0], second)
}

fn axpy(factor: f64, x: &[f64], y: &mut [f64]) {
    for (x, y) in x.iter().zip(y) {
        *y += factor * x;
    }
}

/// (Abar (n, n), Bbar (n,)) of a full real system with `a` (n, n) and `b` (n,), all row-major.
///
/// `alpha` is for [`Disc::Gbt`]. Zero-order hold is the exponential of \[\[A, B\], \[0, 0\]\] dt (Van Loan 1978).
///
/// # Errors
/// [`Error::Value`] where shapes do not fit, a number is not finite, dt is not positive, alpha is outside
/// \[0, 1\], I - alpha dt A is singular, or `disc` is [`Disc::Dss`].
pub fn discretize_matrix(
    disc: Disc,
    alpha: f64,
    a: &[f64],
    b: &[f64],
    n: usize,
    dt: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let matrix = square("A", a, n)?;
    if b.len() != n {
        return Err(Error::Value(format!("B: expected {n} numbers, found {}", b.len())));
    }
    if !a.iter().chain(b).all(|x| x.is_finite()) {
        return Err(Error::Value("A, B: expected finite numbers, found others".into()));
    }
    if !(dt > 0.0 && dt.is_finite()) {
        return Err(Error::Value(format!("dt: expected a positive number, found {dt}")));
    }
    if !(0.0..=1.0).contains(&alpha) {
        return Err(Error::Value(format!("alpha: expected 0 to 1, found {alpha}")));
    }
    let (abar, bbar) = match (disc, disc.alpha(alpha)) {
        (Disc::Dss, _) => {
            return Err(Error::Value("expected a discretisation that is a recurrence, found dss".into()));
        }
        (Disc::Discrete, _) => return Ok((a.to_vec(), b.to_vec())),
        (_, Some(alpha)) => {
            let identity = DMatrix::identity(n, n);
            let lu = (&identity - alpha * dt * &matrix).lu();
            let mut abar = identity + (1.0 - alpha) * dt * matrix;
            let mut bbar = DVector::from_column_slice(b) * dt;
            if !(lu.solve_mut(&mut abar) && lu.solve_mut(&mut bbar)) {
                return Err(Error::Value(format!(
                    "expected 1 - alpha dt A to be invertible, found it singular at dt = {dt}"
                )));
            }
            (abar, bbar)
        }
        _ => {
            let scale = b.iter().fold(f64::MIN_POSITIVE, |m: f64, b| m.max(b.abs()));
            let mut both = DMatrix::zeros(n + 1, n + 1);
            both.view_mut((0, 0), (n, n)).copy_from(&(matrix * dt));
            both.view_mut((0, n), (n, 1)).iter_mut().zip(b).for_each(|(x, b)| *x = b / scale * dt);
            let both = exponential(both)?;
            (both.view((0, 0), (n, n)).into_owned(), both.view((0, n), (n, 1)).column(0) * scale)
        }
    };
    if !abar.iter().chain(bbar.iter()).all(|x| x.is_finite()) {
        return Err(Error::Value(format!("expected Abar and Bbar within float64's range, found more at dt = {dt}")));
    }
    Ok((row_major(&abar), bbar.as_slice().to_vec()))
}

/// e^a by squaring, so that what is left for Padé's approximant is at most 4 in norm: well conditioned, and far
/// from overflow.
fn exponential(a: DMatrix<f64>) -> Result<DMatrix<f64>> {
    let norm = a.column_iter().map(|c| c.lp_norm(1)).fold(0.0, f64::max);
    // Rounding alone makes the exponential of a larger matrix meaningless.
    if norm > 1e15 {
        return Err(Error::Value(format!("dt A: expected a norm below 1e15, found {norm:e}")));
    }
    let squarings = (norm / 4.0).log2().ceil().max(0.0) as i32;
    let mut power = (a * 0.5f64.powi(squarings)).exp();
    for _ in 0..squarings {
        power = &power * &power;
    }
    Ok(power)
}

fn square(name: &str, a: &[f64], n: usize) -> Result<DMatrix<f64>> {
    if n == 0 || n.checked_mul(n) != Some(a.len()) {
        return Err(Error::Value(format!("{name}: expected {n} x {n} numbers, at least one, found {}", a.len())));
    }
    Ok(DMatrix::from_row_slice(n, n, a))
}

fn row_major(a: &DMatrix<f64>) -> Vec<f64> {
    a.transpose().as_slice().to_vec()
}

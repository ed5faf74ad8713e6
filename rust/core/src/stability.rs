//! Whether the systems of a layer are stable once they are discrete.

use num_complex::Complex64;

use crate::discretize::{Disc, RealSchur, discretize_mode};
use crate::document::{Dense, Diagonal, DiagonalMimo, Dplr, Node};
use crate::error::{Error, Result};

/// How far outside the unit circle an eigenvalue may lie: what float64 makes of one that belongs on it, such as
/// the undamped modes of HiPPO-Fourier. Ten million steps grow by 1 % at most.
const SLACK: f64 = 1e-9;

/// Refuses a state-space layer with a discrete eigenvalue outside the unit circle, unless it is `allow_unstable`.
///
/// It looks at `node` alone, not at nodes below it, and at step sizes as they stand, at rate 1. [`Disc::Dss`] is
/// not checked, for its kernel is normalised by its length; Mamba's A is never positive, hence always stable.
///
/// # Errors
/// [`Error::Document`], which names the layer, the channel and the eigenvalue.
pub fn check_stable(node: &Node) -> Result<()> {
    let found = match node {
        Node::Diagonal(n) if !n.ssm.allow_unstable => diagonal(n),
        Node::Dplr(n) if !n.ssm.allow_unstable => dplr(n)?,
        Node::Dense(n) if !n.ssm.allow_unstable => dense(n)?,
        Node::DiagonalMimo(n) if !n.allow_unstable => mimo(n),
        _ => None,
    };
    match found {
        None => Ok(()),
        Some((place, eigenvalue)) => Err(Error::Document(format!(
            "{}: {place}: expected every discrete eigenvalue within the unit circle, found {eigenvalue:.6} with modulus \
             {:.9}; allow_unstable lets it through",
            node.label(),
            eigenvalue.norm(),
        ))),
    }
}

type Unstable = Option<(String, Complex64)>;

fn is_unstable(eigenvalue: &Complex64) -> bool {
    let modulus = eigenvalue.norm();
    // At a pole of the transform it is not a number.
    modulus.is_nan() || modulus > 1.0 + SLACK
}

/// The first unstable one among a channel's continuous eigenvalues.
fn channel(h: usize, disc: Disc, alpha: f64, values: impl IntoIterator<Item = (Complex64, f64)>) -> Unstable {
    let mut discrete = values.into_iter().map(|(lambda, dt)| discretize_mode(disc, alpha, lambda, dt).a);
    discrete.find(is_unstable).map(|eigenvalue| (format!("channel {h}"), eigenvalue))
}

fn diagonal(node: &Diagonal) -> Unstable {
    if node.disc == Disc::Dss {
        return None;
    }
    (0..node.ssm.channels()).find_map(|h| {
        let modes = node.a.row(h % node.systems()).iter().enumerate();
        let values = modes.map(|(n, &lambda)| (lambda, node.ssm.step(h, n).unwrap_or(1.0)));
        channel(h, node.disc, node.alpha, values)
    })
}

fn mimo(node: &DiagonalMimo) -> Unstable {
    node.a.iter().enumerate().find_map(|(n, &lambda)| {
        let dt = node.dt.as_ref().map_or(1.0, |dt| dt[n]);
        let eigenvalue = discretize_mode(node.disc, node.alpha, lambda, dt).a;
        is_unstable(&eigenvalue).then(|| (format!("mode {n}"), eigenvalue))
    })
}

fn dense(node: &Dense) -> Result<Unstable> {
    let n = node.ssm.modes();
    shared(
        node.ssm.channels(),
        node.systems(),
        |h| node.ssm.step(h, 0),
        Disc::Gbt,
        node.alpha,
        |s| RealSchur::new(node.a_of(s), n).map(|schur| schur.eigenvalues()),
    )
}

/// Where Re(Lambda) <= 0 and Q is P, A + A^H = 2 Re(Lambda) - 2 P P^H is negative semidefinite, so that no
/// eigenvalue of A has a positive real part, and the bilinear transform maps them all into the unit circle. Else
/// the eigenvalues are computed.
fn dplr(node: &Dplr) -> Result<Unstable> {
    if node.q.is_none() && node.a.data.iter().all(|lambda| lambda.re <= 0.0) {
        return Ok(None);
    }
    let n = node.ssm.modes();
    shared(
        node.ssm.channels(),
        node.systems(),
        |h| node.ssm.step(h, 0),
        Disc::Bilinear,
        0.5,
        |s| RealSchur::new(&real_form(node, s), 2 * n).map(|schur| schur.eigenvalues()),
    )
}

/// Systems whose eigenvalues are worth computing once for all channels that share them.
fn shared(
    channels: usize,
    systems: usize,
    dt: impl Fn(usize) -> Option<f64>,
    disc: Disc,
    alpha: f64,
    eigenvalues: impl Fn(usize) -> Result<Vec<Complex64>>,
) -> Result<Unstable> {
    for s in 0..systems {
        let values = eigenvalues(s)?;
        let unstable = (s..channels).step_by(systems).find_map(|h| {
            let dt = dt(h).unwrap_or(1.0);
            channel(h, disc, alpha, values.iter().map(|&lambda| (lambda, dt)))
        });
        if unstable.is_some() {
            return Ok(unstable);
        }
    }
    Ok(None)
}

/// System `s` as a real matrix (2N, 2N) that acts on (Re x, Im x).
///
/// With conjugate pairs it has the eigenvalues of the full system, else those of the system and their conjugates.
fn real_form(node: &Dplr, s: usize) -> Vec<f64> {
    let n = node.ssm.modes();
    let (lambda, p, q) = (node.a.row(s), node.p_of(s), node.q_of(s));
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
                    if node.conjugate_pairs {
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

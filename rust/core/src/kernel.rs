//! Convolution kernels and Krylov sequences, in float64.

use crate::discretize::{Disc, discretize_mode};
use crate::document::{DiagonalMimo, Document, Node};
use crate::error::{Error, Result};
use crate::kernels::aligned::{Aligned, fits};
use crate::kernels::linear::{Epilogue, Linear};
use crate::kernels::{Isa, padded};
use crate::layers::convolution::Source;
use crate::layers::system::System;
use crate::lower;
use crate::threads::{Shared, Team};
use num_complex::Complex64;

/// The kernel of state-space layer number `layer`, in the order in which they run: its shape (M, H, length) and
/// its numbers. A bidirectional layer has its backward kernels after the forward ones; a layer of many inputs and
/// outputs has (d_out, d_in, length). The direct path D is not in it.
///
/// # Errors
/// [`Error::Value`] where there is no such layer, [`Error::Unsupported`] where it has no kernel.
pub fn kernel(
    document: &Document,
    layer: usize,
    length: usize,
    rate: f64,
    isa: Isa,
    team: &Team,
) -> Result<([usize; 3], Vec<f64>)> {
    let mut layers = Vec::new();
    collect(&document.root, &mut layers);
    let node = layers
        .get(layer)
        .ok_or_else(|| Error::Value(format!("layer: expected a number below {}, found {layer}", layers.len())))?;
    type Make<'a> = Box<dyn Fn(bool) -> Result<Source> + 'a>;
    let (h, m, cut, reverse, make): (_, _, _, _, Make<'_>) = match node {
        Node::Diagonal(d) if d.disc == Disc::Dss => {
            let make = |_| Ok(Source::Dss(d.clone(), rate));
            (d.ssm.channels(), d.ssm.outputs(), None, false, Box::new(make))
        }
        Node::Diagonal(d) => {
            let make = move |r| Ok(Source::System(System::diagonal(d.clone(), rate, 0, r), length));
            (d.ssm.channels(), d.ssm.outputs(), d.ssm.kernel_length, d.ssm.c_reverse.is_some(), Box::new(make))
        }
        Node::Dplr(d) => {
            let make = move |r| Ok(Source::System(System::dplr(d.clone(), rate, 0, r), length));
            (d.ssm.channels(), d.ssm.outputs(), d.ssm.kernel_length, d.ssm.c_reverse.is_some(), Box::new(make))
        }
        Node::Dense(d) => {
            let make = move |r| Ok(Source::System(System::dense(d.clone(), rate, 0, r)?, length));
            (d.ssm.channels(), d.ssm.outputs(), d.ssm.kernel_length, d.ssm.c_reverse.is_some(), Box::new(make))
        }
        Node::DiagonalMimo(m) => {
            fits::<f64>("length", length, m.b.shape[1] * m.c.shape[0])?;
            return Ok(mimo(m, length, rate, isa));
        }
        other => {
            return Err(Error::Unsupported(format!("{}: its kernel depends on the input", other.label())));
        }
    };
    fits::<f64>("length", length, m * h * 2)?;
    let shape = [if reverse { 2 * m } else { m }, h, length];
    if length == 0 {
        return Ok((shape, Vec::new()));
    }
    let (_, mut numbers) = make(false)?.kernels(isa, team, length);
    if reverse {
        numbers.extend(make(true)?.kernels(isa, team, length).1);
    }
    if let Some(cut) = cut {
        numbers.chunks_exact_mut(length).for_each(|k| k[lower::cut_at(cut, rate).min(length)..].fill(0.0));
    }
    Ok((shape, numbers))
}

fn collect<'a>(node: &'a Node, found: &mut Vec<&'a Node>) {
    match node {
        Node::Sequential(s) => s.children.iter().for_each(|n| collect(n, found)),
        Node::Residual(r) => {
            collect(&r.child, found);
            r.skip.iter().for_each(|n| collect(n, found));
        }
        Node::Gate(g) => {
            collect(&g.left, found);
            collect(&g.right, found);
        }
        Node::Diagonal(_) | Node::Dplr(_) | Node::Dense(_) | Node::DiagonalMimo(_) | Node::Selective(_) => {
            found.push(node);
        }
        _ => {}
    }
}

/// K\[l\] = factor Re(C Abar^l Bbar), (d_out, d_in, length).
fn mimo(m: &DiagonalMimo, length: usize, rate: f64, isa: Isa) -> ([usize; 3], Vec<f64>) {
    let (n, d_in, d_out) = (m.modes(), m.b.shape[1], m.c.shape[0]);
    let factor = if m.conjugate_pairs { 2.0 } else { 1.0 };
    let weight: Vec<f64> = (0..d_out)
        .flat_map(|o| {
            let c = &m.c.data[o * n..][..n];
            c.iter().map(|c| factor * c.re).chain(c.iter().map(|c| -factor * c.im)).collect::<Vec<_>>()
        })
        .collect();
    let read = Linear::<f64>::new(2 * n, d_out, |o, k| weight[o * 2 * n + k], None, Epilogue::None);
    let step = |i: usize| m.dt.as_ref().map_or(1.0, |dt| dt[i] * rate);
    let bars: Vec<_> = (0..n).map(|i| discretize_mode(m.disc, m.alpha, m.a[i], step(i))).collect();
    let mut x: Vec<Complex64> = (0..n * d_in).map(|i| m.b.data[i] * bars[i / d_in].f).collect();
    let (mut rows, mut y) = (Aligned::zeros(d_in * padded(2 * n)), Aligned::zeros(d_in * padded(d_out)));
    let mut kernel = vec![0.0; d_out * d_in * length];
    for l in 0..length {
        for j in 0..d_in {
            for i in 0..n {
                rows[j * padded(2 * n) + i] = x[i * d_in + j].re;
                rows[j * padded(2 * n) + n + i] = x[i * d_in + j].im;
            }
        }
        read.run(isa, d_in, &rows, &mut y);
        for j in 0..d_in {
            for o in 0..d_out {
                kernel[(o * d_in + j) * length + l] = y[j * padded(d_out) + o];
            }
        }
        x.iter_mut().enumerate().for_each(|(i, x)| *x *= bars[i / d_in].a);
    }
    ([d_out, d_in, length], kernel)
}

/// (b, A b, A^2 b, ...) of `systems` systems with `a` (systems, n, n) and `b` (systems, n): (systems, n, length).
///
/// By doubling: the second half of the sequence is A to the length of the first half, times the first half.
///
/// # Errors
/// [`Error::Value`] where the length does not fit into memory.
pub fn krylov(
    isa: Isa,
    team: &Team,
    systems: usize,
    n: usize,
    a: &[f64],
    b: &[f64],
    length: usize,
) -> Result<Vec<f64>> {
    fits::<f64>("length", length, systems * padded(n) * 2)?;
    let mut answer = vec![0.0; systems * n * length];
    if n == 0 || length == 0 {
        return Ok(answer);
    }
    let out = Shared(answer.as_mut_ptr());
    let stride = padded(n);
    team.each(systems, |_, s| {
        let mut rows = Aligned::<f64>::zeros(length * stride);
        rows[..n].copy_from_slice(&b[s * n..][..n]);
        let mut power = a[s * n * n..][..n * n].to_vec();
        let mut have = 1;
        while have < length {
            let times = Linear::<f64>::new(n, n, |i, k| power[i * n + k], None, Epilogue::None);
            let more = have.min(length - have);
            let (from, to) = rows.split_at_mut(have * stride);
            times.run(isa, more, from, &mut to[..more * stride]);
            have += more;
            if have < length {
                power = squared(isa, &times, &power, n);
            }
        }
        // SAFETY: every item has its own part.
        let out = unsafe { out.part(s * n * length, n * length) };
        for (i, row) in out.chunks_exact_mut(length).enumerate() {
            for (l, x) in row.iter_mut().enumerate() {
                *x = rows[l * stride + i];
            }
        }
    });
    Ok(answer)
}

/// The square of a matrix, given as what multiplies with it.
fn squared(isa: Isa, times: &Linear<f64>, a: &[f64], n: usize) -> Vec<f64> {
    let stride = padded(n);
    let (mut columns, mut product) = (Aligned::<f64>::zeros(n * stride), Aligned::<f64>::zeros(n * stride));
    for i in 0..n {
        for j in 0..n {
            columns[j * stride + i] = a[i * n + j];
        }
    }
    times.run(isa, n, &columns, &mut product);
    (0..n * n).map(|k| product[k % n * stride + k / n]).collect()
}

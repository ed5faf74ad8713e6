//! The convolution kernels of a model's layers, in float64.

use crate::discretize::Disc;
use crate::document::{ComplexArray, Document, Node, StateSpace};
use crate::error::{Error, Result};
use crate::kernels::aligned::{Aligned, fits};
use crate::kernels::linear::{Epilogue, Linear};
use crate::kernels::{Isa, padded};
use crate::layers::convolution::Source;
use crate::layers::system::System;
use crate::threads::Team;
use num_complex::Complex64;

/// The convolution kernel of state-space layer number `layer`, in the order in which they run: its shape (M, H, length)
/// and its numbers. A bidirectional layer has its backward kernels after the forward ones; a layer of many inputs and
/// outputs has (d_out, d_in, length). The direct path D is not in it.
///
/// # Errors
/// [`Error::Value`] where there is no such layer, [`Error::Memory`] where the length does not fit into memory,
/// [`Error::Unsupported`] where the layer has no kernel.
pub fn convolution_kernel(
    document: &Document,
    layer: usize,
    length: usize,
    rate: f64,
    isa: Isa,
    team: &Team,
) -> Result<([usize; 3], Vec<f64>)> {
    match document.state_space_layer(layer)? {
        node @ Node::Diagonal(d) if d.disc == Disc::Dss => {
            let source = |node| Source::Dss(node, rate);
            siso(node, &d.ssm, length, rate, isa, team, [source(d.clone()), source(d.reversed())])
        }
        node @ Node::Diagonal(d) => {
            siso(node, &d.ssm, length, rate, isa, team, both(System::diagonal(d, rate), length))
        }
        node @ Node::Dplr(d) => siso(node, &d.ssm, length, rate, isa, team, both(System::dplr(d, rate), length)),
        node @ Node::Dense(d) => siso(node, &d.ssm, length, rate, isa, team, both(System::dense(d, rate), length)),
        Node::DiagonalMimo(m) => {
            let (mut x, poles): (Vec<_>, Vec<_>) = (0..m.modes()).map(|n| m.mode(n, rate)).map(|m| (m.f, m.a)).unzip();
            let responses = std::iter::repeat_with(move || {
                let now = x.clone();
                x.iter_mut().zip(&poles).for_each(|(x, a)| *x *= a);
                now
            });
            mimo(&m.b, &m.c, m.factor(), responses, length, isa)
        }
        Node::Linoss(l) => {
            let mut each: Vec<_> = l.bars(rate).into_iter().map(|bar| bar.impulse_response()).collect();
            let responses =
                std::iter::repeat_with(move || each.iter_mut().map(|k| k.next().unwrap_or(0.0).into()).collect());
            mimo(&l.b, &l.c, 1.0, responses, length, isa)
        }
        node @ (Node::Selective(_) | Node::Ssd(_)) => {
            Err(Error::Unsupported(format!("{}: its kernel depends on the input", node.label())))
        }
        Node::Linear(_)
        | Node::Embedding(_)
        | Node::Norm(_)
        | Node::Activation(_)
        | Node::Glu(_)
        | Node::Conv1d(_)
        | Node::Pool(_)
        | Node::Sequential(_)
        | Node::Residual(_)
        | Node::Gate(_) => unreachable!("no state-space layer"),
    }
}

/// Where the kernels of both directions come from.
fn both(system: System, length: usize) -> [Source; 2] {
    [Source::System(system.clone(), length), Source::System(system.reversed(), length)]
}

/// The kernels of a layer of independent channels: forward, and backward where it has such.
fn siso<T>(
    node: &Node,
    ssm: &StateSpace<T>,
    length: usize,
    rate: f64,
    isa: Isa,
    team: &Team,
    [forward, backward]: [Source; 2],
) -> Result<([usize; 3], Vec<f64>)> {
    let (m, h, reverse) = (ssm.outputs(), ssm.channels(), ssm.c_reverse.is_some());
    fits::<f64>("length", length, m * h * 2)?;
    let shape = [if reverse { 2 * m } else { m }, h, length];
    if length == 0 {
        return Ok((shape, Vec::new()));
    }
    let named = |error| Error::Value(format!("{}: {error}", node.label()));
    let (_, mut numbers) = forward.kernels(isa, team, length).map_err(named)?;
    if reverse {
        numbers.extend(backward.kernels(isa, team, length).map_err(named)?.1);
    }
    if let Some(cut) = ssm.cut(rate).map_err(named)? {
        numbers.chunks_exact_mut(length).for_each(|k| k[cut.min(length)..].fill(0.0));
    }
    Ok((shape, numbers))
}

/// K\[l\] = factor Re(C diag(k\[l\]) B), (d_out, d_in, length), with the impulse responses k of the N modes between them.
fn mimo(
    b: &ComplexArray,
    c: &ComplexArray,
    factor: f64,
    responses: impl Iterator<Item = Vec<Complex64>>,
    length: usize,
    isa: Isa,
) -> Result<([usize; 3], Vec<f64>)> {
    let (n, d_in, d_out) = (b.shape[0], b.shape[1], c.shape[0]);
    fits::<f64>("length", length, d_in * d_out)?;
    let weight: Vec<f64> = (0..d_out)
        .flat_map(|o| {
            let c = c.row(o);
            c.iter().map(|c| factor * c.re).chain(c.iter().map(|c| -factor * c.im)).collect::<Vec<_>>()
        })
        .collect();
    let read = Linear::<f64>::new(2 * n, d_out, |o, i| weight[o * 2 * n + i], None, Epilogue::None)?;
    let (mut rows, mut y) = (Aligned::zeros(d_in * padded(2 * n)), Aligned::zeros(d_in * padded(d_out)));
    let mut kernel = vec![0.0; d_out * d_in * length];
    for (l, k) in responses.take(length).enumerate() {
        for j in 0..d_in {
            for i in 0..n {
                let x = k[i] * b.row(i)[j];
                rows[j * padded(2 * n) + i] = x.re;
                rows[j * padded(2 * n) + n + i] = x.im;
            }
        }
        read.run(isa, d_in, &rows, &mut y);
        for j in 0..d_in {
            for o in 0..d_out {
                kernel[(o * d_in + j) * length + l] = y[j * padded(d_out) + o];
            }
        }
    }
    Ok(([d_out, d_in, length], kernel))
}

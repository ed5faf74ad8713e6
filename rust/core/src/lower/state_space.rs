//! State-space layers as operations.

use super::{Lowering, elementwise};
use crate::discretize::Disc;
use crate::document::{
    Array, ComplexArray, Diagonal, DiagonalMimo, Linoss, Node, Selective as SelectiveNode, Ssd as SsdNode, StateSpace,
    Systems,
};
use crate::error::{Error, Result};
use crate::kernels::linear::{Epilogue, Linear};
use crate::kernels::norm::{Norm, NormKind, Residual};
use crate::kernels::pointwise::Function;
use crate::kernels::selective::{self, Selective};
use crate::kernels::ssd::{self, Sizes, Ssd, Steps};
use crate::kernels::{Elem, padded};
use crate::layers::convolution::{Convolution, Source};
use crate::layers::lti::{Direction, Lti};
use crate::layers::mimo::{Core, Mimo};
use crate::layers::system::System;
use crate::memory::Buffer;
use crate::ops::{RowOp, SequenceOp, Stage};
use crate::plan::NotCausal;
use num_complex::Complex64;
use std::sync::Arc;

/// Samples up to which a cut kernel is summed as it stands; one recurrence less another is as fast from there on.
const SHORT: usize = 256;

impl<E: Elem> Lowering<'_, E> {
    /// Notes that a layer needs the whole sequence.
    fn needs_all(&mut self, node: &Node, why: &str) {
        self.not_causal.get_or_insert_with(|| NotCausal { layer: node.label(), why: why.into() });
    }

    /// Notes that a layer runs backwards, from the end of the padding or of the sequence: one way for all layers.
    fn reverses(&mut self, node: &Node, over_padding: bool) -> Result<()> {
        self.needs_all(node, "is bidirectional");
        if self.reverse_over_padding.replace(over_padding).is_some_and(|before| before != over_padding) {
            return Err(Error::Unsupported(format!(
                "{}: some bidirectional layers start at the end of the padding and others before it",
                node.label()
            )));
        }
        Ok(())
    }

    /// DSS: a convolution, for its kernel depends on the length of the sequence.
    pub(super) fn dss(&mut self, node: &Node, d: &Diagonal, x: Buffer) -> Result<Buffer> {
        self.needs_all(node, "has a kernel that is normalised by the length of the sequence");
        let source = |node| Source::Dss(node, self.rate);
        let backward = d.ssm.c_reverse.is_some().then(|| source(d.reversed()));
        self.convolution(&d.ssm, source(d.clone()), backward, x)
    }

    /// A layer of independent channels, whatever its system, and how many nodes it takes: with an element-wise function
    /// that comes next, two.
    pub(super) fn siso<T>(
        &mut self,
        node: &Node,
        ssm: &StateSpace<T>,
        system: System,
        next: Option<&&Node>,
        x: Buffer,
    ) -> Result<(Buffer, usize)> {
        let system = || system.clone();
        let cut = ssm.cut(self.rate).map_err(|error| Error::Value(format!("{}: {error}", node.label())))?;
        let bidirectional = ssm.c_reverse.is_some();
        if let (Some(cut), true) = (cut, bidirectional) {
            let backward = Source::System(system().reversed(), cut);
            let forward = Source::System(system(), cut);
            self.reverses(node, false)?;
            return Ok((self.convolution(ssm, forward, Some(backward), x)?, 1));
        }
        let (h, m) = (ssm.channels(), ssm.outputs());
        let short = cut.filter(|&cut| cut <= SHORT);
        let long = cut.filter(|&cut| cut > SHORT);
        let function = elementwise(next).filter(|_| !bidirectional && long.is_none());
        let forward = match short {
            Some(cut) => system().windowed(cut),
            None => system(),
        };
        let backward = system().reversed();
        let late = long.map(|cut| system().delayed(cut));
        let skip = |i: usize, j: usize| ssm.d.data[i * h + j];
        let y = self.buffer(m * h);
        let layer = |system, skip: &dyn Fn(usize, usize) -> f64, function, direction| {
            Lti::new(self.team, system, ssm.head_major, skip, function, direction)
                .map_err(|error| Error::Document(format!("{}: {error}", node.label())))
        };
        let none = |_: usize, _: usize| 0.0;
        let forward = layer(forward, &skip, function.unwrap_or(Function::Identity), Direction::Forward)?;
        let backward =
            bidirectional.then(|| layer(backward, &none, Function::Identity, Direction::Backward)).transpose()?;
        let late = late.map(|late| layer(late, &none, Function::Identity, Direction::Forward)).transpose()?;
        self.lti(forward, x, y, 0);
        if let Some(backward) = backward {
            self.reverses(node, false)?;
            self.lti(backward, x, y, 0);
        }
        if cut.is_some() {
            self.cut_kernel.get_or_insert_with(|| node.label());
        }
        if let (Some(cut), Some(layer)) = (long, late) {
            // The kernel without its tail is the kernel less what the inputs of `cut` samples ago would give.
            let (late, tail) = (self.buffer(h), self.buffer(m * h));
            let state = self.state(cut.saturating_mul(padded(h)));
            self.sequence(SequenceOp::Delay { len: cut, state, x, y: late });
            self.lti(layer, late, tail, cut as u64);
            let op = RowOp::Residual { layer: Residual::new(m * h, -1.0, &[1.0], None), x: tail, y };
            Stage::push_rows(&mut self.stages, op, cut as u64);
            self.free.extend([late, tail]);
        }
        Ok((y, if function.is_some() { 2 } else { 1 }))
    }

    /// A layer that has an effect from sample `from` of a stream on.
    fn lti(&mut self, layer: Lti<E>, x: Buffer, y: Buffer, from: u64) {
        self.scratch_len = self.scratch_len.max(layer.scratch_len());
        self.tile_rows = self.tile_rows.max(layer.tile_rows());
        let layer = layer.after(self.groups);
        self.groups += layer.groups();
        let state = self.state(layer.state_len());
        self.starts(state, layer.start());
        Stage::push_sequence(&mut self.stages, SequenceOp::Lti { layer: Box::new(layer), state, x, y }, from);
    }

    fn convolution<T>(
        &mut self,
        ssm: &StateSpace<T>,
        forward: Source,
        backward: Option<Source>,
        x: Buffer,
    ) -> Result<Buffer> {
        let h = ssm.channels();
        let y = self.buffer(ssm.outputs() * h);
        let layer = Convolution::new(forward, backward, ssm.head_major, |i, j| ssm.d.data[i * h + j])?;
        self.sequence(SequenceOp::Convolution { layer: Box::new(layer), x, y });
        Ok(y)
    }

    /// S5, LRU: one system for all channels.
    pub(super) fn mimo(&mut self, node: &Node, m: &DiagonalMimo, x: Buffer) -> Result<Buffer> {
        let d_out = m.d_output();
        if m.bidirectional() {
            self.reverses(node, m.reverse_over_padding)?;
        }
        let y = self.buffer(d_out);
        let b = m.input(self.rate);
        let modes = |reverse| Core::Modes { node: m.clone(), reverse };
        self.mimo_pass(modes(false), &b, &m.c, m.factor(), x, y)?;
        if let Some(c) = &m.c_reverse {
            let z = self.buffer(d_out);
            self.mimo_pass(modes(true), &b, c, m.factor(), x, z)?;
            self.rows(RowOp::Add { layer: Residual::new(d_out, 1.0, &[1.0], None), x: z, y });
            self.free.push(z);
        }
        self.direct(m.d.as_ref(), x, y);
        Ok(y)
    }

    /// LinOSS: oscillators in the place of modes.
    pub(super) fn linoss(&mut self, l: &Linoss, x: Buffer) -> Result<Buffer> {
        let y = self.buffer(l.d_output());
        self.mimo_pass(Core::Oscillators(l.clone()), &l.input(self.rate), &l.c, 1.0, x, y)?;
        self.direct(l.d.as_ref(), x, y);
        Ok(y)
    }

    /// Adds D u.
    fn direct(&mut self, d: Option<&Array>, x: Buffer, y: Buffer) {
        if let Some(d) = d {
            self.rows(RowOp::Add { layer: Residual::new(y.width, 1.0, &d.data, None), x, y });
        }
    }

    /// `b` (N, d_in) as a matrix product, the core, and `factor` Re(C) as a matrix product.
    fn mimo_pass(
        &mut self,
        core: Core,
        b: &[Complex64],
        c: &ComplexArray,
        factor: f64,
        x: Buffer,
        y: Buffer,
    ) -> Result<()> {
        let (d_in, d_out, n) = (x.width, c.shape[0], c.shape[1]);
        let half = padded(n);
        // Rows of the real parts, then of the imaginary ones, each padded to groups: the layout of the states.
        let mut input = vec![0.0; 2 * half * d_in];
        for (at, z) in b.iter().enumerate() {
            (input[at], input[half * d_in + at]) = (z.re, z.im);
        }
        let mut weight = vec![0.0; d_out * 2 * half];
        for o in 0..d_out {
            for (i, c) in c.row(o).iter().enumerate() {
                let z = c * factor;
                (weight[o * 2 * half + i], weight[o * 2 * half + half + i]) = (z.re, -z.im);
            }
        }
        let v = self.buffer(2 * half);
        let linear = |d_in, d_out, weight: &[f64]| {
            Linear::new(d_in, d_out, |i, j| weight[i * d_in + j], None, Epilogue::None).map(Arc::new)
        };
        self.rows(RowOp::Linear { layer: linear(d_in, 2 * half, &input)?, x, y: v });
        let layer = Mimo::new(core, self.rate);
        let state = self.state(layer.state_len());
        self.starts(state, layer.start());
        self.sequence(SequenceOp::Mimo { layer: Box::new(layer), state, x: v });
        self.rows(RowOp::Linear { layer: linear(2 * half, d_out, &weight)?, x: v, y });
        self.free.push(v);
        Ok(())
    }

    /// Mamba's S6: what the input says of B and C, and of dt, then the recurrence.
    pub(super) fn selective(&mut self, s: &SelectiveNode, x: Buffer) -> Result<Buffer> {
        let (d, n, r) = (s.channels(), s.modes(), s.rank());
        let (mut low, mut bc) = (self.buffer(r), self.buffer(2 * n));
        let layer = self.packed.linear(&s.x_proj, 0..r, None, Epilogue::None)?;
        self.rows(RowOp::Linear { layer, x, y: low });
        let layer = self.packed.linear(&s.x_proj, r..r + 2 * n, None, Epilogue::None)?;
        self.rows(RowOp::Linear { layer, x, y: bc });
        if let Some(eps) = s.norm_eps {
            let weights = |norm: &Option<Array>, n| norm.as_ref().map_or_else(|| vec![1.0; n], |w| w.data.to_vec());
            low = self.rms(low, r, &weights(&s.dt_norm, r), eps);
            bc = self.rms(bc, n, &[weights(&s.b_norm, n), weights(&s.c_norm, n)].concat(), eps);
        }
        let dt = self.buffer(d);
        let layer = self.packed.linear(&s.dt_proj, 0..d, Some(&s.dt_bias.data), Epilogue::Apply(Function::Softplus))?;
        self.rows(RowOp::Linear { layer, x: low, y: dt });
        self.tile_rows = self.tile_rows.max(selective::SAMPLES);
        let layer = Selective::new(&s.a.data, &s.d.data, self.rate);
        let (state, y) = (self.state(layer.groups() * layer.group_state_len()), self.buffer(d));
        self.starts(state, s.x0.as_ref().map(|x0| layer.state(&x0.data)));
        self.sequence(SequenceOp::Selective { layer: Box::new(layer), state, x, dt, bc, y });
        self.free.extend([low, bc, dt]);
        Ok(y)
    }

    /// An RMS norm over runs of `size` channels, of a buffer that is not needed afterwards.
    fn rms(&mut self, x: Buffer, size: usize, weight: &[f64], eps: f64) -> Buffer {
        let y = self.buffer(x.width);
        let layer = Norm::new(NormKind::Rms, x.width, Some(weight), None, eps, 0.0).over_runs(size);
        self.rows(RowOp::Norm { layer, x, y });
        self.free.push(x);
        y
    }

    /// Mamba-2's: what the input says of x, B and C, and of dt, then the recurrence.
    pub(super) fn ssd(&mut self, s: &SsdNode, x: Buffer) -> Result<Buffer> {
        let (heads, channels) = (s.heads(), s.channels());
        let xbc = self.branch(&s.xbc, x)?;
        let dt = self.branch(&s.dt, x)?;
        let steps = self.buffer(Steps::<E>::width(heads));
        let layer = Steps::new(
            &s.a.data,
            &s.dt_bias.data,
            (s.dt_min, s.dt_max.unwrap_or(f64::INFINITY)),
            self.rate,
            s.disc == Disc::Zoh,
        );
        self.rows(RowOp::Steps { layer, x: dt, y: steps });
        self.tile_rows = self.tile_rows.max(ssd::CHUNK);
        let layer = Ssd::new(Sizes { channels, heads, groups: s.groups, modes: s.d_state }, &s.d.data);
        let (state, y) = (self.state(layer.tiles() * layer.tile_state_len()), self.buffer(channels));
        self.starts(state, s.x0.as_ref().map(|x0| layer.state(&x0.data)));
        self.sequence(SequenceOp::Ssd { layer: Box::new(layer), state, xbc, steps, y });
        self.free.push(steps);
        self.free.extend([xbc, dt].into_iter().filter(|buffer| buffer.id != x.id));
        Ok(y)
    }
}

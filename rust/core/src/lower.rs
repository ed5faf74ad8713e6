//! From the Document's tree to a plan's list of operations: buffers, places in the state, fused neighbours.

use crate::discretize::{self, Disc};
use crate::document::{Diagonal, DiagonalMimo, Document, Factor, Function as Named, Node, NormKind, StateSpace};
use crate::error::{Error, Result};
use crate::kernels::linear::{Epilogue, Linear};
use crate::kernels::norm::{self, Norm, Residual};
use crate::kernels::pointwise::Function;
use crate::kernels::selective::Selective;
use crate::kernels::{Aligned, Elem, GROUP, Isa, padded};
use crate::layers::convolution::{Convolution, Source};
use crate::layers::lti::{Direction, Lti};
use crate::layers::spectrum::Mimo;
use crate::layers::system::System;
use crate::ops::{Op, Place, Stage};
use crate::plan::{Buffer, NotCausal, Plan, Pooling};
use crate::stability::check_stable;
use crate::threads::Team;
use num_complex::Complex64;

/// Plans a Document.
pub(crate) fn lower<E: Elem>(document: &Document, rate: f64, isa: Isa) -> Result<Plan<E>> {
    let mut lowering = Lowering {
        plan: Plan::assemble(isa),
        ops: Vec::new(),
        widths: Vec::new(),
        free: Vec::new(),
        rate,
        padding_seen: None,
        groups: 0,
        team: Team::all()?,
    };
    let input = lowering.buffer(document.d_input);
    lowering.plan.input = input;
    let mut nodes = Vec::new();
    flatten(&document.root, &mut nodes);
    let at = nodes.iter().position(|n| matches!(n, Node::Pool(_)));
    let (trunk, head) = nodes.split_at(at.unwrap_or(nodes.len()));
    // The input may be the caller's own: nothing is written there.
    let mut x = lowering.chain(trunk, input, true)?;
    if let [Node::Pool(pool), head @ ..] = head {
        let target = lowering.buffer(x.width);
        let place = lowering.place(Pooling::state_len(x.width));
        lowering.plan.pool = Some(Pooling { mode: pool.mode, source: x, target, state: place.from });
        lowering.plan.trunk = Stage::stages(lowering.ops.drain(..));
        x = lowering.chain(head, target, false)?;
        lowering.plan.head = Stage::stages(lowering.ops);
    } else {
        lowering.plan.trunk = Stage::stages(lowering.ops);
    }
    let mut plan = lowering.plan;
    plan.output = x;
    for width in &lowering.widths {
        plan.offsets.push(plan.row_len);
        plan.row_len += padded(*width);
    }
    Ok(plan)
}

struct Lowering<E> {
    plan: Plan<E>,
    /// Each with the samples that a stream must have met before it has any effect.
    ops: Vec<(Op<E>, u64)>,
    widths: Vec<usize>,
    free: Vec<Buffer>,
    rate: f64,
    padding_seen: Option<bool>,
    /// Groups of lanes that the layers so far have.
    groups: usize,
    team: Team,
}

/// Samples up to which a cut kernel is summed as it stands; one recurrence less another is as fast from there on.
const SHORT: usize = 256;

/// Nested sequences as one list.
fn flatten<'a>(node: &'a Node, nodes: &mut Vec<&'a Node>) {
    match node {
        Node::Sequential(s) => s.children.iter().for_each(|child| flatten(child, nodes)),
        other => nodes.push(other),
    }
}

/// The element-wise function of a node, if it is that and nothing else.
fn curve(node: Option<&&Node>) -> Option<Function> {
    match node {
        Some(Node::Activation(a)) => pointwise(a.function),
        _ => None,
    }
}

fn pointwise(function: Named) -> Option<Function> {
    Some(match function {
        Named::Identity => Function::Identity,
        Named::Gelu => Function::Gelu,
        Named::GeluTanh => Function::GeluTanh,
        Named::Relu => Function::Relu,
        Named::LeakyRelu => Function::LeakyRelu,
        Named::Silu => Function::Silu,
        Named::Sigmoid => Function::Sigmoid,
        Named::Tanh => Function::Tanh,
        Named::Softplus => Function::Softplus,
        Named::Elu => Function::Elu,
        Named::Sqrelu => Function::Sqrelu,
        Named::Softmax | Named::LogSoftmax => return None,
    })
}

/// The samples at `rate` after which a kernel ends that has so many at rate 1.
pub(crate) fn cut_at(kernel_length: usize, rate: f64) -> usize {
    ((kernel_length as f64 / rate).round() as usize).max(1)
}

fn norm_of<E: Elem>(n: &crate::document::Norm, width: usize) -> Norm<E> {
    let kind = match n.kind {
        NormKind::Layer => norm::NormKind::Layer,
        NormKind::Rms => norm::NormKind::Rms,
        NormKind::Affine => norm::NormKind::Affine,
    };
    Norm::new(kind, width, n.weight.as_deref(), n.bias.as_deref(), n.eps, n.shift)
}

fn row<E: Elem>(values: impl IntoIterator<Item = f64>) -> Aligned<E> {
    let mut row: Vec<E> = values.into_iter().map(E::of).collect();
    row.resize(padded(row.len()), E::ZERO);
    row.into_iter().collect()
}

impl<E: Elem> Lowering<E> {
    fn buffer(&mut self, width: usize) -> Buffer {
        if let Some(i) = self.free.iter().position(|b| padded(b.width) == padded(width)) {
            return Buffer { width, ..self.free.swap_remove(i) };
        }
        self.widths.push(width);
        Buffer { id: self.widths.len() - 1, width }
    }

    fn place(&mut self, len: usize) -> Place {
        let from = self.plan.state_len;
        self.plan.state_len += len.next_multiple_of(GROUP);
        Place { from, len }
    }

    fn push(&mut self, op: Op<E>) {
        self.ops.push((op, 0));
    }

    /// Runs `nodes` one after the other from `x` on. With `keep`, `x` is still needed afterwards.
    fn chain(&mut self, nodes: &[&Node], x: Buffer, keep: bool) -> Result<Buffer> {
        let mut now = x;
        let mut rest = nodes;
        while !rest.is_empty() {
            let kept = keep && now == x;
            let (next, taken) = self.lower(rest, now, kept)?;
            if next.id != now.id && !kept {
                self.free.push(now);
            }
            now = next;
            rest = &rest[taken..];
        }
        Ok(now)
    }

    /// Lowers the first of `nodes`, with those of its successors that it is fused with: the buffer of the
    /// answer, and how many nodes were taken.
    fn lower(&mut self, nodes: &[&Node], x: Buffer, keep: bool) -> Result<(Buffer, usize)> {
        let node = nodes[0];
        check_stable(node)?;
        match node {
            Node::Linear(l) => {
                let (d_out, d_in) = (l.weight.shape[0], l.weight.shape[1]);
                let (epilogue, width, taken) = match nodes.get(1) {
                    Some(Node::Glu(glu)) if pointwise(glu.gate).is_some() => {
                        (Epilogue::Glu(pointwise(glu.gate).unwrap_or(Function::Sigmoid)), d_out / 2, 2)
                    }
                    _ => match curve(nodes.get(1)) {
                        Some(function) => (Epilogue::Apply(function), d_out, 2),
                        None => (Epilogue::None, d_out, 1),
                    },
                };
                let y = self.buffer(width);
                let layer =
                    Linear::new(d_in, width, |row, k| l.weight.data[row * d_in + k], l.bias.as_deref(), epilogue);
                self.push(Op::Linear { layer, x, y });
                Ok((y, taken))
            }
            Node::Embedding(e) => {
                let (n, d) = (e.weight.shape[0], e.weight.shape[1]);
                let y = self.buffer(d);
                let table = e.weight.data.chunks_exact(d).flat_map(|r| row::<E>(r.iter().copied()).to_vec()).collect();
                self.plan.vocabulary = Some(n);
                self.push(Op::Embed { table, x, y });
                Ok((y, 1))
            }
            Node::Norm(n) => {
                let y = self.buffer(x.width);
                self.push(Op::Norm { layer: norm_of(n, x.width), x, y });
                Ok((y, 1))
            }
            Node::Activation(a) => {
                let y = self.own(x, keep);
                match pointwise(a.function) {
                    Some(Function::Identity) => {}
                    Some(function) => self.push(Op::Pointwise { function, x: y }),
                    None => {
                        let size = a.size.unwrap_or(x.width);
                        self.push(Op::Softmax { log: a.function == Named::LogSoftmax, size, x: y });
                    }
                }
                Ok((y, 1))
            }
            Node::Glu(g) => {
                let y = self.buffer(x.width / 2);
                let Some(gate) = pointwise(g.gate) else {
                    return Err(Error::Unsupported(format!("{}: a gate that mixes channels", node.label())));
                };
                self.push(Op::Glu { gate, x, y });
                Ok((y, 1))
            }
            Node::Conv1d(c) => {
                let (d, taps) = (c.weight.shape[0], c.weight.shape[1]);
                let y = self.buffer(d);
                let state = self.place((taps - 1) * padded(d));
                let weight =
                    (0..taps).flat_map(|k| row::<E>((0..d).map(|i| c.weight.data[i * taps + k])).to_vec()).collect();
                let bias = row((0..d).map(|i| c.bias.as_ref().map_or(0.0, |b| b[i])));
                self.push(Op::Conv1d { weight, bias, taps, state, x, y });
                Ok((y, 1))
            }
            Node::Diagonal(d) if d.disc == Disc::Dss => {
                self.needs_all(node, "has a kernel that is normalised by the length of the sequence");
                let backward = d.ssm.c_reverse.is_some().then(|| {
                    let c = d.ssm.c_reverse.clone().unwrap_or_else(|| d.ssm.c.clone());
                    Source::Dss(Diagonal { ssm: StateSpace { c, ..d.ssm.clone() }, ..d.clone() }, self.rate)
                });
                Ok((self.convolution(Source::Dss(d.clone(), self.rate), backward, &d.ssm, x), 1))
            }
            Node::Diagonal(d) => {
                if d.disc == Disc::Discrete {
                    self.plan.no_step_size.get_or_insert_with(|| node.label());
                }
                let rate = self.rate;
                let make = |delay, reverse| Ok(System::diagonal(d.clone(), rate, delay, reverse));
                self.state_space(node, nodes.get(1), &d.ssm, x, make)
            }
            Node::Dplr(d) => {
                let rate = self.rate;
                let make = |delay, reverse| Ok(System::dplr(d.clone(), rate, delay, reverse));
                self.state_space(node, nodes.get(1), &d.ssm, x, make)
            }
            Node::Dense(d) => {
                let rate = self.rate;
                let make = |delay, reverse| System::dense(d.clone(), rate, delay, reverse);
                self.state_space(node, nodes.get(1), &d.ssm, x, make)
            }
            Node::DiagonalMimo(m) => Ok((self.mimo(node, m, x)?, 1)),
            Node::Selective(s) => {
                let (d, n, r) = (s.channels(), s.modes(), s.rank());
                let (low, bc) = (self.buffer(r), self.buffer(2 * n));
                let weight = |from: usize, to: usize| &s.x_proj.data[from * d..to * d];
                let linear = |weight: &[f64]| {
                    Linear::new(d, weight.len() / d, |row, k| weight[row * d + k], None, Epilogue::None)
                };
                self.push(Op::Linear { layer: linear(weight(0, r)), x, y: low });
                self.push(Op::Linear { layer: linear(weight(r, r + 2 * n)), x, y: bc });
                let dt = self.buffer(d);
                let softplus = Epilogue::Apply(Function::Softplus);
                let layer = Linear::new(r, d, |row, k| s.dt_proj.data[row * r + k], Some(&s.dt_bias), softplus);
                self.push(Op::Linear { layer, x: low, y: dt });
                let layer = Selective::new(&s.a.data, &s.d, self.rate);
                let (state, y) = (self.place(layer.state_len()), self.buffer(d));
                self.push(Op::Selective { layer, state, x, dt, bc, y });
                self.free.extend([low, bc, dt]);
                Ok((y, 1))
            }
            Node::Sequential(_) => {
                let mut inner = Vec::new();
                flatten(node, &mut inner);
                let y = self.chain(&inner, x, keep)?;
                Ok((y, 1))
            }
            Node::Residual(r) => {
                let child = self.branch(&r.child, x)?;
                let skip = match &r.skip {
                    Some(skip) => self.branch(skip, x)?,
                    None => x,
                };
                let y = self.own(child, child.id == x.id || child.id == skip.id);
                let beta = match &r.beta {
                    Factor::All(b) => std::slice::from_ref(b),
                    Factor::Each(b) => b,
                };
                let (norm, taken) = match nodes.get(1) {
                    Some(Node::Norm(n)) => (Some(norm_of(n, y.width)), 2),
                    _ => (None, 1),
                };
                let layer = Residual::new(y.width, r.alpha, beta, norm);
                self.push(Op::Residual { layer, x: skip, y });
                if skip.id != x.id {
                    self.free.push(skip);
                }
                Ok((y, taken))
            }
            Node::Gate(g) => {
                let left = self.branch(&g.left, x)?;
                let right = self.branch(&g.right, x)?;
                let y = self.own(right, right.id == x.id || right.id == left.id);
                self.push(Op::Multiply { x: left, y });
                if left.id != x.id {
                    self.free.push(left);
                }
                Ok((y, 1))
            }
            Node::Pool(p) => Err(Error::Document(format!("{}: pooling stands at the end only", p.name))),
        }
    }

    /// A branch from `x`, which is needed afterwards.
    fn branch(&mut self, node: &Node, x: Buffer) -> Result<Buffer> {
        let mut nodes = Vec::new();
        flatten(node, &mut nodes);
        self.chain(&nodes, x, true)
    }

    /// `x` itself, or a copy where it is still needed.
    fn own(&mut self, x: Buffer, keep: bool) -> Buffer {
        if !keep {
            return x;
        }
        let y = self.buffer(x.width);
        self.push(Op::Copy { x, y });
        y
    }

    /// Notes that a layer runs backwards, from the end of the padding or of the sequence: one way for all layers.
    fn reverses(&mut self, node: &Node, over_padding: bool) -> Result<()> {
        if self.padding_seen.replace(over_padding).is_some_and(|before| before != over_padding) {
            return Err(Error::Unsupported(format!(
                "{}: some bidirectional layers start at the end of the padding and others before it",
                node.label()
            )));
        }
        self.plan.padding_seen = over_padding;
        Ok(())
    }

    fn needs_all(&mut self, node: &Node, why: &str) {
        self.plan.not_causal.get_or_insert_with(|| NotCausal { layer: node.label(), why: why.into() });
    }

    /// A layer of independent channels, whatever its system.
    fn state_space<T>(
        &mut self,
        node: &Node,
        next: Option<&&Node>,
        ssm: &StateSpace<T>,
        x: Buffer,
        make: impl Fn(usize, bool) -> Result<System>,
    ) -> Result<(Buffer, usize)> {
        let (h, m) = (ssm.channels(), ssm.outputs());
        let skip = |i: usize, j: usize| ssm.d.data[i * h + j];
        let cut = ssm.kernel_length.map(|cut| cut_at(cut, self.rate));
        if ssm.c_reverse.is_some() {
            self.needs_all(node, "is bidirectional");
            self.reverses(node, false)?;
        }
        if let (Some(cut), true) = (cut, ssm.c_reverse.is_some()) {
            let source = |reverse| Ok::<_, Error>(Source::System(make(0, reverse)?, cut));
            return Ok((self.convolution(source(false)?, Some(source(true)?), ssm, x), 1));
        }
        let short = cut.filter(|&cut| cut <= SHORT);
        let function = curve(next);
        let alone = ssm.c_reverse.is_none() && (ssm.kernel_length.is_none() || short.is_some());
        let system = make(0, false)?;
        let system = if let Some(cut) = short { system.windowed(cut) } else { system };
        system.check().map_err(|e| Error::Document(format!("{}: {e}", node.label())))?;
        let y = self.buffer(m * h);
        let fused = if alone { function.unwrap_or(Function::Identity) } else { Function::Identity };
        let layer = Lti::new(&self.team, system, ssm.head_major, skip, fused, Direction::Forward);
        self.lti(layer, x, y, 0);
        if ssm.c_reverse.is_some() {
            let layer = Lti::new(
                &self.team,
                make(0, true)?,
                ssm.head_major,
                |_, _| 0.0,
                Function::Identity,
                Direction::Backward,
            );
            self.lti(layer, x, y, 0);
        }
        if cut.is_some() {
            self.plan.cut_kernel.get_or_insert_with(|| node.label());
        }
        if let Some(cut) = cut.filter(|_| short.is_none()) {
            // The kernel without its tail is the kernel less what the inputs of `cut` samples ago would give.
            let (late, tail) = (self.buffer(h), self.buffer(m * h));
            let state = self.place(cut * padded(h));
            self.push(Op::Delay { len: cut, state, x, y: late });
            let layer = Lti::new(
                &self.team,
                make(cut, false)?,
                ssm.head_major,
                |_, _| 0.0,
                Function::Identity,
                Direction::Forward,
            );
            self.lti(layer, late, tail, cut as u64);
            let op = Op::Residual { layer: Residual::new(m * h, -1.0, &[1.0], None), x: tail, y };
            self.ops.push((op, cut as u64));
            self.free.extend([late, tail]);
        }
        Ok((y, if alone && function.is_some() { 2 } else { 1 }))
    }

    fn lti(&mut self, layer: Lti<E>, x: Buffer, y: Buffer, after: u64) {
        self.plan.scratch_len = self.plan.scratch_len.max(layer.scratch_len());
        self.plan.tile_rows = self.plan.tile_rows.max(layer.tile_rows());
        let layer = layer.after(self.groups);
        self.groups += layer.groups();
        let state = self.place(layer.state_len());
        self.ops.push((Op::Lti { layer: Box::new(layer), state, x, y }, after));
    }

    fn convolution<T>(&mut self, forward: Source, backward: Option<Source>, ssm: &StateSpace<T>, x: Buffer) -> Buffer {
        let h = ssm.channels();
        let y = self.buffer(ssm.outputs() * h);
        let layer = Convolution::new(forward, backward, ssm.head_major, |i, j| ssm.d.data[i * h + j]);
        self.push(Op::Convolution { layer: Box::new(layer), x, y });
        y
    }

    /// S5, LRU: B as a matrix product, the modes, C as a matrix product.
    fn mimo(&mut self, node: &Node, m: &DiagonalMimo, x: Buffer) -> Result<Buffer> {
        let (n, d_out) = (m.modes(), m.c.shape[0]);
        if m.disc == Disc::Discrete {
            self.plan.no_step_size.get_or_insert_with(|| node.label());
        }
        if m.c_reverse.is_some() {
            self.needs_all(node, "is bidirectional");
            self.reverses(node, m.reverse_over_padding)?;
        }
        let step: Vec<f64> = (0..n).map(|i| m.dt.as_ref().map_or(1.0, |dt| dt[i] * self.rate)).collect();
        let y = self.buffer(d_out);
        let factor = if m.conjugate_pairs { 2.0 } else { 1.0 };
        self.mimo_pass(m, &step, &m.c, factor, false, x, y);
        if let Some(c) = &m.c_reverse {
            let z = self.buffer(d_out);
            self.mimo_pass(m, &step, c, factor, true, x, z);
            self.push(Op::Add { layer: Residual::new(d_out, 1.0, &[1.0], None), x: z, y });
            self.free.push(z);
        }
        if let Some(d) = &m.d {
            self.push(Op::Add { layer: Residual::new(d_out, 1.0, d, None), x, y });
        }
        Ok(y)
    }

    #[allow(clippy::too_many_arguments)]
    fn mimo_pass(
        &mut self,
        m: &DiagonalMimo,
        step: &[f64],
        c: &crate::document::ComplexArray,
        factor: f64,
        reverse: bool,
        x: Buffer,
        y: Buffer,
    ) {
        let (n, d_in, d_out) = (m.modes(), m.b.shape[1], c.shape[0]);
        let half = padded(n);
        // Rows of the real parts, then of the imaginary ones, each padded to groups: the layout of the states.
        let mut b = vec![0.0; 2 * half * d_in];
        for i in 0..n {
            let f = discretize::discretize_mode(m.disc, m.alpha, m.a[i], step[i]).f;
            for j in 0..d_in {
                let v: Complex64 = m.b.data[i * d_in + j] * f;
                (b[i * d_in + j], b[(half + i) * d_in + j]) = (v.re, v.im);
            }
        }
        let mut weight = vec![0.0; d_out * 2 * half];
        for o in 0..d_out {
            for i in 0..n {
                let v = c.data[o * n + i] * factor;
                (weight[o * 2 * half + i], weight[o * 2 * half + half + i]) = (v.re, -v.im);
            }
        }
        let v = self.buffer(2 * half);
        let layer = Linear::new(d_in, 2 * half, |row, k| b[row * d_in + k], None, Epilogue::None);
        self.push(Op::Linear { layer, x, y: v });
        let layer = Mimo::new(m.a.clone(), step.to_vec(), m.disc, m.alpha, reverse);
        let state = self.place(layer.state_len());
        self.push(Op::Mimo { layer, state, x: v });
        let layer = Linear::new(2 * half, d_out, |row, k| weight[row * 2 * half + k], None, Epilogue::None);
        self.push(Op::Linear { layer, x: v, y });
        self.free.push(v);
    }
}

//! From the Document's tree to a plan's list of operations: buffers, slices of the state, fused neighbours.

mod state_space;

use crate::discretize::Disc;
use crate::document::{
    Activation, ActivationFunction, Array, Document, Factor, Matrix, Node, Norm as NormNode, Systems,
};
use crate::error::{Error, Result};
use crate::kernels::aligned::fits;
use crate::kernels::linear::Epilogue;
use crate::kernels::norm::{Norm, Residual};
use crate::kernels::pointwise::Function;
use crate::kernels::{Aligned, Elem, GROUP, Isa, padded};
use crate::layers::system::System;
use crate::memory::{Buffer, HEAD, StateSlice};
use crate::ops::{RowOp, SequenceOp, Stage};
use crate::packed::Packed;
use crate::plan::{BLOCK_ROWS, NotCausal, Plan, Pooling};
use crate::threads::Team;
use crate::workspace::{Layout, Spare};

/// Elements of activations that a block of rows may take: about what a core's L2 cache holds.
const BLOCK_ELEMENTS: usize = 192 * 1024;
/// Elements of activations that a sample may take, and of a block four times as many, 256 MiB in float32: a tree needs no tensors
/// for nodes as wide as its input, and so could ask for any multiple of its file.
const MOST_ELEMENTS: usize = 1 << 24;
/// Rows of a block where not even so many as [`NEAR_ROWS`] would stay in that cache: then matrices are better read less
/// often.
const FAR_ROWS: usize = 1024;
const NEAR_ROWS: usize = 256;

impl<E: Elem> Plan<E> {
    /// As [`Plan::new`], with the matrices that other rates' plans have packed, for a document of that fingerprint.
    pub(crate) fn sharing(
        document: &Document,
        packed: &Packed<E>,
        fingerprint: u64,
        rate: f64,
        isa: Isa,
        team: &Team,
    ) -> Result<Self> {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(Error::Value(format!("rate: expected a positive number, found {rate}")));
        }
        let mut lowering = Lowering::new(packed, rate, team);
        let input = lowering.buffer(document.d_input());
        let mut nodes = Vec::new();
        flatten(document.root(), &mut nodes);
        let at = nodes.iter().position(|n| matches!(n, Node::Pool(_)));
        let (trunk, head) = nodes.split_at(at.unwrap_or(nodes.len()));
        // The input may be the caller's own: nothing is written there.
        let mut output = lowering.chain(trunk, input, true)?;
        let mut trunk = std::mem::take(&mut lowering.stages);
        let mut pool = None;
        if let [Node::Pool(node), head @ ..] = head {
            let target = lowering.buffer(output.width);
            let state = lowering.state(Pooling::state_len(output.width)).from;
            pool = Some(Pooling { mode: node.mode, source: output, target, state });
            output = lowering.chain(head, target, false)?;
        }
        if let Some((matrix, x, y)) = lowering.table.take() {
            Stage::begin_with(&mut trunk, RowOp::Embed { table: packed.table(&matrix)?, x, y });
        }
        if lowering.state_len > isize::MAX as usize / size_of::<E>() {
            return Err(Error::Memory("the model: expected a state that fits into memory, found a larger one".into()));
        }
        let (layout, start) = (lowering.layout(), lowering.start());
        if layout.row_len > MOST_ELEMENTS {
            return Err(Error::Document(format!(
                "expected activations of at most {MOST_ELEMENTS} numbers a sample, found {}",
                layout.row_len
            )));
        }
        let near = BLOCK_ELEMENTS / layout.row_len.max(1);
        let rows = if near < NEAR_ROWS { FAR_ROWS } else { near.clamp(BLOCK_ROWS.0, BLOCK_ROWS.1) };
        let rows = rows.min(4 * MOST_ELEMENTS / layout.row_len.max(1));
        let mut plan = Plan {
            trunk,
            pool,
            head: lowering.stages,
            input,
            output,
            layout,
            state_len: lowering.state_len,
            start,
            block_rows: rows.next_multiple_of(lowering.tile_rows.max(1)),
            tile_rows: lowering.tile_rows,
            not_causal: lowering.not_causal,
            reverse_over_padding: lowering.reverse_over_padding.unwrap_or(false),
            no_step_size: lowering.no_step_size,
            cut_kernel: lowering.cut_kernel,
            vocabulary: lowering.vocabulary,
            isa,
            fingerprint: fingerprint ^ rate.to_bits().rotate_left(17) ^ size_of::<E>() as u64,
            crew: None,
            spare: Spare::default(),
        };
        plan.share_samples(team);
        Ok(plan)
    }
}

struct Lowering<'a, E> {
    packed: &'a Packed<E>,
    rate: f64,
    team: &'a Team,
    stages: Vec<Stage<E>>,
    /// Channels a row of each buffer.
    widths: Vec<usize>,
    /// Buffers that nothing needs any more.
    free: Vec<Buffer>,
    state_len: usize,
    /// What parts of the state hold at a stream's start that are not zero.
    starts: Vec<(StateSlice, Vec<E>)>,
    scratch_len: usize,
    /// Rows for which a layer reads its matrices once.
    tile_rows: usize,
    /// Groups of lanes that the layers so far have.
    groups: usize,
    not_causal: Option<NotCausal>,
    reverse_over_padding: Option<bool>,
    no_step_size: Option<String>,
    cut_kernel: Option<String>,
    vocabulary: Option<usize>,
    /// The table that the tokens, in the first buffer, choose rows of, which go to the second one.
    table: Option<(Matrix, Buffer, Buffer)>,
}

/// Nested sequences as one list.
fn flatten<'a>(node: &'a Node, nodes: &mut Vec<&'a Node>) {
    match node {
        Node::Sequential(s) => s.children.iter().for_each(|child| flatten(child, nodes)),
        other => nodes.push(other),
    }
}

/// The element-wise function of a node, if it is that and nothing else.
fn elementwise(node: Option<&&Node>) -> Option<Function> {
    match node {
        Some(Node::Activation(Activation { function: ActivationFunction::Pointwise(function), .. })) => Some(*function),
        _ => None,
    }
}

fn norm_of<E: Elem>(n: &NormNode, width: usize) -> Norm<E> {
    let values = |array: &Option<Array>| array.as_ref().map(|a| a.data.to_vec());
    let norm = Norm::new(n.kind, width, values(&n.weight).as_deref(), values(&n.bias).as_deref(), n.eps, n.shift);
    norm.over_runs(n.size.unwrap_or(width))
}

fn row<E: Elem>(values: impl IntoIterator<Item = f64>) -> Aligned<E> {
    let mut row: Vec<E> = values.into_iter().map(E::of).collect();
    row.resize(padded(row.len()), E::ZERO);
    row.into_iter().collect()
}

/// Fails where there is little memory: planning is hundreds of small pieces, and what cannot end well does not begin.
fn enough_to_plan() -> Result<()> {
    const BYTES: usize = 1 << 24;
    // What a page's memory has grown by stays.
    if cfg!(target_family = "wasm") { Ok(()) } else { fits::<u8>("bytes to plan in", BYTES, 1).map(drop) }
}

impl<'a, E: Elem> Lowering<'a, E> {
    fn new(packed: &'a Packed<E>, rate: f64, team: &'a Team) -> Self {
        Self {
            packed,
            rate,
            team,
            stages: Vec::new(),
            widths: Vec::new(),
            free: Vec::new(),
            state_len: HEAD,
            starts: Vec::new(),
            scratch_len: 0,
            tile_rows: 0,
            groups: 0,
            not_causal: None,
            reverse_over_padding: None,
            no_step_size: None,
            cut_kernel: None,
            vocabulary: None,
            table: None,
        }
    }

    fn layout(&self) -> Layout {
        let mut layout = Layout { scratch_len: self.scratch_len, ..Layout::default() };
        for width in &self.widths {
            layout.offsets.push(layout.row_len);
            layout.row_len = layout.row_len.saturating_add(padded(*width));
        }
        layout
    }

    fn buffer(&mut self, width: usize) -> Buffer {
        if let Some(i) = self.free.iter().position(|b| padded(b.width) == padded(width)) {
            return Buffer { width, ..self.free.swap_remove(i) };
        }
        self.widths.push(width);
        Buffer { id: self.widths.len() - 1, width }
    }

    fn state(&mut self, len: usize) -> StateSlice {
        let from = self.state_len;
        let end = from.checked_add(len).and_then(|end| end.checked_next_multiple_of(GROUP));
        self.state_len = end.unwrap_or(usize::MAX);
        StateSlice { from, len }
    }

    /// Notes what a part of the state holds at a stream's start, where that is not zero.
    fn starts(&mut self, slice: StateSlice, values: Option<Vec<E>>) {
        self.starts.extend(values.filter(|v| v.iter().any(|&x| x != E::ZERO)).map(|values| (slice, values)));
    }

    /// The state at a stream's start, where that is not zero.
    fn start(&self) -> Option<Aligned<E>> {
        if self.starts.is_empty() {
            return None;
        }
        let mut start = Aligned::zeros(self.state_len);
        for (slice, values) in &self.starts {
            start[slice.from..][..slice.len].copy_from_slice(values);
        }
        Some(start)
    }

    fn rows(&mut self, op: RowOp<E>) {
        Stage::push_rows(&mut self.stages, op, 0);
    }

    fn sequence(&mut self, op: SequenceOp<E>) {
        Stage::push_sequence(&mut self.stages, op, 0);
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
        enough_to_plan()?;
        if let Some(systems) = node.systems() {
            self.check(node, systems)?;
        }
        match node {
            Node::Linear(l) => {
                let d_out = l.weight.shape[0];
                let (epilogue, width, taken) = match (nodes.get(1), elementwise(nodes.get(1))) {
                    (Some(Node::Glu(glu)), _) => (Epilogue::Glu(glu.gate), d_out / 2, 2),
                    (_, Some(function)) => (Epilogue::Apply(function), d_out, 2),
                    (_, None) => (Epilogue::None, d_out, 1),
                };
                let y = self.buffer(width);
                let bias = l.bias.as_ref().map(|bias| &bias.data[..]);
                let layer = self.packed.linear(&l.weight, 0..d_out, bias, epilogue)?;
                self.rows(RowOp::Linear { layer, x, y });
                Ok((y, taken))
            }
            Node::Embedding(e) => {
                let y = self.buffer(e.weight.shape[1]);
                self.vocabulary = Some(e.weight.shape[0]);
                self.table = Some((e.weight.clone(), x, y));
                Ok((y, 1))
            }
            Node::Norm(n) => {
                let y = self.buffer(x.width);
                self.rows(RowOp::Norm { layer: norm_of(n, x.width), x, y });
                Ok((y, 1))
            }
            Node::Activation(a) => {
                let y = self.own(x, keep);
                let size = a.size.unwrap_or(x.width);
                match a.function {
                    ActivationFunction::Pointwise(Function::Identity) => {}
                    ActivationFunction::Pointwise(function) => self.rows(RowOp::Pointwise { function, x: y }),
                    ActivationFunction::Softmax => self.rows(RowOp::Softmax { log: false, size, x: y }),
                    ActivationFunction::LogSoftmax => self.rows(RowOp::Softmax { log: true, size, x: y }),
                }
                Ok((y, 1))
            }
            Node::Glu(g) => {
                let y = self.buffer(x.width / 2);
                self.rows(RowOp::Glu { gate: g.gate, x, y });
                Ok((y, 1))
            }
            Node::Conv1d(c) => {
                let (d, taps) = (c.weight.shape[0], c.weight.shape[1]);
                let y = self.buffer(d);
                let state = self.state((taps - 1).saturating_mul(padded(d)));
                let weight =
                    (0..taps).flat_map(|k| row::<E>((0..d).map(|i| c.weight.data[i * taps + k])).to_vec()).collect();
                // One row a sample, as the weights are.
                let past = c.x0.as_ref().map(|x0| {
                    (0..taps - 1).flat_map(|k| row::<E>((0..d).map(|i| x0.data[i * (taps - 1) + k])).to_vec()).collect()
                });
                self.starts(state, past);
                let bias = row((0..d).map(|i| c.bias.as_ref().map_or(0.0, |b| b.data[i])));
                self.sequence(SequenceOp::Conv1d { weight, bias, taps, state, x, y });
                Ok((y, 1))
            }
            Node::Diagonal(d) if d.disc == Disc::Dss => Ok((self.dss(node, d, x)?, 1)),
            Node::Diagonal(d) => self.siso(node, &d.ssm, System::diagonal(d, self.rate), nodes.get(1), x),
            Node::Dplr(d) => self.siso(node, &d.ssm, System::dplr(d, self.rate), nodes.get(1), x),
            Node::Dense(d) => self.siso(node, &d.ssm, System::dense(d, self.rate), nodes.get(1), x),
            Node::DiagonalMimo(m) => Ok((self.mimo(node, m, x)?, 1)),
            Node::Linoss(l) => Ok((self.linoss(l, x)?, 1)),
            Node::Selective(s) => Ok((self.selective(s, x)?, 1)),
            Node::Ssd(s) => Ok((self.ssd(s, x)?, 1)),
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
                    Factor::Each(b) => &b.data,
                };
                let (norm, taken) = match nodes.get(1) {
                    Some(Node::Norm(n)) => (Some(norm_of(n, y.width)), 2),
                    _ => (None, 1),
                };
                let layer = Residual::new(y.width, r.alpha, beta, norm);
                self.rows(RowOp::Residual { layer, x: skip, y });
                if skip.id != x.id {
                    self.free.push(skip);
                }
                Ok((y, taken))
            }
            Node::Gate(g) => {
                let left = self.branch(&g.left, x)?;
                let right = self.branch(&g.right, x)?;
                let y = self.own(right, right.id == x.id || right.id == left.id);
                self.rows(RowOp::Multiply { x: left, y });
                if left.id != x.id {
                    self.free.push(left);
                }
                Ok((y, 1))
            }
            Node::Pool(p) => Err(Error::Document(format!("{}: pooling stands at the end only", p.name))),
        }
    }

    /// Fails where systems cannot run at this rate.
    fn check(&mut self, node: &Node, systems: &dyn Systems) -> Result<()> {
        let rate = self.rate;
        if !systems.has_step_size() {
            let layer = node.label();
            if rate != 1.0 {
                return Err(Error::Unsupported(format!(
                    "rate={rate}: layer {layer} has no step size that a rate could multiply; \
                     its recurrence was trained in discrete time"
                )));
            }
            self.no_step_size.get_or_insert(layer);
        }
        systems.prepare(self.team).map_err(|error| Error::Document(format!("{}: {error}", node.label())))?;
        systems.check_stable(&node.label(), rate)
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
        self.rows(RowOp::Copy { x, y });
        y
    }
}

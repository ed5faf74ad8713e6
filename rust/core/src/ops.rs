//! The operations that a plan is made of.

use crate::kernels::conv1d::conv1d;
use crate::kernels::linear::Linear;
use crate::kernels::lookahead::SampleCount;
use crate::kernels::norm::{self, Norm, Residual};
use crate::kernels::pointwise::{self, Function};
use crate::kernels::selective::Selective;
use crate::kernels::softmax::softmax;
use crate::kernels::ssd::{Ssd, Steps};
use crate::kernels::step::Streams;
use crate::kernels::{Aligned, Elem, GROUP, padded};
use crate::layers::convolution::Convolution;
use crate::layers::lti::{Lti, Run};
use crate::layers::mimo::Mimo;
use crate::memory::{Buffer, Context, StateSlice};
use crate::packed::Table;
use crate::shared::Shared;
use std::ops::Range;
use std::sync::Arc;

/// An operation that computes every row by itself. Where it has one buffer it works in place.
#[derive(Debug)]
pub enum RowOp<E> {
    /// y = table\[x\]
    Embed {
        table: Arc<Table<E>>,
        x: Buffer,
        y: Buffer,
    },
    Linear {
        layer: Arc<Linear<E>>,
        x: Buffer,
        y: Buffer,
    },
    Norm {
        layer: Norm<E>,
        x: Buffer,
        y: Buffer,
    },
    Pointwise {
        function: Function,
        x: Buffer,
    },
    Softmax {
        log: bool,
        size: usize,
        x: Buffer,
    },
    Glu {
        gate: Function,
        x: Buffer,
        y: Buffer,
    },
    /// y = norm(alpha x + beta y)
    Residual {
        layer: Residual<E>,
        x: Buffer,
        y: Buffer,
    },
    /// y = norm(alpha y + beta x)
    Add {
        layer: Residual<E>,
        x: Buffer,
        y: Buffer,
    },
    /// y = (dt, exp(dt A)) of each head of an [`Ssd`]
    Steps {
        layer: Steps<E>,
        x: Buffer,
        y: Buffer,
    },
    /// y = x y
    Multiply {
        x: Buffer,
        y: Buffer,
    },
    Copy {
        x: Buffer,
        y: Buffer,
    },
}

/// An operation that needs the rows before. Where it has one buffer it works in place.
#[derive(Debug)]
pub enum SequenceOp<E> {
    Conv1d {
        weight: Aligned<E>,
        bias: Aligned<E>,
        taps: usize,
        state: StateSlice,
        x: Buffer,
        y: Buffer,
    },
    Lti {
        layer: Box<Lti<E>>,
        state: StateSlice,
        x: Buffer,
        y: Buffer,
    },
    Mimo {
        layer: Box<Mimo<E>>,
        state: StateSlice,
        x: Buffer,
    },
    Convolution {
        layer: Box<Convolution<E>>,
        x: Buffer,
        y: Buffer,
    },
    Selective {
        layer: Box<Selective<E>>,
        state: StateSlice,
        x: Buffer,
        dt: Buffer,
        bc: Buffer,
        y: Buffer,
    },
    Ssd {
        layer: Box<Ssd<E>>,
        state: StateSlice,
        xbc: Buffer,
        steps: Buffer,
        y: Buffer,
    },
    /// y = x as it was `len` samples ago, zero before that.
    Delay {
        len: usize,
        state: StateSlice,
        x: Buffer,
        y: Buffer,
    },
}

/// Multiply-adds that are worth waking another thread for.
const GRAIN: usize = 1 << 16;

/// Rows that go through all operations of a [`Stage::Rows`] before the next ones, so that their activations stay in the
/// L1 cache.
const TILE_ROWS: usize = 96;

/// Operations that run between two meetings of the team.
#[derive(Debug)]
pub enum Stage<E> {
    /// One that needs the rows before, and shares itself out.
    Sequence {
        op: SequenceOp<E>,
        /// The sample of a stream from which it has any effect.
        from: u64,
    },
    /// Some that compute every row by itself.
    Rows {
        ops: Vec<RowOp<E>>,
        /// Multiply-adds a row, roughly.
        cost: usize,
        /// The sample of a stream from which they have any effect.
        from: u64,
    },
}

impl<E: Elem> Stage<E> {
    /// Appends an operation to a list of stages, with those before it where they go row by row together.
    pub fn push_rows(stages: &mut Vec<Stage<E>>, op: RowOp<E>, from: u64) {
        let (reads, writes) = op.buffers();
        assert_ne!(reads.map(|b| b.id), Some(writes.id), "no operation reads a buffer that it writes: {op:?}");
        let more = op.cost();
        match stages.last_mut() {
            Some(Stage::Rows { ops, cost, from: 0 }) if from == 0 => {
                ops.push(op);
                *cost += more;
            }
            _ => stages.push(Stage::Rows { ops: vec![op], cost: more, from }),
        }
    }

    /// Appends an operation to a list of stages.
    pub fn push_sequence(stages: &mut Vec<Stage<E>>, op: SequenceOp<E>, from: u64) {
        let (reads, writes) = op.buffers();
        assert!(
            reads.iter().flatten().all(|b| b.id != writes.id),
            "no operation reads a buffer that it writes: {op:?}"
        );
        stages.push(Stage::Sequence { op, from });
    }

    /// Puts an operation in front of a list of stages.
    pub fn begin_with(stages: &mut Vec<Stage<E>>, op: RowOp<E>) {
        let rest = std::mem::take(stages);
        Self::push_rows(stages, op, 0);
        for stage in rest {
            match stage {
                Stage::Rows { ops, from: 0, .. } if stages.len() == 1 => {
                    ops.into_iter().for_each(|op| Self::push_rows(stages, op, 0));
                }
                other => stages.push(other),
            }
        }
    }

    /// Multiply-adds a row, roughly, of what computes every row by itself.
    pub fn row_cost(&self) -> usize {
        match self {
            Stage::Rows { cost, .. } => *cost,
            Stage::Sequence { .. } => 0,
        }
    }

    /// The linear maps among its operations.
    pub fn linear_maps(&self) -> impl Iterator<Item = &Linear<E>> {
        let ops = match self {
            Stage::Rows { ops, .. } => &ops[..],
            Stage::Sequence { .. } => &[],
        };
        ops.iter().filter_map(|op| if let RowOp::Linear { layer, .. } = op { Some(&**layer) } else { None })
    }

    /// The pieces that a team can share it out in, where it needs the rows before.
    pub fn pieces(&self) -> Option<usize> {
        match self {
            Stage::Sequence { op: SequenceOp::Lti { layer, .. }, .. } => Some(layer.groups()),
            Stage::Sequence { op: SequenceOp::Ssd { layer, .. }, .. } => Some(layer.tiles()),
            Stage::Sequence { .. } => Some(1),
            Stage::Rows { .. } => None,
        }
    }

    /// Runs it over all rows of all streams of a block.
    pub fn run(&self, c: &Context<'_, E>) {
        let (Stage::Sequence { from, .. } | Stage::Rows { from, .. }) = self;
        if *from > 0 && c.last_position() + c.rows as u64 <= *from {
            return;
        }
        match self {
            Stage::Sequence { op, .. } => op.run(c),
            Stage::Rows { ops, cost, .. } => match c.by_columns {
                Some(threads) => ops.iter().for_each(|op| op.run_by_columns(c, threads)),
                None => by_rows(c, *cost, |from, to| {
                    for first in (from..to).step_by(TILE_ROWS) {
                        for op in ops {
                            // SAFETY: these rows are no one else's.
                            unsafe { op.run(c, first, TILE_ROWS.min(to - first)) };
                        }
                    }
                }),
            },
        }
    }
}

impl<E: Elem> RowOp<E> {
    /// Multiply-adds a row, roughly.
    fn cost(&self) -> usize {
        match self {
            RowOp::Linear { layer, x, .. } => layer.d_in() * x.width.max(layer.d_out()),
            RowOp::Norm { x, .. } => 8 * x.width,
            RowOp::Pointwise { x, .. }
            | RowOp::Residual { x, .. }
            | RowOp::Add { x, .. }
            | RowOp::Softmax { x, .. } => 16 * x.width,
            RowOp::Glu { y, .. } | RowOp::Steps { y, .. } => 16 * y.width,
            RowOp::Embed { y, .. } | RowOp::Multiply { y, .. } | RowOp::Copy { y, .. } => y.width,
        }
    }

    /// The buffer that it reads, if any, and the one that it writes.
    fn buffers(&self) -> (Option<Buffer>, Buffer) {
        match self {
            RowOp::Embed { x, y, .. }
            | RowOp::Linear { x, y, .. }
            | RowOp::Norm { x, y, .. }
            | RowOp::Glu { x, y, .. }
            | RowOp::Residual { x, y, .. }
            | RowOp::Add { x, y, .. }
            | RowOp::Steps { x, y, .. }
            | RowOp::Multiply { x, y }
            | RowOp::Copy { x, y } => (Some(*x), *y),
            RowOp::Pointwise { x, .. } | RowOp::Softmax { x, .. } => (None, *x),
        }
    }

    /// Runs it over `n` rows from `first` on, of all streams' rows.
    ///
    /// # Safety
    /// No one else touches these rows.
    unsafe fn run(&self, c: &Context<'_, E>, first: usize, n: usize) {
        // SAFETY: the caller answers for the rows; what is read is another buffer than what is written, which
        // `Stage::push_rows` has checked.
        let read = |buffer: Buffer| unsafe { c.read_rows(buffer, first, n) };
        // SAFETY: the caller answers for the rows, of which there is no other slice.
        let write = |buffer: Buffer| unsafe { c.write_rows(buffer, first, n) };
        match self {
            RowOp::Embed { table, x, y } => {
                let stride = padded(y.width);
                for (x, y) in read(*x).chunks_exact(padded(1)).zip(write(*y).chunks_exact_mut(stride)) {
                    table.read(x[0].f64() as usize, y);
                }
            }
            RowOp::Linear { layer, x, y } => layer.run(c.isa, n, read(*x), write(*y)),
            RowOp::Norm { layer, x, y } => layer.run(c.isa, n, read(*x), write(*y)),
            RowOp::Pointwise { function, x } => pointwise::run(c.isa, *function, n, padded(x.width), write(*x)),
            RowOp::Softmax { log, size, x } => softmax(*log, n, x.width, *size, write(*x)),
            RowOp::Glu { gate, x, y } => pointwise::glu(c.isa, *gate, n, y.width, read(*x), write(*y)),
            RowOp::Residual { layer, x, y } => layer.run_on_branch(c.isa, n, read(*x), write(*y)),
            RowOp::Add { layer, x, y } => layer.run_on_skip(c.isa, n, write(*y), read(*x)),
            RowOp::Steps { layer, x, y } => layer.run(c.isa, n, c.dt, read(*x), write(*y)),
            RowOp::Multiply { x, y } => norm::mul_in_place(c.isa, n, x.width, read(*x), write(*y)),
            RowOp::Copy { x, y } => write(*y).copy_from_slice(read(*x)),
        }
    }
}

impl<E: Elem> RowOp<E> {
    /// Runs it over all rows of all streams: a matrix shared out to the team by its columns, as for so many threads.
    fn run_by_columns(&self, c: &Context<'_, E>, threads: usize) {
        let rows = c.streams * c.rows;
        let RowOp::Linear { layer, x, y } = self else {
            // SAFETY: the block is this operation's alone.
            return unsafe { self.run(c, 0, rows) };
        };
        let shares = layer.shares(threads);
        // SAFETY: the block is this operation's alone, and x is another buffer than y, which `Stage::push_rows` has checked.
        let (x, y) = unsafe { (c.read(*x), c.write(*y)) };
        let answers = Shared::new(y.as_mut_ptr());
        c.team.each(shares.count, |_, share| {
            // SAFETY: y has all rows and the sums room for all shares, and an item has its share of both to itself.
            unsafe { layer.run_share(c.isa, shares, share, (x, rows), (answers.at(0), c.sums.at(0))) };
        });
        if shares.blocks > 1 {
            // SAFETY: all shares are done.
            let (sums, y) = unsafe { (c.sums.part(0, rows * layer.sums_len(shares)), answers.part(0, y.len())) };
            layer.finish(c.isa, shares, rows, sums, y);
        }
    }
}

impl<E: Elem> SequenceOp<E> {
    /// The buffers that it reads, and the one that it writes.
    fn buffers(&self) -> ([Option<Buffer>; 3], Buffer) {
        match self {
            SequenceOp::Conv1d { x, y, .. }
            | SequenceOp::Lti { x, y, .. }
            | SequenceOp::Convolution { x, y, .. }
            | SequenceOp::Delay { x, y, .. } => ([Some(*x), None, None], *y),
            SequenceOp::Mimo { x, .. } => ([None; 3], *x),
            SequenceOp::Selective { x, dt, bc, y, .. } => ([Some(*x), Some(*dt), Some(*bc)], *y),
            SequenceOp::Ssd { xbc, steps, y, .. } => ([Some(*xbc), Some(*steps), None], *y),
        }
    }

    /// Runs it over all rows of all streams of a block.
    fn run(&self, c: &Context<'_, E>) {
        // SAFETY: the block is this operation's alone, and what is read is another buffer than what is written, which
        // `Stage::push_sequence` has checked.
        let read = |buffer: Buffer| unsafe { c.read(buffer) };
        // SAFETY: the block is this operation's alone, and there is no other slice of the buffer it writes.
        let write = |buffer: Buffer| unsafe { c.write(buffer) };
        // SAFETY: this slice of the state is this operation's alone, and it asks for one stream after the other.
        let state_of = |s: usize, slice: StateSlice| unsafe { c.state(s, slice) };
        match self {
            SequenceOp::Conv1d { weight, bias, taps, state, x, y } => {
                let stride = padded(x.width);
                let (x, y) = (read(*x), write(*y));
                for s in 0..c.streams {
                    let rows = s * c.rows * stride..(s + 1) * c.rows * stride;
                    let past = state_of(s, *state);
                    conv1d(c.isa, weight, bias, *taps, past, &x[rows.clone()], &mut y[rows]);
                }
            }
            SequenceOp::Lti { layer, state, x, y } => run_lti(c, layer, *state, *x, *y),
            SequenceOp::Mimo { layer, state, x } => {
                let (x, len) = (write(*x), c.rows * layer.row_len());
                for s in 0..c.streams {
                    layer.run(c.isa, c.rows, &mut x[s * len..][..len], state_of(s, *state), c.dt);
                }
            }
            SequenceOp::Convolution { layer, x, y } => {
                let (x, y) = (read(*x), write(*y));
                let (i, o) = (x.len() / c.streams, y.len() / c.streams);
                for s in 0..c.streams {
                    layer.run(c.isa, c.team, c.stop, c.rows, &x[s * i..][..i], &mut y[s * o..][..o]);
                }
            }
            SequenceOp::Selective { layer, state, x, dt, bc, y } => {
                let (x, dt, bc, y) = (read(*x), read(*dt), read(*bc), write(*y));
                let (i, j) = (x.len() / c.streams, bc.len() / c.streams);
                for s in 0..c.streams {
                    layer.run(
                        c.isa,
                        c.rows,
                        c.dt,
                        &x[s * i..][..i],
                        &dt[s * i..][..i],
                        &bc[s * j..][..j],
                        state_of(s, *state),
                        &mut y[s * i..][..i],
                    );
                }
            }
            SequenceOp::Ssd { layer, state, xbc, steps, y } => run_ssd(c, layer, *state, [*xbc, *steps], *y),
            SequenceOp::Delay { len, state, x, y } => {
                let stride = padded(x.width);
                let (x, y) = (read(*x), write(*y));
                for s in 0..c.streams {
                    let (position, ring) = (c.position(s) as usize, state_of(s, *state));
                    for t in 0..c.rows {
                        let row = (s * c.rows + t) * stride..(s * c.rows + t + 1) * stride;
                        let at = (position + t) % len * stride;
                        y[row.clone()].copy_from_slice(&ring[at..at + stride]);
                        ring[at..at + stride].copy_from_slice(&x[row]);
                    }
                }
            }
        }
    }
}

/// Shares rows out to the team, as runs from and to. Every row is computed by itself, so that the answer does not
/// depend on how they are shared.
fn by_rows<E: Elem>(c: &Context<'_, E>, cost: usize, f: impl Fn(usize, usize) + Sync) {
    let rows = c.streams * c.rows;
    if c.team.size() == 1 || rows * cost < 2 * GRAIN {
        f(0, rows);
        return;
    }
    let tile = rows.div_ceil(c.team.size()).min(TILE_ROWS);
    c.team.each(rows.div_ceil(tile), |_, i| f(i * tile, rows.min((i + 1) * tile)));
}

fn run_lti<E: Elem>(c: &Context<'_, E>, layer: &Lti<E>, state: StateSlice, x: Buffer, y: Buffer) {
    let groups = layer.groups();
    if c.rows == 1 && c.dt == 1.0 && layer.steps_in_place() {
        step_lti(c, layer, state, x, y);
        return;
    }
    let (from, to) = (padded(x.width), padded(y.width));
    // SAFETY: the block is this operation's alone, and x is another buffer than y. The items below write different
    // columns or streams of y, through its pointer.
    let (input, answers) = unsafe { (c.read(x), Shared::new(c.write(y).as_mut_ptr())) };
    let len = layer.group_state_len();
    // SAFETY: the layer's slice of the state begins there.
    let counts = Shared::new(unsafe { c.states.at(state.from) });
    let method = layer.method(c.method, c.call_rows);
    let run = |s: usize| Run {
        isa: c.isa,
        method,
        phase: c.phase,
        // SAFETY: the row of stream `s` that has its count; it is written when all items are done.
        single: SampleCount::of(unsafe { *counts.at(s * c.state_len) }),
        dt: c.dt,
        rows: c.rows,
        x: &input[s * c.rows * from..][..c.rows * from],
        x_stride: from,
        // SAFETY: the first of stream `s`'s rows.
        y: unsafe { answers.at(s * c.rows * to) },
        y_stride: to,
    };
    let panel = layer.panel(&run(0));
    // Group by group, so that its coefficients are read once for all streams.
    let item = |worker: usize, i: usize| {
        let (first, s) = (i / c.streams * panel, i % c.streams);
        let these = first..groups.min(first + panel);
        let slice = StateSlice { from: state.from + GROUP + first * len, len: these.len() * len };
        // SAFETY: the item has these groups' columns of stream `s`, and their states, to itself.
        unsafe { layer.run(&run(s), these, c.state(s, slice), c.scratch(worker)) };
    };
    let items = groups.div_ceil(panel) * c.streams;
    if c.rows * len < GRAIN / 16 {
        (0..items).for_each(|i| item(0, i));
    } else {
        c.team.each(items, item);
    }
    // SAFETY: all items are done.
    (0..c.streams).for_each(|s| unsafe { *counts.at(s * c.state_len) = E::ZERO });
}

fn run_ssd<E: Elem>(c: &Context<'_, E>, layer: &Ssd<E>, state: StateSlice, [xbc, steps]: [Buffer; 2], y: Buffer) {
    // SAFETY: the block is this operation's alone, and y is another buffer than those that are read. The items below
    // write different channels or streams of y, through its pointer.
    let (xbc, steps, answers) = unsafe { (c.read(xbc), c.read(steps), Shared::new(c.write(y).as_mut_ptr())) };
    let (i, j, o) = (xbc.len() / c.streams, steps.len() / c.streams, c.rows * padded(y.width));
    let len = layer.tile_state_len();
    let item = |s: usize, tiles: Range<usize>| {
        let slice = StateSlice { from: state.from + tiles.start * len, len: tiles.len() * len };
        // SAFETY: the item has these tiles' channels of stream `s`, and their states, to itself.
        unsafe {
            let (xbc, steps) = (&xbc[s * i..][..i], &steps[s * j..][..j]);
            layer.run(c.isa, c.position(s), c.rows, tiles, xbc, steps, c.state(s, slice), answers.at(s * o));
        }
    };
    let tiles = layer.tiles();
    if c.team.size() == 1 || c.streams * c.rows * tiles * len < 2 * GRAIN {
        (0..c.streams).for_each(|s| item(s, 0..tiles));
    } else {
        c.team.each(tiles * c.streams, |_, at| item(at % c.streams, at / c.streams..at / c.streams + 1));
    }
}

/// One sample of each stream, group by group, so that its coefficients are read once for all streams.
fn step_lti<E: Elem>(c: &Context<'_, E>, layer: &Lti<E>, state: StateSlice, x: Buffer, y: Buffer) {
    let (from, to) = (padded(x.width), padded(y.width));
    // SAFETY: the block is this operation's alone, and x is another buffer than y. The groups below write different
    // columns of y, through its pointer.
    let (input, answers) = unsafe { (c.read(x), Shared::new(c.write(y).as_mut_ptr())) };
    // SAFETY: the layer's slice of the state begins there, and of each stream's `state_len` elements further on.
    let states = Shared::new(unsafe { c.states.at(state.from) });
    let groups = |groups: Range<usize>| {
        // SAFETY: rows and states of all streams; the groups' columns and states are no one else's.
        unsafe {
            let (u, y) = ((input.as_ptr(), from), (answers.at(0), to));
            let streams = Streams::new(c.streams, u, y, (states.at(0), c.state_len));
            layer.step(c.isa, c.phase, groups, streams);
        }
    };
    if c.team.size() == 1 {
        groups(0..layer.groups());
    } else {
        c.team.each(layer.groups(), |_, group| groups(group..group + 1));
    }
    by_rows(c, 16 * y.width, |a, b| {
        // SAFETY: the groups are done, and no one else has these rows.
        let (x, y) = unsafe { (c.read_rows(x, a, b - a), c.write_rows(y, a, b - a)) };
        layer.finish_step(c.isa, b - a, x, y);
        for s in a..b {
            // SAFETY: the groups are done with the count, and no one else has this stream.
            unsafe {
                let count = states.at(s * c.state_len);
                *count = SampleCount::of(*count).next();
            }
        }
    });
}

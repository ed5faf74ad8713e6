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
use crate::shared::Shared;
use std::ops::Range;
use std::sync::Arc;

/// An operation that computes every row by itself. Where it has one buffer it works in place.
#[derive(Debug)]
pub enum RowOp<E> {
    /// y = table\[x\]
    Embed {
        table: Arc<Aligned<E>>,
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

    /// Multiply-adds a row, roughly, of what computes every row by itself.
    pub fn row_cost(&self) -> usize {
        match self {
            Stage::Rows { cost, .. } => *cost,
            Stage::Sequence { .. } => 0,
        }
    }

    /// The pieces that a team can share it out in, where it needs the rows before.
    pub fn pieces(&self) -> Option<usize> {
        match self {
            Stage::Sequence { op: SequenceOp::Lti { layer, .. }, .. } => Some(layer.groups()),
            Stage::Sequence { op: SequenceOp::Ssd { layer, .. }, .. } => Some(layer.tiles()),
            Stage::Sequence { op: SequenceOp::Selective { layer, .. }, .. } => Some(layer.groups()),
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
            Stage::Rows { ops, cost, .. } => by_rows(c, *cost, |from, to| {
                for first in (from..to).step_by(TILE_ROWS) {
                    for op in ops {
                        // SAFETY: these rows are no one else's.
                        unsafe { op.run(c, first, TILE_ROWS.min(to - first)) };
                    }
                }
            }),
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
                    y.copy_from_slice(&table[x[0].f64() as usize * stride..][..stride]);
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
                let (inputs, len) = ([read(*x), read(*dt), read(*bc)], layer.group_state_len());
                // An exponential costs about as much as ten multiply-adds.
                by_tiles(c, layer.groups(), 12 * len, *state, len, *y, |s, groups, state, y| {
                    let inputs = inputs.map(|rows| &rows[s * rows.len() / c.streams..][..rows.len() / c.streams]);
                    // SAFETY: y is stream `s`'s rows, of which these groups' channels are no one else's.
                    unsafe { layer.run(c.isa, c.rows, c.dt, groups, inputs, state, y) };
                });
            }
            SequenceOp::Ssd { layer, state, xbc, steps, y } => {
                let (inputs, len) = ([read(*xbc), read(*steps)], layer.tile_state_len());
                by_tiles(c, layer.tiles(), 2 * len, *state, len, *y, |s, tiles, state, y| {
                    let [xbc, steps] = inputs.map(|rows| &rows[s * rows.len() / c.streams..][..rows.len() / c.streams]);
                    // SAFETY: y is stream `s`'s rows, of which these tiles' channels are no one else's.
                    unsafe { layer.run(c.isa, c.rows, tiles, xbc, steps, state, y) };
                });
            }
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

/// Shares the tiles of channels of a layer out to the team, each stream's by themselves: `f` has the stream, the tiles, their
/// states and the stream's rows of y. A tile has `cost` multiply-adds a sample, roughly, and `len` elements of state.
fn by_tiles<E: Elem>(
    c: &Context<'_, E>,
    tiles: usize,
    cost: usize,
    state: StateSlice,
    len: usize,
    y: Buffer,
    f: impl Fn(usize, Range<usize>, &mut [E], *mut E) + Sync,
) {
    // SAFETY: the block is this operation's alone. The items below write different channels or streams of y, through its
    // pointer.
    let answers = Shared::new(unsafe { c.write(y).as_mut_ptr() });
    let item = |s: usize, these: Range<usize>| {
        let slice = StateSlice { from: state.from + these.start * len, len: these.len() * len };
        // SAFETY: the item has these tiles' channels of stream `s`, and their states, to itself.
        let (state, y) = unsafe { (c.state(s, slice), answers.at(s * c.rows * padded(y.width))) };
        f(s, these, state, y);
    };
    if c.team.size() == 1 || c.streams * c.rows * tiles * cost < 2 * GRAIN {
        (0..c.streams).for_each(|s| item(s, 0..tiles));
        return;
    }
    // Several tiles each, since what they share is then made once.
    let parts = tiles.min(2 * c.team.size());
    let part = |i: usize| tiles * i / parts..tiles * (i + 1) / parts;
    c.team.each(parts * c.streams, |_, at| item(at % c.streams, part(at / c.streams)));
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

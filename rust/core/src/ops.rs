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
use crate::layers::lti::{Lti, Method, Run};
use crate::layers::mimo::Mimo;
use crate::memory::{Buffer, Context, StateSlice};
use crate::packed::Table;
use crate::shared::Shared;
use crate::threads::{Order, PIECES};
use crate::turn::Turn;
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

/// As many where the matrices of the operations do not fit into the L2 cache and are read from farther away for each tile.
const FAR_ROWS: usize = 192;

/// Bytes of matrices that the L2 cache holds beside the rows.
const NEAR: usize = 1 << 20;

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

    /// Multiply-adds of a single sample, roughly, with the matrices of a layer's states.
    pub fn matrix_cost(&self) -> usize {
        match self {
            Stage::Sequence { op: SequenceOp::Lti { layer, .. }, .. } => layer.matrix_cost(),
            Stage::Sequence { .. } | Stage::Rows { .. } => 0,
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

    /// Outputs that convolution by FFT keeps kernels of.
    pub fn convolved(&self) -> usize {
        match self {
            Stage::Sequence { op: SequenceOp::Lti { layer, .. }, .. } => layer.groups() * GROUP,
            Stage::Sequence { op: SequenceOp::Convolution { y, .. }, .. } => padded(y.width),
            Stage::Sequence { .. } | Stage::Rows { .. } => 0,
        }
    }

    /// Whether it needs the rows before.
    pub fn needs_rows_before(&self) -> bool {
        matches!(self, Stage::Sequence { .. })
    }

    /// How a part of it follows the same part of the block before, in a call for `rows` samples a stream.
    pub fn order(&self, method: Method, dt: f64, rows: usize) -> Order {
        match self {
            Stage::Rows { .. } => Order::Free,
            Stage::Sequence { op: op @ SequenceOp::Lti { layer, .. }, .. }
                if op.parts() <= PIECES && layer.in_turn(layer.method(method, rows), dt) =>
            {
                Order::Within
            }
            Stage::Sequence { .. } => Order::After,
        }
    }

    /// The independent parts of it, for `streams` streams of `rows` rows: tiles of at most `tile` rows where each row is
    /// computed by itself, and otherwise always the same.
    pub fn parts(&self, streams: usize, rows: usize, tile: usize) -> usize {
        match self {
            Stage::Sequence { op, .. } => op.parts() * streams,
            Stage::Rows { cost, .. } => (streams * rows).div_ceil(tile.clamp(1, tile_rows::<E>(*cost))),
        }
    }

    /// Runs piece `piece` of `pieces` over all rows of all streams of a block. [`Stage::finish`] follows the last one.
    ///
    /// # Safety
    /// No one else runs this piece of the block, nor any piece of its stages before; and where it needs the rows before, this
    /// piece of the blocks before is done, or by its [`Stage::order`] at work and has its turn before it.
    pub unsafe fn run_piece(&self, c: &Context<'_, E>, piece: usize, pieces: usize) {
        if self.idle(c) {
            return;
        }
        let part = |n: usize| piece * n / pieces..(piece + 1) * n / pieces;
        match self {
            // SAFETY: the caller answers for these parts.
            Stage::Sequence { op, .. } => unsafe { op.run_parts(c, 0, part(op.parts() * c.streams)) },
            // SAFETY: the caller answers for these rows.
            Stage::Rows { ops, cost, .. } => unsafe {
                run_tiles(c, ops, part(c.streams * c.rows), tile_rows::<E>(*cost));
            },
        }
    }

    /// What follows all pieces of a block.
    ///
    /// # Safety
    /// They are done.
    pub unsafe fn finish(&self, c: &Context<'_, E>) {
        if let Stage::Sequence { op: SequenceOp::Lti { state, .. }, .. } = self
            && c.done == 0
        {
            // SAFETY: the caller answers that the layer's pieces are done; those of later blocks do not look there.
            unsafe { finish_lti(c, *state) };
        }
    }

    /// Whether it has no effect yet.
    fn idle(&self, c: &Context<'_, E>) -> bool {
        let (Stage::Sequence { from, .. } | Stage::Rows { from, .. }) = self;
        *from > 0 && c.last_position() + c.rows as u64 <= *from
    }

    /// Runs it over all rows of all streams of a block, shared out to the team.
    pub fn run(&self, c: &Context<'_, E>) {
        if self.idle(c) {
            return;
        }
        match self {
            Stage::Sequence { op, .. } => op.run(c),
            Stage::Rows { ops, cost, .. } => match c.by_columns {
                Some(threads) => ops.iter().for_each(|op| op.run_by_columns(c, threads)),
                None => {
                    let tile = tile_rows::<E>(*cost);
                    by_rows(c, *cost, tile, |rows| {
                        // SAFETY: these rows are no one else's.
                        unsafe { run_tiles(c, ops, rows, tile) };
                    });
                }
            },
        }
    }
}

/// Rows of a tile for operations of so many multiply-adds a row, roughly: elements of their matrices.
fn tile_rows<E>(cost: usize) -> usize {
    if cost * size_of::<E>() > NEAR { FAR_ROWS } else { TILE_ROWS }
}

/// Runs operations over some rows of all streams' rows, by tiles of `tile` rows.
///
/// # Safety
/// No one else touches these rows.
unsafe fn run_tiles<E: Elem>(c: &Context<'_, E>, ops: &[RowOp<E>], rows: Range<usize>, tile: usize) {
    let mut first = rows.start;
    while first < rows.end {
        for op in ops {
            // SAFETY: the caller answers for these rows.
            unsafe { op.run(c, first, tile.min(rows.end - first)) };
        }
        first += tile;
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

    /// The independent parts of a stream's rows.
    fn parts(&self) -> usize {
        match self {
            SequenceOp::Lti { layer, .. } => layer.groups().div_ceil(layer.panel()),
            SequenceOp::Ssd { layer, .. } => layer.tiles(),
            SequenceOp::Conv1d { bias, .. } => bias.len() / GROUP,
            SequenceOp::Selective { layer, .. } => layer.groups(),
            SequenceOp::Mimo { .. } | SequenceOp::Convolution { .. } | SequenceOp::Delay { .. } => 1,
        }
    }

    /// Multiply-adds of a part and row, roughly.
    fn cost(&self) -> usize {
        match self {
            SequenceOp::Lti { layer, .. } => 16 * layer.group_state_len(),
            SequenceOp::Ssd { layer, .. } => 2 * layer.tile_state_len(),
            SequenceOp::Conv1d { taps, .. } => taps * GROUP,
            SequenceOp::Selective { layer, .. } => 16 * layer.group_state_len(),
            SequenceOp::Mimo { layer, .. } => 16 * layer.state_len(),
            SequenceOp::Convolution { x, .. } | SequenceOp::Delay { x, .. } => x.width,
        }
    }

    /// Runs it over all rows of all streams of a block, shared out to the team.
    fn run(&self, c: &Context<'_, E>) {
        match self {
            SequenceOp::Lti { layer, state, x, y }
                if c.method == Method::Step && c.dt == 1.0 && layer.steps(c.rows) =>
            {
                step_lti(c, layer, *state, *x, *y);
                return;
            }
            SequenceOp::Convolution { layer, x, y } => {
                // SAFETY: the block is this operation's alone, and x is another buffer than y.
                let (x, y) = unsafe { (c.read(*x), c.write(*y)) };
                let (i, o) = (x.len() / c.streams, y.len() / c.streams);
                for s in 0..c.streams {
                    layer.run(c.isa, c.team, c.stop, c.rows, &x[s * i..][..i], &mut y[s * o..][..o]);
                }
                return;
            }
            _ => {}
        }
        let parts = self.parts() * c.streams;
        if c.team.size() == 1 || c.rows.saturating_mul(parts * self.cost()) < 2 * GRAIN {
            // SAFETY: the block is this operation's alone.
            unsafe { self.run_parts(c, 0, 0..parts) };
        } else {
            // Neighbours read the same rows, of an `Ssd` the same products.
            let together = (parts / (4 * c.team.size())).max(1);
            c.team.each(parts.div_ceil(together), |worker, piece| {
                let first = piece * together;
                // SAFETY: each part is one worker's.
                unsafe { self.run_parts(c, worker, first..parts.min(first + together)) };
            });
        }
        if let SequenceOp::Lti { state, .. } = self {
            // SAFETY: all parts are done.
            unsafe { finish_lti(c, *state) };
        }
    }

    /// Runs some parts of all streams: those of one stream after the other's, but of a layer's groups one group of all streams
    /// after the other, so that its coefficients are read once.
    ///
    /// # Safety
    /// No one else touches these parts, and no one writes what the operation reads.
    unsafe fn run_parts(&self, c: &Context<'_, E>, worker: usize, parts: Range<usize>) {
        // SAFETY: the caller answers that no one writes what is read; it is another buffer than what is written, which
        // `Stage::push_sequence` has checked.
        let read = |buffer: Buffer| unsafe { c.read(buffer) };
        // SAFETY: the rows of a buffer that is written; parts write different columns or streams.
        let write = |buffer: Buffer| Shared::new(unsafe { c.bases[buffer.id].at(0) });
        // SAFETY: the caller answers that these parts of the state are this call's alone.
        let state_of = |s: usize, from: usize, len: usize| unsafe { c.state(s, StateSlice { from, len }) };
        let each = self.parts();
        // The parts of each stream.
        let streams = |parts: Range<usize>| {
            (parts.start / each..parts.end.div_ceil(each)).map(move |s| {
                let within = |part: usize| part.clamp(s * each, (s + 1) * each) - s * each;
                (s, within(parts.start)..within(parts.end))
            })
        };
        match self {
            // SAFETY: the caller answers for these parts, and it is this worker.
            SequenceOp::Lti { layer, state, x, y } => unsafe { run_lti(c, layer, *state, (*x, *y), worker, parts) },
            SequenceOp::Conv1d { weight, bias, taps, state, x, y } => {
                let (x, y, stride) = (read(*x), write(*y), padded(x.width));
                for (s, groups) in streams(parts) {
                    // SAFETY: the operation's slice of stream `s`'s state.
                    let past = unsafe { c.states.at(s * c.state_len + state.from) };
                    let from = s * c.rows * stride;
                    // SAFETY: the groups' columns of stream `s`, and of what was before, are this call's alone.
                    unsafe {
                        conv1d(c.isa, groups, weight, bias, *taps, past, &x[from..][..c.rows * stride], y.at(from));
                    }
                }
            }
            SequenceOp::Mimo { layer, state, x } => {
                let (x, len) = (write(*x), c.rows * layer.row_len());
                for (s, _) in streams(parts) {
                    // SAFETY: the rows of stream `s`, which is this call's alone.
                    let x = unsafe { x.part(s * len, len) };
                    layer.run(c.isa, c.rows, x, state_of(s, state.from, state.len), c.dt);
                }
            }
            SequenceOp::Convolution { .. } => unreachable!("it shares itself out"),
            SequenceOp::Selective { layer, state, x, dt, bc, y } => {
                let (x, dt, bc, answers) = (read(*x), read(*dt), read(*bc), write(*y));
                let (i, j, len) = (x.len() / c.streams, bc.len() / c.streams, layer.group_state_len());
                for (s, groups) in streams(parts) {
                    let state = state_of(s, state.from + groups.start * len, groups.len() * len);
                    let inputs = [&x[s * i..][..i], &dt[s * i..][..i], &bc[s * j..][..j]];
                    // SAFETY: these groups' channels of stream `s`, and their states, are this call's alone.
                    unsafe { layer.run(c.isa, c.rows, c.dt, groups, inputs, state, answers.at(s * i)) };
                }
            }
            SequenceOp::Ssd { layer, state, xbc, steps, y } => {
                let (xbc, steps, answers) = (read(*xbc), read(*steps), write(*y));
                let (i, j, o) = (xbc.len() / c.streams, steps.len() / c.streams, c.rows * padded(y.width));
                let len = layer.tile_state_len();
                for (s, tiles) in streams(parts) {
                    let state = state_of(s, state.from + tiles.start * len, tiles.len() * len);
                    let (xbc, steps) = (&xbc[s * i..][..i], &steps[s * j..][..j]);
                    // SAFETY: these tiles' channels of stream `s`, and their states, are this call's alone.
                    unsafe { layer.run(c.isa, c.rows, tiles, xbc, steps, state, answers.at(s * o)) };
                }
            }
            SequenceOp::Delay { len, state, x, y } => {
                let (x, y, stride) = (read(*x), write(*y), padded(x.width));
                for (s, _) in streams(parts) {
                    // A position counts further than addresses go on machines of 32 bits.
                    let position = (c.position(s) % *len as u64) as usize;
                    let ring = state_of(s, state.from, state.len);
                    let rows = s * c.rows * stride..(s + 1) * c.rows * stride;
                    // SAFETY: the rows of stream `s`, which is this call's alone.
                    let y = unsafe { y.part(rows.start, rows.len()) };
                    for (t, (x, y)) in x[rows].chunks_exact(stride).zip(y.chunks_exact_mut(stride)).enumerate() {
                        let at = (position + t) % len * stride;
                        y.copy_from_slice(&ring[at..at + stride]);
                        ring[at..at + stride].copy_from_slice(x);
                    }
                }
            }
        }
    }
}

/// Shares rows out to the team, at most `tile` at once. Every row is computed by itself, so that the answer does not
/// depend on how they are shared.
fn by_rows<E: Elem>(c: &Context<'_, E>, cost: usize, tile: usize, f: impl Fn(Range<usize>) + Sync) {
    let rows = c.streams * c.rows;
    if c.team.size() == 1 || rows.saturating_mul(cost) < 2 * GRAIN {
        f(0..rows);
        return;
    }
    // As many for each thread.
    let tiles = rows.div_ceil(tile).next_multiple_of(c.team.size()).min(rows);
    c.team.each(tiles, |_, i| f(i * rows / tiles..(i + 1) * rows / tiles));
}

/// Runs panels of a layer's groups over the rows of streams: panel `i / streams` of stream `i % streams`.
///
/// # Safety
/// As [`SequenceOp::run_parts`].
unsafe fn run_lti<E: Elem>(
    c: &Context<'_, E>,
    layer: &Lti<E>,
    state: StateSlice,
    (x, y): (Buffer, Buffer),
    worker: usize,
    parts: Range<usize>,
) {
    let (groups, panel, len) = (layer.groups(), layer.panel(), layer.group_state_len());
    let (from, to) = (padded(x.width), padded(y.width));
    // SAFETY: the caller answers that no one writes x, which is another buffer than y.
    let (input, answers) = unsafe { (c.read(x), Shared::new(c.bases[y.id].at(0))) };
    let method = layer.method(c.method, c.call_rows);
    let turn = if parts.len() == 1 {
        c.turn
    } else {
        c.turn.wait_for_all();
        Turn::FREE
    };
    for part in parts {
        let (first, s) = (part / c.streams * panel, part % c.streams);
        let these = first..groups.min(first + panel);
        // SAFETY: the row of stream `s` that has its count, which is written when the first block is done.
        let single = (c.done == 0).then(|| unsafe { SampleCount::of(*c.states.at(s * c.state_len + state.from)) });
        let run = Run {
            isa: c.isa,
            method,
            phase: c.phase,
            single,
            turn,
            dt: c.dt,
            rows: c.rows,
            x: &input[s * c.rows * from..][..c.rows * from],
            x_stride: from,
            // SAFETY: the first of stream `s`'s rows.
            y: unsafe { answers.at(s * c.rows * to) },
            y_stride: to,
        };
        let from = s * c.state_len + state.from + GROUP + first * len;
        // SAFETY: the caller has these groups' columns of stream `s` to itself, and their states, from `from` on, in its turn.
        unsafe { layer.run(&run, these, c.states.at(from), c.scratch(worker)) };
    }
}

/// No input is pending any more.
///
/// # Safety
/// All parts of the layer with this slice of the state are done.
unsafe fn finish_lti<E: Elem>(c: &Context<'_, E>, state: StateSlice) {
    // SAFETY: the layer's slice of each stream's state begins with its count.
    (0..c.streams).for_each(|s| unsafe { *c.states.at(s * c.state_len + state.from) = E::ZERO });
}

/// A few samples of each stream, group by group, so that its coefficients are read once for all streams.
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
            let streams = Streams::new((c.streams, c.rows), u, y, (states.at(0), c.state_len));
            layer.step(c.isa, c.phase, groups, streams);
        }
    };
    if c.team.size() == 1 {
        groups(0..layer.groups());
    } else {
        c.team.each(layer.groups(), |_, group| groups(group..group + 1));
    }
    by_rows(c, 16 * y.width, TILE_ROWS, |rows| {
        let (first, n) = (rows.start, rows.len());
        // SAFETY: the groups are done, and no one else has these rows.
        let (x, y) = unsafe { (c.read_rows(x, first, n), c.write_rows(y, first, n)) };
        layer.finish_step(c.isa, n, x, y);
    });
    for s in 0..c.streams {
        // SAFETY: the groups are done with the count.
        unsafe {
            let count = states.at(s * c.state_len);
            *count = SampleCount::of(*count).after(c.rows).number();
        }
    }
}

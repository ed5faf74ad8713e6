//! The operations that a plan is made of.

use crate::kernels::linear::Linear;
use crate::kernels::lookahead::SampleCount;
use crate::kernels::norm::{self, Norm, Residual};
use crate::kernels::pointwise::{self, Function};
use crate::kernels::selective::Selective;
use crate::kernels::step::Streams;
use crate::kernels::{Aligned, Elem, GROUP, padded, softmax};
use crate::layers::convolution::Convolution;
use crate::layers::lti::{Lti, Run};
use crate::layers::spectrum::Mimo;
use crate::plan::Buffer;
use crate::threads::Shared;
use crate::walk::Walk;
use std::ops::Range;

/// A part of a stream's state.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub(crate) from: usize,
    pub(crate) len: usize,
}

/// An operation on buffers. Where it has one buffer it works in place.
#[derive(Debug)]
pub(crate) enum Op<E> {
    Embed {
        table: Aligned<E>,
        x: Buffer,
        y: Buffer,
    },
    Linear {
        layer: Linear<E>,
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
    Conv1d {
        weight: Aligned<E>,
        bias: Aligned<E>,
        taps: usize,
        state: Place,
        x: Buffer,
        y: Buffer,
    },
    Lti {
        layer: Box<Lti<E>>,
        state: Place,
        x: Buffer,
        y: Buffer,
    },
    Mimo {
        layer: Mimo<E>,
        state: Place,
        x: Buffer,
    },
    Convolution {
        layer: Box<Convolution<E>>,
        x: Buffer,
        y: Buffer,
    },
    Selective {
        layer: Selective<E>,
        state: Place,
        x: Buffer,
        dt: Buffer,
        bc: Buffer,
        y: Buffer,
    },
    /// y = x as it was `len` samples ago, zero before that.
    Delay {
        len: usize,
        state: Place,
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

/// Multiply-adds that are worth waking another thread for.
const GRAIN: usize = 1 << 16;

/// Rows that go through all operations of a [`Stage::Rows`] before the next ones: their activations stay near.
const TILE_ROWS: usize = 96;

/// Operations that run between two meetings of the team.
#[derive(Debug)]
pub(crate) enum Stage<E> {
    /// One that needs the rows before, or shares itself out.
    Whole {
        op: Op<E>,
        /// Samples a stream must have met before it has any effect.
        after: u64,
    },
    /// Some that compute every row by itself.
    Rows {
        ops: Vec<Op<E>>,
        /// Multiply-adds a row, roughly.
        cost: usize,
    },
}

impl<E: Elem> Stage<E> {
    /// Operations as stages, each with the samples after which it is heard.
    pub fn stages(ops: impl IntoIterator<Item = (Op<E>, u64)>) -> Vec<Stage<E>> {
        let mut stages = Vec::new();
        for (op, after) in ops {
            match (op.row_cost().filter(|_| after == 0), stages.last_mut()) {
                (Some(more), Some(Stage::Rows { ops, cost })) => {
                    ops.push(op);
                    *cost += more;
                }
                (Some(cost), _) => stages.push(Stage::Rows { ops: vec![op], cost }),
                (None, _) => stages.push(Stage::Whole { op, after }),
            }
        }
        stages
    }

    /// The pieces that a team can share it out in, where it needs the rows before.
    pub fn pieces(&self) -> Option<usize> {
        match self {
            Stage::Whole { op: Op::Lti { layer, .. }, .. } => Some(layer.groups()),
            Stage::Whole { .. } => Some(1),
            Stage::Rows { .. } => None,
        }
    }

    /// Runs it over all rows of all streams of a walk.
    pub fn run(&self, w: &Walk<'_, E>) {
        match self {
            Stage::Whole { op, after } if *after == 0 || w.met_at_most() + w.rows as u64 > *after => op.run(w),
            Stage::Whole { .. } => {}
            Stage::Rows { ops, cost } => by_rows(w, *cost, |from, to| {
                for first in (from..to).step_by(TILE_ROWS) {
                    for op in ops {
                        // SAFETY: these rows are no one else's.
                        unsafe { op.rows(w, first, TILE_ROWS.min(to - first)) };
                    }
                }
            }),
        }
    }
}

impl<E: Elem> Op<E> {
    /// Multiply-adds a row, roughly, of an operation that computes every row by itself.
    fn row_cost(&self) -> Option<usize> {
        match self {
            Op::Linear { layer, x, .. } => Some(layer.d_in() * x.width.max(layer.d_out())),
            Op::Norm { x, .. } => Some(8 * x.width),
            Op::Pointwise { x, .. } | Op::Residual { x, .. } | Op::Add { x, .. } | Op::Softmax { x, .. } => {
                Some(16 * x.width)
            }
            Op::Glu { y, .. } => Some(16 * y.width),
            Op::Embed { y, .. } | Op::Multiply { y, .. } | Op::Copy { y, .. } => Some(y.width),
            Op::Conv1d { .. }
            | Op::Lti { .. }
            | Op::Mimo { .. }
            | Op::Convolution { .. }
            | Op::Selective { .. }
            | Op::Delay { .. } => None,
        }
    }

    /// Runs it over `n` rows from `first` on, of all streams' rows.
    ///
    /// # Safety
    /// It has a [`Op::row_cost`], and no one else touches these rows.
    unsafe fn rows(&self, w: &Walk<'_, E>, first: usize, n: usize) {
        // SAFETY: the caller's; lowering gives every operation distinct buffers for what it reads and writes.
        let read = |buffer: Buffer| unsafe { w.part_in(buffer, first, n) };
        // SAFETY: as above.
        let write = |buffer: Buffer| unsafe { w.part_of(buffer, first, n) };
        match self {
            Op::Embed { table, x, y } => {
                let stride = padded(y.width);
                for (x, y) in read(*x).chunks_exact(padded(1)).zip(write(*y).chunks_exact_mut(stride)) {
                    y.copy_from_slice(&table[x[0].f64() as usize * stride..][..stride]);
                }
            }
            Op::Linear { layer, x, y } => layer.run(w.isa, n, read(*x), write(*y)),
            Op::Norm { layer, x, y } => layer.run(w.isa, n, read(*x), write(*y)),
            Op::Pointwise { function, x } => pointwise::run(w.isa, *function, n, padded(x.width), write(*x)),
            Op::Softmax { log, size, x } => softmax::softmax(*log, n, x.width, *size, write(*x)),
            Op::Glu { gate, x, y } => pointwise::glu(w.isa, *gate, n, y.width, read(*x), write(*y)),
            Op::Residual { layer, x, y } => layer.run_on_branch(w.isa, n, read(*x), write(*y)),
            Op::Add { layer, x, y } => layer.run_on_skip(w.isa, n, write(*y), read(*x)),
            Op::Multiply { x, y } => norm::mul_in_place(w.isa, n, x.width, read(*x), write(*y)),
            Op::Copy { x, y } => write(*y).copy_from_slice(read(*x)),
            _ => unreachable!("an operation that needs other rows"),
        }
    }

    /// Runs it over all rows of all streams of a walk.
    fn run(&self, w: &Walk<'_, E>) {
        match self {
            Op::Conv1d { weight, bias, taps, state, x, y } => {
                let stride = padded(x.width);
                for s in 0..w.streams {
                    // SAFETY: as above.
                    let (x, y, past) = unsafe { (w.rows_in(*x), w.rows_of(*y), w.state(s, *state)) };
                    let rows = s * w.rows * stride..(s + 1) * w.rows * stride;
                    conv1d(weight, bias, *taps, stride, past, &x[rows.clone()], &mut y[rows]);
                }
            }
            Op::Lti { layer, state, x, y } => run_lti(w, layer, *state, *x, *y),
            Op::Mimo { layer, state, x } => {
                for s in 0..w.streams {
                    // SAFETY: as above.
                    let (x, state) = unsafe { (w.rows_of(*x), w.state(s, *state)) };
                    let row = layer.row_len();
                    layer.run(w.isa, w.rows, &mut x[s * w.rows * row..][..w.rows * row], state, w.dt);
                }
            }
            Op::Convolution { layer, x, y } => {
                for s in 0..w.streams {
                    // SAFETY: as above.
                    let (x, y) = unsafe { (w.rows_in(*x), w.rows_of(*y)) };
                    let (i, o) = (x.len() / w.streams, y.len() / w.streams);
                    layer.run(w.isa, w.team, w.rows, &x[s * i..][..i], &mut y[s * o..][..o]);
                }
            }
            Op::Selective { layer, state, x, dt, bc, y } => {
                for s in 0..w.streams {
                    // SAFETY: as above.
                    let (x, dt, bc, y, state) =
                        unsafe { (w.rows_in(*x), w.rows_in(*dt), w.rows_in(*bc), w.rows_of(*y), w.state(s, *state)) };
                    let part = |v: &[E]| v.len() / w.streams;
                    let (i, j) = (part(x), part(bc));
                    layer.run(
                        w.isa,
                        w.rows,
                        w.dt,
                        &x[s * i..][..i],
                        &dt[s * i..][..i],
                        &bc[s * j..][..j],
                        state,
                        &mut y[s * i..][..i],
                    );
                }
            }
            Op::Delay { len, state, x, y } => {
                let stride = padded(x.width);
                for s in 0..w.streams {
                    let met = w.met(s) as usize;
                    // SAFETY: as above.
                    let (x, y, ring) = unsafe { (w.rows_in(*x), w.rows_of(*y), w.state(s, *state)) };
                    for t in 0..w.rows {
                        let row = (s * w.rows + t) * stride..(s * w.rows + t + 1) * stride;
                        let at = (met + t) % len * stride;
                        y[row.clone()].copy_from_slice(&ring[at..at + stride]);
                        ring[at..at + stride].copy_from_slice(&x[row]);
                    }
                }
            }
            // SAFETY: the walk is this operation's alone.
            _ => unsafe { self.rows(w, 0, w.streams * w.rows) },
        }
    }
}

/// Shares rows out to the team, as runs from and to. Every row is computed by itself, so that the answer does not
/// depend on how they are shared.
fn by_rows<E: Elem>(w: &Walk<'_, E>, cost: usize, f: impl Fn(usize, usize) + Sync) {
    let rows = w.streams * w.rows;
    if w.team.size() == 1 || rows * cost < 2 * GRAIN {
        f(0, rows);
        return;
    }
    let tile = rows.div_ceil(w.team.size()).min(TILE_ROWS);
    w.team.each(rows.div_ceil(tile), |_, i| f(i * tile, rows.min((i + 1) * tile)));
}

fn run_lti<E: Elem>(w: &Walk<'_, E>, layer: &Lti<E>, state: Place, x: Buffer, y: Buffer) {
    let groups = layer.groups();
    let (from, to) = (padded(x.width), padded(y.width));
    // SAFETY: as in `Op::run`; the items write different columns or streams.
    let (px, py) = unsafe { (Shared(w.rows_in(x).as_ptr().cast_mut()), Shared(w.rows_of(y).as_mut_ptr())) };
    if w.rows == 1 && w.dt == 1.0 && layer.steps_in_place() {
        step_lti(w, layer, state, x, y);
        return;
    }
    let len = layer.group_state_len();
    // SAFETY: as above: the row of single samples is written when all items are done.
    let singles = Shared(unsafe { w.state(0, Place { len: GROUP, ..state }).as_mut_ptr() });
    let method = layer.method(w.method, w.call_rows);
    let run = |s: usize| Run {
        isa: w.isa,
        method,
        phase: w.phase,
        // SAFETY: as above.
        single: SampleCount::of(unsafe { *singles.at(s * w.state_len) }),
        dt: w.dt,
        rows: w.rows,
        // SAFETY: as above.
        x: unsafe { std::slice::from_raw_parts(px.at(s * w.rows * from), w.rows * from) },
        x_stride: from,
        // SAFETY: as above.
        y: unsafe { py.at(s * w.rows * to) },
        y_stride: to,
    };
    let panel = layer.panel(&run(0));
    // Group by group, so that its coefficients are read once for all streams.
    let item = |worker: usize, i: usize| {
        let (first, s) = (i / w.streams * panel, i % w.streams);
        let these = first..groups.min(first + panel);
        let place = Place { from: state.from + GROUP + first * len, len: these.len() * len };
        // SAFETY: as above.
        unsafe { layer.run(&run(s), these, w.state(s, place), w.scratch(worker)) };
    };
    let items = groups.div_ceil(panel) * w.streams;
    if w.rows * len < GRAIN / 16 {
        (0..items).for_each(|i| item(0, i));
    } else {
        w.team.each(items, item);
    }
    // SAFETY: as above.
    (0..w.streams).for_each(|s| unsafe { *singles.at(s * w.state_len) = E::ZERO });
}

/// One sample of each stream, group by group, so that its coefficients are read once for all streams.
fn step_lti<E: Elem>(w: &Walk<'_, E>, layer: &Lti<E>, state: Place, x: Buffer, y: Buffer) {
    let (from, to) = (padded(x.width), padded(y.width));
    // SAFETY: as in `Op::run`; the items write different columns or streams.
    let (px, py) = unsafe { (Shared(w.rows_in(x).as_ptr().cast_mut()), Shared(w.rows_of(y).as_mut_ptr())) };
    // SAFETY: the place has this layer's state.
    let state = unsafe { w.state(0, state) };
    let states = Shared(state.as_mut_ptr());
    let groups = |groups: Range<usize>| {
        // SAFETY: as above.
        unsafe {
            let (u, y) = ((px.at(0).cast_const(), from), (py.at(0), to));
            let streams = Streams::new(w.streams, u, y, (states.at(0), w.state_len));
            layer.step(w.isa, w.phase, groups, streams);
        }
    };
    if w.team.size() == 1 {
        groups(0..layer.groups());
    } else {
        w.team.each(layer.groups(), |_, group| groups(group..group + 1));
    }
    by_rows(w, 16 * y.width, |a, b| {
        // SAFETY: as above.
        let (x, y) = unsafe { (w.part_in(x, a, b - a), w.part_of(y, a, b - a)) };
        layer.finish_step(w.isa, b - a, x, y);
        for s in a..b {
            // SAFETY: the groups have looked at it, and no one else has this stream.
            unsafe {
                let single = states.at(s * w.state_len);
                *single = SampleCount::of(*single).next();
            }
        }
    });
}

/// `past` holds the last taps - 1 samples, the oldest first.
fn conv1d<E: Elem>(weight: &[E], bias: &[E], taps: usize, stride: usize, past: &mut [E], x: &[E], y: &mut [E]) {
    let rows = x.len() / stride;
    let before = taps - 1;
    for t in 0..rows {
        let y = &mut y[t * stride..][..stride];
        y.copy_from_slice(bias);
        for k in 0..taps {
            // Tap k meets the sample k after the oldest one in the window that ends with t.
            let at = t + k;
            let x = if at < before { &past[at * stride..][..stride] } else { &x[(at - before) * stride..][..stride] };
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(&weight[k * stride..][..stride]) {
                *y += w * x;
            }
        }
    }
    if rows >= before {
        past.copy_from_slice(&x[(rows - before) * stride..]);
    } else {
        past.copy_within(rows * stride.., 0);
        let kept = (before - rows) * stride;
        past[kept..].copy_from_slice(x);
    }
}

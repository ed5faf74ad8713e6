//! Runs of samples of one stream: packed into lanes, through chunk matrices or sample by sample.

use super::{Direction, FAR_STRIDE, Lti, Method, PANEL, PLANNED, SCAN_ROWS};
use crate::kernels::chunk::{Call, Chunk};
use crate::kernels::lookahead::SampleCount;
use crate::kernels::{Elem, GROUP, Isa, columns, padded, pointwise};
use crate::turn::Turn;
use std::ops::Range;

/// A run of samples of one stream through a layer.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a, E> {
    /// The instruction set.
    pub isa: Isa,
    /// One for runs, and not auto.
    pub method: Method,
    /// Counts calls.
    pub phase: usize,
    /// Single samples before these; None where there were others of the same call.
    pub single: Option<SampleCount>,
    /// When the states may be moved on.
    pub turn: Turn<'a>,
    /// Multiplies the step size of every sample: then the layer is discretised anew.
    pub dt: f64,
    /// Samples.
    pub rows: usize,
    /// The inputs, `x_stride` elements a row.
    pub x: &'a [E],
    /// Whole groups.
    pub x_stride: usize,
    /// The answers, `y_stride` elements a row.
    pub y: *mut E,
    /// Whole groups.
    pub y_stride: usize,
}

impl<E: Elem> Lti<E> {
    /// Whether its rows are so long that groups go through chunks in panels.
    pub(super) fn wide(&self) -> bool {
        let in_place = self.in_order && self.direction == Direction::Forward;
        in_place && padded(self.outputs) >= FAR_STRIDE && self.system.moves_by_poles() && self.system.chunks()
    }

    /// Groups that go through a run together.
    pub fn panel(&self) -> usize {
        if self.wide() { PANEL } else { 1 }
    }

    /// Whether runs of whole tiles of chunks compute most of their work before and after their turn. Others wait for it first.
    pub fn in_turn(&self, method: Method, dt: f64) -> bool {
        method == Method::Chunk && dt == 1.0 && self.system.chunks()
    }

    /// Runs some groups, as many as [`Lti::panel`] says at most, over samples; each reads and writes only its own columns.
    /// `state` is where theirs begin.
    ///
    /// # Safety
    /// `y` may be written by several groups at once: it is valid for so many rows, and no one else touches these
    /// groups' columns. The states are valid, and in this turn no one else touches them.
    pub unsafe fn run(&self, run: &Run<'_, E>, groups: Range<usize>, state: *mut E, scratch: &mut [E]) {
        assert!(run.x.len() >= run.rows * run.x_stride && run.x_stride >= padded(self.system.channels()));
        let len = self.group_state_len();
        let whole = run.rows <= self.shape.rows() && run.rows.is_multiple_of(self.shape.samples);
        let mut run = *run;
        if !(whole && self.in_turn(run.method, run.dt)) {
            run.turn.wait_for_all();
            run.turn = Turn::FREE;
        }
        if let Some(single) = run.single {
            for (i, group) in groups.clone().enumerate() {
                // SAFETY: the caller answers for the states, and no other run of the call is under way before its first.
                let state = unsafe { std::slice::from_raw_parts_mut(state.add(i * len), len) };
                self.groups[group].apply_pending(run.isa, single, self.stagger + group, state);
            }
        }
        let mut done = 0;
        if groups.len() == PANEL && run.method == Method::Chunk && run.dt == 1.0 {
            // SAFETY: the caller answers for the rows of `y`, of which these are all, and for the states.
            done = unsafe { self.run_panel(&run, groups.clone(), state, scratch) };
        }
        let rest = Run {
            rows: run.rows - done,
            x: &run.x[done * run.x_stride..],
            // SAFETY: `y` has `rows` rows, and `done` is at most that.
            y: unsafe { run.y.add(done * run.y_stride) },
            ..run
        };
        for (i, group) in groups.enumerate() {
            // SAFETY: `y` has as many rows left as `rest` says, and the caller answers for this group's columns and state.
            unsafe {
                let rest = Run { turn: rest.turn.from(i), ..rest };
                self.run_group(&rest, group, state.add(i * len), scratch);
            }
        }
    }

    /// Whole chunks of a panel's groups, whose columns are packed and unpacked together; says how many samples that is.
    /// No inputs are pending.
    ///
    /// # Safety
    /// As [`Lti::run`].
    unsafe fn run_panel(&self, run: &Run<'_, E>, groups: Range<usize>, state: *mut E, scratch: &mut [E]) -> usize {
        let Run { isa, turn, rows, x, x_stride, y, y_stride, .. } = *run;
        let len = self.group_state_len();
        let tile = self.shape.rows() * GROUP;
        let (u, rest) = scratch.split_at_mut(PANEL * tile);
        let (z, rest) = rest.split_at_mut(PANEL * tile);
        let column = groups.start * GROUP;
        let mut t = 0;
        while rows - t >= self.shape.samples {
            let chunks = ((rows - t) / self.shape.samples).min(self.shape.tile);
            let n = chunks * self.shape.samples;
            let from = (x[t * x_stride + column..].as_ptr(), x_stride as isize);
            // SAFETY: rows t to t + n of `x` are within `rows`, and the panel's columns within each.
            unsafe { columns::pack::<E, PANEL>(isa, n, from, u, tile) };
            for (i, group) in groups.clone().enumerate() {
                let u = Some((u[i * tile..].as_ptr(), GROUP as isize));
                let y = Some((z[i * tile..].as_mut_ptr(), GROUP as isize));
                let (state, turn) = (self.groups[group].chunk_state(state.wrapping_add(i * len)), turn.from(i));
                // SAFETY: a tile has place for these rows, and the caller answers for the states.
                unsafe { self.chunk(isa, group).run(isa, Call { chunks, u, y, state, turn, scratch: rest }) };
            }
            // SAFETY: rows t to t + n of `y` are within `rows`; the caller answers for the panel's columns.
            unsafe {
                let to = (y.add(t * y_stride + column), y_stride as isize);
                pointwise::unpack::<E, PANEL>(isa, self.function, n, z, tile, to);
            }
            t += n;
        }
        t
    }

    /// The chunk matrices of a group, made when they are first wanted.
    pub(super) fn chunk(&self, isa: Isa, group: usize) -> &Chunk<E> {
        self.chunks[group].get_or_init(|| self.measure(isa, group))
    }

    /// One group, whose columns are read and written by themselves. No inputs are pending.
    ///
    /// # Safety
    /// As [`Lti::run`].
    unsafe fn run_group(&self, run: &Run<'_, E>, group: usize, state: *mut E, scratch: &mut [E]) {
        let Run { isa, method, turn, phase, dt, rows, x, x_stride, y, y_stride, .. } = *run;
        // SAFETY: the caller answers for the state, which is moved on by one thing after the other.
        let whole_state = || unsafe { std::slice::from_raw_parts_mut(state, self.group_state_len()) };
        if let Method::Fft { states } = method
            && rows > self.shape.samples
            && dt == 1.0
            && self.system.chunks()
        {
            let state = whole_state();
            // SAFETY: the caller answers for the rows of `y` and this group's columns.
            let done = unsafe { self.convolve(isa, group, rows, x, x_stride, y, y_stride, state, states, scratch) };
            if done {
                return;
            }
        }
        let tile = self.shape.rows() * GROUP;
        let (u, rest) = scratch.split_at_mut(tile);
        let (z, rest) = rest.split_at_mut(tile);
        let anew = (dt != 1.0).then(|| self.system.recurrence::<E>(&self.lanes[group], dt));
        // At a pole of the transform there is no answer.
        let anew = anew.and_then(|recurrence| recurrence.inspect_err(|_| whole_state().fill(E::of(f64::NAN))).ok());
        let chunk = (method == Method::Chunk && self.system.chunks() && rows >= self.shape.samples && dt == 1.0)
            .then(|| self.chunk(isa, group));
        let mut t = 0;
        while t < rows {
            let chunks = chunk.map_or(0, |_| ((rows - t) / self.shape.samples).min(self.shape.tile));
            let n = if chunks > 0 { chunks * self.shape.samples } else { (rows - t).min(SCAN_ROWS) };
            if let (Some(chunk), true) = (chunk, chunks > 0) {
                let from = if self.in_order {
                    self.columns(group, t, rows, x, x_stride)
                } else {
                    self.pack(isa, group, t, n, rows, x, x_stride, u);
                    (u.as_ptr(), GROUP as isize)
                };
                // SAFETY: row t of `y` is within `rows`, and the group's columns within it.
                let column = unsafe { y.add(t * y_stride + group * GROUP) };
                let to = if self.straight() { (column, y_stride as isize) } else { (z.as_mut_ptr(), GROUP as isize) };
                let (u, y_to, state) = (Some(from), Some(to), self.groups[group].chunk_state(state));
                // SAFETY: both have n rows from there on, the caller's or a tile's, and the caller answers for the state.
                unsafe { chunk.run(isa, Call { chunks, u, y: y_to, state, turn, scratch: rest }) };
                if !self.straight() {
                    // SAFETY: the caller answers for the rows of `y` and this group's columns.
                    unsafe { self.finish(isa, group, t, n, rows, z, y, y_stride) };
                }
            } else {
                self.pack(isa, group, t, n, rows, x, x_stride, u);
                let recurrence = anew.as_ref().unwrap_or(&self.groups[group]);
                recurrence.scan(isa, phase, n, u, z, whole_state());
                // SAFETY: the caller answers for the rows of `y` and this group's columns.
                unsafe { self.unpack(isa, group, t, n, rows, u, z, y, y_stride) };
            }
            t += n;
        }
    }

    /// The chunk matrices, measured in float64, with the direct path in them.
    fn measure(&self, isa: Isa, group: usize) -> Chunk<E> {
        let recurrence = self.system.recurrence::<f64>(&self.lanes[group], 1.0).expect(PLANNED);
        let mut matrices = recurrence.chunk(isa, self.shape.samples);
        for (k, d) in matrices.kernel.iter_mut().zip(&self.skip[group * GROUP..][..GROUP]) {
            *k += d.f64();
        }
        Chunk::new(&matrices)
    }
}

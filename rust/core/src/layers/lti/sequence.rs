//! Runs of samples of one stream: packed into lanes, through chunk matrices or sample by sample.

use super::{Direction, FAR_STRIDE, Lti, Method, PANEL, PLANNED, SCAN_ROWS};
use crate::kernels::chunk::Chunk;
use crate::kernels::lookahead::SampleCount;
use crate::kernels::{Elem, GROUP, Isa, columns, padded, pointwise};
use std::ops::Range;

/// A run of samples of one stream through a layer.
#[derive(Debug)]
pub struct Run<'a, E> {
    /// The instruction set.
    pub isa: Isa,
    /// One for runs, and not auto.
    pub method: Method,
    /// Counts calls.
    pub phase: usize,
    /// Single samples before these.
    pub single: SampleCount,
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

    /// Runs some groups, as many as [`Lti::panel`] says at most, over samples; each reads and writes only its own columns.
    /// `state` is theirs.
    ///
    /// # Safety
    /// `y` may be written by several groups at once: it is valid for so many rows, and no one else touches these
    /// groups' columns.
    pub unsafe fn run(&self, run: &Run<'_, E>, groups: Range<usize>, state: &mut [E], scratch: &mut [E]) {
        assert!(run.x.len() >= run.rows * run.x_stride && run.x_stride >= padded(self.system.channels()));
        let len = self.group_state_len();
        for (i, group) in groups.clone().enumerate() {
            self.groups[group].apply_pending(run.isa, run.single, self.stagger + group, &mut state[i * len..][..len]);
        }
        let mut done = 0;
        if groups.len() == PANEL && run.method == Method::Chunk && run.dt == 1.0 {
            // SAFETY: the caller answers for the rows of `y`, of which these are all.
            done = unsafe { self.run_panel(run, groups.clone(), state, scratch) };
        }
        let rest = Run {
            rows: run.rows - done,
            x: &run.x[done * run.x_stride..],
            // SAFETY: `y` has `rows` rows, and `done` is at most that.
            y: unsafe { run.y.add(done * run.y_stride) },
            ..*run
        };
        for (i, group) in groups.enumerate() {
            // SAFETY: `y` has as many rows left as `rest` says, and the caller answers for this group's columns.
            unsafe { self.run_group(&rest, group, &mut state[i * len..][..len], scratch) };
        }
    }

    /// Whole chunks of a panel's groups, whose columns are packed and unpacked together; says how many samples that is.
    /// No inputs are pending.
    ///
    /// # Safety
    /// As [`Lti::run`].
    unsafe fn run_panel(&self, run: &Run<'_, E>, groups: Range<usize>, state: &mut [E], scratch: &mut [E]) -> usize {
        let Run { isa, rows, x, x_stride, y, y_stride, .. } = *run;
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
            for (i, state) in state.chunks_exact_mut(len).enumerate() {
                let group = groups.start + i;
                let from = (u[i * tile..].as_ptr(), GROUP as isize);
                let to = (z[i * tile..].as_mut_ptr(), GROUP as isize);
                // SAFETY: a tile has place for these rows.
                unsafe {
                    self.chunk(isa, group).run(isa, chunks, from, to, self.groups[group].chunk_state(state), rest)
                };
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
    unsafe fn run_group(&self, run: &Run<'_, E>, group: usize, state: &mut [E], scratch: &mut [E]) {
        let Run { isa, method, phase, dt, rows, x, x_stride, y, y_stride, .. } = *run;
        if let Method::Fft { states } = method
            && rows > self.shape.samples
            && dt == 1.0
            && self.system.chunks()
        {
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
        let anew = anew.and_then(|recurrence| recurrence.inspect_err(|_| state.fill(E::of(f64::NAN))).ok());
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
                // SAFETY: both have n rows from there on, the caller's or a tile's.
                unsafe { chunk.run(isa, chunks, from, to, self.groups[group].chunk_state(state), rest) };
                if !self.straight() {
                    // SAFETY: the caller answers for the rows of `y` and this group's columns.
                    unsafe { self.finish(isa, group, t, n, rows, z, y, y_stride) };
                }
            } else {
                self.pack(isa, group, t, n, rows, x, x_stride, u);
                let recurrence = anew.as_ref().unwrap_or(&self.groups[group]);
                recurrence.scan(isa, phase, n, u, z, state);
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

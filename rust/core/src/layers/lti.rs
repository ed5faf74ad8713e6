//! A linear time-invariant state-space layer: independent channels, one recurrence a group of lanes.
//!
//! A lane carries one output of one channel, or, where the channels are few, a part of its modes. Runs of samples
//! go through chunk matrices, which are measured once from the float64 recurrence itself; the rest goes sample by
//! sample. Both carry the same state.

use super::system::{Lane, Recurrence, System};
use crate::conv::{CausalConv, Spectrum};
use crate::kernels::chunk::{Chunk, Shape};
use crate::kernels::lookahead::SampleCount;
use crate::kernels::pointwise::{self, Function};
use crate::kernels::step::{self, Streams};
use crate::kernels::{Aligned, Elem, GROUP, Isa, columns, padded};
use crate::threads::{Shared, Team};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Rows that go through a recurrence sample by sample with one packing.
const SCAN_ROWS: usize = 64;

/// Groups whose columns are read and written together where rows stand [`FAR_STRIDE`] or more elements apart: there the
/// columns of one group alone would meet but a few sets of the first cache.
const PANEL: usize = 4;
const FAR_STRIDE: usize = 512;

/// How a run of samples is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Whichever is fastest.
    Auto,
    /// The recurrence, sample by sample.
    Scan,
    /// Chunks as matrix products; what does not fill a chunk by the recurrence.
    Chunk,
    /// Convolution by FFT, of a whole sequence.
    Fft,
}

/// In which order a layer meets the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As they come.
    Forward,
    /// From the last to the first; y\[t\] is *increased* by what the samples after t say.
    Backward,
}

/// A run of samples of one stream through a layer.
#[derive(Debug)]
pub struct Run<'a, E> {
    /// The instruction set.
    pub isa: Isa,
    /// Any but auto.
    pub method: Method,
    /// Counts calls.
    pub phase: usize,
    /// Samples that came one by one before these.
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

/// The kernels of a group's lanes, ready for convolution with sequences of one length.
#[derive(Debug)]
struct Spectra {
    length: usize,
    conv: CausalConv,
    kernels: Vec<Spectrum>,
}

/// The layer, planned for one rate.
#[derive(Debug)]
pub struct Lti<E> {
    system: System,
    lanes: Vec<[Option<Lane>; GROUP]>,
    /// Parts that a channel's modes are split into: all in one group, summed at the end.
    parts: usize,
    outputs: usize,
    /// Whether lane i reads input i.
    in_order: bool,
    groups: Vec<Recurrence<E>>,
    chunks: Vec<OnceLock<Chunk<E>>>,
    shape: Shape,
    spectra: Vec<Mutex<Option<Arc<Spectra>>>>,
    skip: Aligned<E>,
    function: Function,
    direction: Direction,
    /// Tells its groups from those of the layers before.
    stagger: usize,
}

impl<E: Elem> Lti<E> {
    /// `skip(m, h)` is the direct path D; `function` is applied to the outputs of a forward layer. `head_major` flattens
    /// (H, M).
    pub fn new(
        team: &Team,
        system: System,
        head_major: bool,
        skip: impl Fn(usize, usize) -> f64,
        function: Function,
        direction: Direction,
    ) -> Self {
        let (m, h) = (system.outputs(), system.channels());
        let outputs = m * h;
        let parts = if system.moves_by_poles() && outputs <= GROUP / 2 {
            (GROUP / outputs.next_power_of_two()).min(system.modes().next_power_of_two())
        } else {
            1
        };
        let lane = |i: usize| {
            let (part, v) = (i / outputs, i % outputs);
            let (output, channel) = if head_major { (v % m, v / m) } else { (v / h, v % h) };
            (i < outputs * parts).then_some(Lane { channel, output, part, parts })
        };
        let lanes: Vec<[Option<Lane>; GROUP]> =
            (0..padded(outputs * parts) / GROUP).map(|g| std::array::from_fn(|l| lane(g * GROUP + l))).collect();
        let skip = lanes
            .iter()
            .flatten()
            .map(|lane| match lane {
                Some(l) if l.part == 0 => E::of(skip(l.output, l.channel)),
                _ => E::ZERO,
            })
            .collect();
        let groups = team.map(lanes.len(), |g| system.recurrence(&lanes[g], 1.0));
        Self {
            shape: system.chunk_shape(),
            chunks: lanes.iter().map(|_| OnceLock::new()).collect(),
            spectra: lanes.iter().map(|_| Mutex::new(None)).collect(),
            in_order: m == 1 && parts == 1,
            groups,
            lanes,
            parts,
            outputs,
            skip,
            function,
            direction,
            system,
            stagger: 0,
        }
    }

    /// The same after layers that have `groups` groups.
    pub fn after(self, groups: usize) -> Self {
        Self { stagger: groups, ..self }
    }

    /// Groups of lanes: the layer's independent pieces.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Elements of state of one group.
    pub fn group_state_len(&self) -> usize {
        self.groups[0].state_len()
    }

    /// Elements of state of the layer: a row that begins with how many single samples it has met, then the groups'.
    pub fn state_len(&self) -> usize {
        GROUP + self.groups() * self.group_state_len()
    }

    /// Rows for which its matrices are read once.
    pub fn tile_rows(&self) -> usize {
        if self.system.prefers_chunks(usize::MAX) { self.shape.rows() } else { SCAN_ROWS }
    }

    /// Elements of scratch that [`Lti::run`] needs.
    pub fn scratch_len(&self) -> usize {
        let together = if self.wide() { PANEL } else { 1 };
        self.shape.rows() * GROUP * 2 * together
            + Chunk::<E>::scratch_len(self.shape, self.groups[0].core_len() / GROUP)
    }

    /// Whether lanes, inputs and outputs are the same channels: then a sample needs no packing.
    pub fn steps_in_place(&self) -> bool {
        self.in_order && self.direction == Direction::Forward
    }

    /// Moves groups of some streams on by a sample. Then [`Lti::finish_step`] is due.
    ///
    /// # Safety
    /// The rows and states are valid, and no one else touches these groups' parts of what is written.
    pub unsafe fn step(&self, isa: Isa, phase: usize, groups: Range<usize>, streams: Streams<E>) {
        const ONE_KIND: &str = "the groups of a layer are of one kind";
        // SAFETY: as the caller's.
        unsafe {
            match &self.groups[0] {
                Recurrence::Diagonal(_) => {
                    let modes = |g: usize| match &self.groups[g] {
                        Recurrence::Diagonal(modes) => modes,
                        _ => unreachable!("{ONE_KIND}"),
                    };
                    step::step(isa, phase, self.stagger, groups, modes, streams);
                }
                Recurrence::LowRank(_) => {
                    let system = |g: usize| match &self.groups[g] {
                        Recurrence::LowRank(system) => system,
                        _ => unreachable!("{ONE_KIND}"),
                    };
                    step::step(isa, phase, self.stagger, groups, system, streams);
                }
                Recurrence::Triangular(_) | Recurrence::Window(_) => {
                    for group in groups {
                        for s in 0..streams.count() {
                            let (u, y, state) = streams.part(s, group, self.group_state_len());
                            self.groups[group].scan(isa, phase, 1, u, y, state);
                        }
                    }
                }
            }
        }
    }

    /// Adds the direct path to a sample of each of `streams` streams, and applies the function.
    pub fn finish_step(&self, isa: Isa, streams: usize, x: &[E], y: &mut [E]) {
        columns::finish_rows(isa, self.function, streams, &self.skip, x, y);
    }

    /// The method by which a call for `rows` samples goes that asks for `asked`.
    pub fn method(&self, asked: Method, rows: usize) -> Method {
        match asked {
            Method::Auto if self.system.prefers_chunks(rows) => Method::Chunk,
            Method::Auto => Method::Scan,
            asked => asked,
        }
    }

    /// Whether its rows are so long that groups go through chunks in panels.
    fn wide(&self) -> bool {
        let in_place = self.in_order && self.direction == Direction::Forward;
        in_place && padded(self.outputs) >= FAR_STRIDE && self.system.moves_by_poles() && self.system.chunks()
    }

    /// Groups that go through a run together.
    pub fn panel(&self, run: &Run<'_, E>) -> usize {
        if self.wide() && run.method == Method::Chunk && run.dt == 1.0 { PANEL } else { 1 }
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
        if groups.len() == PANEL {
            // SAFETY: as the caller's.
            done = unsafe { self.run_panel(run, groups.clone(), state, scratch) };
        }
        let rest = Run {
            rows: run.rows - done,
            x: &run.x[done * run.x_stride..],
            // SAFETY: as the caller's.
            y: unsafe { run.y.add(done * run.y_stride) },
            ..*run
        };
        for (i, group) in groups.enumerate() {
            // SAFETY: as the caller's.
            unsafe { self.run_group(&rest, group, &mut state[i * len..][..len], scratch) };
        }
    }

    /// Whole chunks of a panel's groups, whose columns are packed and unpacked together; says how many samples that is.
    /// The states are settled.
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
            // SAFETY: as the caller's; the rows are within `rows` and padded to whole groups.
            unsafe { columns::pack::<E, PANEL>(isa, n, from, u, tile) };
            for (i, state) in state.chunks_exact_mut(len).enumerate() {
                let group = groups.start + i;
                let from = (u[i * tile..].as_ptr(), GROUP as isize);
                let to = (z[i * tile..].as_mut_ptr(), GROUP as isize);
                // SAFETY: a tile has place for these rows.
                unsafe { self.chunk(isa, group).run(isa, chunks, from, to, self.groups[group].core(state), rest) };
            }
            // SAFETY: as above.
            unsafe {
                let to = (y.add(t * y_stride + column), y_stride as isize);
                pointwise::unpack::<E, PANEL>(isa, self.function, n, z, tile, to);
            }
            t += n;
        }
        t
    }

    /// The chunk matrices of a group, made when they are first wanted.
    fn chunk(&self, isa: Isa, group: usize) -> &Chunk<E> {
        self.chunks[group].get_or_init(|| self.measure(isa, group))
    }

    /// One group, whose columns are read and written by themselves. The state is settled.
    ///
    /// # Safety
    /// As [`Lti::run`].
    unsafe fn run_group(&self, run: &Run<'_, E>, group: usize, state: &mut [E], scratch: &mut [E]) {
        let Run { isa, method, phase, dt, rows, x, x_stride, y, y_stride, .. } = *run;
        let tile = self.shape.rows() * GROUP;
        let (u, rest) = scratch.split_at_mut(tile);
        let (z, rest) = rest.split_at_mut(tile);
        if method == Method::Fft && rows > self.shape.samples && dt == 1.0 && self.system.chunks() {
            // SAFETY: as the caller's.
            unsafe { self.convolve(isa, group, rows, x, x_stride, y, y_stride, state, scratch) };
            return;
        }
        let anew = (dt != 1.0).then(|| self.system.recurrence::<E>(&self.lanes[group], dt));
        let chunk = (method == Method::Chunk && self.system.chunks() && rows >= self.shape.samples && anew.is_none())
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
                // SAFETY: as the caller's; the rows are within `rows` and padded to whole groups.
                let column = unsafe { y.add(t * y_stride + group * GROUP) };
                let to = if self.straight() { (column, y_stride as isize) } else { (z.as_mut_ptr(), GROUP as isize) };
                // SAFETY: as above.
                unsafe { chunk.run(isa, chunks, from, to, self.groups[group].core(state), rest) };
                if !self.straight() {
                    // SAFETY: as above.
                    unsafe { self.finish(isa, group, t, n, rows, z, y, y_stride) };
                }
            } else {
                self.pack(isa, group, t, n, rows, x, x_stride, u);
                let recurrence = anew.as_ref().unwrap_or(&self.groups[group]);
                recurrence.scan(isa, phase, n, u, z, state);
                // SAFETY: as above.
                unsafe { self.unpack(isa, group, t, n, rows, u, z, y, y_stride) };
            }
            t += n;
        }
    }

    /// Runs a whole sequence as a convolution with the kernel, plus what the state still says.
    ///
    /// # Safety
    /// As [`Lti::run`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn convolve(
        &self,
        isa: Isa,
        group: usize,
        rows: usize,
        x: &[E],
        x_stride: usize,
        y: *mut E,
        y_stride: usize,
        state: &mut [E],
        scratch: &mut [E],
    ) {
        let spectra = self.spectra(isa, group, rows);
        let (u, rest) = scratch.split_at_mut(self.shape.rows() * GROUP);
        let (z, rest) = rest.split_at_mut(self.shape.rows() * GROUP);
        let mut whole = vec![E::ZERO; rows * GROUP];
        let mut work = spectra.conv.scratch();
        for (lane, kernel) in spectra.kernels.iter().enumerate() {
            let Some(l) = self.lanes[group][lane] else { continue };
            let row = |i: usize| if self.direction == Direction::Forward { i } else { rows - 1 - i };
            let answers =
                spectra.conv.run((0..rows).map(|i| x[row(i) * x_stride + l.channel].f64()), kernel, &mut work);
            for (z, &answer) in whole.chunks_exact_mut(GROUP).zip(answers) {
                z[lane] = E::of(answer);
            }
        }
        // Moves the state on, and adds to the answers what it said before: the recurrence without input.
        let silent = state.iter().all(|&x| x == E::ZERO);
        let mut echo = Aligned::<E>::zeros(state.len());
        echo.copy_from_slice(state);
        let chunk = self.chunk(isa, group);
        let mut t = 0;
        while t < rows {
            let chunks = ((rows - t) / self.shape.samples).min(self.shape.tile);
            let n = if chunks > 0 { chunks * self.shape.samples } else { (rows - t).min(SCAN_ROWS) };
            if !silent {
                if chunks > 0 {
                    chunk.free_response(isa, chunks, z, self.groups[group].core(&mut echo), rest);
                } else {
                    u[..n * GROUP].fill(E::ZERO);
                    self.groups[group].scan(isa, 0, n, u, z, &mut echo);
                }
                for (w, &z) in whole[t * GROUP..].iter_mut().zip(&z[..n * GROUP]) {
                    *w += z;
                }
            }
            self.pack(isa, group, t, n, rows, x, x_stride, u);
            if chunks > 0 {
                chunk.advance(isa, chunks, u, self.groups[group].core(state), rest);
            } else {
                self.groups[group].scan(isa, 0, n, u, z, state);
            }
            z[..n * GROUP].copy_from_slice(&whole[t * GROUP..][..n * GROUP]);
            // SAFETY: as the caller's.
            unsafe { self.unpack(isa, group, t, n, rows, u, z, y, y_stride) };
            t += n;
        }
    }

    fn spectra(&self, isa: Isa, group: usize, length: usize) -> Arc<Spectra> {
        let mut cached = self.spectra[group].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spectra) = cached.as_ref().filter(|s| s.length == length) {
            return Arc::clone(spectra);
        }
        let recurrence = self.system.recurrence::<f64>(&self.lanes[group], 1.0);
        let mut kernel = vec![0.0; length * GROUP];
        let mut state = Aligned::<f64>::zeros(recurrence.state_len());
        let mut u = vec![0.0; length * GROUP];
        u[..GROUP].fill(1.0);
        recurrence.scan(isa, 0, length, &u, &mut kernel, &mut state);
        let conv = CausalConv::new(length);
        let mut scratch = conv.scratch();
        let lane = |lane: usize| kernel.iter().skip(lane).step_by(GROUP).copied();
        let kernels = (0..GROUP).map(|l| conv.spectrum(lane(l), &mut scratch)).collect();
        let spectra = Arc::new(Spectra { length, conv, kernels });
        *cached = Some(Arc::clone(&spectra));
        spectra
    }

    /// Where sample `t` in the layer's order stands, in elements, and how far the next.
    fn order(&self, t: usize, rows: usize, stride: usize) -> (usize, isize) {
        match self.direction {
            Direction::Forward => (t * stride, stride as isize),
            Direction::Backward => ((rows - 1 - t) * stride, -(stride as isize)),
        }
    }

    /// Where a group's own columns of the input stand, from sample `t` on in the layer's order, and how far the next.
    fn columns(&self, group: usize, t: usize, rows: usize, x: &[E], stride: usize) -> (*const E, isize) {
        let (first, step) = self.order(t, rows, stride);
        (x[first + group * GROUP..].as_ptr(), step)
    }

    /// The inputs of `n` samples from `t` on, in the layer's order, a lane each.
    #[allow(clippy::too_many_arguments)]
    fn pack(&self, isa: Isa, group: usize, t: usize, n: usize, rows: usize, x: &[E], stride: usize, u: &mut [E]) {
        if self.in_order {
            let (x, step) = self.columns(group, t, rows, x, stride);
            // SAFETY: `x` has `rows` whole rows, and the group's columns are within each.
            unsafe { columns::pack::<E, 1>(isa, n, (x, step), u, n * GROUP) };
            return;
        }
        let (first, step) = self.order(t, rows, stride);
        for (i, u) in u.chunks_exact_mut(GROUP).take(n).enumerate() {
            let x = &x[(first as isize + i as isize * step) as usize..];
            for (u, lane) in u.iter_mut().zip(&self.lanes[group]) {
                *u = lane.map_or(E::ZERO, |l| x[l.channel]);
            }
        }
    }

    /// Whether answers go to this group's columns as they are.
    fn straight(&self) -> bool {
        self.parts == 1 && self.function == Function::Identity && self.direction == Direction::Forward
    }

    /// Adds the direct path, and finishes the answers.
    ///
    /// # Safety
    /// As [`Lti::run`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn unpack(
        &self,
        isa: Isa,
        group: usize,
        t: usize,
        n: usize,
        rows: usize,
        u: &[E],
        z: &mut [E],
        y: *mut E,
        stride: usize,
    ) {
        let skip = &self.skip[group * GROUP..];
        // SAFETY: as the caller's.
        unsafe {
            if self.straight() {
                let y = y.add(t * stride + group * GROUP);
                columns::unpack_with_skip(isa, n, skip, u, z, y, stride as isize);
            } else {
                columns::add_skip(isa, n, skip, u, z);
                self.finish(isa, group, t, n, rows, z, y, stride);
            }
        }
    }

    /// Sums the parts, applies the function and writes this group's columns.
    ///
    /// # Safety
    /// As [`Lti::run`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn finish(
        &self,
        isa: Isa,
        group: usize,
        t: usize,
        n: usize,
        rows: usize,
        z: &mut [E],
        y: *mut E,
        stride: usize,
    ) {
        if self.parts > 1 {
            for z in z.chunks_exact_mut(GROUP).take(n) {
                for part in 1..self.parts {
                    for v in 0..self.outputs {
                        z[v] += z[part * self.outputs + v];
                    }
                }
            }
        }
        match self.direction {
            // SAFETY: the rows are within `rows` and padded to whole groups, the columns are this group's own.
            Direction::Forward => unsafe {
                let y = y.add(t * stride + group * GROUP);
                pointwise::unpack::<E, 1>(isa, self.function, n, z, n * GROUP, (y, stride as isize));
            },
            // The sample at i from the end is heard by those before it.
            Direction::Backward => {
                let width = (self.outputs - group * GROUP).min(GROUP);
                for (i, z) in z.chunks_exact(GROUP).take(n.min((rows - 1).saturating_sub(t))).enumerate() {
                    // SAFETY: as above.
                    let to = unsafe { y.add((rows - 2 - t - i) * stride + group * GROUP) };
                    for (l, &z) in z.iter().enumerate().take(width) {
                        // SAFETY: as above.
                        unsafe { *to.add(l) += z };
                    }
                }
            }
        }
    }

    /// The chunk matrices, measured in float64, with the direct path in them.
    fn measure(&self, isa: Isa, group: usize) -> Chunk<E> {
        let recurrence = self.system.recurrence::<f64>(&self.lanes[group], 1.0);
        let mut matrices = recurrence.chunk(isa, self.shape.samples);
        for (k, d) in matrices.kernel.iter_mut().zip(&self.skip[group * GROUP..][..GROUP]) {
            *k += d.f64();
        }
        Chunk::new(&matrices)
    }
}

impl Lti<f64> {
    /// Writes the answers of one group's outputs to an impulse: `length` numbers an output.
    pub fn impulse(&self, isa: Isa, group: usize, length: usize, out: &Shared<f64>) {
        // Few enough rows to stay in the first level of cache until they are turned.
        let shape = Shape { tile: 256 / self.shape.samples, ..self.shape };
        let chunk = Chunk::<f64>::new(&self.groups[group].chunk(isa, shape.samples));
        let core = self.groups[group].core_len();
        let mut state = Aligned::zeros(core);
        let mut scratch = Aligned::zeros(Chunk::<f64>::scratch_len(shape, core / GROUP));
        let width = (self.outputs - group * GROUP).min(GROUP);
        let mut y = Aligned::<f64>::zeros(shape.rows() * GROUP);
        let mut t = 0;
        while t < length {
            let chunks = if t == 0 {
                chunk.impulse_response(&mut y, &mut state);
                1
            } else {
                chunk.free_response(isa, shape.tile, &mut y, &mut state, &mut scratch);
                shape.tile
            };
            let n = (chunks * shape.samples).min(length - t);
            for l in 0..width {
                // SAFETY: no other group has these outputs.
                let kernel = unsafe { out.part((group * GROUP + l) * length + t, n) };
                kernel.iter_mut().zip(y[l..].iter().step_by(GROUP)).for_each(|(k, y)| *k = *y);
            }
            t += n;
        }
    }
}

//! Chunk matrices of systems whose state transition is a full matrix.
//!
//! The transition over a chunk, N x N entries a channel, is needed by one chunk after the other. For a whole group of
//! channels it would not fit into the L1 cache, and be read from farther away for each chunk. So each lane has
//! matrices of its own, which stay in L1 for all chunks of the lane, and vectors run along the lane's samples and
//! states, which are transposed.

use super::matrices::{Call, ChunkMatrices, Errors, In, Out, Shape, State};
use crate::kernels::layout::holds;
use crate::kernels::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded, transpose};
use crate::turn::Turn;
use std::ops::Range;

/// The four matrices of each lane.
#[derive(Debug)]
pub struct Matrix<E> {
    t: usize,
    n: usize,
    /// Lanes up to the last one that is not zero.
    used: usize,
    /// For each lane, column after column: T zeros and the kernel; W (N, T); A^T - I (N, N), for close to 1 numbers have few
    /// digits left; G (T, N), N rows padded.
    entries: Aligned<E>,
}

/// Elements from one lane's samples to the next's: more than there are, so that the lanes begin in different cache sets.
const fn lane_step(rows: usize) -> usize {
    rows + GROUP
}

impl<E: Elem> Matrix<E> {
    /// In engine precision, for a state that moves by `a`, N x N rows.
    pub fn new(m: &ChunkMatrices, a: &[f64]) -> Self {
        let (t, n) = (m.samples(), m.states());
        assert!(t.is_multiple_of(GROUP), "expected chunks of whole groups of samples");
        let is_zero =
            |lane: usize| [&m.kernel, &m.w, &m.g].iter().all(|v| v[lane..].iter().step_by(GROUP).all(|x| *x == 0.0));
        let used = (0..GROUP).rev().find(|lane| !is_zero(*lane)).map_or(0, |lane| lane + 1);
        let mut this = Self { t, n, used, entries: Aligned::zeros(used * (2 * t + (t + n) * padded(n) + n * t)) };
        let (step, rows) = (this.lane_len(), padded(n));
        for lane in 0..used {
            let entries = &mut this.entries[lane * step..][..step];
            let (kernel, rest) = entries.split_at_mut(2 * t);
            let (w, rest) = rest.split_at_mut(t * rows);
            let (over, g) = rest.split_at_mut(n * rows);
            let at = |from: &[f64], i: usize| E::of(from[i * GROUP + lane]);
            for i in 0..t {
                kernel[t + i] = at(&m.kernel, i);
                for j in 0..n {
                    w[i * rows + j] = at(&m.w, j * t + i);
                    g[j * t + i] = at(&m.g, i * n + j);
                }
            }
            for i in 0..n {
                for j in 0..n {
                    let own = if i == j { 1.0 } else { 0.0 };
                    over[j * rows + i] = E::of(a[(i * n + j) * GROUP + lane] - own);
                }
            }
        }
        this
    }

    fn lane_len(&self) -> usize {
        2 * self.t + (self.t + self.n) * padded(self.n) + self.n * self.t
    }

    /// Elements of scratch: the samples of a tile, lane after lane, and one lane's states before each chunk and after the last,
    /// and its errors.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        lane_step(shape.rows()) * GROUP + (shape.tile + 2) * padded(n)
    }

    /// As [`Chunk::run`](super::Chunk::run), with or without inputs and outputs.
    ///
    /// # Safety
    /// As for [`Chunk::run`](super::Chunk::run).
    pub unsafe fn run(&self, isa: Isa, Call { chunks, u, y, state, turn, scratch }: Call<'_, E>) {
        let (samples, x) = scratch.split_at_mut(lane_step(chunks * self.t) * GROUP);
        let kept = !matches!(state.errors, Errors::None);
        assert!(state.n == self.n && holds(x.len(), chunks + 2, padded(self.n)) && (kept || !E::COMPENSATED));
        isa.run(Run { matrix: self, chunks, u, y, state, turn, samples, x });
    }

    /// As [`Chunk::impulse_response`](super::Chunk::impulse_response).
    pub fn impulse_response(&self, y: &mut [E], state: &mut [E]) {
        y[..self.t * GROUP].fill(E::ZERO);
        state.fill(E::ZERO);
        for lane in 0..self.used {
            let entries = &self.entries[lane * self.lane_len()..];
            for i in 0..self.t {
                y[i * GROUP + lane] = entries[self.t + i];
            }
            for i in 0..self.n {
                state[i * GROUP + lane] = entries[2 * self.t + i];
            }
        }
    }
}

/// One number of [`Lanes::halves`] as two.
fn apart<E: Elem>(halves: E) -> [E; 2] {
    let (bits, half) = (halves.to_bits(), 4 * size_of::<E>());
    [E::from_bits(bits >> half << half), E::from_bits(bits << half)]
}

/// Two numbers, of half the bits each, as one of [`Lanes::halves`].
fn together<E: Elem>(first: E, second: E) -> E {
    let half = 4 * size_of::<E>();
    E::from_bits(first.to_bits() >> half << half | second.to_bits() >> half)
}

impl<E: Elem> State<E> {
    /// Copies one lane's state, and what rounding left over of it.
    ///
    /// # Safety
    /// The state is valid, and nothing else accesses this lane of it.
    unsafe fn read(&self, lane: usize, x: &mut [E], left: &mut [E]) {
        // SAFETY: the lane is one of GROUP in each of N rows, or of N / 2 rows of halves.
        unsafe {
            for (i, x) in x.iter_mut().enumerate().take(self.n) {
                *x = *self.x.add(i * GROUP + lane);
            }
            match self.errors {
                Errors::None => left[..self.n].fill(E::ZERO),
                Errors::Rows(rows) => {
                    for (i, left) in left.iter_mut().enumerate().take(self.n) {
                        *left = *rows.add(i * GROUP + lane);
                    }
                }
                Errors::Halves(halves) => {
                    for (i, left) in left[..self.n].chunks_exact_mut(2).enumerate() {
                        left.copy_from_slice(&apart(*halves.add(i * GROUP + lane)));
                    }
                }
            }
        }
    }

    /// Writes them.
    ///
    /// # Safety
    /// As for [`State::read`].
    unsafe fn write(&self, lane: usize, x: &[E], left: &[E]) {
        // SAFETY: as in `State::read`.
        unsafe {
            for (i, &x) in x.iter().enumerate().take(self.n) {
                *self.x.add(i * GROUP + lane) = x;
            }
            match self.errors {
                Errors::None => {}
                Errors::Rows(rows) => {
                    for (i, &left) in left.iter().enumerate().take(self.n) {
                        *rows.add(i * GROUP + lane) = left;
                    }
                }
                Errors::Halves(halves) => {
                    for (i, left) in left[..self.n].chunks_exact(2).enumerate() {
                        *halves.add(i * GROUP + lane) = together(left[0], left[1]);
                    }
                }
            }
        }
    }
}

struct Run<'a, E> {
    matrix: &'a Matrix<E>,
    chunks: usize,
    u: Option<In<E>>,
    y: Option<Out<E>>,
    state: State<E>,
    turn: Turn<'a>,
    samples: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { matrix: m, chunks, u, y, state, turn, samples, x } = self;
        let (x, left) = x.split_at_mut((chunks + 1) * padded(m.n));
        let (rows, step) = (chunks * m.t, lane_step(chunks * m.t));
        if let Some(u) = u {
            // SAFETY: the caller of `Matrix::run` guarantees `rows` rows at `u`, a multiple of GROUP since T is one;
            // `samples` has GROUP runs of `step` elements.
            unsafe { transpose::to_runs(lanes, rows, u, samples.as_mut_ptr(), step) };
        }
        for lane in 0..m.used {
            x[m.n..padded(m.n)].fill(E::ZERO);
            left[m.n..padded(m.n)].fill(E::ZERO);
            // SAFETY: lane < used has `lane_len` entries and a run of `step` >= `rows` samples; `Matrix::run` checked
            // that x has `chunks` + 1 states of padded(n). Its caller answers for the state in this lane's turn.
            unsafe {
                let run = Lane {
                    lanes,
                    t: m.t,
                    n: m.n,
                    entries: m.entries.as_ptr().add(lane * m.lane_len()),
                    z: samples.as_mut_ptr().add(lane * step),
                };
                run.all_inputs(chunks, u.is_none(), x);
                turn.wait(lane);
                state.read(lane, x, left);
                run.states(chunks, x, left);
                state.write(lane, &x[chunks * padded(m.n)..], left);
                turn.pass(lane);
                if y.is_some() {
                    run.outputs(chunks, u.is_none(), x);
                }
            }
        }
        if let Some(y) = y {
            samples[m.used * step..].fill(E::ZERO);
            // SAFETY: the caller of `Matrix::run` guarantees `rows` rows at `y`; `samples` has GROUP runs of `step`
            // elements.
            unsafe { transpose::to_rows(lanes, rows, samples.as_ptr(), step, y) };
        }
    }
}

/// One lane's matrices, and its samples: inputs, then outputs in place.
struct Lane<L: Lanes> {
    lanes: L,
    t: usize,
    n: usize,
    entries: *const L::E,
    z: *mut L::E,
}

/// Runs a body for all `rows`, $v vectors of them at once, from the last to the first: outputs are written over the
/// inputs of their rows, which earlier rows do not read.
macro_rules! by_rows {
    ($lanes:ty, $rows:expr, |$row:ident, $v:ident| $body:expr) => {{
        let mut end = $rows;
        while end > 0 {
            let mut v = if <$lanes>::REGISTERS >= 32 { 4 } else { 2 };
            while end % (v * <$lanes>::LANES) != 0 {
                v /= 2;
            }
            let $row = end - v * <$lanes>::LANES;
            compiled_for!(v, $v, $body, 1 2 4);
            end = $row;
        }
    }};
}

impl<L: Lanes> Lane<L> {
    /// W U for all chunks, written where the states after each will be; zeros where it is `silent`.
    ///
    /// # Safety
    /// `entries` addresses a lane's matrices for T samples and N states, and `z` T times `chunks` samples; `x` has `chunks` +
    /// 1 states of padded(N).
    #[inline(always)]
    unsafe fn all_inputs(&self, chunks: usize, silent: bool, x: &mut [L::E]) {
        let rows = padded(self.n);
        if silent {
            return x[rows..][..chunks * rows].fill(L::E::ZERO);
        }
        let x = x.as_mut_ptr();
        // SAFETY: rows below padded(N) and chunks below `chunks` are within the caller's memory.
        unsafe { by_rows!(L, rows, |row, V| by_chunks!(chunks, |chunk, C| self.inputs::<V, C>(row, chunk, x))) };
    }

    /// The states after all chunks, from W U and the state before the first, and what rounding left over of the last.
    ///
    /// # Safety
    /// As for [`Lane::all_inputs`], and `left` has padded(N) errors.
    #[inline(always)]
    unsafe fn states(&self, chunks: usize, x: &mut [L::E], left: &mut [L::E]) {
        let (x, left) = (x.as_mut_ptr(), left.as_mut_ptr());
        for chunk in 0..chunks {
            // SAFETY: rows below padded(N) and chunks below `chunks` are within the caller's memory.
            unsafe { by_rows!(L, padded(self.n), |row, V| self.transition::<V>(row, chunk, x, left)) };
        }
    }

    /// W U for V vectors of rows and C chunks.
    ///
    /// # Safety
    /// As for [`Lane::all_inputs`]; the rows are below padded(N), the chunks below `chunks`.
    #[inline(always)]
    unsafe fn inputs<const V: usize, const C: usize>(&self, row: usize, chunk: usize, x: *mut L::E) {
        let rows = padded(self.n);
        let mut sums = [[self.lanes.splat(L::E::ZERO); V]; C];
        // SAFETY: W has T columns of padded(N) rows, each of the chunks T samples and a state after it.
        unsafe {
            let w = self.entries.add(2 * self.t + row);
            sums = self.multiply::<V, C, -1>(w, rows as isize, 0..self.t, self.z.add(chunk * self.t), self.t, sums);
            self.write(&sums, x.add((chunk + 1) * rows + row), rows);
        }
    }

    /// Adds A^T X to V vectors of the state after a chunk.
    ///
    /// # Safety
    /// As for [`Lane::inputs`] with one chunk.
    #[inline(always)]
    unsafe fn transition<const V: usize>(&self, row: usize, chunk: usize, x: *mut L::E, left: *mut L::E) {
        let (lanes, rows) = (self.lanes, padded(self.n));
        // Two independent sums hide the latency of each.
        let mut sums = [[lanes.splat(L::E::ZERO); V]; 2];
        // SAFETY: A^T - I has N columns of padded(N) rows, N is even, chunks up to `chunk` + 1 have a state, and the errors
        // padded(N) rows.
        unsafe {
            let a = self.entries.add(2 * self.t + self.t * rows + row);
            let (from, to) = (x.add(chunk * rows), x.add((chunk + 1) * rows + row));
            for (v, sum) in sums[0].iter_mut().enumerate() {
                *sum = lanes.load(to.add(v * L::LANES));
            }
            for j in (0..self.n).step_by(2) {
                for (k, sums) in sums.iter_mut().enumerate() {
                    let x = lanes.splat(*from.add(j + k));
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = lanes.fma(lanes.load(a.add((j + k) * rows + v * L::LANES)), x, *sum);
                    }
                }
            }
            for v in 0..V {
                let at = row + v * L::LANES;
                let (x, change) = (lanes.load(from.add(at)), lanes.add(sums[0][v], sums[1][v]));
                let x = if L::E::COMPENSATED {
                    let left = left.add(at);
                    let (x, over) = lanes.fast_two_sum(x, lanes.add(change, lanes.load(left)));
                    // As it is kept, so that it does not matter where a call ends.
                    lanes.store(left, lanes.flush(lanes.first(lanes.halves(over, over))));
                    x
                } else {
                    lanes.add(x, change)
                };
                lanes.store(to.add(v * L::LANES), lanes.flush(x));
            }
        }
    }

    /// Writes K U + G X over U; with `silent` only G X.
    ///
    /// # Safety
    /// As for [`Lane::all_inputs`], after which and after [`Lane::states`] the states are there.
    #[inline(always)]
    unsafe fn outputs(&self, chunks: usize, silent: bool, x: &[L::E]) {
        let x = x.as_ptr();
        // SAFETY: rows below T and chunks below `chunks` are within the caller's memory.
        unsafe {
            by_rows!(L, self.t, |row, V| by_chunks!(chunks, |chunk, C| {
                self.output_rows::<V, C>(row, chunk, silent, x);
            }));
        }
    }

    /// The outputs for V vectors of rows and C chunks.
    ///
    /// # Safety
    /// As for [`Lane::outputs`]; the rows are below T, the chunks below `chunks`.
    #[inline(always)]
    unsafe fn output_rows<const V: usize, const C: usize>(
        &self,
        row: usize,
        chunk: usize,
        silent: bool,
        x: *const L::E,
    ) {
        let Self { lanes, t, n, .. } = *self;
        let rows = padded(n);
        let mut sums = [[lanes.splat(L::E::ZERO); V]; C];
        // SAFETY: the kernel stands after T zeros, so that -j from row >= j on is within the entries; G has N columns
        // of T rows.
        unsafe {
            let u = self.z.add(chunk * t);
            if !silent {
                // Column j of K is the kernel from -j on, with zeros before its start.
                let kernel = self.entries.add(t + row);
                sums = self.multiply::<V, C, -1>(kernel, -1, 0..row, u, t, sums);
                sums = self.diagonal_block::<V, C, 0>(kernel, row, u, sums);
                sums = self.diagonal_block::<V, C, 1>(kernel, row, u, sums);
                sums = self.diagonal_block::<V, C, 2>(kernel, row, u, sums);
                sums = self.diagonal_block::<V, C, 3>(kernel, row, u, sums);
            }
            let g = self.entries.add(2 * t + (t + n) * rows + row);
            sums = self.multiply::<V, C, -1>(g, t as isize, 0..n, x.add(chunk * rows), rows, sums);
            self.write(&sums, u.add(row), t);
        }
    }

    /// The columns of K that belong to the samples of vector B of the rows: lower triangular for vector B, where what
    /// is above the diagonal is masked, since zero times NaN is not zero; full for the vectors after it.
    ///
    /// # Safety
    /// As for [`Lane::output_rows`], for the kernel from `row` on and the samples of C chunks from `u` on.
    #[inline(always)]
    unsafe fn diagonal_block<const V: usize, const C: usize, const B: isize>(
        &self,
        kernel: *const L::E,
        row: usize,
        u: *const L::E,
        mut sums: [[L::V; V]; C],
    ) -> [[L::V; V]; C] {
        if B >= V as isize {
            return sums;
        }
        let lanes = self.lanes;
        let b = B as usize;
        let first = row + b * L::LANES;
        // SAFETY: samples first + i, below row + V vectors, are in each chunk; so are the entries from the kernel's -i
        // on, before whose start are T zeros.
        unsafe {
            let places = lanes.by_lane(|lane| L::E::of(lane as f64));
            let mut own = [lanes.splat(L::E::ZERO); C];
            for (own, sums) in own.iter_mut().zip(&sums) {
                *own = sums[b];
            }
            for i in 0..L::LANES {
                let column = lanes.load(kernel.sub(first + i).add(b * L::LANES));
                let before = lanes.splat(L::E::of(i as f64 - 0.5));
                for (c, own) in own.iter_mut().enumerate() {
                    let u = lanes.splat(*u.add(c * self.t + first + i));
                    *own = lanes.select_gt(places, before, lanes.fma(column, u, *own), *own);
                }
            }
            for (own, sums) in own.iter().zip(&mut sums) {
                sums[b] = *own;
            }
            self.multiply::<V, C, B>(kernel, -1, first..first + L::LANES, u, self.t, sums)
        }
    }

    /// sums\[c\]\[v\] += sum_j m\[v, j\] z\[c, j\] for the vectors v after B and a range of columns, which stand
    /// `m_step` elements apart.
    ///
    /// # Safety
    /// In each of the columns V vectors are valid to read from `m` on, and `z` has C rows, `z_step` apart, with these
    /// columns.
    #[inline(always)]
    unsafe fn multiply<const V: usize, const C: usize, const B: isize>(
        &self,
        m: *const L::E,
        m_step: isize,
        columns: Range<usize>,
        z: *const L::E,
        z_step: usize,
        mut sums: [[L::V; V]; C],
    ) -> [[L::V; V]; C] {
        let lanes = self.lanes;
        for j in columns {
            // SAFETY: v < V, c < C and column j are within the caller's memory.
            unsafe {
                let m = m.offset(j as isize * m_step);
                let mut column = [lanes.splat(L::E::ZERO); V];
                for (v, entry) in column.iter_mut().enumerate() {
                    if v as isize > B {
                        *entry = lanes.load(m.add(v * L::LANES));
                    }
                }
                for (c, sums) in sums.iter_mut().enumerate() {
                    let z = lanes.splat(*z.add(c * z_step + j));
                    for (v, sum) in sums.iter_mut().enumerate() {
                        if v as isize > B {
                            *sum = lanes.fma(column[v], z, *sum);
                        }
                    }
                }
            }
        }
        sums
    }

    /// Writes C rows of V vectors, `step` elements apart.
    ///
    /// # Safety
    /// These are valid to write at `to`.
    #[inline(always)]
    unsafe fn write<const V: usize, const C: usize>(&self, sums: &[[L::V; V]; C], to: *mut L::E, step: usize) {
        for (c, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: c < C and v < V.
                unsafe { self.lanes.store(to.add(c * step + v * L::LANES), sum) };
            }
        }
    }
}

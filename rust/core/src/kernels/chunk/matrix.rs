//! Chunk matrices of systems whose state transition is a full matrix.
//!
//! The transition over a chunk, N x N entries a channel, is needed by one chunk after the other. For a whole group of
//! channels it would not fit into the L1 cache, and be read from farther away for each chunk. So each lane has
//! matrices of its own, which stay in L1 for all chunks of the lane, and vectors run along the lane's samples and
//! states, which are transposed.

use super::matrices::{Call, ChunkMatrices, Errors, In, Out, Shape, State};
use crate::kernels::layout::holds;
use crate::kernels::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded, transpose};
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

    /// Elements of scratch: N rows of errors, the samples of a tile, lane after lane, and one lane's states before each chunk
    /// and after the last, and its errors.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        n * GROUP + lane_step(shape.rows()) * GROUP + (shape.tile + 2) * padded(n)
    }

    /// As [`Chunk::run`](super::Chunk::run), with or without inputs and outputs.
    ///
    /// # Safety
    /// T times `chunks` rows of GROUP elements are valid to read at `u`, and to write at `y` without other accesses.
    pub unsafe fn run(&self, isa: Isa, Call { chunks, u, y, state, scratch }: Call<'_, E>) {
        let State { x: state, errors } = state;
        let (rows, scratch) = scratch.split_at_mut(self.n * GROUP);
        let (samples, x) = scratch.split_at_mut(lane_step(chunks * self.t) * GROUP);
        assert!(state.len() == self.n * GROUP && holds(x.len(), chunks + 2, padded(self.n)));
        let (errors, halves) = match errors {
            Errors::None => {
                assert!(!E::COMPENSATED, "float32 keeps errors");
                (rows, None)
            }
            Errors::Rows(errors) => (errors, None),
            Errors::Halves(halves) => {
                assert!(halves.len() == self.n / 2 * GROUP);
                isa.run(Apart { halves, rows });
                (rows, Some(halves))
            }
        };
        assert!(errors.len() == self.n * GROUP);
        isa.run(Run { matrix: self, chunks, u, y, state, errors, samples, x });
        if let Some(halves) = halves {
            isa.run(Together { halves, rows: errors });
        }
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

/// Rows of the halves of others.
struct Apart<'a, E> {
    halves: &'a [E],
    rows: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Apart<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for (halves, rows) in self.halves.chunks_exact(GROUP).zip(self.rows.chunks_exact_mut(2 * GROUP)) {
            for lane in (0..GROUP).step_by(L::LANES) {
                // SAFETY: lane + LANES <= GROUP.
                unsafe {
                    let both = lanes.load(halves.as_ptr().add(lane));
                    lanes.store(rows.as_mut_ptr().add(lane), lanes.first(both));
                    lanes.store(rows.as_mut_ptr().add(GROUP + lane), lanes.second(both));
                }
            }
        }
    }
}

/// The halves of rows.
struct Together<'a, E> {
    halves: &'a mut [E],
    rows: &'a [E],
}

impl<E: Elem> Kernel<E> for Together<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for (halves, rows) in self.halves.chunks_exact_mut(GROUP).zip(self.rows.chunks_exact(2 * GROUP)) {
            for lane in (0..GROUP).step_by(L::LANES) {
                // SAFETY: lane + LANES <= GROUP.
                unsafe {
                    let row = |i: usize| lanes.load(rows.as_ptr().add(i * GROUP + lane));
                    lanes.store(halves.as_mut_ptr().add(lane), lanes.halves(row(0), row(1)));
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
    state: &'a mut [E],
    errors: &'a mut [E],
    samples: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { matrix: m, chunks, u, y, state, errors, samples, x } = self;
        let (x, left) = x.split_at_mut((chunks + 1) * padded(m.n));
        let (rows, step) = (chunks * m.t, lane_step(chunks * m.t));
        if let Some(u) = u {
            // SAFETY: the caller of `Matrix::run` guarantees `rows` rows at `u`, a multiple of GROUP since T is one;
            // `samples` has GROUP runs of `step` elements.
            unsafe { transpose::to_runs(lanes, rows, u, samples.as_mut_ptr(), step) };
        }
        for lane in 0..m.used {
            let column = || (0..m.n).map(|i| i * GROUP + lane);
            column().zip(&mut *x).for_each(|(i, x)| *x = state[i]);
            x[m.n..padded(m.n)].fill(E::ZERO);
            column().zip(&mut *left).for_each(|(i, left)| *left = errors[i]);
            left[m.n..padded(m.n)].fill(E::ZERO);
            // SAFETY: lane < used has `lane_len` entries and a run of `step` >= `rows` samples; `Matrix::run` checked
            // that x has `chunks` + 1 states of padded(n).
            unsafe {
                let lane = Lane {
                    lanes,
                    t: m.t,
                    n: m.n,
                    entries: m.entries.as_ptr().add(lane * m.lane_len()),
                    z: samples.as_mut_ptr().add(lane * step),
                    x: x.as_mut_ptr(),
                    left: left.as_mut_ptr(),
                };
                lane.states(chunks, u.is_none());
                if y.is_some() {
                    lane.outputs(chunks, u.is_none());
                }
            }
            let last = &x[chunks * padded(m.n)..];
            column().zip(last).for_each(|(i, x)| state[i] = *x);
            column().zip(&*left).for_each(|(i, left)| errors[i] = *left);
        }
        if let Some(y) = y {
            samples[m.used * step..].fill(E::ZERO);
            // SAFETY: the caller of `Matrix::run` guarantees `rows` rows at `y`; `samples` has GROUP runs of `step`
            // elements.
            unsafe { transpose::to_rows(lanes, rows, samples.as_ptr(), step, y) };
        }
    }
}

/// One lane's matrices, its samples (inputs, then outputs in place), its states before each chunk and after the last, and
/// what rounding left over of the newest.
struct Lane<L: Lanes> {
    lanes: L,
    t: usize,
    n: usize,
    entries: *const L::E,
    z: *mut L::E,
    x: *mut L::E,
    left: *mut L::E,
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
    /// The states after each chunk; without `silent` the samples are inputs.
    ///
    /// # Safety
    /// `entries` addresses a lane's matrices for T samples and N states, `z` T times `chunks` samples, `x` `chunks` +
    /// 1 states of padded(N), and `left` padded(N) errors.
    #[inline(always)]
    unsafe fn states(&self, chunks: usize, silent: bool) {
        let rows = padded(self.n);
        // SAFETY: rows below padded(N) and chunks below `chunks` are within the caller's memory.
        unsafe {
            if silent {
                for i in (0..chunks * rows).step_by(L::LANES) {
                    self.lanes.store(self.x.add(rows + i), self.lanes.splat(L::E::ZERO));
                }
            } else {
                by_rows!(L, rows, |row, V| by_chunks!(chunks, |chunk, C| self.inputs::<V, C>(row, chunk)));
            }
            for chunk in 0..chunks {
                by_rows!(L, rows, |row, V| self.transition::<V>(row, chunk));
            }
        }
    }

    /// W U for V vectors of rows and C chunks.
    ///
    /// # Safety
    /// As for [`Lane::states`]; the rows are below padded(N), the chunks below `chunks`.
    #[inline(always)]
    unsafe fn inputs<const V: usize, const C: usize>(&self, row: usize, chunk: usize) {
        let rows = padded(self.n);
        let mut sums = [[self.lanes.splat(L::E::ZERO); V]; C];
        // SAFETY: W has T columns of padded(N) rows, each of the chunks T samples and a state after it.
        unsafe {
            let w = self.entries.add(2 * self.t + row);
            sums = self.multiply::<V, C, -1>(w, rows as isize, 0..self.t, self.z.add(chunk * self.t), self.t, sums);
            self.write(&sums, self.x.add((chunk + 1) * rows + row), rows);
        }
    }

    /// Adds A^T X to V vectors of the state after a chunk.
    ///
    /// # Safety
    /// As for [`Lane::inputs`] with one chunk.
    #[inline(always)]
    unsafe fn transition<const V: usize>(&self, row: usize, chunk: usize) {
        let (lanes, rows) = (self.lanes, padded(self.n));
        // Two independent sums hide the latency of each.
        let mut sums = [[lanes.splat(L::E::ZERO); V]; 2];
        // SAFETY: A^T - I has N columns of padded(N) rows, N is even, chunks up to `chunk` + 1 have a state, and the errors
        // padded(N) rows.
        unsafe {
            let a = self.entries.add(2 * self.t + self.t * rows + row);
            let (from, to) = (self.x.add(chunk * rows), self.x.add((chunk + 1) * rows + row));
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
                    let left = self.left.add(at);
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
    /// As for [`Lane::states`], after which the states are there.
    #[inline(always)]
    unsafe fn outputs(&self, chunks: usize, silent: bool) {
        // SAFETY: rows below T and chunks below `chunks` are within the caller's memory.
        unsafe {
            by_rows!(L, self.t, |row, V| by_chunks!(chunks, |chunk, C| self.output_rows::<V, C>(row, chunk, silent)));
        }
    }

    /// The outputs for V vectors of rows and C chunks.
    ///
    /// # Safety
    /// As for [`Lane::outputs`]; the rows are below T, the chunks below `chunks`.
    #[inline(always)]
    unsafe fn output_rows<const V: usize, const C: usize>(&self, row: usize, chunk: usize, silent: bool) {
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
            sums = self.multiply::<V, C, -1>(g, t as isize, 0..n, self.x.add(chunk * rows), rows, sums);
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

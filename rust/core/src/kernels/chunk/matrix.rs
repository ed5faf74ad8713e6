//! Chunk matrices of systems whose state moves by a full matrix.
//!
//! A matrix over a chunk of N x N entries a channel is used by one chunk after the other. Read for a whole group of
//! channels it would stream through the caches each time; so here each lane has its own matrices, which stay in the
//! first cache while the lane's chunks go by, and vectors run along the lane's own samples and states.

use super::matrices::{Call, ChunkMatrices, In, Out, Shape};
use crate::kernels::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded, transpose};
use std::ops::Range;

/// The four matrices of each lane.
#[derive(Debug)]
pub struct Matrix<E> {
    t: usize,
    n: usize,
    /// Lanes up to the last one that says anything.
    used: usize,
    /// For each lane, column after column: T zeros and the kernel; W (N, T); A^T (N, N); G (T, N), N rows padded.
    entries: Aligned<E>,
}

/// Elements that a lane's samples take: the lanes begin in different sets of the cache.
const fn lane_step(rows: usize) -> usize {
    rows + GROUP
}

impl<E: Elem> Matrix<E> {
    /// In engine precision, for a state that moves by `a`, N x N rows.
    pub fn new(m: &ChunkMatrices, a: &[f64]) -> Self {
        let (t, n) = (m.samples(), m.states());
        assert!(t.is_multiple_of(GROUP) && n.is_multiple_of(2) && m.w.len() == m.g.len() && a.len() == n * n * GROUP);
        let silent =
            |lane: usize| [&m.kernel, &m.w, &m.g].iter().all(|v| v[lane..].iter().step_by(GROUP).all(|x| *x == 0.0));
        let used = (0..GROUP).rev().find(|lane| !silent(*lane)).map_or(0, |lane| lane + 1);
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
                    over[j * rows + i] = at(a, i * n + j);
                }
            }
        }
        this
    }

    fn lane_len(&self) -> usize {
        2 * self.t + (self.t + self.n) * padded(self.n) + self.n * self.t
    }

    /// Elements of scratch: the samples of a tile, lane after lane, and one lane's states before each chunk and after
    /// the last.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        lane_step(shape.rows()) * GROUP + (shape.tile + 1) * padded(n)
    }

    /// As [`Chunk`](super::Chunk) says.
    ///
    /// # Safety
    /// All rows are valid.
    pub unsafe fn run(&self, isa: Isa, Call { chunks, u, y, state, scratch }: Call<'_, E>) {
        let (samples, x) = scratch.split_at_mut(lane_step(chunks * self.t) * GROUP);
        assert!(state.len() == self.n * GROUP && x.len() >= (chunks + 1) * padded(self.n));
        isa.run(Run { matrix: self, chunks, u, y, state, samples, x });
    }

    /// The answers to an impulse over one chunk, and the state after it.
    pub fn impulse(&self, y: &mut [E], state: &mut [E]) {
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

struct Run<'a, E> {
    matrix: &'a Matrix<E>,
    chunks: usize,
    u: Option<In<E>>,
    y: Option<Out<E>>,
    state: &'a mut [E],
    samples: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { matrix: m, chunks, u, y, state, samples, x } = self;
        let (rows, step) = (chunks * m.t, lane_step(chunks * m.t));
        if let Some(u) = u {
            // SAFETY: the caller's rows are as many; the scratch has a run for every lane.
            unsafe { transpose::to_runs(lanes, rows, u, samples.as_mut_ptr(), step) };
        }
        for lane in 0..m.used {
            let column = || (0..m.n).map(|i| i * GROUP + lane);
            column().zip(&mut *x).for_each(|(i, x)| *x = state[i]);
            x[m.n..padded(m.n)].fill(E::ZERO);
            // SAFETY: `Matrix::run` checked the lengths, and `new` made the matrices.
            unsafe {
                let lane = Lane {
                    lanes,
                    t: m.t,
                    n: m.n,
                    entries: m.entries.as_ptr().add(lane * m.lane_len()),
                    z: samples.as_mut_ptr().add(lane * step),
                    x: x.as_mut_ptr(),
                };
                lane.remember(chunks, u.is_none());
                if y.is_some() {
                    lane.answer(chunks, u.is_none());
                }
            }
            let last = &x[chunks * padded(m.n)..];
            column().zip(last).for_each(|(i, x)| state[i] = *x);
        }
        if let Some(y) = y {
            samples[m.used * step..].fill(E::ZERO);
            // SAFETY: as above.
            unsafe { transpose::to_rows(lanes, rows, samples.as_ptr(), step, y) };
        }
    }
}

/// One lane's matrices, its samples (turned into answers in place) and its states before each chunk.
struct Lane<L: Lanes> {
    lanes: L,
    t: usize,
    n: usize,
    entries: *const L::E,
    z: *mut L::E,
    x: *mut L::E,
}

/// Runs a body for all `rows`, V vectors of them at once, from the last to the first: answers are written over samples
/// that earlier rows still read.
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
    /// The states before each chunk and after the last.
    ///
    /// # Safety
    /// The pointers address what `Run` has checked.
    #[inline(always)]
    unsafe fn remember(&self, chunks: usize, silent: bool) {
        let rows = padded(self.n);
        // SAFETY: as the caller's.
        unsafe {
            if silent {
                for i in (0..chunks * rows).step_by(L::LANES) {
                    self.lanes.store(self.x.add(rows + i), self.lanes.splat(L::E::ZERO));
                }
            } else {
                by_rows!(L, rows, |row, V| by_chunks!(chunks, |chunk, C| self.inputs::<V, C>(row, chunk)));
            }
            for chunk in 0..chunks {
                by_rows!(L, rows, |row, V| self.follow::<V>(row, chunk));
            }
        }
    }

    /// W U for rows and chunks.
    #[inline(always)]
    unsafe fn inputs<const V: usize, const C: usize>(&self, row: usize, chunk: usize) {
        let rows = padded(self.n);
        let mut sums = [[self.lanes.splat(L::E::ZERO); V]; C];
        // SAFETY: as the caller's.
        unsafe {
            let w = self.entries.add(2 * self.t + row);
            sums = self.multiply::<V, C, -1>(w, rows as isize, 0..self.t, self.z.add(chunk * self.t), self.t, sums);
            self.write(&sums, self.x.add((chunk + 1) * rows + row), rows);
        }
    }

    /// Adds A^T X to the state after a chunk.
    #[inline(always)]
    unsafe fn follow<const V: usize>(&self, row: usize, chunk: usize) {
        let (lanes, rows) = (self.lanes, padded(self.n));
        // Two chains of sums hide the latency of each.
        let mut sums = [[lanes.splat(L::E::ZERO); V]; 2];
        // SAFETY: as the caller's.
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
                lanes.store(to.add(v * L::LANES), lanes.flush(lanes.add(sums[0][v], sums[1][v])));
            }
        }
    }

    /// Writes K U + G X over U.
    #[inline(always)]
    unsafe fn answer(&self, chunks: usize, silent: bool) {
        // SAFETY: as the caller's.
        unsafe {
            by_rows!(L, self.t, |row, V| by_chunks!(chunks, |chunk, C| self.answers::<V, C>(row, chunk, silent)));
        }
    }

    #[inline(always)]
    unsafe fn answers<const V: usize, const C: usize>(&self, row: usize, chunk: usize, silent: bool) {
        let Self { lanes, t, n, .. } = *self;
        let rows = padded(n);
        let mut sums = [[lanes.splat(L::E::ZERO); V]; C];
        // SAFETY: as the caller's.
        unsafe {
            let u = self.z.add(chunk * t);
            if !silent {
                // Column j is the kernel from -j on; before its start are zeros.
                let kernel = self.entries.add(t + row);
                sums = self.multiply::<V, C, -1>(kernel, -1, 0..row, u, t, sums);
                sums = self.wedge::<V, C, 0>(kernel, row, u, sums);
                sums = self.wedge::<V, C, 1>(kernel, row, u, sums);
                sums = self.wedge::<V, C, 2>(kernel, row, u, sums);
                sums = self.wedge::<V, C, 3>(kernel, row, u, sums);
            }
            let g = self.entries.add(2 * t + (t + n) * rows + row);
            sums = self.multiply::<V, C, -1>(g, t as isize, 0..n, self.x.add(chunk * rows), rows, sums);
            self.write(&sums, u.add(row), t);
        }
    }

    /// The samples that vector B of the answers itself stands at. Vector B hears them from their own place on, and no
    /// zero is multiplied with what may be NaN; the vectors after it hear all of them.
    #[inline(always)]
    unsafe fn wedge<const V: usize, const C: usize, const B: isize>(
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
        // SAFETY: as the caller's.
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
            // SAFETY: as the caller's.
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

    #[inline(always)]
    unsafe fn write<const V: usize, const C: usize>(&self, sums: &[[L::V; V]; C], to: *mut L::E, step: usize) {
        for (c, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: as the caller's.
                unsafe { self.lanes.store(to.add(c * step + v * L::LANES), sum) };
            }
        }
    }
}

//! Chunk matrices of systems whose state transition is complex poles. Lanes are channels: every entry is a row of
//! [`GROUP`] channels.

use super::matrices::{Call, ChunkMatrices, Errors, Out, Shape, State};
use crate::kernels::layout::{fetch, holds};
use crate::kernels::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, columns};
use crate::turn::Turn;
use std::ops::Range;

/// The four matrices of one group of channels.
#[derive(Debug)]
pub struct Poles<E> {
    t: usize,
    n: usize,
    /// (T,)
    kernel: Aligned<E>,
    /// (T, N), in strips of [`TALL`] rows.
    g: Aligned<E>,
    /// (N, T) and zeros up to whole strips, likewise.
    w: Aligned<E>,
    /// (re, im) a mode: its pole over a chunk, less one. Of a slow mode's pole itself, which is close to 1, few digits would be
    /// left.
    less_one: Aligned<E>,
    /// Runs of modes, and whether what rounding leaves over of them is kept.
    runs: Vec<(Range<usize>, bool)>,
}

/// What rounding leaves over is kept where a chunk takes away less than this of a mode: of others it is soon gone.
const SLOW: f64 = 1.0 / 32.0;

/// Rows of a register tile, where the machine has registers for them. A matrix is stored in strips of so many rows,
/// column after column, so that a tile reads one run of memory.
const TALL: usize = 4;

/// `n` rows, up to whole strips.
const fn whole(n: usize) -> usize {
    n.next_multiple_of(TALL)
}

/// Where row `i` of a matrix begins, in rows of GROUP; its columns stand TALL of these apart.
const fn strip(i: usize, columns: usize) -> usize {
    i / TALL * TALL * columns + i % TALL
}

impl<E: Elem> Poles<E> {
    /// In engine precision, for the poles (re, im), 2 rows a mode.
    pub fn new(m: &ChunkMatrices, poles: &[f64]) -> Self {
        let of = |v: &[f64]| v.iter().copied().map(E::of).collect();
        let (t, n) = (m.samples(), m.states());
        let strips = |v: &[f64], rows: usize, columns: usize| {
            let mut strips = Aligned::zeros(whole(rows) * columns * GROUP);
            for (at, entry) in v.chunks_exact(GROUP).enumerate() {
                let (i, j) = (at / columns, at % columns);
                let to = &mut strips[(strip(i, columns) + j * TALL) * GROUP..][..GROUP];
                to.iter_mut().zip(entry).for_each(|(to, x)| *to = E::of(*x));
            }
            strips
        };
        assert!(t.is_multiple_of(TALL), "expected chunks of whole strips");
        let one = |row: usize| if row.is_multiple_of(2) { 1.0 } else { 0.0 };
        let less_one: Vec<f64> = poles.iter().enumerate().map(|(i, x)| x - one(i / GROUP)).collect();
        let slow = |mode: usize| {
            (0..GROUP).any(|lane| {
                let heard = |row: usize| (0..t).any(|i| m.g[(i * n + row) * GROUP + lane] != 0.0);
                let [re, im] = [2 * mode, 2 * mode + 1].map(|row| less_one[row * GROUP + lane]);
                re.hypot(im) < SLOW && (heard(2 * mode) || heard(2 * mode + 1))
            })
        };
        let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
        for mode in 0..n / 2 {
            let slow = E::COMPENSATED && slow(mode);
            match runs.last_mut() {
                Some((run, kept)) if *kept == slow => run.end = mode + 1,
                _ => runs.push((mode..mode + 1, slow)),
            }
        }
        Self {
            t,
            n,
            kernel: of(&m.kernel),
            g: strips(&m.g, t, n),
            w: strips(&m.w, n, t),
            less_one: of(&less_one),
            runs,
        }
    }

    /// Elements of scratch: the samples of a tile, and the states before each chunk and after the last.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        (shape.rows() + (shape.tile + 1) * whole(n)) * GROUP
    }

    /// As [`Chunk::run`](super::Chunk::run), with or without inputs and outputs.
    ///
    /// # Safety
    /// As for [`Chunk::run`](super::Chunk::run).
    pub unsafe fn run(&self, isa: Isa, Call { chunks, u, y, state, turn, scratch }: Call<'_, E>) {
        let rows = chunks * self.t;
        let (packed, x) = scratch.split_at_mut(rows * GROUP);
        let kept = matches!(state.errors, Errors::Halves(_));
        assert!(state.n == self.n && holds(x.len(), chunks + 1, whole(self.n) * GROUP) && kept == E::COMPENSATED);
        let u = u.map(|(u, step)| {
            if step == GROUP as isize {
                return u;
            }
            // Rows that stand a power of two apart would share few sets of the caches.
            // SAFETY: the caller guarantees `rows` rows at `u`.
            unsafe { columns::pack::<E, 1>(isa, rows, (u, step), packed, rows * GROUP) };
            packed.as_ptr()
        });
        isa.run(Run { poles: self, chunks, u, y, state, turn, x: x.as_mut_ptr() });
    }

    /// As [`Chunk::impulse_response`](super::Chunk::impulse_response).
    pub fn impulse_response(&self, y: &mut [E], state: &mut [E]) {
        y[..self.t * GROUP].copy_from_slice(&self.kernel);
        for (i, state) in state.chunks_exact_mut(GROUP).enumerate() {
            state.copy_from_slice(&self.w[strip(i, self.t) * GROUP..][..GROUP]);
        }
    }
}

struct Run<'a, E> {
    poles: &'a Poles<E>,
    chunks: usize,
    u: Option<*const E>,
    y: Option<Out<E>>,
    state: State<E>,
    turn: Turn<'a>,
    /// The states before each chunk and after the last.
    x: *mut E,
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        if L::REGISTERS >= 32 { self.by::<L, TALL>(lanes) } else { self.by::<L, 2>(lanes) }
    }
}

impl<E: Elem> Run<'_, E> {
    /// In tiles of R rows.
    #[inline(always)]
    fn by<L: Lanes<E = E>, const R: usize>(self, lanes: L) {
        let Self { poles: m, chunks, u, y, state, turn, x } = self;
        let errors = if let Errors::Halves(errors) = state.errors { errors } else { std::ptr::null_mut() };
        let first_lanes = || (0..GROUP).step_by(L::LANES);
        // One of many streams' comes from main memory, meanwhile.
        for row in 0..m.n {
            fetch(state.x.wrapping_add(row * GROUP));
            fetch(errors.wrapping_add(row / 2 * GROUP));
        }
        // SAFETY: the matrices are those of T samples and N states, x has `chunks` + 1 states of whole(N) rows, as `Poles::run`
        // checked, and its caller guarantees T times `chunks` rows of u and y and, in this turn, the state. Lanes from each of
        // the first ones on are within the rows.
        unsafe {
            for lane in first_lanes() {
                Vector::of(lanes, m, lane, u, x).all_inputs::<R>(chunks);
            }
            // The states alone follow one another from block to block.
            turn.wait(0);
            x.copy_from_nonoverlapping(state.x, m.n * GROUP);
            for lane in first_lanes() {
                Vector::of(lanes, m, lane, u, x).states(chunks, errors.wrapping_add(lane));
            }
            state.x.copy_from_nonoverlapping(x.add(chunks * whole(m.n) * GROUP), m.n * GROUP);
            turn.pass(0);
            let Some((y, step)) = y else { return };
            for lane in first_lanes() {
                Vector::of(lanes, m, lane, u, x).all_outputs::<R>(chunks, (y.add(lane), step));
            }
        }
    }
}

/// One vector of channels: its matrices, its inputs, and its states before each chunk and after the last.
struct Vector<'a, L: Lanes> {
    lanes: L,
    t: usize,
    n: usize,
    kernel: *const L::E,
    g: *const L::E,
    w: *const L::E,
    less_one: *const L::E,
    runs: &'a [(Range<usize>, bool)],
    u: Option<*const L::E>,
    x: *mut L::E,
}

impl<'a, L: Lanes> Vector<'a, L> {
    /// The vector of lanes from `lane` on.
    ///
    /// # Safety
    /// It is one of [`GROUP`], whose rows `u` and `x` address.
    #[inline(always)]
    unsafe fn of(lanes: L, m: &'a Poles<L::E>, lane: usize, u: Option<*const L::E>, x: *mut L::E) -> Self {
        let of = |v: &Aligned<L::E>| v.as_ptr().wrapping_add(lane);
        Self {
            lanes,
            t: m.t,
            n: m.n,
            kernel: of(&m.kernel),
            g: of(&m.g),
            w: of(&m.w),
            less_one: of(&m.less_one),
            runs: &m.runs,
            u: u.map(|u| u.wrapping_add(lane)),
            x: x.wrapping_add(lane),
        }
    }

    /// W U for all chunks, in tiles of R rows; zeros without inputs.
    ///
    /// # Safety
    /// From one lane of a group on, the pointers address the matrices for T samples and N states, T times `chunks`
    /// rows of inputs, and `chunks` + 1 states of whole(N) rows. R divides TALL.
    #[inline(always)]
    unsafe fn all_inputs<const R: usize>(&self, chunks: usize) {
        let (lanes, n) = (self.lanes, whole(self.n));
        // SAFETY: rows below whole(N) and chunks below `chunks` are within the caller's memory.
        unsafe {
            match self.u {
                // All rows of few chunks, whose samples stay in the L1 cache.
                Some(u) => by_chunks!(chunks, |chunk, C| for i in (0..n).step_by(R) {
                    self.inputs::<R, C>(i, chunk, u);
                }),
                None => {
                    for i in n..(chunks + 1) * n {
                        lanes.store(self.x.add(i * GROUP), lanes.splat(L::E::ZERO));
                    }
                }
            }
        }
    }

    /// The states after all chunks, from W U and the state before the first.
    ///
    /// # Safety
    /// As for [`Vector::all_inputs`]; `errors` addresses N / 2 rows, where errors are kept.
    #[inline(always)]
    unsafe fn states(&self, chunks: usize, errors: *mut L::E) {
        let (lanes, n) = (self.lanes, whole(self.n));
        // SAFETY: rows below N and chunks up to `chunks` are within the caller's memory.
        unsafe {
            for chunk in 0..chunks {
                for (modes, kept) in self.runs {
                    if *kept {
                        self.transition::<true>(chunk, modes.clone(), errors);
                    } else {
                        self.transition::<false>(chunk, modes.clone(), errors);
                    }
                }
            }
            // Tiny numbers are flushed after the last chunk: denormals before it cannot be many.
            for i in 0..self.n {
                let last = self.x.add((chunks * n + i) * GROUP);
                lanes.store(last, lanes.flush(lanes.load(last)));
            }
            if L::E::COMPENSATED {
                for (modes, kept) in self.runs {
                    for mode in modes.clone() {
                        let errors = errors.add(mode * GROUP);
                        let left = if *kept { lanes.load(errors) } else { lanes.splat(L::E::ZERO) };
                        let (re, im) = (lanes.flush(lanes.first(left)), lanes.flush(lanes.second(left)));
                        lanes.store(errors, lanes.halves(re, im));
                    }
                }
            }
        }
    }

    /// K U + G X for all chunks, in tiles of R rows.
    ///
    /// # Safety
    /// As for [`Vector::all_inputs`], and `y` addresses T times `chunks` rows of outputs.
    #[inline(always)]
    unsafe fn all_outputs<const R: usize>(&self, chunks: usize, y: Out<L::E>) {
        // SAFETY: rows below T and chunks below `chunks` are within the caller's memory.
        unsafe {
            by_chunks!(chunks, |chunk, C| for i in (0..self.t).step_by(R) {
                self.outputs::<R, C>(i, chunk, y);
            });
        }
    }

    /// W U for R rows and C chunks, written where the states after these will be.
    ///
    /// # Safety
    /// As for [`Vector::all_inputs`]; the rows are below whole(N), the chunks below `chunks`.
    #[inline(always)]
    unsafe fn inputs<const R: usize, const C: usize>(&self, row: usize, chunk: usize, u: *const L::E) {
        let (lanes, t, n) = (self.lanes, self.t, whole(self.n));
        let mut sums = [[lanes.splat(L::E::ZERO); R]; C];
        // SAFETY: W has whole(N) rows of T columns, each of the chunks T samples and a state after it.
        unsafe {
            let (w, u) = (self.w.add(strip(row, t) * GROUP), u.add(chunk * t * GROUP));
            sums = self.multiply(t, w, (u, t * GROUP), sums);
            let to = self.x.add(((chunk + 1) * n + row) * GROUP);
            for (c, sums) in sums.iter().enumerate() {
                for (r, &sum) in sums.iter().enumerate() {
                    lanes.store(to.add((c * n + r) * GROUP), sum);
                }
            }
        }
    }

    /// Adds A^T X, for the state X before a chunk, to the one after it, and with K what rounding left over.
    ///
    /// # Safety
    /// As for [`Vector::all_inputs`], for a chunk below `chunks` and modes below N / 2; with K they have `errors`.
    #[inline(always)]
    unsafe fn transition<const K: bool>(&self, chunk: usize, modes: Range<usize>, errors: *mut L::E) {
        let (lanes, n) = (self.lanes, whole(self.n));
        // SAFETY: i + 1 < N, which is even, and there are states before and after the chunk.
        unsafe {
            let (from, to) = (self.x.add(chunk * n * GROUP), self.x.add((chunk + 1) * n * GROUP));
            for mode in modes {
                let i = 2 * mode;
                let at = |p: *const L::E, k: usize| lanes.load(p.add((i + k) * GROUP));
                let (dr, di, xr, xi) = (at(self.less_one, 0), at(self.less_one, 1), at(from, 0), at(from, 1));
                let change_re = lanes.fma(dr, xr, lanes.nfma(di, xi, at(to, 0)));
                let change_im = lanes.fma(dr, xi, lanes.fma(di, xr, at(to, 1)));
                let (re, im) = if K {
                    let errors = errors.add(mode * GROUP);
                    let left = lanes.load(errors);
                    let (re, left_re) = lanes.fast_two_sum(xr, lanes.add(change_re, lanes.first(left)));
                    let (im, left_im) = lanes.fast_two_sum(xi, lanes.add(change_im, lanes.second(left)));
                    lanes.store(errors, lanes.halves(left_re, left_im));
                    (re, im)
                } else {
                    (lanes.add(xr, change_re), lanes.add(xi, change_im))
                };
                lanes.store(to.add(i * GROUP), re);
                lanes.store(to.add((i + 1) * GROUP), im);
            }
        }
    }

    /// K U + G X for R rows and C chunks.
    ///
    /// # Safety
    /// As for [`Vector::all_inputs`]; the rows are below T, the chunks below `chunks`.
    #[inline(always)]
    unsafe fn outputs<const R: usize, const C: usize>(&self, row: usize, chunk: usize, (y, step): Out<L::E>) {
        let Self { lanes, t, n, .. } = *self;
        let mut sums = [[lanes.splat(L::E::ZERO); R]; C];
        // SAFETY: lags up to row + R - 1 are below T, as are the samples; G has T rows of N columns.
        unsafe {
            if let Some(u) = self.u {
                let u = u.add(chunk * t * GROUP);
                for j in 0..=row {
                    let mut lags = [lanes.splat(L::E::ZERO); R];
                    for (r, lag) in lags.iter_mut().enumerate() {
                        *lag = lanes.load(self.kernel.add((row - j + r) * GROUP));
                    }
                    sums = self.add(lags, (u.add(j * GROUP), t * GROUP), sums);
                }
                // The samples after `row` belong to later rows only. They are left out, since zero times NaN is not
                // zero.
                for j in 1..R {
                    for (c, sums) in sums.iter_mut().enumerate() {
                        let u = lanes.load(u.add((c * t + row + j) * GROUP));
                        for (r, sum) in sums.iter_mut().enumerate() {
                            if r >= j {
                                *sum = lanes.fma(lanes.load(self.kernel.add((r - j) * GROUP)), u, *sum);
                            }
                        }
                    }
                }
            }
            let x = self.x.add(chunk * whole(n) * GROUP);
            sums = self.multiply(n, self.g.add(strip(row, n) * GROUP), (x, whole(n) * GROUP), sums);
            for (c, sums) in sums.iter().enumerate() {
                for (r, &sum) in sums.iter().enumerate() {
                    lanes.store(y.offset(((chunk + c) * t + row + r) as isize * step), sum);
                }
            }
        }
    }

    /// sums\[c\]\[r\] += sum_j m\[r, j\] z\[c, j\] for `columns` columns of a strip, and `z` with its step from row to
    /// row.
    ///
    /// # Safety
    /// The strip has R rows and so many columns from `m` on, and C rows of `z` have so many entries.
    #[inline(always)]
    unsafe fn multiply<const R: usize, const C: usize>(
        &self,
        columns: usize,
        m: *const L::E,
        (z, z_step): (*const L::E, usize),
        mut sums: [[L::V; R]; C],
    ) -> [[L::V; R]; C] {
        let lanes = self.lanes;
        for j in 0..columns {
            let mut column = [lanes.splat(L::E::ZERO); R];
            // SAFETY: j < columns and r < R.
            unsafe {
                for (r, entry) in column.iter_mut().enumerate() {
                    *entry = lanes.load(m.add((j * TALL + r) * GROUP));
                }
                sums = self.add(column, (z.add(j * GROUP), z_step), sums);
            }
        }
        sums
    }

    /// sums\[c\]\[r\] += column\[r\] z\[c\]
    ///
    /// # Safety
    /// `z` addresses C rows, `z_step` elements apart.
    #[inline(always)]
    unsafe fn add<const R: usize, const C: usize>(
        &self,
        column: [L::V; R],
        (z, z_step): (*const L::E, usize),
        mut sums: [[L::V; R]; C],
    ) -> [[L::V; R]; C] {
        for (c, sums) in sums.iter_mut().enumerate() {
            // SAFETY: c < C.
            let z = unsafe { self.lanes.load(z.add(c * z_step)) };
            for (sum, entry) in sums.iter_mut().zip(column) {
                *sum = self.lanes.fma(entry, z, *sum);
            }
        }
        sums
    }
}

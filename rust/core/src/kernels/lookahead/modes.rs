//! The modes of a vector of lanes: their free response to the samples ahead, and how pending inputs move them on.

use super::layout::{BLOCK_LEN, BLOCK_SAMPLES, POWER_ROWS, READER_ROWS, mode_rows, pole_rows, reader_row};
use crate::kernels::mode_state::{Compensated, CompensatedAt};
use crate::kernels::{Elem, GROUP, Lanes};

/// a b + c of complex numbers.
#[inline(always)]
fn times<L: Lanes>(lanes: L, a: (L::V, L::V), b: (L::V, L::V), c: (L::V, L::V)) -> (L::V, L::V) {
    let re = lanes.fma(a.0, b.0, lanes.nfma(a.1, b.1, c.0));
    (re, lanes.fma(a.0, b.1, lanes.fma(a.1, b.0, c.1)))
}

/// Modes that move on side by side, each a chain of dependent operations: as many as registers hold.
const fn together(products: usize) -> usize {
    if products == 0 { 4 } else { 2 }
}

/// The modes of a vector of lanes of a system with K inner products and W blocks from one visit to the next: their
/// coefficients and their state.
#[derive(Clone, Copy)]
pub struct LaneModes<E, const K: usize, const W: usize> {
    count: usize,
    k: *const E,
    x: *mut E,
}

impl<E: Elem, const K: usize, const W: usize> LaneModes<E, K, W> {
    /// `count` modes, whose coefficients and state begin at `k` and `x`.
    ///
    /// # Safety
    /// From one lane of a group on, `k` addresses the coefficients of so many modes of such a system to read, and `x`
    /// their state to read and write, as long as this value is used; nothing else accesses the state meanwhile.
    pub unsafe fn new(count: usize, k: *const E, x: *mut E) -> Self {
        Self { count, k, x }
    }

    /// Elements from one mode's coefficients to the next's.
    const STRIDE: usize = mode_rows(K, W) * GROUP;

    /// The first row of the pole's power for V blocks of samples.
    const fn pole_row(v: usize) -> usize {
        if v == W { POWER_ROWS } else { mode_rows(K, W) - pole_rows(K) }
    }

    /// Moves them on by V blocks of inputs, V being 1 or W; with `FLUSH` tiny numbers are set to zero.
    ///
    /// # Safety
    /// From the same lane on, `u` addresses V blocks of rows to read, `sums` one block for each inner product. V is 1
    /// where there are inner products.
    #[inline(always)]
    pub unsafe fn advance<L: Lanes<E = E>, const V: usize, const FLUSH: bool>(
        self,
        lanes: L,
        u: *const E,
        sums: *const E,
    ) {
        let whole = self.count / together(K) * together(K);
        // SAFETY: modes n up to n + M - 1 are below `count`.
        unsafe {
            for n in (0..whole).step_by(together(K)) {
                if K == 0 {
                    self.advance_some::<L, V, { together(0) }, FLUSH>(lanes, n, u, sums);
                } else {
                    self.advance_some::<L, V, { together(1) }, FLUSH>(lanes, n, u, sums);
                }
            }
            for n in whole..self.count {
                self.advance_some::<L, V, 1, FLUSH>(lanes, n, u, sums);
            }
        }
    }

    /// As [`LaneModes::advance`], M modes from `n` on.
    ///
    /// # Safety
    /// `u` and `sums` as for [`LaneModes::advance`]; n + M is at most `count`.
    #[inline(always)]
    unsafe fn advance_some<L: Lanes<E = E>, const V: usize, const M: usize, const FLUSH: bool>(
        self,
        lanes: L,
        n: usize,
        u: *const E,
        sums: *const E,
    ) {
        let gains = reader_row(K) + READER_ROWS * (1 + K);
        let zero = lanes.splat(E::ZERO);
        // SAFETY: mode n + m < count has these rows of coefficients and of state; row i + 1 is within V blocks of `u`,
        // and within one of each product's `sums`, for which V is 1.
        unsafe {
            let mut a = [(zero, zero); M];
            let mut square = [(zero, zero); M];
            for m in 0..M {
                let k = self.k.add((n + m) * Self::STRIDE);
                a[m] = (lanes.load(k), lanes.load(k.add(GROUP)));
                square[m] = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
            }
            // Horner's rule in a^2, two inputs at once.
            let mut forced = [(zero, zero); M];
            for i in (0..V * BLOCK_SAMPLES).step_by(2) {
                let (first, second) = (lanes.load(u.add(i * GROUP)), lanes.load(u.add((i + 1) * GROUP)));
                for m in 0..M {
                    let mut two = (lanes.fma(a[m].0, first, second), lanes.mul(a[m].1, first));
                    for j in 0..K {
                        let sum = sums.add((j * BLOCK_SAMPLES + i) * GROUP);
                        let (first, second) = (lanes.load(sum), lanes.load(sum.add(GROUP)));
                        let gain = self.k.add((n + m) * Self::STRIDE + (gains + READER_ROWS * j) * GROUP);
                        two.0 = lanes.fma(lanes.load(gain), second, two.0);
                        two.1 = lanes.fma(lanes.load(gain.add(GROUP)), second, two.1);
                        two.0 = lanes.fma(lanes.load(gain.add(2 * GROUP)), first, two.0);
                        two.1 = lanes.fma(lanes.load(gain.add(3 * GROUP)), first, two.1);
                    }
                    forced[m] = if i == 0 { two } else { times(lanes, square[m], forced[m], two) };
                }
            }
            for (m, (re, im)) in forced.into_iter().enumerate() {
                let place = CompensatedAt::of(self.x, self.count, n + m);
                let k = self.k.add((n + m) * Self::STRIDE + Self::pole_row(V) * GROUP);
                let state = Compensated::load(lanes, place);
                let pole = (lanes.load(k), lanes.load(k.add(GROUP)));
                let next = if K == 0 {
                    let low = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
                    state.advance(lanes, [pole.0, pole.1, low.0, low.1], (re, Some(im)))
                } else {
                    state.advance_rounded(lanes, pole, (re, im))
                };
                if FLUSH { next.flushed(lanes) } else { next }.store(lanes, place);
            }
        }
    }

    /// Writes the free response to the next V blocks of samples, of the output and of the inner products, each of the
    /// state before its sample. Prefetches the modes that stand `next` elements on.
    ///
    /// # Safety
    /// From the same lane on, `y` addresses V blocks of rows to write, `sums` one block for each inner product. V is 1
    /// or W, and 1 where there are inner products.
    #[inline(always)]
    pub unsafe fn free_response<L: Lanes<E = E>, const V: usize>(self, lanes: L, y: *mut E, sums: *mut E, next: usize) {
        let to = |i: usize| if i == 0 { y } else { sums.wrapping_add((i - 1) * BLOCK_LEN) };
        let mut done = 0;
        // SAFETY: V blocks are written to `y`, and one to the `sums` of products done and done + 1, of which there are
        // K.
        unsafe {
            // Two blocks share a pass over the modes, or two outputs the powers of a, where registers hold their sums.
            if L::REGISTERS >= 32 {
                if V == 2 {
                    return self.free_response_of::<L, 1, 2>(lanes, 0, false, [y], next);
                }
                while done < K {
                    let next = if done == 0 { next } else { 0 };
                    self.free_response_of::<L, 2, 1>(lanes, done, false, [to(done), to(done + 1)], next);
                    done += 2;
                }
            }
            while done <= K {
                let next = if done == 0 { next } else { 0 };
                self.free_response_of::<L, 1, 1>(lanes, done, false, [to(done)], next);
                done += 1;
            }
            if V == 2 {
                self.free_response_of::<L, 1, 1>(lanes, 0, true, [y.add(BLOCK_LEN)], 0);
            }
        }
    }

    /// As [`LaneModes::free_response`], for P outputs from the `first` on and V blocks, the first of them or the
    /// `second`; two samples at once.
    ///
    /// # Safety
    /// From the same lane on, each of `to` addresses V blocks of rows to write; first + P is at most K + 1, and V at
    /// most W.
    #[inline(always)]
    unsafe fn free_response_of<L: Lanes<E = E>, const P: usize, const V: usize>(
        self,
        lanes: L,
        first: usize,
        second: bool,
        to: [*mut E; P],
        next: usize,
    ) {
        let zero = lanes.splat(E::ZERO);
        // SAFETY: mode n < count has these rows of coefficients, K + 1 readers among them, and of state; row v times
        // BLOCK_SAMPLES + i is within V blocks.
        unsafe {
            let mut free = [[[zero; BLOCK_SAMPLES]; V]; P];
            for n in 0..self.count {
                if next > 0 {
                    CompensatedAt::of(self.x, self.count, n).fetch(next);
                }
                let (k, x) = (self.k.add(n * Self::STRIDE), self.x.add(n * 2 * GROUP));
                let square = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
                let mut now = (lanes.load(x), lanes.load(x.add(GROUP)));
                if second {
                    let k = k.add(Self::pole_row(1) * GROUP);
                    now = times(lanes, (lanes.load(k), lanes.load(k.add(GROUP))), now, now);
                }
                for v in 0..V {
                    for i in (0..BLOCK_SAMPLES).step_by(2) {
                        for p in 0..P {
                            let reader = k.add((reader_row(K) + READER_ROWS * (first + p)) * GROUP);
                            for j in 0..2 {
                                let (re, im) = (reader.add(2 * j * GROUP), reader.add((2 * j + 1) * GROUP));
                                let sum = lanes.nfma(lanes.load(im), now.1, free[p][v][i + j]);
                                free[p][v][i + j] = lanes.fma(lanes.load(re), now.0, sum);
                            }
                        }
                        if i + 2 < BLOCK_SAMPLES || v + 1 < V {
                            now = times(lanes, square, now, (zero, zero));
                        }
                    }
                }
            }
            for (to, free) in to.into_iter().zip(free) {
                for (v, free) in free.into_iter().enumerate() {
                    for (i, response) in free.into_iter().enumerate() {
                        lanes.store(to.add((v * BLOCK_SAMPLES + i) * GROUP), response);
                    }
                }
            }
        }
    }
}

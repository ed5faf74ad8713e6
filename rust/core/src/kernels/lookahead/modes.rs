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

/// The modes of a vector of lanes: their table, which is made for visits every W times BLOCK_SAMPLES samples, and their state.
#[derive(Clone, Copy)]
pub struct LaneModes<E, const K: usize, const W: usize> {
    pub count: usize,
    pub k: *const E,
    pub x: *mut E,
}

impl<E: Elem, const K: usize, const W: usize> LaneModes<E, K, W> {
    /// Elements from one mode's table to the next's.
    const STRIDE: usize = mode_rows(K, W) * GROUP;

    /// The row from which the pole's power for V times BLOCK_SAMPLES samples stands.
    const fn pole_row(v: usize) -> usize {
        if v == W { POWER_ROWS } else { mode_rows(K, W) - pole_rows(K) }
    }

    /// Moves them on by V times BLOCK_SAMPLES inputs, V being 1 or W; `FLUSH` sets to zero what is tiny.
    ///
    /// # Safety
    /// The pointers address `count` or V times BLOCK_SAMPLES rows of GROUP, K times so many for `sums`, less the lanes skipped; V
    /// is 1 where there are products.
    #[inline(always)]
    pub unsafe fn advance<L: Lanes<E = E>, const V: usize, const FLUSH: bool>(
        self,
        lanes: L,
        u: *const E,
        sums: *const E,
    ) {
        let whole = self.count / together(K) * together(K);
        // SAFETY: as the caller's.
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
    /// As there.
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
        // SAFETY: as the caller's.
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

    /// Writes the free response to the next V blocks of samples, of the output and of the inner products, each of the state
    /// before its sample. Prefetches the modes that stand `next` elements on.
    ///
    /// # Safety
    /// As [`LaneModes::advance`], for `y` and `sums`.
    #[inline(always)]
    pub unsafe fn free_response<L: Lanes<E = E>, const V: usize>(self, lanes: L, y: *mut E, sums: *mut E, next: usize) {
        let to = |i: usize| if i == 0 { y } else { sums.wrapping_add((i - 1) * BLOCK_LEN) };
        let mut done = 0;
        // SAFETY: as the caller's.
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

    /// As [`LaneModes::free_response`], for P outputs from the `first` on and V blocks, the first of them or the `second`; two
    /// samples at once.
    ///
    /// # Safety
    /// As there.
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
        // SAFETY: as the caller's.
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

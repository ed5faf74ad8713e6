//! The modes of a vector of lanes: how they are read for the samples to come, and moved on by those that came.

use super::{AHEAD, BLOCK, EACH, NEAR, fixed, pole, rows_of};
use crate::kernels::diagonal::{Held, HeldAt};
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

/// The modes of a vector of lanes: their table, which is made for visits every W times AHEAD samples, and their state.
#[derive(Clone, Copy)]
pub struct Modes<E, const K: usize, const W: usize> {
    pub count: usize,
    pub k: *const E,
    pub x: *mut E,
}

impl<E: Elem, const K: usize, const W: usize> Modes<E, K, W> {
    /// Elements from one mode's table to the next's.
    const STRIDE: usize = rows_of(K, W) * GROUP;

    /// The row from which the pole's power for V times AHEAD samples stands.
    const fn pole_row(v: usize) -> usize {
        if v == W { NEAR } else { rows_of(K, W) - pole(K) }
    }

    /// Moves them on by V times AHEAD inputs, V being 1 or W; `FLUSH` sets to zero what is tiny.
    ///
    /// # Safety
    /// The pointers address `count` or V times AHEAD rows of GROUP, K times so many for `sums`, less the lanes skipped; V
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

    /// As [`Modes::advance`], M modes from `n` on.
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
        let gains = fixed(K) + EACH * (1 + K);
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
            let mut met = [(zero, zero); M];
            for i in (0..V * AHEAD).step_by(2) {
                let (first, second) = (lanes.load(u.add(i * GROUP)), lanes.load(u.add((i + 1) * GROUP)));
                for m in 0..M {
                    let mut two = (lanes.fma(a[m].0, first, second), lanes.mul(a[m].1, first));
                    for j in 0..K {
                        let sum = sums.add((j * AHEAD + i) * GROUP);
                        let (first, second) = (lanes.load(sum), lanes.load(sum.add(GROUP)));
                        let gain = self.k.add((n + m) * Self::STRIDE + (gains + EACH * j) * GROUP);
                        two.0 = lanes.fma(lanes.load(gain), second, two.0);
                        two.1 = lanes.fma(lanes.load(gain.add(GROUP)), second, two.1);
                        two.0 = lanes.fma(lanes.load(gain.add(2 * GROUP)), first, two.0);
                        two.1 = lanes.fma(lanes.load(gain.add(3 * GROUP)), first, two.1);
                    }
                    met[m] = if i == 0 { two } else { times(lanes, square[m], met[m], two) };
                }
            }
            for (m, (re, im)) in met.into_iter().enumerate() {
                let place = HeldAt::of(self.x, self.count, n + m);
                let k = self.k.add((n + m) * Self::STRIDE + Self::pole_row(V) * GROUP);
                let held = Held::load(lanes, place);
                let pole = (lanes.load(k), lanes.load(k.add(GROUP)));
                let next = if K == 0 {
                    let low = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
                    held.advance(lanes, [pole.0, pole.1, low.0, low.1], (re, Some(im)))
                } else {
                    held.moved(lanes, pole, (re, im))
                };
                if FLUSH { next.flushed(lanes) } else { next }.store(lanes, place);
            }
        }
    }

    /// Writes what all of them say of the next V times AHEAD samples, and of the inner products of the states that these
    /// meet, and fetches the modes that stand `next` elements on.
    ///
    /// # Safety
    /// As [`Modes::advance`], for `y` and `sums`.
    #[inline(always)]
    pub unsafe fn look<L: Lanes<E = E>, const V: usize>(self, lanes: L, y: *mut E, sums: *mut E, next: usize) {
        let to = |i: usize| if i == 0 { y } else { sums.wrapping_add((i - 1) * BLOCK) };
        let mut done = 0;
        // SAFETY: as the caller's.
        unsafe {
            // Two blocks share a visit, or two answers the powers of a, where registers hold their sums.
            if L::REGISTERS >= 32 {
                if V == 2 {
                    return self.look_at::<L, 1, 2>(lanes, 0, false, [y], next);
                }
                while done < K {
                    let next = if done == 0 { next } else { 0 };
                    self.look_at::<L, 2, 1>(lanes, done, false, [to(done), to(done + 1)], next);
                    done += 2;
                }
            }
            while done <= K {
                let next = if done == 0 { next } else { 0 };
                self.look_at::<L, 1, 1>(lanes, done, false, [to(done)], next);
                done += 1;
            }
            if V == 2 {
                self.look_at::<L, 1, 1>(lanes, 0, true, [y.add(BLOCK)], 0);
            }
        }
    }

    /// As [`Modes::look`], for P answers from the `first` on and V blocks, the first of them or the `second`; two samples
    /// at once.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn look_at<L: Lanes<E = E>, const P: usize, const V: usize>(
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
            let mut answers = [[[zero; AHEAD]; V]; P];
            for n in 0..self.count {
                if next > 0 {
                    HeldAt::of(self.x, self.count, n).fetch(next);
                }
                let (k, x) = (self.k.add(n * Self::STRIDE), self.x.add(n * 2 * GROUP));
                let square = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
                let mut now = (lanes.load(x), lanes.load(x.add(GROUP)));
                if second {
                    let k = k.add(Self::pole_row(1) * GROUP);
                    now = times(lanes, (lanes.load(k), lanes.load(k.add(GROUP))), now, now);
                }
                for v in 0..V {
                    for i in (0..AHEAD).step_by(2) {
                        for p in 0..P {
                            let reader = k.add((fixed(K) + EACH * (first + p)) * GROUP);
                            for j in 0..2 {
                                let (re, im) = (reader.add(2 * j * GROUP), reader.add((2 * j + 1) * GROUP));
                                let sum = lanes.nfma(lanes.load(im), now.1, answers[p][v][i + j]);
                                answers[p][v][i + j] = lanes.fma(lanes.load(re), now.0, sum);
                            }
                        }
                        if i + 2 < AHEAD || v + 1 < V {
                            now = times(lanes, square, now, (zero, zero));
                        }
                    }
                }
            }
            for (to, answers) in to.into_iter().zip(answers) {
                for (v, answers) in answers.into_iter().enumerate() {
                    for (i, answer) in answers.into_iter().enumerate() {
                        lanes.store(to.add((v * AHEAD + i) * GROUP), answer);
                    }
                }
            }
        }
    }
}

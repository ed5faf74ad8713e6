//! The recurrence of a quasi upper triangular matrix (LSSL in its real Schur basis) for a group of channels:
//! x' = x + delta x + b u, y = c . x', where delta is the discrete matrix less the identity.

use super::chunk::{ChunkMatrices, Transition};
use super::layout::holds;
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes};

/// The system of one group of channels.
#[derive(Debug)]
pub struct Triangular<E> {
    n: usize,
    /// The rows i of delta, one after the other, each from column max(i, 1) - 1 on; each entry is a row of GROUP.
    delta: Aligned<E>,
    b: Aligned<E>,
    c: Aligned<E>,
}

impl<E: Elem> Triangular<E> {
    /// From `delta(lane, i, j)`, which is zero below the first subdiagonal, `b(lane, i)` and `c(lane, i)`, for i and j
    /// below `n`.
    pub fn new(
        n: usize,
        delta: impl Fn(usize, usize, usize) -> f64,
        b: impl Fn(usize, usize) -> f64,
        c: impl Fn(usize, usize) -> f64,
    ) -> Self {
        let lanes = 0..GROUP;
        let entries = (0..n).flat_map(|i| (i.max(1) - 1..n).map(move |j| (i, j)));
        Self {
            n,
            delta: entries
                .flat_map(|(i, j)| lanes.clone().map(move |l| (l, i, j)))
                .map(|(l, i, j)| E::of(delta(l, i, j)))
                .collect(),
            b: (0..n).flat_map(|i| (0..GROUP).map(move |l| (l, i))).map(|(l, i)| E::of(b(l, i))).collect(),
            c: (0..n).flat_map(|i| (0..GROUP).map(move |l| (l, i))).map(|(l, i)| E::of(c(l, i))).collect(),
        }
    }

    /// Elements of the state proper: N rows of [`GROUP`].
    pub fn core_len(&self) -> usize {
        self.n * GROUP
    }

    /// Elements of state: the state proper, and in float32 as many for its rounding errors.
    pub fn state_len(&self) -> usize {
        self.core_len() * if E::COMPENSATED { 2 } else { 1 }
    }

    /// The state that is `x(lane, i)`.
    pub fn state(&self, x: impl Fn(usize, usize) -> f64) -> Vec<E> {
        let mut state = vec![E::ZERO; self.state_len()];
        let (core, errors) = state.split_at_mut(self.core_len());
        for (at, high) in core.iter_mut().enumerate() {
            let exact = x(at % GROUP, at / GROUP);
            *high = E::of(exact);
            if let Some(error) = errors.get_mut(at) {
                *error = E::of(exact - high.f64());
            }
        }
        state
    }

    /// Runs over `rows` rows of `u`, writing as many of `y`, each of [`GROUP`] elements.
    pub fn scan(&self, isa: Isa, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(holds(u.len(), rows, GROUP) && holds(y.len(), rows, GROUP) && state.len() == self.state_len());
        isa.run(Scan { system: self, rows, u, y, state });
    }
}

impl Triangular<f64> {
    /// The chunk matrices for `t` samples, a power of two: rows c A^i, columns A^i b, and A^t by repeated squaring.
    pub fn chunk(&self, isa: Isa, t: usize) -> ChunkMatrices {
        assert!(t.is_power_of_two());
        let n = self.n;
        let mut m = ChunkMatrices::zeros(t, n);
        let mut a = Aligned::zeros(n * n * GROUP);
        let mut entries = self.delta.chunks_exact(GROUP);
        for i in 0..n {
            for (j, entry) in (i.max(1) - 1..n).zip(&mut entries) {
                let a = &mut a[(i * n + j) * GROUP..][..GROUP];
                a.copy_from_slice(entry);
                if i == j {
                    a.iter_mut().for_each(|a| *a += 1.0);
                }
            }
        }
        isa.run(Powers { system: self, t, a: &a, m: &mut m });
        let mut square = Aligned::zeros(n * n * GROUP);
        let mut have = 1;
        while have < t {
            isa.run(Square { n, a: &a, square: &mut square });
            std::mem::swap(&mut a, &mut square);
            have *= 2;
        }
        m.transition = Transition::Matrix(a.to_vec());
        m
    }
}

/// Rows c A^(i+1) and columns A^i b, for i below T.
struct Powers<'a> {
    system: &'a Triangular<f64>,
    t: usize,
    a: &'a [f64],
    m: &'a mut ChunkMatrices,
}

impl Kernel<f64> for Powers<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = f64>>(self, lanes: L) {
        let (n, t) = (self.system.n, self.t);
        let mut now = vec![0.0; n * GROUP];
        let mut next = vec![0.0; n * GROUP];
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `Triangular::chunk` made all arrays for T samples and N numbers of state; s < T, i and j < N.
            unsafe {
                let a = self.a.as_ptr().add(lane);
                let (mut x, mut y) = (now.as_mut_ptr().add(lane), next.as_mut_ptr().add(lane));
                let (b, c) = (self.system.b.as_ptr().add(lane), self.system.c.as_ptr().add(lane));
                for i in 0..n {
                    lanes.store(x.add(i * GROUP), lanes.load(b.add(i * GROUP)));
                }
                for s in 0..t {
                    let mut k = lanes.splat(0.0);
                    for i in 0..n {
                        let v = lanes.load(x.add(i * GROUP));
                        k = lanes.fma(lanes.load(c.add(i * GROUP)), v, k);
                        lanes.store(self.m.w.as_mut_ptr().add((i * t + t - 1 - s) * GROUP + lane), v);
                        let mut sum = lanes.splat(0.0);
                        for j in i.max(1) - 1..n {
                            sum = lanes.fma(lanes.load(a.add((i * n + j) * GROUP)), lanes.load(x.add(j * GROUP)), sum);
                        }
                        lanes.store(y.add(i * GROUP), sum);
                    }
                    lanes.store(self.m.kernel.as_mut_ptr().add(s * GROUP + lane), k);
                    std::mem::swap(&mut x, &mut y);
                }
                for s in 0..t {
                    let to = self.m.g.as_mut_ptr().add(s * n * GROUP + lane);
                    let from = if s == 0 { c } else { to.sub(n * GROUP).cast_const() };
                    for j in 0..n {
                        let mut sum = lanes.splat(0.0);
                        for i in 0..(j + 2).min(n) {
                            sum =
                                lanes.fma(lanes.load(from.add(i * GROUP)), lanes.load(a.add((i * n + j) * GROUP)), sum);
                        }
                        lanes.store(to.add(j * GROUP), sum);
                    }
                }
            }
        }
    }
}

/// The square of a quasi upper triangular matrix.
struct Square<'a> {
    n: usize,
    a: &'a [f64],
    square: &'a mut [f64],
}

impl Kernel<f64> for Square<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = f64>>(self, lanes: L) {
        let n = self.n;
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: both matrices are N x N rows of GROUP; i, j and k are below N.
            unsafe {
                let a = self.a.as_ptr().add(lane);
                let to = self.square.as_mut_ptr().add(lane);
                for i in 0..n {
                    let first = i.max(1) - 1;
                    for j in 0..n {
                        let mut sum = lanes.splat(0.0);
                        for k in first..(j + 2).min(n) {
                            let (p, q) = (a.add((i * n + k) * GROUP), a.add((k * n + j) * GROUP));
                            sum = lanes.fma(lanes.load(p), lanes.load(q), sum);
                        }
                        lanes.store(to.add((i * n + j) * GROUP), sum);
                    }
                }
            }
        }
    }
}

struct Scan<'a, E> {
    system: &'a Triangular<E>,
    rows: usize,
    u: &'a [E],
    y: &'a mut [E],
    state: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let n = self.system.n;
        let zero = lanes.splat(E::ZERO);
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `Triangular::scan` checked that u and y have `rows` rows, and the state N, or 2 N with rounding
            // errors. The entries of delta are read once a sample, in their order.
            unsafe {
                let (b, c) = (self.system.b.as_ptr().add(lane), self.system.c.as_ptr().add(lane));
                let x = self.state.as_mut_ptr().add(lane);
                for t in 0..self.rows {
                    let u = lanes.load(self.u.as_ptr().add(t * GROUP + lane));
                    let mut entry = self.system.delta.as_ptr().add(lane);
                    let mut y = zero;
                    let mut above = zero;
                    for i in 0..n {
                        let here = lanes.load(x.add(i * GROUP));
                        let mut sums = [lanes.mul(lanes.load(b.add(i * GROUP)), u), zero, zero, zero];
                        if i > 0 {
                            // Memory has the next state of the row above already.
                            sums[1] = lanes.mul(lanes.load(entry), above);
                            entry = entry.add(GROUP);
                        }
                        let mut j = i;
                        while j + 4 <= n {
                            for (k, sum) in sums.iter_mut().enumerate() {
                                let d = lanes.load(entry.add(k * GROUP));
                                *sum = lanes.fma(d, lanes.load(x.add((j + k) * GROUP)), *sum);
                            }
                            entry = entry.add(4 * GROUP);
                            j += 4;
                        }
                        while j < n {
                            sums[0] = lanes.fma(lanes.load(entry), lanes.load(x.add(j * GROUP)), sums[0]);
                            entry = entry.add(GROUP);
                            j += 1;
                        }
                        let mut change = lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3]));
                        // Only valid where there are rounding errors.
                        let error = x.wrapping_add((n + i) * GROUP);
                        if E::COMPENSATED {
                            change = lanes.add(change, lanes.load(error));
                        }
                        let (next, next_error) = lanes.fast_two_sum(here, change);
                        let next = lanes.flush(next);
                        if E::COMPENSATED {
                            lanes.store(error, lanes.flush(next_error));
                        }
                        lanes.store(x.add(i * GROUP), next);
                        y = lanes.fma(lanes.load(c.add(i * GROUP)), next, y);
                        above = here;
                    }
                    lanes.store(self.y.as_mut_ptr().add(t * GROUP + lane), y);
                }
            }
        }
    }
}

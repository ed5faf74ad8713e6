//! The recurrence of a quasi upper triangular matrix (LSSL in its real Schur basis), for a group of channels:
//! x' = x + delta x + b u, y = c . x', where delta is the discrete matrix less the identity.

use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes};

/// The system of one group of channels.
#[derive(Clone, Debug)]
pub struct Triangular<E> {
    n: usize,
    /// Row i of delta from column max(i, 1) - 1 on, for every i in turn; each entry a row of GROUP.
    delta: Aligned<E>,
    b: Aligned<E>,
    c: Aligned<E>,
}

impl<E: Elem> Triangular<E> {
    /// `delta(lane, i, j)` is zero below the first subdiagonal; `b(lane, i)`; `c(lane, i)`.
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
            delta: entries.flat_map(|(i, j)| lanes.clone().map(move |l| (l, i, j))).map(|(l, i, j)| E::of(delta(l, i, j))).collect(),
            b: (0..n).flat_map(|i| (0..GROUP).map(move |l| (l, i))).map(|(l, i)| E::of(b(l, i))).collect(),
            c: (0..n).flat_map(|i| (0..GROUP).map(move |l| (l, i))).map(|(l, i)| E::of(c(l, i))).collect(),
        }
    }

    /// Elements of state: N rows of [`GROUP`].
    pub fn state_len(&self) -> usize {
        self.n * GROUP
    }

    /// `u` and `y` are `rows` rows of [`GROUP`]; `y` is overwritten.
    pub fn scan(&self, isa: Isa, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && state.len() == self.state_len());
        isa.run(Scan { system: self, rows, u, y, state });
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
            // SAFETY: `Triangular::scan` checked the lengths; the entries of delta are walked in their order.
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
                            // The state above is already the next one in memory.
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
                        let change = lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3]));
                        let next = lanes.flush(lanes.add(here, change));
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

//! An impulse response cut off after few samples: y\[t\] = sum over d < T of k\[d\] u\[t-d\], for a group of channels.

use super::layout::holds;
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes};

/// The impulse response of one group of channels. Its state is the last T - 1 inputs.
#[derive(Debug)]
pub struct Window<E> {
    /// (T,) rows of GROUP, reversed: the tap of the latest sample is the last.
    backwards: Aligned<E>,
    taps: usize,
}

impl<E: Elem> Window<E> {
    /// `kernel` (T,), rows of GROUP.
    ///
    /// # Panics
    /// Where it has no rows, or a part of one.
    pub fn new(kernel: &[f64]) -> Self {
        assert!(!kernel.is_empty() && kernel.len().is_multiple_of(GROUP), "expected whole rows of taps");
        let backwards = kernel.chunks_exact(GROUP).rev().flatten().map(|&k| E::of(k)).collect();
        Self { backwards, taps: kernel.len() / GROUP }
    }

    /// Elements of state: T - 1 rows of inputs, the oldest first.
    pub fn state_len(&self) -> usize {
        (self.taps - 1) * GROUP
    }

    /// `u` and `y` are `rows` rows of [`GROUP`]; `y` is overwritten.
    pub fn scan(&self, isa: Isa, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(holds(u.len(), rows, GROUP) && holds(y.len(), rows, GROUP) && state.len() == self.state_len());
        isa.run(Scan { window: self, rows, u, y, state });
        let (kept, new) = (state.len(), rows * GROUP);
        if new >= kept {
            state.copy_from_slice(&u[new - kept..new]);
        } else {
            state.copy_within(new.., 0);
            state[kept - new..].copy_from_slice(&u[..new]);
        }
    }
}

struct Scan<'a, E> {
    window: &'a Window<E>,
    rows: usize,
    u: &'a [E],
    y: &'a mut [E],
    state: &'a [E],
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let before = self.window.taps - 1;
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `Window::scan` checked that u and y have `rows` rows and the past has `before`. Tap k < T reads
            // row t + k of the past followed by the inputs: of the past below `before`, of the inputs t + k - before
            // <= t.
            unsafe {
                let (k, u) = (self.window.backwards.as_ptr().add(lane), self.u.as_ptr().add(lane));
                let past = self.state.as_ptr().add(lane);
                for t in 0..self.rows {
                    let mut sums = [lanes.splat(E::ZERO); 4];
                    let old = before.saturating_sub(t);
                    for tap in 0..old {
                        let x = lanes.load(past.add((t + tap) * GROUP));
                        sums[tap % 4] = lanes.fma(lanes.load(k.add(tap * GROUP)), x, sums[tap % 4]);
                    }
                    for tap in old..=before {
                        let x = lanes.load(u.add((t + tap - before) * GROUP));
                        sums[tap % 4] = lanes.fma(lanes.load(k.add(tap * GROUP)), x, sums[tap % 4]);
                    }
                    let y = lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3]));
                    lanes.store(self.y.as_mut_ptr().add(t * GROUP + lane), y);
                }
            }
        }
    }
}

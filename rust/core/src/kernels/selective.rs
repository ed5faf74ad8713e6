//! Mamba's selective recurrence: h' = exp(dt A) h + dt B x, y = C h' + D x.
//!
//! Lanes are channels. A vector's states stay in the L1 cache while all rows go by, and in a register while [`SAMPLES`] of
//! them do.

use super::layout::holds;
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};
use std::ops::Range;

/// Samples for which a state is read and written once, after which what has decayed to nothing becomes zero. Where a
/// sequence is cut into runs of a multiple, its answers are the same to the last bit.
pub const SAMPLES: usize = 4;

/// The parameters of one layer, channels in the lanes.
#[derive(Debug)]
pub struct Selective<E> {
    channels: usize,
    n: usize,
    /// A log2(e), (groups, N) rows of GROUP.
    a: Aligned<E>,
    d: Aligned<E>,
    rate: f64,
}

impl<E: Elem> Selective<E> {
    /// `a` (d, N), `d` (d,); `rate` multiplies every dt.
    pub fn new(a: &[f64], d: &[f64], rate: f64) -> Self {
        let (channels, n) = (d.len(), a.len() / d.len());
        let at = |c: usize, i: usize| if c < channels { a[c * n + i] * std::f64::consts::LOG2_E } else { 0.0 };
        let groups = padded(channels) / GROUP;
        let order = (0..groups).flat_map(|g| (0..n).flat_map(move |i| (0..GROUP).map(move |l| (g * GROUP + l, i))));
        Self {
            channels,
            n,
            a: order.map(|(c, i)| E::of(at(c, i))).collect(),
            d: (0..padded(channels)).map(|c| E::of(if c < channels { d[c] } else { 0.0 })).collect(),
            rate,
        }
    }

    /// Groups of channels: independent pieces.
    pub fn groups(&self) -> usize {
        padded(self.channels) / GROUP
    }

    /// The state that is `h` (d, N).
    pub fn state(&self, h: &[f64]) -> Vec<E> {
        let mut state = vec![E::ZERO; self.groups() * self.group_state_len()];
        for (at, &h) in h.iter().enumerate() {
            let (channel, i) = (at / self.n, at % self.n);
            state[(channel / GROUP * self.n + i) * GROUP + channel % GROUP] = E::of(h);
        }
        state
    }

    /// Elements of a group's states: N rows of GROUP.
    pub fn group_state_len(&self) -> usize {
        self.n * GROUP
    }

    /// Runs some groups over `rows` rows: `x` and `dt` of padded(d) elements, `bc` of padded(2 N), B and then C; `state` has
    /// these groups' states. `scale` multiplies dt.
    ///
    /// # Safety
    /// `y` addresses `rows` rows of padded(d) elements, of which no one else touches the groups' channels.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        &self,
        isa: Isa,
        rows: usize,
        scale: f64,
        groups: Range<usize>,
        [x, dt, bc]: [&[E]; 3],
        state: &mut [E],
        y: *mut E,
    ) {
        let stride = padded(self.channels);
        assert!(groups.end <= self.groups() && state.len() == groups.len() * self.group_state_len());
        assert!(holds(x.len(), rows, stride) && holds(dt.len(), rows, stride));
        assert!(holds(bc.len(), rows, padded(2 * self.n)));
        isa.run(Run { layer: self, rows, scale: E::of(scale * self.rate), groups, x, dt, bc, state, y });
    }
}

struct Run<'a, E> {
    layer: &'a Selective<E>,
    rows: usize,
    scale: E,
    groups: Range<usize>,
    x: &'a [E],
    dt: &'a [E],
    bc: &'a [E],
    state: &'a mut [E],
    y: *mut E,
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(mut self, lanes: L) {
        let whole = self.rows / SAMPLES * SAMPLES;
        for first in (self.groups.start * GROUP..self.groups.end * GROUP).step_by(L::LANES) {
            for row in (0..whole).step_by(SAMPLES) {
                self.samples::<L, SAMPLES>(lanes, first, row);
            }
            for row in whole..self.rows {
                self.samples::<L, 1>(lanes, first, row);
            }
        }
    }
}

impl<E: Elem> Run<'_, E> {
    /// `T` samples of the channels of a vector, from row `row` on.
    #[inline(always)]
    fn samples<L: Lanes<E = E>, const T: usize>(&mut self, lanes: L, first: usize, row: usize) {
        let Selective { channels, n, a, d, .. } = self.layer;
        let (n, stride, bc_stride) = (*n, padded(*channels), padded(2 * n));
        let (group, lane) = (first / GROUP, first % GROUP);
        let (scale, zero) = (lanes.splat(self.scale), lanes.splat(E::ZERO));
        // SAFETY: `Selective::run` checked that x and dt have `rows` rows of `stride`, as y has, bc of `bc_stride`, and the
        // state N rows of GROUP for each of the groups, as A has for all.
        unsafe {
            let (mut dt, mut driven, mut y) = ([zero; T], [zero; T], [zero; T]);
            let d = lanes.load(d.as_ptr().add(first));
            for t in 0..T {
                let at = (row + t) * stride + first;
                let x = lanes.load(self.x.as_ptr().add(at));
                dt[t] = lanes.mul(scale, lanes.load(self.dt.as_ptr().add(at)));
                driven[t] = lanes.mul(dt[t], x);
                y[t] = lanes.mul(d, x);
            }
            let a = a.as_ptr().add(group * n * GROUP + lane);
            let state = self.state.as_mut_ptr().add((group - self.groups.start) * n * GROUP + lane);
            let bc = self.bc.as_ptr().add(row * bc_stride);
            for i in 0..n {
                let (a, p) = (lanes.load(a.add(i * GROUP)), state.add(i * GROUP));
                let mut h = lanes.load(p);
                for t in 0..T {
                    let (b, c) = (*bc.add(t * bc_stride + i), *bc.add(t * bc_stride + n + i));
                    // A is never positive, and dt never negative. Less one: of a decay that is hardly any no digits are
                    // lost. All that changes a state is added to it at once: of two roundings of a large sum the first,
                    // by next to nothing, would go the same way at each sample.
                    let decay = lanes.exp2m1(lanes.mul(dt[t], a));
                    h = lanes.add(h, lanes.fma(decay, h, lanes.mul(driven[t], lanes.splat(b))));
                    y[t] = lanes.fma(lanes.splat(c), h, y[t]);
                }
                lanes.store(p, lanes.flush(h));
            }
            for t in 0..T {
                lanes.store(self.y.add((row + t) * stride + first), y[t]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers<E: Elem>(n: usize, seed: usize) -> Vec<E> {
        (0..n).map(|i| E::of(((i * 7 + seed * 31) as f64 * 12.9898).sin())).collect()
    }

    /// `rate` is that of the fastest decay; `step` is dt, by default another at each sample.
    fn check<E: Elem>(
        (channels, n): (usize, usize),
        rate: f64,
        step: Option<f64>,
        length: usize,
        cut: usize,
        bound: f64,
    ) {
        let a: Vec<f64> = numbers::<E>(channels * n, 1).iter().map(|a| -(a.f64().abs() * rate)).collect();
        let d: Vec<f64> = numbers::<E>(channels, 2).iter().map(|d| d.f64()).collect();
        let (stride, bc_stride, scale) = (padded(channels), padded(2 * n), 1.5);
        let (x, bc) = (numbers::<E>(length * stride, 3), numbers::<E>(length * bc_stride, 4));
        let dt = numbers::<E>(length * stride, 5).into_iter().map(|dt| step.map_or(dt * dt, E::of));
        let dt: Vec<E> = dt.collect();
        let layer = Selective::<E>::new(&a, &d, 0.5);

        let (mut states, mut expected) = (vec![0.0; channels * n], Vec::new());
        for t in 0..length {
            let bc = &bc[t * bc_stride..];
            for c in 0..channels {
                let (x, dt) = (x[t * stride + c].f64(), dt[t * stride + c].f64() * 0.5 * scale);
                let mut y = d[c] * x;
                for i in 0..n {
                    let h = &mut states[c * n + i];
                    *h = libm::exp(dt * a[c * n + i]) * *h + dt * x * bc[i].f64();
                    y += *h * bc[n + i].f64();
                }
                expected.push(y);
            }
        }
        let greatest = expected.iter().fold(0.0_f64, |m, y| m.max(y.abs()));

        for isa in Isa::all() {
            // In runs of rows, each run's groups in two parts.
            let run = |cuts: &[usize]| {
                let mut state = vec![E::ZERO; layer.groups() * layer.group_state_len()];
                let mut y = vec![E::of(7.0); length * stride];
                for range in cuts.windows(2) {
                    let (from, rows) = (range[0], range[1] - range[0]);
                    let inputs = [&x[from * stride..], &dt[from * stride..], &bc[from * bc_stride..]];
                    let at = layer.groups() / 2;
                    let (first, second) = state.split_at_mut(at * layer.group_state_len());
                    let y = y[from * stride..].as_mut_ptr();
                    // SAFETY: y has so many rows.
                    unsafe {
                        layer.run(isa, rows, scale, 0..at, inputs, first, y);
                        layer.run(isa, rows, scale, at..layer.groups(), inputs, second, y);
                    }
                }
                (y, state)
            };
            let (y, state) = run(&[0, length]);
            assert!((y.clone(), state) == run(&[0, length.min(cut * SAMPLES), length]), "{}", isa.name());
            let samples: Vec<_> = (0..=length).collect();
            let all = [y, run(&[0, cut.min(length), length]).0, run(&samples).0];
            for (row, expected) in all.iter().flat_map(|y| y.chunks_exact(stride).zip(expected.chunks_exact(channels)))
            {
                for (y, e) in row.iter().zip(expected) {
                    let error = (y.f64() - e).abs() / greatest;
                    assert!(error <= bound, "{} {}: {error:.1e}", isa.name(), E::NAME);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_blocks_are_the_recurrence(
            channels in 1..40usize, n in 1..20usize, rate in -7..8i32, length in 1..40usize, cut in 0..40usize
        ) {
            check::<f32>((channels, n), 10f64.powi(rate), None, length, cut, 3e-6);
            check::<f64>((channels, n), 10f64.powi(rate), None, length, cut, 1e-14);
        }
    }

    #[test]
    fn slow_states_keep_their_digits() {
        for rate in [1e-5, 1e-4, 1e-3] {
            // The same decay at each sample, and so the same rounding of it.
            check::<f32>((20, 4), rate, Some(0.4), 4000, 1001, 5e-6);
        }
    }
}

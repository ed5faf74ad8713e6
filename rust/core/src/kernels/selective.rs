//! Mamba's selective recurrence: h' = exp(dt A) h + dt B x, y = C h' + D x, for all channels.

use super::layout::holds;
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};

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

    /// Elements of state: (groups, N) rows of GROUP.
    pub fn state_len(&self) -> usize {
        padded(self.channels) * self.n
    }

    /// The state that is `h` (d, N).
    pub fn state(&self, h: &[f64]) -> Vec<E> {
        let mut state = vec![E::ZERO; self.state_len()];
        for (at, &h) in h.iter().enumerate() {
            let (channel, i) = (at / self.n, at % self.n);
            state[(channel / GROUP * self.n + i) * GROUP + channel % GROUP] = E::of(h);
        }
        state
    }

    /// Runs over `rows` rows: `x`, `dt` and `y` of padded(d) elements, `bc` of padded(2 N), B and then C. `scale`
    /// multiplies dt.
    #[allow(clippy::too_many_arguments)]
    pub fn run(&self, isa: Isa, rows: usize, scale: f64, x: &[E], dt: &[E], bc: &[E], state: &mut [E], y: &mut [E]) {
        let stride = padded(self.channels);
        assert!([x.len(), dt.len(), y.len()].into_iter().all(|len| holds(len, rows, stride)));
        assert!(state.len() == self.state_len() && holds(bc.len(), rows, padded(2 * self.n)));
        isa.run(Run { layer: self, rows, scale: E::of(scale * self.rate), x, dt, bc, state, y });
    }
}

struct Run<'a, E> {
    layer: &'a Selective<E>,
    rows: usize,
    scale: E,
    x: &'a [E],
    dt: &'a [E],
    bc: &'a [E],
    state: &'a mut [E],
    y: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let n = self.layer.n;
        let (stride, bc_stride) = (padded(self.layer.channels), padded(2 * n));
        let scale = lanes.splat(self.scale);
        // Channels outermost, so that their states stay in the L1 cache while all rows go by.
        for first in (0..stride).step_by(L::LANES) {
            let (group, lane) = (first / GROUP, first % GROUP);
            // SAFETY: `Selective::run` checked that x, dt and y have `rows` rows of `stride`, and the state (groups, N) rows
            // of GROUP, as A has.
            unsafe {
                let d = lanes.load(self.layer.d.as_ptr().add(first));
                let a = self.layer.a.as_ptr().add(group * n * GROUP + lane);
                let h = self.state.as_mut_ptr().add(group * n * GROUP + lane);
                for t in 0..self.rows {
                    let bc = &self.bc[t * bc_stride..][..2 * n];
                    let at = t * stride + first;
                    let x = lanes.load(self.x.as_ptr().add(at));
                    let dt = lanes.mul(scale, lanes.load(self.dt.as_ptr().add(at)));
                    let dx = lanes.mul(dt, x);
                    let mut y = lanes.mul(d, x);
                    for i in 0..n {
                        let decay = lanes.exp2(lanes.mul(dt, lanes.load(a.add(i * GROUP))));
                        let p = h.add(i * GROUP);
                        let next = lanes.fma(decay, lanes.load(p), lanes.mul(dx, lanes.splat(bc[i])));
                        let next = lanes.flush(next);
                        lanes.store(p, next);
                        y = lanes.fma(lanes.splat(bc[n + i]), next, y);
                    }
                    lanes.store(self.y.as_mut_ptr().add(at), y);
                }
            }
        }
    }
}

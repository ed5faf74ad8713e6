//! Mamba-2's state-space duality as a recurrence: h' = exp(dt A) h + dt x B^T, y = h' C + D x, with one dt and one A a head.
//!
//! Lanes are channels, in tiles of [`GROUP`] that share B and C. A tile's states stay in the first cache while all rows
//! go by, and in a register while [`SAMPLES`] of them do.

use super::layout::holds;
use super::pointwise::{self, Function, exp_range, expm1};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};
use std::ops::Range;

/// Samples for which a state is read and written once: those of a stream from a multiple of it on, after which what has
/// decayed to nothing becomes zero.
const SAMPLES: usize = 4;

/// What a layer's sizes are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// x's channels, a multiple of the heads.
    pub channels: usize,
    /// Heads, a multiple of the groups.
    pub heads: usize,
    /// Groups of heads that share B and C.
    pub groups: usize,
    /// N
    pub modes: usize,
}

/// From what a layer's input says of each head to its decay, and to what multiplies its input: the step size, or with a
/// zero-order hold (exp(dt A) - 1) / A.
#[derive(Debug)]
pub struct Steps<E> {
    /// (heads,)
    bias: Aligned<E>,
    /// A log2(e), (heads,)
    a: Aligned<E>,
    limits: (f64, f64),
    rate: f64,
    /// A and 1 / A (heads,) each, where there is a hold.
    hold: Option<[Aligned<E>; 2]>,
}

/// In place of a zero of A where it divides: so near that exp(dt A) is 1, and (exp(dt A) - 1) / A is dt.
const NEARLY_ZERO: f64 = -1e-20;

impl<E: Elem> Steps<E> {
    /// `a` and `bias` (heads,); dt is kept within `limits`, then `rate` multiplies it. `hold`: a zero-order hold.
    pub fn new(a: &[f64], bias: &[f64], limits: (f64, f64), rate: f64, hold: bool) -> Self {
        let row = |values: &[f64], of: &dyn Fn(f64) -> f64| {
            (0..padded(values.len())).map(|i| E::of(values.get(i).map_or(0.0, |v| of(*v)))).collect()
        };
        let decaying = |a: f64| a.min(NEARLY_ZERO);
        Self {
            bias: row(bias, &|bias| bias),
            a: row(a, &|a| a * std::f64::consts::LOG2_E),
            limits,
            rate,
            hold: hold.then(|| [row(a, &decaying), row(a, &|a| 1.0 / decaying(a))]),
        }
    }

    /// `rows` rows of x, of padded(heads) elements, into rows of y: as many of what multiplies the input, and as many of
    /// exp(dt A). `scale` multiplies dt.
    pub fn run(&self, isa: Isa, rows: usize, scale: f64, x: &[E], y: &mut [E]) {
        let len = self.a.len();
        assert!(holds(x.len(), rows, len) && holds(y.len(), rows, 2 * len));
        isa.run(RunSteps { steps: self, rows, scale: E::of(scale * self.rate), x: x.as_ptr(), y: y.as_mut_ptr() });
        if let Some(hold) = &self.hold {
            isa.run(Hold { hold, rows, y });
        }
    }
}

/// Makes (exp(dt A) - 1) / A of dt in every row of dt and exp(dt A).
struct Hold<'a, E> {
    hold: &'a [Aligned<E>; 2],
    rows: usize,
    y: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Hold<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let [a, inverse] = self.hold;
        for row in 0..self.rows {
            // SAFETY: `Steps::run` checked that y has `rows` rows of twice as many elements as A has, whole groups.
            unsafe {
                let dt = self.y.as_mut_ptr().add(2 * row * a.len());
                for i in (0..a.len()).step_by(L::LANES) {
                    let z = lanes.mul(lanes.load(dt.add(i)), lanes.load(a.as_ptr().add(i)));
                    let risen = expm1(lanes, lanes.max(z, lanes.splat(E::of(-exp_range::<L>()))), 1.0);
                    lanes.store(dt.add(i), lanes.mul(risen, lanes.load(inverse.as_ptr().add(i))));
                }
            }
        }
    }
}

struct RunSteps<'a, E> {
    steps: &'a Steps<E>,
    rows: usize,
    scale: E,
    x: *const E,
    y: *mut E,
}

impl<E: Elem> Kernel<E> for RunSteps<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { steps: Steps { bias, a, limits, .. }, rows, scale, x, y } = self;
        let len = a.len();
        let (scale, low, high) = (lanes.splat(scale), lanes.splat(E::of(limits.0)), lanes.splat(E::of(limits.1)));
        for row in 0..rows {
            // SAFETY: `Steps::run` checked that x has `rows` rows of len elements, whole groups, and y of twice as many.
            unsafe {
                let (x, dt) = (x.add(row * len), y.add(2 * row * len));
                for i in (0..len).step_by(L::LANES) {
                    lanes.store(dt.add(i), lanes.add(lanes.load(x.add(i)), lanes.load(bias.as_ptr().add(i))));
                }
                pointwise::apply_rows(lanes, Function::Softplus, 1, len, dt, 0);
                for i in (0..len).step_by(L::LANES) {
                    let step = lanes.load(dt.add(i));
                    let step = lanes.select_gt(low, step, low, step);
                    let step = lanes.mul(scale, lanes.select_gt(step, high, high, step));
                    lanes.store(dt.add(i), step);
                    let decay = lanes.exp2(lanes.mul(step, lanes.load(a.as_ptr().add(i))));
                    lanes.store(dt.add(len + i), decay);
                }
            }
        }
    }
}

/// The recurrence of a layer.
#[derive(Debug)]
pub struct Ssd<E> {
    sizes: Sizes,
    /// The head of each channel.
    head: Vec<usize>,
    /// (channels,)
    d: Aligned<E>,
}

impl<E: Elem> Ssd<E> {
    /// `d` (channels,).
    ///
    /// # Panics
    /// Where the sizes do not fit one another.
    pub fn new(sizes: Sizes, d: &[f64]) -> Self {
        let Sizes { channels, heads, groups, modes } = sizes;
        assert!(d.len() == channels && modes > 0 && groups > 0 && heads > 0);
        assert!(channels.is_multiple_of(heads) && heads.is_multiple_of(groups));
        Self {
            sizes,
            head: (0..channels).map(|channel| channel / (channels / heads)).collect(),
            d: (0..padded(channels)).map(|i| E::of(d.get(i).copied().unwrap_or(0.0))).collect(),
        }
    }

    /// Channels of a group.
    fn own(&self) -> usize {
        self.sizes.channels / self.sizes.groups
    }

    /// Tiles of channels: independent pieces.
    pub fn tiles(&self) -> usize {
        self.sizes.groups * padded(self.own()) / GROUP
    }

    /// Elements of a tile's states: N rows of GROUP.
    pub fn tile_state_len(&self) -> usize {
        self.sizes.modes * GROUP
    }

    /// The tiles' states that are `h` (channels, N).
    pub fn state(&self, h: &[f64]) -> Vec<E> {
        let (n, len) = (self.sizes.modes, self.tile_state_len());
        let mut state = vec![E::ZERO; self.tiles() * len];
        for tile in 0..self.tiles() {
            for (lane, channel) in self.channels(tile).enumerate() {
                for i in 0..n {
                    state[tile * len + i * GROUP + lane] = E::of(h[channel * n + i]);
                }
            }
        }
        state
    }

    /// Channels of a row of x, B and C.
    pub fn input_width(&self) -> usize {
        self.sizes.channels + 2 * self.sizes.groups * self.sizes.modes
    }

    /// The channels of a tile.
    fn channels(&self, tile: usize) -> Range<usize> {
        let per_group = padded(self.own()) / GROUP;
        let group = tile / per_group;
        let first = group * self.own() + tile % per_group * GROUP;
        first..(first + GROUP).min((group + 1) * self.own())
    }

    /// Runs some tiles over `rows` rows: `xbc` of padded(input_width), `steps` as [`Steps`] makes them; `state` has these
    /// tiles' states after `position` samples.
    ///
    /// # Safety
    /// `y` addresses `rows` rows of padded(channels) elements, of which no one else touches the tiles' channels.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        &self,
        isa: Isa,
        position: u64,
        rows: usize,
        tiles: Range<usize>,
        xbc: &[E],
        steps: &[E],
        state: &mut [E],
        y: *mut E,
    ) {
        assert!(tiles.end <= self.tiles() && state.len() == tiles.len() * self.tile_state_len());
        assert!(holds(xbc.len(), rows, padded(self.input_width())));
        assert!(holds(steps.len(), rows, 2 * padded(self.sizes.heads)));
        let first = (position % SAMPLES as u64) as usize;
        isa.run(Run { layer: self, first, rows, tiles, xbc: xbc.as_ptr(), steps: steps.as_ptr(), state, y });
    }
}

struct Run<'a, E> {
    layer: &'a Ssd<E>,
    /// The first row's place among [`SAMPLES`].
    first: usize,
    rows: usize,
    tiles: Range<usize>,
    xbc: *const E,
    steps: *const E,
    state: &'a mut [E],
    y: *mut E,
}

/// A number for each lane of a tile at each of some samples.
#[repr(align(64))]
struct ByLane<E, const T: usize>([[E; GROUP]; T]);

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        // Rows up to the first whole SAMPLES, and up to the end of the last.
        let from = ((SAMPLES - self.first) % SAMPLES).min(self.rows);
        let to = from + (self.rows - from) / SAMPLES * SAMPLES;
        for (i, tile) in self.tiles.clone().enumerate() {
            // SAFETY: `Ssd::run` checked that the state has so many tiles.
            let state = unsafe { self.state.as_ptr().cast_mut().add(i * self.layer.tile_state_len()) };
            // SAFETY: these rows are below `rows`.
            unsafe {
                (0..from).for_each(|row| self.samples::<L, 1>(lanes, tile, row, state));
                (from..to).step_by(SAMPLES).for_each(|row| self.samples::<L, SAMPLES>(lanes, tile, row, state));
                (to..self.rows).for_each(|row| self.samples::<L, 1>(lanes, tile, row, state));
            }
        }
    }
}

impl<E: Elem> Run<'_, E> {
    /// `T` samples of a tile, from row `row` on.
    ///
    /// # Safety
    /// There are so many rows, and `state` addresses the tile's states, N rows of GROUP.
    #[inline(always)]
    unsafe fn samples<L: Lanes<E = E>, const T: usize>(&self, lanes: L, tile: usize, row: usize, state: *mut E) {
        let Ssd { sizes, head, d, .. } = self.layer;
        let Sizes { channels, heads, groups, modes, .. } = *sizes;
        let (own, x_stride, heads) = (self.layer.channels(tile), padded(self.layer.input_width()), padded(heads));
        let group = own.start / self.layer.own();
        let last = (self.first + row + T).is_multiple_of(SAMPLES);
        let (tiny, zero) = (lanes.splat(if last { E::TINY } else { E::ZERO }), lanes.splat(E::ZERO));
        let zeros = || ByLane([[E::ZERO; GROUP]; T]);
        let (mut decay, mut driven, mut y) = (zeros(), zeros(), zeros());
        // SAFETY: the rows are the caller's; channels and their heads are within them, and so are B and C of the group. A
        // part of GROUP lanes is whole vectors.
        unsafe {
            let at = |t: usize| self.xbc.add((row + t) * x_stride);
            for t in 0..T {
                let (x, steps) = (at(t), self.steps.add((row + t) * 2 * heads));
                for (lane, channel) in own.clone().enumerate() {
                    let (x, head) = (*x.add(channel), head[channel]);
                    decay.0[t][lane] = *steps.add(heads + head);
                    driven.0[t][lane] = *steps.add(head) * x;
                    y.0[t][lane] = d[channel] * x;
                }
            }
            let b: [*const E; T] = std::array::from_fn(|t| at(t).add(channels + group * modes));
            for part in (0..GROUP).step_by(L::LANES) {
                let of = |lanes_of: &ByLane<E, T>| -> [L::V; T] {
                    std::array::from_fn(|t| lanes.load(lanes_of.0[t].as_ptr().add(part)))
                };
                let (decay, driven, mut sums) = (of(&decay), of(&driven), of(&y));
                for i in 0..modes {
                    let p = state.add(i * GROUP + part);
                    let mut h = lanes.load(p);
                    for t in 0..T {
                        let (b, c) = (*b[t].add(i), *b[t].add(groups * modes + i));
                        h = lanes.fma(decay[t], h, lanes.mul(driven[t], lanes.splat(b)));
                        if t + 1 == T {
                            h = lanes.select_gt(tiny, lanes.abs(h), zero, h);
                        }
                        sums[t] = lanes.fma(lanes.splat(c), h, sums[t]);
                    }
                    lanes.store(p, h);
                }
                for t in 0..T {
                    lanes.store(y.0[t].as_mut_ptr().add(part), sums[t]);
                }
            }
            for t in 0..T {
                let to = self.y.add((row + t) * padded(channels) + own.start);
                to.copy_from_nonoverlapping(y.0[t].as_ptr(), own.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(i: usize, seed: usize) -> f64 {
        ((i * 7 + seed * 31) as f64 * 12.9898).sin()
    }

    /// Rows of `width` numbers, with NaN behind them.
    fn rows<E: Elem>(rows: usize, width: usize, seed: usize) -> Vec<E> {
        let at = |i: usize| if i % padded(width) < width { number(i, seed) } else { f64::NAN };
        (0..rows * padded(width)).map(|i| E::of(at(i))).collect()
    }

    fn check<E: Elem>(sizes: Sizes, hold: bool, length: usize, cut: usize, bound: f64) {
        let Sizes { channels, heads, groups, modes } = sizes;
        let numbers = |n: usize, seed: usize| (0..n).map(|i| E::of(number(i, seed)).f64()).collect::<Vec<_>>();
        let mut a: Vec<f64> = numbers(heads, 1).iter().map(|a| a.abs() * -2.0).collect();
        // An integrator.
        a[heads - 1] = 0.0;
        let (bias, d) = (numbers(heads, 2), numbers(channels, 3));
        let (limits, rate, scale) = ((0.3, 1.1), 0.5, 1.5);
        let (steps, layer) = (Steps::<E>::new(&a, &bias, limits, rate, hold), Ssd::<E>::new(sizes, &d));
        let width = layer.input_width();
        let (xbc, dt) = (rows::<E>(length, width, 4), rows::<E>(length, heads, 5));

        let mut expected = Vec::new();
        let start = numbers(channels * modes, 6);
        let mut states = start.clone();
        for t in 0..length {
            let row = &xbc[t * padded(width)..][..width];
            for channel in 0..channels {
                let (head, group) = (channel / (channels / heads), channel / (channels / groups));
                let step = libm::log1p(libm::exp(dt[t * padded(heads) + head].f64() + bias[head]));
                let step = step.clamp(limits.0, limits.1) * rate * scale;
                let decay = libm::exp(step * a[head]);
                let step = if hold && a[head] < 0.0 { libm::expm1(step * a[head]) / a[head] } else { step };
                let x = row[channel].f64();
                let mut y = d[channel] * x;
                for i in 0..modes {
                    let h = &mut states[channel * modes + i];
                    *h = decay * *h + step * x * row[channels + group * modes + i].f64();
                    y += *h * row[channels + (groups + group) * modes + i].f64();
                }
                expected.push(y);
            }
        }
        let greatest = expected.iter().fold(0.0_f64, |m, y| m.max(y.abs()));

        for isa in Isa::all() {
            let run = |cuts: &[usize]| {
                let mut made = vec![E::ZERO; length * 2 * padded(heads)];
                steps.run(isa, length, scale, &dt, &mut made);
                let mut state = layer.state(&start);
                let mut y = vec![E::of(7.0); length * padded(channels)];
                for range in cuts.windows(2) {
                    let (from, n) = (range[0], range[1] - range[0]);
                    let (x, made) = (&xbc[from * padded(width)..], &made[from * 2 * padded(heads)..]);
                    let at = layer.tiles() / 2;
                    let (first, second) = state.split_at_mut(at * layer.tile_state_len());
                    let y = y[from * padded(channels)..].as_mut_ptr();
                    // SAFETY: y has so many rows.
                    unsafe {
                        layer.run(isa, from as u64, n, 0..at, x, made, first, y);
                        layer.run(isa, from as u64, n, at..layer.tiles(), x, made, second, y);
                    }
                }
                (y, state)
            };
            let (y, state) = run(&[0, length]);
            let cut = cut.min(length);
            assert!((y.clone(), state) == run(&[0, cut, (cut + 1).min(length), length]), "{}", isa.name());
            for (row, expected) in y.chunks_exact(padded(channels)).zip(expected.chunks_exact(channels)) {
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
            groups in 1..4usize, per_group in 1..4usize, p in prop::sample::select(vec![1usize, 3, 8, 16, 17, 32]),
            modes in 1..20usize, hold: bool, length in 1..30usize, cut in 0..30usize
        ) {
            let heads = groups * per_group;
            let sizes = Sizes { channels: heads * p, heads, groups, modes };
            check::<f32>(sizes, hold, length, cut, 3e-6);
            check::<f64>(sizes, hold, length, cut, 1e-14);
        }
    }
}

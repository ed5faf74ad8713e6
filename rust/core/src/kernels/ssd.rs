//! Mamba-2's state-space duality: h' = exp(dt A) h + dt x B^T, y = h' C + D x, with one dt and one A a head.
//!
//! Lanes are channels, in tiles of [`GROUP`] that share B and C. Samples go in chunks (Dao & Gu 2024, sec. 6): what the
//! state before a chunk gives its samples, what they give one another by the products C B^T, and the state after it. A
//! chunk's sums and inputs stay in registers while the state goes by once, and so a sample costs two multiply-adds a state
//! instead of the recurrence's three. Decays within a chunk are products of its samples' own, of which none exceeds one.

use super::layout::{fetch, holds};
use super::pointwise::{self, Function, exp_range, expm1};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};
use std::ops::Range;

/// Samples of a chunk at most, of which any chunk's are a divisor: where a sequence is cut into runs of a multiple, its
/// answers are the same to the last bit.
pub const CHUNK: usize = 8;

/// Chunks of which the products C B^T are kept, for all tiles of a group. So long a tile's states stay in the first cache.
const TOGETHER: usize = 8;

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

    /// Elements of a row of what [`Steps::run`] makes of one for so many heads.
    pub fn width(heads: usize) -> usize {
        3 * padded(heads)
    }

    /// `rows` rows of x, of padded(heads) elements, into rows of y: as many of what multiplies the input,
    /// of log2(exp(dt A)) and of exp(dt A). `scale` multiplies dt.
    pub fn run(&self, isa: Isa, rows: usize, scale: f64, x: &[E], y: &mut [E]) {
        let len = self.a.len();
        assert!(holds(x.len(), rows, len) && holds(y.len(), rows, 3 * len));
        isa.run(RunSteps { steps: self, rows, scale: E::of(scale * self.rate), x: x.as_ptr(), y: y.as_mut_ptr() });
        if let Some(hold) = &self.hold {
            isa.run(Hold { hold, rows, y });
        }
    }
}

/// Makes (exp(dt A) - 1) / A of dt in every row that [`RunSteps`] made.
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
            // SAFETY: `Steps::run` checked that y has `rows` rows of three times as many elements as A has, whole groups.
            unsafe {
                let dt = self.y.as_mut_ptr().add(3 * row * a.len());
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
            // SAFETY: `Steps::run` checked that x has `rows` rows of len elements, whole groups, and y of three times as many.
            unsafe {
                let (x, dt) = (x.add(row * len), y.add(3 * row * len));
                for i in (0..len).step_by(L::LANES) {
                    lanes.store(dt.add(i), lanes.add(lanes.load(x.add(i)), lanes.load(bias.as_ptr().add(i))));
                }
                pointwise::apply_rows(lanes, Function::Softplus, 1, len, dt, 0);
                for i in (0..len).step_by(L::LANES) {
                    let step = lanes.load(dt.add(i));
                    let step = lanes.select_gt(low, step, low, step);
                    let step = lanes.mul(scale, lanes.select_gt(step, high, high, step));
                    lanes.store(dt.add(i), step);
                    let log = lanes.mul(step, lanes.load(a.as_ptr().add(i)));
                    lanes.store(dt.add(len + i), log);
                    lanes.store(dt.add(2 * len + i), lanes.exp2(log));
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
    /// tiles' states.
    ///
    /// # Safety
    /// `y` addresses `rows` rows of padded(channels) elements, of which no one else touches the tiles' channels.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        &self,
        isa: Isa,
        rows: usize,
        tiles: Range<usize>,
        xbc: &[E],
        steps: &[E],
        state: &mut [E],
        y: *mut E,
    ) {
        assert!(tiles.end <= self.tiles() && state.len() == tiles.len() * self.tile_state_len());
        assert!(holds(xbc.len(), rows, padded(self.input_width())));
        assert!(holds(steps.len(), rows, Steps::<E>::width(self.sizes.heads)));
        isa.run(Run { layer: self, rows, tiles, xbc: xbc.as_ptr(), steps: steps.as_ptr(), state, y });
    }
}

struct Run<'a, E> {
    layer: &'a Ssd<E>,
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

/// What some samples bring to a tile.
struct Brought<E, const T: usize> {
    /// log2(exp(dt A)), summed
    log: ByLane<E, 1>,
    /// exp(dt A)
    decay: ByLane<E, T>,
    /// dt x
    driven: ByLane<E, T>,
    /// D x
    y: ByLane<E, T>,
}

/// C B^T of a chunk's samples: of row t and column s what sample s gives sample t, where s <= t.
type Products<E, const T: usize> = [[E; T]; T];

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        // Two registers a sample, and some for the state, its decay and what goes by.
        if L::REGISTERS < 32 { self.chunks::<L, 4>(lanes) } else { self.chunks::<L, 8>(lanes) }
    }
}

impl<E: Elem> Run<'_, E> {
    /// All rows, in chunks of `T` samples; those left over one by one.
    #[inline(always)]
    fn chunks<L: Lanes<E = E>, const T: usize>(mut self, lanes: L) {
        const { assert!(CHUNK.is_multiple_of(T)) }
        let per_group = self.layer.tiles() / self.layer.sizes.groups;
        let whole = self.rows / T * T;
        for first in (0..whole).step_by(TOGETHER * T) {
            let chunks = TOGETHER.min((whole - first) / T);
            let (mut products, mut known) = ([[[E::ZERO; T]; T]; TOGETHER], None);
            for tile in self.tiles.clone() {
                let group = tile / per_group;
                if known != Some(group) {
                    known = Some(group);
                    for (chunk, products) in products[..chunks].iter_mut().enumerate() {
                        // SAFETY: these rows are below `rows`, and the group is one of the layer's.
                        unsafe { self.products::<L, T>(lanes, group, first + chunk * T, products) };
                    }
                }
                let state = self.state_of(tile);
                for (chunk, products) in products[..chunks].iter().enumerate() {
                    // SAFETY: these rows are below `rows`, and this is the tile's state.
                    unsafe { self.chunk::<L, T>(lanes, tile, first + chunk * T, products, state) };
                }
                for at in (0..self.layer.tile_state_len()).step_by(L::LANES) {
                    // SAFETY: the tile's state, rows of GROUP elements, is whole vectors.
                    unsafe { lanes.store(state.add(at), lanes.flush(lanes.load(state.add(at)))) };
                }
            }
        }
        for tile in self.tiles.clone() {
            let state = self.state_of(tile);
            for row in whole..self.rows {
                // SAFETY: the row is below `rows`, and this is the tile's state.
                unsafe { self.sample(lanes, tile, row, state) };
            }
        }
    }

    /// The states of a tile, N rows of GROUP.
    fn state_of(&mut self, tile: usize) -> *mut E {
        let len = self.layer.tile_state_len();
        self.state[(tile - self.tiles.start) * len..][..len].as_mut_ptr()
    }

    /// B of a group at a row, and how far behind it C is.
    ///
    /// # Safety
    /// The row is below `rows`, and the group one of the layer's.
    #[inline(always)]
    unsafe fn b(&self, group: usize, row: usize) -> (*const E, usize) {
        let Sizes { channels, groups, modes, .. } = self.layer.sizes;
        // SAFETY: a row of xbc has x, and after it B and C of all groups.
        let b = unsafe { self.xbc.add(row * padded(self.layer.input_width()) + channels + group * modes) };
        (b, groups * modes)
    }

    /// C B^T of the chunk from row `row` on.
    ///
    /// # Safety
    /// There are so many rows, and the group is one of the layer's.
    #[inline(always)]
    unsafe fn products<L: Lanes<E = E>, const T: usize>(
        &self,
        lanes: L,
        group: usize,
        row: usize,
        products: &mut Products<E, T>,
    ) {
        let modes = self.layer.sizes.modes;
        let vectors = modes / L::LANES * L::LANES;
        // SAFETY: the rows are the caller's, and B and C are `modes` elements.
        unsafe {
            let (b, to_c) = self.b(group, row);
            let stride = padded(self.layer.input_width());
            for (t, products) in products.iter_mut().enumerate() {
                let c = b.add(to_c + t * stride);
                let mut sums = [lanes.splat(E::ZERO); T];
                for i in (0..vectors).step_by(L::LANES) {
                    let c = lanes.load(c.add(i));
                    for s in 0..T {
                        sums[s] = lanes.fma(c, lanes.load(b.add(s * stride + i)), sums[s]);
                    }
                }
                for s in 0..=t {
                    products[s] = lanes.sum(sums[s]);
                    for i in vectors..modes {
                        products[s] += *c.add(i) * *b.add(s * stride + i);
                    }
                }
            }
        }
    }

    /// What `T` samples from row `row` on bring to a tile.
    ///
    /// # Safety
    /// There are so many rows.
    #[inline(always)]
    unsafe fn brought<L: Lanes<E = E>, const T: usize>(&self, lanes: L, tile: usize, row: usize) -> Brought<E, T> {
        let Ssd { sizes, head, d, .. } = self.layer;
        let (own, heads) = (self.layer.channels(tile), padded(sizes.heads));
        let one_head = own.len() == GROUP && head[own.start] == head[own.end - 1];
        let mut brought = Brought {
            log: ByLane([[E::ZERO; GROUP]; 1]),
            decay: ByLane([[E::ZERO; GROUP]; T]),
            driven: ByLane([[E::ZERO; GROUP]; T]),
            y: ByLane([[E::ZERO; GROUP]; T]),
        };
        let Brought { log, decay, driven, y } = &mut brought;
        let log = &mut log.0[0];
        for t in 0..T {
            // SAFETY: the rows are the caller's; channels and their heads are within them.
            unsafe {
                let x = self.xbc.add((row + t) * padded(self.layer.input_width()));
                let steps = self.steps.add((row + t) * Steps::<E>::width(sizes.heads));
                // The next tile's rows lie a row apart, where no prefetcher of the machine's looks for them.
                fetch(x.wrapping_add(own.end));
                fetch(self.y.wrapping_add((row + t) * padded(sizes.channels) + own.end));
                if one_head {
                    let head = head[own.start];
                    let (step, past) = (lanes.splat(*steps.add(head)), lanes.splat(*steps.add(2 * heads + head)));
                    let more = lanes.splat(*steps.add(heads + head));
                    for part in (0..GROUP).step_by(L::LANES) {
                        let (x, d) =
                            (lanes.load(x.add(own.start + part)), lanes.load(d.as_ptr().add(own.start + part)));
                        let log = log.as_mut_ptr().add(part);
                        lanes.store(log, lanes.add(lanes.load(log), more));
                        lanes.store(decay.0[t].as_mut_ptr().add(part), past);
                        lanes.store(driven.0[t].as_mut_ptr().add(part), lanes.mul(step, x));
                        lanes.store(y.0[t].as_mut_ptr().add(part), lanes.mul(d, x));
                    }
                } else {
                    for (lane, channel) in own.clone().enumerate() {
                        let (x, head) = (*x.add(channel), head[channel]);
                        log[lane] += *steps.add(heads + head);
                        decay.0[t][lane] = *steps.add(2 * heads + head);
                        driven.0[t][lane] = *steps.add(head) * x;
                        y.0[t][lane] = d[channel] * x;
                    }
                }
            }
        }
        brought
    }

    /// A chunk of a tile, from row `row` on.
    ///
    /// # Safety
    /// There are so many rows, and `state` addresses the tile's states, N rows of GROUP.
    #[inline(always)]
    unsafe fn chunk<L: Lanes<E = E>, const T: usize>(
        &self,
        lanes: L,
        tile: usize,
        row: usize,
        products: &Products<E, T>,
        state: *mut E,
    ) {
        let group = self.layer.channels(tile).start / self.layer.own();
        // SAFETY: the rows are the caller's, and B and C of a group within them. A part of GROUP lanes is whole vectors.
        unsafe {
            let Brought { log, mut decay, driven, mut y } = self.brought::<L, T>(lanes, tile, row);
            let (b, to_c) = self.b(group, row);
            let (c, stride) = (b.add(to_c), padded(self.layer.input_width()));
            let zero = lanes.splat(E::ZERO);
            for part in (0..GROUP).step_by(L::LANES) {
                // What is left of each sample's input at sample t, and of the state before the chunk.
                let mut left = [zero; T];
                let mut past = lanes.splat(E::ONE);
                for t in 0..T {
                    let decay = decay.0[t].as_mut_ptr().add(part);
                    let y = y.0[t].as_mut_ptr().add(part);
                    let (now, mut sum) = (lanes.load(decay), lanes.load(y));
                    past = lanes.mul(past, now);
                    lanes.store(decay, past);
                    for s in 0..t {
                        left[s] = lanes.mul(left[s], now);
                        sum = lanes.fma(lanes.splat(products[t][s]), left[s], sum);
                    }
                    left[t] = lanes.load(driven.0[t].as_ptr().add(part));
                    lanes.store(y, lanes.fma(lanes.splat(products[t][t]), left[t], sum));
                }
                // Less one: of a decay that is hardly any no digits are lost, where all that changes a state is added to it
                // at once.
                let past = lanes.exp2m1(lanes.load(log.0[0].as_ptr().add(part)));
                let mut sums = [zero; T];
                for i in 0..self.layer.sizes.modes {
                    let p = state.add(i * GROUP + part);
                    let h = lanes.load(p);
                    // Two chains, or adding up would take longer than the sums.
                    let mut change = [lanes.mul(past, h), zero];
                    for t in 0..T {
                        sums[t] = lanes.fma(lanes.splat(*c.add(t * stride + i)), h, sums[t]);
                        change[t % 2] = lanes.fma(lanes.splat(*b.add(t * stride + i)), left[t], change[t % 2]);
                    }
                    lanes.store(p, lanes.add(h, lanes.add(change[0], change[1])));
                }
                for t in 0..T {
                    let y = y.0[t].as_mut_ptr().add(part);
                    let decay = lanes.load(decay.0[t].as_ptr().add(part));
                    lanes.store(y, lanes.fma(decay, sums[t], lanes.load(y)));
                }
            }
            self.answer(tile, row, &y);
        }
    }

    /// One sample of a tile, by the recurrence.
    ///
    /// # Safety
    /// There is such a row, and `state` addresses the tile's states, N rows of GROUP.
    #[inline(always)]
    unsafe fn sample<L: Lanes<E = E>>(&self, lanes: L, tile: usize, row: usize, state: *mut E) {
        let group = self.layer.channels(tile).start / self.layer.own();
        // SAFETY: as for a chunk.
        unsafe {
            let Brought { log, driven, mut y, .. } = self.brought::<L, 1>(lanes, tile, row);
            let (b, to_c) = self.b(group, row);
            let c = b.add(to_c);
            for part in (0..GROUP).step_by(L::LANES) {
                let y = y.0[0].as_mut_ptr().add(part);
                let driven = lanes.load(driven.0[0].as_ptr().add(part));
                let decay = lanes.exp2m1(lanes.load(log.0[0].as_ptr().add(part)));
                let mut sum = lanes.load(y);
                for i in 0..self.layer.sizes.modes {
                    let p = state.add(i * GROUP + part);
                    let h = lanes.load(p);
                    let change = lanes.fma(decay, h, lanes.mul(driven, lanes.splat(*b.add(i))));
                    let next = lanes.flush(lanes.add(h, change));
                    sum = lanes.fma(lanes.splat(*c.add(i)), next, sum);
                    lanes.store(p, next);
                }
                lanes.store(y, sum);
            }
            self.answer(tile, row, &y);
        }
    }

    /// Writes a tile's answers to the rows from `row` on.
    ///
    /// # Safety
    /// There are so many rows.
    #[inline(always)]
    unsafe fn answer<const T: usize>(&self, tile: usize, row: usize, y: &ByLane<E, T>) {
        let own = self.layer.channels(tile);
        for (t, y) in y.0.iter().enumerate() {
            // SAFETY: the tile's channels of a row of y.
            unsafe {
                let to = self.y.add((row + t) * padded(self.layer.sizes.channels) + own.start);
                to.copy_from_nonoverlapping(y.as_ptr(), own.len());
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

    /// `rate` is that of the fastest decay; dt is within `limits`.
    fn check<E: Elem>(sizes: Sizes, hold: bool, rate: f64, limits: (f64, f64), length: usize, cut: usize, bound: f64) {
        let Sizes { channels, heads, groups, modes } = sizes;
        let numbers = |n: usize, seed: usize| (0..n).map(|i| E::of(number(i, seed)).f64()).collect::<Vec<_>>();
        let mut a: Vec<f64> = numbers(heads, 1).iter().map(|a| -(a.abs() * rate)).collect();
        // An integrator.
        a[heads - 1] = 0.0;
        let (bias, d) = (numbers(heads, 2), numbers(channels, 3));
        let (times, scale) = (0.5, 1.5);
        let (steps, layer) = (Steps::<E>::new(&a, &bias, limits, times, hold), Ssd::<E>::new(sizes, &d));
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
                let step = step.clamp(limits.0, limits.1) * times * scale;
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
            // In runs of rows, each run's tiles in two parts.
            let run = |cuts: &[usize]| {
                let mut made = vec![E::ZERO; length * Steps::<E>::width(heads)];
                steps.run(isa, length, scale, &dt, &mut made);
                let mut state = layer.state(&start);
                let mut y = vec![E::of(7.0); length * padded(channels)];
                for range in cuts.windows(2) {
                    let (from, n) = (range[0], range[1] - range[0]);
                    let (x, made) = (&xbc[from * padded(width)..], &made[from * Steps::<E>::width(heads)..]);
                    let at = layer.tiles() / 2;
                    let (first, second) = state.split_at_mut(at * layer.tile_state_len());
                    let y = y[from * padded(channels)..].as_mut_ptr();
                    // SAFETY: y has so many rows.
                    unsafe {
                        layer.run(isa, n, 0..at, x, made, first, y);
                        layer.run(isa, n, at..layer.tiles(), x, made, second, y);
                    }
                }
                (y, state)
            };
            let (y, state) = run(&[0, length]);
            // At a multiple of any chunk to the last bit.
            assert!((y.clone(), state) == run(&[0, length.min(cut * CHUNK), length]), "{}", isa.name());
            let (cut, samples) = (cut.min(length), (0..=length).collect::<Vec<_>>());
            let all = [y, run(&[0, cut, (cut + 1).min(length), length]).0, run(&samples).0];
            let all = all.iter().flat_map(|y| y.chunks_exact(padded(channels)).zip(expected.chunks_exact(channels)));
            for (row, expected) in all {
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
            modes in 1..40usize, hold: bool, length in 1..80usize, cut in 0..80usize, rate in -7..8i32
        ) {
            let heads = groups * per_group;
            let sizes = Sizes { channels: heads * p, heads, groups, modes };
            check::<f32>(sizes, hold, 10f64.powi(rate), (0.3, 1.1), length, cut, 3e-6);
            check::<f64>(sizes, hold, 10f64.powi(rate), (0.3, 1.1), length, cut, 1e-14);
        }
    }

    #[test]
    fn slow_states_keep_their_digits() {
        let sizes = Sizes { channels: 32, heads: 2, groups: 1, modes: 4 };
        for rate in [1e-5, 1e-4, 1e-3] {
            // The same decay at each sample, and so the same rounding of it.
            check::<f32>(sizes, false, rate, (0.4, 0.4), 4000, 1001, 5e-6);
        }
    }
}

//! Single samples of a diagonal recurrence, with or without what couples its modes, visited once in [`AHEAD`] samples or
//! twice as many.
//!
//! What a sample costs is mostly the memory of its modes, which is read and written whether they move by one sample or
//! by several. From the state x\[t\] on,
//!
//! y\[t + j\] = sum Re(c a^j x\[t\]) + sum over 0 < i <= j of k\[j - i\] u\[t + i\], k\[d\] = sum Re(c a^d).
//!
//! A visit computes the first sum for all samples until the next visit. A sample keeps its input and adds what of the
//! second sum comes from its own block of AHEAD samples; where another block follows before the next visit, a block that
//! is full adds its part to all answers of that one. The next visit moves the modes on by all kept inputs at once. In that
//! way a run of samples takes fewer operations than one by one, too.
//!
//! Where modes are coupled, x' = a x + u - sum_k w_k s_k with s_k = Re(v_k . x), a coupling is both: an answer, of the
//! state before the sample, and an input, through -w_k.

mod modes;
mod samples;
mod taps;

pub use samples::Sample;

use super::by_modes::modes_len;
use super::diagonal::pair;
use super::{Aligned, Elem, GROUP, Isa};
use modes::Modes;
use num_complex::Complex64;
use samples::Scan;
use std::iter::once;

/// The samples of a block, from a visit on.
pub const AHEAD: usize = 8;
/// Elements of its rows.
const BLOCK: usize = AHEAD * GROUP;

/// Blocks from one visit to the next of so many modes: the memory of many is worth more taps.
const fn blocks_of(modes: usize, products: usize) -> usize {
    if products == 0 && modes >= 32 { 2 } else { 1 }
}

/// How many streams on the rows are fetched that any sample needs: in their time they come from memory.
pub const ROWS_AHEAD: usize = 8;

/// Rows of [`GROUP`] that a mode's first powers take: a and a^2, each (re, im).
const NEAR: usize = 4;

/// Rows of a power of the pole less one, (re, im), and their low parts. These are left out where modes are coupled: the
/// rounding of the couplings is greater.
const fn pole(products: usize) -> usize {
    if products == 0 { 4 } else { 2 }
}

/// Rows of a mode before those of its readers: the near ones, and the pole's power from one visit to the next.
const fn fixed(products: usize) -> usize {
    NEAR + pole(products)
}

/// Rows of a reader r, and of an input's gain g: r and r a, each (re, im).
const EACH: usize = 4;

/// Rows of a mode: c a as the first reader, then each v, then each -w, then a^AHEAD - 1 where visits are farther apart.
const fn rows_of(products: usize, blocks: usize) -> usize {
    fixed(products) + EACH * (1 + 2 * products) + if blocks > 1 { pole(products) } else { 0 }
}

/// Elements of state: for each sample from one visit to the next rows of the kept inputs, of what the modes say of it, and
/// of each inner product.
pub const fn state_len(modes: usize, products: usize) -> usize {
    (2 + products) * blocks_of(modes, products) * BLOCK
}

/// The modes of one group of channels, several samples at once.
#[derive(Debug)]
pub struct Ahead<E> {
    modes: usize,
    products: usize,
    /// From one visit to the next.
    blocks: usize,
    coefficients: Aligned<E>,
    /// What each answer hears of each input, the inner products being the later ones of both: (answers, inputs, samples
    /// from one visit to the next) rows of GROUP.
    taps: Aligned<E>,
}

/// A mode whose input has gain 1: its pole less one, what reads it, and (v, w) of each coupling.
pub type Coupled<'a> = (Complex64, Complex64, &'a [(Complex64, Complex64)]);

/// The most samples from one visit to the next.
const FARTHEST: usize = 2 * AHEAD;

/// Single samples since the last block. After the first few only the count's remainder matters, and it stays small.
#[derive(Clone, Copy, Debug)]
pub struct Single(usize);

impl Single {
    /// Reads it; whatever stands there, the count is in range.
    #[inline(always)]
    pub fn of<E: Elem>(count: E) -> Self {
        Self((count.f64() as usize).min(2 * FARTHEST - 1))
    }

    /// After one more, to be kept.
    #[inline(always)]
    pub fn and_one<E: Elem>(self) -> E {
        let count = self.0 + 1;
        E::of(if count < 2 * FARTHEST { count } else { FARTHEST } as f64)
    }
}

/// What the modes have met of the single samples since the last block.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// All of them.
    Now,
    /// All of them, and before the next one they are visited for the first time.
    Due,
    /// All but the last so many, whose inputs are kept.
    Visit(usize),
}

impl<E: Elem> Ahead<E> {
    /// `modes` modes a lane with `products` couplings; `mode(lane, n)` gives each.
    pub fn new<'a>(modes: usize, products: usize, mode: impl Fn(usize, usize) -> Coupled<'a>) -> Self {
        let blocks = blocks_of(modes, products);
        let rows = rows_of(products, blocks);
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        let mut taps = vec![0.0; (products + 1) * (products + 1) * blocks * BLOCK];
        for (n, lane) in (0..modes * GROUP).map(|i| (i / GROUP, i % GROUP)) {
            let (delta, c, vw) = mode(lane, n);
            let a = delta + 1.0;
            // (1 + d)^2 - 1 = d (2 + d), without the cancellation of a^2 - 1.
            let power = |samples: usize| (0..samples.ilog2()).fold(delta, |d, _| d * (d + 2.0));
            let pole = |samples: usize| pair::<E>(power(samples)).into_iter().take(pole(products));
            let readers = once(c * a).chain(vw.iter().map(|(v, _)| *v));
            let each = readers.chain(vw.iter().map(|(_, w)| -w)).flat_map(|z| [z, z * a]);
            let near = [a, a * a].into_iter().flat_map(|z| [z.re, z.im]);
            let each = each.flat_map(|z| [z.re, z.im]);
            let values = near.chain(pole(blocks * AHEAD)).chain(each).chain(pole(AHEAD));
            for (row, value) in values.enumerate().take(rows) {
                coefficients[(n * rows + row) * GROUP + lane] = E::of(value);
            }
            for (i, reader) in once(c).chain(vw.iter().map(|(v, _)| *v)).enumerate() {
                for (j, gain) in once(Complex64::ONE).chain(vw.iter().map(|(_, w)| -w)).enumerate() {
                    let first = (i * (products + 1) + j) * blocks * BLOCK;
                    let mut read = reader * gain;
                    for tap in taps[first..first + blocks * BLOCK][lane..].iter_mut().step_by(GROUP) {
                        *tap += read.re;
                        read *= a;
                    }
                }
            }
        }
        Self { modes, products, blocks, coefficients, taps: taps.into_iter().map(E::of).collect() }
    }

    /// The kept inputs, what the modes say of each sample, and the inner products.
    #[inline(always)]
    pub fn rows<'a>(&self, state: &'a mut [E]) -> (&'a mut [E], &'a mut [E], &'a mut [E]) {
        let (inputs, rest) = state.split_at_mut(self.blocks * BLOCK);
        let (answers, sums) = rest.split_at_mut(self.blocks * BLOCK);
        (inputs, answers, sums)
    }

    /// What the modes have met after `single` samples. Groups that differ in `stagger` visit them at different samples.
    #[inline(always)]
    pub fn since(&self, Single(count): Single, stagger: usize) -> Since {
        let first = stagger % (self.blocks * AHEAD);
        match count.checked_sub(first) {
            None => Since::Now,
            Some(0) => Since::Due,
            Some(n) => Since::Visit(n % (self.blocks * AHEAD)),
        }
    }

    /// The modes from lane `lane` on, with their state.
    #[inline(always)]
    fn modes<const K: usize, const W: usize>(&self, x: &mut [E], lane: usize) -> Modes<E, K, W> {
        let (k, x) = (self.coefficients.as_ptr().wrapping_add(lane), x.as_mut_ptr().wrapping_add(lane));
        Modes { count: self.modes, k, x }
    }

    /// `blocks` times AHEAD rows of `u` into rows of `y`; `x` is the state of the modes.
    pub fn scan<const K: usize>(&self, isa: Isa, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        let len = blocks * BLOCK;
        assert!(self.products == K && u.len() >= len && y.len() >= len && x.len() == modes_len::<E>(self.modes));
        isa.run(Scan::<E, K> { ahead: self, blocks, u, y, x });
    }
}

//! A system that looks ahead: its modes, and its impulse response as far as the next visit.

use super::layout::{BLOCK_LEN, BLOCK_SAMPLES, blocks_of, mode_rows, pole_rows};
use super::pending::{Pending, SampleCount};
use crate::kernels::mode_state::pair;
use crate::kernels::{Aligned, Elem, GROUP};
use num_complex::Complex64;
use std::iter::once;

/// The modes of one group of channels, several samples at once.
#[derive(Debug)]
pub struct LookAhead<E> {
    pub(super) modes: usize,
    pub(super) products: usize,
    /// From one visit to the next.
    pub(super) blocks: usize,
    /// [`mode_rows`] a mode.
    pub(super) coefficients: Aligned<E>,
    /// The impulse response of each output to each input, the inner products being the later ones of both: (outputs,
    /// inputs, samples from one visit to the next) rows of GROUP.
    pub(super) taps: Aligned<E>,
}

/// A mode whose input has gain 1: its pole less one, what reads it, and (v, w) of each coupling.
pub type Coupled<'a> = (Complex64, Complex64, &'a [(Complex64, Complex64)]);

impl<E: Elem> LookAhead<E> {
    /// `modes` modes a lane with `products` couplings; `mode(lane, n)` gives each.
    pub fn new<'a>(modes: usize, products: usize, mode: impl Fn(usize, usize) -> Coupled<'a>) -> Self {
        let blocks = blocks_of(modes, products);
        let rows = mode_rows(products, blocks);
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        let mut taps = vec![0.0; (products + 1) * (products + 1) * blocks * BLOCK_LEN];
        for (n, lane) in (0..modes * GROUP).map(|i| (i / GROUP, i % GROUP)) {
            let (delta, c, vw) = mode(lane, n);
            let a = delta + 1.0;
            // (1 + d)^2 - 1 = d (2 + d), without the cancellation of a^2 - 1.
            let power = |samples: usize| (0..samples.ilog2()).fold(delta, |d, _| d * (d + 2.0));
            let pole = |samples: usize| pair::<E>(power(samples)).into_iter().take(pole_rows(products));
            let readers = once(c * a).chain(vw.iter().map(|(v, _)| *v));
            let each = readers.chain(vw.iter().map(|(_, w)| -w)).flat_map(|z| [z, z * a]);
            let near = [a, a * a].into_iter().flat_map(|z| [z.re, z.im]);
            let each = each.flat_map(|z| [z.re, z.im]);
            let values = near.chain(pole(blocks * BLOCK_SAMPLES)).chain(each).chain(pole(BLOCK_SAMPLES));
            for (row, value) in values.enumerate().take(rows) {
                coefficients[(n * rows + row) * GROUP + lane] = E::of(value);
            }
            for (i, reader) in once(c).chain(vw.iter().map(|(v, _)| *v)).enumerate() {
                for (j, gain) in once(Complex64::ONE).chain(vw.iter().map(|(_, w)| -w)).enumerate() {
                    let first = (i * (products + 1) + j) * blocks * BLOCK_LEN;
                    let mut read = reader * gain;
                    for tap in taps[first..first + blocks * BLOCK_LEN][lane..].iter_mut().step_by(GROUP) {
                        *tap += read.re;
                        read *= a;
                    }
                }
            }
        }
        Self { modes, products, blocks, coefficients, taps: taps.into_iter().map(E::of).collect() }
    }

    /// A state as rows of pending inputs, of the free response, and of inner products.
    #[inline(always)]
    pub fn rows<'a>(&self, state: &'a mut [E]) -> (&'a mut [E], &'a mut [E], &'a mut [E]) {
        let (inputs, rest) = state.split_at_mut(self.blocks * BLOCK_LEN);
        let (free, sums) = rest.split_at_mut(self.blocks * BLOCK_LEN);
        (inputs, free, sums)
    }

    /// What is pending after `count` single samples. Groups of channels that differ in `stagger` are visited at
    /// different samples, so that one sample costs as much as another.
    #[inline(always)]
    pub fn pending(&self, SampleCount(count): SampleCount, stagger: usize) -> Pending {
        // Samples from one visit to the next are a power of two: their remainder is a mask.
        let within = self.blocks * BLOCK_SAMPLES - 1;
        match count.checked_sub(stagger & within) {
            None => Pending::OneByOne,
            Some(0) => Pending::FirstVisit,
            Some(n) => Pending::Inputs(n & within),
        }
    }
}

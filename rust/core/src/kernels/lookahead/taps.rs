//! The convolution of a block's inputs with the taps of the impulse response, within the block and into the next one.

use super::layout::{BLOCK_LEN, BLOCK_SAMPLES};
use crate::kernels::{Elem, GROUP, Lanes};

/// The output of sample `i` of a block: its free response, and the block's inputs up to its own times their taps.
/// First the same for the inner products of the state before the sample, which replace their free response.
///
/// # Safety
/// From one lane of a group on, `inputs` and `free` address more than `i` rows, `sums` a block of rows for each of K
/// inner products, which are written, and `taps` those of a system with K. i < BLOCK_SAMPLES.
#[inline(always)]
pub unsafe fn output<L: Lanes, const K: usize>(
    lanes: L,
    i: usize,
    taps: *const L::E,
    inputs: *const L::E,
    sums: *mut L::E,
    free: *const L::E,
) -> L::V {
    let of = |k: usize| if k == 0 { inputs } else { sums.wrapping_add((k - 1) * BLOCK_LEN).cast_const() };
    // SAFETY: rows up to i of inputs, products and taps are accessed; each pair of output and input has at least a
    // block of taps, and they are BLOCK_LEN apart where K > 0, for then a visit is a block long.
    unsafe {
        for k in 1..=K {
            let taps = taps.add(k * (K + 1) * BLOCK_LEN);
            let mut sum = lanes.load(of(k).add(i * GROUP));
            for j in 0..i {
                for l in 0..=K {
                    let tap = lanes.load(taps.add(l * BLOCK_LEN + (i - 1 - j) * GROUP));
                    sum = lanes.fma(tap, lanes.load(of(l).add(j * GROUP)), sum);
                }
            }
            lanes.store(sums.add((k - 1) * BLOCK_LEN + i * GROUP), sum);
        }
        let mut sum = lanes.load(free.add(i * GROUP));
        for l in 0..=K {
            sum = lanes.fma(lanes.load(taps.add(l * BLOCK_LEN)), lanes.load(of(l).add(i * GROUP)), sum);
        }
        for j in 0..i {
            for l in 0..=K {
                let tap = lanes.load(taps.add(l * BLOCK_LEN + (i - j) * GROUP));
                sum = lanes.fma(tap, lanes.load(of(l).add(j * GROUP)), sum);
            }
        }
        sum
    }
}

/// Adds the inputs of a block times their taps to the free response of the next block.
///
/// # Safety
/// From one lane of a group on, `inputs` and `free` address a block of rows, and `taps` two blocks.
#[inline(always)]
pub unsafe fn add_to_next_block<L: Lanes>(lanes: L, taps: *const L::E, inputs: *const L::E, free: *mut L::E) {
    let mut sums = [lanes.splat(L::E::ZERO); BLOCK_SAMPLES];
    // SAFETY: i and j are below BLOCK_SAMPLES, so that BLOCK_SAMPLES + i - j is below twice that.
    unsafe {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = lanes.load(free.add(i * GROUP));
        }
        for j in 0..BLOCK_SAMPLES {
            let input = lanes.load(inputs.add(j * GROUP));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = lanes.fma(lanes.load(taps.add((BLOCK_SAMPLES + i - j) * GROUP)), input, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            lanes.store(free.add(i * GROUP), sum);
        }
    }
}

//! What the samples of a block say of one another, and of the next block.

use super::{AHEAD, BLOCK};
use crate::kernels::{Elem, GROUP, Lanes};

/// The answer of sample `i` of a block: what was said of it before, and what the block's inputs say. Before that the
/// same for the inner products of the state that the sample meets, in place of what the modes said of them.
///
/// # Safety
/// The pointers address more than `i` rows of GROUP, less the lanes skipped, and `sums` AHEAD rows for each product.
#[inline(always)]
pub unsafe fn hear<L: Lanes, const K: usize>(
    lanes: L,
    i: usize,
    taps: *const L::E,
    inputs: *const L::E,
    sums: *mut L::E,
    said: *const L::E,
) -> L::V {
    let of = |k: usize| if k == 0 { inputs } else { sums.wrapping_add((k - 1) * BLOCK).cast_const() };
    // SAFETY: as the caller's.
    unsafe {
        for k in 1..=K {
            let taps = taps.add(k * (K + 1) * BLOCK);
            let mut sum = lanes.load(of(k).add(i * GROUP));
            for j in 0..i {
                for l in 0..=K {
                    let tap = lanes.load(taps.add(l * BLOCK + (i - 1 - j) * GROUP));
                    sum = lanes.fma(tap, lanes.load(of(l).add(j * GROUP)), sum);
                }
            }
            lanes.store(sums.add((k - 1) * BLOCK + i * GROUP), sum);
        }
        let mut sum = lanes.load(said.add(i * GROUP));
        for l in 0..=K {
            sum = lanes.fma(lanes.load(taps.add(l * BLOCK)), lanes.load(of(l).add(i * GROUP)), sum);
        }
        for j in 0..i {
            for l in 0..=K {
                let tap = lanes.load(taps.add(l * BLOCK + (i - j) * GROUP));
                sum = lanes.fma(tap, lanes.load(of(l).add(j * GROUP)), sum);
            }
        }
        sum
    }
}

/// Adds to what the modes said of a block of samples what the inputs of the block before say of them.
///
/// # Safety
/// The pointers address AHEAD rows of GROUP, less the lanes skipped, `taps` twice as many.
#[inline(always)]
pub unsafe fn pass_on<L: Lanes>(lanes: L, taps: *const L::E, inputs: *const L::E, said: *mut L::E) {
    let mut sums = [lanes.splat(L::E::ZERO); AHEAD];
    // SAFETY: as the caller's.
    unsafe {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = lanes.load(said.add(i * GROUP));
        }
        for j in 0..AHEAD {
            let input = lanes.load(inputs.add(j * GROUP));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = lanes.fma(lanes.load(taps.add((AHEAD + i - j) * GROUP)), input, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            lanes.store(said.add(i * GROUP), sum);
        }
    }
}

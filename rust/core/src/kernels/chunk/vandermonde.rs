//! The impulse response of a diagonal system, K\[l\] = sum_n Re(c_n a_n^l): a Vandermonde product.
//!
//! With l = T i + j it is a product of two small matrices, of c_n a_n^j and of the states a_n^(T i). The first stays
//! in the L1 cache for all i; vectors run along j, which is the order of the result.

use super::matrices::WIDE;
use crate::kernels::{Aligned, GROUP, Isa, Kernel, Lanes, padded};
use num_complex::Complex64;

/// T, the samples of a block
const SAMPLES: usize = 64;

/// Memory for one product after the other, of `modes` modes each.
#[derive(Debug)]
pub struct Vandermonde {
    modes: usize,
    /// Re(c a^j) and -Im(c a^j) for j < T, of each mode.
    powers: Aligned<f64>,
    /// Real parts, then imaginary ones, for a number of modes padded to whole vectors: a^T, and the states before
    /// WIDE blocks and after the last.
    leap: Aligned<f64>,
    states: Aligned<f64>,
    /// The samples of WIDE blocks.
    samples: Aligned<f64>,
}

impl Vandermonde {
    /// For systems of so many modes.
    pub fn new(modes: usize) -> Self {
        let row = 2 * padded(modes);
        Self {
            modes,
            powers: Aligned::zeros(modes * 2 * SAMPLES),
            leap: Aligned::zeros(row),
            states: Aligned::zeros((WIDE + 1) * row),
            samples: Aligned::zeros(WIDE * SAMPLES),
        }
    }

    /// Writes all of `kernel`; `mode(n)` gives (a, c).
    pub fn run(&mut self, isa: Isa, mode: impl Fn(usize) -> (Complex64, Complex64), kernel: &mut [f64]) {
        isa.run(Run { product: self, mode, kernel });
    }
}

struct Run<'a, F> {
    product: &'a mut Vandermonde,
    mode: F,
    kernel: &'a mut [f64],
}

impl<F: Fn(usize) -> (Complex64, Complex64)> Kernel<f64> for Run<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = f64>>(self, lanes: L) {
        let Self { product: p, mode, kernel } = self;
        let half = padded(p.modes);
        for n in 0..p.modes {
            let (a, c) = mode(n);
            let powers = &mut p.powers[n * 2 * SAMPLES..][..2 * SAMPLES];
            let leap = fill(lanes, a, c, powers);
            (p.leap[n], p.leap[half + n]) = (leap.re, leap.im);
            (p.states[n], p.states[half + n]) = (1.0, 0.0);
        }
        for kernel in kernel.chunks_mut(WIDE * SAMPLES) {
            let blocks = kernel.len().div_ceil(SAMPLES);
            let wide = Blocks {
                lanes,
                modes: p.modes,
                powers: p.powers.as_ptr(),
                leap: p.leap.as_ptr(),
                states: p.states.as_mut_ptr(),
                samples: p.samples.as_mut_ptr(),
            };
            // SAFETY: `Vandermonde::new` made memory for so many modes and WIDE blocks, and there are at most WIDE.
            unsafe {
                wide.block_states(blocks);
                if L::REGISTERS >= 32 { wide.product::<4>(blocks) } else { wide.product::<2>(blocks) }
            }
            kernel.copy_from_slice(&p.samples[..kernel.len()]);
            p.states.copy_within(blocks * 2 * half..(blocks + 1) * 2 * half, 0);
        }
    }
}

/// Writes c times the powers of `a`, and returns a^T.
#[inline(always)]
fn fill<L: Lanes<E = f64>>(lanes: L, a: Complex64, c: Complex64, powers: &mut [f64]) -> Complex64 {
    let mut read = c;
    let mut first = [Complex64::ZERO; GROUP];
    for z in &mut first[..L::LANES] {
        *z = read;
        read *= a;
    }
    let mut leap = a;
    for _ in 0..L::LANES.ilog2() {
        leap *= leap;
    }
    let (step_re, step_im) = (lanes.splat(leap.re), lanes.splat(leap.im));
    // From here on the imaginary part is -Im, the conjugate's.
    let (mut re, mut im) = (lanes.by_lane(|l| first[l].re), lanes.by_lane(|l| -first[l].im));
    let (to_re, to_im) = powers.split_at_mut(SAMPLES);
    for (to_re, to_im) in to_re.chunks_exact_mut(L::LANES).zip(to_im.chunks_exact_mut(L::LANES)) {
        // SAFETY: both chunks are LANES elements.
        unsafe {
            lanes.store(to_re.as_mut_ptr(), re);
            lanes.store(to_im.as_mut_ptr(), im);
        }
        let next = lanes.fma(step_re, re, lanes.mul(step_im, im));
        im = lanes.nfma(step_im, re, lanes.mul(step_re, im));
        re = next;
    }
    for _ in L::LANES.ilog2()..SAMPLES.ilog2() {
        leap *= leap;
    }
    leap
}

/// Up to WIDE blocks of one system.
struct Blocks<L> {
    lanes: L,
    modes: usize,
    powers: *const f64,
    leap: *const f64,
    states: *mut f64,
    samples: *mut f64,
}

impl<L: Lanes<E = f64>> Blocks<L> {
    /// The states before each block and after the last.
    ///
    /// # Safety
    /// The pointers address the arrays of a [`Vandermonde`] for `modes` modes; there are at most WIDE blocks.
    #[inline(always)]
    unsafe fn block_states(&self, blocks: usize) {
        let (lanes, half) = (self.lanes, padded(self.modes));
        for n in (0..half).step_by(L::LANES) {
            // SAFETY: n < half, which is whole vectors; there are WIDE + 1 states, each of two halves.
            unsafe {
                let (leap_re, leap_im) = (lanes.load(self.leap.add(n)), lanes.load(self.leap.add(half + n)));
                let (mut re, mut im) = (lanes.load(self.states.add(n)), lanes.load(self.states.add(half + n)));
                for block in 1..=blocks {
                    let next = lanes.nfma(leap_im, im, lanes.mul(leap_re, re));
                    im = lanes.flush(lanes.fma(leap_im, re, lanes.mul(leap_re, im)));
                    re = lanes.flush(next);
                    let to = self.states.add(block * 2 * half + n);
                    lanes.store(to, re);
                    lanes.store(to.add(half), im);
                }
            }
        }
    }

    /// The samples of all blocks, V vectors at once.
    ///
    /// # Safety
    /// As for [`Blocks::block_states`], by which the states are there.
    #[inline(always)]
    unsafe fn product<const V: usize>(&self, blocks: usize) {
        // SAFETY: row + V vectors is at most SAMPLES, and C is `blocks`.
        unsafe {
            compiled_for!(blocks, C, for row in (0..SAMPLES).step_by(V * L::LANES) {
                self.tile::<V, C>(row);
            }, 1 2 3 4 5 6);
        }
    }

    /// V vectors from `row` on of the samples of C blocks.
    ///
    /// # Safety
    /// As for [`Blocks::product`]; row + V vectors is at most SAMPLES, and C at most WIDE.
    #[inline(always)]
    unsafe fn tile<const V: usize, const C: usize>(&self, row: usize) {
        let (lanes, half) = (self.lanes, padded(self.modes));
        let mut sums = [[lanes.splat(0.0); V]; C];
        // SAFETY: mode n < modes has two rows of SAMPLES powers, and each of WIDE blocks a state of two halves.
        unsafe {
            for n in 0..self.modes {
                for part in 0..2 {
                    let powers = self.powers.add((n * 2 + part) * SAMPLES + row);
                    let mut column = [lanes.splat(0.0); V];
                    for (v, entry) in column.iter_mut().enumerate() {
                        *entry = lanes.load(powers.add(v * L::LANES));
                    }
                    for (c, sums) in sums.iter_mut().enumerate() {
                        let x = lanes.splat(*self.states.add((c * 2 + part) * half + n));
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = lanes.fma(column[v], x, *sum);
                        }
                    }
                }
            }
            for (c, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    lanes.store(self.samples.add(c * SAMPLES + row + v * L::LANES), sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vandermonde_is_the_sum_of_powers(
            modes in prop::collection::vec((0.0..1.0f64, -3.1..3.1f64, -1.0..1.0f64, -1.0..1.0f64), 1..40),
            length in 1..1000usize,
        ) {
            let mode = |n: usize| {
                let (modulus, angle, re, im): (f64, f64, f64, f64) = modes[n];
                (Complex64::from_polar(modulus, angle), Complex64::new(re, im))
            };
            for isa in Isa::all() {
                let mut kernel = vec![f64::NAN; length];
                let mut product = Vandermonde::new(modes.len());
                for _ in 0..2 {
                    product.run(isa, mode, &mut kernel);
                }
                for (l, k) in kernel.iter().enumerate() {
                    let sum: f64 = (0..modes.len()).map(|n| (mode(n).1 * mode(n).0.powu(l as u32)).re).sum();
                    assert!((k - sum).abs() < 1e-13 * modes.len() as f64, "{}: {l}: {k} {sum}", isa.name());
                }
            }
        }
    }
}

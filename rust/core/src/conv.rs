//! Causal convolution by FFT, in float64 for either precision: a transform's error is relative to the loudest sample.

use crate::error::Result;
use crate::kernels::aligned::fits;
use crate::shared::Shared;
use crate::threads::Team;
use num_complex::Complex64;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// y\[t\] = sum over j <= t of k\[j\] u\[t-j\], for sequences and kernels up to a length.
pub struct CausalConv {
    len: usize,
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
}

impl std::fmt::Debug for CausalConv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CausalConv").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Scratch memory of one convolution at a time.
pub struct ConvScratch {
    time: Vec<f64>,
    spectrum: Vec<Complex64>,
    fft: Vec<Complex64>,
}

/// The spectrum of a kernel, scaled for the unnormalised inverse.
#[derive(Clone, Debug)]
pub struct Spectrum(Vec<Complex64>);

impl CausalConv {
    /// For sequences of up to `len` samples.
    pub fn new(len: usize) -> Self {
        // A product of small primes not below 2 len - 1, so that the convolution does not wrap around.
        let size = fast_size((2 * len).max(2));
        let mut planner = RealFftPlanner::new();
        Self { len: size, forward: planner.plan_fft_forward(size), inverse: planner.plan_fft_inverse(size) }
    }

    /// Scratch memory for one thread.
    pub fn scratch(&self) -> ConvScratch {
        let fft = self.forward.get_scratch_len().max(self.inverse.get_scratch_len());
        ConvScratch {
            time: vec![0.0; self.len],
            spectrum: self.forward.make_output_vec(),
            fft: vec![Complex64::ZERO; fft],
        }
    }

    /// The spectrum of `k`.
    pub fn spectrum(&self, k: impl IntoIterator<Item = f64>, scratch: &mut ConvScratch) -> Spectrum {
        self.transform(k, scratch);
        let scale = 1.0 / self.len as f64;
        Spectrum(scratch.spectrum.iter().map(|z| z * scale).collect())
    }

    /// The convolution of `u` with the kernel, from its first sample on; as many as `u` has samples are valid.
    pub fn run<'a>(
        &self,
        u: impl IntoIterator<Item = f64>,
        kernel: &Spectrum,
        scratch: &'a mut ConvScratch,
    ) -> &'a [f64] {
        self.transform(u, scratch);
        for (z, k) in scratch.spectrum.iter_mut().zip(&kernel.0) {
            *z *= *k;
        }
        // The spectrum of a real sequence is real at both ends. Rounding may differ from that, which the inverse
        // refuses.
        scratch.spectrum[0].im = 0.0;
        if self.len.is_multiple_of(2) {
            scratch.spectrum[self.len / 2].im = 0.0;
        }
        self.inverse
            .process_with_scratch(&mut scratch.spectrum, &mut scratch.time, &mut scratch.fft)
            .expect("lengths were planned");
        &scratch.time
    }

    fn transform(&self, u: impl IntoIterator<Item = f64>, scratch: &mut ConvScratch) {
        let mut n = 0;
        for (t, u) in scratch.time.iter_mut().zip(u) {
            *t = u;
            n += 1;
        }
        scratch.time[n..].fill(0.0);
        self.forward
            .process_with_scratch(&mut scratch.time, &mut scratch.spectrum, &mut scratch.fft)
            .expect("lengths were planned");
    }
}

/// float64 numbers a sample that planning a convolution and running it on so many threads takes, at most: each transform is of
/// twice the length, rounded up by a quarter at most, and a thread holds the samples, two spectra and as much scratch again.
fn numbers_a_sample(threads: usize) -> usize {
    (threads + 1) * 5 * 5 / 2
}

/// The causal convolution of every row of `u` (rows, length) with the same row of `k`, in float64 by FFT:
/// y\[t\] = sum over j <= t of k\[j\] u\[t-j\].
///
/// # Errors
/// [`Error::Memory`](crate::Error::Memory)
///
/// # Panics
/// Where `u` and `k` are not equally long, or not whole rows.
pub fn causal_conv(team: &Team, length: usize, u: &[f64], k: &[f64]) -> Result<Vec<f64>> {
    assert!(u.len() == k.len() && u.len() == u.len() / length.max(1) * length, "whole rows of u and k");
    fits::<f64>("length", length, u.len() / length.max(1) + numbers_a_sample(team.size()))?;
    let mut y = vec![0.0; u.len()];
    if length == 0 {
        return Ok(y);
    }
    let conv = CausalConv::new(length);
    let out = Shared::new(y.as_mut_ptr());
    team.each(u.len() / length, |_, i| {
        let row = i * length..(i + 1) * length;
        let mut scratch = conv.scratch();
        let kernel = conv.spectrum(k[row.clone()].iter().copied(), &mut scratch);
        let convolved = conv.run(u[row.clone()].iter().copied(), &kernel, &mut scratch);
        // SAFETY: row i of y is item i's alone, and `y` outlives the call.
        unsafe { out.part(row.start, length) }.copy_from_slice(&convolved[..length]);
    });
    Ok(y)
}

/// The smallest even 2^a 3^b 5^c that is at least `n`.
fn fast_size(n: usize) -> usize {
    let mut best = n.next_power_of_two();
    let mut five = 1;
    while five < best {
        let mut three = five;
        while three < best {
            let two = n.div_ceil(three).next_power_of_two().max(2);
            best = best.min(three * two);
            three *= 3;
        }
        five *= 5;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_sizes_are_smooth_and_enough() {
        for n in 2..3000 {
            let size = fast_size(n);
            assert!(size >= n && size.is_multiple_of(2));
            let mut rest = size;
            for p in [2, 3, 5] {
                while rest.is_multiple_of(p) {
                    rest /= p;
                }
            }
            assert_eq!(rest, 1);
        }
    }

    #[test]
    fn fft_is_the_sum() {
        for len in [1, 2, 7, 100] {
            let u: Vec<f64> = (0..len).map(|i| ((i * i + 3) as f64).sin()).collect();
            let k: Vec<f64> = (0..len).map(|i| 0.9_f64.powi(i as i32)).collect();
            let conv = CausalConv::new(len);
            let mut scratch = conv.scratch();
            let kernel = conv.spectrum(k.iter().copied(), &mut scratch);
            let y = conv.run(u.iter().copied(), &kernel, &mut scratch);
            for t in 0..len {
                let sum: f64 = (0..=t).map(|j| k[j] * u[t - j]).sum();
                assert!((y[t] - sum).abs() < 1e-13);
            }
        }
    }
}

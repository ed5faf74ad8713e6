//! Causal convolution by FFT of a group of channels, one a lane.
//!
//! Complex polynomials modulo x^M - i hold the real ones modulo x^2M + 1: a coefficient from M on is the imaginary part of
//! the one M before it. So two real sequences of up to M samples are multiplied without padding, and the real parts are the
//! convolution's first M samples. The polynomials are evaluated at the roots of x^M = i, in float64: a transform's error is
//! relative to the loudest sample of all.

use super::{Aligned, GROUP, Isa, Kernel, Lanes};
use std::f64::consts::PI;

/// Real and imaginary part.
type Turn = [f64; 2];

/// exp(i pi x)
fn turn(x: f64) -> Turn {
    let (sin, cos) = (x * PI).sin_cos();
    [cos, sin]
}

/// Parts of the first pass.
const MOST_PARTS: usize = 16;

/// Passes to parts of a quarter, of sequences as long as addresses reach.
const MOST_LEVELS: u32 = 24;

/// Transforms of one length M = r 4^k, decimated in frequency: parts of r and then 4, each of which is done before the next
/// begins, so that small ones stay in the L1 cache. Spectra are in the order that this leaves them in.
#[derive(Debug)]
pub struct Fft {
    samples: usize,
    /// r, the parts of the first pass, which reads real numbers and whose mirror image writes them.
    first: usize,
    /// (r, r / 2): of part q, what samples s M / r and M - s M / r are multiplied by, for s from 1 on: cosine and sine,
    /// added up and subtracted.
    corners: Vec<[f64; 2]>,
    /// (M / r, r): what sample j of part q is multiplied by.
    turns: Vec<Turn>,
    /// Of parts of M / r, M / 4 r ... 16 samples: for a quarter of them what sample j of parts 1 to 3 is multiplied by.
    levels: Vec<Vec<[Turn; 3]>>,
}

/// The spectra of a group's lanes, scaled for the unnormalised inverse.
#[derive(Debug)]
pub struct Spectra(Aligned<f64>);

impl Fft {
    /// For sequences of up to `length` samples.
    pub fn new(length: usize) -> Self {
        let (first, quarters) = Self::sizes(length);
        let part = 1 << (2 * quarters);
        let samples = first * part;
        let corner = |q: usize, s: usize| {
            let [cos, sin] = turn((s * (1 + 4 * q)) as f64 / (2 * first) as f64);
            // Half way they are the same number.
            [cos + sin, if 2 * s == first { 0.0 } else { cos - sin }]
        };
        let level = |k: u32| {
            let n = 1usize << (2 * k);
            (0..n / 4).map(|j| std::array::from_fn(|q| turn(2.0 * (j * (q + 1)) as f64 / n as f64))).collect()
        };
        Self {
            samples,
            first,
            corners: (0..first).flat_map(|q| (1..=first / 2).map(move |s| corner(q, s))).collect(),
            turns: (0..part)
                .flat_map(|j| (0..first).map(move |q| turn((j * (1 + 4 * q)) as f64 / (2 * samples) as f64)))
                .collect(),
            levels: (2..=quarters).rev().map(level).collect(),
        }
    }

    /// r and k of the cheapest r 4^k that is at least `length`.
    fn sizes(length: usize) -> (usize, u32) {
        let fitting = |k: u32| (length.div_ceil(1 << (2 * k)).max(4), k);
        // Multiply-adds a sample: of the first pass and of the others, there and back.
        let cost = |&(r, k): &(usize, u32)| (r << (2 * k)) * (2 * r + 14 * k as usize);
        (1..=MOST_LEVELS).map(fitting).filter(|&(r, _)| r <= MOST_PARTS).min_by_key(cost).expect("there are some")
    }

    /// M: rows that an array has room for.
    pub fn rows(&self) -> usize {
        self.samples
    }

    /// Whether these are the transforms for sequences of up to `length` samples.
    pub fn is_for(&self, length: usize) -> bool {
        let (first, quarters) = Self::sizes(length);
        self.samples == first << (2 * quarters)
    }

    /// The spectra of kernels in the first `lanes` lanes of `kernels`, [`Fft::rows`] rows of a group. `work` is as large.
    pub fn spectra(&self, isa: Isa, lanes: usize, kernels: &mut [f64], work: &mut [f64]) -> Spectra {
        let mut spectra = Aligned::zeros(2 * self.samples * lanes.next_multiple_of(GROUP / 2));
        isa.run(Pass { fft: self, lanes, rows: kernels, work, measure: Some(&mut spectra), spectra: &[] });
        Spectra(spectra)
    }

    /// Convolves the first `lanes` lanes of `rows`, as of [`Fft::spectra`], with their kernels. `work` is as large.
    pub fn convolve(&self, isa: Isa, lanes: usize, rows: &mut [f64], spectra: &Spectra, work: &mut [f64]) {
        isa.run(Pass { fft: self, lanes, rows, work, measure: None, spectra: &spectra.0 });
    }
}

/// float64 numbers a sample that convolutions of so many outputs by so many threads take, at most: a transform is longer than
/// the sequence by a third at most, a thread has five arrays for a group's lanes, and each output a kernel and its spectrum.
pub fn numbers_a_sample(threads: usize, outputs: usize) -> usize {
    (threads * 5 * GROUP + 3 * outputs) * 4 / 3
}

struct Pass<'a> {
    fft: &'a Fft,
    lanes: usize,
    rows: &'a mut [f64],
    work: &'a mut [f64],
    measure: Option<&'a mut [f64]>,
    spectra: &'a [f64],
}

impl Kernel<f64> for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = f64>>(self, lanes: L) {
        let Pass { fft, lanes: used, rows, work, mut measure, spectra } = self;
        let len = 2 * fft.samples * L::LANES;
        assert!(2 * L::LANES <= GROUP && used <= GROUP, "a vector is half a group at most");
        assert!(rows.len() == fft.samples * GROUP && work.len() == rows.len(), "whole rows");
        for (i, lane) in (0..used).step_by(L::LANES).enumerate() {
            // SAFETY: each of the M rows has a vector from `lane` on, and `work`, of GROUP M numbers, has room for M complex vectors.
            unsafe {
                let (u, z) = (rows.as_mut_ptr().add(lane), work.as_mut_ptr());
                fft.split(lanes, u, z);
                if let Some(measure) = &mut measure {
                    fft.parts::<L, true>(lanes, z, std::ptr::null());
                    // The first pass and its mirror image double, of the kernel, the input and the answer.
                    let scale = 1.0 / (8 * fft.samples) as f64;
                    for (to, &z) in measure[i * len..][..len].iter_mut().zip(&work[..len]) {
                        *to = z * scale;
                    }
                } else {
                    fft.parts::<L, false>(lanes, z, spectra[i * len..][..len].as_ptr());
                    fft.join(lanes, z, u);
                }
            }
        }
    }
}

impl Fft {
    /// The first pass: M real vectors, a row of a group apart, to r parts of M / r complex ones, twice as large.
    ///
    /// Samples s M / r and M - s M / r are multiplied by c and by i c*, with c = exp(i pi s (1 + 4 q) / 2r): so the sum of real
    /// and imaginary part needs the sum of both alone, and the difference the difference.
    #[inline(always)]
    unsafe fn split<L: Lanes<E = f64>>(&self, lanes: L, u: *const f64, z: *mut f64) {
        let (r, part) = (self.first, self.samples / self.first);
        let (folds, pairs) = (r / 2, (r - 1) / 2);
        let (mut sums, mut differences) = ([lanes.splat(0.0); MOST_PARTS / 2], [lanes.splat(0.0); MOST_PARTS / 2]);
        for j in 0..part {
            // SAFETY: row j + s M / r is below M for all s < r.
            unsafe {
                for s in 0..pairs {
                    let before = lanes.load(u.add((j + (s + 1) * part) * GROUP));
                    let after = lanes.load(u.add((j + (r - 1 - s) * part) * GROUP));
                    sums[s] = lanes.add(before, after);
                    differences[s] = lanes.sub(before, after);
                }
                if folds > pairs {
                    sums[pairs] = lanes.load(u.add((j + folds * part) * GROUP));
                }
                let first = lanes.load(u.add(j * GROUP));
                for q in 0..r {
                    let corners = &self.corners[q * folds..][..folds];
                    let (mut plus, mut minus) = (first, first);
                    for s in 0..folds {
                        plus = lanes.fma(sums[s], lanes.splat(corners[s][0]), plus);
                    }
                    for s in 0..pairs {
                        minus = lanes.fma(differences[s], lanes.splat(corners[s][1]), minus);
                    }
                    let twice = (lanes.add(plus, minus), lanes.sub(plus, minus));
                    store(lanes, z, q * part + j, rotated(lanes, twice, self.turns[j * r + q]));
                }
            }
        }
    }

    /// The mirror image of [`Fft::split`], of which the real parts are left, twice as large.
    #[inline(always)]
    unsafe fn join<L: Lanes<E = f64>>(&self, lanes: L, z: *const f64, y: *mut f64) {
        let (r, part) = (self.first, self.samples / self.first);
        let (folds, pairs) = (r / 2, (r - 1) / 2);
        let (mut plus, mut minus) = ([lanes.splat(0.0); MOST_PARTS], [lanes.splat(0.0); MOST_PARTS]);
        for j in 0..part {
            // SAFETY: sample j of part q is one of M, and row j + s M / r too, for all q and s < r.
            unsafe {
                let mut first = lanes.splat(0.0);
                for q in 0..r {
                    let (re, im) = rotated_back(lanes, load(lanes, z, q * part + j), self.turns[j * r + q]);
                    first = lanes.add(first, re);
                    plus[q] = lanes.add(re, im);
                    minus[q] = lanes.sub(re, im);
                }
                lanes.store(y.add(j * GROUP), lanes.add(first, first));
                for s in 0..folds {
                    let (mut sum, mut difference) = (lanes.splat(0.0), lanes.splat(0.0));
                    for q in 0..r {
                        let [of_sum, of_difference] = self.corners[q * folds + s];
                        sum = lanes.fma(plus[q], lanes.splat(of_sum), sum);
                        difference = lanes.fma(minus[q], lanes.splat(of_difference), difference);
                    }
                    lanes.store(y.add((j + (s + 1) * part) * GROUP), lanes.add(sum, difference));
                    if s < pairs {
                        lanes.store(y.add((j + (r - 1 - s) * part) * GROUP), lanes.sub(sum, difference));
                    }
                }
            }
        }
    }

    /// All other passes, and between them and their mirror images the product with the spectra; where they are measured the
    /// passes alone.
    #[inline(always)]
    unsafe fn parts<L: Lanes<E = f64>, const MEASURED: bool>(&self, lanes: L, z: *mut f64, spectra: *const f64) {
        let part = self.samples / self.first;
        // Four samples after four others. Before them come the passes of all parts that begin with them, and after them
        // those of all that end with them.
        for at in (0..self.samples).step_by(4) {
            let within = at % part;
            for (level, turns) in self.levels.iter().enumerate() {
                let n = part >> (2 * level);
                if within.is_multiple_of(n) {
                    // SAFETY: the n samples from `at` on are some of M.
                    unsafe { split4(lanes, z.add(2 * at * L::LANES), turns) };
                }
            }
            // SAFETY: the four samples from `at` on, and their spectra, are some of M.
            unsafe {
                let z = z.add(2 * at * L::LANES);
                let mut of = butterfly::<L, false>(lanes, load4(lanes, z, 1));
                if !MEASURED {
                    let of_kernel = load4(lanes, spectra.add(2 * at * L::LANES), 1);
                    for i in 0..4 {
                        of[i] = product(lanes, of[i], of_kernel[i]);
                    }
                    of = butterfly::<L, true>(lanes, of);
                }
                store4(lanes, z, 1, of);
            }
            if MEASURED {
                continue;
            }
            for (level, turns) in self.levels.iter().enumerate().rev() {
                let n = part >> (2 * level);
                if (within + 4).is_multiple_of(n) {
                    // SAFETY: the n samples up to these are some of M.
                    unsafe { join4(lanes, z.add(2 * (at + 4 - n) * L::LANES), turns) };
                }
            }
        }
    }
}

type Complex<L> = (<L as Lanes>::V, <L as Lanes>::V);

#[inline(always)]
unsafe fn load<L: Lanes<E = f64>>(lanes: L, z: *const f64, i: usize) -> Complex<L> {
    // SAFETY: the caller's complex vector i.
    unsafe { (lanes.load(z.add(2 * i * L::LANES)), lanes.load(z.add((2 * i + 1) * L::LANES))) }
}

#[inline(always)]
unsafe fn store<L: Lanes<E = f64>>(lanes: L, z: *mut f64, i: usize, (re, im): Complex<L>) {
    // SAFETY: the caller's complex vector i.
    unsafe {
        lanes.store(z.add(2 * i * L::LANES), re);
        lanes.store(z.add((2 * i + 1) * L::LANES), im);
    }
}

#[inline(always)]
fn product<L: Lanes<E = f64>>(lanes: L, (re, im): Complex<L>, (cos, sin): Complex<L>) -> Complex<L> {
    (lanes.nfma(im, sin, lanes.mul(re, cos)), lanes.fma(im, cos, lanes.mul(re, sin)))
}

#[inline(always)]
fn rotated<L: Lanes<E = f64>>(lanes: L, z: Complex<L>, [cos, sin]: Turn) -> Complex<L> {
    product(lanes, z, (lanes.splat(cos), lanes.splat(sin)))
}

#[inline(always)]
fn rotated_back<L: Lanes<E = f64>>(lanes: L, z: Complex<L>, [cos, sin]: Turn) -> Complex<L> {
    product(lanes, z, (lanes.splat(cos), lanes.splat(-sin)))
}

#[inline(always)]
fn sum<L: Lanes<E = f64>>(lanes: L, x: Complex<L>, y: Complex<L>) -> Complex<L> {
    (lanes.add(x.0, y.0), lanes.add(x.1, y.1))
}

#[inline(always)]
fn difference<L: Lanes<E = f64>>(lanes: L, x: Complex<L>, y: Complex<L>) -> Complex<L> {
    (lanes.sub(x.0, y.0), lanes.sub(x.1, y.1))
}

/// The four sums of four numbers times powers of i, or of -i.
#[inline(always)]
fn butterfly<L: Lanes<E = f64>, const BACK: bool>(lanes: L, [a, b, c, d]: [Complex<L>; 4]) -> [Complex<L>; 4] {
    let (even, odd) = (sum(lanes, a, c), sum(lanes, b, d));
    let (of_even, of_odd) = (difference(lanes, a, c), difference(lanes, b, d));
    let plus = (lanes.sub(of_even.0, of_odd.1), lanes.add(of_even.1, of_odd.0));
    let minus = (lanes.add(of_even.0, of_odd.1), lanes.sub(of_even.1, of_odd.0));
    let (first, third) = if BACK { (minus, plus) } else { (plus, minus) };
    [sum(lanes, even, odd), first, difference(lanes, even, odd), third]
}

/// Four complex vectors, `h` apart.
#[inline(always)]
unsafe fn load4<L: Lanes<E = f64>>(lanes: L, z: *const f64, h: usize) -> [Complex<L>; 4] {
    // SAFETY: the caller's.
    unsafe { [load(lanes, z, 0), load(lanes, z, h), load(lanes, z, 2 * h), load(lanes, z, 3 * h)] }
}

/// As [`load4`].
#[inline(always)]
unsafe fn store4<L: Lanes<E = f64>>(lanes: L, z: *mut f64, h: usize, [a, b, c, d]: [Complex<L>; 4]) {
    // SAFETY: the caller's.
    unsafe {
        store(lanes, z, 0, a);
        store(lanes, z, h, b);
        store(lanes, z, 2 * h, c);
        store(lanes, z, 3 * h, d);
    }
}

/// n samples, of which there are turns for a quarter, to four parts of n / 4.
#[inline(always)]
unsafe fn split4<L: Lanes<E = f64>>(lanes: L, z: *mut f64, turns: &[[Turn; 3]]) {
    let h = turns.len();
    for j in 0..h {
        let [one, two, three] = turns[j];
        // SAFETY: the caller has 4 h samples there.
        unsafe {
            let z = z.add(2 * j * L::LANES);
            let [a, b, c, d] = butterfly::<L, false>(lanes, load4(lanes, z, h));
            let (b, c, d) = (rotated(lanes, b, one), rotated(lanes, c, two), rotated(lanes, d, three));
            store4(lanes, z, h, [a, b, c, d]);
        }
    }
}

/// The mirror image of [`split4`].
#[inline(always)]
unsafe fn join4<L: Lanes<E = f64>>(lanes: L, z: *mut f64, turns: &[[Turn; 3]]) {
    let h = turns.len();
    for j in 0..h {
        let [one, two, three] = turns[j];
        // SAFETY: the caller has 4 h samples there.
        unsafe {
            let z = z.add(2 * j * L::LANES);
            let [a, b, c, d] = load4(lanes, z, h);
            let (b, c, d) = (rotated_back(lanes, b, one), rotated_back(lanes, c, two), rotated_back(lanes, d, three));
            store4(lanes, z, h, butterfly::<L, true>(lanes, [a, b, c, d]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| (((i * 7919 + seed * 31) % 1013) as f64 * 0.37).sin()).collect()
    }

    fn check(length: usize, lanes: usize) {
        let (kernels, u) = (numbers(length * GROUP, 1), numbers(length * GROUP, 2));
        let exact = |t: usize, lane: usize| -> f64 {
            (0..=t).map(|s| kernels[s * GROUP + lane] * u[(t - s) * GROUP + lane]).sum()
        };
        let fft = Fft::new(length);
        assert!(fft.rows() >= length && fft.rows() <= 16.max(length * 4 / 3 + 4));
        let room = || Aligned::<f64>::zeros(fft.rows() * GROUP);
        for isa in Isa::all() {
            let (mut rows, mut work) = (room(), room());
            rows[..kernels.len()].copy_from_slice(&kernels);
            let spectra = fft.spectra(isa, lanes, &mut rows, &mut work);
            rows.fill(0.0);
            rows[..u.len()].copy_from_slice(&u);
            fft.convolve(isa, lanes, &mut rows, &spectra, &mut work);
            for t in [0, 1, length / 3, length / 2, length - 1] {
                for lane in 0..lanes {
                    let error = (rows[t.min(length - 1) * GROUP + lane] - exact(t.min(length - 1), lane)).abs();
                    assert!(error < 1e-13 * length as f64, "{} {length} {t} {lane}: {error}", isa.name());
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn products_of_spectra_are_convolutions(length in 1usize..3000, lanes in 1usize..=GROUP) {
            check(length, lanes);
        }
    }

    #[test]
    fn lengths_are_products_of_four_and_one_other() {
        for (length, samples) in
            [(1, 16), (16, 16), (17, 20), (1024, 1024), (5000, 5120), (16000, 16384), (65536, 65536)]
        {
            assert_eq!(Fft::new(length).rows(), samples, "{length}");
        }
    }
}

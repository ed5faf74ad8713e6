//! Normalisation over the channels of a row, residual sums and products of two branches.

use super::layout::holds;
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};

named! {
    /// Which normalisation, by its name in a Document.
    pub enum NormKind {
        /// (x - mean + shift) / sqrt(var + eps) * weight + bias, var biased.
        Layer = "layer",
        /// x / sqrt(mean(x^2) + eps) * weight + bias
        Rms = "rms",
        /// x * weight + bias
        Affine = "affine",
    }
}

/// A normalisation of rows of `d` channels.
///
/// A mean far above the deviations costs no accuracy: deviations are from the rounded mean, and corrected by its
/// rounding error afterwards.
#[derive(Debug)]
pub struct Norm<E> {
    kind: NormKind,
    d: usize,
    /// Channels that are normalised together; divides d.
    size: usize,
    per_channel: f64,
    eps: f64,
    shift: f64,
    weight: Aligned<E>,
    bias: Aligned<E>,
    /// For the last group of a run: 1 for its channels, 0 for its padding.
    mask: [E; GROUP],
}

/// Rows whose statistics are computed side by side, because each is a chain of dependent operations.
const ROWS: usize = 8;

/// Scale and offsets of one row: y = ((x - center) scale + offset) weight + bias.
#[derive(Clone, Copy)]
struct Line<E> {
    center: E,
    scale: E,
    offset: E,
}

impl<E: Elem> Norm<E> {
    /// From `weight` and `bias`, (d,); by default 1 and 0.
    ///
    /// # Panics
    /// Where they have another length.
    pub fn new(kind: NormKind, d: usize, weight: Option<&[f64]>, bias: Option<&[f64]>, eps: f64, shift: f64) -> Self {
        let row = |values: Option<&[f64]>, default: f64| {
            assert!(values.is_none_or(|v| v.len() == d), "expected {d} weights and biases");
            (0..padded(d)).map(|i| E::of(if i < d { values.map_or(default, |v| v[i]) } else { 0.0 })).collect()
        };
        let (weight, bias) = (row(weight, 1.0), row(bias, 0.0));
        let whole = Self { kind, d, size: d, per_channel: 0.0, eps, shift, weight, bias, mask: [E::ZERO; GROUP] };
        whole.over_runs(d)
    }

    /// The same, over each run of `size` channels by itself.
    ///
    /// # Panics
    /// Where they do not divide a row.
    pub fn over_runs(self, size: usize) -> Self {
        assert!(size > 0 && self.d.is_multiple_of(size), "expected runs that divide {} channels", self.d);
        let tail = size - size / GROUP * GROUP;
        let mask = std::array::from_fn(|i| if i < tail { E::ONE } else { E::ZERO });
        Self { size, per_channel: 1.0 / size as f64, mask, ..self }
    }

    /// `rows` rows of x into rows of y (stride `padded(d)`).
    pub fn run(&self, isa: Isa, rows: usize, x: &[E], y: &mut [E]) {
        let stride = padded(self.d);
        assert!(holds(x.len(), rows, stride) && holds(y.len(), rows, stride));
        isa.run(NormKernel { norm: self, rows, x: x.as_ptr(), y: y.as_mut_ptr() });
    }

    /// As [`Norm::run`], in place.
    pub fn run_in_place(&self, isa: Isa, rows: usize, y: &mut [E]) {
        assert!(holds(y.len(), rows, padded(self.d)));
        isa.run(NormKernel { norm: self, rows, x: y.as_ptr(), y: y.as_mut_ptr() });
    }

    /// Up to [`ROWS`] rows.
    ///
    /// # Safety
    /// `x` addresses `rows` rows of padded(d) elements to read and `y` as many to write; `x` may be `y`.
    #[inline(always)]
    unsafe fn rows<L: Lanes<E = E>>(&self, lanes: L, rows: usize, x: *const E, y: *mut E) {
        // SAFETY: the runs are within the caller's rows; those within vectors are read and written as single elements.
        unsafe {
            if self.size < self.d && !self.size.is_multiple_of(GROUP) {
                for row in (0..rows).map(|r| r * padded(self.d)) {
                    for run in (0..self.d).step_by(self.size) {
                        self.short_run(run, x.add(row), y.add(row));
                    }
                    for i in self.d..padded(self.d) {
                        *y.add(row + i) = E::ZERO;
                    }
                }
            } else {
                for run in (0..self.d).step_by(self.size) {
                    self.run_of_rows(lanes, rows, run, x.add(run), y.add(run));
                }
            }
        }
    }

    /// The run from channel `run` on, within a row that `x` and `y` address; it need not be whole vectors.
    ///
    /// # Safety
    /// As for one row of [`Norm::rows`].
    unsafe fn short_run(&self, run: usize, x: *const E, y: *mut E) {
        let channels = run..run + self.size;
        // SAFETY: the run is within the row.
        let read = |i: usize| unsafe { *x.add(i) }.f64();
        let mean = |f: &dyn Fn(f64) -> f64| channels.clone().map(|i| f(read(i))).sum::<f64>() * self.per_channel;
        let (center, scale) = match self.kind {
            NormKind::Layer => {
                let center = mean(&|x| x);
                (center - self.shift, 1.0 / (mean(&|x| (x - center) * (x - center)) + self.eps).sqrt())
            }
            NormKind::Rms => (0.0, 1.0 / (mean(&|x| x * x) + self.eps).sqrt()),
            NormKind::Affine => (0.0, 1.0),
        };
        for i in channels.clone() {
            let value = (read(i) - center) * scale * self.weight[i].f64() + self.bias[i].f64();
            // SAFETY: the run is within the row, and this channel is not read again.
            unsafe { *y.add(i) = E::of(value) };
        }
    }

    /// The run from channel `run` on of up to [`ROWS`] rows, whose first of them `x` and `y` address: whole vectors, or
    /// all of the row.
    ///
    /// # Safety
    /// As for [`Norm::rows`].
    #[inline(always)]
    unsafe fn run_of_rows<L: Lanes<E = E>>(&self, lanes: L, rows: usize, run: usize, x: *const E, y: *mut E) {
        let (stride, per_channel) = (padded(self.d), self.per_channel);
        let mut lines = [Line { center: E::ZERO, scale: E::ONE, offset: E::ZERO }; ROWS];
        // SAFETY: r < rows, so that row r is the caller's.
        unsafe {
            match self.kind {
                NormKind::Layer => {
                    for (r, line) in lines[..rows].iter_mut().enumerate() {
                        let (sum, _) = self.moments(lanes, x.add(r * stride), E::ZERO);
                        line.center = E::of(sum.f64() * per_channel);
                    }
                    for (r, line) in lines[..rows].iter_mut().enumerate() {
                        let (sum, squares) = self.moments(lanes, x.add(r * stride), line.center);
                        let rest = sum.f64() * per_channel;
                        let scale = 1.0 / (squares.f64() * per_channel - rest * rest + self.eps).sqrt();
                        line.scale = E::of(scale);
                        line.offset = E::of((self.shift - rest) * scale);
                    }
                }
                NormKind::Rms => {
                    for (r, line) in lines[..rows].iter_mut().enumerate() {
                        let (_, squares) = self.moments(lanes, x.add(r * stride), E::ZERO);
                        line.scale = E::of(1.0 / (squares.f64() * per_channel + self.eps).sqrt());
                    }
                }
                NormKind::Affine => {}
            }
            for (r, line) in lines[..rows].iter().enumerate() {
                self.write(lanes, *line, run, x.add(r * stride), y.add(r * stride));
            }
        }
    }

    /// Sum and sum of squares of x - center over the channels of a run.
    ///
    /// # Safety
    /// `x` addresses padded(size) elements to read.
    #[inline(always)]
    unsafe fn moments<L: Lanes<E = E>>(&self, lanes: L, x: *const E, center: E) -> (E, E) {
        let whole = self.size / GROUP * GROUP;
        let (zero, center) = (lanes.splat(E::ZERO), lanes.splat(center));
        let (mut sum, mut squares) = (zero, zero);
        for part in (0..GROUP).step_by(L::LANES) {
            // SAFETY: i + LANES and whole + part + LANES are at most padded(size); the mask is a group.
            unsafe {
                let (mut part_sum, mut part_squares) = (zero, zero);
                for i in (part..whole).step_by(GROUP) {
                    let v = lanes.sub(lanes.load(x.add(i)), center);
                    part_sum = lanes.add(part_sum, v);
                    part_squares = lanes.fma(v, v, part_squares);
                }
                if whole < self.size {
                    let v = lanes.sub(lanes.load(x.add(whole + part)), center);
                    let v = lanes.select_gt(lanes.load(self.mask.as_ptr().add(part)), zero, v, zero);
                    part_sum = lanes.add(part_sum, v);
                    part_squares = lanes.fma(v, v, part_squares);
                }
                sum = lanes.add(sum, part_sum);
                squares = lanes.add(squares, part_squares);
            }
        }
        (lanes.sum(sum), lanes.sum(squares))
    }

    /// y of the run from channel `run` on; its padding becomes zero.
    ///
    /// # Safety
    /// `x` addresses padded(size) elements to read, `y` as many to write; `x` may be `y`.
    #[inline(always)]
    unsafe fn write<L: Lanes<E = E>>(&self, lanes: L, line: Line<E>, run: usize, x: *const E, y: *mut E) {
        let whole = self.size / GROUP * GROUP;
        let (weight, bias) = (self.weight[run..].as_ptr(), self.bias[run..].as_ptr());
        let (center, scale, offset) = (lanes.splat(line.center), lanes.splat(line.scale), lanes.splat(line.offset));
        // SAFETY: x, y, weight and bias are padded(size) elements, and i + LANES is at most that; the mask is a group.
        unsafe {
            let at = |i: usize| {
                let v = lanes.fma(lanes.sub(lanes.load(x.add(i)), center), scale, offset);
                lanes.fma(v, lanes.load(weight.add(i)), lanes.load(bias.add(i)))
            };
            for i in (0..whole).step_by(L::LANES) {
                lanes.store(y.add(i), at(i));
            }
            if whole < self.size {
                let zero = lanes.splat(E::ZERO);
                for part in (0..GROUP).step_by(L::LANES) {
                    let mask = lanes.load(self.mask.as_ptr().add(part));
                    lanes.store(y.add(whole + part), lanes.select_gt(mask, zero, at(whole + part), zero));
                }
            }
        }
    }
}

struct NormKernel<'a, E> {
    norm: &'a Norm<E>,
    rows: usize,
    x: *const E,
    y: *mut E,
}

impl<E: Elem> Kernel<E> for NormKernel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let stride = padded(self.norm.d);
        for row in (0..self.rows).step_by(ROWS) {
            // SAFETY: `Norm::run` or `run_in_place` checked that there are `rows` rows.
            unsafe {
                let (x, y) = (self.x.add(row * stride), self.y.add(row * stride));
                self.norm.rows(lanes, ROWS.min(self.rows - row), x, y);
            }
        }
    }
}

/// y = norm(alpha x + beta z) of the skip connection x and the branch z.
#[derive(Debug)]
pub struct Residual<E> {
    d: usize,
    alpha: E,
    beta: Aligned<E>,
    norm: Option<Norm<E>>,
}

impl<E: Elem> Residual<E> {
    /// `beta` is one number or (d,).
    ///
    /// # Panics
    /// Where `beta` has another length, or the norm is over another number of channels.
    pub fn new(d: usize, alpha: f64, beta: &[f64], norm: Option<Norm<E>>) -> Self {
        assert!(beta.len() == 1 || beta.len() == d, "expected 1 or {d} betas");
        assert!(norm.as_ref().is_none_or(|n| n.d == d), "expected a norm over {d} channels");
        let beta = (0..padded(d)).map(|i| E::of(if i < d { beta[i.min(beta.len() - 1)] } else { 0.0 })).collect();
        Self { d, alpha: E::of(alpha), beta, norm }
    }

    /// `rows` rows of x and z into rows of y (stride `padded(d)`).
    pub fn run(&self, isa: Isa, rows: usize, x: &[E], z: &[E], y: &mut [E]) {
        let stride = padded(self.d);
        assert!([x.len(), z.len(), y.len()].into_iter().all(|len| holds(len, rows, stride)));
        isa.run(ResidualKernel { residual: self, rows, x: x.as_ptr(), z: z.as_ptr(), y: y.as_mut_ptr() });
    }

    /// As [`Residual::run`], with y written over z.
    pub fn run_on_branch(&self, isa: Isa, rows: usize, x: &[E], z: &mut [E]) {
        let stride = padded(self.d);
        assert!(holds(x.len(), rows, stride) && holds(z.len(), rows, stride));
        isa.run(ResidualKernel { residual: self, rows, x: x.as_ptr(), z: z.as_ptr(), y: z.as_mut_ptr() });
    }

    /// As [`Residual::run`], with y written over x.
    pub fn run_on_skip(&self, isa: Isa, rows: usize, x: &mut [E], z: &[E]) {
        let stride = padded(self.d);
        assert!(holds(x.len(), rows, stride) && holds(z.len(), rows, stride));
        isa.run(ResidualKernel { residual: self, rows, x: x.as_ptr(), z: z.as_ptr(), y: x.as_mut_ptr() });
    }
}

struct ResidualKernel<'a, E> {
    residual: &'a Residual<E>,
    rows: usize,
    x: *const E,
    z: *const E,
    y: *mut E,
}

impl<E: Elem> Kernel<E> for ResidualKernel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Residual { d, alpha, beta, norm } = self.residual;
        let stride = padded(*d);
        let alpha = lanes.splat(*alpha);
        for first in (0..self.rows).step_by(ROWS) {
            let rows = ROWS.min(self.rows - first);
            // SAFETY: the methods of `Residual` checked that x, z and y have `rows` rows. y may be x or z: each
            // element is read before it is written.
            unsafe {
                for row in first..first + rows {
                    for i in (0..stride).step_by(L::LANES) {
                        let at = row * stride + i;
                        let x = lanes.mul(alpha, lanes.load(self.x.add(at)));
                        let beta = lanes.load(beta.as_ptr().add(i));
                        lanes.store(self.y.add(at), lanes.fma(beta, lanes.load(self.z.add(at)), x));
                    }
                }
                if let Some(norm) = norm {
                    let y = self.y.add(first * stride);
                    norm.rows(lanes, rows, y, y);
                }
            }
        }
    }
}

/// y = a b, element by element, over `rows` rows of `d` channels.
pub fn mul<E: Elem>(isa: Isa, rows: usize, d: usize, a: &[E], b: &[E], y: &mut [E]) {
    assert!([a.len(), b.len(), y.len()].into_iter().all(|len| holds(len, rows, padded(d))));
    isa.run(Mul { len: rows * padded(d), a: a.as_ptr(), b: b.as_ptr(), y: y.as_mut_ptr() });
}

/// y = a y, element by element, over `rows` rows of `d` channels.
pub fn mul_in_place<E: Elem>(isa: Isa, rows: usize, d: usize, a: &[E], y: &mut [E]) {
    assert!(holds(a.len(), rows, padded(d)) && holds(y.len(), rows, padded(d)));
    isa.run(Mul { len: rows * padded(d), a: a.as_ptr(), b: y.as_ptr(), y: y.as_mut_ptr() });
}

struct Mul<E> {
    len: usize,
    a: *const E,
    b: *const E,
    y: *mut E,
}

impl<E: Elem> Kernel<E> for Mul<E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for i in (0..self.len).step_by(L::LANES) {
            // SAFETY: `mul` or `mul_in_place` checked that all have `len` elements, whole groups; y may be b.
            unsafe { lanes.store(self.y.add(i), lanes.mul(lanes.load(self.a.add(i)), lanes.load(self.b.add(i)))) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 9] = [1, 3, 15, 16, 17, 24, 64, 100, 1000];
    const KINDS: [NormKind; 3] = [NormKind::Layer, NormKind::Rms, NormKind::Affine];

    fn weights(d: usize) -> (Vec<f64>, Vec<f64>) {
        let number = |i: usize| f64::from((i as f64 * 12.9898).sin() as f32);
        ((0..d).map(|i| 1.0 + 0.5 * number(i)).collect(), (0..d).map(|i| 0.2 * number(i + 5)).collect())
    }

    /// Rows around `mean`, with NaN behind them.
    fn inputs<E: Elem>(rows: usize, d: usize, mean: f64) -> Vec<E> {
        let mut x = vec![E::of(f64::NAN); rows * padded(d)];
        for row in 0..rows {
            for i in 0..d {
                x[row * padded(d) + i] = E::of(mean + ((row * 31 + i) as f64 * 78.233).sin() * 3.0);
            }
        }
        x
    }

    fn exact<E: Elem>(kind: NormKind, x: &[E], shift: f64) -> Vec<f64> {
        let (weight, bias) = weights(x.len());
        let x: Vec<f64> = x.iter().map(|x| x.f64()).collect();
        // Differences of neighbours are exact.
        let mean = x.iter().map(|v| v - x[0]).sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|v| (v - x[0] - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let first = x[0];
        let of = |x: f64| match kind {
            NormKind::Layer => (x - first - mean + shift) / (var + 1e-5).sqrt(),
            NormKind::Rms => x / (square + 1e-5).sqrt(),
            NormKind::Affine => x,
        };
        x.iter().zip(weight.iter().zip(&bias)).map(|(&x, (w, b))| of(x) * w + b).collect()
    }

    /// The greatest error of a row by its greatest element.
    fn row_error<E: Elem>(found: &[E], expected: &[f64]) -> f64 {
        let scale = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let errors = found.iter().zip(expected).map(|(y, e)| (y.f64() - e).abs() / scale);
        errors.fold(0.0, |m, e| if e <= m { m } else { e })
    }

    fn check<E: Elem>(bound: f64, means: &[f64]) {
        for isa in Isa::all() {
            for kind in KINDS {
                for d in SIZES {
                    for &mean in means {
                        let (weight, bias) = weights(d);
                        let norm = Norm::<E>::new(kind, d, Some(&weight), Some(&bias), 1e-5, 0.25);
                        let x = inputs::<E>(5, d, mean);
                        let mut y = vec![E::of(7.0); x.len()];
                        norm.run(isa, 5, &x, &mut y);
                        let mut in_place = x.clone();
                        norm.run_in_place(isa, 5, &mut in_place);
                        assert!(y == in_place);
                        for (x, y) in x.chunks_exact(padded(d)).zip(y.chunks_exact(padded(d))) {
                            let error = row_error(&y[..d], &exact(kind, &x[..d], 0.25));
                            let name = isa.name();
                            // Without fused operations each of them rounds twice.
                            let bound = if matches!(isa, Isa::Scalar) { 1.5 * bound } else { bound };
                            assert!(error <= bound, "{name} {} {kind:?} d {d} mean {mean}: {error:.1e}", E::NAME);
                            assert!(y[d..].iter().all(|y| *y == E::ZERO));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn norms_are_those_of_float64_whatever_the_mean() {
        check::<f32>(2e-7, &[0.0, 1.0, 100.0, 1e4, 1e6]);
        check::<f64>(1e-14, &[0.0, 1.0, 1e6]);
    }

    fn check_runs<E: Elem>(bound: f64) {
        for isa in Isa::all() {
            for kind in [NormKind::Layer, NormKind::Rms] {
                for (runs, size) in [(2, 16), (3, 32), (2, 8), (5, 3), (4, 1), (1, 17), (2, 1000)] {
                    let d = runs * size;
                    let (weight, bias) = weights(size);
                    let (w, b) = (weight.repeat(runs), bias.repeat(runs));
                    let norm = Norm::<E>::new(kind, d, Some(&w), Some(&b), 1e-5, 0.25).over_runs(size);
                    let x = inputs::<E>(11, d, 0.5);
                    let mut y = x.clone();
                    norm.run_in_place(isa, 11, &mut y);
                    for (x, y) in x.chunks_exact(padded(d)).zip(y.chunks_exact(padded(d))) {
                        for (x, y) in x[..d].chunks_exact(size).zip(y[..d].chunks_exact(size)) {
                            let error = row_error(y, &exact(kind, x, 0.25));
                            let bound = if matches!(isa, Isa::Scalar) { 1.5 * bound } else { bound };
                            assert!(error <= bound, "{} {kind:?} {runs} of {size}: {error:.1e}", isa.name());
                        }
                        assert!(y[d..].iter().all(|y| *y == E::ZERO));
                    }
                }
            }
        }
    }

    #[test]
    fn runs_are_normalised_each_by_itself() {
        check_runs::<f32>(2e-7);
        check_runs::<f64>(1e-14);
    }

    #[test]
    fn norms_have_a_row_whatever_the_others() {
        for isa in Isa::all() {
            for kind in KINDS {
                let norm = Norm::<f32>::new(kind, 24, None, None, 1e-6, 0.0);
                let mut x = inputs::<f32>(40, 24, 1.0);
                x[9 * 32] = f32::NAN;
                let mut one_by_one = vec![0.0; 40 * 32];
                for row in 0..40 {
                    norm.run(isa, 1, &x[row * 32..], &mut one_by_one[row * 32..]);
                }
                for rows in 1..=40 {
                    let mut y = vec![0.0; rows * 32];
                    norm.run(isa, rows, &x, &mut y);
                    let same = y.iter().zip(&one_by_one).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{} {kind:?} {rows} rows", isa.name());
                }
                for (row, y) in one_by_one.chunks_exact(32).enumerate() {
                    assert!(row == 9 || y.iter().all(|y| y.is_finite()));
                }
            }
        }
    }

    #[test]
    fn a_constant_row_has_no_deviation() {
        for isa in Isa::all() {
            let norm = Norm::<f32>::new(NormKind::Layer, 17, None, None, 1e-5, 0.0);
            let mut y = vec![12_345.678_f32; 32];
            norm.run_in_place(isa, 1, &mut y);
            assert!(y.iter().all(|y| y.abs() < 1e-6), "{}: {y:?}", isa.name());
        }
    }

    fn check_residual<E: Elem>(bound: f64) {
        for isa in Isa::all() {
            for d in SIZES {
                for betas in [1, d] {
                    let (beta, _) = weights(d);
                    let beta = &beta[..betas];
                    let (x, z) = (inputs::<E>(6, d, 0.5), inputs::<E>(6, d, -2.0));
                    let (weight, bias) = weights(d);
                    let norm = Norm::new(NormKind::Layer, d, Some(&weight), Some(&bias), 1e-5, 0.0);
                    for norm in [None, Some(norm)] {
                        let normed = norm.is_some();
                        let residual = Residual::<E>::new(d, 0.75, beta, norm);
                        let mut y = vec![E::ZERO; x.len()];
                        residual.run(isa, 6, &x, &z, &mut y);
                        let (mut on_branch, mut on_skip) = (z.clone(), x.clone());
                        residual.run_on_branch(isa, 6, &x, &mut on_branch);
                        residual.run_on_skip(isa, 6, &mut on_skip, &z);
                        for row in 0..6 {
                            let at = row * padded(d)..row * padded(d) + d;
                            let sum = |i: usize| 0.75 * x[i].f64() + beta[(i - at.start).min(betas - 1)] * z[i].f64();
                            let sums: Vec<E> = at.clone().map(|i| E::of(sum(i))).collect();
                            let expected =
                                if normed { exact(NormKind::Layer, &sums, 0.0) } else { at.clone().map(sum).collect() };
                            let error = row_error(&y[at.clone()], &expected);
                            assert!(error <= bound, "{} d {d}, norm {normed}: {error:.1e}", isa.name());
                            assert!(y[at.clone()] == on_branch[at.clone()] && y[at.clone()] == on_skip[at.clone()]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn residual_is_the_sum_then_the_norm() {
        check_residual::<f32>(6e-7);
        check_residual::<f64>(1e-14);
    }

    #[test]
    fn product_is_element_by_element() {
        for isa in Isa::all() {
            for d in SIZES {
                let (a, mut b) = (inputs::<f32>(3, d, 0.5), inputs::<f32>(3, d, -2.0));
                let mut y = vec![0.0; a.len()];
                mul(isa, 3, d, &a, &b, &mut y);
                for row in 0..3 {
                    let at = row * padded(d)..row * padded(d) + d;
                    assert!(at.into_iter().all(|i| y[i] == a[i] * b[i]));
                }
                mul_in_place(isa, 3, d, &a, &mut b);
                assert!(y.iter().zip(&b).all(|(y, b)| y.to_bits() == b.to_bits()));
            }
        }
    }
}

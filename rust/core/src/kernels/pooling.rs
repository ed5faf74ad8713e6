//! Running sums over time, each as two numbers: compensated summation.

use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Adds rows of channels, as long as `high`, to the sums high + low. `outputs`, of at most as many rows, takes the
/// sums after each of the last rows. With `mean` these are divided by the number of rows, of which there were `before`
/// in earlier calls.
///
/// # Panics
/// Where the lengths do not fit.
pub fn sum<E: Elem>(
    isa: Isa,
    mean: bool,
    before: u64,
    rows: &[E],
    high: &mut [E],
    low: &mut [E],
    outputs: Option<&mut [E]>,
) {
    let stride = high.len();
    assert!(stride > 0 && stride.is_multiple_of(GROUP) && low.len() == stride && rows.len().is_multiple_of(stride));
    let n = rows.len() / stride;
    let wanted = outputs.as_ref().map_or(0, |y| y.len() / stride);
    assert!(wanted <= n, "expected at most {n} rows of outputs");
    let outputs = outputs.map_or(std::ptr::null_mut(), <[E]>::as_mut_ptr);
    isa.run(Sum { n, stride, mean, before, rows: rows.as_ptr(), high, low, first: n - wanted, outputs });
}

struct Sum<'a, E> {
    n: usize,
    stride: usize,
    mean: bool,
    before: u64,
    rows: *const E,
    high: &'a mut [E],
    low: &'a mut [E],
    /// The first row whose sum is wanted, and the outputs from there on.
    first: usize,
    outputs: *mut E,
}

impl<E: Elem> Kernel<E> for Sum<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for i in (0..self.stride).step_by(L::LANES) {
            // SAFETY: `sum` checked that there are n rows of `stride`, sums as long, and n - first rows of outputs;
            // `stride` is whole vectors.
            unsafe {
                let (high_at, low_at) = (self.high.as_mut_ptr().add(i), self.low.as_mut_ptr().add(i));
                let (mut high, mut low) = (lanes.load(high_at), lanes.load(low_at));
                for t in 0..self.n {
                    // Knuth's two-sum gives the rounding error of the sum exactly.
                    let x = lanes.load(self.rows.add(t * self.stride + i));
                    let sum = lanes.add(high, x);
                    let taken = lanes.sub(sum, high);
                    let over = lanes.add(lanes.sub(high, lanes.sub(sum, taken)), lanes.sub(x, taken));
                    high = sum;
                    low = lanes.add(low, over);
                    if t >= self.first {
                        let count = if self.mean { (self.before + t as u64 + 1) as f64 } else { 1.0 };
                        let output = lanes.div(lanes.add(high, low), lanes.splat(E::of(count)));
                        lanes.store(self.outputs.add((t - self.first) * self.stride + i), output);
                    }
                }
                // The sum of both, rounded, becomes high; the rounding error low.
                let (high, low) = lanes.fast_two_sum(high, low);
                lanes.store(high_at, high);
                lanes.store(low_at, low);
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
        fn running_means_are_those_of_exact_sums(seed in 0..1000u64, cut in 1..40usize) {
            let (rows, stride) = (40, 32);
            let x: Vec<f32> = (0..rows * stride).map(|i| (1e4 * ((i as u64 + seed) as f32 * 0.7).sin()).powi(3)).collect();
            for isa in Isa::all() {
                let (mut high, mut low) = (vec![0f32; stride], vec![0f32; stride]);
                let mut y = vec![0f32; x.len()];
                let at = cut * stride;
                sum(isa, true, 0, &x[..at], &mut high, &mut low, Some(&mut y[..at]));
                sum(isa, true, cut as u64, &x[at..], &mut high, &mut low, Some(&mut y[at..]));
                let mut last = vec![0f32; stride];
                let (mut h, mut l) = (vec![0f32; stride], vec![0f32; stride]);
                sum(isa, true, 0, &x, &mut h, &mut l, Some(&mut last));
                for i in 0..stride {
                    let mut exact = 0.0;
                    let mut size: f64 = 0.0;
                    for t in 0..rows {
                        let x = f64::from(x[t * stride + i]);
                        (exact, size) = (exact + x, size.max(x.abs()));
                        let mean = exact / (t + 1) as f64;
                        prop_assert!((f64::from(y[t * stride + i]) - mean).abs() <= 1.5e-7 * mean.abs() + 1e-12 * size);
                    }
                    prop_assert_eq!(last[i], y[(rows - 1) * stride + i]);
                }
            }
        }
    }
}

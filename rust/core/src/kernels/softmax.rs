//! Softmax over channels.

use super::{Elem, padded};

/// Softmax, or its logarithm, over each run of `size` channels of `rows` rows of `d`, in place.
///
/// Computed in `f64`, with the run's maximum taken off first; a run that holds a NaN becomes NaN.
pub fn softmax<E: Elem>(log: bool, rows: usize, d: usize, size: usize, x: &mut [E]) {
    let stride = padded(d);
    assert!(size > 0 && d.is_multiple_of(size) && x.len() >= rows * stride);
    for row in x[..rows * stride].chunks_exact_mut(stride.max(1)) {
        for run in row[..d].chunks_exact_mut(size) {
            let greatest = run.iter().fold(f64::NEG_INFINITY, |m, x| if x.f64() > m { x.f64() } else { m });
            let sum: f64 = run.iter().map(|x| libm::exp(x.f64() - greatest)).sum();
            let log_sum = libm::log(sum);
            for x in run {
                let below = x.f64() - greatest;
                *x = E::of(if log { below - log_sum } else { libm::exp(below) / sum });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::GROUP;

    #[test]
    fn softmax_sums_to_one_whatever_the_offset() {
        for (d, size) in [(1, 1), (10, 10), (12, 4), (100, 25)] {
            let stride = padded(d);
            let mut x = vec![f32::NAN; 2 * stride];
            for row in 0..2 {
                (0..d).for_each(|i| x[row * stride + i] = ((i * 5 + row) as f32).sin() * 4.0 + 900.0);
            }
            let mut y = x.clone();
            softmax(false, 2, d, size, &mut x);
            softmax(true, 2, d, size, &mut y);
            for row in 0..2 {
                for run in 0..d / size {
                    let at = row * stride + run * size..row * stride + (run + 1) * size;
                    assert!((x[at.clone()].iter().sum::<f32>() - 1.0).abs() < 1e-6);
                    for i in at {
                        assert!((x[i].ln() - y[i]).abs() < 1e-5 && y[i] <= 0.0);
                    }
                }
            }
        }
        let mut x = [1.0, f32::NAN, 2.0, 3.0];
        let mut padded_row = [0f32; GROUP];
        padded_row[..4].copy_from_slice(&x);
        softmax(false, 1, 4, 2, &mut padded_row);
        x.copy_from_slice(&padded_row[..4]);
        assert!(x[0].is_nan() && x[1].is_nan() && (x[2] + x[3] - 1.0).abs() < 1e-6);
    }
}

//! What reads a state, moved to a time before: c Abar^delay, as a reader of the state so many samples ago.

use crate::discretize::DplrBar;
use nalgebra::{DMatrix, RowDVector};
use num_complex::Complex64;

/// Of S4: sample by sample where that is less work than squaring a matrix of 2N x 2N.
pub fn through_low_rank(bar: &DplrBar, mut c: Vec<Complex64>, delay: usize) -> Vec<Complex64> {
    let n = c.len();
    let squarings = usize::BITS - delay.leading_zeros();
    if delay * 2 * (1 + bar.w.len()) * n <= squarings as usize * 8 * n * n * n {
        for _ in 0..delay {
            c = before(bar, &c);
        }
        return c;
    }
    // Row i of the real form says what reads (Re x, Im x) one sample before reads state i.
    let mut a = Vec::with_capacity(4 * n * n);
    for part in [Complex64::ONE, -Complex64::I] {
        for i in 0..n {
            let mut unit = vec![Complex64::ZERO; n];
            unit[i] = part;
            let row = before(bar, &unit);
            a.extend(row.iter().map(|z| z.re).chain(row.iter().map(|z| -z.im)));
        }
    }
    let c = c.iter().map(|z| z.re).chain(c.iter().map(|z| -z.im)).collect();
    let c = through_matrix(a, c, delay);
    (0..n).map(|i| Complex64::new(c[i], -c[n + i])).collect()
}

/// c `a`^delay, with `a` (n, n) row-major, by squaring.
pub fn through_matrix(a: Vec<f64>, c: Vec<f64>, mut delay: usize) -> Vec<f64> {
    let n = c.len();
    let mut power = DMatrix::from_row_slice(n, n, &a);
    let mut c = RowDVector::from_vec(c);
    while delay > 0 {
        if delay % 2 == 1 {
            c = &c * &power;
        }
        delay /= 2;
        if delay > 0 {
            power = &power * &power;
        }
    }
    c.as_slice().to_vec()
}

/// c Abar: what reads the next state, as a reader of this one.
fn before(bar: &DplrBar, c: &[Complex64]) -> Vec<Complex64> {
    let along: Vec<f64> = bar.w.iter().map(|w| c.iter().zip(w).map(|(c, w)| (c * w).re).sum()).collect();
    (0..c.len())
        .map(|n| {
            let low: Complex64 = along.iter().zip(&bar.v).map(|(s, v)| v[n] * *s).sum();
            c[n] * (bar.a_minus_one[n] + 1.0) - low
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discretize::discretize_dplr;

    #[test]
    fn squaring_is_going_back_sample_by_sample() {
        let z = |i: usize, j: usize| Complex64::new((i * 7 + j) as f64 % 5.0 - 2.0, (i + j * 3) as f64 % 4.0 - 1.5);
        for (n, pairs) in [(1, true), (3, true), (3, false)] {
            let lambda: Vec<_> = (0..n).map(|i| Complex64::new(-0.1 - i as f64, 3.0 * i as f64 + 1.0)).collect();
            let (p, b): (Vec<_>, Vec<_>) = (0..n).map(|i| (0.3 * z(i, 1), z(i, 2))).unzip();
            let bar = discretize_dplr(&lambda, &[&p], &[&p], &b, 0.01, pairs).unwrap();
            let c: Vec<_> = (0..n).map(|i| z(i, 3) + 0.1).collect();
            let mut expected = c.clone();
            let delay = 5000;
            for _ in 0..delay {
                expected = before(&bar, &expected);
            }
            let found = through_low_rank(&bar, c, delay);
            let scale = expected.iter().map(|z| z.norm()).fold(1e-300, f64::max);
            for (x, y) in found.iter().zip(&expected) {
                assert!((x - y).norm() < 1e-9 * scale, "{n}: {x} is not {y}");
            }
        }
    }
}

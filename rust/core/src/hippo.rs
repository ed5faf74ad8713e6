//! HiPPO matrices (Gu et al. 2020): x' = A x + B u keeps the best coefficients of u's past.

use std::f64::consts::{PI, SQRT_2};

use crate::error::{Error, Result};

const MAX_SIZE: usize = 1 << 13;

/// (A (n, n) row-major, B (n,)) of a measure, in S4's conventions: A is negative, bases are orthonormal.
///
/// * "legs": scaled Legendre (Gu et al. 2020, theorem 2)
/// * "legt": translated Legendre (Gu et al. 2020, theorem 1) with window 2: A and B are half of LSSL's
/// * "lagt": translated Laguerre (Gu et al. 2020, theorem 1), beta = 1
/// * "fourier": translated Fourier (Gu et al. 2022, "How to train your HiPPO", S4-FouT) with window 2; n is even
///
/// # Errors
/// [`Error::Value`] where the measure is unknown or n is 0, above 8192, or odd for "fourier".
pub fn hippo(measure: &str, n: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    if !(1..=MAX_SIZE).contains(&n) {
        return Err(Error::Value(format!("N: expected 1 to {MAX_SIZE}, found {n}")));
    }
    let matrix = |entry: &dyn Fn(usize, usize) -> f64| (0..n * n).map(|i| entry(i / n, i % n)).collect::<Vec<_>>();
    let norm = |i: usize| (2.0 * i as f64 + 1.0).sqrt();
    match measure {
        "legs" => {
            let a = matrix(&|i, j| match i.cmp(&j) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => -(i as f64 + 1.0),
                std::cmp::Ordering::Greater => -norm(i) * norm(j),
            });
            Ok((a, (0..n).map(norm).collect()))
        }
        "legt" => {
            let a = matrix(&|i, j| -0.5 * norm(i) * norm(j) * if i < j && (j - i) % 2 == 1 { -1.0 } else { 1.0 });
            Ok((a, (0..n).map(|i| 0.5 * norm(i)).collect()))
        }
        "lagt" => {
            let a = matrix(&|i, j| match i.cmp(&j) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => -0.5,
                std::cmp::Ordering::Greater => -1.0,
            });
            Ok((a, vec![1.0; n]))
        }
        "fourier" if n.is_multiple_of(2) => {
            // Even rows are cosines, the first the constant; odd ones are sines, and each pair turns.
            let b = |i: usize| match i {
                0 => 1.0,
                i if i % 2 == 0 => SQRT_2,
                _ => 0.0,
            };
            let turn = |i: usize, j: usize| match (i % 2, j % 2) {
                (1, 0) if i == j + 1 => PI * (j / 2) as f64,
                (0, 1) if j == i + 1 => -PI * (i / 2) as f64,
                _ => 0.0,
            };
            let a = matrix(&|i, j| turn(i, j) - b(i) * b(j));
            Ok((a, (0..n).map(b).collect()))
        }
        "fourier" => Err(Error::Value(format!("N: expected an even number for \"fourier\", found {n}"))),
        _ => Err(Error::Value(format!(
            "measure: expected \"legs\", \"legt\", \"lagt\" or \"fourier\", found {measure:?}"
        ))),
    }
}

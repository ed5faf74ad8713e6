//! Krylov sequences, in float64.

use crate::error::Result;
use crate::kernels::aligned::{Aligned, fits};
use crate::kernels::linear::{Epilogue, Linear};
use crate::kernels::{Isa, padded};
use crate::shared::Shared;
use crate::threads::Team;

/// (b, A b, A^2 b, ...) of `systems` systems with `a` (systems, n, n) and `b` (systems, n): (systems, n, length).
///
/// By doubling: the second half of the sequence is A to the length of the first half, times the first half.
///
/// # Errors
/// [`Error::Memory`] where the length does not fit into memory.
pub fn krylov(
    isa: Isa,
    team: &Team,
    systems: usize,
    n: usize,
    a: &[f64],
    b: &[f64],
    length: usize,
) -> Result<Vec<f64>> {
    fits::<f64>("length", length, systems * padded(n) * 2)?;
    let mut answer = vec![0.0; systems * n * length];
    if n == 0 || length == 0 {
        return Ok(answer);
    }
    let out = Shared::new(answer.as_mut_ptr());
    let stride = padded(n);
    let made = team.map(systems, |s| {
        let mut rows = Aligned::<f64>::zeros(length * stride);
        rows[..n].copy_from_slice(&b[s * n..][..n]);
        let mut power = a[s * n * n..][..n * n].to_vec();
        let mut have = 1;
        while have < length {
            let times = Linear::<f64>::new(n, n, |i, j| power[i * n + j], None, Epilogue::None)?;
            let more = have.min(length - have);
            let (from, to) = rows.split_at_mut(have * stride);
            times.run(isa, more, from, &mut to[..more * stride]);
            have += more;
            if have < length {
                power = squared(isa, &times, &power, n);
            }
        }
        // SAFETY: every item has its own part.
        let out = unsafe { out.part(s * n * length, n * length) };
        for (i, row) in out.chunks_exact_mut(length).enumerate() {
            for (l, x) in row.iter_mut().enumerate() {
                *x = rows[l * stride + i];
            }
        }
        Ok(())
    });
    made.into_iter().collect::<Result<()>>()?;
    Ok(answer)
}

/// The square of a matrix, given as what multiplies with it.
fn squared(isa: Isa, times: &Linear<f64>, a: &[f64], n: usize) -> Vec<f64> {
    let stride = padded(n);
    let (mut columns, mut product) = (Aligned::<f64>::zeros(n * stride), Aligned::<f64>::zeros(n * stride));
    for i in 0..n {
        for j in 0..n {
            columns[j * stride + i] = a[i * n + j];
        }
    }
    times.run(isa, n, &columns, &mut product);
    (0..n * n).map(|k| product[k % n * stride + k / n]).collect()
}

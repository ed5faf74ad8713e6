//! A causal convolution of each channel with a few taps of its own, as in Mamba:
//! y\[t\] = b + sum over k < K of w\[k\] x\[t - (K - 1) + k\].

use super::{Elem, GROUP, Isa, Kernel, Lanes};
use std::ops::Range;

/// Runs some groups of channels over the rows of `x`, writing their columns of as many rows of `y`. A row is as long as
/// `bias`, whole groups; `weight` is `taps` rows, the latest sample's last; `past` is the last `taps` - 1 samples, the
/// oldest first, and the groups' columns of it are moved on.
///
/// # Panics
/// Where the lengths do not fit.
///
/// # Safety
/// `past` has `taps` - 1 rows and `y` as many as `x`, and no one else touches the groups' columns of both.
#[allow(clippy::too_many_arguments)]
pub unsafe fn conv1d<E: Elem>(
    isa: Isa,
    groups: Range<usize>,
    weight: &[E],
    bias: &[E],
    taps: usize,
    past: *mut E,
    x: &[E],
    y: *mut E,
) {
    let stride = bias.len();
    assert!(stride > 0 && stride.is_multiple_of(GROUP) && taps > 0, "expected whole groups of channels, and a tap");
    assert!(weight.len() == taps * stride && x.len().is_multiple_of(stride), "expected {taps} taps of {stride}");
    let columns = groups.start * GROUP..groups.end * GROUP;
    assert!(columns.end <= stride, "expected groups of these channels");
    isa.run(Run { columns: columns.clone(), weight, bias, taps, past, x, y });
    let (rows, before) = (x.len() / stride, if x.is_empty() { 0 } else { taps - 1 });
    for k in 0..before {
        // SAFETY: these rows' columns of the past are the caller's alone.
        unsafe {
            let to = past.add(k * stride + columns.start);
            let from = match (k + rows).checked_sub(before) {
                Some(t) => x[t * stride..][columns.clone()].as_ptr(),
                None => past.add((k + rows) * stride + columns.start),
            };
            to.copy_from_nonoverlapping(from, columns.len());
        }
    }
}

struct Run<'a, E> {
    columns: Range<usize>,
    weight: &'a [E],
    bias: &'a [E],
    taps: usize,
    past: *const E,
    x: &'a [E],
    y: *mut E,
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { columns, weight, bias, taps, past, x, y } = self;
        let (stride, before) = (bias.len(), taps - 1);
        for t in 0..x.len() / stride {
            // The taps before this one meet the past, the others the inputs.
            let old = before.saturating_sub(t);
            for i in columns.clone().step_by(L::LANES) {
                // SAFETY: rows are `stride` elements, whole vectors. Of `past`, whose rows are `before`, row t + k is
                // read for k < before - t, and of `x` row t + k - before <= t for the other k <= before.
                unsafe {
                    let mut sum = lanes.load(bias.as_ptr().add(i));
                    for k in 0..taps {
                        let from = if k < old {
                            past.add((t + k) * stride + i)
                        } else {
                            x.as_ptr().add((t + k - before) * stride + i)
                        };
                        let w = lanes.load(weight.as_ptr().add(k * stride + i));
                        sum = lanes.add(sum, lanes.mul(w, lanes.load(from)));
                    }
                    lanes.store(y.add(t * stride + i), sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers<E: Elem>(n: usize, seed: usize) -> Vec<E> {
        (0..n).map(|i| E::of(((i * 7 + seed) as f64 * 0.37).sin())).collect()
    }

    /// Against sums in the order of the taps, each product and each sum rounded by itself.
    fn check<E: Elem>(groups: usize, taps: usize, rows: usize, cut: usize) {
        let stride = groups * GROUP;
        let (weight, bias) = (numbers::<E>(taps * stride, 1), numbers::<E>(stride, 2));
        let (past, x) = (numbers::<E>((taps - 1) * stride, 3), numbers::<E>(rows * stride, 4));
        let all = [past.as_slice(), &x].concat();
        let mut exact = Vec::new();
        for at in 0..rows * stride {
            let product = |k: usize| weight[k * stride + at % stride] * all[k * stride + at];
            exact.push((0..taps).fold(bias[at % stride], |sum, k| sum + product(k)));
        }
        for isa in Isa::all() {
            let (mut past, mut y) = (past.clone(), vec![E::ZERO; x.len()]);
            let at = cut.min(rows) * stride;
            let (first, second) = y.split_at_mut(at);
            let past_of = past.as_mut_ptr();
            for (x, y) in [(&x[..at], first), (&x[at..], second)] {
                for groups in [0..groups / 2, groups / 2..groups] {
                    // SAFETY: y has as many rows as x, and no one else has either.
                    unsafe { conv1d(isa, groups, &weight, &bias, taps, past_of, x, y.as_mut_ptr()) };
                }
            }
            assert!(y == exact, "{} {}", isa.name(), E::NAME);
            assert!(past == all[rows * stride..], "{} {}", isa.name(), E::NAME);
        }
    }

    proptest! {
        #[test]
        fn any_blocks_are_the_convolution(groups in 1..4usize, taps in 1..6usize, rows in 0..12usize, cut in 0..12usize) {
            check::<f32>(groups, taps, rows, cut);
            check::<f64>(groups, taps, rows, cut);
        }
    }
}

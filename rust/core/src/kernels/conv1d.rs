//! A causal convolution of each channel with a few taps of its own, as in Mamba:
//! y\[t\] = b + sum over k < K of w\[k\] x\[t - (K - 1) + k\].

use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Runs over the rows of `x`, writing as many rows of `y`. A row is as long as `bias`, whole groups; `weight` is
/// `taps` rows, the latest sample's last; `past` is the last `taps` - 1 samples, the oldest first, and is moved on.
///
/// # Panics
/// Where the lengths do not fit.
pub fn conv1d<E: Elem>(isa: Isa, weight: &[E], bias: &[E], taps: usize, past: &mut [E], x: &[E], y: &mut [E]) {
    let stride = bias.len();
    assert!(stride > 0 && stride.is_multiple_of(GROUP) && taps > 0, "expected whole groups of channels, and a tap");
    assert!(weight.len() == taps * stride && past.len() == (taps - 1) * stride, "expected {taps} taps of {stride}");
    assert!(x.len() == y.len() && x.len().is_multiple_of(stride), "expected as many whole rows of y as of x");
    isa.run(Run { weight, bias, taps, past, x, y });
    if x.len() >= past.len() {
        past.copy_from_slice(&x[x.len() - past.len()..]);
    } else {
        past.copy_within(x.len().., 0);
        let kept = past.len() - x.len();
        past[kept..].copy_from_slice(x);
    }
}

struct Run<'a, E> {
    weight: &'a [E],
    bias: &'a [E],
    taps: usize,
    past: &'a [E],
    x: &'a [E],
    y: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { weight, bias, taps, past, x, y } = self;
        let (stride, before) = (bias.len(), taps - 1);
        for t in 0..x.len() / stride {
            // The taps before this one meet the past, the others the inputs.
            let old = before.saturating_sub(t);
            for i in (0..stride).step_by(L::LANES) {
                // SAFETY: rows are `stride` elements, whole vectors. Of `past`, whose rows are `before`, row t + k is
                // read for k < before - t, and of `x` row t + k - before <= t for the other k <= before.
                unsafe {
                    let mut sum = lanes.load(bias.as_ptr().add(i));
                    for k in 0..taps {
                        let from = if k < old {
                            past.as_ptr().add((t + k) * stride + i)
                        } else {
                            x.as_ptr().add((t + k - before) * stride + i)
                        };
                        let w = lanes.load(weight.as_ptr().add(k * stride + i));
                        sum = lanes.add(sum, lanes.mul(w, lanes.load(from)));
                    }
                    lanes.store(y.as_mut_ptr().add(t * stride + i), sum);
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
            conv1d(isa, &weight, &bias, taps, &mut past, &x[..at], first);
            conv1d(isa, &weight, &bias, taps, &mut past, &x[at..], second);
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

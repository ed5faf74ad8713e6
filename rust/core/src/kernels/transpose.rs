//! Transposition: rows of [`GROUP`] lanes as each lane's own run of samples, and back, one square in registers at a
//! time.

use super::{Elem, GROUP, Lanes};

/// Writes `rows` rows of GROUP lanes, from `from` on `step` elements apart (which may be negative), as GROUP runs of
/// `rows` samples that begin `run` elements apart.
///
/// # Safety
/// The rows are valid to read and the runs to write; `rows` is a multiple of GROUP.
#[inline(always)]
pub unsafe fn to_runs<L: Lanes>(lanes: L, rows: usize, (from, step): (*const L::E, isize), to: *mut L::E, run: usize) {
    let row = |i: usize, j: usize, k: usize| from.wrapping_offset((i + k) as isize * step).wrapping_add(j);
    // SAFETY: `row` addresses lanes j.. of row i + k, the other function samples i.. of run j + k, both below the
    // caller's.
    unsafe { squares(lanes, rows, row, |i, j, k| to.wrapping_add((j + k) * run + i)) }
}

/// The inverse of [`to_runs`]: writes runs of samples as rows.
///
/// # Safety
/// The runs are valid to read and the rows to write; `rows` is a multiple of GROUP.
#[inline(always)]
pub unsafe fn to_rows<L: Lanes>(lanes: L, rows: usize, from: *const L::E, run: usize, (to, step): (*mut L::E, isize)) {
    let row = |i: usize, j: usize, k: usize| to.wrapping_offset((i + k) as isize * step).wrapping_add(j);
    // SAFETY: `row` addresses lanes j.. of row i + k, the other function samples i.. of run j + k, both below the
    // caller's.
    unsafe { squares(lanes, rows, |i, j, k| from.wrapping_add((j + k) * run + i), row) }
}

/// Transposes each square of LANES samples from i and lanes from j on. Its vector k is read at `from(i, j, k)` and
/// written at `to(i, j, k)`.
///
/// # Safety
/// `rows` is a multiple of LANES. For i < rows and j < GROUP in steps of LANES and k < LANES, LANES elements are valid
/// to read at `from` and to write at `to`.
#[inline(always)]
unsafe fn squares<L: Lanes>(
    lanes: L,
    rows: usize,
    from: impl Fn(usize, usize, usize) -> *const L::E,
    to: impl Fn(usize, usize, usize) -> *mut L::E,
) {
    for i in (0..rows).step_by(L::LANES) {
        for j in (0..GROUP).step_by(L::LANES) {
            let mut square = [lanes.splat(L::E::ZERO); GROUP];
            // SAFETY: i, j and k are those for which the caller guarantees LANES elements.
            unsafe {
                for (k, v) in square.iter_mut().enumerate().take(L::LANES) {
                    *v = lanes.load(from(i, j, k));
                }
                square = exchanged::<L, 8>(lanes, square);
                square = exchanged::<L, 4>(lanes, square);
                square = exchanged::<L, 2>(lanes, square);
                square = exchanged::<L, 1>(lanes, square);
                for (k, &v) in square.iter().enumerate().take(L::LANES) {
                    lanes.store(to(i, j, k), v);
                }
            }
        }
    }
}

/// Exchanges the two off-diagonal D x D blocks of every 2 D x 2 D block. Done for all powers of two below LANES, this
/// is the transposition.
#[inline(always)]
fn exchanged<L: Lanes, const D: usize>(lanes: L, mut square: [L::V; GROUP]) -> [L::V; GROUP] {
    if D >= L::LANES {
        return square;
    }
    let upper = lanes.by_lane(|lane| if lane & D == 0 { L::E::ZERO } else { L::E::ONE });
    let half = lanes.splat(L::E::of(0.5));
    for k in 0..GROUP {
        if k & D == 0 && k < L::LANES {
            let (a, b) = (square[k], square[k + D]);
            square[k] = lanes.select_gt(upper, half, lanes.rotate(b, D), a);
            square[k + D] = lanes.select_gt(upper, half, b, lanes.rotate(a, L::LANES - D));
        }
    }
    square
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Isa, Kernel};
    use proptest::prelude::*;

    struct There<'a, E>(&'a [E], &'a mut [E], &'a mut [E]);

    impl<E: Elem> Kernel<E> for There<'_, E> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes<E = E>>(self, lanes: L) {
            let rows = self.0.len() / GROUP;
            let step = GROUP as isize;
            // SAFETY: all three slices have `rows` times GROUP elements, and `rows` is a multiple of GROUP.
            unsafe {
                to_runs(lanes, rows, (self.0.as_ptr(), step), self.1.as_mut_ptr(), rows);
                to_rows(lanes, rows, self.1.as_ptr(), rows, (self.2.as_mut_ptr(), step));
            }
        }
    }

    fn transposes<E: Elem>(blocks: usize) {
        for isa in Isa::all() {
            let rows = blocks * GROUP;
            let u: Vec<E> = (0..rows * GROUP).map(|i| E::of(i as f64)).collect();
            let (mut runs, mut back) = (vec![E::ZERO; u.len()], vec![E::ZERO; u.len()]);
            isa.run(There(&u, &mut runs, &mut back));
            for i in 0..rows {
                for j in 0..GROUP {
                    assert_eq!(runs[j * rows + i].f64(), u[i * GROUP + j].f64(), "{}", isa.name());
                }
            }
            assert!(back == u, "{}", isa.name());
        }
    }

    proptest! {
        #[test]
        fn runs_are_the_transposed_rows(blocks in 1..5usize) {
            transposes::<f32>(blocks);
            transposes::<f64>(blocks);
        }
    }
}

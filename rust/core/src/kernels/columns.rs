//! Packing: the columns of a group, which stand a row of activations apart, as rows one after the other, and back.

use super::layout::holds;
use super::pointwise::{self, Function};
use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Packs `n` rows of G neighbouring groups, each group `apart` elements after the one before. `x` is the address of
/// the first row's columns and the distance to the next row's in elements, which may be negative.
///
/// # Safety
/// The `n` rows of G * GROUP elements are valid to read.
pub unsafe fn pack<E: Elem, const G: usize>(
    isa: Isa,
    n: usize,
    (x, step): (*const E, isize),
    packed: &mut [E],
    apart: usize,
) {
    assert!(holds(apart, n, GROUP) && holds(packed.len(), G, apart));
    isa.run(Pack::<E, G> { n, from: (x, step), to: (packed.as_mut_ptr(), apart) });
}

/// Adds the direct path to `n` packed rows: z += d u.
pub fn add_skip<E: Elem>(isa: Isa, n: usize, d: &[E], u: &[E], z: &mut [E]) {
    assert!(d.len() >= GROUP && holds(u.len(), n, GROUP) && holds(z.len(), n, GROUP));
    let z = z.as_mut_ptr();
    isa.run(AddSkip { n, d, u, z, to: (z, GROUP as isize) });
}

/// Adds the direct path to rows as long as `d`, whole groups, and applies a function: y = f(y + d x).
pub fn finish_rows<E: Elem>(isa: Isa, function: Function, rows: usize, d: &[E], x: &[E], y: &mut [E]) {
    assert!(d.len().is_multiple_of(GROUP) && holds(x.len(), rows, d.len()) && holds(y.len(), rows, d.len()));
    isa.run(FinishRows { function, rows, d, x, y });
}

/// Writes `n` packed rows with the direct path added, z + d u, to the group's columns from `y` on, `step` elements
/// apart.
///
/// # Safety
/// The `n` rows of GROUP elements from `y` on are valid to write, and nothing else accesses them meanwhile.
pub unsafe fn unpack_with_skip<E: Elem>(isa: Isa, n: usize, d: &[E], u: &[E], z: &[E], y: *mut E, step: isize) {
    assert!(d.len() >= GROUP && holds(u.len(), n, GROUP) && holds(z.len(), n, GROUP));
    isa.run(AddSkip { n, d, u, z: z.as_ptr(), to: (y, step) });
}

/// The first row and the distance to the next one; the first packed group and the distance to the next one.
struct Pack<E, const G: usize> {
    n: usize,
    from: (*const E, isize),
    to: (*mut E, usize),
}

impl<E: Elem, const G: usize> Kernel<E> for Pack<E, G> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for row in 0..self.n {
            for i in (0..G * GROUP).step_by(L::LANES) {
                // SAFETY: row < n and i < G * GROUP: the caller of `pack` guarantees that the row has the element, and
                // `pack` checked that the packed groups have it.
                unsafe {
                    let v = lanes.load(self.from.0.offset(row as isize * self.from.1).add(i));
                    lanes.store(self.to.0.add(i / GROUP * self.to.1 + row * GROUP + i % GROUP), v);
                }
            }
        }
    }
}

/// Writes z + d u of packed rows to the rows `to`, an address and a distance, which may be z itself.
struct AddSkip<'a, E> {
    n: usize,
    d: &'a [E],
    u: &'a [E],
    z: *const E,
    to: (*mut E, isize),
}

impl<E: Elem> Kernel<E> for AddSkip<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: d has GROUP elements, u and z have n rows: checked by `add_skip` and `unpack_with_skip`. The
            // rows written are z's own, or guaranteed by the caller of `unpack_with_skip`.
            unsafe {
                let d = lanes.load(self.d.as_ptr().add(lane));
                for i in 0..self.n {
                    let at = i * GROUP + lane;
                    let v = lanes.fma(d, lanes.load(self.u.as_ptr().add(at)), lanes.load(self.z.add(at)));
                    lanes.store(self.to.0.offset(i as isize * self.to.1).add(lane), v);
                }
            }
        }
    }
}

/// f(y + d x) for rows as long as d, in place.
struct FinishRows<'a, E> {
    function: Function,
    rows: usize,
    d: &'a [E],
    x: &'a [E],
    y: &'a mut [E],
}

impl<E: Elem> Kernel<E> for FinishRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let width = self.d.len();
        for row in 0..self.rows {
            for i in (0..width).step_by(L::LANES) {
                // SAFETY: `finish_rows` checked that x and y have `rows` rows as long as d, which is whole vectors.
                unsafe {
                    let y = self.y.as_mut_ptr().add(row * width + i);
                    let x = lanes.load(self.x.as_ptr().add(row * width + i));
                    lanes.store(y, lanes.fma(lanes.load(self.d.as_ptr().add(i)), x, lanes.load(y)));
                }
            }
        }
        // SAFETY: y has `rows` rows of `width` elements, which are whole groups.
        unsafe { pointwise::apply_rows(lanes, self.function, 1, self.rows * width, self.y.as_mut_ptr(), 0) };
    }
}

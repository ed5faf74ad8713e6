//! Between rows of activations and a group's own columns, packed row after row.

use super::pointwise::{self, Function};
use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Packs `n` rows of G neighbouring groups, each group to a place of its own, `apart` elements after the one before; `x`
/// starts at the first row's columns, and the next row is `step` elements further, or back.
///
/// # Safety
/// All `n` rows of G * GROUP elements are valid to read.
pub unsafe fn pack<E: Elem, const G: usize>(
    isa: Isa,
    n: usize,
    (x, step): (*const E, isize),
    packed: &mut [E],
    apart: usize,
) {
    assert!(n * GROUP <= apart && G * apart <= packed.len());
    isa.run(Pack::<E, G> { n, from: (x, step), to: (packed.as_mut_ptr(), apart) });
}

/// Adds the direct path to packed rows: z += d u.
pub fn add_skip<E: Elem>(isa: Isa, n: usize, d: &[E], u: &[E], z: &mut [E]) {
    assert!(d.len() >= GROUP && u.len() >= n * GROUP && z.len() >= n * GROUP);
    let z = z.as_mut_ptr();
    isa.run(AddSkip { n, d, u, z, to: (z, GROUP as isize) });
}

/// Adds the direct path to rows of whole groups, d a row, and applies a function: y = f(y + d x).
pub fn finish_rows<E: Elem>(isa: Isa, function: Function, rows: usize, d: &[E], x: &[E], y: &mut [E]) {
    assert!(d.len().is_multiple_of(GROUP) && x.len() >= rows * d.len() && y.len() >= rows * d.len());
    isa.run(FinishRows { function, rows, d, x, y });
}

/// Writes `n` packed rows with the direct path added, z + d u, to the group's columns.
///
/// # Safety
/// All `n` rows of GROUP elements are valid to write, and no one else touches them.
pub unsafe fn unpack_with_skip<E: Elem>(isa: Isa, n: usize, d: &[E], u: &[E], z: &[E], y: *mut E, step: isize) {
    assert!(d.len() >= GROUP && u.len() >= n * GROUP && z.len() >= n * GROUP);
    isa.run(AddSkip { n, d, u, z: z.as_ptr(), to: (y, step) });
}

/// Rows of G groups, with the distance to the next row, and where they go, with the distance to the next group.
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
                // SAFETY: `pack` and its caller answer for the rows.
                unsafe {
                    let v = lanes.load(self.from.0.offset(row as isize * self.from.1).add(i));
                    lanes.store(self.to.0.add(i / GROUP * self.to.1 + row * GROUP + i % GROUP), v);
                }
            }
        }
    }
}

/// z + d u for packed rows, to where `to` says, which may be z itself.
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
            // SAFETY: the functions above checked the lengths, or their callers answer for the rows.
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
                // SAFETY: `finish_rows` checked the lengths.
                unsafe {
                    let y = self.y.as_mut_ptr().add(row * width + i);
                    let x = lanes.load(self.x.as_ptr().add(row * width + i));
                    lanes.store(y, lanes.fma(lanes.load(self.d.as_ptr().add(i)), x, lanes.load(y)));
                }
            }
        }
        // SAFETY: as above.
        unsafe { pointwise::apply_rows(lanes, self.function, 1, self.rows * width, self.y.as_mut_ptr(), 0) };
    }
}

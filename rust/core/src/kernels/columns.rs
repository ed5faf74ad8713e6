//! Between rows of activations and a group's own columns, packed row after row.

use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Packs `n` rows of the group's columns; `x` starts at the first row's, and the next is `step` elements further,
/// or back.
///
/// # Safety
/// All `n` rows of GROUP elements are valid to read.
pub unsafe fn pack<E: Elem>(isa: Isa, n: usize, x: *const E, step: isize, packed: &mut [E]) {
    assert!(packed.len() >= n * GROUP);
    isa.run(Pack { n, x, step, packed: packed.as_mut_ptr() });
}

/// Adds the direct path to packed rows: z += d u.
pub fn add_skip<E: Elem>(isa: Isa, n: usize, d: &[E], u: &[E], z: &mut [E]) {
    assert!(d.len() >= GROUP && u.len() >= n * GROUP && z.len() >= n * GROUP);
    isa.run(AddSkip { n, d, u, z });
}

/// Writes `n` packed rows to the group's columns, as [`pack`] reads them.
///
/// # Safety
/// All `n` rows of GROUP elements are valid to write, and no one else touches them.
pub unsafe fn unpack<E: Elem>(isa: Isa, n: usize, packed: &[E], y: *mut E, step: isize) {
    assert!(packed.len() >= n * GROUP);
    isa.run(Unpack { n, packed: packed.as_ptr(), y, step });
}

/// Writes `n` packed rows with the direct path added, z + d u, to the group's columns.
///
/// # Safety
/// As [`unpack`].
pub unsafe fn unpack_with_skip<E: Elem>(isa: Isa, n: usize, d: &[E], u: &[E], z: &[E], y: *mut E, step: isize) {
    assert!(d.len() >= GROUP && u.len() >= n * GROUP && z.len() >= n * GROUP);
    isa.run(UnpackWithSkip { n, d, u, z, y, step });
}

struct UnpackWithSkip<'a, E> {
    n: usize,
    d: &'a [E],
    u: &'a [E],
    z: &'a [E],
    y: *mut E,
    step: isize,
}

impl<E: Elem> Kernel<E> for UnpackWithSkip<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the lengths were checked; the caller answers for the rows of `y`.
            unsafe {
                let d = lanes.load(self.d.as_ptr().add(lane));
                for i in 0..self.n {
                    let at = i * GROUP + lane;
                    let z = lanes.load(self.z.as_ptr().add(at));
                    let v = lanes.fma(d, lanes.load(self.u.as_ptr().add(at)), z);
                    lanes.store(self.y.offset(i as isize * self.step).add(lane), v);
                }
            }
        }
    }
}

struct Pack<E> {
    n: usize,
    x: *const E,
    step: isize,
    packed: *mut E,
}

impl<E: Elem> Kernel<E> for Pack<E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for i in 0..self.n {
            for lane in (0..GROUP).step_by(L::LANES) {
                // SAFETY: `pack`'s caller answers for the rows.
                unsafe {
                    let v = lanes.load(self.x.offset(i as isize * self.step).add(lane));
                    lanes.store(self.packed.add(i * GROUP + lane), v);
                }
            }
        }
    }
}

struct Unpack<E> {
    n: usize,
    packed: *const E,
    y: *mut E,
    step: isize,
}

impl<E: Elem> Kernel<E> for Unpack<E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for i in 0..self.n {
            for lane in (0..GROUP).step_by(L::LANES) {
                // SAFETY: `unpack`'s caller answers for the rows.
                unsafe {
                    let v = lanes.load(self.packed.add(i * GROUP + lane));
                    lanes.store(self.y.offset(i as isize * self.step).add(lane), v);
                }
            }
        }
    }
}

struct AddSkip<'a, E> {
    n: usize,
    d: &'a [E],
    u: &'a [E],
    z: &'a mut [E],
}

impl<E: Elem> Kernel<E> for AddSkip<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `add_skip` checked the lengths.
            unsafe {
                let d = lanes.load(self.d.as_ptr().add(lane));
                for i in 0..self.n {
                    let at = i * GROUP + lane;
                    let z = self.z.as_mut_ptr().add(at);
                    lanes.store(z, lanes.fma(d, lanes.load(self.u.as_ptr().add(at)), lanes.load(z)));
                }
            }
        }
    }
}

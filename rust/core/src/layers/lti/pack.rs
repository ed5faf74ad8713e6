//! Between rows of channels and rows of lanes.

use super::{Direction, Lti};
use crate::kernels::pointwise::Function;
use crate::kernels::{Elem, GROUP, Isa, columns, pointwise};

impl<E: Elem> Lti<E> {
    /// Where sample `t` in the layer's order stands, in elements, and how far the next.
    fn order(&self, t: usize, rows: usize, stride: usize) -> (usize, isize) {
        match self.direction {
            Direction::Forward => (t * stride, stride as isize),
            Direction::Backward => ((rows - 1 - t) * stride, -(stride as isize)),
        }
    }

    /// Where a group's own columns of the input stand, from sample `t` on in the layer's order, and how far the next.
    pub(super) fn columns(&self, group: usize, t: usize, rows: usize, x: &[E], stride: usize) -> (*const E, isize) {
        let (first, step) = self.order(t, rows, stride);
        (x[first + group * GROUP..].as_ptr(), step)
    }

    /// The inputs of `n` samples from `t` on, in the layer's order, a lane each.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn pack(
        &self,
        isa: Isa,
        group: usize,
        t: usize,
        n: usize,
        rows: usize,
        x: &[E],
        stride: usize,
        u: &mut [E],
    ) {
        if self.in_order {
            let (x, step) = self.columns(group, t, rows, x, stride);
            // SAFETY: `x` has `rows` whole rows, and the group's columns are within each.
            unsafe { columns::pack::<E, 1>(isa, n, (x, step), u, n * GROUP) };
            return;
        }
        let (first, step) = self.order(t, rows, stride);
        for (i, u) in u.chunks_exact_mut(GROUP).take(n).enumerate() {
            let x = &x[(first as isize + i as isize * step) as usize..];
            for (u, lane) in u.iter_mut().zip(&self.lanes[group]) {
                *u = lane.map_or(E::ZERO, |l| x[l.channel]);
            }
        }
    }

    /// Whether answers go to this group's columns as they are.
    pub(super) fn straight(&self) -> bool {
        self.parts == 1 && self.function == Function::Identity && self.direction == Direction::Forward
    }

    /// Adds the direct path, and finishes the answers.
    ///
    /// # Safety
    /// As [`Lti::run`].
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn unpack(
        &self,
        isa: Isa,
        group: usize,
        t: usize,
        n: usize,
        rows: usize,
        u: &[E],
        z: &mut [E],
        y: *mut E,
        stride: usize,
    ) {
        let skip = &self.skip[group * GROUP..];
        // SAFETY: rows t to t + n of `y` are within `rows`; the caller answers for this group's columns.
        unsafe {
            if self.straight() {
                let y = y.add(t * stride + group * GROUP);
                columns::unpack_with_skip(isa, n, skip, u, z, y, stride as isize);
            } else {
                columns::add_skip(isa, n, skip, u, z);
                self.finish(isa, group, t, n, rows, z, y, stride);
            }
        }
    }

    /// Sums the parts, applies the function and writes this group's columns.
    ///
    /// # Safety
    /// As [`Lti::run`].
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn finish(
        &self,
        isa: Isa,
        group: usize,
        t: usize,
        n: usize,
        rows: usize,
        z: &mut [E],
        y: *mut E,
        stride: usize,
    ) {
        if self.parts > 1 {
            for z in z.chunks_exact_mut(GROUP).take(n) {
                for part in 1..self.parts {
                    for v in 0..self.outputs {
                        z[v] += z[part * self.outputs + v];
                    }
                }
            }
        }
        match self.direction {
            // SAFETY: the rows are within `rows` and padded to whole groups, the columns are this group's own.
            Direction::Forward => unsafe {
                let y = y.add(t * stride + group * GROUP);
                pointwise::unpack::<E, 1>(isa, self.function, n, z, n * GROUP, (y, stride as isize));
            },
            // The answer to the sample at i from the end goes to those before it.
            Direction::Backward => {
                let width = (self.outputs - group * GROUP).min(GROUP);
                for (i, z) in z.chunks_exact(GROUP).take(n.min((rows - 1).saturating_sub(t))).enumerate() {
                    // SAFETY: row rows - 2 - t - i is within `rows`, and the group's columns within it.
                    let to = unsafe { y.add((rows - 2 - t - i) * stride + group * GROUP) };
                    for (l, &z) in z.iter().enumerate().take(width) {
                        // SAFETY: lane l is one of the group's `width` columns, which no one else touches.
                        unsafe { *to.add(l) += z };
                    }
                }
            }
        }
    }
}

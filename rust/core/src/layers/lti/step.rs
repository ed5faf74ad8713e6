//! A few samples of each of some streams.

use super::super::system::Recurrence;
use super::{Direction, Lti};
use crate::kernels::step::{self, Streams};
use crate::kernels::{Elem, Isa, columns};
use std::ops::Range;

impl<E: Elem> Lti<E> {
    /// Whether so many samples go as single ones: where lanes, inputs and outputs are the same channels, which then need no
    /// packing, and where that is faster.
    pub fn steps(&self, samples: usize) -> bool {
        self.in_order && self.direction == Direction::Forward && (samples == 1 || self.groups[0].steps(samples))
    }

    /// Moves groups of some streams on by their rows. Then [`Lti::finish_step`] is due.
    ///
    /// # Safety
    /// The rows and states are valid, and no one else touches these groups' parts of what is written.
    pub unsafe fn step(&self, isa: Isa, phase: usize, groups: Range<usize>, streams: Streams<E>) {
        const ONE_KIND: &str = "the groups of a layer are of one kind";
        // SAFETY: the caller answers for the rows and states of these groups of all streams.
        unsafe {
            match &self.groups[0] {
                Recurrence::Diagonal(_) => {
                    let modes = |g: usize| match &self.groups[g] {
                        Recurrence::Diagonal(modes) => modes,
                        _ => unreachable!("{ONE_KIND}"),
                    };
                    step::step(isa, phase, self.stagger, groups, modes, streams);
                }
                Recurrence::LowRank(_) => {
                    let system = |g: usize| match &self.groups[g] {
                        Recurrence::LowRank(system) => system,
                        _ => unreachable!("{ONE_KIND}"),
                    };
                    step::step(isa, phase, self.stagger, groups, system, streams);
                }
                Recurrence::Triangular(_) | Recurrence::Window(_) => {
                    for group in groups {
                        for (s, t) in (0..streams.count()).flat_map(|s| (0..streams.rows()).map(move |t| (s, t))) {
                            let (u, y, state) = streams.part((s, t), group, self.group_state_len());
                            self.groups[group].scan(isa, phase + t, 1, u, y, state);
                        }
                    }
                }
            }
        }
    }

    /// Adds the direct path to some rows, and applies the function.
    pub fn finish_step(&self, isa: Isa, rows: usize, x: &[E], y: &mut [E]) {
        columns::finish_rows(isa, self.function, rows, &self.skip, x, y);
    }
}

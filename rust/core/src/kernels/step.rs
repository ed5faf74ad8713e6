//! A few samples of many streams, group by group, so that a group's coefficients are read once for all streams.

use super::layout::fetch;
use super::lookahead::{Pending, Sample, SampleCount};
use super::modal::{Modal, with_products};
use super::mode_state::modes_len;
use super::{Elem, GROUP, Isa, Kernel, Lanes};
use std::ops::Range;

/// The rows and states of some streams in a layer, each an address and the distance to the next row or state in elements.
#[derive(Clone, Copy, Debug)]
pub struct Streams<E> {
    count: usize,
    rows: usize,
    u: (*const E, usize),
    y: (*mut E, usize),
    state: (*mut E, usize),
}

impl<E: Elem> Streams<E> {
    /// `count` streams of `rows` rows, one stream's after the other's. Rows `u` are read and rows `y` overwritten; the
    /// columns of a group follow those of the group before. A state is a row of [`GROUP`] elements that begins with the [`SampleCount`], and then the states of all
    /// groups, one after the other.
    ///
    /// # Safety
    /// As long as they are used through this value, all rows are valid to read at `u` and to write at `y`, and `count`
    /// states to read and write at `state`. Meanwhile nothing writes `u` or the sample counts, or accesses what is
    /// written.
    pub unsafe fn new(
        (count, rows): (usize, usize),
        u: (*const E, usize),
        y: (*mut E, usize),
        state: (*mut E, usize),
    ) -> Self {
        Self { count, rows, u, y, state }
    }

    /// How many streams there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows of each.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The single samples of stream `s` before these.
    ///
    /// # Panics
    /// Where there is no such stream.
    #[inline(always)]
    pub fn sample_count(&self, s: usize) -> SampleCount {
        assert!(s < self.count);
        // SAFETY: `new`'s caller guarantees the states of `count` streams, each of which begins with the count.
        SampleCount::of(unsafe { *self.state.0.add(s * self.state.1) })
    }

    /// The columns of row `t` of `u` and `y` and the state of one group of stream `s`, where a group's state is `state_len`
    /// elements.
    ///
    /// # Safety
    /// The layer has such a group, with such a state; no other slice of this group's part of `y` and of the state is
    /// in use.
    ///
    /// # Panics
    /// Where there is no such stream or row.
    #[inline(always)]
    pub unsafe fn part<'a>(
        &self,
        (s, t): (usize, usize),
        group: usize,
        state_len: usize,
    ) -> (&'a [E], &'a mut [E], &'a mut [E]) {
        assert!(s < self.count && t < self.rows);
        let row = s * self.rows + t;
        // SAFETY: `new`'s caller guarantees the rows and the state of stream s, this one's that they have the group,
        // and that the slices that are written are the only ones.
        unsafe {
            let (u, y) = (self.u.0.add(row * self.u.1 + group * GROUP), self.y.0.add(row * self.y.1 + group * GROUP));
            let state = self.state.0.add(s * self.state.1 + GROUP + group * state_len);
            (
                std::slice::from_raw_parts(u, GROUP),
                std::slice::from_raw_parts_mut(y, GROUP),
                std::slice::from_raw_parts_mut(state, state_len),
            )
        }
    }
}

/// Moves `groups` of some streams on by their rows. `group(g)` is group g; tiny numbers are flushed as in
/// [`Modal::one_by_one`], and group g visits its modes with the stagger `stagger` + g (see
/// [`LookAhead::pending`](super::lookahead::LookAhead::pending)).
///
/// # Safety
/// The streams' rows and states have these groups, one after the other, and nothing else accesses these groups' parts
/// of what is written.
pub unsafe fn step<'a, E: Elem, G: Modal<E> + 'a>(
    isa: Isa,
    phase: usize,
    stagger: usize,
    groups: Range<usize>,
    group: impl Fn(usize) -> &'a G,
    streams: Streams<E>,
) {
    isa.run(Step { phase, stagger, groups, group, streams });
}

/// How many streams on the rows are prefetched that any sample needs, visit or not.
const ROWS_AHEAD: usize = 8;

struct Step<E, F> {
    phase: usize,
    stagger: usize,
    groups: Range<usize>,
    group: F,
    streams: Streams<E>,
}

impl<'a, E: Elem, G: Modal<E> + 'a, F: Fn(usize) -> &'a G> Kernel<E> for Step<E, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { phase, stagger, groups, group, streams } = self;
        let (all, stride) = (streams.count, streams.state.1);
        for g in groups.clone() {
            let group = group(g);
            for s in 0..all {
                let mut count = streams.sample_count(s);
                // The same group of a later stream, or after the last ones the next group of the first ones.
                let soon = if s + ROWS_AHEAD < all {
                    fetch(streams.state.0.wrapping_add((s + ROWS_AHEAD) * stride));
                    ROWS_AHEAD * stride
                } else if all > ROWS_AHEAD && g + 1 < groups.end {
                    group.state_len().wrapping_sub((all - ROWS_AHEAD) * stride)
                } else {
                    0
                };
                let next = if s + 1 < all { stride } else { 0 };
                for t in 0..streams.rows {
                    // SAFETY: the caller of `step` guarantees that the streams have this group, and that nothing else
                    // accesses it.
                    let (u, y, state) = unsafe { streams.part((s, t), g, group.state_len()) };
                    let (x, ahead) = state.split_at_mut(modes_len::<E>(group.modes()));
                    match group.look_ahead().map(|system| (system, system.pending(count, stagger + g))) {
                        None | Some((_, Pending::OneByOne)) => group.one_by_one(lanes, phase + t, 1, u, y, x),
                        Some((system, pending)) => {
                            let sample = Sample { system, x, ahead, pending, next, soon };
                            with_products!(G, group.products(), K, sample.run::<L, K>(lanes, u, y));
                        }
                    }
                    count = count.next();
                }
            }
        }
    }
}

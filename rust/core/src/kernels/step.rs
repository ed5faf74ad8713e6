//! One sample of many streams: groups of channels, and the streams of each.

use super::layout::fetch;
use super::lookahead::{NextStreams, Pending, ROWS_AHEAD, Sample, SampleCount};
use super::modal::{Modal, with_products};
use super::mode_state::modes_len;
use super::{Elem, GROUP, Isa, Kernel, Lanes};
use std::ops::Range;

/// Where the rows and states of some streams stand, each with the distance to the next stream's.
#[derive(Clone, Copy, Debug)]
pub struct Streams<E> {
    /// How many.
    pub count: usize,
    /// A row each: a group's columns follow those of the group before.
    pub u: (*const E, usize),
    /// A row each, overwritten.
    pub y: (*mut E, usize),
    /// The state of the layer: a row that begins with its [`SampleCount`], then the states of all
    /// groups, one after the other.
    pub state: (*mut E, usize),
}

impl<E> Streams<E> {
    /// The single samples of stream `s` so far.
    ///
    /// # Safety
    /// There is such a stream, whose state is valid.
    #[inline(always)]
    pub unsafe fn sample_count(&self, s: usize) -> SampleCount
    where
        E: Elem,
    {
        // SAFETY: the state of stream `s` begins there.
        SampleCount::of(unsafe { *self.state.0.add(s * self.state.1) })
    }

    /// The columns and the state of one group of stream `s`, where each group has `state_len` elements.
    ///
    /// # Safety
    /// All of them are valid, and no one else touches what is written.
    #[inline(always)]
    pub unsafe fn part<'a>(&self, s: usize, group: usize, state_len: usize) -> (&'a [E], &'a mut [E], &'a mut [E]) {
        // SAFETY: as the caller's.
        unsafe {
            let (u, y) = (self.u.0.add(s * self.u.1 + group * GROUP), self.y.0.add(s * self.y.1 + group * GROUP));
            let state = self.state.0.add(s * self.state.1 + GROUP + group * state_len);
            (
                std::slice::from_raw_parts(u, GROUP),
                std::slice::from_raw_parts_mut(y, GROUP),
                std::slice::from_raw_parts_mut(state, state_len),
            )
        }
    }
}

/// One sample of `groups` of some streams.
///
/// # Safety
/// The rows and states are valid, and no one else touches what is written.
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
        for g in groups {
            let group = group(g);
            for s in 0..streams.count {
                // SAFETY: the caller of `step` answers for the rows and states.
                let (count, (u, y, state)) =
                    unsafe { (streams.sample_count(s), streams.part(s, g, group.state_len())) };
                let next = NextStreams { count: streams.count - 1 - s, stride: streams.state.1 };
                if let Some(far) = next.offset(ROWS_AHEAD) {
                    fetch(streams.state.0.wrapping_add(s * streams.state.1 + far));
                }
                let (x, ahead) = state.split_at_mut(modes_len::<E>(group.modes()));
                match group.look_ahead().map(|system| (system, system.pending(count, stagger + g))) {
                    None | Some((_, Pending::OneByOne)) => group.one_by_one(lanes, phase, 1, u, y, x),
                    Some((system, pending)) => {
                        let sample = Sample { system, x, ahead, pending, next };
                        with_products!(G, group.products(), K, sample.run::<L, K>(lanes, u, y));
                    }
                }
            }
        }
    }
}

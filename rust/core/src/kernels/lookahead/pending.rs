//! How many single samples there were, and how many of their inputs are pending.

use super::layout::MOST_SAMPLES;
use crate::kernels::Elem;

/// Single samples since the last run of samples. Beyond the first few only the remainder by the samples between visits
/// matters, so the count stays small.
#[derive(Clone, Copy, Debug)]
pub struct SampleCount(pub(super) usize);

impl SampleCount {
    /// From a number of a state. Whatever number that is, the count is in range.
    #[inline(always)]
    pub fn of<E: Elem>(count: E) -> Self {
        Self((count.f64() as usize).min(2 * MOST_SAMPLES - 1))
    }

    /// After one more.
    #[inline(always)]
    pub fn next(self) -> Self {
        let count = self.0 + 1;
        Self(if count < 2 * MOST_SAMPLES { count } else { MOST_SAMPLES })
    }

    /// After so many more.
    pub fn after(self, samples: usize) -> Self {
        (0..samples).fold(self, |count, _| count.next())
    }

    /// The number that stands for it in a state.
    #[inline(always)]
    pub fn number<E: Elem>(self) -> E {
        E::of(self.0 as f64)
    }
}

/// Which inputs of single samples the modes have not been moved on by.
#[derive(Clone, Copy, Debug)]
pub enum Pending {
    /// None, and the next sample moves the modes on by itself: there was no visit yet.
    OneByOne,
    /// None, and the next sample visits the modes for the first time.
    FirstVisit,
    /// The last so many, which are stored.
    Inputs(usize),
}

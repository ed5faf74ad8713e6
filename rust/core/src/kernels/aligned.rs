//! Vectors that start on a cache line, so that no load of a row straddles two.

use super::{Elem, GROUP};
use crate::error::{Error, Result};
use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Line<E>([E; GROUP]);

/// A fixed number of elements, starting on a cache line.
#[derive(Clone, Debug, Default)]
pub struct Aligned<E> {
    lines: Vec<Line<E>>,
    len: usize,
}

impl<E: Elem> Aligned<E> {
    /// `count` times `len` zeros, for a size that a user gave.
    ///
    /// # Errors
    /// [`Error::Value`] where that is more memory than there is.
    pub fn try_zeros(what: &str, count: usize, len: usize) -> Result<Self> {
        let failed = || Error::Value(format!("{what}: expected what fits into memory, found {count}"));
        let len = count.checked_mul(len).filter(|n| n.checked_mul(size_of::<E>()).is_some()).ok_or_else(failed)?;
        let mut probe: Vec<Line<E>> = Vec::new();
        probe.try_reserve_exact(len.div_ceil(GROUP)).map_err(|_| failed())?;
        drop(probe);
        Ok(Self::zeros(len))
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line::default(); len.div_ceil(GROUP)], len }
    }
}

impl<E: Elem> FromIterator<E> for Aligned<E> {
    fn from_iter<I: IntoIterator<Item = E>>(items: I) -> Self {
        let items: Vec<E> = items.into_iter().collect();
        let mut aligned = Self::zeros(items.len());
        aligned.copy_from_slice(&items);
        aligned
    }
}

impl<E> Deref for Aligned<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        // SAFETY: lines are arrays of E without padding (16 elements of 4 or 8 bytes fill whole lines), and there
        // are at least `len` elements.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<E> DerefMut for Aligned<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

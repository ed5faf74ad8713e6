//! Vectors that start on a cache line, so that no load of a row straddles two; large ones ask for large pages.

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
        let zeros = count.checked_mul(len).filter(|n| n.checked_mul(size_of::<E>()).is_some()).and_then(Self::reserved);
        zeros.ok_or_else(|| Error::Value(format!("{what}: expected what fits into memory, found {count}")))
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self::reserved(len).expect("memory for a model's own arrays")
    }

    fn reserved(len: usize) -> Option<Self> {
        let mut lines = Vec::new();
        lines.try_reserve_exact(len.div_ceil(GROUP)).ok()?;
        prefer_large_pages(&mut lines);
        lines.resize(len.div_ceil(GROUP), Line::default());
        Some(Self { lines, len })
    }
}

/// Asks for large pages before the memory is touched: what is read from end to end with every sample spends much of
/// its time on finding pages otherwise.
#[cfg(target_os = "linux")]
fn prefer_large_pages<T>(memory: &mut Vec<T>) {
    const PAGE: usize = 4096;
    const LARGE: usize = 1 << 22;
    let bytes = memory.capacity() * size_of::<T>();
    if bytes >= LARGE {
        let start = memory.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE);
        // SAFETY: whole pages within memory that is this vector's own; the advice changes none of its contents.
        // Where it is not taken, the pages are small.
        unsafe { libc::madvise(start.add(skipped).cast(), (bytes - skipped) / PAGE * PAGE, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages<T>(_: &mut Vec<T>) {}

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

//! Vectors that start on a cache line, so that no load of a row straddles two; large ones ask for large pages.

use super::Elem;
use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed};
use std::ops::{Deref, DerefMut};

/// A fixed number of elements, starting on a cache line.
#[derive(Debug, Default)]
pub struct Aligned<E> {
    /// With spare elements, so that `start` can be on a cache line.
    storage: Vec<E>,
    start: usize,
    len: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<E: Elem> Aligned<E> {
    /// `count` times `len` zeros, for a size that a user gave.
    ///
    /// # Errors
    /// [`Error::Memory`] where that is more memory than there is.
    pub fn try_zeros(what: &str, count: usize, len: usize) -> Result<Self> {
        let len = count.checked_mul(len).ok_or_else(|| too_large(what, count))?;
        let spare = len.checked_add(LINE / size_of::<E>());
        let storage = spare.and_then(try_vec).ok_or_else(|| too_large(what, count))?;
        Ok(Self::holding(storage, len))
    }

    /// `len` zeros. Memory that is never touched costs nothing.
    pub fn zeros(len: usize) -> Self {
        Self::holding(vec![E::ZERO; len + LINE / size_of::<E>()], len)
    }

    fn holding(mut storage: Vec<E>, len: usize) -> Self {
        prefer_large_pages(&mut storage);
        let start = storage.as_ptr().align_offset(LINE);
        Self { storage, start, len }
    }
}

/// So many zeros, whose memory comes zeroed from the system; None where there is too little of it.
fn try_vec<E: Elem>(len: usize) -> Option<Vec<E>> {
    let layout = Layout::array::<E>(len).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc_zeroed(layout) }.cast::<E>();
    // SAFETY: the allocator gave memory for so many elements, of which zeroed bytes are zeros.
    (!memory.is_null()).then(|| unsafe { Vec::from_raw_parts(memory, len, len) })
}

fn too_large(what: &str, count: usize) -> Error {
    Error::Memory(format!("{what}: expected what fits into memory, found {count}"))
}

/// `count` times `len`, where so many elements fit into memory at present.
///
/// # Errors
/// [`Error::Memory`] where they do not: `what` names the count.
pub fn fits<E>(what: &str, count: usize, len: usize) -> Result<usize> {
    let len = count.checked_mul(len).ok_or_else(|| too_large(what, count))?;
    Vec::<E>::new().try_reserve_exact(len.saturating_add(LINE)).map_err(|_| too_large(what, count))?;
    Ok(len)
}

/// Asks for large pages before the memory is touched: reading all of it with every sample would otherwise spend much
/// time on address translation.
#[cfg(target_os = "linux")]
fn prefer_large_pages<T>(memory: &mut [T]) {
    const PAGE: usize = 4096;
    const LARGE: usize = 1 << 22;
    let bytes = size_of_val(memory);
    if bytes >= LARGE {
        let start = memory.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE);
        // SAFETY: these are whole pages within `memory`, and the advice changes none of their contents. Where the
        // system does not follow it, the pages stay small.
        unsafe { libc::madvise(start.add(skipped).cast(), (bytes - skipped) / PAGE * PAGE, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages<T>(_: &mut [T]) {}

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
        &self.storage[self.start..self.start + self.len]
    }
}

impl<E> DerefMut for Aligned<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

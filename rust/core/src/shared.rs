//! A pointer that several threads write through.

/// A pointer that several threads write through, each to its own part.
///
/// Only this crate makes one, and whoever makes one answers that the threads' parts do not overlap.
#[derive(Debug)]
pub(crate) struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: it is only an address. Whoever reads or writes through it, by the unsafe methods below, answers for overlaps.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: it is only an address, and its methods that use it are unsafe.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// For memory that begins at `pointer`.
    pub fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The address of element `i`.
    ///
    /// # Safety
    /// It is within the memory, or just behind its end.
    #[inline]
    pub unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: the caller keeps `i` within the memory that the pointer addresses.
        unsafe { self.0.add(i) }
    }

    /// The `len` elements from `at` on.
    ///
    /// # Safety
    /// They are valid, and no one else touches them while the slice lives.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub unsafe fn part<'a>(&self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller answers that these elements are valid and no one else's while the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

//! A reserve of memory for when the system has none: small allocations, whose failure Rust's collections answer by ending the
//! process, then come from it.
//!
//! Large ones are made fallibly and are errors of the engine, and so is little memory before each layer that is planned. So a
//! call that meets the end of memory fails at the next of these, and gives back what it has taken from the reserve.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the reserve. Nothing touches them while there is other memory, and the system gives them when they are touched.
const SIZE: usize = 32 << 20;

/// Bytes of an allocation that may come from it: larger ones would use it up.
const LARGEST: usize = SIZE / 4;

/// Bytes that are handed out together, and their alignment.
const PIECE: usize = 512;

/// The system's allocator, and behind it the reserve.
#[repr(align(4096))]
struct Reserve {
    bytes: UnsafeCell<[u8; SIZE]>,
    /// Which pieces are taken.
    taken: UnsafeCell<[bool; SIZE / PIECE]>,
    /// Whether a thread is looking at those, or changing them. A lock of the standard library may allocate.
    locked: AtomicBool,
}

// SAFETY: which pieces are taken is looked at and changed by one thread at a time, and each piece has one user.
unsafe impl Sync for Reserve {}

#[global_allocator]
static RESERVE: Reserve = Reserve {
    bytes: UnsafeCell::new([0; SIZE]),
    taken: UnsafeCell::new([false; SIZE / PIECE]),
    locked: AtomicBool::new(false),
};

impl Reserve {
    /// Calls `f` with what is taken, as the only thread.
    #[cold]
    fn with_taken<T>(&self, f: impl FnOnce(&mut [bool]) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: no other thread is here.
        let result = f(unsafe { &mut *self.taken.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// Memory of the reserve, or null where too little is left.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST || layout.align() > PIECE {
            return null_mut();
        }
        let wanted = layout.size().div_ceil(PIECE);
        self.with_taken(|taken| {
            let mut free = 0;
            for piece in 0..taken.len() {
                free = if taken[piece] { 0 } else { free + 1 };
                if free == wanted {
                    let first = piece + 1 - wanted;
                    taken[first..=piece].fill(true);
                    return self.bytes.get().cast::<u8>().wrapping_add(first * PIECE);
                }
            }
            null_mut()
        })
    }

    /// Takes back memory of the reserve.
    fn give_back(&self, at: *mut u8, layout: Layout) {
        let first = (at.addr() - self.bytes.get().addr()) / PIECE;
        self.with_taken(|taken| taken[first..first + layout.size().div_ceil(PIECE)].fill(false));
    }

    fn owns(&self, at: *mut u8) -> bool {
        at.addr().wrapping_sub(self.bytes.get().addr()) < SIZE
    }
}

// SAFETY: memory is the system's, or pieces of the reserve that nobody else has and whose size and alignment fit.
unsafe impl GlobalAlloc for Reserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of this method, which is the system allocator's.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { self.take(layout) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of this method, which is the system allocator's.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            return memory;
        }
        let memory = self.take(layout);
        if !memory.is_null() {
            // SAFETY: so many bytes are the caller's from now on.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.owns(at) {
            // SAFETY: the caller keeps to the contract of this method, which is the system allocator's.
            let memory = unsafe { System.realloc(at, layout, size) };
            if !memory.is_null() {
                return memory;
            }
        }
        // SAFETY: the caller sees to it that the size is not zero and does not overflow.
        let memory = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !memory.is_null() {
            // SAFETY: both have so many bytes, and the old ones are the caller's no more.
            unsafe {
                memory.copy_from_nonoverlapping(at, size.min(layout.size()));
                self.dealloc(at, layout);
            }
        }
        memory
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if self.owns(at) {
            self.give_back(at, layout);
        } else {
            // SAFETY: it came from the system's allocator.
            unsafe { System.dealloc(at, layout) }
        }
    }
}

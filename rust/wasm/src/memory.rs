//! The allocator: it counts its calls, and knows when there was no memory left.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

struct Watched;

#[global_allocator]
static WATCHED: Watched = Watched;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static SHORTAGE: AtomicBool = AtomicBool::new(false);

/// Calls so far, freeing too.
pub fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// What there is to say where no memory was left, and nobody has said anything since.
pub fn shortage() -> Option<&'static str> {
    SHORTAGE.load(Ordering::Relaxed).then_some("the module has no memory left")
}

/// Somebody has something better to say.
pub fn forget_shortage() {
    SHORTAGE.store(false, Ordering::Relaxed);
}

fn watch(memory: *mut u8) -> *mut u8 {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    if memory.is_null() {
        SHORTAGE.store(true, Ordering::Relaxed);
    }
    memory
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of this method, which is the system allocator's.
        watch(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        watch(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        watch(unsafe { System.realloc(at, layout, size) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

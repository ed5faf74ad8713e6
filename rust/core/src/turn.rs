//! Whose turn it is, where several blocks of samples are under way at once and each moves the same states on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Parts of a state that blocks may move on one by one.
pub const STEPS: usize = 16;

/// Looks at a turn before a thread that waits for it lets others have its core.
const SPINS: usize = 256;

/// The blocks that have come so far with some states.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Turns {
    /// Blocks that a thread has taken.
    begun: AtomicUsize,
    /// Blocks that have moved each part on.
    moved: [AtomicUsize; STEPS],
}

impl Turns {
    /// Whether all blocks before this one are done.
    pub fn ready(&self, block: usize) -> bool {
        // A block moves the last part on last.
        self.moved[STEPS - 1].load(Ordering::Acquire) == block
    }

    /// Whether threads have taken all blocks before this one: it may begin, and wait for them where it needs their states.
    pub fn open(&self, block: usize) -> bool {
        self.begun.load(Ordering::Acquire) == block
    }

    /// Takes a block.
    pub fn begin(&self, block: usize) {
        self.begun.store(block + 1, Ordering::Release);
    }
}

/// A block's turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a>(Option<At<'a>>);

#[derive(Clone, Copy, Debug)]
struct At<'a> {
    turns: &'a Turns,
    block: usize,
    failed: &'a AtomicBool,
    /// The part that is step 0.
    first: usize,
}

impl Turn<'_> {
    /// Where nobody else moves the states.
    pub const FREE: Turn<'static> = Turn(None);

    /// The turn at the parts from the `first` on, which are counted from there.
    pub fn from(self, first: usize) -> Self {
        Turn(self.0.map(|at| At { first: at.first + first, ..at }))
    }

    /// Waits until all blocks before this one have moved part `step` on.
    ///
    /// # Panics
    /// Where a thread has failed, for then they may never do so.
    pub fn wait(&self, step: usize) {
        let Some(At { turns, block, failed, first }) = self.0 else { return };
        let mut looks = 0;
        while turns.moved[first + step].load(Ordering::Acquire) < block {
            assert!(!failed.load(Ordering::Relaxed), "another thread failed");
            looks += 1;
            if looks % SPINS == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// As [`Turn::wait`], for all parts.
    pub fn wait_for_all(&self) {
        let first = self.0.map_or(0, |at| at.first);
        (0..STEPS - first).for_each(|step| self.wait(step));
    }

    /// This block has moved part `step` on, after it had waited for it.
    pub fn pass(&self, step: usize) {
        if let Some(At { turns, block, first, .. }) = self.0 {
            turns.moved[first + step].store(block + 1, Ordering::Release);
        }
    }

    /// This block has moved all parts on.
    ///
    /// # Panics
    /// As [`Turn::wait`].
    pub fn end(&self) {
        let Some(At { turns, block, first, .. }) = self.0 else { return };
        for step in 0..STEPS - first {
            self.wait(step);
            // The next block may have moved it on by now.
            if turns.moved[first + step].load(Ordering::Relaxed) == block {
                self.pass(step);
            }
        }
    }
}

impl<'a> Turn<'a> {
    /// The turn of a block; `failed` says that a thread has failed.
    pub fn of(turns: &'a Turns, block: usize, failed: &'a AtomicBool) -> Self {
        Turn(Some(At { turns, block, failed, first: 0 }))
    }
}

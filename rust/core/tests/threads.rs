//! How work is shared out: everything once, in order where that matters, and by no two threads at the same place.

use proptest::prelude::*;
use ssmrt_core::internals::threads::Team;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps a thread busy for a while that differs between items.
fn work(seed: usize) {
    for i in 0..seed.wrapping_mul(0x9e37_79b9) % 5000 {
        std::hint::black_box(i);
    }
}

/// Counts who is inside.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "two at once");
        Self(count)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

proptest! {
    #[test]
    fn each_item_is_done_once(n in 0usize..200, seed: usize) {
        let team = Team::all().unwrap();
        let done: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        let workers: Vec<_> = (0..team.size()).map(|_| AtomicUsize::new(0)).collect();
        team.each(n, |worker, item| {
            let _alone = Inside::enter(&workers[worker]);
            work(seed ^ item);
            done[item].fetch_add(1, Ordering::Relaxed);
        });
        prop_assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn stages_and_blocks_keep_their_order(blocks in 0usize..20, stages in 1usize..7, slots in 1usize..6, seed: usize) {
        let done = Mutex::new(Vec::new());
        let places: Vec<_> = (0..slots).map(|_| AtomicUsize::new(0)).collect();
        Team::all().unwrap().pipeline(blocks, stages, slots, |block, stage, slot| {
            let _alone = Inside::enter(&places[slot]);
            let begun = done.lock().unwrap().len();
            work(seed ^ (block * stages + stage));
            done.lock().unwrap().push((block, stage, slot, begun));
        });
        let done = done.into_inner().unwrap();
        prop_assert_eq!(done.len(), blocks * stages);
        let ended = |b, s| done.iter().position(|&(block, stage, ..)| (block, stage) == (b, s)).unwrap();
        for &(block, stage, slot, begun) in &done {
            prop_assert_eq!(slot, done[ended(block, 0)].2);
            prop_assert!(stage == 0 || ended(block, stage - 1) < begun);
            prop_assert!(block == 0 || ended(block - 1, stage) < begun);
            // Whoever had the slot before has left it.
            prop_assert!(stage > 0 || block < slots || ended(block - slots, stages - 1) < begun);
        }
    }
}

#[test]
fn a_panic_ends_the_pipeline() {
    let team = Team::all().unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| {
        team.pipeline(10, 3, 3, |block, stage, _| assert!((block, stage) != (4, 1), "as it should"));
    }));
    assert!(result.is_err());
}

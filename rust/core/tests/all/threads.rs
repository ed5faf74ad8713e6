//! How work is shared out: everything once, in order where that matters, and by no two threads at the same place.

use proptest::prelude::*;
use ssmrt_core::internals::threads::{Flow, Order, STEPS, Team, Turn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

static TEAM: LazyLock<Team> = LazyLock::new(|| Team::of(3));

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
        let team = &*TEAM;
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
    fn stages_and_blocks_keep_their_order(
        blocks in 1usize..20, pieces in prop::collection::vec((1usize..=64, order()), 1..7), slots in 1usize..6, seed: usize,
    ) {
        let (team, stages) = (&*TEAM, pieces.len());
        let log = Log::default();
        team.flow(&Noted {
            log: &log,
            blocks,
            slots,
            pieces: &pieces,
            workers: (0..team.size()).map(|_| AtomicUsize::new(0)).collect(),
            seed,
            panics: false,
        });
        let log = log.0.into_inner().unwrap();
        let at = |event: Event| log.iter().position(|e| *e == event).unwrap();
        let events = |(n, order): &(usize, Order)| 1 + n * if *order == Order::Within { 3 } else { 2 };
        prop_assert_eq!(log.len(), blocks * (1 + pieces.iter().map(events).sum::<usize>()));
        for b in 0..blocks {
            // Whoever had the slot before has left it.
            let begun = at(Event::Begin(b));
            prop_assert!(b < slots || at(Event::Finish(b - slots, stages - 1)) < begun);
            for (s, (n, order)) in pieces.iter().enumerate() {
                let ready = if s == 0 { begun } else { at(Event::Finish(b, s - 1)) };
                for p in 0..*n {
                    let from = at(Event::Start(b, s, p));
                    prop_assert!(ready < from && at(Event::End(b, s, p)) < at(Event::Finish(b, s)));
                    if b > 0 && *order == Order::After {
                        prop_assert!(at(Event::End(b - 1, s, p)) < from);
                    }
                    if *order == Order::Within {
                        prop_assert!(b == 0 || at(Event::Moved(b - 1, s, p)) < at(Event::Moved(b, s, p)));
                        prop_assert!(from < at(Event::Moved(b, s, p)) && at(Event::Moved(b, s, p)) < at(Event::End(b, s, p)));
                    }
                }
            }
        }
    }
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Free), Just(Order::After), Just(Order::Within)]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Begin(usize),
    Start(usize, usize, usize),
    Moved(usize, usize, usize),
    End(usize, usize, usize),
    Finish(usize, usize),
}

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl Log {
    fn note(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// Writes down what is done when.
struct Noted<'a> {
    log: &'a Log,
    blocks: usize,
    slots: usize,
    /// Of each stage: pieces, and their order.
    pieces: &'a [(usize, Order)],
    workers: Vec<AtomicUsize>,
    seed: usize,
    panics: bool,
}

impl Flow for Noted<'_> {
    fn blocks(&self) -> usize {
        self.blocks
    }
    fn stages(&self) -> usize {
        self.pieces.len()
    }
    fn slots(&self) -> usize {
        self.slots
    }
    fn pieces(&self, _: usize, stage: usize) -> usize {
        self.pieces[stage].0
    }
    fn order(&self, stage: usize) -> Order {
        self.pieces[stage].1
    }
    fn stays(&self) -> bool {
        self.seed.is_multiple_of(2)
    }
    fn begin(&self, block: usize, _: usize) {
        self.log.note(Event::Begin(block));
    }
    fn run(&self, worker: usize, block: usize, stage: usize, piece: usize, _: usize, turn: Turn<'_>) {
        let _alone = Inside::enter(&self.workers[worker]);
        assert!(!self.panics || (block, stage) != (4, 1), "as it should");
        self.log.note(Event::Start(block, stage, piece));
        let seed = self.seed ^ (block * self.pieces.len() + stage) ^ piece;
        work(seed);
        if self.order(stage) == Order::Within {
            // Some move nothing on themselves: the end does.
            let step = seed % STEPS;
            turn.wait(step);
            self.log.note(Event::Moved(block, stage, piece));
            if !seed.is_multiple_of(5) {
                turn.pass(step);
            }
            work(seed ^ 1);
        }
        self.log.note(Event::End(block, stage, piece));
    }
    fn finish(&self, block: usize, stage: usize, _: usize) {
        self.log.note(Event::Finish(block, stage));
    }
}

#[test]
fn a_panic_ends_the_flow() {
    let (team, log) = (&*TEAM, Log::default());
    let workers = (0..team.size()).map(|_| AtomicUsize::new(0)).collect();
    let pieces = &[(3, Order::After), (2, Order::Free), (1, Order::Within)];
    let noted = Noted { log: &log, blocks: 10, slots: 3, pieces, workers, seed: 1, panics: true };
    assert!(catch_unwind(AssertUnwindSafe(|| team.flow(&noted))).is_err());
}

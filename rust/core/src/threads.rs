//! The threads that share in sequences, in the streams of a large batch, and in the samples of a large model.

use crate::crew::{Crew, Taking};
use crate::denormals::Mode;
use crate::error::{Error, Result};
use crate::turn::{Turn, Turns};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The threads and the process that made them: a forked child has none of its parent's threads.
static THREADS: Mutex<Option<(u32, Vec<Arc<Threads>>)>> = Mutex::new(None);

/// So many threads of the process, which are started once they are needed.
struct Threads {
    size: usize,
    /// For one call at a time: it is among them, and the others stay awake for it.
    crew: OnceLock<Arc<Crew>>,
    /// For calls meanwhile, which share these; None where the system starts none.
    pool: OnceLock<Option<rayon::ThreadPool>>,
}

impl Threads {
    fn new(size: usize) -> Arc<Threads> {
        Arc::new(Threads { size, crew: OnceLock::new(), pool: OnceLock::new() })
    }

    fn crew(&self) -> &Arc<Crew> {
        self.crew.get_or_init(|| Crew::start(self.size))
    }

    fn pool(&self) -> Option<&rayon::ThreadPool> {
        let start = || {
            rayon::ThreadPoolBuilder::new().num_threads(self.size).thread_name(|i| format!("ssmrt-pool-{i}")).build()
        };
        self.pool.get_or_init(|| start().ok()).as_ref()
    }
}

/// One thread, or several.
#[derive(Clone)]
pub struct Team(Who);

impl From<Arc<Threads>> for Team {
    fn from(threads: Arc<Threads>) -> Team {
        if threads.size > 1 { Team(Who::All(threads)) } else { Team::ALONE }
    }
}

#[derive(Clone)]
enum Who {
    Alone,
    All(Arc<Threads>),
    /// A crew that was called.
    Called(Arc<Crew>),
    /// The pool, on one of whose threads the call is.
    Sharing(Arc<Threads>),
}

impl Team {
    /// The calling thread alone.
    pub const ALONE: Team = Team(Who::Alone);

    /// As many threads as `SSMRT_NUM_THREADS` says, or as the machine has cores. In a browser, the calling thread.
    ///
    /// # Errors
    /// [`Error::Value`] where `SSMRT_NUM_THREADS` is no positive integer.
    pub fn all() -> Result<Team> {
        Team::at_most(usize::MAX)
    }

    /// As [`Team::all`], but no more than `limit` threads.
    ///
    /// # Errors
    /// As [`Team::all`].
    pub fn at_most(limit: usize) -> Result<Team> {
        if cfg!(target_family = "wasm") || limit <= 1 {
            return Ok(Team::ALONE);
        }
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if !matches!(&*threads, Some((owner, _)) if *owner == process) {
            let made = Threads::new(wanted()?);
            // The parent's, if any, are left as they are: joining threads that do not exist would wait for ever.
            std::mem::forget(threads.replace((process, vec![made])));
        }
        let (_, threads) = threads.as_mut().expect("just made");
        let size = limit.min(threads[0].size);
        if let Some(found) = threads.iter().find(|threads| threads.size == size) {
            return Ok(Team::from(Arc::clone(found)));
        }
        threads.push(Threads::new(size));
        Ok(Team::from(Arc::clone(&threads[threads.len() - 1])))
    }

    /// So many threads of its own, whatever the process has: for tests.
    #[doc(hidden)]
    pub fn of(n: usize) -> Team {
        Team::from(Threads::new(n))
    }

    /// Threads of the team.
    #[inline]
    pub fn size(&self) -> usize {
        match &self.0 {
            Who::Alone => 1,
            Who::All(threads) | Who::Sharing(threads) => threads.size,
            Who::Called(crew) => crew.size(),
        }
    }

    /// As many threads that share in single samples; None where there is one.
    pub(crate) fn crew(&self) -> Option<Arc<Crew>> {
        match &self.0 {
            Who::All(threads) => Some(Arc::clone(threads.crew())),
            Who::Alone | Who::Called(_) | Who::Sharing(_) => None,
        }
    }

    /// Calls `f` with at most `limit` of a crew as its team, which stay awake meanwhile; or alone, where another thread has it.
    pub(crate) fn calling<R>(crew: &Arc<Crew>, limit: usize, f: impl FnOnce(&Team) -> R) -> R {
        match crew.call(limit) {
            Some(_called) => f(&Team(Who::Called(Arc::clone(crew)))),
            None => f(&Team::ALONE),
        }
    }

    /// Calls `f` with the team, which stays awake meanwhile.
    pub fn inside<R: Send>(&self, f: impl FnOnce(&Team) -> R + Send) -> R {
        let Who::All(threads) = &self.0 else { return f(self) };
        if let Some(_called) = threads.crew().call(threads.size) {
            return f(&Team(Who::Called(Arc::clone(threads.crew()))));
        }
        match threads.pool() {
            Some(pool) => pool.install(|| f(&Team(Who::Sharing(Arc::clone(threads))))),
            None => f(&Team::ALONE),
        }
    }

    /// Calls `f(worker, item)` for every item below `n`, in the caller's mode of denormal numbers; a thread that is done takes
    /// over from another. Calls with the same `worker`, which is below [`Team::size`], come one after the other. Most items are
    /// the same worker's each time.
    pub fn each(&self, n: usize, f: impl Fn(usize, usize) + Sync) {
        self.share(n, Taking::One, |worker, items| items.for_each(|item| f(worker, item)));
    }

    /// As [`Team::each`], for runs of items: as long ones as leaves all threads something to do until the end.
    pub fn runs(&self, n: usize, f: impl Fn(usize, Range<usize>) + Sync) {
        self.share(n, Taking::Third, f);
    }

    fn share(&self, n: usize, taking: Taking, f: impl Fn(usize, Range<usize>) + Sync) {
        let mode = Mode::now();
        let held = |worker: usize, items: Range<usize>| {
            let _mode = mode.hold();
            f(worker, items);
        };
        let share = |team: &Team| match &team.0 {
            Who::Alone | Who::All(_) => f(0, 0..n),
            Who::Called(crew) => crew.each(n, taking, &held),
            Who::Sharing(_) => {
                let worker = || rayon::current_thread_index().expect("on a thread of the pool");
                (0..n).into_par_iter().with_max_len(1).for_each(|item| held(worker(), item..item + 1));
            }
        };
        match n {
            0 => {}
            1 => f(0, 0..1),
            _ => self.inside(share),
        }
    }

    /// Takes all blocks of `flow` through its stages, as many at once as it has slots. A piece is run as soon as a thread is
    /// free and what it needs is there, the oldest block's first; and where nothing else is left to do, as soon as what it needs
    /// is on its way.
    pub fn flow(&self, flow: &impl Flow) {
        let (blocks, stages, slots) = (flow.blocks(), flow.stages(), flow.slots().min(flow.blocks()));
        let slots: Vec<Slot> = (0..slots).map(|_| Slot::default()).collect();
        let orders: Vec<Order> = (0..stages).map(|stage| flow.order(stage)).collect();
        let turns: Vec<Vec<Turns>> = (0..stages)
            .map(|stage| if orders[stage] == Order::Free { 0 } else { flow.pieces(0, stage) })
            .map(|pieces| (0..pieces).map(|_| Turns::default()).collect())
            .collect();
        let (finished, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let place = |slot: usize, done: usize| (done / stages * slots.len() + slot, done % stages);
        let open = |slot: usize, done: usize| {
            let (block, stage) = place(slot, done);
            if block >= blocks {
                return;
            }
            if stage == 0 {
                flow.begin(block, slot);
            }
            let pieces = flow.pieces(block, stage);
            assert!((1..=PIECES).contains(&pieces), "a stage has 1 to {PIECES} pieces");
            slots[slot].pieces.store(pieces, Ordering::Relaxed);
            slots[slot].left.store(pieces, Ordering::Relaxed);
            slots[slot].done.store(done, Ordering::Relaxed);
            slots[slot].free.store(u64::MAX >> (PIECES - pieces), Ordering::Release);
        };
        // A piece of a slot that this thread may run, the pieces in a circle from one of them on: of which block and stage. One
        // that has to wait for others only `early`.
        let look = |at: usize, first: u32, early: bool| {
            let slot = &slots[at];
            let mut seen = 0;
            loop {
                let free = slot.free.load(Ordering::Acquire) & !seen;
                if free == 0 {
                    return None;
                }
                let piece = (free.rotate_right(first).trailing_zeros() + first) as usize % PIECES;
                let bit = 1 << piece;
                seen |= bit;
                if slot.free.fetch_and(!bit, Ordering::Acquire) & bit == 0 {
                    continue;
                }
                // While the piece is ours, the slot stays where it is.
                let (block, stage) = place(at, slot.done.load(Ordering::Relaxed));
                let runs = |turns: &Turns| {
                    let open = early && orders[stage] == Order::Within && turns.open(block);
                    let runs = open || turns.ready(block);
                    if runs {
                        turns.begin(block);
                    }
                    runs
                };
                if turns[stage].get(piece).is_none_or(runs) {
                    return Some((at, block, stage, piece));
                }
                slot.free.fetch_or(bit, Ordering::Release);
            }
        };
        let take = |worker: usize| {
            // Its own block's rows are in its caches, which is worth a short wait.
            let own = flow.stays().then_some(worker % slots.len());
            let mine = own.and_then(|at| look(at, 0, false).or_else(|| look(at, 0, true)));
            let oldest = finished.load(Ordering::Relaxed);
            let others = |early| {
                (0..slots.len()).map(|i| (oldest + i) % slots.len()).find_map(|at| {
                    // Each thread begins elsewhere, far from the others, and at the same pieces each time: their matrices are in
                    // its caches, and no other thread writes the lines beside its own.
                    let first = worker * slots[at].pieces.load(Ordering::Relaxed) / self.size();
                    look(at, first as u32, early)
                })
            };
            mine.or_else(|| others(false)).or_else(|| others(true))
        };
        (0..slots.len()).for_each(|slot| open(slot, 0));
        self.each(self.size(), |worker, _| {
            let _watch = Watch(&failed);
            let mut idle = 0;
            while finished.load(Ordering::Relaxed) < blocks && !failed.load(Ordering::Relaxed) {
                let Some((at, block, stage, piece)) = take(worker) else {
                    // Others have what is left for the moment, and will soon be done with it.
                    idle += 1;
                    if idle % SPINS == 0 {
                        std::thread::yield_now()
                    } else {
                        std::hint::spin_loop()
                    }
                    continue;
                };
                let turn = turns[stage].get(piece).map_or(Turn::FREE, |turns| Turn::of(turns, block, &failed));
                flow.run(worker, block, stage, piece, at, turn);
                turn.end();
                let slot = &slots[at];
                if slot.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let done = slot.done.load(Ordering::Relaxed) + 1;
                    flow.finish(block, stage, at);
                    if stage + 1 == stages {
                        finished.fetch_add(1, Ordering::Release);
                    }
                    open(at, done);
                }
            }
        });
    }
}

/// Blocks that go through stages, each stage in pieces.
pub trait Flow: Sync {
    /// Blocks, one after the other.
    fn blocks(&self) -> usize;
    /// Stages that each goes through.
    fn stages(&self) -> usize;
    /// Blocks that may be under way at once, each in a slot that is its own from its first stage to its last.
    fn slots(&self) -> usize;
    /// Pieces that a stage of a block has: 1 to [`PIECES`], and all blocks alike where they have an [`Order`].
    fn pieces(&self, block: usize, stage: usize) -> usize;
    /// Whether a thread first looks for pieces of a block of its own, whose rows are in its caches, and only then for the oldest
    /// block's.
    fn stays(&self) -> bool;
    /// How the pieces of a stage follow those of the block before.
    fn order(&self, stage: usize) -> Order;
    /// A block's beginning, before all its pieces.
    fn begin(&self, block: usize, slot: usize);
    /// One piece, after all pieces of the block's stages before. Calls with the same `worker` come one after the other.
    fn run(&self, worker: usize, block: usize, stage: usize, piece: usize, slot: usize, turn: Turn<'_>);
    /// The end of a block's stage, after all its pieces.
    fn finish(&self, block: usize, stage: usize, slot: usize);
}

/// How a piece of a block follows the same piece of the block before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Not at all.
    Free,
    /// It runs after it.
    After,
    /// It runs at the same time, and waits for it by its [`Turn`] where it needs the state that it leaves.
    Within,
}

/// Pieces that a stage of a [`Flow`] may have.
pub const PIECES: usize = 64;

/// Looks at all slots before a thread that finds nothing to do lets others have its core.
const SPINS: usize = 64;

/// Where a block of a [`Flow`] stands.
#[derive(Default)]
#[repr(align(128))]
struct Slot {
    /// All stages that were done here.
    done: AtomicUsize,
    /// Pieces of the next one that no thread has taken, a bit each.
    free: AtomicU64,
    /// All its pieces, and those that are not done.
    pieces: AtomicUsize,
    left: AtomicUsize,
}

/// Tells the others where a thread panics, so that they do not wait for it.
struct Watch<'a>(&'a AtomicBool);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Team {
    /// `f(item)` for every item below `n`, in their order.
    pub fn map<T: Send>(&self, n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let slots: Vec<_> = (0..n).map(|_| Mutex::new(None)).collect();
        self.each(n, |_, i| *slots[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(f(i)));
        let made = |slot: Mutex<Option<T>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        slots.into_iter().map(|slot| made(slot).expect("every item was made")).collect()
    }
}

fn wanted() -> Result<usize> {
    match std::env::var("SSMRT_NUM_THREADS") {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(Error::Value(format!("SSMRT_NUM_THREADS: expected a positive integer, found {text:?}"))),
        },
        _ => Ok(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    }
}

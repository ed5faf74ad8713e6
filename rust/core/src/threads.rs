//! The threads that sequences and the streams of a large batch are shared out to, and those that share in the samples of
//! a large model.

use crate::crew::Crew;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The threads and the process that made them: a forked child has none of its parent's threads.
static THREADS: Mutex<Option<(u32, Arc<Threads>)>> = Mutex::new(None);

/// All threads of the process.
struct Threads {
    pool: rayon::ThreadPool,
    /// As many, once a model needs them for its samples.
    crew: OnceLock<Arc<Crew>>,
}

/// One thread, or several.
#[derive(Clone)]
pub struct Team(Who);

#[derive(Clone)]
enum Who {
    Alone,
    All(Arc<Threads>),
    /// A crew that was called.
    Called(Arc<Crew>),
}

impl Team {
    /// The calling thread alone.
    pub const ALONE: Team = Team(Who::Alone);

    /// As many threads as `SSMRT_NUM_THREADS` says, or as the machine has cores. In a browser, the calling thread.
    ///
    /// # Errors
    /// [`Error::Value`] where `SSMRT_NUM_THREADS` is no positive integer, or threads cannot be started.
    pub fn all() -> Result<Team> {
        if cfg!(target_family = "wasm") {
            return Ok(Team::ALONE);
        }
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if !matches!(&*threads, Some((owner, _)) if *owner == process) {
            let n = wanted()?;
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(n)
                .thread_name(|i| format!("ssmrt-{i}"))
                .build()
                .map_err(|e| Error::Value(format!("could not start {n} threads: {e}")))?;
            let made = Arc::new(Threads { pool, crew: OnceLock::new() });
            // The parent's pool, if any, is left as it is: joining threads that do not exist would wait for ever.
            std::mem::forget(threads.replace((process, made)));
        }
        let (_, threads) = threads.as_ref().expect("just made");
        let several = threads.pool.current_num_threads() > 1;
        Ok(if several { Team(Who::All(Arc::clone(threads))) } else { Team::ALONE })
    }

    /// Threads of the team.
    #[inline]
    pub fn size(&self) -> usize {
        match &self.0 {
            Who::Alone => 1,
            Who::All(threads) => threads.pool.current_num_threads(),
            Who::Called(crew) => crew.size(),
        }
    }

    /// As many threads that share in single samples; None where there is one.
    pub(crate) fn crew(&self) -> Option<Arc<Crew>> {
        match &self.0 {
            Who::All(threads) => Some(Arc::clone(threads.crew.get_or_init(|| Crew::start(self.size())))),
            Who::Alone | Who::Called(_) => None,
        }
    }

    /// Calls `f` with a crew as its team, which stays awake meanwhile; or alone, where another thread has it.
    pub(crate) fn calling<R>(crew: &Arc<Crew>, f: impl FnOnce(&Team) -> R) -> R {
        match crew.call() {
            Some(_called) => f(&Team(Who::Called(Arc::clone(crew)))),
            None => f(&Team::ALONE),
        }
    }

    /// Calls `f` on one of the team's threads, so that each of its calls for the others finds them awake.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Who::All(threads) => threads.pool.install(f),
            Who::Alone | Who::Called(_) => f(),
        }
    }

    /// Calls `f(worker, item)` for every item below `n`; a thread that is done takes over from another. Calls with the
    /// same `worker`, which is below [`Team::size`], come one after the other.
    pub fn each(&self, n: usize, f: impl Fn(usize, usize) + Sync) {
        match &self.0 {
            Who::All(threads) if n > 1 => threads.pool.install(|| {
                (0..n).into_par_iter().with_max_len(1).for_each(|item| {
                    f(rayon::current_thread_index().expect("on a thread of the pool"), item);
                });
            }),
            Who::Called(crew) if n > 1 => crew.each(n, &f),
            _ => (0..n).for_each(|item| f(0, item)),
        }
    }

    /// Calls `f(block, stage, slot)` for every stage of every block: after the block's stages before, and after the same
    /// stage of the block before. `slots` blocks at most are under way at once, each in a slot that is its own from
    /// its first stage to its last.
    ///
    /// A thread works on a block until that has caught up with the block before, and then takes another: each does as
    /// much as it can, however fast it is.
    pub fn pipeline(&self, blocks: usize, stages: usize, slots: usize, f: impl Fn(usize, usize, usize) + Sync) {
        let slots: Vec<Slot> = (0..slots).map(|_| Slot::default()).collect();
        let failed = AtomicBool::new(false);
        // The block that a slot has after so many stages, and which stage is next.
        let next = |slot: usize, done: usize| (done / stages * slots.len() + slot, done % stages);
        let passed = |block: usize, stage: usize| {
            let slot = &slots[block % slots.len()];
            slot.done.load(Ordering::Acquire) > block / slots.len() * stages + stage
        };
        let ready = |block: usize, stage: usize| block == 0 || passed(block - 1, stage);
        self.each(self.size(), |_, _| {
            let _watch = Watch(&failed);
            loop {
                let (mut over, mut idle) = (true, true);
                for (i, slot) in slots.iter().enumerate() {
                    if slot.taken.swap(true, Ordering::Acquire) {
                        over = false;
                        continue;
                    }
                    loop {
                        let done = slot.done.load(Ordering::Relaxed);
                        let (block, stage) = next(i, done);
                        over &= block >= blocks;
                        if block >= blocks || !ready(block, stage) {
                            break;
                        }
                        f(block, stage, i);
                        slot.done.store(done + 1, Ordering::Release);
                        idle = false;
                    }
                    slot.taken.store(false, Ordering::Release);
                }
                if over || failed.load(Ordering::Relaxed) {
                    return;
                }
                if idle {
                    std::thread::yield_now();
                }
            }
        });
    }
}

/// Where a block stands that is under way: all stages that were done here, and whether a thread is at one.
#[derive(Default)]
#[repr(align(128))]
struct Slot {
    done: AtomicUsize,
    taken: AtomicBool,
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

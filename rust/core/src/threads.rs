//! The threads that sequences and the streams of a large batch are shared out to. A sample of a few streams never comes
//! here.

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// The pool and the process that made it: a forked child has none of its parent's threads.
static POOL: Mutex<Option<(u32, Arc<rayon::ThreadPool>)>> = Mutex::new(None);

/// One thread, or several.
#[derive(Clone)]
pub struct Team(Option<Arc<rayon::ThreadPool>>);

impl Team {
    /// The calling thread alone.
    pub const ALONE: Team = Team(None);

    /// As many threads as `SSMRT_NUM_THREADS` says, or as the machine has cores.
    pub fn all() -> Result<Team> {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if !matches!(&*pool, Some((owner, _)) if *owner == process) {
            let n = wanted()?;
            let made = rayon::ThreadPoolBuilder::new()
                .num_threads(n)
                .thread_name(|i| format!("ssmrt-{i}"))
                .build()
                .map_err(|e| Error::Value(format!("could not start {n} threads: {e}")))?;
            // The parent's pool, if any, is left as it is: joining threads that do not exist would wait for ever.
            std::mem::forget(pool.replace((process, Arc::new(made))));
        }
        let (_, pool) = pool.as_ref().expect("just made");
        Ok(Team((pool.current_num_threads() > 1).then(|| Arc::clone(pool))))
    }

    /// Threads of the team.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Calls `f` on one of the team's threads, so that each of its calls for the others finds them awake.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Calls `f(worker, item)` for every item below `n`. Calls with the same `worker`, which is below
    /// [`Team::size`], come one after the other.
    pub fn each(&self, n: usize, f: impl Fn(usize, usize) + Sync) {
        match &self.0 {
            Some(pool) if n > 1 => {
                let workers = pool.current_num_threads().min(n);
                pool.install(|| {
                    (0..workers).into_par_iter().with_max_len(1).for_each(|worker| {
                        for item in n * worker / workers..n * (worker + 1) / workers {
                            f(worker, item);
                        }
                    });
                });
            }
            _ => (0..n).for_each(|item| f(0, item)),
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

/// A pointer that several threads write through, each to its own part.
#[derive(Clone, Copy)]
pub struct Shared<T>(pub *mut T);

// SAFETY: whoever makes one answers that the parts written do not overlap.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The place of element `i`.
    ///
    /// # Safety
    /// It is within what the pointer addresses.
    pub unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: as the caller's.
        unsafe { self.0.add(i) }
    }

    /// The `len` elements from `at` on.
    ///
    /// # Safety
    /// They are valid, and no one else touches them while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part<'a>(&self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: as the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

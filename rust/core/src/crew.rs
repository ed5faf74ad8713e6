//! Threads that share in the work of single samples: they wait for it awake while a sample lasts, and asleep between
//! samples.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long helpers stay awake after a sample: so that in a loop the next one finds them so.
const AWAKE: Duration = Duration::from_micros(100);
/// Rounds of waiting, some tens of nanoseconds each, before a waiting thread lets others go first.
const ROUNDS: u32 = 1024;

/// What is done for each item, by which member of the crew.
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The calling thread and helpers. They meet several hundred times while one sample is computed, for some microseconds'
/// work each: so that neither a lock nor a sleeping thread may stand between them. Nobody waits for a helper that has not
/// begun: what it would have done, others do.
#[derive(Debug)]
pub(crate) struct Crew {
    /// Whether a call has it.
    taken: AtomicBool,
    /// Members of a call, the first ones: they are to stay awake.
    called: AtomicUsize,
    /// Helpers that sleep, or are about to.
    asleep: AtomicUsize,
    /// Whether somebody shares a job out.
    sharing: AtomicBool,
    job: UnsafeCell<Option<&'static Job<'static>>>,
    done: Done,
    failed: AtomicBool,
    members: Vec<Member>,
}

// SAFETY: `job` is written by who set `sharing`, while no item is left, and read by who has taken an item and has not yet
// said that it is done.
unsafe impl Sync for Crew {}

/// Items of the job that are done.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Done(AtomicUsize);

/// The caller, which is the first, or a helper.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Member {
    /// The items that are left of its part, from the low half to the high half.
    items: AtomicU64,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Member {
    /// Hands it its part of a job.
    fn give(&self, from: usize, to: usize) {
        self.items.store((to as u64) << 32 | from as u64, Ordering::Release);
    }

    /// Takes the next item of its part, whoever asks.
    fn take(&self) -> Option<usize> {
        let mut items = self.items.load(Ordering::Relaxed);
        loop {
            let (next, end) = (items & 0xffff_ffff, items >> 32);
            if next >= end {
                return None;
            }
            match self.items.compare_exchange_weak(items, items + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(next as usize),
                Err(now) => items = now,
            }
        }
    }

    /// Whether something of its part is left.
    fn has_work(&self) -> bool {
        let items = self.items.load(Ordering::Relaxed);
        items & 0xffff_ffff < items >> 32
    }
}

impl Crew {
    /// One of `size` members. Its helpers live as long as the process; one that cannot be started is missed by nobody.
    pub fn start(size: usize) -> Arc<Crew> {
        let crew = Arc::new(Crew {
            taken: AtomicBool::new(false),
            called: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            sharing: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            done: Done::default(),
            failed: AtomicBool::new(false),
            members: (0..size).map(|_| Member::default()).collect(),
        });
        for worker in 1..size {
            let own = Arc::clone(&crew);
            let helper = thread::Builder::new().name(format!("ssmrt-step-{worker}"));
            let _ = helper.spawn(move || own.help_on(worker));
        }
        crew
    }

    /// Members, the caller among them.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Has the helpers awake while the answer lives, of `size` members at most; None where another thread has them. A helper
    /// that is still looking for work of the call before may find some of this one.
    pub fn call(&self, size: usize) -> Option<Called<'_>> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        let size = size.clamp(1, self.size());
        self.called.store(size, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            for member in &self.members[..size] {
                if member.asleep.swap(false, Ordering::SeqCst)
                    && let Some(thread) = member.thread.get()
                {
                    thread.unpark();
                }
            }
        }
        Some(Called(self))
    }

    /// Calls `f(worker, item)` for every item below `n`, neighbouring items on one thread and the same items on the same
    /// thread each time, as far as these are equally fast. A call inside of another is the calling thread's alone.
    pub fn each(&self, n: usize, f: &Job<'_>) {
        assert!(u32::try_from(n).is_ok(), "expected items that can be counted in half a word");
        if self.sharing.swap(true, Ordering::Acquire) {
            return (0..n).for_each(|item| f(0, item));
        }
        // SAFETY: no item is left of an earlier job, so that nobody reads it; and the reference is used for items of this
        // job alone, all of which are done when this function returns.
        unsafe { *self.job.get() = Some(std::mem::transmute::<&Job<'_>, &'static Job<'static>>(f)) };
        self.done.0.store(0, Ordering::Relaxed);
        // The others have no part, and so no work.
        let size = self.called.load(Ordering::Relaxed).max(1);
        for (i, member) in self.members[..size].iter().enumerate() {
            member.give(n * i / size, n * (i + 1) / size);
        }
        self.work(0);
        let mut waited = 0;
        while self.done.0.load(Ordering::Acquire) < n {
            wait(&mut waited);
        }
        let failed = self.failed.swap(false, Ordering::Relaxed);
        self.sharing.store(false, Ordering::Release);
        assert!(!failed, "a part of a sample's work failed");
    }

    /// Does what is left of a member's own part of a job, and then of the others' parts.
    fn work(&self, worker: usize) {
        for i in 0..self.size() {
            let owner = &self.members[(worker + i) % self.size()];
            let mut count = 0;
            while let Some(item) = owner.take() {
                // SAFETY: the item is of the job that is there now, which stays until the item is done.
                let job = unsafe { *self.job.get() };
                let call = || job.expect("items are of a job")(worker, item);
                if catch_unwind(AssertUnwindSafe(call)).is_err() {
                    self.failed.store(true, Ordering::Relaxed);
                }
                count += 1;
            }
            if count > 0 {
                self.done.0.fetch_add(count, Ordering::Release);
            }
        }
    }

    /// What a helper does as long as the process lives.
    fn help_on(&self, worker: usize) {
        let member = &self.members[worker];
        member.thread.get_or_init(thread::current);
        let (mut waited, mut since) = (0, None);
        loop {
            if member.has_work() {
                self.work(worker);
                (waited, since) = (0, None);
            } else if worker < self.called.load(Ordering::Relaxed)
                || since.get_or_insert_with(Instant::now).elapsed() < AWAKE
            {
                wait(&mut waited);
            } else {
                self.sleep(worker);
                (waited, since) = (0, None);
            }
        }
    }

    /// Sleeps until the crew is called.
    fn sleep(&self, worker: usize) {
        let member = &self.members[worker];
        self.asleep.fetch_add(1, Ordering::SeqCst);
        member.asleep.store(true, Ordering::SeqCst);
        // Who calls sets one flag and looks at the other: one of both sees that the other was there.
        if worker < self.called.load(Ordering::SeqCst) {
            member.asleep.store(false, Ordering::SeqCst);
        }
        while member.asleep.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A crew whose helpers are awake.
pub(crate) struct Called<'a>(&'a Crew);

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.0.called.store(0, Ordering::Relaxed);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// A round of waiting.
fn wait(waited: &mut u32) {
    if *waited < ROUNDS {
        *waited += 1;
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubled(crew: &Crew, size: usize, n: usize) -> Vec<usize> {
        let found: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        let called = crew.call(size).expect("nobody has it");
        crew.each(n, &|worker, item| {
            assert!(worker < crew.size());
            found[item].fetch_add(2 * item, Ordering::Relaxed);
        });
        drop(called);
        found.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_item_is_done_once_awake_or_asleep() {
        let crew = Crew::start(4);
        for round in 0..2000 {
            let n = round % 50;
            assert_eq!(doubled(&crew, 1 + round % 4, n), (0..n).map(|i| 2 * i).collect::<Vec<_>>());
            if round % 200 == 199 {
                thread::sleep(2 * AWAKE);
            }
        }
    }

    #[test]
    fn a_job_within_a_job_is_done() {
        let (crew, count) = (Crew::start(3), AtomicUsize::new(0));
        let add = |_, _| _ = count.fetch_add(1, Ordering::Relaxed);
        let _called = crew.call(3);
        crew.each(20, &|_, _| crew.each(5, &add));
        assert_eq!(count.into_inner(), 100);
    }

    #[test]
    fn one_caller_has_it_at_a_time() {
        let crew = Crew::start(2);
        let called = crew.call(2);
        assert!(called.is_some() && crew.call(2).is_none());
        drop(called);
        assert!(crew.call(2).is_some());
    }

    #[test]
    fn a_failure_reaches_the_caller_and_the_crew_goes_on() {
        let crew = Crew::start(3);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            let _called = crew.call(3);
            crew.each(9, &|_, item| assert!(item != 5, "as expected"));
        }));
        assert!(failed.is_err());
        assert_eq!(doubled(&crew, 3, 9), (0..9).map(|i| 2 * i).collect::<Vec<_>>());
    }
}

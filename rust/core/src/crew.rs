//! Threads that share in the work of a call, such as a single sample: they wait for it awake while it lasts, and asleep between
//! calls.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long helpers stay awake after a sample: so that in a loop the next one finds them so.
const AWAKE: Duration = Duration::from_micros(100);
/// Rounds of waiting, some tens of nanoseconds each, before a waiting thread lets others go first.
const ROUNDS: u32 = 1024;

/// What is done for a run of items, by which member of the crew.
type Job<'a> = dyn Fn(usize, Range<usize>) + Sync + 'a;

/// How many items a member takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// One.
    One,
    /// A third of what is left of a part: many first, and few at the end, so that members end together.
    Third,
}

/// The calling thread and helpers. They meet several hundred times while one sample is computed, for some microseconds'
/// work each: so that neither a lock nor a sleeping thread may stand between them. Nobody waits for a helper that has not
/// begun: what it would have done, others do.
#[derive(Debug)]
pub(crate) struct Crew {
    /// Whether a call has it.
    taken: AtomicBool,
    watch: Watch,
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

/// Who is to be awake: read by all at all times, and seldom written.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Watch {
    /// Members of a call, the first ones.
    called: AtomicUsize,
    /// Helpers that sleep, or are about to.
    asleep: AtomicUsize,
}

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
    fn give(&self, from: usize, to: usize, taking: Taking) {
        self.items.store(Left { next: from as u64, end: to as u64, taking }.bits(), Ordering::Release);
    }

    /// Takes items of its part: the next ones, or for another member the last ones, whose memory it comes to last.
    fn take(&self, own: bool) -> Option<Range<usize>> {
        let mut items = self.items.load(Ordering::Relaxed);
        loop {
            let Left { next, end, taking } = Left::of(items);
            if next >= end {
                return None;
            }
            let n = match taking {
                Taking::One => 1,
                Taking::Third => (end - next).div_ceil(3),
            };
            let taken = if own { next..next + n } else { end - n..end };
            let left = if own { Left { next: next + n, end, taking } } else { Left { next, end: end - n, taking } };
            match self.items.compare_exchange_weak(items, left.bits(), Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(taken.start as usize..taken.end as usize),
                Err(now) => items = now,
            }
        }
    }

    /// Whether something of its part is left.
    fn has_work(&self) -> bool {
        let Left { next, end, .. } = Left::of(self.items.load(Ordering::Relaxed));
        next < end
    }
}

/// What is left of a part: items from `next` to `end`, below [`MOST_ITEMS`].
struct Left {
    next: u64,
    end: u64,
    taking: Taking,
}

const MOST_ITEMS: usize = 1 << 31;

impl Left {
    fn of(bits: u64) -> Self {
        let taking = if bits >> 63 == 0 { Taking::One } else { Taking::Third };
        Left { next: bits % MOST_ITEMS as u64, end: (bits >> 32) % MOST_ITEMS as u64, taking }
    }

    fn bits(self) -> u64 {
        (self.taking as u64) << 63 | self.end << 32 | self.next
    }
}

impl Crew {
    /// One of `size` members. Its helpers live as long as the process; one that cannot be started is missed by nobody.
    pub fn start(size: usize) -> Arc<Crew> {
        let crew = Arc::new(Crew {
            taken: AtomicBool::new(false),
            watch: Watch::default(),
            sharing: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            done: Done::default(),
            failed: AtomicBool::new(false),
            members: (0..size).map(|_| Member::default()).collect(),
        });
        for worker in 1..size {
            let own = Arc::clone(&crew);
            let helper = thread::Builder::new().name(format!("ssmrt-{worker}"));
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
        self.watch.called.store(size.clamp(1, self.size()), Ordering::SeqCst);
        self.rouse();
        Some(Called(self))
    }

    /// Wakes two members of a call that sleep. Whoever is awake does so, so that nobody has to wake all the others.
    fn rouse(&self) {
        if self.watch.asleep.load(Ordering::SeqCst) == 0 {
            return;
        }
        let called = &self.members[..self.watch.called.load(Ordering::SeqCst)];
        let sleeps =
            |member: &&Member| member.asleep.load(Ordering::SeqCst) && member.asleep.swap(false, Ordering::SeqCst);
        called.iter().filter(sleeps).take(2).filter_map(|member| member.thread.get()).for_each(Thread::unpark);
    }

    /// Calls `f(worker, items)` for all items below `n`, neighbouring items on one thread and the same items on the same
    /// thread each time, as far as these are equally fast. A call inside of another is the calling thread's alone.
    pub fn each(&self, n: usize, taking: Taking, f: &Job<'_>) {
        assert!(n < MOST_ITEMS, "expected items that can be counted in half a word");
        if self.sharing.swap(true, Ordering::Acquire) {
            return (0..n).for_each(|item| f(0, item..item + 1));
        }
        // SAFETY: no item is left of an earlier job, so that nobody reads it; and the reference is used for items of this
        // job alone, all of which are done when this function returns.
        unsafe { *self.job.get() = Some(std::mem::transmute::<&Job<'_>, &'static Job<'static>>(f)) };
        self.done.0.store(0, Ordering::Relaxed);
        // The others have no part, and so no work.
        let size = self.watch.called.load(Ordering::Relaxed).max(1);
        for (i, member) in self.members[..size].iter().enumerate() {
            member.give(n * i / size, n * (i + 1) / size, taking);
        }
        self.work(0);
        let mut waited = 0;
        while self.done.0.load(Ordering::Acquire) < n {
            wait(&mut waited);
        }
        let failed = self.failed.swap(false, Ordering::Relaxed);
        self.sharing.store(false, Ordering::Release);
        assert!(!failed, "a part of a call's work failed");
    }

    /// Does what is left of a member's own part of a job, and then of the others' parts.
    fn work(&self, worker: usize) {
        for i in 0..self.size() {
            let owner = &self.members[(worker + i) % self.size()];
            let mut count = 0;
            while let Some(items) = owner.take(i == 0) {
                // SAFETY: the items are of the job that is there now, which stays until they are done.
                let job = unsafe { *self.job.get() };
                count += items.len();
                if catch_unwind(AssertUnwindSafe(|| job.expect("items are of a job")(worker, items))).is_err() {
                    self.failed.store(true, Ordering::Relaxed);
                }
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
            self.rouse();
            if member.has_work() {
                self.work(worker);
                (waited, since) = (0, None);
            } else if worker < self.watch.called.load(Ordering::Relaxed)
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
        self.watch.asleep.fetch_add(1, Ordering::SeqCst);
        member.asleep.store(true, Ordering::SeqCst);
        // Who calls sets one flag and looks at the other: one of both sees that the other was there.
        if worker < self.watch.called.load(Ordering::SeqCst) {
            member.asleep.store(false, Ordering::SeqCst);
        }
        while member.asleep.load(Ordering::SeqCst) {
            thread::park();
        }
        self.watch.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A crew whose helpers are awake.
pub(crate) struct Called<'a>(&'a Crew);

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.0.watch.called.store(0, Ordering::Relaxed);
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
        let taking = if n.is_multiple_of(2) { Taking::One } else { Taking::Third };
        crew.each(n, taking, &|worker, items| {
            assert!(worker < crew.size() && (taking == Taking::Third || items.len() == 1));
            for item in items {
                found[item].fetch_add(2 * item, Ordering::Relaxed);
            }
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
        crew.each(20, Taking::One, &|_, _| crew.each(5, Taking::One, &add));
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
            crew.each(9, Taking::Third, &|_, items| assert!(!items.contains(&5), "as expected"));
        }));
        assert!(failed.is_err());
        assert_eq!(doubled(&crew, 3, 9), (0..9).map(|i| 2 * i).collect::<Vec<_>>());
    }
}

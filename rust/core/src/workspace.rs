//! The memory that a plan's operations need beside the states of streams: kept between calls, never shared.

use crate::kernels::{Aligned, Elem, GROUP};
use crate::shared::Shared;
use std::sync::{Mutex, PoisonError};

/// How large the workspaces of a plan are.
#[derive(Debug, Default)]
pub struct Layout {
    /// Where each buffer starts, in elements a row.
    pub offsets: Vec<usize>,
    /// Elements a row of all buffers.
    pub row_len: usize,
    /// Elements of scratch a thread.
    pub scratch_len: usize,
}

/// Buffers for some rows, and scratch for each thread.
#[derive(Debug)]
pub struct Workspace<E> {
    buffers: Aligned<E>,
    /// Where the rows of each buffer stand: here, or for input and output in the caller's arrays.
    pub bases: Vec<Shared<E>>,
    _scratch: Aligned<E>,
    scratch_of_all: Shared<E>,
    rows: usize,
    threads: usize,
}

impl<E: Elem> Workspace<E> {
    /// Memory for up to `rows` rows and `threads` threads.
    pub fn new(layout: &Layout, rows: usize, threads: usize) -> Self {
        let mut scratch = Aligned::zeros(layout.scratch_stride() * threads);
        let mut work = Self {
            buffers: Aligned::zeros(layout.row_len * rows),
            bases: Vec::new(),
            scratch_of_all: Shared::new(scratch.as_mut_ptr()),
            _scratch: scratch,
            rows,
            threads,
        };
        work.bases = (0..layout.offsets.len()).map(|id| work.own_rows(layout, id)).collect();
        work
    }

    /// Its own rows for a buffer.
    pub fn own_rows(&mut self, layout: &Layout, id: usize) -> Shared<E> {
        Shared::new(self.buffers[layout.offsets[id] * self.rows..].as_mut_ptr())
    }

    /// The scratch of all threads.
    pub fn scratch(&self) -> Shared<E> {
        self.scratch_of_all
    }

    /// Threads that it has room for.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Rows that it has room for.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Layout {
    /// Elements from one thread's scratch to the next's.
    pub fn scratch_stride(&self) -> usize {
        self.scratch_len.next_multiple_of(GROUP)
    }
}

/// Workspaces that earlier calls left.
#[derive(Debug)]
pub struct Spare<E>(Mutex<Vec<Workspace<E>>>);

impl<E> Default for Spare<E> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

/// Workspaces that are kept for later calls, where one call does not need more.
const KEPT: usize = 8;

impl<E: Elem> Spare<E> {
    /// One that an earlier call left, or a new one.
    pub fn take(&self, layout: &Layout, rows: usize, threads: usize) -> Workspace<E> {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |w: &Workspace<E>| w.rows == rows && w.threads >= threads;
        match spare.iter().position(fits) {
            Some(i) => spare.swap_remove(i),
            None => Workspace::new(layout, rows, threads),
        }
    }

    /// Keeps a call's workspaces of at most `most_rows` rows for later ones: these, and of others a few.
    pub fn give_back(&self, works: impl IntoIterator<Item = Workspace<E>>, most_rows: usize) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for work in works.into_iter().filter(|work| work.rows <= most_rows) {
            spare.insert(0, work);
            count += 1;
        }
        spare.truncate(KEPT.max(count));
    }
}

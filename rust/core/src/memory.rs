//! The memory that operations work on: buffers of activations, the states of streams, and what one block of samples
//! runs in.

use crate::kernels::{Elem, GROUP, Isa, padded};
use crate::layers::lti::Method;
use crate::shared::Shared;
use crate::threads::Team;
use crate::turn::Turn;
use std::sync::atomic::AtomicBool;

/// Elements at the start of a stream's state: the number of samples so far, as (high, low).
pub const HEAD: usize = GROUP;

/// A buffer of activations: which, and channels a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub id: usize,
    pub width: usize,
}

/// A part of a stream's state.
#[derive(Clone, Copy, Debug)]
pub struct StateSlice {
    pub from: usize,
    pub len: usize,
}

/// A block of samples of some streams on its way through the operations.
pub struct Context<'a, E> {
    pub isa: Isa,
    pub method: Method,
    /// Samples of each stream in the call, for which a method is chosen, however it is cut into blocks.
    pub call_rows: usize,
    pub team: &'a Team,
    /// Once it is set, nobody waits for the answers any more.
    pub stop: &'a AtomicBool,
    /// When the block may move a layer's states on.
    pub turn: Turn<'a>,
    /// Where the rows of each buffer stand.
    pub bases: &'a [Shared<E>],
    /// Whether the answers' rows are the caller's own.
    pub writes_in_place: bool,
    pub scratch: Shared<E>,
    pub scratch_len: usize,
    /// Where matrices are shared out by their columns, and not the rows: for how many threads; and where the sums of shares
    /// go.
    pub by_columns: Option<usize>,
    pub sums: Shared<E>,
    pub states: Shared<E>,
    pub state_len: usize,
    pub streams: usize,
    pub rows: usize,
    /// Rows of each stream before its padding.
    pub unpadded: usize,
    /// Samples of each stream in earlier blocks of the same call.
    pub done: usize,
    /// Samples of the first stream before this block, counted round by [`PHASES`](crate::kernels::mode_state::PHASES), for what
    /// is done now and then.
    pub phase: usize,
    pub dt: f64,
}

impl<E: Elem> Context<'_, E> {
    /// The rows of a buffer, all streams', to read.
    ///
    /// # Safety
    /// No one writes them while the slice is alive.
    pub unsafe fn read<'b>(&self, buffer: Buffer) -> &'b [E] {
        // SAFETY: the caller answers that no one writes these rows.
        unsafe { self.read_rows(buffer, 0, self.streams * self.rows) }
    }

    /// The rows of a buffer, all streams', to write. No plan writes its input.
    ///
    /// # Safety
    /// No other slice of the same rows is alive, but of columns that no one else touches.
    pub unsafe fn write<'b>(&self, buffer: Buffer) -> &'b mut [E] {
        // SAFETY: the caller answers that no one else touches what it touches of these rows.
        unsafe { self.write_rows(buffer, 0, self.streams * self.rows) }
    }

    /// `n` rows of a buffer from `first` on, to read.
    ///
    /// # Safety
    /// As [`Context::read`], and the buffer has so many rows.
    pub unsafe fn read_rows<'b>(&self, buffer: Buffer, first: usize, n: usize) -> &'b [E] {
        let stride = padded(buffer.width);
        // SAFETY: there are so many rows at the base, and the caller answers that no one writes them.
        unsafe { std::slice::from_raw_parts(self.bases[buffer.id].at(first * stride), n * stride) }
    }

    /// `n` rows of a buffer from `first` on, to write.
    ///
    /// # Safety
    /// As [`Context::write`], and the buffer has so many rows.
    pub unsafe fn write_rows<'b>(&self, buffer: Buffer, first: usize, n: usize) -> &'b mut [E] {
        let stride = padded(buffer.width);
        // SAFETY: there are so many rows at the base, and the caller answers that no one else touches them.
        unsafe { self.bases[buffer.id].part(first * stride, n * stride) }
    }

    /// A part of stream `s`'s state.
    ///
    /// # Safety
    /// No other slice of it is alive.
    pub unsafe fn state<'b>(&self, s: usize, slice: StateSlice) -> &'b mut [E] {
        // SAFETY: states are `streams` runs of `state_len`, and the caller answers that no other slice is alive.
        unsafe { self.states.part(s * self.state_len + slice.from, slice.len) }
    }

    /// A worker's own scratch.
    ///
    /// # Safety
    /// Only `worker` asks for it.
    pub unsafe fn scratch<'b>(&self, worker: usize) -> &'b mut [E] {
        // SAFETY: every worker has its own part, and the caller is this worker.
        unsafe { self.scratch.part(worker * self.scratch_len, self.scratch_len) }
    }

    /// Samples of stream `s` before this block.
    pub fn position(&self, s: usize) -> u64 {
        // SAFETY: the head is written between calls only, so that it may be read by all.
        let head = unsafe { std::slice::from_raw_parts(self.states.at(s * self.state_len), 2) };
        (head[0].f64() + head[1].f64()) as u64 + self.done as u64
    }

    /// Samples before this block of the stream that has most of them.
    pub fn last_position(&self) -> u64 {
        (0..self.streams).map(|s| self.position(s)).max().unwrap_or(0)
    }
}

//! The plan: a Document made into a list of operations on buffers, once, for one rate and one precision.
//!
//! Running it is a walk over the list: no decision, no allocation, no lock. One walk serves one sample of many
//! streams, or a block of samples of a few; the state of a stream is one run of numbers, zero at the start.

use crate::document::{Document, PoolMode};
use crate::error::{Error, Result};
use crate::kernels::{Aligned, Elem, GROUP, Isa, padded, pooling};
use crate::layers::lti::Method;
use crate::lower;
use crate::ops::{Place, Stage};
use crate::threads::{Shared, Team};
use std::sync::{Mutex, PoisonError};

/// Elements at the start of a stream's state: the samples it has met, as (high, low).
pub(crate) const HEAD: usize = GROUP;

/// A buffer of activations: which, and channels a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub(crate) id: usize,
    pub(crate) width: usize,
}

/// What pooling keeps: a float64 sum (high, low) a channel, or the first sample.
#[derive(Debug)]
pub(crate) struct Pooling {
    pub mode: PoolMode,
    pub source: Buffer,
    pub target: Buffer,
    pub state: usize,
}

impl Pooling {
    pub fn state_len(width: usize) -> usize {
        2 * padded(width)
    }
}

/// Why a model cannot stream.
#[derive(Clone, Debug)]
pub struct NotCausal {
    /// The layer.
    pub layer: String,
    /// What it needs.
    pub why: String,
}

/// A model, ready to run.
#[derive(Debug)]
pub struct Plan<E> {
    pub(crate) trunk: Vec<Stage<E>>,
    pub(crate) pool: Option<Pooling>,
    pub(crate) head: Vec<Stage<E>>,
    pub(crate) input: Buffer,
    pub(crate) output: Buffer,
    /// Where each buffer starts, in elements a row.
    pub(crate) offsets: Vec<usize>,
    pub(crate) row_len: usize,
    pub(crate) state_len: usize,
    pub(crate) scratch_len: usize,
    /// Rows for which a layer reads its matrices once.
    pub(crate) tile_rows: usize,
    pub(crate) not_causal: Option<NotCausal>,
    pub(crate) padding_seen: bool,
    pub(crate) no_step_size: Option<String>,
    /// A layer whose kernel is cut off after a number of samples, whatever their steps.
    pub(crate) cut_kernel: Option<String>,
    pub(crate) vocabulary: Option<usize>,
    isa: Isa,
    fingerprint: u64,
    spare: Mutex<Vec<Workspace<E>>>,
}

/// The samples of some streams, one stream after the other.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a, E> {
    /// Rows of d_input.
    Real(&'a [E]),
    /// One integer a sample.
    Tokens(&'a [i64]),
}

impl<'a, E> Input<'a, E> {
    pub(crate) fn part(self, from: usize, to: usize, width: usize) -> Self {
        match self {
            Input::Real(x) => Input::Real(&x[from * width..to * width]),
            Input::Tokens(x) => Input::Tokens(&x[from..to]),
        }
    }
}

/// Which answers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One a sample; a pooled model answers as if the sequence ended there.
    Each,
    /// One a stream, after its last sample: of a pooled model only.
    Last,
    /// None: the samples are only remembered.
    Nothing,
}

/// What [`Plan::advance`] is to do.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Streams, each with its own state.
    pub streams: usize,
    /// Samples of each.
    pub rows: usize,
    /// How runs of samples are computed.
    pub method: Method,
    /// Multiplies every step size.
    pub dt: f64,
    /// Which answers are wanted.
    pub answers: Answers,
    /// Samples that pooling hears, where the last ones are padding.
    pub heard: Option<usize>,
}

/// What a call says beside the samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing<'a> {
    /// (streams, length): multiplies every step size, sample by sample.
    pub dt: Option<&'a [f64]>,
    /// (streams, length): the state is zero before that sample.
    pub resets: Option<&'a [bool]>,
    /// (streams,): where padding begins.
    pub lengths: Option<&'a [usize]>,
}

/// The memory that one walk needs: buffers for some rows, and scratch for each thread.
#[derive(Debug)]
pub struct Workspace<E> {
    buffers: Aligned<E>,
    rows: usize,
    scratch: Aligned<E>,
    threads: usize,
}

impl<E> Workspace<E> {
    /// Threads that it has room for.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Rows that it has room for.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// One walk over the operations.
pub(crate) struct Walk<'a, E> {
    pub isa: Isa,
    pub method: Method,
    pub team: &'a Team,
    pub buffers: Shared<E>,
    /// The buffers that are the caller's own rows, and where these stand.
    pub input: Option<(usize, Shared<E>)>,
    pub output: Option<(usize, Shared<E>)>,
    pub capacity: usize,
    pub offsets: &'a [usize],
    pub scratch: Shared<E>,
    pub scratch_len: usize,
    pub states: Shared<E>,
    pub state_len: usize,
    pub streams: usize,
    pub rows: usize,
    /// Rows of each stream that pooling hears: what follows is padding.
    pub heard: usize,
    /// Samples that the first stream has met.
    pub phase: usize,
    pub dt: f64,
}

impl<E: Elem> Walk<'_, E> {
    /// Where a buffer's rows stand: the caller's own, where its input or output has whole rows.
    fn base(&self, buffer: Buffer) -> *mut E {
        match (self.input, self.output) {
            (Some((id, at)), _) if id == buffer.id => at.0,
            (_, Some((id, at))) if id == buffer.id => at.0,
            // SAFETY: the workspace has `capacity` rows of every buffer.
            _ => unsafe { self.buffers.at(self.offsets[buffer.id] * self.capacity) },
        }
    }

    /// The rows of a buffer, all streams', to read.
    ///
    /// # Safety
    /// No one writes them while the slice is alive.
    pub unsafe fn rows_in<'b>(&self, buffer: Buffer) -> &'b [E] {
        // SAFETY: as the caller's.
        unsafe { self.part_in(buffer, 0, self.streams * self.rows) }
    }

    /// The rows of a buffer, all streams', to write. No plan writes its input.
    ///
    /// # Safety
    /// No other slice of the same rows is alive, but of columns that no one else touches.
    pub unsafe fn rows_of<'b>(&self, buffer: Buffer) -> &'b mut [E] {
        // SAFETY: as the caller's.
        unsafe { self.part_of(buffer, 0, self.streams * self.rows) }
    }

    /// `n` rows of a buffer from `first` on, to read.
    ///
    /// # Safety
    /// As [`Walk::rows_in`].
    pub unsafe fn part_in<'b>(&self, buffer: Buffer, first: usize, n: usize) -> &'b [E] {
        let stride = padded(buffer.width);
        // SAFETY: there are so many rows at the base; the caller answers for aliasing.
        unsafe { std::slice::from_raw_parts(self.base(buffer).add(first * stride), n * stride) }
    }

    /// `n` rows of a buffer from `first` on, to write.
    ///
    /// # Safety
    /// As [`Walk::rows_of`].
    pub unsafe fn part_of<'b>(&self, buffer: Buffer, first: usize, n: usize) -> &'b mut [E] {
        let stride = padded(buffer.width);
        // SAFETY: there are so many rows at the base; the caller answers for aliasing.
        unsafe { std::slice::from_raw_parts_mut(self.base(buffer).add(first * stride), n * stride) }
    }

    /// The part of stream `s`'s state at a place.
    ///
    /// # Safety
    /// No other slice of it is alive.
    pub unsafe fn state<'b>(&self, s: usize, at: Place) -> &'b mut [E] {
        // SAFETY: states are `streams` runs of `state_len`; the caller answers for aliasing.
        unsafe { self.states.part(s * self.state_len + at.from, at.len) }
    }

    /// A worker's own scratch.
    ///
    /// # Safety
    /// Only `worker` asks for it.
    pub unsafe fn scratch<'b>(&self, worker: usize) -> &'b mut [E] {
        // SAFETY: as the caller's.
        unsafe { self.scratch.part(worker * self.scratch_len, self.scratch_len) }
    }

    /// Samples that stream `s` has met.
    pub fn met(&self, s: usize) -> u64 {
        // SAFETY: the head is touched between operations only.
        let head = unsafe { self.state(s, Place { from: 0, len: HEAD }) };
        (head[0].f64() + head[1].f64()) as u64
    }
}

/// x as a pair (high, low) of E whose sum it is, to twice the digits.
pub(crate) fn split<E: Elem>(x: f64) -> (E, E) {
    let high = E::of(x);
    (high, E::of(x - high.f64()))
}

/// Elements of activations that a block of rows may take: about what a core's second cache holds.
const BLOCK_ELEMENTS: usize = 192 * 1024;
/// Rows a block has at least, and at most: a wide layer's matrices are read for so many.
const BLOCK_ROWS: (usize, usize) = (512, 2048);
/// Rows of a block where not even so many as [`NEAR_ROWS`] would stay near: then matrices are better read less often.
const FAR_ROWS: usize = 1024;
const NEAR_ROWS: usize = 256;

impl<E: Elem> Plan<E> {
    /// Plans `document` for a rate, which multiplies every step size.
    pub fn new(document: &Document, rate: f64, isa: Isa) -> Result<Self> {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(Error::Value(format!("rate: expected a positive number, found {rate}")));
        }
        let mut plan: Plan<E> = lower::lower(document, rate, isa)?;
        if let (Some(layer), true) = (&plan.no_step_size, rate != 1.0) {
            return Err(Error::Unsupported(format!(
                "rate={rate}: layer {layer} has no step size that a rate could multiply; \
                 its recurrence was trained in discrete time"
            )));
        }
        plan.fingerprint = document.fingerprint ^ rate.to_bits().rotate_left(17) ^ size_of::<E>() as u64;
        Ok(plan)
    }

    pub(crate) fn assemble(isa: Isa) -> Self {
        let none = Buffer { id: 0, width: 0 };
        Self {
            trunk: Vec::new(),
            pool: None,
            head: Vec::new(),
            input: none,
            output: none,
            offsets: Vec::new(),
            row_len: 0,
            state_len: HEAD,
            scratch_len: 0,
            tile_rows: 0,
            not_causal: None,
            padding_seen: false,
            no_step_size: None,
            cut_kernel: None,
            vocabulary: None,
            isa,
            fingerprint: 0,
            spare: Mutex::new(Vec::new()),
        }
    }

    /// The instruction set that it runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Elements of state a stream.
    pub fn state_len(&self) -> usize {
        self.state_len
    }

    /// Channels of the answer.
    pub fn d_output(&self) -> usize {
        self.output.width
    }

    /// Channels of a sample; 1 for tokens.
    pub fn d_input(&self) -> usize {
        if self.vocabulary.is_some() { 1 } else { self.input.width }
    }

    /// The number of tokens, where the samples are such.
    pub fn vocabulary(&self) -> Option<usize> {
        self.vocabulary
    }

    /// Whether the model makes one answer of a sequence.
    pub fn pooled(&self) -> bool {
        self.pool.is_some()
    }

    /// The layer that needs the whole sequence, if any.
    pub fn not_causal(&self) -> Option<&NotCausal> {
        self.not_causal.as_ref()
    }

    /// Fails where the model cannot stream.
    pub fn streamable(&self) -> Result<()> {
        match &self.not_causal {
            None => Ok(()),
            Some(NotCausal { layer, why }) => Err(Error::NotStreamable(format!(
                "layer {layer} {why}: the model answers whole sequences only; call it on one"
            ))),
        }
    }

    /// Rows that a block of a long sequence has.
    pub fn block_rows(&self) -> usize {
        let near = BLOCK_ELEMENTS / self.row_len.max(1);
        let rows = if near < NEAR_ROWS { FAR_ROWS } else { near.clamp(BLOCK_ROWS.0, BLOCK_ROWS.1) };
        rows.next_multiple_of(self.tile_rows.max(1))
    }

    /// What tells this plan from others: model, rate and precision.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Multiply-adds a sample, roughly.
    pub fn cost(&self) -> usize {
        self.state_len * 4 + self.row_len * 64
    }

    /// A workspace that an earlier call left, or a new one.
    pub(crate) fn take_workspace(&self, rows: usize, threads: usize) -> Workspace<E> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |w: &Workspace<E>| w.rows == rows && w.threads >= threads;
        match spare.iter().position(fits) {
            Some(i) => spare.swap_remove(i),
            None => self.workspace(rows, threads),
        }
    }

    /// Keeps a workspace for later calls, a few at most.
    pub(crate) fn give_back(&self, work: Workspace<E>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if work.rows <= self.block_rows() {
            spare.truncate(7);
            spare.insert(0, work);
        }
    }

    /// Memory for walks of up to `rows` rows with `threads` threads.
    pub fn workspace(&self, rows: usize, threads: usize) -> Workspace<E> {
        Workspace {
            buffers: Aligned::zeros(self.row_len * rows),
            rows,
            scratch: Aligned::zeros(self.scratch_len.next_multiple_of(GROUP) * threads),
            threads,
        }
    }

    /// Fails where a token is none of the vocabulary.
    pub fn check_input(&self, input: Input<'_, E>) -> Result<()> {
        match (input, self.vocabulary) {
            (Input::Tokens(tokens), Some(n)) => match tokens.iter().find(|&&t| t < 0 || t >= n as i64) {
                Some(t) => Err(Error::Value(format!("u: expected tokens from 0 to {}, found {t}", n - 1))),
                None => Ok(()),
            },
            (Input::Real(_), None) => Ok(()),
            (Input::Real(_), Some(_)) => Err(Error::Value("u: expected integer tokens, found real numbers".into())),
            (Input::Tokens(_), None) => Err(Error::Value("u: expected real numbers, found tokens".into())),
        }
    }

    /// Runs `streams` streams over `rows` samples each, blocks of `rows` at most as the workspace has.
    ///
    /// `input` holds stream after stream; `output` takes `streams` rows (of [`Answers::Last`]) or
    /// `streams * rows` rows of d_output.
    pub fn advance(
        &self,
        work: &mut Workspace<E>,
        team: &Team,
        call: &Call,
        states: &mut [E],
        input: Input<'_, E>,
        output: &mut [E],
    ) {
        let Call { streams, rows, method, answers, .. } = *call;
        assert_eq!(states.len(), streams * self.state_len);
        let (d_in, d_out) = (self.d_input(), self.output.width);
        // As many samples as fit, and as many streams as then fit: all the weights serve all of them at once.
        let block = if self.not_causal.is_some() || method == Method::Fft { rows.max(1) } else { rows.min(work.rows) };
        assert!(block <= work.rows, "the workspace is smaller than a sequence that must be whole");
        let together = (work.rows / block.max(1)).max(1);
        for first in (0..streams).step_by(together) {
            let n = together.min(streams - first);
            let states = &mut states[first * self.state_len..(first + n) * self.state_len];
            let mut done = 0;
            while done < rows {
                let now = block.min(rows - done);
                let at = first * rows + done;
                // Rows of whole groups, one stream's or all of them: read and written where they are.
                let whole = n == 1 || now == rows;
                let given = match input {
                    Input::Real(x) if whole && d_in % GROUP == 0 => {
                        Some((self.input.id, Shared(x[at * d_in..(at + n * now) * d_in].as_ptr().cast_mut())))
                    }
                    _ => None,
                };
                let straight = whole && answers == Answers::Each && self.pool.is_none() && d_out % GROUP == 0;
                let taken = (straight && self.output.id != self.input.id)
                    .then(|| (self.output.id, Shared(output[at * d_out..(at + n * now) * d_out].as_mut_ptr())));
                let walk = Walk {
                    input: given,
                    output: taken,
                    isa: self.isa,
                    method,
                    team,
                    capacity: work.rows,
                    offsets: &self.offsets,
                    scratch: Shared(work.scratch.as_mut_ptr()),
                    buffers: Shared(work.buffers.as_mut_ptr()),
                    scratch_len: self.scratch_len.next_multiple_of(GROUP),
                    states: Shared(states.as_mut_ptr()),
                    state_len: self.state_len,
                    streams: n,
                    rows: now,
                    heard: call.heard.map_or(now, |n| n.saturating_sub(done).min(now)),
                    phase: (states[0].f64() + states[1].f64()) as usize,
                    dt: call.dt,
                };
                let last = done + now == rows;
                for s in 0..if given.is_some() { 0 } else { n } {
                    let from = (first + s) * rows + done;
                    self.read(&walk, s, input.part(from, from + now, d_in));
                }
                self.walk(&walk, answers, last);
                match answers {
                    Answers::Each if taken.is_some() => {}
                    Answers::Each => {
                        for s in 0..n {
                            let at = ((first + s) * rows + done) * d_out;
                            self.write(&walk, s * now, now, &mut output[at..at + now * d_out]);
                        }
                    }
                    Answers::Last if last => self.write(&walk, 0, n, &mut output[first * d_out..(first + n) * d_out]),
                    _ => {}
                }
                done += now;
            }
        }
    }

    /// As [`Plan::advance`], with the streams shared out to the team: each of its threads has one of the workspaces.
    pub fn advance_shared(
        &self,
        works: &mut [Workspace<E>],
        team: &Team,
        call: &Call,
        states: &mut [E],
        input: Input<'_, E>,
        output: &mut [E],
    ) {
        let Call { streams, rows, .. } = *call;
        assert_eq!(states.len(), streams * self.state_len);
        let parts = works.len().min(streams);
        let out = output.len() / streams.max(1);
        let (works, states, output) =
            (Shared(works.as_mut_ptr()), Shared(states.as_mut_ptr()), Shared(output.as_mut_ptr()));
        team.each(parts, |_, part| {
            let (from, to) = (streams * part / parts, streams * (part + 1) / parts);
            // SAFETY: every part has streams and a workspace of its own.
            let (work, states, output) = unsafe {
                (
                    &mut *works.at(part),
                    states.part(from * self.state_len, (to - from) * self.state_len),
                    output.part(from * out, (to - from) * out),
                )
            };
            let call = Call { streams: to - from, ..*call };
            let input = input.part(from * rows, to * rows, self.d_input());
            self.advance(work, &Team::ALONE, &call, states, input, output);
        });
    }

    fn walk(&self, walk: &Walk<'_, E>, answers: Answers, last: bool) {
        let met = (0..walk.streams).map(|s| walk.met(s)).max().unwrap_or(0);
        self.trunk.iter().for_each(|stage| stage.run(walk, met));
        for s in 0..walk.streams {
            let met = walk.met(s);
            if let Some(pool) = &self.pool {
                self.gather(walk, pool, s, met, answers, last);
            }
            // SAFETY: nothing else holds the head.
            let head = unsafe { walk.state(s, Place { from: 0, len: HEAD }) };
            (head[0], head[1]) = split((met + walk.rows as u64) as f64);
        }
        if answers == Answers::Each || last && answers == Answers::Last {
            let rows = if answers == Answers::Each { walk.rows } else { 1 };
            let walk = Walk { rows, ..*walk };
            self.head.iter().for_each(|stage| stage.run(&walk, met));
        }
    }

    /// Pools the rows of stream `s`: its running answers, or after the last row one.
    fn gather(&self, walk: &Walk<'_, E>, pool: &Pooling, s: usize, met: u64, answers: Answers, last: bool) {
        let stride = padded(pool.source.width);
        let each = answers == Answers::Each;
        // SAFETY: source and target are different buffers; the state is this stream's.
        let (x, state) = unsafe {
            let all = walk.rows_in(pool.source);
            let at = Place { from: pool.state, len: Pooling::state_len(pool.source.width) };
            (&all[s * walk.rows * stride..][..walk.rows * stride], walk.state(s, at))
        };
        if walk.heard == 0 {
            return;
        }
        // SAFETY: as above; one row a stream where only the last answer is wanted.
        let y = unsafe { walk.rows_of(pool.target) };
        let (high, low) = state.split_at_mut(stride);
        let heard = &x[..walk.heard * stride];
        let answers = if each {
            Some(&mut y[s * walk.rows * stride..][..walk.heard * stride])
        } else if last {
            Some(&mut y[s * stride..][..stride])
        } else {
            None
        };
        match pool.mode {
            PoolMode::Sum => pooling::sum(self.isa, false, met, heard, high, low, answers),
            PoolMode::Mean => pooling::sum(self.isa, true, met, heard, high, low, answers),
            PoolMode::First => {
                if met == 0 {
                    high.copy_from_slice(&heard[..stride]);
                }
                let rows = answers.into_iter().flat_map(|y| y.chunks_exact_mut(stride));
                rows.for_each(|y| y.copy_from_slice(high));
            }
            PoolMode::Last => {
                high.copy_from_slice(&heard[heard.len() - stride..]);
                match answers {
                    Some(y) if each => y.copy_from_slice(heard),
                    Some(y) => y.copy_from_slice(high),
                    None => {}
                }
            }
        }
    }

    /// Puts the samples of stream `s` where the first operation reads them.
    fn read(&self, walk: &Walk<'_, E>, s: usize, input: Input<'_, E>) {
        let stride = padded(self.input.width);
        // SAFETY: nothing else holds the rows.
        let all = unsafe { walk.rows_of(self.input) };
        let rows = &mut all[s * walk.rows * stride..][..walk.rows * stride];
        match input {
            Input::Real(x) if self.input.width == stride => rows.copy_from_slice(x),
            Input::Real(x) => {
                for (row, x) in rows.chunks_exact_mut(stride).zip(x.chunks_exact(self.input.width)) {
                    row[..x.len()].copy_from_slice(x);
                }
            }
            Input::Tokens(tokens) => {
                for (row, &token) in rows.chunks_exact_mut(stride).zip(tokens) {
                    row[0] = E::of(token as f64);
                }
            }
        }
    }

    /// Copies `rows` answers from row `from` on.
    fn write(&self, walk: &Walk<'_, E>, from: usize, rows: usize, output: &mut [E]) {
        let (width, stride) = (self.output.width, padded(self.output.width));
        // SAFETY: nothing else holds the rows.
        let all = unsafe { std::slice::from_raw_parts(walk.base(self.output), (from + rows) * stride) };
        for (y, row) in output.chunks_exact_mut(width).zip(all[from * stride..].chunks_exact(stride)) {
            y.copy_from_slice(&row[..width]);
        }
    }
}

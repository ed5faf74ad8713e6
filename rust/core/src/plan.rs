//! The plan: a Document made into a list of operations on buffers, once, for one rate and one precision.
//!
//! Running it is a walk over the list: no decision, no allocation, no lock. One walk serves one sample of many
//! streams, or a block of samples of a few; the state of a stream is one run of numbers, zero at the start.

use crate::document::{Document, PoolMode};
use crate::error::{Error, Result};
use crate::kernels::{Aligned, Elem, GROUP, Isa, padded};
use crate::layers::lti::Method;
use crate::lower;
use crate::ops::Stage;
use crate::threads::Shared;
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
    block_rows: usize,
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
    pub(crate) buffers: Aligned<E>,
    /// Where the rows of each buffer stand; a walk puts the caller's own rows there.
    pub(crate) bases: Vec<Shared<E>>,
    pub(crate) rows: usize,
    pub(crate) scratch: Aligned<E>,
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

/// Workspaces that are kept for later calls, where one call does not need more.
const SPARE: usize = 8;

/// Elements of activations that a block of rows may take: about what a core's second cache holds.
const BLOCK_ELEMENTS: usize = 192 * 1024;
/// Rows a block has at least, and at most: a wide layer's matrices are read for so many.
const BLOCK_ROWS: (usize, usize) = (512, 2048);
/// Rows of a block where not even so many as [`NEAR_ROWS`] would stay near: then matrices are better read less often.
const FAR_ROWS: usize = 1024;
const NEAR_ROWS: usize = 256;
/// Rows at most of a block that threads take turns at: so that the last ones have little to wait for.
const TURN_ROWS: usize = 768;

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
        let near = BLOCK_ELEMENTS / plan.row_len.max(1);
        let rows = if near < NEAR_ROWS { FAR_ROWS } else { near.clamp(BLOCK_ROWS.0, BLOCK_ROWS.1) };
        plan.block_rows = rows.next_multiple_of(plan.tile_rows.max(1));
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
            block_rows: 0,
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
        self.block_rows
    }

    /// Whether a call goes over all its samples in one block.
    pub(crate) fn walks_whole(&self, method: Method) -> bool {
        self.not_causal.is_some() || method == Method::Fft
    }

    /// Rows of the blocks that so many threads take turns at, where they rather do so than share each operation: where
    /// operations that need the rows before fall into few pieces, and as many of them follow one another. Each thread
    /// then reads all matrices, so that those from afar must be worth it.
    pub(crate) fn turn_rows(&self, threads: usize) -> Option<usize> {
        let far = self.block_rows() > BLOCK_ROWS.1;
        let pieces = || self.trunk.iter().filter_map(Stage::pieces);
        let few = if far { 2 * threads } else { 4 * threads };
        let turns = threads > 1 && pieces().count() >= threads && pieces().min() < Some(few);
        turns.then(|| (self.block_rows() / 3).min(TURN_ROWS).next_multiple_of(64))
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

    /// Keeps a call's workspaces for later ones: these, and of others a few.
    pub(crate) fn give_back(&self, works: impl IntoIterator<Item = Workspace<E>>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for work in works.into_iter().filter(|work| work.rows <= self.block_rows()) {
            spare.insert(0, work);
            count += 1;
        }
        spare.truncate(SPARE.max(count));
    }

    /// Memory for walks of up to `rows` rows with `threads` threads.
    pub fn workspace(&self, rows: usize, threads: usize) -> Workspace<E> {
        let mut work = Workspace {
            buffers: Aligned::zeros(self.row_len * rows),
            bases: Vec::new(),
            rows,
            scratch: Aligned::zeros(self.scratch_len.next_multiple_of(GROUP) * threads),
            threads,
        };
        work.bases = (0..self.offsets.len()).map(|id| self.own_rows(&mut work, id)).collect();
        work
    }

    /// Where a workspace has rows of its own for a buffer.
    pub(crate) fn own_rows(&self, work: &mut Workspace<E>, id: usize) -> Shared<E> {
        // SAFETY: it has its `rows` rows of every buffer.
        Shared(unsafe { work.buffers.as_mut_ptr().add(self.offsets[id] * work.rows) })
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
}

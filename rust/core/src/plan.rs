//! The plan: a Document made into a list of operations on buffers, once, for one rate and one precision.

use crate::crew::Crew;
use crate::document::PoolMode;
use crate::error::{Error, Result};
use crate::kernels::aligned::fits;
use crate::kernels::linear::{Linear, Rounding};
use crate::kernels::{Aligned, Elem, Isa, fft, padded};
use crate::layers::lti::Method;
use crate::memory::Buffer;
use crate::ops::Stage;
use crate::threads::Team;
use crate::workspace::{Layout, Spare, Workspace};
use std::sync::Arc;

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

/// A model at one rate, ready to run.
#[derive(Debug)]
pub struct Plan<E> {
    /// What comes before pooling, and what comes after it.
    pub(crate) trunk: Vec<Stage<E>>,
    pub(crate) pool: Option<Pooling>,
    pub(crate) head: Vec<Stage<E>>,
    pub(crate) input: Buffer,
    pub(crate) output: Buffer,
    pub(crate) layout: Layout,
    pub(crate) state_len: usize,
    /// A stream's state before its first sample; `None`: zeros.
    pub(crate) start: Option<Aligned<E>>,
    pub(crate) block_rows: usize,
    /// Rows for which a state-space layer's matrices are read once, of the layer that takes most.
    pub(crate) tile_rows: usize,
    pub(crate) not_causal: Option<NotCausal>,
    /// Whether layers that run backwards start at the end of the padding.
    pub(crate) reverse_over_padding: bool,
    /// A layer that a step size cannot be given to.
    pub(crate) no_step_size: Option<String>,
    /// A layer whose kernel is cut off after a number of samples, whatever their steps.
    pub(crate) cut_kernel: Option<String>,
    pub(crate) vocabulary: Option<usize>,
    pub(crate) isa: Isa,
    pub(crate) fingerprint: u64,
    /// The threads that share in a few rows, where these read more weights than one core's caches hold.
    pub(crate) crew: Option<Arc<Crew>>,
    pub(crate) spare: Spare<E>,
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
    /// Numbers, or tokens.
    pub(crate) fn len(self) -> usize {
        match self {
            Input::Real(x) => x.len(),
            Input::Tokens(x) => x.len(),
        }
    }

    /// The samples `from` to `to`, of `width` numbers each.
    pub(crate) fn part(self, from: usize, to: usize, width: usize) -> Self {
        match self {
            Input::Real(x) => Input::Real(&x[from * width..to * width]),
            Input::Tokens(x) => Input::Tokens(&x[from..to]),
        }
    }
}

/// Rows a block has at least, and at most: a wide layer's matrices are read for so many.
pub(crate) const BLOCK_ROWS: (usize, usize) = (512, 2048);

/// Bytes of weights that one core's caches hold: its own second one, and its part of one that cores share.
const CORE_CACHES: usize = 4 << 20;

/// Multiply-adds of a call, roughly, for which other threads are woken.
const WORTH_WAKING: usize = 1 << 21;

/// Rows up to which matrices are shared out by their columns, so that each core reads a part of each, and not by rows.
const SHARED_ROWS: usize = 32;

/// Rows of a block at most where many operations follow one another, so that the first block is soon through them; and blocks of
/// each thread of which one more or less does not matter.
const FLOW_ROWS: usize = 768;
const MANY: usize = 8;

impl<E: Elem> Plan<E> {
    /// The instruction set that it runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Elements of state a stream.
    pub fn state_len(&self) -> usize {
        self.state_len
    }

    /// Puts streams at their start: `states` is (streams, state_len).
    pub fn start(&self, states: &mut [E]) {
        match &self.start {
            None => states.fill(E::ZERO),
            Some(start) => states.chunks_exact_mut(self.state_len).for_each(|state| state.copy_from_slice(start)),
        }
    }

    /// The states of streams at their start, from zeros: most models' are such.
    pub(crate) fn started(&self, mut zeros: Aligned<E>) -> Aligned<E> {
        if self.start.is_some() {
            self.start(&mut zeros);
        }
        zeros
    }

    /// Whether all streams of `states` are at their start.
    pub(crate) fn at_start(&self, states: &[E]) -> bool {
        match &self.start {
            None => states.iter().all(|&x| x == E::ZERO),
            Some(start) => states.chunks_exact(self.state_len).all(|state| *state == **start),
        }
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
    ///
    /// # Errors
    /// [`Error::NotStreamable`]
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

    /// Multiply-adds a sample, roughly.
    pub fn cost(&self) -> usize {
        let rows = self.trunk.iter().chain(&self.head).map(Stage::row_cost).sum::<usize>();
        self.state_len * 4 + self.layout.row_len * 64 + rows
    }

    /// Whether so many samples are worth the waking of other threads: whether they take some fifteen microseconds.
    pub(crate) fn worth_waking(&self, samples: usize) -> bool {
        let matrices = self.trunk.iter().chain(&self.head).map(Stage::matrix_cost).sum::<usize>();
        samples.saturating_mul(self.cost() + matrices) >= WORTH_WAKING
    }

    /// Bytes of the matrices that every sample is multiplied with.
    pub fn weight_bytes(&self) -> usize {
        self.trunk.iter().chain(&self.head).flat_map(Stage::linear_maps).map(Linear::bytes).sum()
    }

    /// Ten times the decimal logarithm of the weights' squares by the squares of what they were rounded by; None where
    /// nothing was.
    pub fn signal_to_noise(&self) -> Option<f64> {
        let mut all = Rounding::default();
        self.trunk.iter().chain(&self.head).flat_map(Stage::linear_maps).for_each(|map| all += map.rounding());
        (all.noise > 0.0).then(|| 10.0 * (all.signal / all.noise).log10())
    }

    /// Lets `threads` share in a few rows, if these read more weights than one core's caches hold.
    pub(crate) fn share_samples(&mut self, threads: &Team) {
        if self.weight_bytes() <= CORE_CACHES {
            return;
        }
        self.crew = threads.crew();
        let sums = |map: &Linear<E>| map.sums_len(map.shares(threads.size()));
        let longest = self.trunk.iter().chain(&self.head).flat_map(Stage::linear_maps).map(sums).max();
        self.layout.sums_len = if self.crew.is_some() { longest.unwrap_or(0) } else { 0 };
        self.layout.shared_rows = SHARED_ROWS;
    }

    /// Threads that share in a call of so many rows, where it may have `limit`.
    pub(crate) fn sharing_threads(&self, rows: usize, limit: usize) -> usize {
        self.crew.as_ref().filter(|_| rows <= SHARED_ROWS && limit > 1).map_or(1, |crew| crew.size())
    }

    /// Calls `f` with the threads that share in a call of so many rows, at most `limit`.
    pub(crate) fn sharing_samples<R>(&self, rows: usize, limit: usize, f: impl FnOnce(&Team) -> R) -> R {
        match &self.crew {
            Some(crew) if rows <= SHARED_ROWS && limit > 1 => Team::calling(crew, limit, f),
            _ => f(&Team::ALONE),
        }
    }

    /// What tells this plan from others: model, rate and precision.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether a call takes all its samples as one block.
    pub(crate) fn needs_whole(&self, method: Method) -> bool {
        self.not_causal.is_some() || matches!(method, Method::Fft { .. })
    }

    /// The fewest pieces into which an operation falls that needs the rows before.
    fn fewest_parts(&self) -> Option<usize> {
        self.trunk.iter().filter(|stage| stage.needs_rows_before()).map(|stage| stage.parts(1, 1, 1)).min()
    }

    /// Whether many operations follow one another that fall into few pieces for so many threads. Each thread then reads all
    /// matrices, so that those from afar must be worth it.
    pub(crate) fn follows_few(&self, threads: usize) -> bool {
        let far = self.block_rows > BLOCK_ROWS.1;
        let few = if far { 2 * threads } else { 4 * threads };
        self.trunk.iter().filter(|stage| stage.needs_rows_before()).count() > 1 && self.fewest_parts() < Some(few)
    }

    /// Rows of the blocks of a sequence of `length` samples, several of which a team of so many threads has under way at once:
    /// a tile where pieces are few, for then threads work at one piece of several blocks, which is their own but for the
    /// states. Where many operations follow one another, shorter ones if there are not many for each thread, so that the
    /// first is soon through them and the threads end together.
    pub(crate) fn flow_rows(&self, threads: usize, length: usize) -> usize {
        let tile = (self.tile_rows >= BLOCK_ROWS.0).then_some(self.tile_rows);
        if self.follows_few(threads) {
            let short = (self.block_rows / 3).min(FLOW_ROWS).next_multiple_of(64);
            tile.filter(|tile| (short..=FLOW_ROWS).contains(tile) && length / tile > MANY * threads).unwrap_or(short)
        } else {
            tile.filter(|_| self.fewest_parts() < Some(2 * threads)).unwrap_or(self.block_rows)
        }
    }

    /// A workspace that an earlier call left, or a new one.
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub(crate) fn take_workspace(&self, rows: usize, threads: usize) -> Result<Workspace<E>> {
        self.spare.take(&self.layout, rows, threads)
    }

    /// Keeps a call's workspaces for later ones.
    pub(crate) fn give_back(&self, works: impl IntoIterator<Item = Workspace<E>>) {
        self.spare.give_back(works, self.block_rows);
    }

    /// Fails where the samples are of the wrong kind, or a token is none of the vocabulary.
    pub(crate) fn check_input(&self, input: Input<'_, E>) -> Result<()> {
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

    /// Fails where step sizes are no positive numbers, or the model has none that they could multiply.
    pub(crate) fn check_dt(&self, dt: &[f64]) -> Result<()> {
        if let Some(dt) = dt.iter().find(|dt| !(dt.is_finite() && **dt > 0.0)) {
            return Err(Error::Value(format!("dt: expected positive numbers, found {dt}")));
        }
        if dt.iter().all(|&dt| dt == 1.0) {
            return Ok(());
        }
        if let Some(layer) = &self.cut_kernel {
            return Err(Error::Unsupported(format!(
                "dt: layer {layer} cuts its kernel off after a number of samples, which says nothing of irregular ones"
            )));
        }
        match &self.no_step_size {
            Some(layer) => Err(Error::Unsupported(format!(
                "dt: layer {layer} has no step size that it could multiply; its recurrence was trained in discrete time"
            ))),
            None => Ok(()),
        }
    }

    /// Fails where a call's arrays are not those of `samples` samples with `answers` answers.
    pub(crate) fn check_sizes(
        &self,
        input: Input<'_, E>,
        samples: usize,
        dt: Option<&[f64]>,
        output: &[E],
        answers: usize,
    ) -> Result<()> {
        for (name, found, expected) in [
            ("input", input.len(), samples.saturating_mul(self.d_input())),
            ("output", output.len(), answers.saturating_mul(self.d_output())),
            ("dt", dt.map_or(samples, <[f64]>::len), samples),
        ] {
            if found != expected {
                return Err(Error::Value(format!("{name}: expected {expected} numbers, found {found}")));
            }
        }
        Ok(())
    }

    /// Fails where there is no memory for convolving whole sequences with so many threads.
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub(crate) fn check_whole(&self, length: usize, threads: usize) -> Result<()> {
        let convolved = self.trunk.iter().chain(&self.head).map(Stage::convolved).sum();
        fits::<f64>("length", length, self.layout.row_len + fft::numbers_a_sample(threads, convolved)).map(drop)
    }

    /// Fails where there are not as many states as streams.
    pub(crate) fn check_states(&self, states: &[E], streams: usize) -> Result<()> {
        if streams.checked_mul(self.state_len) == Some(states.len()) {
            return Ok(());
        }
        let (expected, found) = (self.state_len, states.len());
        Err(Error::Value(format!("state: expected {streams} x {expected} numbers, found {found}")))
    }
}

//! A linear time-invariant state-space layer: independent channels, one recurrence a group of lanes.
//!
//! A lane carries one output of one channel, or, where the channels are few, a part of its modes. Runs of samples
//! go through chunk matrices, which are measured once from the float64 recurrence itself; the rest goes sample by
//! sample. Both carry the same state.

mod fft;
mod impulse_response;
mod pack;
mod sequence;
mod step;

pub use impulse_response::{kernels_of, kernels_of_modes};
pub use sequence::Run;

use super::system::{Lane, Recurrence, System};
use crate::error::Result;
use crate::kernels::chunk::{Chunk, Shape};
use crate::kernels::pointwise::Function;
use crate::kernels::{Aligned, Elem, GROUP, padded};
use crate::threads::Team;
use fft::Convolution;
use std::sync::{Arc, Mutex, OnceLock};

/// Rows that go through a recurrence sample by sample with one packing.
const SCAN_ROWS: usize = 64;

/// A layer that was planned has recurrences at its rate.
const PLANNED: &str = "the same recurrence was made when the layer was planned";

/// Groups whose columns are read and written together where rows stand [`FAR_STRIDE`] or more elements apart: there the
/// columns of one group alone would fall into a few sets of the L1 cache.
const PANEL: usize = 4;
const FAR_STRIDE: usize = 512;

/// How a run of samples is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Whichever is fastest.
    Auto,
    /// As single samples, which look ahead and leave inputs pending: for a few samples of a stream.
    Step,
    /// The recurrence, sample by sample.
    Scan,
    /// Chunks as matrix products; what does not fill a chunk by the recurrence.
    Chunk,
    /// Convolution by FFT, of a whole sequence.
    Fft {
        /// Whether states are moved on too, as far as a recurrence without answers costs.
        states: bool,
    },
}

/// In which order samples go through a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As they come.
    Forward,
    /// From the last to the first; the answer to the samples after t is *added* to y\[t\].
    Backward,
}

/// The layer, planned for one rate.
#[derive(Debug)]
pub struct Lti<E> {
    system: System,
    lanes: Vec<[Option<Lane>; GROUP]>,
    /// Parts that a channel's modes are split into: all in one group, summed at the end.
    parts: usize,
    outputs: usize,
    /// Whether lane i reads input i.
    in_order: bool,
    groups: Vec<Recurrence<E>>,
    chunks: Vec<OnceLock<Chunk<E>>>,
    shape: Shape,
    convolutions: Vec<Mutex<Option<Arc<Convolution>>>>,
    /// Arrays for their transforms, which calls take and give back.
    rooms: Mutex<Vec<Aligned<f64>>>,
    skip: Aligned<E>,
    function: Function,
    direction: Direction,
    /// Tells its groups from those of the layers before.
    stagger: usize,
}

impl<E: Elem> Lti<E> {
    /// `skip(m, h)` is the direct path D; `function` is applied to the outputs of a forward layer. `head_major` flattens
    /// (H, M).
    ///
    /// # Errors
    /// As [`System::recurrence`].
    pub fn new(
        team: &Team,
        system: System,
        head_major: bool,
        skip: impl Fn(usize, usize) -> f64,
        function: Function,
        direction: Direction,
    ) -> Result<Self> {
        let (m, h) = (system.outputs(), system.channels());
        let outputs = m * h;
        let parts = if system.moves_by_poles() && outputs <= GROUP / 2 {
            (GROUP / outputs.next_power_of_two()).min(system.modes().next_power_of_two())
        } else {
            1
        };
        let lane = |i: usize| {
            let (part, v) = (i / outputs, i % outputs);
            let (output, channel) = if head_major { (v % m, v / m) } else { (v / h, v % h) };
            (i < outputs * parts).then_some(Lane { channel, output, part, parts })
        };
        let lanes: Vec<[Option<Lane>; GROUP]> =
            (0..padded(outputs * parts) / GROUP).map(|g| std::array::from_fn(|l| lane(g * GROUP + l))).collect();
        let skip = lanes
            .iter()
            .flatten()
            .map(|lane| match lane {
                Some(l) if l.part == 0 => E::of(skip(l.output, l.channel)),
                _ => E::ZERO,
            })
            .collect();
        let groups = team.map(lanes.len(), |g| system.recurrence(&lanes[g], 1.0));
        Ok(Self {
            shape: system.chunk_shape(),
            chunks: lanes.iter().map(|_| OnceLock::new()).collect(),
            rooms: Mutex::default(),
            convolutions: lanes.iter().map(|_| Mutex::new(None)).collect(),
            in_order: m == 1 && parts == 1,
            groups: groups.into_iter().collect::<Result<_>>()?,
            lanes,
            parts,
            outputs,
            skip,
            function,
            direction,
            system,
            stagger: 0,
        })
    }

    /// The same after layers that have `groups` groups.
    pub fn after(self, groups: usize) -> Self {
        Self { stagger: groups, ..self }
    }

    /// Groups of lanes: the layer's independent pieces.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Elements of state of one group.
    pub fn group_state_len(&self) -> usize {
        self.groups[0].state_len()
    }

    /// Elements of state of the layer: a row that begins with the count of single samples, then the groups'.
    pub fn state_len(&self) -> usize {
        GROUP + self.groups() * self.group_state_len()
    }

    /// The state before a stream's first sample, where that is not zero.
    pub fn start(&self) -> Option<Vec<E>> {
        let mut state = vec![E::ZERO; GROUP];
        for (lanes, recurrence) in self.lanes.iter().zip(&self.groups) {
            state.extend(self.system.start(lanes, recurrence).expect(PLANNED)?);
        }
        Some(state)
    }

    /// Multiply-adds of a single sample, roughly, with the matrices of its states.
    pub fn matrix_cost(&self) -> usize {
        let n = self.system.modes();
        if self.system.moves_by_matrix() { 2 * self.groups() * GROUP * n * n } else { 0 }
    }

    /// Rows for which its matrices are read once.
    pub fn tile_rows(&self) -> usize {
        if self.system.prefers_chunks(usize::MAX) { self.shape.rows() } else { SCAN_ROWS }
    }

    /// Elements of scratch that [`Lti::run`] needs.
    pub fn scratch_len(&self) -> usize {
        let together = if self.wide() { PANEL } else { 1 };
        self.shape.rows() * GROUP * 2 * together
            + Chunk::<E>::scratch_len(self.shape, self.groups[0].core_len() / GROUP)
    }

    /// The method by which a run goes, in a call for `rows` samples that asks for `asked`.
    pub fn method(&self, asked: Method, rows: usize) -> Method {
        match asked {
            Method::Auto | Method::Step if self.system.prefers_chunks(rows) => Method::Chunk,
            Method::Auto | Method::Step => Method::Scan,
            asked => asked,
        }
    }
}

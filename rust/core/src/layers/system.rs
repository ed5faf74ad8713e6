//! The systems of a layer in float64, and the recurrences made from them for lanes and step sizes.

use super::delay;
use crate::discretize::{DplrBar, ModeBar};
use crate::document::{Dense, Diagonal, Dplr, StateSpace};
use crate::error::Result;
use crate::kernels::chunk::{ChunkMatrices, Errors, Shape, State, Transition};
use crate::kernels::dense::Triangular;
use crate::kernels::diagonal::{self, DiagonalModes};
use crate::kernels::dplr::{self, LowRank};
use crate::kernels::lookahead::{BLOCK_SAMPLES, SampleCount};
use crate::kernels::modal::Modal;
use crate::kernels::window::Window;
use crate::kernels::{Aligned, Elem, GROUP, Isa};
use num_complex::Complex64;

/// What a lane carries: an output of a channel, or one part of its modes.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// h
    pub channel: usize,
    /// m
    pub output: usize,
    /// Which of the parts: it has the modes n with n % parts == part.
    pub part: usize,
    /// Parts that the channel's modes are split into.
    pub parts: usize,
}

/// The recurrence of one group of lanes, in engine precision.
#[derive(Debug)]
pub enum Recurrence<E> {
    /// S4D and its like.
    Diagonal(DiagonalModes<E>),
    /// S4.
    LowRank(LowRank<E>),
    /// LSSL.
    Triangular(Triangular<E>),
    /// Any of them, where its kernel is cut off soon.
    Window(Window<E>),
}

impl<E: Elem> Recurrence<E> {
    /// Elements of state.
    pub fn state_len(&self) -> usize {
        match self {
            Recurrence::Diagonal(r) => r.state_len(),
            Recurrence::LowRank(r) => r.state_len(),
            Recurrence::Triangular(r) => r.state_len(),
            Recurrence::Window(r) => r.state_len(),
        }
    }

    /// Elements of the state proper; what follows them is left over by rounding, or kept by single samples.
    pub fn core_len(&self) -> usize {
        match self {
            Recurrence::Diagonal(r) => r.core_len(),
            Recurrence::LowRank(r) => r.core_len(),
            Recurrence::Triangular(r) => r.core_len(),
            Recurrence::Window(r) => r.state_len(),
        }
    }

    /// The state proper and what rounding left over of it, for chunks, of a state that begins at `state`.
    pub fn chunk_state(&self, state: *mut E) -> State<E> {
        let (core, n) = (self.core_len(), self.core_len() / GROUP);
        let after = state.wrapping_add(core);
        let errors = match self {
            _ if !E::COMPENSATED => Errors::None,
            Recurrence::Diagonal(_) | Recurrence::LowRank(_) => Errors::Halves(after),
            Recurrence::Triangular(_) => Errors::Rows(after),
            Recurrence::Window(_) => unreachable!("it has no chunks"),
        };
        State { n, x: state, errors }
    }

    /// Runs over `rows` rows of `u`, writing `y`. `phase` counts the samples, for what is done now and then.
    pub fn scan(&self, isa: Isa, phase: usize, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        match self {
            Recurrence::Diagonal(r) => r.scan(isa, phase, rows, u, y, state),
            Recurrence::LowRank(r) => r.scan(isa, phase, rows, u, y, state),
            Recurrence::Triangular(r) => r.scan(isa, rows, u, y, state),
            Recurrence::Window(r) => r.scan(isa, rows, u, y, state),
        }
    }

    /// Whether so many samples, more than one, are faster as single ones, which look ahead, than as a short run. A run of whole
    /// blocks is as fast where modes are coupled, which are then visited once a block either way.
    pub fn steps(&self, samples: usize) -> bool {
        match self {
            Recurrence::Diagonal(r) => r.look_ahead().is_some(),
            Recurrence::LowRank(r) => r.look_ahead().is_some() && !samples.is_multiple_of(BLOCK_SAMPLES),
            Recurrence::Triangular(_) | Recurrence::Window(_) => false,
        }
    }

    /// Moves the state on by the inputs that are pending after `single` samples, and forgets what single samples keep: runs of
    /// samples go on from there.
    pub fn apply_pending(&self, isa: Isa, single: SampleCount, stagger: usize, state: &mut [E]) {
        match self {
            Recurrence::Diagonal(r) => r.apply_pending(isa, single, stagger, state),
            Recurrence::LowRank(r) => r.apply_pending(isa, single, stagger, state),
            Recurrence::Triangular(_) | Recurrence::Window(_) => {}
        }
    }
}

impl Recurrence<f64> {
    /// The chunk matrices for `t` samples, a power of two.
    pub fn chunk(&self, isa: Isa, t: usize) -> ChunkMatrices {
        match self {
            Recurrence::Diagonal(r) => r.chunk(t),
            Recurrence::Triangular(r) => r.chunk(isa, t),
            Recurrence::LowRank(_) | Recurrence::Window(_) => self.answers(isa, t),
        }
    }

    /// The chunk matrices as the answers of the recurrence to an impulse and to each unit state.
    fn answers(&self, isa: Isa, t: usize) -> ChunkMatrices {
        let n = self.core_len() / GROUP;
        let mut m = ChunkMatrices::zeros(t, n);
        let silence = Aligned::<f64>::zeros(t * GROUP);
        let one: Aligned<f64> = std::iter::repeat_n(1.0, GROUP).collect();
        let mut y = Aligned::<f64>::zeros(t * GROUP);
        let mut state = Aligned::<f64>::zeros(self.state_len());
        for i in 0..t {
            self.scan(isa, 0, 1, if i == 0 { &one } else { &silence }, &mut y, &mut state);
            m.kernel[i * GROUP..][..GROUP].copy_from_slice(&y[..GROUP]);
            for j in 0..n {
                m.w[(j * t + t - 1 - i) * GROUP..][..GROUP].copy_from_slice(&state[j * GROUP..][..GROUP]);
            }
        }
        let mut matrix = vec![0.0; n * n * GROUP];
        for j in 0..n {
            state.fill(0.0);
            state[j * GROUP..][..GROUP].fill(1.0);
            self.scan(isa, 0, t, &silence, &mut y, &mut state);
            for i in 0..t {
                m.g[(i * n + j) * GROUP..][..GROUP].copy_from_slice(&y[i * GROUP..][..GROUP]);
            }
            for i in 0..n {
                matrix[(i * n + j) * GROUP..][..GROUP].copy_from_slice(&state[i * GROUP..][..GROUP]);
            }
        }
        m.transition = Transition::Matrix(matrix);
        m
    }
}

/// H channels with M outputs each, in float64, at a rate.
#[derive(Clone, Debug)]
pub struct System {
    kind: Kind,
    rate: f64,
    /// Whether C is to be read as C Abar^delay: the part of a kernel that lies beyond its cut.
    delay: usize,
    reverse: bool,
    /// Samples after which the kernel is cut off, where those are few.
    window: Option<usize>,
}

#[derive(Clone, Debug)]
enum Kind {
    Diagonal(Diagonal),
    Dplr(Dplr),
    Dense(Dense),
}

impl System {
    /// Those of S4D and its like.
    pub fn diagonal(node: &Diagonal, rate: f64) -> Self {
        Self::new(Kind::Diagonal(node.clone()), rate)
    }

    /// Those of S4.
    pub fn dplr(node: &Dplr, rate: f64) -> Self {
        Self::new(Kind::Dplr(node.clone()), rate)
    }

    /// Those of LSSL.
    pub fn dense(node: &Dense, rate: f64) -> Self {
        Self::new(Kind::Dense(node.clone()), rate)
    }

    fn new(kind: Kind, rate: f64) -> Self {
        Self { kind, rate, delay: 0, reverse: false, window: None }
    }

    /// The same read by C_reverse.
    pub fn reversed(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// The same read after `delay` samples without input.
    pub fn delayed(self, delay: usize) -> Self {
        Self { delay, ..self }
    }

    /// The same with its kernel cut off after `taps` samples: then these are all its memory.
    pub fn windowed(self, taps: usize) -> Self {
        Self { window: Some(taps), ..self }
    }

    /// H
    pub fn channels(&self) -> usize {
        self.sizes().0
    }

    /// M
    pub fn outputs(&self) -> usize {
        self.sizes().1
    }

    /// N
    pub fn modes(&self) -> usize {
        self.sizes().2
    }

    fn sizes(&self) -> (usize, usize, usize) {
        fn of<T>(ssm: &StateSpace<T>) -> (usize, usize, usize) {
            (ssm.channels(), ssm.outputs(), ssm.modes())
        }
        match &self.kind {
            Kind::Diagonal(node) => of(&node.ssm),
            Kind::Dplr(node) => of(&node.ssm),
            Kind::Dense(node) => of(&node.ssm),
        }
    }

    /// Where the state moves by poles alone: mode n of an output as (Abar, what reads it).
    pub fn poles(&self) -> Option<impl Fn(Lane, usize) -> (Complex64, Complex64) + Sync> {
        let Kind::Diagonal(node) = &self.kind else { return None };
        Some(move |lane: Lane, n| {
            let bar = node.mode(lane.channel, n, self.rate);
            (bar.a, self.reader(node, lane, n, &bar))
        })
    }

    /// Whether the state moves by poles alone.
    pub fn moves_by_poles(&self) -> bool {
        matches!(self.kind, Kind::Diagonal(_))
    }

    /// Whether each sample moves the state by a full matrix.
    pub fn moves_by_matrix(&self) -> bool {
        matches!(self.kind, Kind::Dense(_))
    }

    /// How chunks are cut: where the state moves by a matrix, that product is shared by more samples, and the matrices
    /// are so many that they come from afar.
    pub fn chunk_shape(&self) -> Shape {
        match self.kind {
            Kind::Diagonal(_) => Shape { samples: 16, tile: 36 },
            Kind::Dplr(_) | Kind::Dense(_) => Shape { samples: 64, tile: 96 },
        }
    }

    /// Whether runs of so many samples go through chunk matrices where the caller does not say. The matrices are read
    /// for many samples only: for more where all channels' do not stay in the last cache. S4's own recurrence costs O(N)
    /// a sample, its matrix over a chunk O(N^2), and no less than the recurrence for few modes; its matrices are worth
    /// their reading later, and later still where the samples to be turned stand a page apart.
    pub fn prefers_chunks(&self, rows: usize) -> bool {
        const FEW_ROWS: usize = 256;
        const MANY_ROWS: usize = 4096;
        const FEW_MODES: usize = 8;
        const MANY_MODES: usize = 48;
        const LAST_CACHE: usize = 1 << 22;
        const PAGE: usize = 1024;
        let (modes, outputs, samples) = (self.modes(), self.channels() * self.outputs(), self.chunk_shape().samples);
        match &self.kind {
            Kind::Diagonal(_) => rows >= FEW_ROWS || outputs * 2 * modes * 2 * samples <= LAST_CACHE,
            Kind::Dplr(_) => {
                let far = outputs * 2 * modes * (2 * samples + 2 * modes) > LAST_CACHE || outputs >= PAGE;
                modes > FEW_MODES && modes <= MANY_MODES && rows >= if far { MANY_ROWS } else { FEW_ROWS }
            }
            Kind::Dense(_) => true,
        }
    }

    /// The state of `recurrence`, which is that of a group of lanes, before a stream's first sample; `None`: zeros.
    ///
    /// # Errors
    /// [`Error::Value`] where a matrix has no Schur form.
    pub fn start<E: Elem>(&self, lanes: &[Option<Lane>; GROUP], recurrence: &Recurrence<E>) -> Result<Option<Vec<E>>> {
        let (Kind::Dense(node), Recurrence::Triangular(system), false) = (&self.kind, recurrence, self.reverse) else {
            return Ok(None);
        };
        if node.x0.is_none() {
            return Ok(None);
        }
        let of = |lane: &Option<Lane>| lane.map_or(Ok(None), |l| node.start(l.channel));
        let starts = lanes.iter().map(of).collect::<Result<Vec<_>>>()?;
        let at = |lane: usize, i: usize| starts[lane].as_ref().and_then(|x| x.get(i)).copied().unwrap_or(0.0);
        Ok(Some(system.state(at)))
    }

    /// Whether long runs can go through chunk matrices.
    pub fn chunks(&self) -> bool {
        self.window.is_none()
    }

    /// The recurrence of a group of lanes with every step size multiplied by `dt`. Its state is the one that the
    /// recurrence at `dt` = 1 has.
    ///
    /// # Errors
    /// [`Error::Value`] where the transform has a pole at such a step size.
    pub fn recurrence<E: Elem>(&self, lanes: &[Option<Lane>; GROUP], dt: f64) -> Result<Recurrence<E>> {
        if let Some(taps) = self.window {
            let whole = Self { window: None, ..self.clone() }.recurrence::<f64>(lanes, dt)?;
            let mut impulse = Aligned::<f64>::zeros(taps * GROUP);
            impulse[..GROUP].fill(1.0);
            let mut kernel = Aligned::<f64>::zeros(taps * GROUP);
            let mut state = Aligned::<f64>::zeros(whole.state_len());
            whole.scan(Isa::Scalar, 0, taps, &impulse, &mut kernel, &mut state);
            return Ok(Recurrence::Window(Window::new(&kernel)));
        }
        match &self.kind {
            Kind::Diagonal(node) => Ok(self.modes_of(node, lanes, dt)),
            Kind::Dplr(node) => self.low_rank_of(node, lanes, dt),
            Kind::Dense(node) => self.triangular_of(node, lanes, dt),
        }
    }

    fn modes_of<E: Elem>(&self, node: &Diagonal, lanes: &[Option<Lane>; GROUP], dt: f64) -> Recurrence<E> {
        let n = node.ssm.modes();
        let parts = lanes.iter().flatten().map(|l| l.parts).max().unwrap_or(1);
        let mode = |lane: usize, i: usize| {
            let Some(l) = lanes[lane] else { return diagonal::Mode::default() };
            let i = i * parts + l.part;
            if i >= n {
                return diagonal::Mode::default();
            }
            let regular = node.mode(l.channel, i, self.rate);
            let c = self.reader(node, l, i, &regular);
            if dt == 1.0 {
                return diagonal::Mode { delta: regular.a_minus_one, c, gain: Complex64::ONE };
            }
            let bar = node.mode(l.channel, i, self.rate * dt);
            diagonal::Mode { delta: bar.a_minus_one, c, gain: bar.f / regular.f }
        };
        Recurrence::Diagonal(DiagonalModes::new(n.div_ceil(parts), dt == 1.0, mode))
    }

    /// What reads mode `n` of an output, with B, the factor 2 of conjugate pairs and the delay folded in.
    fn reader(&self, node: &Diagonal, Lane { channel, output, .. }: Lane, n: usize, bar: &ModeBar) -> Complex64 {
        let c = node.ssm.reader(output, channel, self.reverse)[n];
        let read = node.factor() * c * node.input(channel, n) * bar.f;
        if self.delay > 0 { read * bar.a.powu(self.delay.try_into().unwrap_or(u32::MAX)) } else { read }
    }

    fn low_rank_of<E: Elem>(&self, node: &Dplr, lanes: &[Option<Lane>; GROUP], dt: f64) -> Result<Recurrence<E>> {
        let mut bars: [Option<(DplrBar, DplrBar, Vec<Complex64>)>; GROUP] = [const { None }; GROUP];
        for (lane, bars) in lanes.iter().zip(&mut bars) {
            let Some(l) = lane else { continue };
            let regular = node.bar(l.channel, self.rate)?;
            let c = node.ssm.reader(l.output, l.channel, self.reverse).iter().map(|c| node.factor() * c).collect();
            let read = delay::through_low_rank(&regular, c, self.delay);
            let bar = if dt == 1.0 { regular.clone() } else { node.bar(l.channel, self.rate * dt)? };
            *bars = Some((regular, bar, read));
        }
        let products = bars.iter().flatten().map(|(_, bar, _)| bar.v.len()).max().unwrap_or(0);
        // A mode's state is kept in units of its input's gain, where that is a moderate number.
        let moderate = |b: &Complex64| (1e-6..1e6).contains(&b.norm());
        let scaled = bars.iter().flatten().all(|(regular, ..)| regular.b.iter().all(moderate));
        let mode = |lane: usize, i: usize| {
            let (regular, bar, read) = bars[lane].as_ref()?;
            let unit = if scaled { regular.b[i] } else { Complex64::ONE };
            let vw = bar.v.iter().zip(&bar.w).map(|(v, w)| (v[i] * unit, w[i] / unit)).collect();
            Some(dplr::Mode { delta: bar.a_minus_one[i], b: bar.b[i] / unit, c: read[i] * unit, vw })
        };
        Ok(Recurrence::LowRank(LowRank::new(node.ssm.modes(), products, scaled && dt == 1.0, mode)))
    }

    fn triangular_of<E: Elem>(&self, node: &Dense, lanes: &[Option<Lane>; GROUP], dt: f64) -> Result<Recurrence<E>> {
        let n = node.ssm.modes();
        // The channels of a group often share their outputs' system: each is discretised once.
        let mut channels: Vec<usize> = Vec::new();
        let mut bars: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        let mut of_lane: [Option<(usize, Vec<f64>)>; GROUP] = [const { None }; GROUP];
        for (lane, of_lane) in lanes.iter().zip(&mut of_lane) {
            let Some(l) = lane else { continue };
            let at = match channels.iter().position(|channel| *channel == l.channel) {
                Some(at) => at,
                None => {
                    channels.push(l.channel);
                    bars.push(node.bar(l.channel, self.rate * dt)?);
                    channels.len() - 1
                }
            };
            let mut read = node.reader(l.output, l.channel, self.reverse)?;
            if self.delay > 0 {
                read = delay::through_matrix(node.bar(l.channel, self.rate)?.0, read, self.delay);
            }
            *of_lane = Some((at, read));
        }
        let bar = |lane: usize| of_lane[lane].as_ref().map(|(at, _)| &bars[*at]);
        // An even number of rows, as the chunk matrices want them: the last may be a state that stays zero.
        let even = n.next_multiple_of(2);
        Ok(Recurrence::Triangular(Triangular::new(
            even,
            |lane, i, j| match bar(lane) {
                Some((a, _)) if i < n && j < n => a[i * n + j] - f64::from(u8::from(i == j)),
                _ => 0.0,
            },
            |lane, i| bar(lane).filter(|_| i < n).map_or(0.0, |(_, b)| b[i]),
            |lane, i| of_lane[lane].as_ref().filter(|_| i < n).map_or(0.0, |(_, read)| read[i]),
        )))
    }
}

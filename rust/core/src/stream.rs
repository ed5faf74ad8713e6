//! Streams: states kept between calls, one sample or one chunk at a time, without allocation.

use crate::checksum::{START, hash};
use crate::error::{Error, Result};
use crate::kernels::Aligned;
use crate::layers::lti::Method;
use crate::memory::HEAD;
use crate::plan::{Input, Plan};
use crate::precision::Precision;
use crate::run::{Answers, Call, NEVER};
use crate::shared::Shared;
use crate::threads::Team;
use crate::workspace::Workspace;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Multiply-adds of a call for which threads are worth their waking.
const LARGE: usize = 1 << 25;

/// Samples of a call from which on they go as a run, at whose end all modes are visited. Fewer go as single ones.
const RUN: usize = 32;

/// Streams that one of several threads takes at once, at least, if there are so many for each: what they have in common is
/// then read often enough.
const FEW: usize = 4;

/// Some streams of one model, each with its own state.
#[derive(Debug)]
pub struct Stream<E> {
    plan: Arc<Plan<E>>,
    states: Aligned<E>,
    streams: usize,
    /// Threads that work for them at most.
    threads: usize,
    /// What the states were before a call that may be stopped.
    before: Aligned<E>,
    /// The first for calls that are run as one, all for those whose streams are shared out.
    works: Vec<Workspace<E>>,
}

impl<E: Precision> Plan<E> {
    /// One sample of `streams` streams whose states, (streams, state_len), the caller keeps.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn step(
        &self,
        states: &mut [E],
        streams: usize,
        input: Input<'_, E>,
        dt: Option<&[f64]>,
        output: &mut [E],
    ) -> Result<()> {
        self.streamable()?;
        self.check_input(input)?;
        self.check_sizes(input, streams, dt, output, streams)?;
        self.check_states(states, streams)?;
        dt.map_or(Ok(()), |dt| self.check_dt(dt))?;
        let threads = self.sharing_threads(streams, usize::MAX);
        let mut work = self.take_workspace(streams.clamp(1, self.block_rows()), threads)?;
        let call = Call::sample(streams);
        self.sharing_samples(streams, usize::MAX, |team| match dt {
            None => E::advance(self, &mut work, team, &call, states, input, output),
            Some(dt) => {
                let (state_len, d_in, d_out) = (self.state_len(), self.d_input(), self.d_output());
                for (s, &dt) in dt.iter().enumerate() {
                    let call = Call { streams: 1, dt, ..call };
                    let state = &mut states[s * state_len..][..state_len];
                    let output = &mut output[s * d_out..][..d_out];
                    E::advance(self, &mut work, team, &call, state, input.part(s, s + 1, d_in), output);
                }
            }
        });
        self.give_back([work]);
        Ok(())
    }

    /// As [`Plan::advance`], with the streams shared out to the team, some at once: each of its threads has one of the
    /// workspaces.
    fn advance_shared(
        &self,
        works: &mut [Workspace<E>],
        team: &Team,
        call: &Call<'_>,
        states: &mut [E],
        input: Input<'_, E>,
        output: &mut [E],
    ) {
        let Call { streams, rows, .. } = *call;
        assert!(states.len() == streams * self.state_len && works.len() >= team.size());
        let (few, out) = (FEW.min(streams.div_ceil(team.size())), output.len() / streams.max(1));
        let (works, states, output) =
            (Shared::new(works.as_mut_ptr()), Shared::new(states.as_mut_ptr()), Shared::new(output.as_mut_ptr()));
        team.runs(streams.div_ceil(few), |worker, parts| {
            let (from, to) = (parts.start * few, streams.min(parts.end * few));
            // SAFETY: every worker has a workspace of its own and every part its streams.
            let (work, states, output) = unsafe {
                (
                    &mut *works.at(worker),
                    states.part(from * self.state_len, (to - from) * self.state_len),
                    output.part(from * out, (to - from) * out),
                )
            };
            let call = Call { streams: to - from, ..*call };
            let input = input.part(from * rows, to * rows, self.d_input());
            E::advance(self, work, &Team::ALONE, &call, states, input, output);
        });
    }
}

/// What a snapshot begins with: these bytes, and then as 8 bytes each the layout's version, the model, rate and precision, the
/// number of streams, and a checksum of that and of the states behind it.
const MAGIC: &[u8; 8] = b"ssmrtsnp";
const HEADER: usize = 40;

/// Whoever changes what a number of a state means raises it.
const LAYOUT: u64 = 1;

impl<E: Precision> Stream<E> {
    /// `streams` streams, all at their start, for which all threads work.
    ///
    /// # Errors
    /// As [`Stream::with_threads`].
    pub fn new(plan: Arc<Plan<E>>, streams: usize) -> Result<Self> {
        Self::with_threads(plan, streams, usize::MAX)
    }

    /// `streams` streams, all at their start, for which so many threads work at most.
    ///
    /// # Errors
    /// [`Error::NotStreamable`] where the model needs whole sequences; [`Error::Memory`].
    pub fn with_threads(plan: Arc<Plan<E>>, streams: usize, threads: usize) -> Result<Self> {
        plan.streamable()?;
        if streams == 0 {
            return Err(Error::Value("batch: expected at least one stream, found 0".into()));
        }
        let states = plan.started(Aligned::try_zeros("batch", streams, plan.state_len())?);
        let sharing = plan.sharing_threads(1, threads);
        let works = vec![Workspace::new(&plan.layout, streams.min(plan.block_rows()), sharing)?];
        Ok(Self { plan, states, streams, threads, before: Aligned::default(), works })
    }

    /// The model.
    pub fn plan(&self) -> &Plan<E> {
        &self.plan
    }

    /// Streams.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Samples of stream `s` since its start or last reset.
    pub fn position(&self, s: usize) -> u64 {
        let head = &self.states[s * self.plan.state_len()..][..HEAD];
        (head[0].f64() + head[1].f64()) as u64
    }

    /// One sample of every stream: `input` (streams, d_input), `output` (streams, d_output), `dt` (streams,).
    ///
    /// # Errors
    /// [`Error::Value`], [`Error::Unsupported`] or [`Error::Memory`]; then the states are as they were.
    pub fn step(&mut self, input: Input<'_, E>, dt: Option<&[f64]>, output: &mut [E]) -> Result<()> {
        self.push(input, 1, dt, output)
    }

    /// One sample of the streams `active` (in rising order): `input` (active, d_input), `output` (active, d_output),
    /// `dt` (active,). The others stay as they are.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn step_active(
        &mut self,
        active: &[usize],
        input: Input<'_, E>,
        dt: Option<&[f64]>,
        output: &mut [E],
    ) -> Result<()> {
        self.check_active(active)?;
        self.plan.check_input(input)?;
        self.plan.check_sizes(input, active.len(), dt, output, active.len())?;
        if let Some(dt) = dt {
            self.plan.check_dt(dt)?;
        }
        let Self { plan, works, states, threads, .. } = self;
        let (state_len, d_in, d_out) = (plan.state_len(), plan.d_input(), plan.d_output());
        let call = Call::sample(1);
        plan.sharing_samples(active.len(), *threads, |team| {
            let mut from = 0;
            while from < active.len() {
                // Neighbours go together, unless each has its own step size.
                let run = active[from..].iter().zip(active[from]..).take_while(|(s, next)| *s == next).count();
                let run = if dt.is_some() { 1 } else { run };
                let call = Call { streams: run, dt: dt.map_or(1.0, |dt| dt[from]), ..call };
                let states = &mut states[active[from] * state_len..(active[from] + run) * state_len];
                let output = &mut output[from * d_out..(from + run) * d_out];
                let input = input.part(from, from + run, d_in);
                E::advance(plan, &mut works[0], team, &call, states, input, output);
                from += run;
            }
        });
        Ok(())
    }

    /// `rows` samples of every stream: `input` (streams, rows, d_input), `output` (streams, rows, d_output),
    /// `dt` (streams, rows). A pooled model answers as if the sequence ended with each sample.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn push(&mut self, input: Input<'_, E>, rows: usize, dt: Option<&[f64]>, output: &mut [E]) -> Result<()> {
        self.run(input, rows, dt, Some(output), &NEVER)
    }

    /// As [`Stream::push`], without answers: the states alone move on, and what only answers need is left out.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn prefill(&mut self, input: Input<'_, E>, rows: usize, dt: Option<&[f64]>) -> Result<()> {
        self.run(input, rows, dt, None, &NEVER)
    }

    /// As [`Stream::push`], until another thread sets `stop`; without `output` the states alone move on.
    ///
    /// # Errors
    /// As [`Stream::step`], and [`Error::Stopped`]; then the states are as they were.
    pub fn push_until(
        &mut self,
        stop: &AtomicBool,
        input: Input<'_, E>,
        rows: usize,
        dt: Option<&[f64]>,
        output: Option<&mut [E]>,
    ) -> Result<()> {
        if self.before.len() < self.states.len() {
            self.before = Aligned::try_zeros("batch", self.streams, self.plan.state_len())?;
        }
        let (len, states) = (self.plan.state_len(), &self.states);
        let before = Shared::new(self.before.as_mut_ptr());
        Team::at_most(self.threads)?.each(self.streams, |_, s| {
            // SAFETY: there is room for each stream's state, and each is copied once.
            unsafe { before.part(s * len, len) }.copy_from_slice(&states[s * len..][..len]);
        });
        self.run(input, rows, dt, output, stop)?;
        if stop.load(Ordering::Relaxed) {
            std::mem::swap(&mut self.states, &mut self.before);
            return Err(Error::Stopped);
        }
        Ok(())
    }

    /// As [`Stream::push_until`], for the streams `active` (in rising order): `input` (active, rows, d_input), `output`
    /// (active, rows, d_output), `dt` (active, rows). The others stay as they are.
    ///
    /// # Errors
    /// As [`Stream::push_until`].
    pub fn push_active(
        &mut self,
        stop: &AtomicBool,
        active: &[usize],
        input: Input<'_, E>,
        rows: usize,
        dt: Option<&[f64]>,
        output: Option<&mut [E]>,
    ) -> Result<()> {
        self.check_active(active)?;
        let len = self.plan.state_len();
        let of = |s: usize| s * len..(s + 1) * len;
        // Streams of their own meanwhile, so that their states are neighbours.
        let mut states = Aligned::try_zeros("active", active.len(), len)?;
        for (state, &s) in states.chunks_exact_mut(len).zip(active) {
            state.copy_from_slice(&self.states[of(s)]);
        }
        let works = std::mem::take(&mut self.works);
        let (plan, before) = (self.plan.clone(), Aligned::default());
        let mut some = Stream { plan, states, streams: active.len(), threads: self.threads, before, works };
        let done = some.run(input, rows, dt, output, stop);
        self.works = some.works;
        done?;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        for (&s, state) in active.iter().zip(some.states.chunks_exact(len)) {
            self.states[of(s)].copy_from_slice(state);
        }
        Ok(())
    }

    fn check_active(&self, active: &[usize]) -> Result<()> {
        let rising = active.windows(2).all(|w| w[0] < w[1]);
        if rising && active.last().is_none_or(|&s| s < self.streams) {
            return Ok(());
        }
        Err(Error::Value(format!("active: expected rising numbers below {}, found {active:?}", self.streams)))
    }

    fn run(
        &mut self,
        input: Input<'_, E>,
        rows: usize,
        dt: Option<&[f64]>,
        output: Option<&mut [E]>,
        stop: &AtomicBool,
    ) -> Result<()> {
        self.plan.check_input(input)?;
        let samples = self.streams.saturating_mul(rows);
        let (output, answers, given) = match output {
            Some(output) => (output, Answers::Each, samples),
            None => (&mut [][..], Answers::Nothing, 0),
        };
        self.plan.check_sizes(input, samples, dt, output, given)?;
        let (d_in, d_out) = (self.plan.d_input(), self.plan.d_output());
        let method = if rows < RUN { Method::Step } else { Method::Auto };
        let mut call = Call { streams: self.streams, rows, method, dt: 1.0, answers, unpadded: None, stop };
        let Some(dt) = dt else {
            let sharing = self.plan.sharing_threads(samples, self.threads);
            if sharing > 1 {
                self.grow(1, samples, sharing)?;
                let Self { plan, works, states, threads, .. } = self;
                plan.sharing_samples(samples, *threads, |team| {
                    E::advance(plan, &mut works[0], team, &call, states, input, output)
                });
                return Ok(());
            }
            let large = samples.saturating_mul(self.plan.cost()) >= LARGE;
            let team = if large { Team::at_most(self.threads)? } else { Team::ALONE };
            let shares = if self.streams >= team.size() { team.size() } else { 1 };
            let wanted = (self.streams.div_ceil(shares).max(FEW) * rows).min(self.plan.block_rows());
            self.grow(shares, wanted, if shares == 1 { team.size() } else { 1 })?;
            let Self { plan, works, states, .. } = self;
            if shares > 1 {
                plan.advance_shared(&mut works[..shares], &team, &call, states, input, output);
            } else {
                team.inside(|team| E::advance(plan, &mut works[0], team, &call, states, input, output));
            }
            return Ok(());
        };
        self.plan.check_dt(dt)?;
        let state_len = self.plan.state_len();
        let longest = dt.chunk_by(|a, b| a == b).map(<[f64]>::len).max().unwrap_or(1);
        self.grow(1, longest.min(rows).min(self.plan.block_rows()), self.plan.sharing_threads(1, self.threads))?;
        for s in 0..self.streams {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let mut t = 0;
            while t < rows {
                let at = s * rows + t;
                let run = dt[at..(s + 1) * rows].iter().take_while(|&&r| r == dt[at]).count();
                (call.streams, call.rows, call.dt) = (1, run, dt[at]);
                let state = &mut self.states[s * state_len..][..state_len];
                let output = if given > 0 { &mut output[at * d_out..(at + run) * d_out] } else { &mut *output };
                let (plan, work, input) = (&self.plan, &mut self.works[0], input.part(at, at + run, d_in));
                plan.sharing_samples(run, self.threads, |team| {
                    E::advance(plan, work, team, &call, state, input, output)
                });
                t += run;
            }
        }
        Ok(())
    }

    /// Makes `count` workspaces at least, of so many rows and threads at least.
    fn grow(&mut self, count: usize, rows: usize, threads: usize) -> Result<()> {
        for i in 0..count.max(self.works.len()) {
            match self.works.get_mut(i) {
                Some(work) if i >= count || work.rows() >= rows && work.threads() >= threads => {}
                Some(work) => {
                    let (rows, threads) = (rows.max(work.rows()), threads.max(work.threads()));
                    *work = Workspace::new(&self.plan.layout, rows, threads)?;
                }
                None => self.works.push(Workspace::new(&self.plan.layout, rows, threads)?),
            }
        }
        Ok(())
    }

    /// Starts the streams anew for which `mask` is true, or all.
    ///
    /// # Errors
    /// [`Error::Value`] where the mask has not one flag a stream.
    pub fn reset(&mut self, mask: Option<&[bool]>) -> Result<()> {
        match mask {
            None => self.plan.start(&mut self.states),
            Some(mask) if mask.len() == self.streams => {
                for (state, _) in
                    self.states.chunks_exact_mut(self.plan.state_len()).zip(mask).filter(|(_, reset)| **reset)
                {
                    self.plan.start(state);
                }
            }
            Some(mask) => {
                return Err(Error::Value(format!("mask: expected {} flags, found {}", self.streams, mask.len())));
            }
        }
        Ok(())
    }

    /// The states as bytes, which a stream of the same model, rate, dtype and size restores.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.snapshot_len()];
        self.write_snapshot(&mut bytes);
        bytes
    }

    /// Bytes of a snapshot.
    pub fn snapshot_len(&self) -> usize {
        HEADER + self.states.len() * size_of::<E>()
    }

    /// Writes a snapshot over so many bytes.
    ///
    /// # Panics
    /// Where they are not [`Stream::snapshot_len`].
    pub fn write_snapshot(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.snapshot_len());
        let (head, body) = bytes.split_at_mut(HEADER);
        for (bytes, x) in body.chunks_exact_mut(size_of::<E>()).zip(self.states.iter()) {
            bytes.copy_from_slice(&x.to_bits().to_le_bytes()[..size_of::<E>()]);
        }
        head.copy_from_slice(&self.header(body));
    }

    /// Goes on from a snapshot.
    ///
    /// # Errors
    /// [`Error::Value`] where the bytes are no snapshot of such a stream, were damaged, or hold a state that is not finite;
    /// then the states are as they were.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let wrong = |what: &str| Err(Error::Value(format!("snapshot: expected {what}")));
        let Some((head, body)) = bytes.split_at_checked(HEADER) else {
            return wrong("a stream's bytes, found fewer");
        };
        let header = self.header(body);
        let same = |field: usize| head[field * 8..][..8] == header[field * 8..][..8];
        if !same(0) {
            return wrong("a stream's bytes, found something else");
        }
        if !same(1) {
            return wrong(&format!("layout {LAYOUT} of the states, found another version's"));
        }
        if !same(2) {
            return wrong("one of the same model, rate and dtype, found another's");
        }
        if !same(3) || bytes.len() != self.snapshot_len() {
            return wrong(&format!("one of {} streams, found another number", self.streams));
        }
        if !same(4) {
            return wrong("the bytes as they were written, found damaged ones");
        }
        let numbers = body.chunks_exact(size_of::<E>()).map(|bytes| {
            let mut bits = [0; 8];
            bits[..bytes.len()].copy_from_slice(bytes);
            E::from_bits(u64::from_le_bytes(bits))
        });
        if !numbers.clone().all(|x| x.f64().is_finite()) {
            return wrong("finite states, found a number that is not: its stream has met a NaN or grown without bound");
        }
        self.states.iter_mut().zip(numbers).for_each(|(state, x)| *state = x);
        Ok(())
    }

    /// What stands before `body` in a snapshot.
    fn header(&self, body: &[u8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        for (i, word) in [LAYOUT, self.plan.fingerprint(), self.streams as u64].into_iter().enumerate() {
            header[8 + 8 * i..][..8].copy_from_slice(&word.to_le_bytes());
        }
        let checksum = hash(hash(START, &header[..HEADER - 8]), body);
        header[HEADER - 8..].copy_from_slice(&checksum.to_le_bytes());
        header
    }
}

//! Streams: states kept between calls, one sample or one chunk at a time, without allocation.

use crate::error::{Error, Result};
use crate::kernels::{Aligned, Elem};
use crate::layers::lti::Method;
use crate::memory::HEAD;
use crate::plan::{Input, Plan};
use crate::run::{Answers, Call, NEVER};
use crate::shared::Shared;
use crate::threads::Team;
use crate::workspace::Workspace;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Multiply-adds of a call for which threads are worth their waking: never those of a sample of a few streams.
const LARGE: usize = 1 << 25;

/// Some streams of one model, each with its own state.
#[derive(Debug)]
pub struct Stream<E> {
    plan: Arc<Plan<E>>,
    states: Aligned<E>,
    streams: usize,
    /// What the states were before a call that may be stopped.
    before: Aligned<E>,
    /// The first for calls that are run as one, all for those whose streams are shared out.
    works: Vec<Workspace<E>>,
}

impl<E: Elem> Plan<E> {
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
        let mut work = self.take_workspace(streams.clamp(1, self.block_rows()), 1);
        let call = Call::sample(streams);
        match dt {
            None => self.advance(&mut work, &Team::ALONE, &call, states, input, output),
            Some(dt) => {
                self.check_dt(dt)?;
                let (state_len, d_in, d_out) = (self.state_len(), self.d_input(), self.d_output());
                for (s, &dt) in dt.iter().enumerate() {
                    let call = Call { streams: 1, dt, ..call };
                    let state = &mut states[s * state_len..][..state_len];
                    let output = &mut output[s * d_out..][..d_out];
                    self.advance(&mut work, &Team::ALONE, &call, state, input.part(s, s + 1, d_in), output);
                }
            }
        }
        self.give_back([work]);
        Ok(())
    }
}

const MAGIC: &[u8; 8] = b"ssmrtsnp";

impl<E: Elem> Stream<E> {
    /// `streams` streams, all at their start.
    ///
    /// # Errors
    /// [`Error::NotStreamable`] where the model needs whole sequences.
    pub fn new(plan: Arc<Plan<E>>, streams: usize) -> Result<Self> {
        plan.streamable()?;
        if streams == 0 {
            return Err(Error::Value("batch: expected at least one stream, found 0".into()));
        }
        let states = plan.started(Aligned::try_zeros("batch", streams, plan.state_len())?);
        let works = vec![Workspace::new(&plan.layout, streams.min(plan.block_rows()), 1)];
        Ok(Self { plan, states, streams, before: Aligned::default(), works })
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
    /// [`Error::Value`] or [`Error::Unsupported`]; then the states are as they were.
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
        let rising = active.windows(2).all(|w| w[0] < w[1]);
        if !rising || active.last().is_some_and(|&s| s >= self.streams) {
            return Err(Error::Value(format!(
                "active: expected rising numbers below {}, found {active:?}",
                self.streams
            )));
        }
        self.plan.check_input(input)?;
        self.plan.check_sizes(input, active.len(), dt, output, active.len())?;
        if let Some(dt) = dt {
            self.plan.check_dt(dt)?;
        }
        let (state_len, d_in, d_out) = (self.plan.state_len(), self.plan.d_input(), self.plan.d_output());
        let call = Call::sample(1);
        let mut from = 0;
        while from < active.len() {
            // Neighbours go together, unless each has its own step size.
            let run = active[from..].iter().zip(active[from]..).take_while(|(s, next)| *s == next).count();
            let run = if dt.is_some() { 1 } else { run };
            let call = Call { streams: run, dt: dt.map_or(1.0, |dt| dt[from]), ..call };
            let states = &mut self.states[active[from] * state_len..(active[from] + run) * state_len];
            let output = &mut output[from * d_out..(from + run) * d_out];
            let input = input.part(from, from + run, d_in);
            self.plan.advance(&mut self.works[0], &Team::ALONE, &call, states, input, output);
            from += run;
        }
        Ok(())
    }

    /// `rows` samples of every stream: `input` (streams, rows, d_input), `output` (streams, rows, d_output),
    /// `dt` (streams, rows). A pooled model answers as if the sequence ended with each sample.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn push(&mut self, input: Input<'_, E>, rows: usize, dt: Option<&[f64]>, output: &mut [E]) -> Result<()> {
        self.run(input, rows, dt, output, &NEVER)
    }

    /// As [`Stream::push`], until another thread sets `stop`.
    ///
    /// # Errors
    /// As [`Stream::step`], and [`Error::Stopped`]; then the states are as they were.
    pub fn push_until(
        &mut self,
        stop: &AtomicBool,
        input: Input<'_, E>,
        rows: usize,
        dt: Option<&[f64]>,
        output: &mut [E],
    ) -> Result<()> {
        if self.before.len() < self.states.len() {
            self.before = Aligned::try_zeros("batch", self.streams, self.plan.state_len())?;
        }
        let (len, states) = (self.plan.state_len(), &self.states);
        let before = Shared::new(self.before.as_mut_ptr());
        Team::all()?.each(self.streams, |_, s| {
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

    fn run(
        &mut self,
        input: Input<'_, E>,
        rows: usize,
        dt: Option<&[f64]>,
        output: &mut [E],
        stop: &AtomicBool,
    ) -> Result<()> {
        self.plan.check_input(input)?;
        let samples = self.streams.saturating_mul(rows);
        self.plan.check_sizes(input, samples, dt, output, samples)?;
        let (d_in, d_out) = (self.plan.d_input(), self.plan.d_output());
        let (method, answers) = (Method::Auto, Answers::Each);
        let mut call = Call { streams: self.streams, rows, method, dt: 1.0, answers, unpadded: None, stop };
        let Some(dt) = dt else {
            let large = rows * self.streams * self.plan.cost() >= LARGE;
            let team = if large { Team::all()? } else { Team::ALONE };
            let shares = if self.streams >= team.size() { team.size() } else { 1 };
            let wanted = (self.streams.div_ceil(shares) * rows).min(self.plan.block_rows());
            self.grow(shares, wanted, if shares == 1 { team.size() } else { 1 });
            let Self { plan, works, states, .. } = self;
            if shares > 1 {
                plan.advance_shared(&mut works[..shares], &team, &call, states, input, output);
            } else {
                team.inside(|| plan.advance(&mut works[0], &team, &call, states, input, output));
            }
            return Ok(());
        };
        self.plan.check_dt(dt)?;
        let state_len = self.plan.state_len();
        let longest = dt.chunk_by(|a, b| a == b).map(<[f64]>::len).max().unwrap_or(1);
        self.grow(1, longest.min(rows).min(self.plan.block_rows()), 1);
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
                let output = &mut output[at * d_out..(at + run) * d_out];
                self.plan.advance(
                    &mut self.works[0],
                    &Team::ALONE,
                    &call,
                    state,
                    input.part(at, at + run, d_in),
                    output,
                );
                t += run;
            }
        }
        Ok(())
    }

    /// Makes `count` workspaces at least, of so many rows and threads at least.
    fn grow(&mut self, count: usize, rows: usize, threads: usize) {
        for i in 0..count.max(self.works.len()) {
            match self.works.get_mut(i) {
                Some(work) if i >= count || work.rows() >= rows && work.threads() >= threads => {}
                Some(work) => {
                    let (rows, threads) = (rows.max(work.rows()), threads.max(work.threads()));
                    *work = Workspace::new(&self.plan.layout, rows, threads);
                }
                None => self.works.push(Workspace::new(&self.plan.layout, rows, threads)),
            }
        }
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
        let mut bytes = self.label();
        for x in self.states.iter() {
            bytes.extend_from_slice(&x.f64().to_le_bytes());
        }
        bytes
    }

    /// Goes on from a snapshot.
    ///
    /// # Errors
    /// [`Error::Value`] where the bytes are no snapshot of such a stream; then the states are as they were.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let label = self.label();
        let wrong = |what: &str| Error::Value(format!("snapshot: expected {what}"));
        let (head, body) = bytes.split_at_checked(label.len()).ok_or_else(|| wrong("a stream's bytes, found fewer"))?;
        if head[..8] != label[..8] {
            return Err(wrong("a stream's bytes, found something else"));
        }
        if head[8..16] != label[8..16] {
            return Err(wrong("one of the same model, rate and dtype, found another's"));
        }
        if head[16..] != label[16..] || body.len() != self.states.len() * 8 {
            return Err(wrong(&format!("one of {} streams, found another number", self.streams)));
        }
        for (x, bytes) in self.states.iter_mut().zip(body.chunks_exact(8)) {
            *x = E::of(f64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        }
        Ok(())
    }

    fn label(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.plan.fingerprint().to_le_bytes());
        bytes.extend_from_slice(&(self.streams as u64).to_le_bytes());
        bytes
    }
}

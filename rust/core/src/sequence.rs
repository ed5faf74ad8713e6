//! Whole sequences: shared out to threads, with irregular steps, resets and padding.

use crate::error::{Error, Result};
use crate::kernels::Aligned;
use crate::layers::lti::Method;
use crate::plan::{Input, Plan};
use crate::precision::Precision;
use crate::run::{Answers, Call, NEVER};
use crate::shared::Shared;
use crate::threads::Team;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a call says beside the samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing<'a> {
    /// (streams, length): multiplies every step size, sample by sample.
    pub dt: Option<&'a [f64]>,
    /// (streams, length): the state is that of a stream's start before that sample.
    pub resets: Option<&'a [bool]>,
    /// (streams,): where padding begins.
    pub lengths: Option<&'a [usize]>,
}

/// A call on whole sequences.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a, E> {
    /// (streams, length, d_input), or tokens (streams, length).
    pub input: Input<'a, E>,
    /// Sequences.
    pub streams: usize,
    /// Samples of each.
    pub length: usize,
    /// Irregular steps, resets, padding.
    pub timing: Timing<'a>,
    /// How runs of samples are computed.
    pub method: Method,
    /// Once another thread sets it, the call fails soon.
    pub stop: Option<&'a AtomicBool>,
}

/// A run of samples of one sequence with one step size, and whether it begins at the start.
struct Segment {
    from: usize,
    to: usize,
    dt: f64,
    reset: bool,
}

impl<E: Precision> Plan<E> {
    /// Answers whole sequences from `states` on, (streams, state_len), which end up as they are after the last
    /// samples. `output` is (streams, d_output) of a pooled model, else (streams, length, d_output).
    ///
    /// # Errors
    /// [`Error::Value`], [`Error::NotStreamable`] or [`Error::Unsupported`], and then nothing was changed;
    /// [`Error::Memory`], likewise; [`Error::Stopped`], and then `states` and `output` are of no use.
    pub fn forward(&self, team: &Team, call: &Sequences<'_, E>, states: &mut [E], output: &mut [E]) -> Result<()> {
        self.check(call, states, output)?;
        let Sequences { input, streams, length, timing, method, stop } = *call;
        let team = if self.worth_waking(streams.saturating_mul(length)) { team } else { &Team::ALONE };
        let stop = stop.unwrap_or(&NEVER);
        let answers = if self.pooled() { Answers::Last } else { Answers::Each };
        let whole = self.needs_whole(method);
        if whole {
            self.check_whole(length, team.size())?;
        }
        let rows = if whole { length } else { length.min(self.block_rows()) };
        let method = if length == 1 && method == Method::Auto { Method::Step } else { method };
        let plain = timing.dt.is_none() && timing.resets.is_none() && timing.lengths.is_none();
        if plain && (streams < team.size() || length == 1) {
            let call = Call { streams, rows: length, method, dt: 1.0, answers, unpadded: None, stop };
            let block = self.flow_rows(team.size(), length);
            if team.size() > 1 && !whole && length > block {
                let slots = self.flow_slots(team.size(), block, input, answers);
                let mut works = (0..slots)
                    .map(|i| self.take_workspace(block, if i == 0 { team.size() } else { 1 }))
                    .collect::<Result<Vec<_>>>()?;
                team.inside(|team| E::advance_blocks(self, &mut works, block, team, &call, states, input, output));
                self.give_back(works);
            } else {
                let mut work = self.take_workspace(rows.max(streams.min(self.block_rows())), team.size())?;
                team.inside(|team| E::advance(self, &mut work, team, &call, states, input, output));
                self.give_back([work]);
            }
            return finished(stop);
        }
        // Each sequence is one thread's: the same walk as alone, so that the answer is the same.
        let workers = if streams > 1 { team.size() } else { 1 };
        let mut works = (0..workers).map(|_| self.take_workspace(rows, 1)).collect::<Result<Vec<_>>>()?;
        let works_of = Shared::new(works.as_mut_ptr());
        let (d_in, out) = (self.d_input(), output.len() / streams.max(1));
        let (states_of, output_of) = (Shared::new(states.as_mut_ptr()), Shared::new(output.as_mut_ptr()));
        team.each(streams, |worker, s| {
            // SAFETY: the parts of different sequences do not overlap, and a worker has one at a time.
            let (state, output, work) = unsafe {
                let state = states_of.part(s * self.state_len(), self.state_len());
                (state, output_of.part(s * out, out), &mut *works_of.at(worker))
            };
            let input = input.part(s * length, (s + 1) * length, d_in);
            let end = timing.lengths.map_or(length, |l| l[s]);
            let last = if self.reverse_over_padding { length } else { end };
            let width = self.d_output();
            for segment in segments(&timing, s, length, last) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let Segment { from, to, dt, reset } = segment;
                if reset {
                    self.start(state);
                }
                let answers = if answers == Answers::Last && to < last { Answers::Nothing } else { answers };
                let unpadded = Some(end.saturating_sub(from));
                let call = Call { streams: 1, rows: to - from, method, dt, answers, unpadded, stop };
                let output =
                    if answers == Answers::Each { &mut output[from * width..to * width] } else { &mut *output };
                E::advance(self, work, &Team::ALONE, &call, state, input.part(from, to, d_in), output);
            }
            if answers == Answers::Each {
                output[end * width..].fill(E::ZERO);
            }
        });
        self.give_back(works);
        finished(stop)
    }

    /// The states of so many streams before their first samples.
    pub fn default_state(&self, streams: usize) -> Aligned<E> {
        self.started(Aligned::zeros(streams * self.state_len()))
    }

    fn check(&self, call: &Sequences<'_, E>, states: &[E], output: &[E]) -> Result<()> {
        self.check_input(call.input)?;
        let Timing { dt, resets, lengths } = call.timing;
        if call.length == 0 {
            return Err(Error::Value("u: expected at least one sample, found length 0".into()));
        }
        let samples = call.streams.saturating_mul(call.length);
        self.check_sizes(call.input, samples, dt, output, if self.pooled() { call.streams } else { samples })?;
        for (name, found, expected) in [
            ("resets", resets.map_or(samples, <[bool]>::len), samples),
            ("lengths", lengths.map_or(call.streams, <[usize]>::len), call.streams),
        ] {
            if found != expected {
                return Err(Error::Value(format!("{name}: expected {expected} numbers, found {found}")));
            }
        }
        self.check_states(states, call.streams)?;
        if let Some(dt) = dt {
            self.check_dt(dt)?;
        }
        let whole = self.not_causal().is_some();
        if whole && !self.at_start(states) {
            return self.streamable();
        }
        if whole && (dt.is_some() || resets.is_some_and(|r| r.contains(&true))) {
            return self.streamable();
        }
        if let Some(lengths) = lengths
            && let Some(l) = lengths.iter().find(|&&l| l == 0 || l > call.length)
        {
            return Err(Error::Value(format!("lengths: expected 1 to {}, found {l}", call.length)));
        }
        Ok(())
    }
}

fn finished(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}

/// The runs of equal step size between resets of sequence `s`, up to `end`.
fn segments<'a>(timing: &Timing<'a>, s: usize, length: usize, end: usize) -> impl Iterator<Item = Segment> + 'a {
    let dt = timing.dt.map(|dt| &dt[s * length..][..length]);
    let resets = timing.resets.map(|r| &r[s * length..][..length]);
    let dt_at = move |t: usize| dt.map_or(1.0, |dt| dt[t]);
    let reset_at = move |t: usize| resets.is_some_and(|r| r[t]);
    let mut from = 0;
    std::iter::from_fn(move || {
        if from >= end {
            return None;
        }
        let mut to = from + 1;
        while to < end && dt_at(to) == dt_at(from) && !reset_at(to) {
            to += 1;
        }
        let segment = Segment { from, to, dt: dt_at(from), reset: reset_at(from) };
        from = to;
        Some(segment)
    })
}

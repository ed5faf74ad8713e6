//! Running a plan: a walk over its operations for each block of samples, one block after the other or by threads in
//! turns.

use crate::document::PoolMode;
use crate::kernels::{Elem, GROUP, Isa, padded, pooling};
use crate::layers::lti::Method;
use crate::ops::Place;
use crate::plan::{Answers, Buffer, Call, HEAD, Input, Plan, Pooling, Workspace};
use crate::threads::{Shared, Team};

/// One walk over the operations.
pub(crate) struct Walk<'a, E> {
    pub isa: Isa,
    pub method: Method,
    /// Samples of each stream in the call, for which a method is chosen, however it is cut into blocks.
    pub call_rows: usize,
    pub team: &'a Team,
    /// Where the rows of each buffer stand.
    pub bases: &'a [Shared<E>],
    /// Whether input and output are the caller's own rows.
    pub reads_in_place: bool,
    pub writes_in_place: bool,
    pub scratch: Shared<E>,
    pub scratch_len: usize,
    pub states: Shared<E>,
    pub state_len: usize,
    pub streams: usize,
    pub rows: usize,
    /// Rows of each stream that pooling hears: what follows is padding.
    pub heard: usize,
    /// Samples of each stream that blocks of the same call have walked before.
    pub done: usize,
    /// Samples that the first stream has met.
    pub phase: usize,
    pub dt: f64,
}

impl<E: Elem> Walk<'_, E> {
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
        unsafe { std::slice::from_raw_parts(self.bases[buffer.id].at(first * stride), n * stride) }
    }

    /// `n` rows of a buffer from `first` on, to write.
    ///
    /// # Safety
    /// As [`Walk::rows_of`].
    pub unsafe fn part_of<'b>(&self, buffer: Buffer, first: usize, n: usize) -> &'b mut [E] {
        let stride = padded(buffer.width);
        // SAFETY: there are so many rows at the base; the caller answers for aliasing.
        unsafe { self.bases[buffer.id].part(first * stride, n * stride) }
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
        // SAFETY: the head is written between calls only.
        let head = unsafe { self.state(s, Place { from: 0, len: HEAD }) };
        (head[0].f64() + head[1].f64()) as u64 + self.done as u64
    }

    /// Samples that the stream has met which has met the most.
    pub fn met_at_most(&self) -> u64 {
        (0..self.streams).map(|s| self.met(s)).max().unwrap_or(0)
    }
}

/// A call's way over streams that are walked together.
struct Pass<'a, E> {
    call: &'a Call,
    team: &'a Team,
    /// The first of the streams, and how many.
    first: usize,
    streams: usize,
    /// Samples of each that are walked at once.
    block: usize,
    /// These streams' states.
    states: Shared<E>,
    /// The whole call's input and output.
    input: Input<'a, E>,
    output: (Shared<E>, usize),
}

/// x as a pair (high, low) of E whose sum it is, to twice the digits.
pub(crate) fn split<E: Elem>(x: f64) -> (E, E) {
    let high = E::of(x);
    (high, E::of(x - high.f64()))
}

impl<E: Elem> Plan<E> {
    /// Runs `streams` streams over `rows` samples each, blocks of `rows` at most as the workspaces have.
    ///
    /// With one workspace the team shares out each operation; with several, its threads take turns at all blocks but
    /// the first, at which what is made once is made by all.
    ///
    /// `input` holds stream after stream; `output` takes `streams` rows (of [`Answers::Last`]) or
    /// `streams * rows` rows of d_output.
    pub fn advance(
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
        // As many samples as fit, and as many streams as then fit: all the weights serve all of them at once.
        let room = works[0].rows;
        let block = if self.walks_whole(call.method) { rows.max(1) } else { rows.min(room) };
        assert!(block <= room, "the workspace is smaller than a sequence that must be whole");
        let together = (room / block.max(1)).max(1);
        let output = (Shared(output.as_mut_ptr()), output.len());
        for first in (0..streams).step_by(together) {
            let n = together.min(streams - first);
            let states = &mut states[first * self.state_len..(first + n) * self.state_len];
            let of = Shared(states.as_mut_ptr());
            let pass = Pass { call, team, first, streams: n, block, states: of, input, output };
            let blocks = rows.div_ceil(block.max(1));
            let shared = if works.len() > 1 { blocks.min(1) } else { blocks };
            for block in 0..shared {
                let walk = self.walk_of(&pass, &mut works[0], block);
                (0..=self.trunk.len()).for_each(|stage| self.stage(&pass, &walk, stage));
            }
            if blocks > shared {
                let pass = Pass { team: &Team::ALONE, ..pass };
                let (slots, works) = (works.len(), Shared(works.as_mut_ptr()));
                team.in_turns(blocks - shared, self.trunk.len() + 1, slots, |block, stage, slot| {
                    // SAFETY: a slot is one thread's at a time.
                    let work = unsafe { &mut *works.at(slot) };
                    self.stage(&pass, &self.walk_of(&pass, work, shared + block), stage);
                });
            }
            for state in states.chunks_exact_mut(self.state_len) {
                let met = state[0].f64() + state[1].f64();
                (state[0], state[1]) = split(met + rows as f64);
            }
        }
    }

    /// The walk over a block of a pass.
    fn walk_of<'a>(&'a self, pass: &Pass<'a, E>, work: &'a mut Workspace<E>, block: usize) -> Walk<'a, E> {
        let Call { rows, method, answers, heard, dt, .. } = *pass.call;
        let (d_in, d_out, n) = (self.d_input(), self.output.width, pass.streams);
        let done = block * pass.block;
        let now = pass.block.min(rows - done);
        let at = pass.first * rows + done;
        // Rows of whole groups, one stream's or all of them: read and written where they are.
        let whole = n == 1 || now == rows;
        let given = match pass.input {
            Input::Real(x) if whole && d_in % GROUP == 0 => {
                Some(Shared(x[at * d_in..(at + n * now) * d_in].as_ptr().cast_mut()))
            }
            _ => None,
        };
        work.bases[self.input.id] = given.unwrap_or_else(|| self.own_rows(work, self.input.id));
        let straight = whole && answers == Answers::Each && self.pool.is_none() && d_out % GROUP == 0;
        let (output, len) = pass.output;
        let taken = (straight && self.output.id != self.input.id).then(|| {
            assert!((at + n * now) * d_out <= len);
            // SAFETY: just checked.
            Shared(unsafe { output.at(at * d_out) })
        });
        if self.output.id != self.input.id {
            work.bases[self.output.id] = taken.unwrap_or_else(|| self.own_rows(work, self.output.id));
        }
        // SAFETY: the states of `n` streams, each of which has its head.
        let head = unsafe { (*pass.states.at(0), *pass.states.at(1)) };
        Walk {
            isa: self.isa(),
            method,
            call_rows: rows,
            team: pass.team,
            scratch: Shared(work.scratch.as_mut_ptr()),
            bases: &work.bases,
            reads_in_place: given.is_some(),
            writes_in_place: taken.is_some(),
            scratch_len: self.scratch_len.next_multiple_of(GROUP),
            states: pass.states,
            state_len: self.state_len,
            streams: n,
            rows: now,
            heard: heard.map_or(now, |heard| heard.saturating_sub(done).min(now)),
            done,
            phase: (head.0.f64() + head.1.f64()) as usize + done,
            dt,
        }
    }

    /// One stage of a walk: the trunk's, the first of which reads the samples first, and one that answers.
    fn stage(&self, pass: &Pass<'_, E>, walk: &Walk<'_, E>, stage: usize) {
        let Call { rows, .. } = *pass.call;
        if stage == 0 && !walk.reads_in_place {
            for s in 0..walk.streams {
                let from = (pass.first + s) * rows + walk.done;
                self.read(walk, s, pass.input.part(from, from + walk.rows, self.d_input()));
            }
        }
        match self.trunk.get(stage) {
            Some(stage) => stage.run(walk),
            None => self.answer(pass, walk),
        }
    }

    /// What follows the trunk: pooling, the head, and the answers where the caller wants them.
    fn answer(&self, pass: &Pass<'_, E>, walk: &Walk<'_, E>) {
        let Call { rows, answers, .. } = *pass.call;
        let last = walk.done + walk.rows == rows;
        if let Some(pool) = &self.pool {
            (0..walk.streams).for_each(|s| self.gather(walk, pool, s, walk.met(s), answers, last));
        }
        let heard = match answers {
            Answers::Each => walk.rows,
            Answers::Last if last => 1,
            _ => return,
        };
        let head = Walk { rows: heard, ..*walk };
        self.head.iter().for_each(|stage| stage.run(&head));
        if walk.writes_in_place {
            return;
        }
        let d_out = self.output.width;
        let (output, len) = pass.output;
        let write = |from: usize, at: usize, n: usize| {
            assert!((at + n) * d_out <= len);
            // SAFETY: just checked; no one else writes these streams' answers to this block.
            self.write(walk, from, n, unsafe { output.part(at * d_out, n * d_out) });
        };
        match answers {
            Answers::Each => {
                (0..walk.streams).for_each(|s| write(s * walk.rows, (pass.first + s) * rows + walk.done, walk.rows));
            }
            _ => write(0, pass.first, walk.streams),
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
            self.advance(std::slice::from_mut(work), &Team::ALONE, &call, states, input, output);
        });
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
            PoolMode::Sum => pooling::sum(walk.isa, false, met, heard, high, low, answers),
            PoolMode::Mean => pooling::sum(walk.isa, true, met, heard, high, low, answers),
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
        let given = unsafe { walk.part_in(self.output, from, rows) };
        for (y, row) in output.chunks_exact_mut(width).zip(given.chunks_exact(stride)) {
            y.copy_from_slice(&row[..width]);
        }
    }
}

//! Running a plan: its operations over each block of samples, one block after the other or several at once.

use crate::denormals::Mode;
use crate::document::PoolMode;
use crate::kernels::{Elem, GROUP, mode_state, padded, pooling};
use crate::layers::lti::Method;
use crate::memory::{Context, StateSlice};
use crate::ops::Stage;
use crate::plan::{Input, Plan, Pooling};
use crate::shared::Shared;
use crate::threads::{Flow, Order, PIECES, Team};
use crate::turn::Turn;
use crate::workspace::Workspace;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which answers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// One a sample; a pooled model answers as if the sequence ended there.
    Each,
    /// One a stream, after its last sample: of a pooled model only.
    Last,
    /// None: the states alone are wanted.
    Nothing,
}

/// What [`Plan::advance`] is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
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
    /// Samples before the padding, where the last ones are such.
    pub unpadded: Option<usize>,
    /// Once it is set, the call returns soon, and states and answers are of no use.
    pub stop: &'a AtomicBool,
}

/// Memory that the activations of all blocks may take that are under way at once.
const FLOW_BYTES: usize = 24 << 20;

/// For calls that nobody stops.
pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

impl Call<'static> {
    /// One sample of so many streams.
    pub fn sample(streams: usize) -> Self {
        let (method, answers) = (Method::Step, Answers::Each);
        Call { streams, rows: 1, method, dt: 1.0, answers, unpadded: None, stop: &NEVER }
    }
}

/// Some streams of a call, which go through the operations together.
#[derive(Clone, Copy)]
struct Pass<'a, E> {
    call: &'a Call<'a>,
    team: &'a Team,
    /// The first of the streams, and how many.
    first: usize,
    streams: usize,
    /// Samples of each in a block.
    block: usize,
    /// These streams' states.
    states: Shared<E>,
    /// The whole call's input and output.
    input: Input<'a, E>,
    output: (Shared<E>, usize),
}

impl<E> Pass<'_, E> {
    /// Rows of each stream in a block, and where the first stream's begin among the call's.
    fn rows_of(&self, block: usize) -> (usize, usize) {
        let (rows, done) = (self.call.rows, block * self.block);
        (self.block.min(rows - done), self.first * rows + done)
    }

    /// Whether a block's rows are one run of the call's.
    fn whole(&self, block: usize) -> bool {
        self.streams == 1 || self.rows_of(block).0 == self.call.rows
    }
}

/// The blocks of a call, one stream's after the other's, several of which are under way at once.
struct Blocks<'a, E> {
    plan: &'a Plan<E>,
    /// The first stream's.
    first: Pass<'a, E>,
    /// Blocks of a stream.
    each: usize,
    slots: usize,
    threads: usize,
    /// One for each slot.
    works: Shared<Workspace<E>>,
    /// All threads'.
    scratch: Shared<E>,
}

impl<E: Elem> Blocks<'_, E> {
    /// The stream that a block is of, and which of its blocks.
    fn pass(&self, block: usize) -> (Pass<'_, E>, usize) {
        let stream = block / self.each;
        // SAFETY: each stream has its state.
        let states = Shared::new(unsafe { self.first.states.at(stream * self.plan.state_len) });
        (Pass { first: stream, states, ..self.first }, block % self.each)
    }
}

impl<E: Elem> Flow for Blocks<'_, E> {
    fn blocks(&self) -> usize {
        self.first.call.streams * self.each
    }

    /// Those of the trunk, and one that answers.
    fn stages(&self) -> usize {
        self.plan.trunk.len() + 1
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn stays(&self) -> bool {
        self.plan.follows_few(self.threads)
    }

    fn pieces(&self, block: usize, stage: usize) -> usize {
        let (rows, _) = self.first.rows_of(block % self.each);
        // Where few blocks are under way, each is shared out to all.
        let tile = if self.blocks() < self.threads { rows.div_ceil(self.threads) } else { rows };
        self.plan.trunk.get(stage).map_or(1, |stage| stage.parts(1, rows, tile).min(PIECES))
    }

    fn order(&self, stage: usize) -> Order {
        let Call { rows, method, dt, .. } = *self.first.call;
        match self.plan.trunk.get(stage) {
            Some(stage) => stage.order(method, dt, rows),
            None if self.plan.pool.is_some() => Order::After,
            None => Order::Free,
        }
    }

    fn begin(&self, block: usize, slot: usize) {
        let (pass, block) = self.pass(block);
        // SAFETY: there is a workspace for each slot, and the slot is the caller's alone.
        self.plan.begin(&pass, unsafe { &mut *self.works.at(slot) }, block);
    }

    fn run(&self, worker: usize, block: usize, stage: usize, piece: usize, slot: usize, turn: Turn<'_>) {
        if self.first.call.stop.load(Ordering::Relaxed) {
            return;
        }
        let pieces = self.pieces(block, stage);
        let (pass, block) = self.pass(block);
        // SAFETY: there is a workspace for each slot, in which the block has begun.
        let context = self.plan.context(&pass, unsafe { &*self.works.at(slot) }, block);
        // SAFETY: each worker has its own part.
        let scratch = Shared::new(unsafe { self.scratch.at(worker * context.scratch_len) });
        let context = Context { scratch, turn, ..context };
        match self.plan.trunk.get(stage) {
            // SAFETY: each piece is run once, after all of the stages before, and in its turn.
            Some(stage) => unsafe { stage.run_piece(&context, piece, pieces) },
            None => self.plan.answer(&pass, &context),
        }
    }

    fn finish(&self, block: usize, stage: usize, slot: usize) {
        let Some(stage) = self.plan.trunk.get(stage) else { return };
        let (pass, block) = self.pass(block);
        // SAFETY: there is a workspace for each slot, in which the block has begun; all pieces of the stage are done.
        unsafe { stage.finish(&self.plan.context(&pass, &*self.works.at(slot), block)) };
    }
}

/// Has the system make the pages of new memory, each by one thread: threads that meet a large page at the same time would
/// each make it whole, and all but one in vain.
fn touch<E: Elem>(team: &Team, memory: &mut [E]) {
    let (page, large) = (4096 / size_of::<E>(), (1 << 21) / size_of::<E>());
    let (len, of) = (memory.len(), Shared::new(memory.as_mut_ptr()));
    team.each(len / large, |_, i| {
        // SAFETY: each thread writes into pages of its own.
        let pages = unsafe { of.part(i * large, large) };
        pages.iter_mut().step_by(page).for_each(|x| *x = E::ZERO);
    });
}

/// x as a pair (high, low) of E whose sum it is, to twice the digits.
fn split<E: Elem>(x: f64) -> (E, E) {
    let high = E::of(x);
    (high, E::of(x - high.f64()))
}

impl<E: Elem> Plan<E> {
    /// Runs `streams` streams over `rows` samples each, in blocks of at most as many rows as the workspaces have.
    ///
    /// The team shares out each operation.
    ///
    /// `input` holds stream after stream; `output` takes `streams` rows (of [`Answers::Last`]) or
    /// `streams * rows` rows of d_output.
    pub(crate) fn advance(
        &self,
        work: &mut Workspace<E>,
        team: &Team,
        call: &Call<'_>,
        states: &mut [E],
        input: Input<'_, E>,
        output: &mut [E],
    ) {
        let _mode = Mode::FLUSHED.hold();
        let Call { streams, rows, stop, .. } = *call;
        assert_eq!(states.len(), streams * self.state_len);
        // As many samples as fit, and as many streams as then fit: all the weights serve all of them at once.
        let room = work.rows();
        let block = if self.needs_whole(call.method) { rows.max(1) } else { rows.min(room) };
        assert!(block <= room, "the workspace is smaller than a sequence that must be whole");
        let together = (room / block.max(1)).max(1);
        let output = (Shared::new(output.as_mut_ptr()), output.len());
        for first in (0..streams).step_by(together) {
            let n = together.min(streams - first);
            let states = &mut states[first * self.state_len..(first + n) * self.state_len];
            let of = Shared::new(states.as_mut_ptr());
            let pass = Pass { call, team, first, streams: n, block, states: of, input, output };
            for block in 0..rows.div_ceil(block.max(1)) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                self.begin(&pass, work, block);
                let context = self.context(&pass, work, block);
                self.trunk[..self.stages(call.answers)].iter().for_each(|stage| stage.run(&context));
                self.answer(&pass, &context);
            }
            self.count(states, rows);
        }
    }

    /// As [`Plan::advance`], with several blocks of at most `block` rows under way at once, one in each workspace. All their
    /// threads' scratch is the first one's.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn advance_blocks(
        &self,
        works: &mut [Workspace<E>],
        block: usize,
        team: &Team,
        call: &Call<'_>,
        states: &mut [E],
        input: Input<'_, E>,
        output: &mut [E],
    ) {
        let _mode = Mode::FLUSHED.hold();
        let Call { streams, rows, .. } = *call;
        assert!(states.len() == streams * self.state_len && !self.needs_whole(call.method));
        assert!(works.iter().all(|work| work.rows() >= block) && works[0].threads() >= team.size());
        touch(team, output);
        let output = (Shared::new(output.as_mut_ptr()), output.len());
        let of = Shared::new(states.as_mut_ptr());
        let (slots, scratch) = (works.len(), works[0].scratch());
        let works = Shared::new(works.as_mut_ptr());
        let first = Pass { call, team: &Team::ALONE, first: 0, streams: 1, block, states: of, input, output };
        let each = rows.div_ceil(block);
        team.flow(&Blocks { plan: self, first, each, slots, threads: team.size(), works, scratch });
        self.count(states, rows);
    }

    /// Stages of the trunk that such answers need: for the states alone none after the last that has one.
    fn stages(&self, answers: Answers) -> usize {
        match answers {
            Answers::Nothing if self.pool.is_none() => {
                self.trunk.iter().rposition(Stage::needs_rows_before).map_or(0, |last| last + 1)
            }
            _ => self.trunk.len(),
        }
    }

    /// Counts so many samples more of some streams.
    fn count(&self, states: &mut [E], rows: usize) {
        for state in states.chunks_exact_mut(self.state_len) {
            let position = state[0].f64() + state[1].f64();
            (state[0], state[1]) = split(position + rows as f64);
        }
    }

    /// Puts a block's rows where its operations find them.
    fn begin(&self, pass: &Pass<'_, E>, work: &mut Workspace<E>, block: usize) {
        let Call { rows, .. } = *pass.call;
        let (d_in, d_out, n) = (self.d_input(), self.output.width, pass.streams);
        let (now, at) = pass.rows_of(block);
        let given = match pass.input {
            Input::Real(x) if self.reads_in_place(pass, block) => {
                Some(Shared::new(x[at * d_in..(at + n * now) * d_in].as_ptr().cast_mut()))
            }
            Input::Real(_) | Input::Tokens(_) => None,
        };
        work.bases[self.input.id] = given.unwrap_or_else(|| work.own_rows(&self.layout, self.input.id));
        if self.output.id != self.input.id {
            let (output, len) = pass.output;
            let taken = self.writes_in_place(pass, block).then(|| {
                assert!((at + n * now) * d_out <= len, "the caller's array has these rows");
                // SAFETY: just checked.
                Shared::new(unsafe { output.at(at * d_out) })
            });
            work.bases[self.output.id] = taken.unwrap_or_else(|| work.own_rows(&self.layout, self.output.id));
        }
        if given.is_none() {
            let context = self.context(pass, work, block);
            for s in 0..n {
                let from = (pass.first + s) * rows + context.done;
                self.read(&context, s, pass.input.part(from, from + now, d_in));
            }
        }
    }

    /// Whether a block's input is rows of whole groups, one stream's or all of them: read where they are.
    fn reads_in_place(&self, pass: &Pass<'_, E>, block: usize) -> bool {
        pass.whole(block) && self.reads_whole_groups(pass.input)
    }

    fn reads_whole_groups(&self, input: Input<'_, E>) -> bool {
        matches!(input, Input::Real(_)) && self.d_input().is_multiple_of(GROUP)
    }

    /// As [`Plan::reads_in_place`], of the answers.
    fn writes_in_place(&self, pass: &Pass<'_, E>, block: usize) -> bool {
        pass.whole(block) && self.writes_whole_groups(pass.call.answers)
    }

    fn writes_whole_groups(&self, answers: Answers) -> bool {
        let straight = answers == Answers::Each && self.pool.is_none();
        straight && self.output.width.is_multiple_of(GROUP) && self.output.id != self.input.id
    }

    /// Blocks of `rows` samples of one stream that may be under way at once: one a thread, while the activations that are not
    /// the caller's own rows take no more than [`FLOW_BYTES`].
    pub(crate) fn flow_slots(&self, threads: usize, rows: usize, input: Input<'_, E>, answers: Answers) -> usize {
        let read = if self.reads_whole_groups(input) { self.input.width } else { 0 };
        let written = if self.writes_whole_groups(answers) { self.output.width } else { 0 };
        let bytes = (self.layout.row_len - read - written) * rows * size_of::<E>();
        threads.min(FLOW_BYTES / bytes.max(1)).max(2)
    }

    /// What a block of a pass runs in, once it has begun.
    fn context<'a>(&'a self, pass: &Pass<'a, E>, work: &'a Workspace<E>, block: usize) -> Context<'a, E> {
        let Call { rows, method, unpadded, dt, stop, .. } = *pass.call;
        let done = block * pass.block;
        let (now, _) = pass.rows_of(block);
        // SAFETY: the states of `n` streams, each of which has its head.
        let head = unsafe { (*pass.states.at(0), *pass.states.at(1)) };
        let (scratch, sums) = (work.scratch(), work.sums());
        // As planned, whoever works on it now: the workspace has room for so many shares.
        let crew = self.crew.as_ref().map(|crew| crew.size());
        Context {
            isa: self.isa,
            method,
            call_rows: rows,
            team: pass.team,
            stop,
            scratch,
            turn: Turn::FREE,
            bases: &work.bases,
            writes_in_place: self.writes_in_place(pass, block),
            scratch_len: self.layout.scratch_stride(),
            by_columns: (pass.team.size() > 1 && pass.streams * now <= self.layout.shared_rows)
                .then_some(crew)
                .flatten(),
            sums,
            states: pass.states,
            state_len: self.state_len,
            streams: pass.streams,
            rows: now,
            unpadded: unpadded.map_or(now, |rows| rows.saturating_sub(done).min(now)),
            done,
            phase: ((head.0.f64() + head.1.f64()) as u64 + done as u64) as usize % mode_state::PHASES,
            dt,
        }
    }

    /// What follows the trunk: pooling, the head, and the answers where the caller wants them.
    fn answer(&self, pass: &Pass<'_, E>, context: &Context<'_, E>) {
        let Call { rows, answers, .. } = *pass.call;
        let last = context.done + context.rows == rows;
        if let Some(pool) = &self.pool {
            (0..context.streams).for_each(|s| self.pool(context, pool, s, answers, last));
        }
        let wanted = match answers {
            Answers::Each => context.rows,
            Answers::Last if last => 1,
            Answers::Last | Answers::Nothing => return,
        };
        let head = Context { rows: wanted, ..*context };
        self.head.iter().for_each(|stage| stage.run(&head));
        if context.writes_in_place {
            return;
        }
        let d_out = self.output.width;
        let (output, len) = pass.output;
        let write = |from: usize, at: usize, n: usize| {
            assert!((at + n) * d_out <= len, "the caller's array has these rows");
            // SAFETY: just checked; no one else writes these streams' answers to this block.
            self.write(context, from, n, unsafe { output.part(at * d_out, n * d_out) });
        };
        match answers {
            Answers::Each => {
                let rows_of = |s: usize| (pass.first + s) * rows + context.done;
                (0..context.streams).for_each(|s| write(s * context.rows, rows_of(s), context.rows));
            }
            Answers::Last | Answers::Nothing => write(0, pass.first, context.streams),
        }
    }

    /// Pools the rows of stream `s`: its running answers, or after the last row one.
    fn pool(&self, context: &Context<'_, E>, pool: &Pooling, s: usize, answers: Answers, last: bool) {
        let stride = padded(pool.source.width);
        let each = answers == Answers::Each;
        let position = context.position(s);
        // SAFETY: source and target are different buffers, and this slice of the state is pooling's alone.
        let (x, state) = unsafe {
            let all = context.read(pool.source);
            let slice = StateSlice { from: pool.state, len: Pooling::state_len(pool.source.width) };
            (&all[s * context.rows * stride..][..context.rows * stride], context.state(s, slice))
        };
        if context.unpadded == 0 {
            return;
        }
        // SAFETY: source and target are different buffers; the target has a row a stream where only the last answer is
        // wanted.
        let y = unsafe { context.write(pool.target) };
        let (high, low) = state.split_at_mut(stride);
        let x = &x[..context.unpadded * stride];
        let answers = if each {
            Some(&mut y[s * context.rows * stride..][..x.len()])
        } else if last {
            Some(&mut y[s * stride..][..stride])
        } else {
            None
        };
        match pool.mode {
            PoolMode::Sum => pooling::sum(context.isa, false, position, x, high, low, answers),
            PoolMode::Mean => pooling::sum(context.isa, true, position, x, high, low, answers),
            PoolMode::First => {
                if position == 0 {
                    high.copy_from_slice(&x[..stride]);
                }
                let rows = answers.into_iter().flat_map(|y| y.chunks_exact_mut(stride));
                rows.for_each(|y| y.copy_from_slice(high));
            }
            PoolMode::Last => {
                high.copy_from_slice(&x[x.len() - stride..]);
                match answers {
                    Some(y) if each => y.copy_from_slice(x),
                    Some(y) => y.copy_from_slice(high),
                    None => {}
                }
            }
        }
    }

    /// Puts the samples of stream `s` where the first operation reads them.
    fn read(&self, context: &Context<'_, E>, s: usize, input: Input<'_, E>) {
        let stride = padded(self.input.width);
        // SAFETY: the block's operations come later, and nothing else holds the rows.
        let all = unsafe { context.write(self.input) };
        let rows = &mut all[s * context.rows * stride..][..context.rows * stride];
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
    fn write(&self, context: &Context<'_, E>, from: usize, rows: usize, output: &mut [E]) {
        let (width, stride) = (self.output.width, padded(self.output.width));
        // SAFETY: the block's operations are done, and nothing else holds the rows.
        let given = unsafe { context.read_rows(self.output, from, rows) };
        for (y, row) in output.chunks_exact_mut(width).zip(given.chunks_exact(stride)) {
            y.copy_from_slice(&row[..width]);
        }
    }
}

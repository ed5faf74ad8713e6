//! Recurrences whose state is modes: sample by sample, or several samples at once where [`Ahead`] knows how.

use super::ahead::{self, AHEAD, Ahead, Sample, Since, Single};
use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Elements of the state of so many modes a lane: rows (re, im) each, then a row each of what their rounding left over.
pub(super) const fn modes_len<E: Elem>(modes: usize) -> usize {
    modes * GROUP * if E::COMPENSATED { 3 } else { 2 }
}

/// When a sample comes, and what comes after it.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Counts the samples: a single one flushes what is tiny of every [`PHASES`](super::diagonal::PHASES)th mode, from
    /// mode `phase` on.
    pub phase: usize,
    /// Those before it.
    pub single: Single,
    /// Groups that differ in it visit their modes at different samples.
    pub stagger: usize,
    /// The streams whose turn it is next.
    pub after: After,
}

/// The streams after one, whose states stand at equal distances.
#[derive(Clone, Copy, Debug)]
pub struct After {
    /// How many.
    pub streams: usize,
    /// Elements from one state to the next.
    pub stride: usize,
}

impl After {
    /// How far the state of the `n`th of them is, if there are so many.
    #[inline(always)]
    pub fn stream(self, n: usize) -> Option<usize> {
        (n <= self.streams).then_some(n * self.stride)
    }
}

/// A group of channels. Rows of `u` and `y` are [`GROUP`] elements; `x` is the state of the modes alone.
pub trait ByModes<E: Elem>: Sized {
    /// Modes a lane.
    fn modes(&self) -> usize;

    /// Inner products of the modes that couple them.
    fn products(&self) -> usize;

    /// Where the inputs' gain is 1.
    fn ahead(&self) -> Option<&Ahead<E>>;

    /// `rows` samples one by one; a single one flushes by its `phase`, as in [`When`].
    fn one_by_one<L: Lanes<E = E>>(&self, lanes: L, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]);

    /// [`Ahead::scan`] for this many products.
    fn blocks(&self, isa: Isa, ahead: &Ahead<E>, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]);

    /// [`Sample::run`] for this many products.
    fn sample<L: Lanes<E = E>>(&self, lanes: L, sample: Sample<'_, E>, u: &[E], y: &mut [E]);

    /// Elements of the state proper: (re, im) a mode, each a row of [`GROUP`].
    fn core_len(&self) -> usize {
        self.modes() * 2 * GROUP
    }

    /// Elements of state: that of the modes, and what single samples keep until these are visited again.
    #[inline(always)]
    fn state_len(&self) -> usize {
        modes_len::<E>(self.modes()) + ahead::state_len(self.modes(), self.products())
    }

    /// Runs over `rows` rows, writing `y`. The state is settled.
    fn scan(&self, isa: Isa, phase: usize, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && state.len() == self.state_len());
        self.run(isa, phase, rows, u, y, &mut state[..modes_len::<E>(self.modes())]);
    }

    /// As [`ByModes::scan`], with the state of the modes alone.
    fn run(&self, isa: Isa, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        let mut done = 0;
        if let Some(ahead) = self.ahead() {
            self.blocks(isa, ahead, rows / AHEAD, u, y, x);
            done = rows / AHEAD * AHEAD;
        }
        let (u, y) = (&u[done * GROUP..], &mut y[done * GROUP..]);
        if done < rows {
            isa.run(OneByOne { group: self, phase, rows: rows - done, u, y, x });
        }
    }

    /// Moves the modes on by the inputs of single samples that they have not met.
    fn settle(&self, isa: Isa, single: Single, stagger: usize, state: &mut [E]) {
        let (x, later) = state.split_at_mut(modes_len::<E>(self.modes()));
        let Some(ahead) = self.ahead() else { return };
        if let Since::Visit(rows @ 1..) = ahead.since(single, stagger) {
            let (u, y, _) = ahead.rows(later);
            self.run(isa, 0, rows, u, y, x);
        }
    }

    /// One sample, as [`ByModes::scan`]; after a few such calls, in a fraction of its time.
    #[inline(always)]
    fn step<L: Lanes<E = E>>(&self, lanes: L, when: When, u: &[E], y: &mut [E], state: &mut [E]) {
        let (x, later) = state.split_at_mut(modes_len::<E>(self.modes()));
        match self.ahead().map(|ahead| (ahead, ahead.since(when.single, when.stagger))) {
            None | Some((_, Since::Now)) => self.one_by_one(lanes, when.phase, 1, u, y, x),
            Some((ahead, since)) => self.sample(lanes, Sample { ahead, x, later, since, after: when.after }, u, y),
        }
    }
}

struct OneByOne<'a, E, G> {
    group: &'a G,
    phase: usize,
    rows: usize,
    u: &'a [E],
    y: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem, G: ByModes<E>> Kernel<E> for OneByOne<'_, E, G> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        self.group.one_by_one(lanes, self.phase, self.rows, self.u, self.y, self.x);
    }
}

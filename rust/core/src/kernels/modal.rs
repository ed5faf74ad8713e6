//! Recurrences whose state is modes: sample by sample, or in look-ahead blocks where they have a [`LookAhead`].

use super::lookahead::{self, BLOCK_SAMPLES, LookAhead, Pending, SampleCount};
use super::mode_state::modes_len;
use super::{Elem, GROUP, Isa, Kernel, Lanes};

/// Runs a body with the number of a look-ahead system's inner products as a constant, for a [`Modal`] that has so many.
macro_rules! with_products {
    ($group:ty, $products:expr, $k:ident, $body:expr) => {
        match $products {
            0 => {
                const $k: usize = 0;
                $body
            }
            1 if const { <$group>::MOST_PRODUCTS >= 1 } => {
                const $k: usize = 1;
                $body
            }
            2 if const { <$group>::MOST_PRODUCTS >= 2 } => {
                const $k: usize = 2;
                $body
            }
            _ => unreachable!("more inner products than `Modal::MOST_PRODUCTS`"),
        }
    };
}
pub(super) use with_products;

/// A group of channels. Rows of `u` and `y` are [`GROUP`] elements; `x` is the state of the modes alone.
pub trait Modal<E: Elem>: Sized {
    /// The most inner products with which it looks ahead, at most 2.
    const MOST_PRODUCTS: usize;

    /// Modes a lane.
    fn modes(&self) -> usize;

    /// Inner products of the modes that couple them.
    fn products(&self) -> usize;

    /// Where the inputs' gain is 1, and the inner products are few.
    fn look_ahead(&self) -> Option<&LookAhead<E>>;

    /// `rows` samples one by one. A single one flushes tiny numbers in every
    /// [`PHASES`](super::mode_state::PHASES)th mode, from mode `phase` on.
    fn one_by_one<L: Lanes<E = E>>(&self, lanes: L, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]);

    /// Elements of the state proper: (re, im) a mode, each a row of [`GROUP`].
    fn core_len(&self) -> usize {
        self.modes() * 2 * GROUP
    }

    /// Elements of state: that of the modes, then that of the look-ahead blocks.
    #[inline(always)]
    fn state_len(&self) -> usize {
        modes_len::<E>(self.modes()) + lookahead::state_len(self.modes(), self.products())
    }

    /// Runs over `rows` rows, writing `y`, from a state without pending inputs.
    fn scan(&self, isa: Isa, phase: usize, rows: usize, u: &[E], y: &mut [E], state: &mut [E]) {
        assert!(u.len() >= rows * GROUP && y.len() >= rows * GROUP && state.len() == self.state_len());
        self.run(isa, phase, rows, u, y, &mut state[..modes_len::<E>(self.modes())]);
    }

    /// As [`Modal::scan`], with the state of the modes alone.
    fn run(&self, isa: Isa, phase: usize, rows: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        let mut done = 0;
        if let Some(system) = self.look_ahead() {
            let blocks = rows / BLOCK_SAMPLES;
            with_products!(Self, self.products(), K, system.scan::<K>(isa, blocks, u, y, x));
            done = blocks * BLOCK_SAMPLES;
        }
        let (u, y) = (&u[done * GROUP..], &mut y[done * GROUP..]);
        if done < rows {
            isa.run(OneByOne { group: self, phase, rows: rows - done, u, y, x });
        }
    }

    /// Moves the modes on by the pending inputs of `count` single samples.
    fn apply_pending(&self, isa: Isa, count: SampleCount, stagger: usize, state: &mut [E]) {
        let (x, ahead) = state.split_at_mut(modes_len::<E>(self.modes()));
        let Some(system) = self.look_ahead() else { return };
        if let Pending::Inputs(rows @ 1..) = system.pending(count, stagger) {
            let (u, y, _) = system.rows(ahead);
            self.run(isa, 0, rows, u, y, x);
        }
        ahead.fill(E::ZERO);
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

impl<E: Elem, G: Modal<E>> Kernel<E> for OneByOne<'_, E, G> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        self.group.one_by_one(lanes, self.phase, self.rows, self.u, self.y, self.x);
    }
}

//! The way of samples, single ones and whole blocks of them, through [`Ahead`].

use super::modes::Modes;
use super::taps::{hear, pass_on};
use super::{AHEAD, Ahead, BLOCK, ROWS_AHEAD, Since, state_len};
use crate::kernels::by_modes::{After, modes_len};
use crate::kernels::{Elem, GROUP, Kernel, Lanes, fetch};

/// A group of channels as a single sample meets it.
#[derive(Debug)]
pub struct Sample<'a, E> {
    /// Its modes.
    pub ahead: &'a Ahead<E>,
    /// Their state.
    pub x: &'a mut [E],
    /// What follows it.
    pub later: &'a mut [E],
    /// Not now.
    pub since: Since,
    /// The streams whose states are fetched meanwhile.
    pub after: After,
}

impl<E: Elem> Sample<'_, E> {
    /// The answers `y` to the inputs `u`, a row each, of a system with K couplings.
    #[inline(always)]
    pub fn run<L: Lanes<E = E>, const K: usize>(self, lanes: L, u: &[E], y: &mut [E]) {
        let Ahead { modes, products, blocks, .. } = *self.ahead;
        assert!(u.len() >= GROUP && y.len() >= GROUP && self.x.len() == modes_len::<E>(modes));
        assert!(products == K && self.later.len() == state_len(modes, K));
        // SAFETY: the lengths were checked.
        unsafe {
            if K == 0 && blocks == 2 {
                self.run_by::<L, K, 2>(lanes, u, y);
            } else {
                self.run_by::<L, K, 1>(lanes, u, y);
            }
        }
    }

    /// [`Sample::run`] with W blocks from one visit to the next.
    ///
    /// # Safety
    /// It checked the lengths.
    #[inline(always)]
    unsafe fn run_by<L: Lanes<E = E>, const K: usize, const W: usize>(self, lanes: L, u: &[E], y: &mut [E]) {
        let Self { ahead, x, later, since, after } = self;
        let (due, kept) = match since {
            Since::Visit(kept) => (false, kept),
            Since::Now | Since::Due => (true, 0),
        };
        assert!(kept < W * AHEAD);
        let (block, i) = (kept / AHEAD * BLOCK, kept % AHEAD);
        if let Some(far) = after.stream(ROWS_AHEAD) {
            let rows = later.as_ptr().wrapping_add(far + block);
            // All inputs and products of the block so far, and the sample's answer.
            for k in (0..K + 2).filter(|k| *k != 1) {
                (0..=i).for_each(|row| fetch(rows.wrapping_add(k * W * BLOCK + row * GROUP)));
            }
            fetch(rows.wrapping_add(W * BLOCK + i * GROUP));
        }
        let (inputs, answers, sums) = ahead.rows(later);
        let next = after.stream(1).unwrap_or(0);
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the lengths are as they should be, and so is `kept`.
            unsafe {
                let (inputs, answers) = (inputs.as_mut_ptr().add(lane), answers.as_mut_ptr().add(lane));
                let sums = if K > 0 { sums.as_mut_ptr().add(lane) } else { answers };
                let (modes, taps) = (ahead.modes::<K, W>(x, lane), ahead.taps.as_ptr().add(lane));
                if due {
                    modes.look::<L, W>(lanes, answers, sums, next);
                }
                lanes.store(inputs.add(kept * GROUP), lanes.load(u.as_ptr().add(lane)));
                let heard = hear::<L, K>(lanes, i, taps, inputs.add(block), sums, answers.add(block));
                lanes.store(y.as_mut_ptr().add(lane), heard);
                if kept + 1 == W * AHEAD {
                    modes.advance::<L, W, true>(lanes, inputs, sums);
                    modes.look::<L, W>(lanes, answers, sums, next);
                } else if W > 1 && i + 1 == AHEAD {
                    pass_on(lanes, taps, inputs.add(block), answers.add(block + BLOCK));
                }
            }
        }
    }
}

/// `blocks` times AHEAD rows of `u` into rows of `y`; `x` is the state of the modes. The lengths were checked.
pub struct Scan<'a, E, const K: usize> {
    pub ahead: &'a Ahead<E>,
    pub blocks: usize,
    pub u: &'a [E],
    pub y: &'a mut [E],
    pub x: &'a mut [E],
}

impl<E: Elem, const K: usize> Kernel<E> for Scan<'_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        if K == 0 && self.ahead.blocks == 2 { self.by::<L, 2>(lanes) } else { self.by::<L, 1>(lanes) }
    }
}

impl<E: Elem, const K: usize> Scan<'_, E, K> {
    /// W blocks at once.
    #[inline(always)]
    fn by<L: Lanes<E = E>, const W: usize>(self, lanes: L) {
        let Self { ahead, blocks, u, y, x } = self;
        let mut sums = [[E::ZERO; BLOCK]; K];
        let sums = sums.as_mut_ptr().cast::<E>();
        for lane in (0..GROUP).step_by(L::LANES) {
            let (modes, taps) = (ahead.modes::<K, W>(x, lane), ahead.taps.as_ptr().wrapping_add(lane));
            let mut done = 0;
            while done < blocks {
                let at = done * BLOCK + lane;
                // SAFETY: `Ahead::scan` checked the lengths.
                unsafe {
                    let (u, y) = (u.as_ptr().add(at), y.as_mut_ptr().add(at));
                    if done + W <= blocks {
                        done += W;
                        meet::<L, K, W, W>(lanes, modes, taps, u, y, sums, done == blocks);
                    } else {
                        done += 1;
                        meet::<L, K, W, 1>(lanes, modes, taps, u, y, sums, done == blocks);
                    }
                }
            }
        }
    }
}

/// Answers V times AHEAD inputs, V being 1 or W, and moves the modes on by them. What is tiny is flushed with the `last`
/// ones: denormals before these cannot be many.
///
/// # Safety
/// As [`Modes::advance`]; `y` has as many rows as `u`, `taps` at least V times AHEAD for each answer and input.
#[inline(always)]
unsafe fn meet<L: Lanes, const K: usize, const W: usize, const V: usize>(
    lanes: L,
    modes: Modes<L::E, K, W>,
    taps: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    sums: *mut L::E,
    last: bool,
) {
    // SAFETY: as the caller's.
    unsafe {
        modes.look::<L, V>(lanes, y, sums, 0);
        for block in 0..V {
            let (u, y) = (u.add(block * BLOCK), y.add(block * BLOCK));
            for i in 0..AHEAD {
                lanes.store(y.add(i * GROUP), hear::<L, K>(lanes, i, taps, u, sums, y));
            }
            if block + 1 < V {
                pass_on(lanes, taps, u, y.add(BLOCK));
            }
        }
        if last {
            modes.advance::<L, V, true>(lanes, u, sums);
        } else {
            modes.advance::<L, V, false>(lanes, u, sums);
        }
    }
}

//! Samples through a [`LookAhead`]: single ones, and whole blocks.

use super::layout::{BLOCK_LEN, BLOCK_SAMPLES, state_len};
use super::modes::LaneModes;
use super::pending::Pending;
use super::system::LookAhead;
use super::taps::{add_to_next_block, output};
use crate::kernels::layout::{fetch, holds};
use crate::kernels::mode_state::modes_len;
use crate::kernels::{Elem, GROUP, Isa, Kernel, Lanes};

/// A single sample of a group of channels.
#[derive(Debug)]
pub struct Sample<'a, E> {
    /// The modes of the group.
    pub system: &'a LookAhead<E>,
    /// Their state.
    pub x: &'a mut [E],
    /// The state that follows it: [`state_len`] elements.
    pub ahead: &'a mut [E],
    /// Anything but one by one.
    pub pending: Pending,
    /// Elements to the state of the next stream, whose modes are prefetched with a visit; 0: there is none.
    pub next: usize,
    /// Elements to a state whose pending rows are prefetched, which any sample needs; 0: none.
    pub soon: usize,
}

impl<E: Elem> Sample<'_, E> {
    /// The outputs `y` for the inputs `u`, a row each, of a system with K inner products.
    #[inline(always)]
    pub fn run<L: Lanes<E = E>, const K: usize>(self, lanes: L, u: &[E], y: &mut [E]) {
        let LookAhead { modes, products, blocks, .. } = *self.system;
        assert!(u.len() >= GROUP && y.len() >= GROUP && self.x.len() == modes_len::<E>(modes));
        assert!(products == K && self.ahead.len() == state_len(modes, K));
        // SAFETY: the lengths were just checked, and W is `blocks`, which is 1 for a system with inner products.
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
    /// The system has K inner products and W blocks from one visit to the next; `x` and `ahead` are as long as its
    /// state, `u` and `y` at least a row.
    #[inline(always)]
    unsafe fn run_by<L: Lanes<E = E>, const K: usize, const W: usize>(self, lanes: L, u: &[E], y: &mut [E]) {
        let Self { system, x, ahead, pending, next, soon } = self;
        let (first_visit, stored) = match pending {
            Pending::Inputs(stored) => (false, stored),
            Pending::OneByOne | Pending::FirstVisit => (true, 0),
        };
        assert!(stored < W * BLOCK_SAMPLES);
        let (block, i) = (stored / BLOCK_SAMPLES * BLOCK_LEN, stored % BLOCK_SAMPLES);
        if soon > 0 {
            let rows = ahead.as_ptr().wrapping_add(soon).wrapping_add(block);
            // All inputs and products of the block so far, and the sample's free response.
            for k in (0..K + 2).filter(|k| *k != 1) {
                (0..=i).for_each(|row| fetch(rows.wrapping_add(k * W * BLOCK_LEN + row * GROUP)));
            }
            fetch(rows.wrapping_add(W * BLOCK_LEN + i * GROUP));
        }
        let (inputs, free, sums) = system.rows(ahead);
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: lane + LANES <= GROUP. Inputs and free response are W blocks of rows, the products K, and
            // `stored` is a row within W blocks; so is the row after its block where W is 2 and the first block is
            // full.
            unsafe {
                let (inputs, free) = (inputs.as_mut_ptr().add(lane), free.as_mut_ptr().add(lane));
                let sums = if K > 0 { sums.as_mut_ptr().add(lane) } else { free };
                let (modes, taps) = (system.lane_modes::<K, W>(x, lane), system.taps.as_ptr().add(lane));
                if first_visit {
                    modes.free_response::<L, W>(lanes, free, sums, next);
                }
                lanes.store(inputs.add(stored * GROUP), lanes.load(u.as_ptr().add(lane)));
                let v = output::<L, K>(lanes, i, taps, inputs.add(block), sums, free.add(block));
                lanes.store(y.as_mut_ptr().add(lane), v);
                if stored + 1 == W * BLOCK_SAMPLES {
                    modes.advance::<L, W, true>(lanes, inputs, sums);
                    modes.free_response::<L, W>(lanes, free, sums, next);
                } else if W > 1 && i + 1 == BLOCK_SAMPLES {
                    add_to_next_block(lanes, taps, inputs.add(block), free.add(block + BLOCK_LEN));
                }
            }
        }
    }
}

impl<E: Elem> LookAhead<E> {
    /// The modes from lane `lane` on, with their state.
    ///
    /// # Safety
    /// The system has K inner products and W blocks from one visit to the next, `x` is as long as the state of its
    /// modes, and nothing else accesses `x` as long as the value is used.
    #[inline(always)]
    unsafe fn lane_modes<const K: usize, const W: usize>(&self, x: &mut [E], lane: usize) -> LaneModes<E, K, W> {
        let (k, x) = (self.coefficients.as_ptr().wrapping_add(lane), x.as_mut_ptr().wrapping_add(lane));
        // SAFETY: both are as long as `modes` modes need, from a lane of the group on.
        unsafe { LaneModes::new(self.modes, k, x) }
    }

    /// `blocks` times [`BLOCK_SAMPLES`] rows of `u` into rows of `y`, for a system with K inner products; `x` is the
    /// state of its modes.
    pub fn scan<const K: usize>(&self, isa: Isa, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        assert!(holds(u.len(), blocks, BLOCK_LEN) && holds(y.len(), blocks, BLOCK_LEN));
        assert!(self.products == K && x.len() == modes_len::<E>(self.modes));
        isa.run(Scan::<E, K> { system: self, blocks, u, y, x });
    }
}

/// The arguments of [`LookAhead::scan`], whose lengths were checked.
struct Scan<'a, E, const K: usize> {
    system: &'a LookAhead<E>,
    blocks: usize,
    u: &'a [E],
    y: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem, const K: usize> Kernel<E> for Scan<'_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        if K == 0 && self.system.blocks == 2 { self.by::<L, 2>(lanes) } else { self.by::<L, 1>(lanes) }
    }
}

impl<E: Elem, const K: usize> Scan<'_, E, K> {
    /// W blocks at once.
    #[inline(always)]
    fn by<L: Lanes<E = E>, const W: usize>(self, lanes: L) {
        let Self { system, blocks, u, y, x } = self;
        let mut sums = [[E::ZERO; BLOCK_LEN]; K];
        let sums = sums.as_mut_ptr().cast::<E>();
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `LookAhead::scan` checked K and the length of x, and W is the system's.
            let (modes, taps) = unsafe { (system.lane_modes::<K, W>(x, lane), system.taps.as_ptr().add(lane)) };
            let mut done = 0;
            while done < blocks {
                let at = done * BLOCK_LEN + lane;
                // SAFETY: `LookAhead::scan` checked that u and y have `blocks` blocks, of which the next ones are V;
                // `sums` has K.
                unsafe {
                    let (u, y) = (u.as_ptr().add(at), y.as_mut_ptr().add(at));
                    if done + W <= blocks {
                        done += W;
                        run_blocks::<L, K, W, W>(lanes, modes, taps, u, y, sums, done == blocks);
                    } else {
                        done += 1;
                        run_blocks::<L, K, W, 1>(lanes, modes, taps, u, y, sums, done == blocks);
                    }
                }
            }
        }
    }
}

/// The outputs of V blocks, V being 1 or W, after which the modes are moved on by their inputs. Tiny numbers are
/// flushed with the `last` blocks: denormals before these cannot be many.
///
/// # Safety
/// From the modes' lane on, `u` addresses V blocks of rows to read, `y` as many to write and `sums` one for each inner
/// product; `taps` are those of a system with K inner products and W blocks. V is 1 where K is not 0.
#[inline(always)]
unsafe fn run_blocks<L: Lanes, const K: usize, const W: usize, const V: usize>(
    lanes: L,
    modes: LaneModes<L::E, K, W>,
    taps: *const L::E,
    u: *const L::E,
    y: *mut L::E,
    sums: *mut L::E,
    last: bool,
) {
    // SAFETY: block < V, and i < BLOCK_SAMPLES; where V is 2, so is W, and there are two blocks of taps.
    unsafe {
        modes.free_response::<L, V>(lanes, y, sums, 0);
        for block in 0..V {
            let (u, y) = (u.add(block * BLOCK_LEN), y.add(block * BLOCK_LEN));
            for i in 0..BLOCK_SAMPLES {
                lanes.store(y.add(i * GROUP), output::<L, K>(lanes, i, taps, u, sums, y));
            }
            if block + 1 < V {
                add_to_next_block(lanes, taps, u, y.add(BLOCK_LEN));
            }
        }
        if last {
            modes.advance::<L, V, true>(lanes, u, sums);
        } else {
            modes.advance::<L, V, false>(lanes, u, sums);
        }
    }
}

//! The state of modes: where it stands in memory, and how it is moved on with compensated summation.
//!
//! A state is stepped as x' = x + (delta x + u), delta being the discrete pole less one, and in float32 the rounding
//! error of that sum is carried to the next one: a pole close to the unit circle decays so slowly that neither its own
//! rounding nor that of its state would be negligible.

use super::layout::{GROUP, fetch};
use super::{Elem, Isa, Kernel, Lanes};
use num_complex::Complex64;

/// Elements of the state of so many modes a lane: rows (re, im) each, then a row each of their rounding errors.
pub(super) const fn modes_len<E: Elem>(modes: usize) -> usize {
    modes * GROUP * if E::COMPENSATED { 3 } else { 2 }
}

/// (re, im) rounded, and the errors of this rounding.
pub(super) fn pair<E: Elem>(z: Complex64) -> [f64; 4] {
    let (re, im) = (E::of(z.re).f64(), E::of(z.im).f64());
    [re, im, z.re - re, z.im - im]
}

/// The state of `modes` modes a lane, of which mode n of a lane is at `x(n, lane)`.
pub(super) fn placed<E: Elem>(modes: usize, x: impl Fn(usize, usize) -> Complex64) -> Vec<E> {
    let mut state = vec![E::ZERO; modes_len::<E>(modes)];
    for n in 0..modes {
        let mut rows = [[E::ZERO; GROUP]; 4];
        for lane in 0..GROUP {
            for (row, value) in rows.iter_mut().zip(pair::<E>(x(n, lane))) {
                row[lane] = E::of(value);
            }
        }
        Isa::Scalar.run(Place { rows: &rows, modes, n, state: &mut state });
    }
    state
}

/// Writes mode `n` of every lane: (re, im), and what their rounding left over.
struct Place<'a, E> {
    rows: &'a [[E; GROUP]; 4],
    modes: usize,
    n: usize,
    state: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Place<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the rows are GROUP elements, whole vectors, and the state has `modes` modes.
            unsafe {
                let row = |i: usize| lanes.load(self.rows[i].as_ptr().add(lane));
                let x = Compensated { re: row(0), im: row(1), error_re: row(2), error_im: row(3) };
                x.store(lanes, CompensatedAt::of(self.state.as_mut_ptr().add(lane), self.modes, self.n));
            }
        }
    }
}

/// The address of a mode's state: a row each of the real and the imaginary part, and one of their rounding errors at
/// half precision. An error is less than half a unit of the last digit, so half its bits are eight digits more.
#[derive(Clone, Copy)]
pub(super) struct CompensatedAt<E> {
    x: *mut E,
    error: *mut E,
}

impl<E: Elem> CompensatedAt<E> {
    /// Of mode `n` of `modes`, whose states begin at `x`.
    #[inline(always)]
    pub fn of(x: *mut E, modes: usize, n: usize) -> Self {
        Self { x: x.wrapping_add(n * 2 * GROUP), error: x.wrapping_add((modes * 2 + n) * GROUP) }
    }

    /// Of the mode `n` modes on.
    #[inline(always)]
    pub fn offset(self, n: usize) -> Self {
        Self { x: self.x.wrapping_add(n * 2 * GROUP), error: self.error.wrapping_add(n * GROUP) }
    }

    /// Prefetches the state that stands `next` elements on.
    #[inline(always)]
    pub fn fetch(self, next: usize) {
        fetch(self.x.wrapping_add(next).cast_const());
        fetch(self.x.wrapping_add(next + GROUP).cast_const());
        if E::COMPENSATED {
            fetch(self.error.wrapping_add(next).cast_const());
        }
    }
}

/// A mode's state with its rounding errors, which compensate the next sum.
#[derive(Clone, Copy)]
pub(super) struct Compensated<V> {
    pub re: V,
    pub im: V,
    error_re: V,
    error_im: V,
}

impl<V: Copy> Compensated<V> {
    /// A state of zeros.
    #[inline(always)]
    pub fn zero<L: Lanes<V = V>>(lanes: L) -> Self {
        let zero = lanes.splat(L::E::ZERO);
        Self { re: zero, im: zero, error_re: zero, error_im: zero }
    }

    /// # Safety
    /// The rows at `at` are valid for reading `LANES` elements each.
    #[inline(always)]
    pub unsafe fn load<L: Lanes<V = V>>(lanes: L, at: CompensatedAt<L::E>) -> Self {
        let zero = lanes.splat(L::E::ZERO);
        // SAFETY: the caller's rows have LANES elements.
        unsafe {
            let (re, im) = (lanes.load(at.x), lanes.load(at.x.add(GROUP)));
            if L::E::COMPENSATED {
                let error = lanes.load(at.error);
                Self { re, im, error_re: lanes.first(error), error_im: lanes.second(error) }
            } else {
                Self { re, im, error_re: zero, error_im: zero }
            }
        }
    }

    /// # Safety
    /// The rows at `at` are valid for writing `LANES` elements each.
    #[inline(always)]
    pub unsafe fn store<L: Lanes<V = V>>(self, lanes: L, at: CompensatedAt<L::E>) {
        // SAFETY: the caller's rows have LANES elements.
        unsafe {
            lanes.store(at.x, self.re);
            lanes.store(at.x.add(GROUP), self.im);
            if L::E::COMPENSATED {
                lanes.store(at.error, lanes.halves(self.error_re, self.error_im));
            }
        }
    }

    /// With tiny numbers set to zero.
    #[inline(always)]
    pub fn flushed<L: Lanes<V = V>>(self, lanes: L) -> Self {
        Self {
            re: lanes.flush(self.re),
            im: lanes.flush(self.im),
            error_re: lanes.flush(self.error_re),
            error_im: lanes.flush(self.error_im),
        }
    }

    /// The next state, for the pole [delta_re, delta_im, low parts] and the input (re, im).
    #[inline(always)]
    pub fn advance<L: Lanes<V = V>>(self, lanes: L, [dr, di, lr, li]: [V; 4], u: (V, Option<V>)) -> Self {
        let low_im = match u.1 {
            Some(u) => lanes.fma(li, self.re, u),
            None => lanes.mul(li, self.re),
        };
        let low = (lanes.fma(lr, self.re, lanes.nfma(li, self.im, u.0)), lanes.fma(lr, self.im, low_im));
        self.advance_rounded(lanes, (dr, di), low)
    }

    /// The next state, for a pole whose low parts are left out: x + (delta x + u).
    #[inline(always)]
    pub fn advance_rounded<L: Lanes<V = V>>(self, lanes: L, (dr, di): (V, V), u: (V, V)) -> Self {
        let change_re = lanes.fma(dr, self.re, lanes.nfma(di, self.im, u.0));
        let change_im = lanes.fma(dr, self.im, lanes.fma(di, self.re, u.1));
        self.changed(lanes, (change_re, change_im))
    }

    /// The state times `factor`, which is 1 or -1.
    #[inline(always)]
    pub fn times<L: Lanes<V = V>>(self, lanes: L, factor: V) -> Self {
        Self {
            re: lanes.mul(self.re, factor),
            im: lanes.mul(self.im, factor),
            error_re: lanes.mul(self.error_re, factor),
            error_im: lanes.mul(self.error_im, factor),
        }
    }

    /// The next state: x + change.
    #[inline(always)]
    pub fn changed<L: Lanes<V = V>>(self, lanes: L, (change_re, change_im): (V, V)) -> Self {
        let Self { re, im, error_re, error_im } = self;
        if !L::E::COMPENSATED {
            return Self { re: lanes.add(re, change_re), im: lanes.add(im, change_im), error_re, error_im };
        }
        let (re, error_re) = lanes.fast_two_sum(re, lanes.add(change_re, error_re));
        let (im, error_im) = lanes.fast_two_sum(im, lanes.add(change_im, error_im));
        Self { re, im, error_re, error_im }
    }
}

/// Single samples within which every mode has been searched for tiny numbers, which would become denormal and slow.
pub const PHASES: usize = 8;

/// Sets tiny numbers to zero in the state of every [`PHASES`]th mode, from mode `phase % PHASES` on.
///
/// # Safety
/// `x` addresses the state of `modes` modes, [`modes_len`] elements less the lanes skipped.
#[inline(always)]
pub(super) unsafe fn flush<L: Lanes>(lanes: L, phase: usize, modes: usize, x: *mut L::E) {
    for n in (phase % PHASES..modes).step_by(PHASES) {
        let at = CompensatedAt::of(x, modes, n);
        // SAFETY: n < modes, whose states the caller's `x` addresses.
        unsafe { Compensated::load(lanes, at).flushed(lanes).store(lanes, at) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_placed_state_has_what_its_rounding_left_over(re in -1e3f64..1e3, im in -1e3f64..1e3, n in 0..3usize) {
            let at = |mode: usize, lane: usize| if (mode, lane) == (n, 5) { Complex64::new(re, im) } else { Complex64::ZERO };
            let state = placed::<f32>(3, at);
            let errors = state[(6 + n) * GROUP + 5].to_bits();
            let parts = [(re, 0, errors & (0xffff << 16)), (im, 1, errors << 16)];
            for (exact, row, error) in parts {
                let found = f64::from(state[(2 * n + row) * GROUP + 5]) + f64::from(f32::from_bits(error));
                prop_assert!((found - exact).abs() <= exact.abs() * 2f64.powi(-32));
            }
            prop_assert!(state.iter().filter(|&&x| x != 0.0).count() <= 3);
            let state = placed::<f64>(3, at);
            prop_assert_eq!((state[2 * n * GROUP + 5], state[(2 * n + 1) * GROUP + 5]), (re, im));
        }
    }
}

//! Single samples of a diagonal recurrence, whose modes are visited once in [`AHEAD`] samples.
//!
//! What a sample costs is mostly the memory of its modes, which is read and written whether they move by one sample or
//! by several. From the state x\[t\] on,
//!
//! y\[t + j\] = sum Re(c a^j x\[t\]) + sum over 0 < i <= j of k\[j - i\] u\[t + i\], k\[d\] = sum Re(c a^d).
//!
//! A visit computes the first sum for all samples until the next visit. A sample keeps its input and adds the second
//! sum, of a few taps. The next visit moves the modes on by all kept inputs at once. In that way a run of samples takes
//! fewer operations than one by one, too.

use super::diagonal::{Held, Mode, modes_len, pair};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, fetch};

/// Samples from one visit to the next.
pub const AHEAD: usize = 8;

/// Rows of [`GROUP`] a mode takes: a^AHEAD - 1 as (re, im) and their low parts, then a, a^2, c a and c a^2.
const ROWS: usize = 12;

/// Elements of state: a row that says when the modes were visited, the kept inputs, what the modes say of each sample.
pub const STATE_LEN: usize = (1 + 2 * AHEAD) * GROUP;

/// The modes of one group of channels, AHEAD samples at once.
#[derive(Debug)]
pub struct Ahead<E> {
    modes: usize,
    coefficients: Aligned<E>,
    /// (AHEAD,) rows of GROUP.
    kernel: Aligned<E>,
}

/// What the first element of a group's state says.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// The modes have met every sample, the last so many of them one by one.
    Now(usize),
    /// The modes have not met the last so many inputs, which are kept.
    Visit(usize),
}

impl Since {
    /// Reads it; whatever stands there, the answer is in range.
    #[inline(always)]
    pub fn of<E: Elem>(state: &[E]) -> Self {
        match state[0].f64() as i32 {
            x @ 1.. => Since::Visit((x as usize - 1).min(AHEAD - 1)),
            x => Since::Now(x.unsigned_abs() as usize),
        }
    }

    /// Writes it.
    #[inline(always)]
    pub fn put<E: Elem>(self, state: &mut [E]) {
        state[0] = match self {
            Since::Now(single) => E::of(0.0 - single as f64),
            Since::Visit(kept) => E::of((kept + 1) as f64),
        };
    }

    /// Whether the modes need not move with the next sample; after the first few that is so. Groups that differ in
    /// `stagger` visit their modes at different samples.
    #[inline(always)]
    pub fn looks_ahead(self, stagger: usize) -> bool {
        match self {
            Since::Now(single) => single >= stagger % AHEAD,
            Since::Visit(_) => true,
        }
    }

    /// After one more sample that the modes have met.
    #[inline(always)]
    pub fn one_more(self) -> Self {
        match self {
            Since::Now(single) => Since::Now(single + 1),
            Since::Visit(_) => Since::Now(1),
        }
    }
}

/// The kept inputs, and what the modes say of each sample, both (AHEAD,) rows of GROUP.
#[inline(always)]
pub fn rows<E: Elem>(state: &mut [E]) -> (&mut [E], &mut [E]) {
    state[GROUP..].split_at_mut(AHEAD * GROUP)
}

impl<E: Elem> Ahead<E> {
    /// From modes whose gain is 1: GROUP lanes' first, then GROUP lanes' second and so on.
    pub fn new(modes: &[Mode]) -> Self {
        let mut coefficients = Aligned::zeros(modes.len() * ROWS);
        let mut kernel = vec![0.0; AHEAD * GROUP];
        for (i, &Mode { delta, c, .. }) in modes.iter().enumerate() {
            let (n, lane) = (i / GROUP, i % GROUP);
            let a = delta + 1.0;
            // (1 + d)^2 - 1 = d (2 + d), without the cancellation of a^2 - 1.
            let far = (0..AHEAD.ilog2()).fold(delta, |d, _| d * (d + 2.0));
            let others = [a, a * a, c * a, c * a * a].into_iter().flat_map(|z| [z.re, z.im]);
            for (row, value) in pair::<E>(far).into_iter().chain(others).enumerate() {
                coefficients[(n * ROWS + row) * GROUP + lane] = E::of(value);
            }
            let mut read = c;
            for k in kernel[lane..].iter_mut().step_by(GROUP) {
                *k += read.re;
                read *= a;
            }
        }
        let kernel = kernel.into_iter().map(E::of).collect();
        Self { modes: modes.len() / GROUP, coefficients, kernel }
    }

    /// One sample of GROUP channels: `u` and `y` are a row, `x` the state of the modes, `state` what follows it. `next`
    /// elements on stand those of the next stream, if any, which are fetched meanwhile.
    #[inline(always)]
    pub fn step<L: Lanes<E = E>>(&self, lanes: L, u: &[E], y: &mut [E], x: &mut [E], state: &mut [E], next: usize) {
        assert!(
            u.len() >= GROUP && y.len() >= GROUP && x.len() == modes_len::<E>(self.modes) && state.len() == STATE_LEN
        );
        let (kept, first) = match Since::of(state) {
            Since::Now(_) => (0, true),
            Since::Visit(kept) => (kept, false),
        };
        if next > 0 {
            let state = state.as_ptr().wrapping_add(next);
            (0..kept + 2).for_each(|row| fetch(state.wrapping_add(row * GROUP)));
            fetch(state.wrapping_add((1 + AHEAD + kept) * GROUP));
        }
        Since::Visit((kept + 1) % AHEAD).put(state);
        let (inputs, answers) = rows(state);
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the lengths were checked, and `kept < AHEAD`.
            unsafe {
                let (inputs, answers) = (inputs.as_mut_ptr().add(lane), answers.as_mut_ptr().add(lane));
                let (k, x) = (self.coefficients.as_ptr().add(lane), x.as_mut_ptr().add(lane));
                if first {
                    look(lanes, self.modes, k, answers, x, next);
                }
                lanes.store(inputs.add(kept * GROUP), lanes.load(u.as_ptr().add(lane)));
                let heard = hear(lanes, kept, self.kernel.as_ptr().add(lane), inputs, answers);
                lanes.store(y.as_mut_ptr().add(lane), heard);
                if kept + 1 == AHEAD {
                    advance(lanes, self.modes, k, inputs, x);
                    look(lanes, self.modes, k, answers, x, next);
                }
            }
        }
    }

    /// `blocks` times AHEAD rows of `u` into rows of `y`; `x` is the state of the modes.
    pub fn scan(&self, isa: Isa, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        let rows = blocks * AHEAD * GROUP;
        assert!(u.len() >= rows && y.len() >= rows && x.len() == modes_len::<E>(self.modes));
        isa.run(Scan { ahead: self, blocks, u, y, x });
    }
}

struct Scan<'a, E> {
    ahead: &'a Ahead<E>,
    blocks: usize,
    u: &'a [E],
    y: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { ahead, blocks, u, y, x } = self;
        for lane in (0..GROUP).step_by(L::LANES) {
            for block in 0..blocks {
                // SAFETY: `Ahead::scan` checked the lengths.
                unsafe {
                    let at = block * AHEAD * GROUP + lane;
                    let (u, y, x) = (u.as_ptr().add(at), y.as_mut_ptr().add(at), x.as_mut_ptr().add(lane));
                    let (k, taps) = (ahead.coefficients.as_ptr().add(lane), ahead.kernel.as_ptr().add(lane));
                    look(lanes, ahead.modes, k, y, x, 0);
                    for i in 0..AHEAD {
                        lanes.store(y.add(i * GROUP), hear(lanes, i, taps, u, y));
                    }
                    advance(lanes, ahead.modes, k, u, x);
                }
            }
        }
    }
}

/// The answer of sample `i` since the visit: what the modes said of it, and what the inputs since say.
///
/// # Safety
/// The pointers address AHEAD rows of GROUP, less the lanes skipped, and `i < AHEAD`.
#[inline(always)]
unsafe fn hear<L: Lanes>(lanes: L, i: usize, taps: *const L::E, inputs: *const L::E, said: *const L::E) -> L::V {
    // SAFETY: as the caller's.
    unsafe {
        let newest = lanes.load(inputs.add(i * GROUP));
        let mut sum = lanes.fma(lanes.load(taps), newest, lanes.load(said.add(i * GROUP)));
        for j in 0..i {
            let tap = lanes.load(taps.add((i - j) * GROUP));
            sum = lanes.fma(tap, lanes.load(inputs.add(j * GROUP)), sum);
        }
        sum
    }
}

/// a b + c of complex numbers.
#[inline(always)]
fn times<L: Lanes>(lanes: L, a: (L::V, L::V), b: (L::V, L::V), c: (L::V, L::V)) -> (L::V, L::V) {
    let re = lanes.fma(a.0, b.0, lanes.nfma(a.1, b.1, c.0));
    (re, lanes.fma(a.0, b.1, lanes.fma(a.1, b.0, c.1)))
}

/// Modes that move on side by side: each is a chain of dependent operations.
const TOGETHER: usize = 4;

/// Moves all modes on by AHEAD inputs.
///
/// # Safety
/// The pointers address `modes` or AHEAD rows of GROUP, less the lanes skipped.
#[inline(always)]
unsafe fn advance<L: Lanes>(lanes: L, modes: usize, k: *const L::E, u: *const L::E, x: *mut L::E) {
    let far = modes * 2 * GROUP;
    let whole = modes / TOGETHER * TOGETHER;
    // SAFETY: as the caller's.
    unsafe {
        for n in (0..whole).step_by(TOGETHER) {
            advance_some::<L, TOGETHER>(lanes, far, k.add(n * ROWS * GROUP), u, x.add(n * 2 * GROUP));
        }
        for n in whole..modes {
            advance_some::<L, 1>(lanes, far, k.add(n * ROWS * GROUP), u, x.add(n * 2 * GROUP));
        }
    }
}

/// # Safety
/// As [`advance`], with M modes from `k` and `x` on.
#[inline(always)]
unsafe fn advance_some<L: Lanes, const M: usize>(lanes: L, far: usize, k: *const L::E, u: *const L::E, x: *mut L::E) {
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: as the caller's.
    unsafe {
        let mut a = [(zero, zero); M];
        let mut square = [(zero, zero); M];
        for m in 0..M {
            let k = k.add(m * ROWS * GROUP);
            a[m] = (lanes.load(k.add(4 * GROUP)), lanes.load(k.add(5 * GROUP)));
            square[m] = (lanes.load(k.add(6 * GROUP)), lanes.load(k.add(7 * GROUP)));
        }
        // Horner's rule in a^2, two inputs at once.
        let mut met = [(zero, zero); M];
        for i in (0..AHEAD).step_by(2) {
            let (first, second) = (lanes.load(u.add(i * GROUP)), lanes.load(u.add((i + 1) * GROUP)));
            for m in 0..M {
                let two = (lanes.fma(a[m].0, first, second), lanes.mul(a[m].1, first));
                met[m] = if i == 0 { two } else { times(lanes, square[m], met[m], two) };
            }
        }
        for (m, (re, im)) in met.into_iter().enumerate() {
            let (k, x) = (k.add(m * ROWS * GROUP), x.add(m * 2 * GROUP));
            let pole =
                [lanes.load(k), lanes.load(k.add(GROUP)), lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP))];
            let next = Held::load(lanes, x, far).advance(lanes, pole, (re, Some(im)));
            next.flushed(lanes).store(lanes, x, far);
        }
    }
}

/// Writes what all modes say of the next AHEAD samples, two at once, and fetches the modes that stand `next` elements on.
///
/// # Safety
/// As [`advance`].
#[inline(always)]
unsafe fn look<L: Lanes>(lanes: L, modes: usize, k: *const L::E, y: *mut L::E, x: *const L::E, next: usize) {
    let far = modes * 2 * GROUP;
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: as the caller's.
    unsafe {
        let mut answers = [zero; AHEAD];
        for n in 0..modes {
            let (k, x) = (k.add(n * ROWS * GROUP), x.add(n * 2 * GROUP));
            if next > 0 {
                for row in 0..if L::E::COMPENSATED { 4 } else { 2 } {
                    fetch(x.wrapping_add(next + row / 2 * far + row % 2 * GROUP));
                }
            }
            let square = (lanes.load(k.add(6 * GROUP)), lanes.load(k.add(7 * GROUP)));
            let odd = (lanes.load(k.add(8 * GROUP)), lanes.load(k.add(9 * GROUP)));
            let even = (lanes.load(k.add(10 * GROUP)), lanes.load(k.add(11 * GROUP)));
            let mut now = (lanes.load(x), lanes.load(x.add(GROUP)));
            for i in (0..AHEAD).step_by(2) {
                answers[i] = lanes.fma(odd.0, now.0, lanes.nfma(odd.1, now.1, answers[i]));
                answers[i + 1] = lanes.fma(even.0, now.0, lanes.nfma(even.1, now.1, answers[i + 1]));
                if i + 2 < AHEAD {
                    now = times(lanes, square, now, (zero, zero));
                }
            }
        }
        for (i, answer) in answers.into_iter().enumerate() {
            lanes.store(y.add(i * GROUP), answer);
        }
    }
}

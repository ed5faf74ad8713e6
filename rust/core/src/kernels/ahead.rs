//! Single samples of a diagonal recurrence, with or without what couples its modes, visited once in [`AHEAD`] samples.
//!
//! What a sample costs is mostly the memory of its modes, which is read and written whether they move by one sample or
//! by several. From the state x\[t\] on,
//!
//! y\[t + j\] = sum Re(c a^j x\[t\]) + sum over 0 < i <= j of k\[j - i\] u\[t + i\], k\[d\] = sum Re(c a^d).
//!
//! A visit computes the first sum for all samples until the next visit. A sample keeps its input and adds the second
//! sum, of a few taps. The next visit moves the modes on by all kept inputs at once. In that way a run of samples takes
//! fewer operations than one by one, too.
//!
//! Where modes are coupled, x' = a x + u - sum_k w_k s_k with s_k = Re(v_k . x), a coupling is both: an answer, of the
//! state before the sample, and an input, through -w_k.

use super::by_modes::modes_len;
use super::diagonal::{Held, pair};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, fetch};
use num_complex::Complex64;
use std::iter::once;

/// Samples from one visit to the next.
pub const AHEAD: usize = 8;

/// Rows of [`GROUP`] a mode takes before those of its readers: a, a^2 and a^AHEAD - 1, each (re, im), and the low parts
/// of the last. These are left out where modes are coupled: the rounding of the couplings is greater.
const fn fixed(products: usize) -> usize {
    if products == 0 { 8 } else { 6 }
}

/// Rows of a reader r, and of an input's gain g: r and r a, each (re, im).
const EACH: usize = 4;

/// Rows of a mode: c a as the first reader, then each v, then each -w.
const fn rows_of(products: usize) -> usize {
    fixed(products) + EACH * (1 + 2 * products)
}

/// Elements of state: a row that says when the modes were visited, then AHEAD rows each of the kept inputs, of what the
/// modes say of each sample, and of each inner product.
pub const fn state_len(products: usize) -> usize {
    (1 + (2 + products) * AHEAD) * GROUP
}

/// The modes of one group of channels, AHEAD samples at once.
#[derive(Debug)]
pub struct Ahead<E> {
    modes: usize,
    products: usize,
    coefficients: Aligned<E>,
    /// What each answer hears of each input, the inner products being the later ones of both: (answers, inputs, AHEAD)
    /// rows of GROUP.
    taps: Aligned<E>,
}

/// A mode whose input has gain 1: its pole less one, what reads it, and (v, w) of each coupling.
pub type Coupled<'a> = (Complex64, Complex64, &'a [(Complex64, Complex64)]);

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

/// The kept inputs, what the modes say of each sample, and the inner products: AHEAD rows of GROUP each.
#[inline(always)]
pub fn rows<E: Elem>(state: &mut [E]) -> (&mut [E], &mut [E], &mut [E]) {
    let (inputs, rest) = state[GROUP..].split_at_mut(AHEAD * GROUP);
    let (answers, sums) = rest.split_at_mut(AHEAD * GROUP);
    (inputs, answers, sums)
}

impl<E: Elem> Ahead<E> {
    /// `modes` modes a lane with `products` couplings; `mode(lane, n)` gives each.
    pub fn new<'a>(modes: usize, products: usize, mode: impl Fn(usize, usize) -> Coupled<'a>) -> Self {
        let rows = rows_of(products);
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        let mut taps = vec![0.0; (products + 1) * (products + 1) * AHEAD * GROUP];
        for (n, lane) in (0..modes * GROUP).map(|i| (i / GROUP, i % GROUP)) {
            let (delta, c, vw) = mode(lane, n);
            let a = delta + 1.0;
            // (1 + d)^2 - 1 = d (2 + d), without the cancellation of a^2 - 1.
            let far = (0..AHEAD.ilog2()).fold(delta, |d, _| d * (d + 2.0));
            let readers = once(c * a).chain(vw.iter().map(|(v, _)| *v));
            let each = readers.chain(vw.iter().map(|(_, w)| -w)).flat_map(|z| [z, z * a]);
            let near = [a, a * a].into_iter().flat_map(|z| [z.re, z.im]);
            let far = pair::<E>(far).into_iter().take(fixed(products) - 4);
            for (row, value) in near.chain(far).chain(each.flat_map(|z| [z.re, z.im])).enumerate() {
                coefficients[(n * rows + row) * GROUP + lane] = E::of(value);
            }
            for (i, reader) in once(c).chain(vw.iter().map(|(v, _)| *v)).enumerate() {
                for (j, gain) in once(Complex64::ONE).chain(vw.iter().map(|(_, w)| -w)).enumerate() {
                    let first = (i * (products + 1) + j) * AHEAD * GROUP;
                    let mut read = reader * gain;
                    for tap in taps[first..first + AHEAD * GROUP][lane..].iter_mut().step_by(GROUP) {
                        *tap += read.re;
                        read *= a;
                    }
                }
            }
        }
        Self { modes, products, coefficients, taps: taps.into_iter().map(E::of).collect() }
    }

    /// One sample of GROUP channels of a system with K couplings: `u` and `y` are a row, `x` the state of the modes,
    /// `state` what follows it. `next` elements on stand those of the next stream, if any, which are fetched meanwhile.
    #[inline(always)]
    pub fn step<L: Lanes<E = E>, const K: usize>(
        &self,
        lanes: L,
        u: &[E],
        y: &mut [E],
        x: &mut [E],
        state: &mut [E],
        next: usize,
    ) {
        assert!(u.len() >= GROUP && y.len() >= GROUP && x.len() == modes_len::<E>(self.modes));
        assert!(self.products == K && state.len() == state_len(K));
        let (kept, first) = match Since::of(state) {
            Since::Now(_) => (0, true),
            Since::Visit(kept) => (kept, false),
        };
        if next > 0 {
            let state = state.as_ptr().wrapping_add(next);
            (0..kept + 2).for_each(|row| fetch(state.wrapping_add(row * GROUP)));
            (0..=K).for_each(|i| fetch(state.wrapping_add((1 + (1 + i) * AHEAD + kept) * GROUP)));
        }
        Since::Visit((kept + 1) % AHEAD).put(state);
        let (inputs, answers, sums) = rows(state);
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: the lengths were checked, and `kept < AHEAD`.
            unsafe {
                let (inputs, answers) = (inputs.as_mut_ptr().add(lane), answers.as_mut_ptr().add(lane));
                let sums = if K > 0 { sums.as_mut_ptr().add(lane) } else { answers };
                let (k, x) = (self.coefficients.as_ptr().add(lane), x.as_mut_ptr().add(lane));
                if first {
                    look::<L, K>(lanes, self.modes, k, answers, sums, x, next);
                }
                lanes.store(inputs.add(kept * GROUP), lanes.load(u.as_ptr().add(lane)));
                let heard = hear::<L, K>(lanes, kept, self.taps.as_ptr().add(lane), inputs, sums, answers);
                lanes.store(y.as_mut_ptr().add(lane), heard);
                if kept + 1 == AHEAD {
                    advance::<L, K, true>(lanes, self.modes, k, inputs, sums, x);
                    look::<L, K>(lanes, self.modes, k, answers, sums, x, next);
                }
            }
        }
    }

    /// `blocks` times AHEAD rows of `u` into rows of `y`; `x` is the state of the modes.
    pub fn scan<const K: usize>(&self, isa: Isa, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        let rows = blocks * AHEAD * GROUP;
        assert!(self.products == K && u.len() >= rows && y.len() >= rows && x.len() == modes_len::<E>(self.modes));
        isa.run(Scan::<E, K> { ahead: self, blocks, u, y, x });
    }
}

struct Scan<'a, E, const K: usize> {
    ahead: &'a Ahead<E>,
    blocks: usize,
    u: &'a [E],
    y: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem, const K: usize> Kernel<E> for Scan<'_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { ahead, blocks, u, y, x } = self;
        let mut sums = [[[E::ZERO; GROUP]; AHEAD]; K];
        let sums = sums.as_mut_ptr().cast::<E>();
        for lane in (0..GROUP).step_by(L::LANES) {
            for block in 0..blocks {
                // SAFETY: `Ahead::scan` checked the lengths.
                unsafe {
                    let at = block * AHEAD * GROUP + lane;
                    let (u, y, x) = (u.as_ptr().add(at), y.as_mut_ptr().add(at), x.as_mut_ptr().add(lane));
                    let (k, taps) = (ahead.coefficients.as_ptr().add(lane), ahead.taps.as_ptr().add(lane));
                    look::<L, K>(lanes, ahead.modes, k, y, sums, x, 0);
                    for i in 0..AHEAD {
                        lanes.store(y.add(i * GROUP), hear::<L, K>(lanes, i, taps, u, sums, y));
                    }
                    // What is tiny is flushed with the last block: denormals before it cannot be many.
                    if block + 1 < blocks {
                        advance::<L, K, false>(lanes, ahead.modes, k, u, sums, x);
                    } else {
                        advance::<L, K, true>(lanes, ahead.modes, k, u, sums, x);
                    }
                }
            }
        }
    }
}

/// The answer of sample `i` since the visit: what the modes said of it, and what the inputs since say. Before that the
/// same for the inner products of the state that the sample meets, in place of what the modes said of them.
///
/// # Safety
/// The pointers address AHEAD rows of GROUP, K times so many for `sums`, less the lanes skipped, and `i < AHEAD`.
#[inline(always)]
unsafe fn hear<L: Lanes, const K: usize>(
    lanes: L,
    i: usize,
    taps: *const L::E,
    inputs: *const L::E,
    sums: *mut L::E,
    said: *const L::E,
) -> L::V {
    const BLOCK: usize = AHEAD * GROUP;
    let of = |k: usize| if k == 0 { inputs } else { sums.wrapping_add((k - 1) * BLOCK).cast_const() };
    // SAFETY: as the caller's.
    unsafe {
        for k in 1..=K {
            let taps = taps.add(k * (K + 1) * BLOCK);
            let mut sum = lanes.load(of(k).add(i * GROUP));
            for j in 0..i {
                for l in 0..=K {
                    let tap = lanes.load(taps.add(l * BLOCK + (i - 1 - j) * GROUP));
                    sum = lanes.fma(tap, lanes.load(of(l).add(j * GROUP)), sum);
                }
            }
            lanes.store(sums.add((k - 1) * BLOCK + i * GROUP), sum);
        }
        let mut sum = lanes.load(said.add(i * GROUP));
        for l in 0..=K {
            sum = lanes.fma(lanes.load(taps.add(l * BLOCK)), lanes.load(of(l).add(i * GROUP)), sum);
        }
        for j in 0..i {
            for l in 0..=K {
                let tap = lanes.load(taps.add(l * BLOCK + (i - j) * GROUP));
                sum = lanes.fma(tap, lanes.load(of(l).add(j * GROUP)), sum);
            }
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

/// Modes that move on side by side, each a chain of dependent operations: as many as registers hold.
const fn together(products: usize) -> usize {
    if products == 0 { 4 } else { 2 }
}

/// Moves all modes on by AHEAD inputs; `FLUSH` sets to zero what is tiny.
///
/// # Safety
/// The pointers address `modes` or AHEAD rows of GROUP, K times so many for `sums`, less the lanes skipped.
#[inline(always)]
unsafe fn advance<L: Lanes, const K: usize, const FLUSH: bool>(
    lanes: L,
    modes: usize,
    k: *const L::E,
    u: *const L::E,
    sums: *const L::E,
    x: *mut L::E,
) {
    let far = modes * 2 * GROUP;
    let rows = rows_of(K);
    let whole = modes / together(K) * together(K);
    // SAFETY: as the caller's.
    unsafe {
        for n in (0..whole).step_by(together(K)) {
            let (k, x) = (k.add(n * rows * GROUP), x.add(n * 2 * GROUP));
            if K == 0 {
                advance_some::<L, K, { together(0) }, FLUSH>(lanes, far, k, u, sums, x);
            } else {
                advance_some::<L, K, { together(1) }, FLUSH>(lanes, far, k, u, sums, x);
            }
        }
        for n in whole..modes {
            let (k, x) = (k.add(n * rows * GROUP), x.add(n * 2 * GROUP));
            advance_some::<L, K, 1, FLUSH>(lanes, far, k, u, sums, x);
        }
    }
}

/// # Safety
/// As [`advance`], with M modes from `k` and `x` on.
#[inline(always)]
unsafe fn advance_some<L: Lanes, const K: usize, const M: usize, const FLUSH: bool>(
    lanes: L,
    far: usize,
    k: *const L::E,
    u: *const L::E,
    sums: *const L::E,
    x: *mut L::E,
) {
    let rows = rows_of(K);
    let gains = fixed(K) + EACH * (1 + K);
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: as the caller's.
    unsafe {
        let mut a = [(zero, zero); M];
        let mut square = [(zero, zero); M];
        for m in 0..M {
            let k = k.add(m * rows * GROUP);
            a[m] = (lanes.load(k), lanes.load(k.add(GROUP)));
            square[m] = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
        }
        // Horner's rule in a^2, two inputs at once.
        let mut met = [(zero, zero); M];
        for i in (0..AHEAD).step_by(2) {
            let (first, second) = (lanes.load(u.add(i * GROUP)), lanes.load(u.add((i + 1) * GROUP)));
            for m in 0..M {
                let mut two = (lanes.fma(a[m].0, first, second), lanes.mul(a[m].1, first));
                for j in 0..K {
                    let sum = sums.add((j * AHEAD + i) * GROUP);
                    let (first, second) = (lanes.load(sum), lanes.load(sum.add(GROUP)));
                    let gain = k.add((m * rows + gains + EACH * j) * GROUP);
                    two.0 = lanes.fma(lanes.load(gain), second, two.0);
                    two.1 = lanes.fma(lanes.load(gain.add(GROUP)), second, two.1);
                    two.0 = lanes.fma(lanes.load(gain.add(2 * GROUP)), first, two.0);
                    two.1 = lanes.fma(lanes.load(gain.add(3 * GROUP)), first, two.1);
                }
                met[m] = if i == 0 { two } else { times(lanes, square[m], met[m], two) };
            }
        }
        for (m, (re, im)) in met.into_iter().enumerate() {
            let (k, x) = (k.add(m * rows * GROUP), x.add(m * 2 * GROUP));
            let held = Held::load(lanes, x, far);
            let pole = (lanes.load(k.add(4 * GROUP)), lanes.load(k.add(5 * GROUP)));
            let next = if K == 0 {
                let low = (lanes.load(k.add(6 * GROUP)), lanes.load(k.add(7 * GROUP)));
                held.advance(lanes, [pole.0, pole.1, low.0, low.1], (re, Some(im)))
            } else {
                held.moved(lanes, pole, (re, im))
            };
            if FLUSH { next.flushed(lanes) } else { next }.store(lanes, x, far);
        }
    }
}

/// Writes what all modes say of the next AHEAD samples, and of the inner products of the states that these meet, and
/// fetches the modes that stand `next` elements on.
///
/// # Safety
/// As [`advance`].
#[inline(always)]
unsafe fn look<L: Lanes, const K: usize>(
    lanes: L,
    modes: usize,
    k: *const L::E,
    y: *mut L::E,
    sums: *mut L::E,
    x: *const L::E,
    next: usize,
) {
    let to = |i: usize| if i == 0 { y } else { sums.wrapping_add((i - 1) * AHEAD * GROUP) };
    let mut done = 0;
    // SAFETY: as the caller's.
    unsafe {
        // Two answers share the powers of a, where registers hold their sums.
        while L::REGISTERS >= 32 && done < K {
            let next = if done == 0 { next } else { 0 };
            look_at::<L, K, 2>(lanes, modes, done, k, [to(done), to(done + 1)], x, next);
            done += 2;
        }
        while done <= K {
            let next = if done == 0 { next } else { 0 };
            look_at::<L, K, 1>(lanes, modes, done, k, [to(done)], x, next);
            done += 1;
        }
    }
}

/// As [`look`], for P answers from the `first` on, two samples at once.
///
/// # Safety
/// As [`advance`].
#[inline(always)]
unsafe fn look_at<L: Lanes, const K: usize, const P: usize>(
    lanes: L,
    modes: usize,
    first: usize,
    k: *const L::E,
    to: [*mut L::E; P],
    x: *const L::E,
    next: usize,
) {
    let far = modes * 2 * GROUP;
    let zero = lanes.splat(L::E::ZERO);
    // SAFETY: as the caller's.
    unsafe {
        let mut answers = [[zero; AHEAD]; P];
        for n in 0..modes {
            let (k, x) = (k.add(n * rows_of(K) * GROUP), x.add(n * 2 * GROUP));
            if next > 0 {
                for row in 0..if L::E::COMPENSATED { 4 } else { 2 } {
                    fetch(x.wrapping_add(next + row / 2 * far + row % 2 * GROUP));
                }
            }
            let square = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
            let mut now = (lanes.load(x), lanes.load(x.add(GROUP)));
            for i in (0..AHEAD).step_by(2) {
                for p in 0..P {
                    let reader = k.add((fixed(K) + EACH * (first + p)) * GROUP);
                    for j in 0..2 {
                        let (re, im) = (reader.add(2 * j * GROUP), reader.add((2 * j + 1) * GROUP));
                        let sum = lanes.nfma(lanes.load(im), now.1, answers[p][i + j]);
                        answers[p][i + j] = lanes.fma(lanes.load(re), now.0, sum);
                    }
                }
                if i + 2 < AHEAD {
                    now = times(lanes, square, now, (zero, zero));
                }
            }
        }
        for (to, answers) in to.into_iter().zip(answers) {
            for (i, answer) in answers.into_iter().enumerate() {
                lanes.store(to.add(i * GROUP), answer);
            }
        }
    }
}

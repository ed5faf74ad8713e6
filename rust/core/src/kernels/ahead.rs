//! Single samples of a diagonal recurrence, with or without what couples its modes, visited once in [`AHEAD`] samples or
//! twice as many.
//!
//! What a sample costs is mostly the memory of its modes, which is read and written whether they move by one sample or
//! by several. From the state x\[t\] on,
//!
//! y\[t + j\] = sum Re(c a^j x\[t\]) + sum over 0 < i <= j of k\[j - i\] u\[t + i\], k\[d\] = sum Re(c a^d).
//!
//! A visit computes the first sum for all samples until the next visit. A sample keeps its input and adds what of the
//! second sum comes from its own block of AHEAD samples; where another block follows before the next visit, a block that
//! is full adds its part to all answers of that one. The next visit moves the modes on by all kept inputs at once. In that
//! way a run of samples takes fewer operations than one by one, too.
//!
//! Where modes are coupled, x' = a x + u - sum_k w_k s_k with s_k = Re(v_k . x), a coupling is both: an answer, of the
//! state before the sample, and an input, through -w_k.

use super::by_modes::{After, modes_len};
use super::diagonal::{Held, HeldAt, pair};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, fetch};
use num_complex::Complex64;
use std::iter::once;

/// The samples of a block, from a visit on.
pub const AHEAD: usize = 8;
/// Elements of its rows.
const BLOCK: usize = AHEAD * GROUP;

/// Blocks from one visit to the next of so many modes: the memory of many is worth more taps.
const fn blocks_of(modes: usize, products: usize) -> usize {
    if products == 0 && modes >= 32 { 2 } else { 1 }
}

/// How many streams on the rows are fetched that any sample needs: in their time they come from memory.
pub const ROWS_AHEAD: usize = 8;

/// Rows of [`GROUP`] that a mode's first powers take: a and a^2, each (re, im).
const NEAR: usize = 4;

/// Rows of a power of the pole less one, (re, im), and their low parts. These are left out where modes are coupled: the
/// rounding of the couplings is greater.
const fn pole(products: usize) -> usize {
    if products == 0 { 4 } else { 2 }
}

/// Rows of a mode before those of its readers: the near ones, and the pole's power from one visit to the next.
const fn fixed(products: usize) -> usize {
    NEAR + pole(products)
}

/// Rows of a reader r, and of an input's gain g: r and r a, each (re, im).
const EACH: usize = 4;

/// Rows of a mode: c a as the first reader, then each v, then each -w, then a^AHEAD - 1 where visits are farther apart.
const fn rows_of(products: usize, blocks: usize) -> usize {
    fixed(products) + EACH * (1 + 2 * products) + if blocks > 1 { pole(products) } else { 0 }
}

/// Elements of state: for each sample from one visit to the next rows of the kept inputs, of what the modes say of it, and
/// of each inner product.
pub const fn state_len(modes: usize, products: usize) -> usize {
    (2 + products) * blocks_of(modes, products) * BLOCK
}

/// The modes of one group of channels, several samples at once.
#[derive(Debug)]
pub struct Ahead<E> {
    modes: usize,
    products: usize,
    /// From one visit to the next.
    blocks: usize,
    coefficients: Aligned<E>,
    /// What each answer hears of each input, the inner products being the later ones of both: (answers, inputs, samples
    /// from one visit to the next) rows of GROUP.
    taps: Aligned<E>,
}

/// A mode whose input has gain 1: its pole less one, what reads it, and (v, w) of each coupling.
pub type Coupled<'a> = (Complex64, Complex64, &'a [(Complex64, Complex64)]);

/// The most samples from one visit to the next.
const FARTHEST: usize = 2 * AHEAD;

/// Single samples since the last block. After the first few only the count's remainder matters, and it stays small.
#[derive(Clone, Copy, Debug)]
pub struct Single(usize);

impl Single {
    /// Reads it; whatever stands there, the count is in range.
    #[inline(always)]
    pub fn of<E: Elem>(count: E) -> Self {
        Self((count.f64() as usize).min(2 * FARTHEST - 1))
    }

    /// After one more, to be kept.
    #[inline(always)]
    pub fn and_one<E: Elem>(self) -> E {
        let count = self.0 + 1;
        E::of(if count < 2 * FARTHEST { count } else { FARTHEST } as f64)
    }
}

/// What the modes have met of the single samples since the last block.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// All of them.
    Now,
    /// All of them, and before the next one they are visited for the first time.
    Due,
    /// All but the last so many, whose inputs are kept.
    Visit(usize),
}

impl<E: Elem> Ahead<E> {
    /// `modes` modes a lane with `products` couplings; `mode(lane, n)` gives each.
    pub fn new<'a>(modes: usize, products: usize, mode: impl Fn(usize, usize) -> Coupled<'a>) -> Self {
        let blocks = blocks_of(modes, products);
        let rows = rows_of(products, blocks);
        let mut coefficients = Aligned::zeros(modes * rows * GROUP);
        let mut taps = vec![0.0; (products + 1) * (products + 1) * blocks * BLOCK];
        for (n, lane) in (0..modes * GROUP).map(|i| (i / GROUP, i % GROUP)) {
            let (delta, c, vw) = mode(lane, n);
            let a = delta + 1.0;
            // (1 + d)^2 - 1 = d (2 + d), without the cancellation of a^2 - 1.
            let power = |samples: usize| (0..samples.ilog2()).fold(delta, |d, _| d * (d + 2.0));
            let pole = |samples: usize| pair::<E>(power(samples)).into_iter().take(pole(products));
            let readers = once(c * a).chain(vw.iter().map(|(v, _)| *v));
            let each = readers.chain(vw.iter().map(|(_, w)| -w)).flat_map(|z| [z, z * a]);
            let near = [a, a * a].into_iter().flat_map(|z| [z.re, z.im]);
            let each = each.flat_map(|z| [z.re, z.im]);
            let values = near.chain(pole(blocks * AHEAD)).chain(each).chain(pole(AHEAD));
            for (row, value) in values.enumerate().take(rows) {
                coefficients[(n * rows + row) * GROUP + lane] = E::of(value);
            }
            for (i, reader) in once(c).chain(vw.iter().map(|(v, _)| *v)).enumerate() {
                for (j, gain) in once(Complex64::ONE).chain(vw.iter().map(|(_, w)| -w)).enumerate() {
                    let first = (i * (products + 1) + j) * blocks * BLOCK;
                    let mut read = reader * gain;
                    for tap in taps[first..first + blocks * BLOCK][lane..].iter_mut().step_by(GROUP) {
                        *tap += read.re;
                        read *= a;
                    }
                }
            }
        }
        Self { modes, products, blocks, coefficients, taps: taps.into_iter().map(E::of).collect() }
    }

    /// The kept inputs, what the modes say of each sample, and the inner products.
    #[inline(always)]
    pub fn rows<'a>(&self, state: &'a mut [E]) -> (&'a mut [E], &'a mut [E], &'a mut [E]) {
        let (inputs, rest) = state.split_at_mut(self.blocks * BLOCK);
        let (answers, sums) = rest.split_at_mut(self.blocks * BLOCK);
        (inputs, answers, sums)
    }

    /// What the modes have met after `single` samples. Groups that differ in `stagger` visit them at different samples.
    #[inline(always)]
    pub fn since(&self, Single(count): Single, stagger: usize) -> Since {
        let first = stagger % (self.blocks * AHEAD);
        match count.checked_sub(first) {
            None => Since::Now,
            Some(0) => Since::Due,
            Some(n) => Since::Visit(n % (self.blocks * AHEAD)),
        }
    }

    /// The modes from lane `lane` on, with their state.
    #[inline(always)]
    fn modes<const K: usize, const W: usize>(&self, x: &mut [E], lane: usize) -> Modes<E, K, W> {
        let (k, x) = (self.coefficients.as_ptr().wrapping_add(lane), x.as_mut_ptr().wrapping_add(lane));
        Modes { count: self.modes, k, x }
    }

    /// `blocks` times AHEAD rows of `u` into rows of `y`; `x` is the state of the modes.
    pub fn scan<const K: usize>(&self, isa: Isa, blocks: usize, u: &[E], y: &mut [E], x: &mut [E]) {
        let len = blocks * BLOCK;
        assert!(self.products == K && u.len() >= len && y.len() >= len && x.len() == modes_len::<E>(self.modes));
        isa.run(Scan::<E, K> { ahead: self, blocks, u, y, x });
    }
}

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
                        modes.meet::<L, W>(lanes, taps, u, y, sums, done == blocks);
                    } else {
                        done += 1;
                        modes.meet::<L, 1>(lanes, taps, u, y, sums, done == blocks);
                    }
                }
            }
        }
    }
}

/// The answer of sample `i` of a block: what was said of it before, and what the block's inputs say. Before that the
/// same for the inner products of the state that the sample meets, in place of what the modes said of them.
///
/// # Safety
/// The pointers address more than `i` rows of GROUP, less the lanes skipped, and `sums` AHEAD rows for each product.
#[inline(always)]
unsafe fn hear<L: Lanes, const K: usize>(
    lanes: L,
    i: usize,
    taps: *const L::E,
    inputs: *const L::E,
    sums: *mut L::E,
    said: *const L::E,
) -> L::V {
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

/// Adds to what the modes said of a block of samples what the inputs of the block before say of them.
///
/// # Safety
/// The pointers address AHEAD rows of GROUP, less the lanes skipped, `taps` twice as many.
#[inline(always)]
unsafe fn pass_on<L: Lanes>(lanes: L, taps: *const L::E, inputs: *const L::E, said: *mut L::E) {
    let mut sums = [lanes.splat(L::E::ZERO); AHEAD];
    // SAFETY: as the caller's.
    unsafe {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = lanes.load(said.add(i * GROUP));
        }
        for j in 0..AHEAD {
            let input = lanes.load(inputs.add(j * GROUP));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = lanes.fma(lanes.load(taps.add((AHEAD + i - j) * GROUP)), input, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            lanes.store(said.add(i * GROUP), sum);
        }
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

/// The modes of a vector of lanes: their table, which is made for visits every W times AHEAD samples, and their state.
#[derive(Clone, Copy)]
struct Modes<E, const K: usize, const W: usize> {
    count: usize,
    k: *const E,
    x: *mut E,
}

impl<E: Elem, const K: usize, const W: usize> Modes<E, K, W> {
    /// Elements from one mode's table to the next's.
    const STRIDE: usize = rows_of(K, W) * GROUP;

    /// The row from which the pole's power for V times AHEAD samples stands.
    const fn pole_row(v: usize) -> usize {
        if v == W { NEAR } else { rows_of(K, W) - pole(K) }
    }

    /// Answers V times AHEAD inputs, and moves on by them as [`Modes::advance`]. What is tiny is flushed with the `last`
    /// ones: denormals before these cannot be many.
    ///
    /// # Safety
    /// As [`Modes::advance`]; `y` has as many rows as `u`, `taps` at least V times AHEAD for each answer and input.
    #[inline(always)]
    unsafe fn meet<L: Lanes<E = E>, const V: usize>(
        self,
        lanes: L,
        taps: *const E,
        u: *const E,
        y: *mut E,
        sums: *mut E,
        last: bool,
    ) {
        // SAFETY: as the caller's.
        unsafe {
            self.look::<L, V>(lanes, y, sums, 0);
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
                self.advance::<L, V, true>(lanes, u, sums);
            } else {
                self.advance::<L, V, false>(lanes, u, sums);
            }
        }
    }

    /// Moves them on by V times AHEAD inputs, V being 1 or W; `FLUSH` sets to zero what is tiny.
    ///
    /// # Safety
    /// The pointers address `count` or V times AHEAD rows of GROUP, K times so many for `sums`, less the lanes skipped; V
    /// is 1 where there are products.
    #[inline(always)]
    unsafe fn advance<L: Lanes<E = E>, const V: usize, const FLUSH: bool>(self, lanes: L, u: *const E, sums: *const E) {
        let whole = self.count / together(K) * together(K);
        // SAFETY: as the caller's.
        unsafe {
            for n in (0..whole).step_by(together(K)) {
                if K == 0 {
                    self.advance_some::<L, V, { together(0) }, FLUSH>(lanes, n, u, sums);
                } else {
                    self.advance_some::<L, V, { together(1) }, FLUSH>(lanes, n, u, sums);
                }
            }
            for n in whole..self.count {
                self.advance_some::<L, V, 1, FLUSH>(lanes, n, u, sums);
            }
        }
    }

    /// As [`Modes::advance`], M modes from `n` on.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn advance_some<L: Lanes<E = E>, const V: usize, const M: usize, const FLUSH: bool>(
        self,
        lanes: L,
        n: usize,
        u: *const E,
        sums: *const E,
    ) {
        let gains = fixed(K) + EACH * (1 + K);
        let zero = lanes.splat(E::ZERO);
        // SAFETY: as the caller's.
        unsafe {
            let mut a = [(zero, zero); M];
            let mut square = [(zero, zero); M];
            for m in 0..M {
                let k = self.k.add((n + m) * Self::STRIDE);
                a[m] = (lanes.load(k), lanes.load(k.add(GROUP)));
                square[m] = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
            }
            // Horner's rule in a^2, two inputs at once.
            let mut met = [(zero, zero); M];
            for i in (0..V * AHEAD).step_by(2) {
                let (first, second) = (lanes.load(u.add(i * GROUP)), lanes.load(u.add((i + 1) * GROUP)));
                for m in 0..M {
                    let mut two = (lanes.fma(a[m].0, first, second), lanes.mul(a[m].1, first));
                    for j in 0..K {
                        let sum = sums.add((j * AHEAD + i) * GROUP);
                        let (first, second) = (lanes.load(sum), lanes.load(sum.add(GROUP)));
                        let gain = self.k.add((n + m) * Self::STRIDE + (gains + EACH * j) * GROUP);
                        two.0 = lanes.fma(lanes.load(gain), second, two.0);
                        two.1 = lanes.fma(lanes.load(gain.add(GROUP)), second, two.1);
                        two.0 = lanes.fma(lanes.load(gain.add(2 * GROUP)), first, two.0);
                        two.1 = lanes.fma(lanes.load(gain.add(3 * GROUP)), first, two.1);
                    }
                    met[m] = if i == 0 { two } else { times(lanes, square[m], met[m], two) };
                }
            }
            for (m, (re, im)) in met.into_iter().enumerate() {
                let place = HeldAt::of(self.x, self.count, n + m);
                let k = self.k.add((n + m) * Self::STRIDE + Self::pole_row(V) * GROUP);
                let held = Held::load(lanes, place);
                let pole = (lanes.load(k), lanes.load(k.add(GROUP)));
                let next = if K == 0 {
                    let low = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
                    held.advance(lanes, [pole.0, pole.1, low.0, low.1], (re, Some(im)))
                } else {
                    held.moved(lanes, pole, (re, im))
                };
                if FLUSH { next.flushed(lanes) } else { next }.store(lanes, place);
            }
        }
    }

    /// Writes what all of them say of the next V times AHEAD samples, and of the inner products of the states that these
    /// meet, and fetches the modes that stand `next` elements on.
    ///
    /// # Safety
    /// As [`Modes::advance`], for `y` and `sums`.
    #[inline(always)]
    unsafe fn look<L: Lanes<E = E>, const V: usize>(self, lanes: L, y: *mut E, sums: *mut E, next: usize) {
        let to = |i: usize| if i == 0 { y } else { sums.wrapping_add((i - 1) * BLOCK) };
        let mut done = 0;
        // SAFETY: as the caller's.
        unsafe {
            // Two blocks share a visit, or two answers the powers of a, where registers hold their sums.
            if L::REGISTERS >= 32 {
                if V == 2 {
                    return self.look_at::<L, 1, 2>(lanes, 0, false, [y], next);
                }
                while done < K {
                    let next = if done == 0 { next } else { 0 };
                    self.look_at::<L, 2, 1>(lanes, done, false, [to(done), to(done + 1)], next);
                    done += 2;
                }
            }
            while done <= K {
                let next = if done == 0 { next } else { 0 };
                self.look_at::<L, 1, 1>(lanes, done, false, [to(done)], next);
                done += 1;
            }
            if V == 2 {
                self.look_at::<L, 1, 1>(lanes, 0, true, [y.add(BLOCK)], 0);
            }
        }
    }

    /// As [`Modes::look`], for P answers from the `first` on and V blocks, the first of them or the `second`; two samples
    /// at once.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn look_at<L: Lanes<E = E>, const P: usize, const V: usize>(
        self,
        lanes: L,
        first: usize,
        second: bool,
        to: [*mut E; P],
        next: usize,
    ) {
        let zero = lanes.splat(E::ZERO);
        // SAFETY: as the caller's.
        unsafe {
            let mut answers = [[[zero; AHEAD]; V]; P];
            for n in 0..self.count {
                if next > 0 {
                    HeldAt::of(self.x, self.count, n).fetch(next);
                }
                let (k, x) = (self.k.add(n * Self::STRIDE), self.x.add(n * 2 * GROUP));
                let square = (lanes.load(k.add(2 * GROUP)), lanes.load(k.add(3 * GROUP)));
                let mut now = (lanes.load(x), lanes.load(x.add(GROUP)));
                if second {
                    let k = k.add(Self::pole_row(1) * GROUP);
                    now = times(lanes, (lanes.load(k), lanes.load(k.add(GROUP))), now, now);
                }
                for v in 0..V {
                    for i in (0..AHEAD).step_by(2) {
                        for p in 0..P {
                            let reader = k.add((fixed(K) + EACH * (first + p)) * GROUP);
                            for j in 0..2 {
                                let (re, im) = (reader.add(2 * j * GROUP), reader.add((2 * j + 1) * GROUP));
                                let sum = lanes.nfma(lanes.load(im), now.1, answers[p][v][i + j]);
                                answers[p][v][i + j] = lanes.fma(lanes.load(re), now.0, sum);
                            }
                        }
                        if i + 2 < AHEAD || v + 1 < V {
                            now = times(lanes, square, now, (zero, zero));
                        }
                    }
                }
            }
            for (to, answers) in to.into_iter().zip(answers) {
                for (v, answers) in answers.into_iter().enumerate() {
                    for (i, answer) in answers.into_iter().enumerate() {
                        lanes.store(to.add((v * AHEAD + i) * GROUP), answer);
                    }
                }
            }
        }
    }
}

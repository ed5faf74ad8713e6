//! Chunk matrices of systems whose state moves by complex poles. Lanes are channels: every entry is a row of
//! [`GROUP`] channels.

use super::{ChunkMatrices, In, Out, Shape};
use crate::kernels::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, columns};

/// The four matrices of one group of channels.
#[derive(Clone, Debug)]
pub struct Poles<E> {
    t: usize,
    n: usize,
    /// (T,)
    kernel: Aligned<E>,
    /// (T, N)
    g: Aligned<E>,
    /// (N, T)
    w: Aligned<E>,
    /// (re, im) a mode
    poles: Aligned<E>,
}

/// Output rows of a register tile.
const ROWS: usize = 2;

impl<E: Elem> Poles<E> {
    /// In engine precision, for the poles (re, im), 2 rows a mode.
    pub fn new(m: &ChunkMatrices, poles: &[f64]) -> Self {
        let of = |v: &[f64]| v.iter().map(|&x| E::of(x)).collect::<Aligned<E>>();
        let (t, n) = (m.samples(), m.states());
        assert!(t.is_multiple_of(ROWS) && n.is_multiple_of(ROWS) && m.w.len() == m.g.len());
        Self { t, n, kernel: of(&m.kernel), g: of(&m.g), w: of(&m.w), poles: of(poles) }
    }

    /// Elements of scratch: the samples of a tile, and the states before each chunk and after the last.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        (shape.rows() + (shape.tile + 1) * n) * GROUP
    }

    /// As [`Chunk`](super::Chunk) says.
    ///
    /// # Safety
    /// All rows are valid.
    pub unsafe fn run(
        &self,
        isa: Isa,
        chunks: usize,
        u: Option<In<E>>,
        y: Option<Out<E>>,
        state: &mut [E],
        scratch: &mut [E],
    ) {
        let rows = chunks * self.t;
        let (packed, x) = scratch.split_at_mut(rows * GROUP);
        assert!(state.len() == self.n * GROUP && x.len() >= (chunks + 1) * self.n * GROUP);
        let u = u.map(|(u, step)| {
            if step == GROUP as isize {
                return u;
            }
            // Rows that stand apart by a power of two would share few sets of the cache.
            // SAFETY: as the caller's.
            unsafe { columns::pack(isa, rows, u, step, packed) };
            packed.as_ptr()
        });
        isa.run(Run { chunk: self, chunks, u, y, state, x });
    }

    /// The answers to an impulse over one chunk, and the state after it.
    pub fn impulse(&self, y: &mut [E], state: &mut [E]) {
        y[..self.t * GROUP].copy_from_slice(&self.kernel);
        for (state, w) in state.chunks_exact_mut(GROUP).zip(self.w.chunks_exact(self.t * GROUP)) {
            state.copy_from_slice(&w[..GROUP]);
        }
    }
}

struct Run<'a, E> {
    chunk: &'a Poles<E>,
    chunks: usize,
    u: Option<*const E>,
    y: Option<Out<E>>,
    state: &'a mut [E],
    x: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(mut self, lanes: L) {
        for lane in (0..GROUP).step_by(L::LANES) {
            // SAFETY: `Poles::run` checked the lengths; every pointer stays within its rows of GROUP.
            unsafe {
                if L::REGISTERS >= 32 {
                    tile::<L, 8>(lanes, &mut self, lane);
                } else {
                    tile::<L, 4>(lanes, &mut self, lane);
                }
            }
        }
        let end = self.chunks * self.chunk.n * GROUP;
        self.state.copy_from_slice(&self.x[end..end + self.chunk.n * GROUP]);
    }
}

/// # Safety
/// The lengths that `Poles::run` checks; `lane + LANES <= GROUP`.
#[inline(always)]
unsafe fn tile<L: Lanes, const WIDE: usize>(lanes: L, s: &mut Run<'_, L::E>, lane: usize) {
    let Poles { t, n, .. } = *s.chunk;
    // SAFETY: as the caller's.
    unsafe {
        let silent = s.u.is_none();
        let u = s.u.map_or(std::ptr::null(), |u| u.add(lane));
        let x = s.x.as_mut_ptr().add(lane);
        let kernel = s.chunk.kernel.as_ptr().add(lane);
        let g = s.chunk.g.as_ptr().add(lane);
        let w = s.chunk.w.as_ptr().add(lane);

        if silent {
            let after = x.add(n * GROUP);
            for i in 0..s.chunks * n {
                lanes.store(after.add(i * GROUP), lanes.splat(L::E::ZERO));
            }
        }
        // W U of chunk c, where the state after it will stand.
        over_chunks::<WIDE>(if silent { 0 } else { s.chunks }, |c, wide| {
            for i in (0..n).step_by(ROWS) {
                let w = w.add(i * t * GROUP);
                let (u, x) = (u.add(c * t * GROUP), x.add(((c + 1) * n + i) * GROUP));
                each_width::<WIDE>(wide, Product { lanes, t, u_step: t, w, u, out: x, out_step: n });
            }
        });
        for i in 0..n {
            let from = s.state.as_ptr().add(i * GROUP + lane);
            lanes.store(x.add(i * GROUP), lanes.load(from));
        }
        for c in 0..s.chunks {
            let (from, to) = (x.add(c * n * GROUP), x.add((c + 1) * n * GROUP));
            poles(lanes, n, s.chunk.poles.as_ptr().add(lane), from, to);
        }
        let Some((y, y_step)) = s.y else { return };
        let y = y.add(lane);
        over_chunks::<WIDE>(s.chunks, |c, wide| {
            for i in (0..t).step_by(ROWS) {
                let answer = Answer {
                    lanes,
                    i,
                    silent,
                    n,
                    kernel,
                    g: g.add(i * n * GROUP),
                    u: u.add(c * t * GROUP),
                    u_step: t,
                    x: x.add(c * n * GROUP),
                    y: y.offset((c * t + i) as isize * y_step),
                    y_step,
                };
                each_width::<WIDE>(wide, answer);
            }
        });
    }
}

/// Calls `f(first chunk, how many)` until all chunks are served, WIDE at a time and then in powers of two.
#[inline(always)]
fn over_chunks<const WIDE: usize>(chunks: usize, mut f: impl FnMut(usize, usize)) {
    let mut c = 0;
    let mut wide = WIDE;
    while c < chunks {
        while wide > chunks - c {
            wide /= 2;
        }
        f(c, wide);
        c += wide;
    }
}

/// A product whose register tile is compiled for a number of chunks.
trait Tiled {
    /// # Safety
    /// C chunks stand behind the pointers.
    unsafe fn tile<const C: usize>(self);
}

/// # Safety
/// `wide` chunks stand behind the pointers.
#[inline(always)]
unsafe fn each_width<const WIDE: usize>(wide: usize, product: impl Tiled) {
    // SAFETY: as the caller's.
    unsafe {
        match wide {
            8 if WIDE >= 8 => product.tile::<8>(),
            4 => product.tile::<4>(),
            2 => product.tile::<2>(),
            _ => product.tile::<1>(),
        }
    }
}

/// out[i, c] = sum_j w[i, j] u[c, j] for ROWS rows i.
struct Product<L: Lanes> {
    lanes: L,
    t: usize,
    w: *const L::E,
    u: *const L::E,
    u_step: usize,
    out: *mut L::E,
    out_step: usize,
}

impl<L: Lanes> Tiled for Product<L> {
    #[inline(always)]
    unsafe fn tile<const C: usize>(self) {
        let lanes = self.lanes;
        let mut sums = [[lanes.splat(L::E::ZERO); C]; ROWS];
        // SAFETY: as the caller's.
        unsafe {
            for j in 0..self.t {
                let (k0, k1) = (lanes.load(self.w.add(j * GROUP)), lanes.load(self.w.add((self.t + j) * GROUP)));
                for c in 0..C {
                    let u = lanes.load(self.u.add((c * self.u_step + j) * GROUP));
                    sums[0][c] = lanes.fma(k0, u, sums[0][c]);
                    sums[1][c] = lanes.fma(k1, u, sums[1][c]);
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (c, &sum) in row.iter().enumerate() {
                    lanes.store(self.out.add((c * self.out_step + i) * GROUP), sum);
                }
            }
        }
    }
}

/// y[i, c] = sum_j kernel[i - j] u[c, j] + sum_m g[i, m] x[c, m] for ROWS rows from i on.
struct Answer<L: Lanes> {
    lanes: L,
    i: usize,
    silent: bool,
    n: usize,
    kernel: *const L::E,
    g: *const L::E,
    u: *const L::E,
    u_step: usize,
    x: *const L::E,
    y: *mut L::E,
    y_step: isize,
}

impl<L: Lanes> Tiled for Answer<L> {
    #[inline(always)]
    unsafe fn tile<const C: usize>(self) {
        let lanes = self.lanes;
        let mut sums = [[lanes.splat(L::E::ZERO); C]; ROWS];
        // SAFETY: as the caller's.
        unsafe {
            let input = |c: usize, j: usize| lanes.load(self.u.add((c * self.u_step + j) * GROUP));
            if !self.silent {
                for j in 0..=self.i {
                    let lag = self.kernel.add((self.i - j) * GROUP);
                    let (k0, k1) = (lanes.load(lag), lanes.load(lag.add(GROUP)));
                    for c in 0..C {
                        let u = input(c, j);
                        sums[0][c] = lanes.fma(k0, u, sums[0][c]);
                        sums[1][c] = lanes.fma(k1, u, sums[1][c]);
                    }
                }
                // The last input is heard by the second row only: no zero is multiplied with what may be NaN.
                let k0 = lanes.load(self.kernel);
                for c in 0..C {
                    sums[1][c] = lanes.fma(k0, input(c, self.i + 1), sums[1][c]);
                }
            }
            for m in 0..self.n {
                let (g0, g1) = (lanes.load(self.g.add(m * GROUP)), lanes.load(self.g.add((self.n + m) * GROUP)));
                for c in 0..C {
                    let x = lanes.load(self.x.add((c * self.n + m) * GROUP));
                    sums[0][c] = lanes.fma(g0, x, sums[0][c]);
                    sums[1][c] = lanes.fma(g1, x, sums[1][c]);
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (c, &sum) in row.iter().enumerate() {
                    lanes.store(self.y.offset((c * self.u_step + i) as isize * self.y_step), sum);
                }
            }
        }
    }
}

/// to += a from, complex mode by mode.
///
/// # Safety
/// The pointers address N rows of GROUP.
#[inline(always)]
unsafe fn poles<L: Lanes>(lanes: L, n: usize, a: *const L::E, from: *const L::E, to: *mut L::E) {
    // SAFETY: as the caller's.
    unsafe {
        for i in (0..n).step_by(2) {
            let at = |p: *const L::E, k: usize| lanes.load(p.add((i + k) * GROUP));
            let (ar, ai, xr, xi) = (at(a, 0), at(a, 1), at(from, 0), at(from, 1));
            let re = lanes.fma(ar, xr, lanes.nfma(ai, xi, at(to, 0)));
            let im = lanes.fma(ar, xi, lanes.fma(ai, xr, at(to, 1)));
            lanes.store(to.add(i * GROUP), lanes.flush(re));
            lanes.store(to.add((i + 1) * GROUP), lanes.flush(im));
        }
    }
}

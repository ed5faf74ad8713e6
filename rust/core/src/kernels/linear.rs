//! y = epilogue(W x + b) for every row, the matrix packed once.

mod form;
mod shares;

use super::layout::holds;
use super::pointwise::{self, Function};
use super::{Aligned, Elem, GROUP, Isa, Kernel, Lanes, padded};
use crate::error::Result;
use std::mem::MaybeUninit;
use std::ops::Range;

pub use form::{Form, Rounding};
pub use shares::Shares;

/// What is done to W x + b before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A function of each output.
    Apply(Function),
    /// The first half of the outputs times a function of the second half.
    Glu(Function),
}

impl Epilogue {
    /// Rows of weights for each output.
    pub const fn rows(self) -> usize {
        if matches!(self, Epilogue::Glu(_)) { 2 } else { 1 }
    }
}

/// A linear map with what follows it.
///
/// Each output is the bias and a chain of fused multiply-adds over the first [`SUMMED`] inputs in their order, and then the
/// sums over as many further ones each, one after the other; however many rows there are: a row's result depends on
/// nothing but that row.
#[derive(Debug)]
pub struct Linear<E> {
    d_in: usize,
    d_out: usize,
    epilogue: Epilogue,
    block_rows: usize,
    form: Form,
    rounding: Rounding,
    /// Panels of [`PANEL`] groups of outputs: a row of biases, one of scales where the form has such, then rows of weights,
    /// one for each input or for several. With a GLU half of a panel's groups are values, the other half their gates.
    packed: Aligned<E>,
}

/// Inputs that are added up in one chain. Longer ones lose digits: the rounding errors of K numbers add up to about
/// sqrt(K) of one. Their weights in a panel, and so many inputs of a tile's rows, fit into the L1 cache.
const SUMMED: usize = 128;

/// Groups of outputs whose weights are interleaved: a single row, and a tile of the most rows, read one stream of
/// memory.
const PANEL: usize = 4;

/// Inputs whose weights are packed at once: a few cache lines of each row of a panel, into entries that stay in L1.
const PACKED_INPUTS: usize = 32;

impl<E: Elem> Linear<E> {
    /// From `weight(row, column)`, (rows, d_in), and `bias`, (rows,). The rows are the `d_out` outputs; under a GLU
    /// these are followed by as many gates. Each weight is read once.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    ///
    /// # Panics
    /// Where there are no inputs, or not as many biases as rows.
    pub fn new(
        d_in: usize,
        d_out: usize,
        weight: impl Fn(usize, usize) -> f64,
        bias: Option<&[f64]>,
        epilogue: Epilogue,
    ) -> Result<Self> {
        let halves = epilogue.rows();
        assert!(d_in > 0, "expected inputs");
        assert!(bias.is_none_or(|b| b.len() == halves * d_out), "expected {} biases", halves * d_out);
        let panels = (padded(d_out) / GROUP * halves).div_ceil(PANEL);
        let mut aligned = Aligned::try_zeros("weights", panels * PANEL * GROUP, d_in + 1)?;
        let packed: &mut [E] = &mut aligned;
        let entry = |half, column| start(d_in + 1, halves, half, column / GROUP) + column % GROUP;
        for (row, &bias) in bias.iter().copied().flatten().enumerate() {
            packed[entry(row / d_out, row % d_out)] = E::of(bias);
        }
        // Outputs of a panel, of each half.
        let own = PANEL / halves * GROUP;
        for first in (0..d_out).step_by(own) {
            let columns = first..d_out.min(first + own);
            for from in (0..d_in).step_by(PACKED_INPUTS) {
                for (half, column) in (0..halves).flat_map(|half| columns.clone().map(move |column| (half, column))) {
                    let to =
                        packed[entry(half, column) + (from + 1) * PANEL * GROUP..].iter_mut().step_by(PANEL * GROUP);
                    for (to, k) in to.zip(from..d_in.min(from + PACKED_INPUTS)) {
                        *to = E::of(weight(half * d_out + column, k));
                    }
                }
            }
        }
        let block_rows = (BLOCK_BYTES / size_of::<E>() / d_in / TILE_ROWS).max(1) * TILE_ROWS;
        let (form, rounding) = (Form::Whole, Rounding::default());
        Ok(Self { d_in, d_out, epilogue, block_rows, form, rounding, packed: aligned })
    }

    /// The same in a form that is not as wide.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    ///
    /// # Panics
    /// Where it is in such a form already.
    pub fn rounded(self, form: Form) -> Result<Self> {
        assert!(self.form == Form::Whole, "expected whole weights");
        if form == Form::Whole {
            return Ok(self);
        }
        let row = PANEL * GROUP;
        let rows = form.rows(self.d_in);
        let mut packed = Aligned::try_zeros("weights", self.panels() * row, rows)?;
        let mut rounding = Rounding::default();
        let panels = self.packed.chunks_exact((self.d_in + 1) * row);
        for (to, from) in packed.chunks_exact_mut(rows * row).zip(panels) {
            let (biases, from) = from.split_at(row);
            to[..row].copy_from_slice(biases);
            rounding += form.pack(from, &mut to[row..]);
        }
        Ok(Self { form, rounding, packed, ..self })
    }

    /// How far its weights are from those that were given.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// Writes a row of weights, d_in numbers, as they are used.
    ///
    /// # Panics
    /// Where there is no such row, or `out` has another length.
    pub fn unpack(&self, row: usize, out: &mut [E]) {
        assert_eq!(out.len(), self.d_in, "expected a row of weights");
        self.form.unpack(&self.packed[self.entry(row) + PANEL * GROUP..], out);
    }

    /// The bias of a row; zero where none was given.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn bias(&self, row: usize) -> E {
        self.packed[self.entry(row)]
    }

    /// Rows of weights: one for each output, and under a GLU for each gate.
    pub fn weight_rows(&self) -> usize {
        self.d_out * self.epilogue.rows()
    }

    /// Where a row's bias stands; what else there is of it follows PANEL * GROUP elements apart.
    fn entry(&self, row: usize) -> usize {
        assert!(row < self.weight_rows(), "expected a row below {}, found {row}", self.weight_rows());
        let (half, column) = (row / self.d_out, row % self.d_out);
        start(self.form.rows(self.d_in), self.epilogue.rows(), half, column / GROUP) + column % GROUP
    }

    /// Channels of a row of input.
    pub fn d_in(&self) -> usize {
        self.d_in
    }

    /// Channels of a row of output.
    pub fn d_out(&self) -> usize {
        self.d_out
    }

    /// `rows` rows of x (stride `padded(d_in)`) into rows of y (stride `padded(d_out)`).
    pub fn run(&self, isa: Isa, rows: usize, x: &[E], y: &mut [E]) {
        assert!(holds(x.len(), rows, padded(self.d_in)) && holds(y.len(), rows, padded(self.d_out)));
        isa.run(Run { linear: self, rows, x: x.as_ptr(), y: y.as_mut_ptr() });
    }
}

/// Where the entries of a group of outputs, of the values or of the gates, begin in panels of so many rows.
#[inline(always)]
const fn start(rows: usize, halves: usize, half: usize, group: usize) -> usize {
    let own = PANEL / halves;
    (group / own * rows * PANEL + half * own + group % own) * GROUP
}

/// The most rows a tile has. With a sixth, which the registers have room for, compilers keep some of the sums in memory, and
/// each sum's chain waits for it.
const TILE_ROWS: usize = 5;
/// The most vectors a tile is wide.
const TILE_WIDTH: usize = 8;
/// Tiles that weights in the L1 cache serve, one set of inputs after the other. Gates of a GLU do not wait for so long.
const SERVED: usize = 8;
/// Bytes of inputs that stay in the L2 cache while the matrix is read once.
const BLOCK_BYTES: usize = 640 << 10;

/// How many vectors wide a tile of `rows` rows is, so that its sums and one input's operands fit into the registers. A
/// single row needs no register for weights: each is used once, straight from memory.
const fn width(rows: usize, registers: usize) -> usize {
    let mut width = TILE_WIDTH;
    while rows > 1 && (rows + 1) * width + 1 > registers {
        width /= 2;
    }
    width
}

struct Run<'a, E> {
    linear: &'a Linear<E>,
    rows: usize,
    x: *const E,
    y: *mut E,
}

impl<E: Elem> Kernel<E> for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { linear, rows, x, y } = self;
        let mut row = 0;
        while row < rows {
            let n = linear.block_rows.min(rows - row);
            let columns = 0..padded(linear.d_out) / L::LANES;
            // SAFETY: `Linear::run` checked that x and y have `rows` rows.
            unsafe {
                linear.block(lanes, n, columns, x.add(row * padded(linear.d_in)), y.add(row * padded(linear.d_out)));
            }
            row += n;
        }
    }
}

/// Where a tile reads and writes: two halves of equal width, which are neighbours, or the values and gates of a GLU.
struct Tile<'a, E> {
    linear: &'a Linear<E>,
    x: *const E,
    x_stride: usize,
    /// The inputs that are summed up: a block of [`SUMMED`].
    inputs: Range<usize>,
    /// Whether the sums of the inputs before these stand where the tile writes.
    adds: bool,
    /// The first vector of outputs.
    column: usize,
    /// Where each half goes, and the distance between rows there.
    out: [(*mut E, usize); 2],
}

/// Gates of one tile.
#[repr(align(64))]
struct Gates<E>(MaybeUninit<[E; TILE_ROWS * TILE_WIDTH / 2 * GROUP]>);

/// How rows are cut into tiles, all but equally high: how many, of how many rows, and how many of these have one more.
const fn tiles(rows: usize) -> (usize, usize, usize) {
    let tiles = rows.div_ceil(TILE_ROWS);
    if tiles > 1 { (tiles, rows / tiles, rows % tiles) } else { (tiles, rows, 0) }
}

impl<E: Elem> Linear<E> {
    /// Some of the outputs, in vectors. Columns outermost, then a few tiles of rows: the weights of so many inputs stay in the
    /// L1 cache for all of these.
    ///
    /// # Safety
    /// `x` addresses `rows` rows of padded(d_in) elements to read, and `y` as many of padded(d_out), of which these
    /// columns are to be written; and these are whole groups.
    #[inline(always)]
    unsafe fn block<L: Lanes<E = E>>(&self, lanes: L, rows: usize, columns: Range<usize>, x: *const E, y: *mut E) {
        if rows == 1 {
            // SAFETY: as the caller says.
            return unsafe { self.row(lanes, columns, x, y) };
        }
        let (x_stride, y_stride) = (padded(self.d_in), padded(self.d_out));
        let halves = self.epilogue.rows();
        let (tiles, low, higher) = tiles(rows);
        let height = |tile: usize| if tile < higher { low + 1 } else { low };
        let widest = width(height(0), L::REGISTERS) / halves;
        let served = if halves == 2 { 1 } else { SERVED };
        let mut gates = Gates::<E>(MaybeUninit::uninit());
        let gates: *mut E = gates.0.as_mut_ptr().cast();
        let mut column = columns.start;
        while column < columns.end {
            // Outputs that this step writes, in vectors.
            let mut wide = widest;
            while wide > columns.end - column {
                wide /= 2;
            }
            let (mut row, mut tile) = (0, 0);
            while tile < tiles {
                let end = tiles.min(tile + served);
                // SAFETY: row < rows, so that x and out are the caller's; the columns are those of whole groups, all of
                // them packed; a tile has at most TILE_ROWS rows of TILE_WIDTH / 2 vectors of gates.
                unsafe {
                    let (x, out) = (x.add(row * x_stride), y.add(row * y_stride + column * L::LANES));
                    let (mut n, mut first) = (0, 0);
                    while first < self.d_in {
                        n = 0;
                        for tile in tile..end {
                            let (x, out) = (x.add(n * x_stride), out.add(n * y_stride));
                            let at = Tile::of(self, x, (out, gates), first, column, wide * L::LANES);
                            at.any(lanes, height(tile), halves * wide);
                            n += height(tile);
                        }
                        first += SUMMED;
                    }
                    self.follow(lanes, n, wide * L::LANES, out, gates);
                    row += n;
                }
                tile = end;
            }
            column += wide;
        }
    }

    /// As [`Linear::block`], of a single row.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn row<L: Lanes<E = E>>(&self, lanes: L, columns: Range<usize>, x: *const E, y: *mut E) {
        let halves = self.epilogue.rows();
        let mut gates = Gates::<E>(MaybeUninit::uninit());
        let gates: *mut E = gates.0.as_mut_ptr().cast();
        let mut column = columns.start;
        while column < columns.end {
            let mut wide = width(1, L::REGISTERS) / halves;
            while wide > columns.end - column {
                wide /= 2;
            }
            // SAFETY: as in `Linear::block`.
            unsafe {
                let out = y.add(column * L::LANES);
                let mut first = 0;
                while first < self.d_in {
                    let at = Tile::of(self, x, (out, gates), first, column, wide * L::LANES);
                    at.rows::<L, 1>(lanes, halves * wide);
                    first += SUMMED;
                }
                self.follow(lanes, 1, wide * L::LANES, out, gates);
            }
            column += wide;
        }
    }

    /// What follows the sums of `n` rows of `width` outputs, whose gates lie one row after the other.
    ///
    /// # Safety
    /// `out` addresses these rows, and `gates` theirs.
    #[inline(always)]
    unsafe fn follow<L: Lanes<E = E>>(&self, lanes: L, n: usize, width: usize, out: *mut E, gates: *mut E) {
        let stride = padded(self.d_out);
        // SAFETY: the caller's memory.
        unsafe {
            match self.epilogue {
                Epilogue::None => {}
                Epilogue::Apply(function) => pointwise::apply_rows(lanes, function, n, width, out, stride),
                Epilogue::Glu(gate) => {
                    pointwise::apply_rows(lanes, gate, 1, n * width, gates, 0);
                    for r in 0..n {
                        for i in (0..width).step_by(L::LANES) {
                            let p = out.add(r * stride + i);
                            let gate = lanes.load(gates.add(r * width + i));
                            lanes.store(p, lanes.mul(lanes.load(p), gate));
                        }
                    }
                }
            }
        }
    }
}

impl<'a, E: Elem> Tile<'a, E> {
    /// The inputs of a block from `first` on, with `width` outputs at `out` and, of a GLU, as many at `gates`.
    #[inline(always)]
    fn of(
        linear: &'a Linear<E>,
        x: *const E,
        (out, gates): (*mut E, *mut E),
        first: usize,
        column: usize,
        width: usize,
    ) -> Self {
        let y_stride = padded(linear.d_out);
        let second = if matches!(linear.epilogue, Epilogue::Glu(_)) {
            (gates, width)
        } else {
            (out.wrapping_add(width / 2), y_stride)
        };
        Tile {
            linear,
            x,
            x_stride: padded(linear.d_in),
            inputs: first..linear.d_in.min(first + SUMMED),
            adds: first > 0,
            column,
            out: [(out, y_stride), second],
        }
    }
}

impl<E: Elem> Tile<'_, E> {
    /// `rows` rows of `vectors` vectors.
    ///
    /// # Safety
    /// As for [`Tile::run`] with as many.
    #[inline(always)]
    unsafe fn any<L: Lanes<E = E>>(self, lanes: L, rows: usize, vectors: usize) {
        // SAFETY: R is `rows`, which the callers keep between 1 and TILE_ROWS.
        unsafe {
            match rows {
                1 => self.rows::<L, 1>(lanes, vectors),
                2 => self.rows::<L, 2>(lanes, vectors),
                3 => self.rows::<L, 3>(lanes, vectors),
                4 => self.rows::<L, 4>(lanes, vectors),
                _ => self.rows::<L, TILE_ROWS>(lanes, vectors),
            }
        }
    }

    /// `R` rows of `vectors` vectors.
    ///
    /// # Safety
    /// As for [`Tile::run`] with as many vectors.
    #[inline(always)]
    unsafe fn rows<L: Lanes<E = E>, const R: usize>(self, lanes: L, vectors: usize) {
        // SAFETY: W is `vectors`, which is a power of two no higher than `width` says.
        unsafe {
            match vectors {
                8 => self.run::<L, R, 8>(lanes),
                4 => self.run::<L, R, 4>(lanes),
                2 => self.run::<L, R, 2>(lanes),
                _ => self.run::<L, R, 1>(lanes),
            }
        }
    }

    /// `R` rows of `W` vectors.
    ///
    /// # Safety
    /// x addresses R rows of d_in inputs, `out` R rows of both halves' vectors to write, and the matrix has W vectors
    /// of outputs from `column` on.
    #[inline(always)]
    unsafe fn run<L: Lanes<E = E>, const R: usize, const W: usize>(self, lanes: L) {
        if W > width(R, L::REGISTERS) {
            unreachable!("`width` makes no such tile");
        }
        let half = W.div_ceil(2);
        let per_group = GROUP / L::LANES;
        let Linear { ref packed, epilogue, form, d_in, .. } = *self.linear;
        let Range { start: from, end: to } = self.inputs;
        let glu = matches!(epilogue, Epilogue::Glu(_));
        // SAFETY: r < R and k < d_in address the caller's inputs; each of the W vectors has d_in + 1 entries in its
        // panel.
        unsafe {
            let mut w = [packed.as_ptr(); W];
            let rows = form.rows(d_in);
            for (j, w) in w.iter_mut().enumerate() {
                let (part, column) = if glu { (j / half, self.column + j % half) } else { (0, self.column + j) };
                let at = start(rows, if glu { 2 } else { 1 }, part, column / per_group);
                *w = w.add(at + column % per_group * L::LANES);
            }
            let mut sums = [[lanes.splat(E::ZERO); W]; R];
            // What is scaled gets its biases at the end.
            let scaled = form == Form::Quartered;
            if from == 0 && !scaled {
                for row in &mut sums {
                    for (sum, &w) in row.iter_mut().zip(&w) {
                        *sum = lanes.load(w);
                    }
                }
            }
            let mut weights = [lanes.splat(E::ZERO); W];
            match form {
                Form::Whole => {
                    for k in from..to {
                        for (weight, &w) in weights.iter_mut().zip(&w) {
                            *weight = lanes.load(w.add((k + 1) * PANEL * GROUP));
                        }
                        self.add(lanes, k, &weights, &mut sums);
                    }
                }
                Form::Halved => {
                    for k in (from..to).step_by(2) {
                        let mut halves = weights;
                        for j in 0..W {
                            halves[j] = lanes.load(w[j].add((k / 2 + 1) * PANEL * GROUP));
                            weights[j] = lanes.first(halves[j]);
                        }
                        self.add(lanes, k, &weights, &mut sums);
                        if k + 1 < to {
                            for j in 0..W {
                                weights[j] = lanes.second(halves[j]);
                            }
                            self.add(lanes, k + 1, &weights, &mut sums);
                        }
                    }
                }
                Form::Quartered => {
                    for k in (from..to).step_by(4) {
                        let mut quarters = weights;
                        for j in 0..W {
                            quarters[j] = lanes.load(w[j].add((k / 4 + 2) * PANEL * GROUP));
                        }
                        for i in 0..4 {
                            if k + i < to {
                                for j in 0..W {
                                    weights[j] = lanes.quarter(quarters[j], i);
                                }
                                self.add(lanes, k + i, &weights, &mut sums);
                            }
                        }
                    }
                }
            }
            for (r, row) in sums.iter().enumerate() {
                for (j, &sum) in row.iter().enumerate() {
                    let (out, stride) = self.out[j / half];
                    let out = out.add(r * stride + j % half * L::LANES);
                    lanes.store(out, if self.adds { lanes.add(lanes.load(out), sum) } else { sum });
                }
            }
            // A part of the inputs is scaled where it is put together with the others.
            if scaled && to == d_in && (from == 0 || self.adds) {
                for r in 0..R {
                    for j in 0..W {
                        let (out, stride) = self.out[j / half];
                        let out = out.add(r * stride + j % half * L::LANES);
                        let scale = lanes.load(w[j].add(PANEL * GROUP));
                        lanes.store(out, lanes.fma(lanes.load(out), scale, lanes.load(w[j])));
                    }
                }
            }
        }
    }

    /// Adds input `k` times its weights.
    ///
    /// # Safety
    /// As for [`Tile::run`], and k < d_in.
    #[inline(always)]
    unsafe fn add<L: Lanes<E = E>, const R: usize, const W: usize>(
        &self,
        lanes: L,
        k: usize,
        weights: &[L::V; W],
        sums: &mut [[L::V; W]; R],
    ) {
        for (r, row) in sums.iter_mut().enumerate() {
            // SAFETY: r < R and k < d_in address the caller's inputs.
            let x = lanes.splat(unsafe { *self.x.add(r * self.x_stride + k) });
            for (sum, &weight) in row.iter_mut().zip(weights) {
                *sum = lanes.fma(x, weight, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: [usize; 9] = [1, 3, 15, 16, 17, 24, 64, 100, 530];
    pub const EPILOGUES: [Epilogue; 3] =
        [Epilogue::None, Epilogue::Apply(Function::Gelu), Epilogue::Glu(Function::Sigmoid)];

    pub struct Case<E> {
        pub linear: Linear<E>,
        weight: Vec<f64>,
        bias: Vec<f64>,
    }

    pub fn case<E: Elem>(d_in: usize, d_out: usize, epilogue: Epilogue) -> Case<E> {
        let outputs = if matches!(epilogue, Epilogue::Glu(_)) { 2 * d_out } else { d_out };
        let number = |i: usize| E::of((i as f64 * 12.9898).sin()).f64();
        let weight: Vec<f64> = (0..outputs * d_in).map(number).collect();
        let bias: Vec<f64> = (0..outputs).map(|i| number(i + 7)).collect();
        let linear = Linear::new(d_in, d_out, |row, k| weight[row * d_in + k], Some(&bias), epilogue).unwrap();
        Case { linear, weight, bias }
    }

    /// Rows of `d` numbers, with NaN behind them.
    pub fn inputs<E: Elem>(rows: usize, d: usize) -> Vec<E> {
        let mut x = vec![E::of(f64::NAN); rows * padded(d)];
        for row in 0..rows {
            (0..d).for_each(|i| x[row * padded(d) + i] = E::of((row as f64 * 1.7 + i as f64 * 0.61).cos()));
        }
        x
    }

    fn check<E: Elem>(bound: f64) {
        for isa in Isa::all() {
            for epilogue in EPILOGUES {
                for d_in in SIZES {
                    for d_out in SIZES {
                        let Case { linear, weight, bias } = case::<E>(d_in, d_out, epilogue);
                        let rows = 7;
                        let x = inputs::<E>(rows, d_in);
                        let mut y = vec![E::ZERO; rows * padded(d_out)];
                        linear.run(isa, rows, &x, &mut y);
                        for row in 0..rows {
                            let dot = |o: usize| {
                                let x = &x[row * padded(d_in)..][..d_in];
                                bias[o] + (0..d_in).map(|k| weight[o * d_in + k] * x[k].f64()).sum::<f64>()
                            };
                            for o in 0..d_out {
                                let v = dot(o);
                                let expected = match epilogue {
                                    Epilogue::None => v,
                                    Epilogue::Apply(_) => 0.5 * v * libm::erfc(-v * std::f64::consts::FRAC_1_SQRT_2),
                                    Epilogue::Glu(_) => v / (1.0 + libm::exp(-dot(d_out + o))),
                                };
                                let found = y[row * padded(d_out) + o].f64();
                                assert!(
                                    (found - expected).abs() <= bound * (d_in as f64).sqrt(),
                                    "{} {} {epilogue:?} {d_in} -> {d_out}, row {row}: {found}, expected {expected}",
                                    isa.name(),
                                    E::NAME
                                );
                            }
                            assert!(
                                y[row * padded(d_out) + d_out..][..padded(d_out) - d_out]
                                    .iter()
                                    .all(|y| !y.f64().is_nan())
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn product_is_that_of_float64() {
        check::<f32>(1e-6);
        check::<f64>(1e-14);
    }

    fn check_rows<E: Elem>() {
        for isa in Isa::all() {
            for epilogue in EPILOGUES {
                for (d_in, d_out) in [(1, 64), (17, 10), (64, 128), (100, 72), (257, 24), (530, 16)] {
                    let Case { linear, .. } = case::<E>(d_in, d_out, epilogue);
                    let x = inputs::<E>(40, d_in);
                    let mut one_by_one = vec![E::ZERO; 40 * padded(d_out)];
                    for row in 0..40 {
                        linear.run(isa, 1, &x[row * padded(d_in)..], &mut one_by_one[row * padded(d_out)..]);
                    }
                    for rows in 1..=40 {
                        let mut y = vec![E::ZERO; rows * padded(d_out)];
                        linear.run(isa, rows, &x, &mut y);
                        assert!(
                            y == one_by_one[..y.len()],
                            "{} {epilogue:?} {d_in} -> {d_out}, {rows} rows",
                            isa.name()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_how_many_there_are() {
        check_rows::<f32>();
        check_rows::<f64>();
    }

    /// Halved weights are those of the whole map of the rounded ones, bit for bit, and what is unpacked.
    #[test]
    fn halved_weights_are_rounded_ones() {
        for isa in Isa::all() {
            for epilogue in EPILOGUES {
                for (d_in, d_out) in [(1, 1), (2, 17), (3, 16), (24, 100), (65, 33), (257, 40), (530, 24)] {
                    let Case { linear, weight, bias } = case::<f32>(d_in, d_out, epilogue);
                    let halved = linear.rounded(Form::Halved).unwrap();
                    let mut row = vec![0.0; d_in];
                    let mut rounded = Vec::new();
                    for (i, exact) in weight.chunks_exact(d_in).enumerate() {
                        halved.unpack(i, &mut row);
                        assert_eq!(f64::from(halved.bias(i)), bias[i]);
                        for (&found, &exact) in row.iter().zip(exact) {
                            assert_eq!(found.to_bits() & 0xffff, 0, "bfloat16 has 16 bits");
                            assert!((f64::from(found) - exact).abs() <= exact.abs() / 256.0);
                        }
                        rounded.extend(row.iter().map(|&w| f64::from(w)));
                    }
                    let whole =
                        Linear::<f32>::new(d_in, d_out, |i, k| rounded[i * d_in + k], Some(&bias), epilogue).unwrap();
                    let x = inputs::<f32>(13, d_in);
                    for rows in [1, 2, 7, 13] {
                        let (mut y, mut expected) = (vec![0.0; rows * padded(d_out)], vec![0.0; rows * padded(d_out)]);
                        halved.run(isa, rows, &x, &mut y);
                        whole.run(isa, rows, &x, &mut expected);
                        assert!(y == expected, "{} {epilogue:?} {d_in} -> {d_out}, {rows} rows", isa.name());
                    }
                }
            }
        }
    }

    /// The root of the mean square error by that of the answers.
    fn long_sums<E: Elem>(isa: Isa, d_in: usize) -> f64 {
        // Vigna's splitmix64, in [-1, 1).
        let number = |i: usize| {
            let mut z = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            E::of((z ^ (z >> 31)) as f64 / (1u64 << 63) as f64 - 1.0)
        };
        let (d_out, rows) = (48, 7);
        let weight = |row: usize, k: usize| number(row * d_in + k).f64();
        let linear = Linear::<E>::new(d_in, d_out, weight, None, Epilogue::None).unwrap();
        let x: Vec<E> = (0..rows * padded(d_in)).map(|i| number(i + (1 << 30))).collect();
        let mut y = vec![E::ZERO; rows * d_out];
        linear.run(isa, rows, &x, &mut y);
        let (mut errors, mut squares) = (0.0, 0.0);
        for (x, y) in x.chunks_exact(padded(d_in)).zip(y.chunks_exact(d_out)) {
            for (o, y) in y.iter().enumerate() {
                // Products of two f32 are exact in f64.
                let exact: f64 = (0..d_in).map(|k| weight(o, k) * x[k].f64()).sum();
                errors += (y.f64() - exact).powi(2);
                squares += exact * exact;
            }
        }
        (errors / squares).sqrt()
    }

    #[test]
    fn long_sums_are_as_exact_as_short_ones() {
        for isa in Isa::all() {
            for (d_in, bound) in [(256, 3.5e-7), (1536, 3.5e-7), (3072, 3.6e-7), (8192, 4e-7)] {
                let error = long_sums::<f32>(isa, d_in);
                // Without fused operations each of them rounds twice.
                let bound = if matches!(isa, Isa::Scalar) { 1.5 * bound } else { bound };
                assert!(error < bound, "{} d_in {d_in}: {error:.2e}", isa.name());
            }
        }
    }

    #[test]
    fn blocks_of_rows_are_joined() {
        let Case { linear, .. } = case::<f32>(2000, 24, Epilogue::None);
        let x = inputs::<f32>(45, 2000);
        for isa in Isa::all() {
            let mut y = vec![0.0; 45 * 32];
            linear.run(isa, 45, &x, &mut y);
            let mut last = vec![0.0; 32];
            linear.run(isa, 1, &x[44 * 2000..], &mut last);
            assert_eq!(y[44 * 32..], last);
        }
    }

    #[test]
    fn nan_stays_in_its_row() {
        let Case { linear, .. } = case::<f32>(24, 17, Epilogue::Glu(Function::Silu));
        let mut x = inputs::<f32>(9, 24);
        x[4 * 32 + 5] = f32::NAN;
        for isa in Isa::all() {
            let mut y = vec![0.0; 9 * 32];
            linear.run(isa, 9, &x, &mut y);
            for (row, y) in y.chunks_exact(32).enumerate() {
                assert!(y[..17].iter().all(|y| y.is_nan() == (row == 4)));
            }
        }
    }

    fn check_unpacking<E: Elem>(d_in: usize, d_out: usize, epilogue: Epilogue) {
        let Case { linear, weight, bias } = case::<E>(d_in, d_out, epilogue);
        assert_eq!(linear.weight_rows() * d_in, weight.len());
        let mut row = vec![E::ZERO; d_in];
        for (i, (weight, bias)) in weight.chunks_exact(d_in).zip(bias).enumerate() {
            linear.unpack(i, &mut row);
            assert!(row.iter().map(|w| w.f64()).eq(weight.iter().copied()), "{epilogue:?} {d_in} -> {d_out}, row {i}");
            assert_eq!(linear.bias(i).f64(), bias);
        }
    }

    proptest! {
        #[test]
        fn unpacking_gives_back_what_was_packed(d_in in 1..80usize, d_out in 1..150usize, which in 0..3usize) {
            check_unpacking::<f32>(d_in, d_out, EPILOGUES[which]);
            check_unpacking::<f64>(d_in, d_out, EPILOGUES[which]);
        }
    }

    /// Nanoseconds of one call, the least of many.
    fn time(mut call: impl FnMut()) -> f64 {
        let mut least = f64::INFINITY;
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 100 {
            let start = std::time::Instant::now();
            for _ in 0..10 {
                call();
            }
            least = least.min(start.elapsed().as_nanos() as f64 / 10.0);
        }
        least
    }

    struct Peak(f64);
    impl<E: Elem> Kernel<E> for Peak {
        type Output = (E, usize);
        #[inline(always)]
        fn run<L: Lanes<E = E>>(self, lanes: L) -> (E, usize) {
            let (a, b) = (lanes.splat(E::of(self.0)), lanes.splat(E::of(1.0 - self.0)));
            let mut v = [lanes.splat(E::ONE); 12];
            for _ in 0..1000 {
                for v in &mut v {
                    *v = lanes.fma(*v, a, b);
                }
            }
            let mut total = v[0];
            v[1..].iter().for_each(|v| total = lanes.add(total, *v));
            (lanes.sum(total), 12_000 * L::LANES)
        }
    }

    fn measure<E: Elem>() {
        for isa in Isa::all() {
            let mut count = 0;
            let ns = time(|| count = std::hint::black_box(isa.run::<E, _>(Peak(std::hint::black_box(0.5)))).1);
            let peak = count as f64 / ns;
            eprintln!("{} {}: peak {peak:.1} GFMA/s", isa.name(), E::NAME);
            let shapes = [
                (512, 64, 128, Epilogue::None),
                (512, 64, 128, Epilogue::Apply(Function::Gelu)),
                (512, 64, 64, Epilogue::Glu(Function::Sigmoid)),
                (512, 64, 64, Epilogue::None),
                (512, 64, 10, Epilogue::None),
                (512, 1, 64, Epilogue::None),
                (64, 256, 512, Epilogue::None),
                (8, 64, 128, Epilogue::None),
                (4, 64, 128, Epilogue::None),
                (3, 64, 128, Epilogue::None),
                (2, 64, 128, Epilogue::None),
                (1, 64, 128, Epilogue::None),
                (1, 64, 128, Epilogue::Apply(Function::Gelu)),
                (1, 64, 64, Epilogue::Glu(Function::Sigmoid)),
                (1, 64, 10, Epilogue::None),
                (1, 256, 512, Epilogue::None),
            ];
            for (rows, d_in, d_out, epilogue) in shapes {
                if rows * d_in * d_out > 1 << 26 && matches!(isa, Isa::Scalar) {
                    continue;
                }
                let Case { linear, weight, bias } = case::<E>(d_in, d_out, epilogue);
                let x: Vec<E> =
                    inputs::<E>(rows, d_in).iter().map(|x| if x.f64().is_nan() { E::ZERO } else { *x }).collect();
                let x: Aligned<E> = x.into_iter().collect();
                let mut y = Aligned::zeros(rows * padded(d_out));
                let ns = time(|| linear.run(isa, rows, std::hint::black_box(&x), &mut y));
                let fmas = (rows * weight.len()) as f64;
                eprint!(
                    "  {rows} x {d_in} -> {d_out} {epilogue:?}: {ns:.0} ns, {:.1} GFMA/s, {:.0} %",
                    fmas / ns,
                    100.0 * fmas / ns / peak
                );
                if rows == 1 {
                    let weight: Vec<E> = weight.iter().map(|&w| E::of(w)).collect();
                    let bias: Vec<E> = bias.iter().map(|&b| E::of(b)).collect();
                    let naive = time(|| {
                        for (y, (w, &b)) in y.iter_mut().zip(weight.chunks_exact(d_in).zip(&bias)) {
                            *y = w.iter().zip(std::hint::black_box(&x).iter()).fold(b, |s, (&w, &x)| s + w * x);
                        }
                    });
                    eprint!("; naive loop {naive:.0} ns");
                }
                eprintln!();
            }
        }
    }

    #[test]
    #[ignore = "prints a time: cargo test --release packing_time -- --ignored --nocapture"]
    fn packing_time() {
        let d = 1 << 13;
        let weight: Vec<f32> = (0..d * d).map(|i| i as f32).collect();
        for epilogue in EPILOGUES {
            let d_out = d / epilogue.rows();
            let begin = std::time::Instant::now();
            let linear = Linear::<f32>::new(d, d_out, |row, k| f64::from(weight[row * d + k]), None, epilogue).unwrap();
            let packed = begin.elapsed();
            let begin = std::time::Instant::now();
            let mut row = vec![0.0; d];
            for i in 0..linear.weight_rows() {
                linear.unpack(i, &mut row);
                assert_eq!(row[d - 1], weight[i * d + d - 1]);
            }
            eprintln!("256 MiB {epilogue:?}: packed in {packed:.2?}, unpacked in {:.2?}", begin.elapsed());
        }
    }

    #[test]
    #[ignore = "prints rates: cargo test --release rates -- --ignored --nocapture --test-threads 1"]
    fn rates() {
        measure::<f32>();
        measure::<f64>();
    }
}

//! A matrix that several cores read for a few rows: each a run of memory of its own.

use super::{Epilogue, Form, Linear, PANEL, SUMMED, Tile, start, tiles, width};
use crate::kernels::layout::holds;
use crate::kernels::pointwise;
use crate::kernels::{Elem, GROUP, Isa, Kernel, Lanes, padded};

/// Panels a thread for which threads are equally busy whole panel by whole panel.
const MANY: usize = 8;

/// Chains of inputs that a share has, where panels are shared out: short runs of memory are slow to read.
const CHAINS: usize = 2;

/// How a matrix is shared out, in shares that lie in memory one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Shares in all.
    pub count: usize,
    /// Shares of a panel: more than one where there are few panels. Each then leaves the sum of each of its chains, so that
    /// these are added up in the same order as where one thread adds up all.
    pub blocks: usize,
}

impl<E: Elem> Linear<E> {
    /// Bytes of its weights and biases.
    pub fn bytes(&self) -> usize {
        size_of_val::<[E]>(&self.packed)
    }

    /// How as many threads share it.
    pub fn shares(&self, threads: usize) -> Shares {
        let panels = self.panels();
        let blocks = if panels >= MANY * threads { 1 } else { self.chains().div_ceil(CHAINS) };
        Shares { count: panels * blocks, blocks }
    }

    /// Elements a row of what shares leave for [`Linear::finish`].
    pub fn sums_len(&self, shares: Shares) -> usize {
        if shares.blocks == 1 { 0 } else { self.chains() * self.panels() * PANEL * GROUP }
    }

    /// Runs of inputs that are added up in one chain each.
    fn chains(&self) -> usize {
        self.d_in.div_ceil(SUMMED)
    }

    /// Share number `share` of `rows` rows of x: their outputs where there is one share a panel, else its sums alone, into
    /// `sums`.
    ///
    /// # Safety
    /// `y` has `rows` rows of padded(d_out) elements to write and `sums` of [`Linear::sums_len`], of which no one else
    /// touches what is this share's.
    pub unsafe fn run_share(
        &self,
        isa: Isa,
        shares: Shares,
        share: usize,
        x: (&[E], usize),
        (y, sums): (*mut E, *mut E),
    ) {
        let (x, rows) = x;
        assert!(holds(x.len(), rows, padded(self.d_in)) && share < shares.count);
        let (panel, block) = (share / shares.blocks, share % shares.blocks);
        if shares.blocks == 1 {
            isa.run(Share { linear: self, panel, chain: 0, rows, x: x.as_ptr(), y: Some(y), sums });
            return;
        }
        for chain in block * CHAINS..self.chains().min((block + 1) * CHAINS) {
            let sums = sums.wrapping_add((chain * self.panels() + panel) * rows * PANEL * GROUP);
            isa.run(Share { linear: self, panel, chain, rows, x: x.as_ptr(), y: None, sums });
        }
    }

    /// What all shares left, as outputs: `rows` rows of y. `sums` is of no use afterwards.
    pub fn finish(&self, isa: Isa, shares: Shares, rows: usize, sums: &mut [E], y: &mut [E]) {
        assert!(holds(y.len(), rows, padded(self.d_out)) && holds(sums.len(), rows, self.sums_len(shares)));
        isa.run(Finish { linear: self, chains: self.chains(), rows, sums, y });
    }

    /// Panels of the matrix.
    pub(super) fn panels(&self) -> usize {
        (padded(self.d_out) / GROUP * self.epilogue.rows()).div_ceil(PANEL)
    }
}

struct Share<'a, E> {
    linear: &'a Linear<E>,
    panel: usize,
    chain: usize,
    rows: usize,
    x: *const E,
    /// Where the outputs go, where the share has all inputs.
    y: Option<*mut E>,
    /// Where the sums go, where it has not: rows of a panel.
    sums: *mut E,
}

impl<E: Elem> Kernel<E> for Share<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { linear, panel, chain, rows, x, y, sums } = self;
        let halves = linear.epilogue.rows();
        let per_group = GROUP / L::LANES;
        // Outputs of a panel, in vectors.
        let own = PANEL / halves * per_group;
        let columns = panel * own..((panel + 1) * own).min(padded(linear.d_out) / L::LANES);
        if let Some(y) = y {
            // SAFETY: `Linear::run_share` checked x, and its caller answers for these columns of y.
            unsafe { linear.block(lanes, rows, columns, x, y) };
            return;
        }
        let inputs = chain * SUMMED..linear.d_in.min((chain + 1) * SUMMED);
        let (tiles, low, higher) = tiles(rows);
        let widest = width(if higher > 0 { low + 1 } else { low }, L::REGISTERS) / halves;
        let (stride, gates) = (PANEL * GROUP, own * L::LANES);
        let mut column = columns.start;
        while column < columns.end {
            let mut wide = widest;
            while wide > columns.end - column {
                wide /= 2;
            }
            let mut row = 0;
            for tile in 0..tiles {
                let n = if tile < higher { low + 1 } else { low };
                // SAFETY: row < rows, so that x is the caller's; the panel's sums have as many rows, of its values and then
                // its gates.
                unsafe {
                    let out = sums.add(row * stride + (column - columns.start) * L::LANES);
                    let second = if halves == 2 { gates } else { wide / 2 * L::LANES };
                    let tile = Tile {
                        linear,
                        x: x.add(row * padded(linear.d_in)),
                        x_stride: padded(linear.d_in),
                        inputs: inputs.clone(),
                        adds: false,
                        column,
                        out: [(out, stride), (out.add(second), stride)],
                    };
                    tile.any(lanes, n, halves * wide);
                }
                row += n;
            }
            column += wide;
        }
    }
}

struct Finish<'a, E> {
    linear: &'a Linear<E>,
    chains: usize,
    rows: usize,
    sums: &'a mut [E],
    y: &'a mut [E],
}

impl<E: Elem> Kernel<E> for Finish<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<E = E>>(self, lanes: L) {
        let Self { linear, chains, rows, sums, y } = self;
        let (halves, stride) = (linear.epilogue.rows(), padded(linear.d_out));
        let apart = linear.panels() * rows * PANEL * GROUP;
        let (sums, y) = (sums.as_mut_ptr(), y.as_mut_ptr());
        for row in 0..rows {
            for group in 0..stride / GROUP {
                // SAFETY: `Linear::finish` checked that y has these rows and the sums those of every panel and chain.
                unsafe {
                    let out = y.add(row * stride + group * GROUP);
                    let mut gates = out;
                    for half in 0..halves {
                        let panel = start(1, halves, half, group) / (PANEL * GROUP);
                        let within = start(1, halves, half, group) % (PANEL * GROUP);
                        let head =
                            linear.packed.as_ptr().add(start(linear.form.rows(linear.d_in), halves, half, group));
                        let from = sums.add((panel * rows + row) * PANEL * GROUP + within);
                        let to = if half == 0 { out } else { from };
                        gates = to;
                        for i in (0..GROUP).step_by(L::LANES) {
                            let mut sum = lanes.load(from.add(i));
                            for chain in 1..chains {
                                sum = lanes.add(sum, lanes.load(from.add(chain * apart + i)));
                            }
                            if linear.form == Form::Quartered {
                                let scale = lanes.load(head.add(PANEL * GROUP + i));
                                sum = lanes.fma(sum, scale, lanes.load(head.add(i)));
                            }
                            lanes.store(to.add(i), sum);
                        }
                    }
                    if let Epilogue::Glu(gate) = linear.epilogue {
                        pointwise::apply_rows(lanes, gate, 1, GROUP, gates, GROUP);
                        for i in (0..GROUP).step_by(L::LANES) {
                            let p = out.add(i);
                            lanes.store(p, lanes.mul(lanes.load(p), lanes.load(gates.add(i))));
                        }
                    }
                }
            }
        }
        if let Epilogue::Apply(function) = linear.epilogue {
            // SAFETY: y has these rows.
            unsafe { pointwise::apply_rows(lanes, function, rows, stride, y, stride) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EPILOGUES, case, inputs};
    use super::*;

    fn check<E: Elem>(linear: &Linear<E>, isa: Isa, rows: usize, threads: usize) {
        let x = inputs::<E>(rows, linear.d_in);
        let mut expected = vec![E::ZERO; rows * padded(linear.d_out)];
        linear.run(isa, rows, &x, &mut expected);
        let shares = linear.shares(threads);
        let mut y = vec![E::of(f64::NAN); expected.len()];
        let mut sums = vec![E::of(f64::NAN); rows * linear.sums_len(shares)];
        for share in (0..shares.count).rev() {
            // SAFETY: both have their rows, and nobody else has them.
            unsafe { linear.run_share(isa, shares, share, (&x, rows), (y.as_mut_ptr(), sums.as_mut_ptr())) };
        }
        if shares.blocks > 1 {
            linear.finish(isa, shares, rows, &mut sums, &mut y);
        }
        let (d_in, d_out) = (linear.d_in, linear.d_out);
        assert!(y == expected, "{} {d_in} -> {d_out}, {rows} rows, {threads} threads", isa.name());
    }

    #[test]
    fn shares_give_what_one_thread_gives() {
        for isa in Isa::all() {
            for epilogue in EPILOGUES {
                for (d_in, d_out) in [(3, 10), (256, 64), (257, 65), (600, 100), (1030, 40), (40, 700)] {
                    let linear = case::<f32>(d_in, d_out, epilogue).linear;
                    for (rows, threads) in [(1, 2), (1, 1000), (2, 1000), (13, 1000)] {
                        check(&linear, isa, rows, threads);
                    }
                    check(&linear.rounded(Form::Halved).unwrap(), isa, 3, 1000);
                    let linear = case::<f32>(d_in, d_out, epilogue).linear.rounded(Form::Quartered).unwrap();
                    check(&linear, isa, 1, 1000);
                    check(&linear, isa, 9, 1000);
                    check(&case::<f64>(d_in, d_out, epilogue).linear, isa, 7, 1000);
                }
            }
        }
    }
}

use super::super::MAX_WIDTH;
use super::super::Node;
use super::super::array::Array;
use super::super::fields::{Child, Choice, Number, Optional, Real, Size};
use super::super::node::{Layer, Memory, node};
use crate::discretize::Disc;
use crate::error::Result;
use crate::names::Named;

node! {
    /// Mamba-2's state-space duality (Dao & Gu 2024): the input chooses dt, B and C at each sample; one dt and one A a head.
    ///
    /// (x, B, C) = split(xBC(u)); dt = clip(softplus(dt(u) + dt_bias)); of each head, whose channels are neighbours:
    /// h = exp(dt A) h + dt x B^T; y = h C + D x. Neighbouring heads share B and C: there are `groups` of them. With
    /// [`Disc::Zoh`] it is (exp(dt A) - 1) / A that multiplies x B^T: what a zero-order hold makes of B.
    "ssd" Ssd {
        /// Gives x (d,), B (groups, N) and C (groups, N).
        xbc: Box<Node> = "xBC" Child;
        /// Gives a number a head.
        dt: Box<Node> = "dt" Child;
        /// (heads,), never positive
        a: Array = "A" Real("heads");
        /// (heads,)
        dt_bias: Array = "dt_bias" Real("heads");
        /// (d,)
        d: Array = "D" Real("d");
        /// N
        d_state: usize = "d_state" Size(MAX_WIDTH);
        /// Divides the heads.
        groups: usize = "groups" Size(MAX_WIDTH);
        /// The least dt.
        dt_min: f64 = "dt_min" Number { default: 0.0, least: 0.0, most: f64::MAX };
        /// The greatest.
        dt_max: Option<f64> = "dt_max" Optional(Number { default: 0.0, least: 0.0, most: f64::MAX });
        /// [`Disc::Euler`] or [`Disc::Zoh`]: how B is discretised.
        disc: Disc = "disc" Choice(Some(Disc::Euler));
        /// (d, N), h before a stream's first sample; `None`: zero.
        x0: Option<Array> = "x0" Optional(Real("d N"));
    }
}

impl Ssd {
    /// The number of heads.
    pub fn heads(&self) -> usize {
        self.a.shape[0]
    }

    /// d
    pub fn channels(&self) -> usize {
        self.d.shape[0]
    }
}

impl Layer for Ssd {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let (heads, d) = (self.heads(), self.channels());
        if let Some(i) = self.a.data.iter().position(|&a| a > 0.0) {
            return Err(("A", format!("expected no positive number, found {} at flat index {i}", self.a.data[i])));
        }
        if !d.is_multiple_of(heads) {
            return Err(("D", format!("expected a multiple of the {heads} heads of A, found {d} channels")));
        }
        if !heads.is_multiple_of(self.groups) {
            return Err(("groups", format!("expected a divisor of the {heads} heads, found {}", self.groups)));
        }
        if !matches!(self.disc, Disc::Euler | Disc::Zoh) {
            return Err(("disc", format!("expected \"euler\" or \"zoh\", found {:?}", self.disc.name())));
        }
        if let Some(x0) = self.x0.as_ref().filter(|x0| x0.shape[1] != self.d_state) {
            return Err(("x0", format!("expected shape (d={d}, N={}), found {:?}", self.d_state, x0.shape)));
        }
        match self.dt_max {
            Some(most) if most < self.dt_min => {
                Err(("dt_max", format!("expected at least dt_min, {}, found {most}", self.dt_min)))
            }
            _ => Ok(()),
        }
    }

    fn branches(&self) -> Vec<&Node> {
        vec![&*self.xbc, &*self.dt]
    }

    fn d_in(&self) -> Option<usize> {
        self.xbc.d_in().or_else(|| self.dt.d_in())
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        let (d, n, groups) = (self.channels(), self.d_state, self.groups);
        let expected = n.checked_mul(2 * groups).and_then(|bc| bc.checked_add(d));
        let found = self.xbc.d_out_at(d_in, &format!("{path}.xBC"))?;
        if expected != Some(found) {
            let what = format!("xBC: expected a width of d + 2 groups N, d={d}, groups={groups}, N={n}; found {found}");
            return Err(self.mismatch(path, what));
        }
        let (heads, found) = (self.heads(), self.dt.d_out_at(d_in, &format!("{path}.dt"))?);
        if heads != found {
            return Err(self.mismatch(path, format!("dt: expected a width of {heads}, one a head, found {found}")));
        }
        Ok(d)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::Selective
    }
}

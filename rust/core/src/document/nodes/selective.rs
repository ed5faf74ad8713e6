use super::super::Node;
use super::super::array::{Array, Matrix};
use super::super::fields::{Mixing, Number, Optional, Real};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// Mamba's S6 (Gu & Dao 2023, alg. 2): the input chooses dt, B and C at each sample.
    ///
    /// (r, B, C) = split(x_proj x), each through an RMS norm where there is `norm_eps`; dt = softplus(dt_proj r + dt_bias);
    /// h = exp(dt A) h + dt B x; y = C h + D x.
    "selective" Selective {
        /// (d, N), never positive
        a: Array = "A" Real("d N");
        /// (R + 2 N, d)
        x_proj: Matrix = "x_proj" Mixing("R+2N d");
        /// (d, R)
        dt_proj: Matrix = "dt_proj" Mixing("d R");
        /// (d,)
        dt_bias: Array = "dt_bias" Real("d");
        /// (d,)
        d: Array = "D" Real("d");
        /// That of the norms of r, B and C; `None` where there are none.
        norm_eps: Option<f64> = "norm_eps" Optional(Number { default: 0.0, least: 0.0, most: f64::MAX });
        /// (R,), the weight of r's norm; by default 1.
        dt_norm: Option<Array> = "dt_norm" Optional(Real("R"));
        /// (N,), of B's.
        b_norm: Option<Array> = "B_norm" Optional(Real("N"));
        /// (N,), of C's.
        c_norm: Option<Array> = "C_norm" Optional(Real("N"));
        /// (d, N), h before a stream's first sample; `None`: zero.
        x0: Option<Array> = "x0" Optional(Real("d N"));
    }
}

impl Selective {
    /// d
    pub fn channels(&self) -> usize {
        self.a.shape[0]
    }

    /// N
    pub fn modes(&self) -> usize {
        self.a.shape[1]
    }

    /// R
    pub fn rank(&self) -> usize {
        self.dt_proj.shape[1]
    }
}

impl Layer for Selective {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(i) = self.a.data.iter().position(|&a| a > 0.0) {
            return Err(("A", format!("expected no positive number, found {} at flat index {i}", self.a.data[i])));
        }
        if self.norm_eps.is_none() && [&self.dt_norm, &self.b_norm, &self.c_norm].into_iter().any(Option::is_some) {
            return Err(("norm_eps", "expected a number, for there are weights of norms, found null".into()));
        }
        let (rows, found) = (self.rank() + 2 * self.modes(), self.x_proj.shape);
        if found[0] != rows {
            return Err(("x_proj", format!("expected shape (R+2N={rows}, d={}), found {found:?}", self.channels())));
        }
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        Some(self.channels())
    }

    fn d_out(&self, d_in: usize, _: &str) -> Result<usize> {
        Ok(d_in)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::Selective
    }
}

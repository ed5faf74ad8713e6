use super::super::Node;
use super::super::array::{Array, Matrix};
use super::super::fields::{Mixing, Optional, Real};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// y = weight x + bias.
    "linear" Linear {
        /// (d_out, d_in)
        weight: Matrix = "weight" Mixing("d_out d_in");
        /// (d_out,)
        bias: Option<Array> = "bias" Optional(Real("d_out"));
    }
}

impl Layer for Linear {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        self.takes(self.weight.shape[1], d_in, path)?;
        Ok(self.weight.shape[0])
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}

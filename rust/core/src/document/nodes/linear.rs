use super::super::Node;
use super::super::array::{Array, Matrix};
use super::super::fields::{MixingOrTable, Optional, Real};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// y = weight x + bias.
    "linear" Linear {
        /// (d_out, d_in)
        weight: Matrix = "weight" MixingOrTable("d_out d_in");
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

    fn d_in(&self) -> Option<usize> {
        Some(self.weight.shape[1])
    }

    fn d_out(&self, _: usize, _: &str) -> Result<usize> {
        Ok(self.weight.shape[0])
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}

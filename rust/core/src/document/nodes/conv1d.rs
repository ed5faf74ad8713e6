use super::super::Node;
use super::super::array::Array;
use super::super::fields::{Optional, Real};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// Causal depthwise convolution: y\[t\] = sum_k weight\[:, K-1-k\] x\[t-k\] + bias.
    "conv1d" Conv1d {
        /// (d, K)
        weight: Array = "weight" Real("d K");
        /// (d,)
        bias: Option<Array> = "bias" Optional(Real("d"));
        /// (d, K-1), the inputs before a stream's first sample, the oldest first; `None`: zeros.
        x0: Option<Array> = "x0" Optional(Real("d K-1"));
    }
}

impl Layer for Conv1d {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let (d, taps) = (self.weight.shape[0], self.weight.shape[1]);
        match &self.x0 {
            Some(x0) if x0.shape != [d, taps - 1] => {
                Err(("x0", format!("expected shape (d={d}, K-1={}), found {:?}", taps - 1, x0.shape)))
            }
            _ => Ok(()),
        }
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        Some(self.weight.shape[0])
    }

    fn d_out(&self, d_in: usize, _: &str) -> Result<usize> {
        Ok(d_in)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::Samples
    }
}

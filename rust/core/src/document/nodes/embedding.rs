use super::super::Node;
use super::super::array::Matrix;
use super::super::fields::Table;
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

node! {
    /// y = weight\[token\]; the input is one integer a sample.
    "embedding" Embedding {
        /// (vocabulary, d_out)
        weight: Matrix = "weight" Table("vocabulary d_out");
    }
}

impl Layer for Embedding {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        Some(1)
    }

    fn d_out(&self, _: usize, _: &str) -> Result<usize> {
        Ok(self.weight.shape[1])
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}

use super::super::Node;
use super::super::fields::Choice;
use super::super::node::{Layer, Memory, node};
use crate::error::Result;

named! {
    /// How a [`Pool`] makes one sample from a sequence.
    pub enum PoolMode {
        /// The mean over time.
        Mean = "mean",
        /// The sum over time.
        Sum = "sum",
        /// The last sample.
        Last = "last",
        /// The first sample.
        First = "first",
    }
}

node! {
    /// One sample from a sequence. Stands in the outermost [`Sequential`](super::Sequential) only, once at most, and
    /// nothing that remembers comes after it.
    "pool" Pool {
        /// How.
        mode: PoolMode = "mode" Choice(None);
    }
}

impl Layer for Pool {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        None
    }

    fn d_out(&self, d_in: usize, _: &str) -> Result<usize> {
        Ok(d_in)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::Samples
    }
}

use super::super::Node;
use super::super::fields::Choice;
use super::super::node::{Layer, Memory, node};
use crate::error::Result;
use crate::kernels::pointwise::Function;

node! {
    /// First half of the channels times `gate` of the second half (Dauphin et al. 2017, eq. 1).
    "glu" Glu {
        /// The function of the second half.
        gate: Function = "gate" Choice(Some(Function::Sigmoid));
    }
}

impl Layer for Glu {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        None
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        if !d_in.is_multiple_of(2) {
            return Err(self.mismatch(path, format!("expected an input of even width, found {d_in}")));
        }
        Ok(d_in / 2)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}

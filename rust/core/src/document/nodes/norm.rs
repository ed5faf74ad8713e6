use super::super::Node;
use super::super::array::Array;
use super::super::fields::{Choice, Number, Optional, Real};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;
use crate::kernels::norm::NormKind;

node! {
    /// A normalisation over the channels of one sample; then times weight, plus bias.
    "norm" Norm {
        /// What is normalised.
        kind: NormKind = "kind" Choice(None);
        /// (d,)
        weight: Option<Array> = "weight" Optional(Real("d"));
        /// (d,)
        bias: Option<Array> = "bias" Optional(Real("d"));
        /// Not negative.
        eps: f64 = "eps" Number { default: 1e-5, least: 0.0, most: f64::MAX };
        /// Zero but for [`NormKind::Layer`].
        shift: f64 = "shift" Number { default: 0.0, least: f64::MIN, most: f64::MAX };
    }
}

impl Layer for Norm {
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        self.weight.as_ref().or(self.bias.as_ref()).map(|v| v.data.len())
    }

    fn d_out(&self, d_in: usize, _: &str) -> Result<usize> {
        Ok(d_in)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}

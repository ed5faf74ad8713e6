use super::super::MAX_WIDTH;
use super::super::Node;
use super::super::array::Array;
use super::super::fields::{Choice, Count, Number, Optional, Real};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;
use crate::kernels::norm::NormKind;

node! {
    /// A normalisation over the channels of one sample, or over each run of `size` of them; then times weight, plus bias.
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
        /// Divides d; null for [`NormKind::Affine`].
        size: Option<usize> = "size" Count(MAX_WIDTH);
    }
}

impl Layer for Norm {
    fn check(&self) -> Result<(), (&'static str, String)> {
        match (self.kind, self.size) {
            (NormKind::Affine, Some(size)) => {
                Err(("size", format!("expected null, for an affine norm has no statistics, found {size}")))
            }
            _ => Ok(()),
        }
    }

    fn branches(&self) -> Vec<&Node> {
        Vec::new()
    }

    fn d_in(&self) -> Option<usize> {
        self.weight.as_ref().or(self.bias.as_ref()).map(|v| v.data.len())
    }

    fn d_out(&self, d_in: usize, path: &str) -> Result<usize> {
        match self.size {
            Some(size) if !d_in.is_multiple_of(size) => {
                Err(self.mismatch(path, format!("expected an input whose width is a multiple of {size}, found {d_in}")))
            }
            _ => Ok(d_in),
        }
    }

    fn memory(&self) -> Memory<'_> {
        Memory::None
    }
}

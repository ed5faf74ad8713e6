use super::super::MAX_WIDTH;
use super::super::Node;
use super::super::fields::{Choice, Count};
use super::super::node::{Layer, Memory, node};
use crate::error::Result;
use crate::kernels::pointwise::Function;
use crate::names::Named;

/// What an [`Activation`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationFunction {
    /// A function of each channel.
    Pointwise(Function),
    /// exp(x) / sum exp(x), over a run of channels.
    Softmax,
    /// x - log sum exp(x), over a run of channels.
    LogSoftmax,
}

impl Named for ActivationFunction {
    const NAMES: &'static [(&'static str, Self)] = &{
        let functions = Function::NAMES;
        let mut names = [("softmax", ActivationFunction::Softmax); Function::NAMES.len() + 2];
        let mut i = 0;
        while i < functions.len() {
            names[i] = (functions[i].0, ActivationFunction::Pointwise(functions[i].1));
            i += 1;
        }
        names[i + 1] = ("log_softmax", ActivationFunction::LogSoftmax);
        names
    };
}

node! {
    /// An element-wise function; softmax and log-softmax go over runs of `size` channels (`None`: all).
    "activation" Activation {
        /// The function.
        function: ActivationFunction = "function" Choice(None);
        /// Divides d.
        size: Option<usize> = "size" Count(MAX_WIDTH);
    }
}

impl Layer for Activation {
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

//! What a model's layers are at a rate: their systems, kernels, eigenvalues, widths.

use crate::convolution_kernel::convolution_kernel;
use crate::document::{Discrete, Document, Memory, Node, Systems};
use crate::error::{Error, Result};
use crate::kernels::Isa;
use crate::threads::Team;
use num_complex::Complex64;

/// A state-space layer. Layers are numbered in the order in which they run.
#[derive(Debug, Clone)]
pub struct Layer {
    /// What a Document calls its kind.
    pub kind: &'static str,
    /// Its place in the checkpoint, which may be empty.
    pub name: String,
    /// Whether its parameters show that it is stable at every rate.
    pub always_stable: bool,
    /// Where it is not: its discrete eigenvalue of the largest modulus at the rate.
    pub largest: Option<Complex64>,
    /// The channel that this belongs to, or of S5 and LRU the mode.
    pub place: Option<(&'static str, usize)>,
    /// Whether that lies outside the unit circle.
    pub unstable: bool,
    /// Modes that reach an output and alias: that turn by less than half a circle a sample at rate 1 and by more at the
    /// rate. The sampled input does not have frequencies as high.
    pub aliased: usize,
    /// Modes that reach an output.
    pub modes: usize,
    /// The samples at the rate after which its kernel is cut off.
    pub cut: Option<usize>,
    /// Whether a part of it runs from the last sample to the first.
    pub bidirectional: bool,
}

impl Document {
    /// The state-space layers at `rate`, in the order in which they run.
    ///
    /// # Errors
    /// [`Error::Value`] where a matrix has no Schur form, or a kernel is cut off too late at this rate.
    pub fn layers(&self, rate: f64) -> Result<Vec<Layer>> {
        self.state_space_layers().into_iter().map(|node| layer(node, rate)).collect()
    }

    /// The discrete systems of state-space layer number `layer` at `rate`.
    ///
    /// # Errors
    /// [`Error::Value`] where there is no such layer or a transform has its pole at this rate; [`Error::Unsupported`] where
    /// the layer has no such systems.
    pub fn discrete(&self, layer: usize, rate: f64) -> Result<Discrete> {
        let node = self.state_space_layer(layer)?;
        systems(node)?.discrete(rate).map_err(|error| named(node, error))
    }

    /// The eigenvalues of state-space layer number `layer` at `rate`: channel by channel, the same number each.
    ///
    /// # Errors
    /// As [`Document::discrete`].
    pub fn eigenvalues(&self, layer: usize, rate: f64) -> Result<Vec<Complex64>> {
        let node = self.state_space_layer(layer)?;
        let values = systems(node)?.eigenvalues(rate).map_err(|error| named(node, error))?;
        Ok(values.into_iter().map(|e| e.value).collect())
    }

    /// The convolution kernel of state-space layer number `layer` at `rate`, in float64: its shape (M, H, length) and its
    /// numbers. A bidirectional layer has its backward kernels after the forward ones; a layer of many inputs and outputs
    /// has (d_out, d_in, length). The direct path D is not in it.
    ///
    /// # Errors
    /// As [`Document::discrete`], and [`Error::Value`] where the length does not fit into memory.
    pub fn convolution_kernel(
        &self,
        layer: usize,
        length: usize,
        rate: f64,
        isa: Isa,
        team: &Team,
    ) -> Result<([usize; 3], Vec<f64>)> {
        convolution_kernel(self, layer, length, rate, isa, team)
    }

    /// The widths of the signal after each node of the outermost sequence.
    pub fn widths(&self) -> Vec<usize> {
        let root = self.root();
        let nodes = match root {
            Node::Sequential(sequence) => sequence.children.iter().collect(),
            other => vec![other],
        };
        let widths = nodes.into_iter().scan(self.d_input(), |width, node| {
            *width = node.d_out(*width).expect("a Document's widths fit");
            Some(*width)
        });
        widths.collect()
    }
}

fn systems(node: &Node) -> Result<&dyn Systems> {
    node.systems().ok_or_else(|| Error::Unsupported(format!("{}: its input chooses its system", node.label())))
}

fn named(node: &Node, error: Error) -> Error {
    match error {
        Error::Value(text) => Error::Value(format!("{}: {text}", node.label())),
        Error::Unsupported(text) => Error::Unsupported(format!("{}: {text}", node.label())),
        other => other,
    }
}

fn layer(node: &Node, rate: f64) -> Result<Layer> {
    let mut layer = Layer {
        kind: node.kind(),
        name: node.name().into(),
        always_stable: true,
        largest: None,
        place: None,
        unstable: false,
        aliased: 0,
        modes: 0,
        cut: None,
        bidirectional: false,
    };
    // Mamba's A is never positive: its decays are below 1 whatever its input chooses.
    let Memory::Systems(systems) = node.memory() else { return Ok(layer) };
    layer.always_stable = systems.always_stable();
    if !layer.always_stable {
        let largest = systems.largest(rate).map_err(|error| named(node, error))?;
        layer.largest = largest.map(|e| e.value);
        layer.place = largest.map(|e| (systems.place(), e.place));
        layer.unstable = systems.unstable(rate).map_err(|error| named(node, error))?.is_some();
    }
    (layer.aliased, layer.modes) = systems.aliased(rate);
    layer.cut = systems.cut(rate).map_err(|error| named(node, error))?;
    layer.bidirectional = systems.bidirectional();
    Ok(layer)
}

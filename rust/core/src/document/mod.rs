//! The Document: what a trained model is, as a small tree of typed nodes over plain arrays.
//!
//! State-space nodes hold *continuous-time* parameters. On disk it is one safetensors buffer whose metadata
//! holds the tree as JSON; [`Document::parse`] reads it and checks everything that can be said before a plan is
//! made, so that whoever takes a [`Document`] may rely on every shape, width and value documented here. What it
//! does not check is whether systems are stable at a rate: a plan does.
//!
//! Shapes use H channels (d_model), N stored modes, M outputs a channel, R rank, S distinct systems of which
//! channel `h` uses `h % S` (S divides H). Arrays are row-major.
//!
//! A kind of node is a file in `nodes` and a word in the list of `node.rs`.

mod array;
mod fields;
mod file;
mod node;
mod nodes;
mod systems;

pub(crate) use array::Rows;
pub use array::{Array, ComplexArray, Matrix, Stored};
pub use file::{Buffer, VERSION};
pub(crate) use node::Memory;
pub use node::Node;
pub use nodes::*;
pub use systems::{Discrete, Eigenvalue, Systems};

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Far above any model; it bounds what nodes without arrays of their own can make a plan allocate.
const MAX_WIDTH: usize = 1 << 24;

/// A whole model. Clones share its arrays.
#[derive(Debug, Clone)]
pub struct Document {
    root: Node,
    d_input: usize,
    d_output: usize,
    tokens: bool,
    facts: Facts,
}

/// What is known of a model and not needed to run it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Where the model came from.
    pub meta: BTreeMap<String, String>,
    /// Samples a second that it was trained at.
    pub sample_rate: Option<f64>,
    /// The classes that its outputs stand for.
    pub labels: Option<Vec<String>>,
}

impl Document {
    /// Every kind of node with its fields, as JSON: `{kind: {field: {"type": ..., "axes": ..., "default": ...}}}`.
    pub fn schema() -> String {
        Node::schema().to_string()
    }

    /// The model `root` for inputs of width `d_input`, which is 1 for tokens.
    ///
    /// # Errors
    /// [`Error::Document`] where the width that one node gives is not the width that the next takes, where an embedding
    /// or a pool stands where it cannot, or where labels or the sampling rate do not fit.
    #[doc(hidden)]
    pub fn new(root: Node, d_input: usize, facts: Facts) -> Result<Document> {
        if !(1..=MAX_WIDTH).contains(&d_input) {
            return Err(Error::Document(format!("d_input: expected 1 to {MAX_WIDTH}, found {d_input}")));
        }
        check_places(&root)?;
        let tokens = matches!(root.first(), Node::Embedding(_));
        let d_output = root.d_out_at(d_input, "root")?;
        if let Some(rate) = facts.sample_rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err(Error::Document(format!("sample_rate: expected a positive number, found {rate}")));
        }
        if let Some(labels) = &facts.labels {
            if labels.len() != d_output {
                let found = labels.len();
                return Err(Error::Document(format!("labels: expected {d_output}, one an output, found {found}")));
            }
            if let Some(i) = (0..labels.len()).find(|&i| labels[i].is_empty() || labels[..i].contains(&labels[i])) {
                return Err(Error::Document(format!("labels: expected different words, found {:?}", labels[i])));
            }
        }
        Ok(Document { root, d_input, d_output, tokens, facts })
    }

    /// The outermost node.
    #[doc(hidden)]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Numbers in one input sample; 1 for tokens.
    pub fn d_input(&self) -> usize {
        self.d_input
    }

    /// Numbers in one output sample.
    pub fn d_output(&self) -> usize {
        self.d_output
    }

    /// Whether the input is integer tokens: the first node is an [`Embedding`].
    pub fn tokens(&self) -> bool {
        self.tokens
    }

    /// What is known of the model and not needed to run it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The state-space layers, in the order in which they run: those with systems, and the selective ones.
    pub(crate) fn state_space_layers(&self) -> Vec<&Node> {
        let mut found = Vec::new();
        self.root.walk(&mut |node| {
            if matches!(node.memory(), Memory::Systems(_) | Memory::Selective) {
                found.push(node);
            }
        });
        found
    }

    /// State-space layer number `layer`.
    ///
    /// # Errors
    /// [`Error::Value`] where there is none of that number.
    pub(crate) fn state_space_layer(&self, layer: usize) -> Result<&Node> {
        let layers = self.state_space_layers();
        layers.get(layer).copied().ok_or_else(|| {
            Error::Value(match layers.len() {
                0 => {
                    format!("layer: expected a model with state-space layers, found none, and layer {layer} asked for")
                }
                n => format!("layer: expected a number from 0 to {}, found {layer}", n - 1),
            })
        })
    }
}

/// Embedding only first; Pool only in the outermost Sequential, once, with nothing behind it that remembers.
fn check_places(root: &Node) -> Result<()> {
    fn walk(root: &Node, node: &Node, outermost: bool, path: &str) -> Result<()> {
        let fail =
            |what: &str| Err(Error::Document(format!("{}: {what}", node::label(node.kind(), node.name(), path))));
        match node {
            Node::Embedding(_) if !std::ptr::eq(node, root.first()) => {
                return fail("expected to be the first node, found behind another or inside a branch");
            }
            Node::Pool(_) if !outermost => {
                return fail("expected to stand in the outermost sequential, found elsewhere");
            }
            _ => {}
        }
        let inside = std::ptr::eq(node, root) && matches!(node, Node::Sequential(_));
        for (i, child) in node.branches().into_iter().enumerate() {
            walk(root, child, inside, &format!("{path}.{i}"))?;
        }
        Ok(())
    }
    walk(root, root, false, "root")?;
    if let Node::Sequential(root) = root {
        let mut behind = root.children.iter().enumerate().skip_while(|(_, n)| !matches!(n, Node::Pool(_))).skip(1);
        if let Some((i, node)) = behind.find(|(_, n)| n.remembers()) {
            let place = node::label(node.kind(), node.name(), &format!("root.children.{i}"));
            return Err(Error::Document(format!(
                "{place}: expected nothing that runs along time behind a pool, found this node"
            )));
        }
    }
    Ok(())
}

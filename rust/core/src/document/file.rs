//! A Document as a file: a safetensors buffer with the tree as JSON in its metadata.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::array::{Stored, Tensor, room};
use super::fields::{Contents, Tensors, Written};
use super::{Document, Facts, Node};
use crate::checksum::{START, hash, mix};
use crate::error::{Error, Result};

/// The version of the tree that this crate reads and writes.
pub const VERSION: u64 = 1;

const METADATA_KEY: &str = "ssmrt";

/// A tensor of a buffer, for [`Document::from_parts`].
#[derive(Debug, Clone)]
pub struct Buffer {
    /// What the tree calls it.
    pub name: String,
    /// The size of every axis.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub stored: Stored,
    /// The numbers, row-major, little-endian.
    pub bytes: Bytes,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    version: u64,
    d_input: Option<usize>,
    d_output: Option<usize>,
    #[serde(default)]
    meta: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    root: Value,
}

impl Document {
    /// The Document in a buffer that [`Document::to_bytes`], the Python package's `Document.to_bytes` or an equal program
    /// wrote.
    ///
    /// # Errors
    /// [`Error::Document`], which names the node, what was expected and what was found, where
    /// * the buffer is no safetensors buffer, or its tree is missing, damaged, or nested more than 100 deep;
    /// * a node's kind, field, string or number is unknown, missing or outside its range;
    /// * a tensor is missing, unused, used twice (but for the table of tokens, to which one linear map may be tied), not
    ///   finite, or has the wrong dtype or shape;
    /// * the width that one node gives is not the width that the next takes.
    pub fn parse(buffer: impl Into<Bytes>) -> Result<Document> {
        let buffer = buffer.into();
        let wrong = |error: safetensors::SafeTensorError| {
            Error::Document(format!("expected a safetensors buffer, found: {error}"))
        };
        let (_, metadata) = SafeTensors::read_metadata(&buffer).map_err(wrong)?;
        let tree = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).ok_or_else(|| {
            Error::Document("expected ssmrt's own format, found a safetensors buffer without its header".into())
        })?;
        let mut parts = Vec::new();
        for (name, view) in SafeTensors::deserialize(&buffer).map_err(wrong)?.tensors() {
            let stored = match view.dtype() {
                Dtype::F32 => Stored::F32,
                Dtype::F64 => Stored::F64,
                other => {
                    return Err(Error::Document(format!(
                        "tensor {name:?}: expected dtype F32 or F64, found {other:?}"
                    )));
                }
            };
            parts.push(Buffer { name, shape: view.shape().to_vec(), stored, bytes: buffer.slice_ref(view.data()) });
        }
        Document::from_parts(tree, parts)
    }

    /// The Document of a tree, as JSON, and its tensors. Widths of input and output that the tree leaves null follow from
    /// its nodes.
    ///
    /// # Errors
    /// As [`Document::parse`].
    pub fn from_parts(tree: &str, tensors: impl IntoIterator<Item = Buffer>) -> Result<Document> {
        let damaged = |error: serde_json::Error| Error::Document(format!("the model's tree is damaged: {error}"));
        let tree: Value = serde_json::from_str(tree).map_err(damaged)?;
        let version = tree.get("version").unwrap_or(&Value::Null);
        if version.as_u64() != Some(VERSION) {
            return Err(Error::Document(format!(
                "expected format version {VERSION}, found {version}; install a newer ssmrt"
            )));
        }
        let tree: Tree = serde_json::from_value(tree).map_err(damaged)?;
        let mut named = HashMap::new();
        for Buffer { name, shape, stored, bytes } in tensors {
            let numbers = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
            if numbers.and_then(|n| n.checked_mul(stored.size())) != Some(bytes.len()) {
                return Err(Error::Document(format!(
                    "tensor {name:?}: expected {shape:?} numbers of {} bytes, found {} bytes",
                    stored.size(),
                    bytes.len()
                )));
            }
            named.insert(name, Tensor { shape, stored, bytes });
        }
        let mut tensors = Tensors { left: named, table: None };
        let root = Node::read(tree.root, "root", 0, &mut tensors)?;
        if let Some(name) = tensors.left.keys().min() {
            return Err(Error::Document(format!("expected every tensor to belong to a node, found {name:?}")));
        }
        let facts = Facts { meta: tree.meta, sample_rate: tree.sample_rate, labels: tree.labels };
        let Some(d_input) = tree.d_input.or_else(|| root.d_in()) else {
            return Err(Error::Document(
                "d_input: expected a number, or a layer with weights from which it follows, found null".into(),
            ));
        };
        let document = Document::new(root, d_input, facts)?;
        match tree.d_output {
            Some(found) if found != document.d_output => Err(Error::Document(format!(
                "d_output: expected {}, which the last node gives, found {found}",
                document.d_output
            ))),
            _ => Ok(document),
        }
    }

    /// It as one safetensors buffer, which [`Document::parse`] reads: every number exactly as it was.
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (tree, written) = self.written();
        let sizes = written.tensors.iter().map(|(_, shape, stored, _)| shape.iter().product::<usize>() * stored.size());
        // The buffer, and beside it one tensor at a time.
        room::<u8>(sizes.clone().sum::<usize>() + sizes.max().unwrap_or(0))?;
        let metadata = HashMap::from([(METADATA_KEY.to_string(), tree)]);
        let tensors = written.tensors.iter().map(|(name, shape, stored, contents)| {
            let tensor = WrittenTensor { shape, stored: *stored, contents };
            (name, tensor)
        });
        Ok(safetensors::serialize(tensors, Some(metadata)).expect("shapes and bytes fit"))
    }

    /// Its tree as JSON, and the name, the shape and the dtype of every tensor that the tree refers to.
    pub fn outline(&self) -> (String, Vec<(String, Vec<usize>, Stored)>) {
        let (tree, written) = self.written();
        (tree, written.tensors.into_iter().map(|(name, shape, stored, _)| (name, shape, stored)).collect())
    }

    /// A hash of what computes: the nodes but for their names, and their numbers. Tells models apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut written = Written::default();
        let mut root = self.root.write("root", &mut written);
        forget_names(&mut root);
        let mut all = hash(mix(START, self.d_input as u64), root.to_string().as_bytes());
        for (_, shape, _, contents) in &written.tensors {
            all = shape.iter().fold(all, |h, &n| mix(h, n as u64));
            match contents {
                Contents::Bytes(bytes) => all = hash(all, bytes),
                Contents::Matrix(matrix) => {
                    matrix.for_each_row(|_, row| all = row.iter().fold(all, |h, x| mix(h, x.to_bits())));
                }
            }
        }
        all
    }

    fn written(&self) -> (String, Written) {
        let mut written = Written::default();
        let tree = Tree {
            version: VERSION,
            d_input: Some(self.d_input),
            d_output: Some(self.d_output),
            meta: self.facts.meta.clone(),
            sample_rate: self.facts.sample_rate,
            labels: self.facts.labels.clone(),
            root: self.root.write("root", &mut written),
        };
        (serde_json::to_string(&tree).expect("a tree is JSON"), written)
    }
}

/// A tree without the names of its nodes.
fn forget_names(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            fields.remove("name");
            fields.values_mut().for_each(forget_names);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_names),
        _ => {}
    }
}

struct WrittenTensor<'a> {
    shape: &'a [usize],
    stored: Stored,
    contents: &'a Contents,
}

impl View for WrittenTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.stored {
            Stored::F32 => Dtype::F32,
            Stored::F64 => Dtype::F64,
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        match self.contents {
            Contents::Bytes(bytes) => bytes.as_ref().into(),
            Contents::Matrix(matrix) => matrix.to_bytes().into(),
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.stored.size()
    }
}

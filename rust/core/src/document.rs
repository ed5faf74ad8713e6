//! The Document: what a trained model is, as a small tree of typed nodes over plain arrays.
//!
//! State-space nodes hold *continuous-time* parameters. On disk it is one safetensors buffer whose metadata
//! holds the tree as JSON; [`Document::parse`] reads it and checks everything that can be said before a plan is
//! made, so that whoever takes a [`Document`] may rely on every shape, width and value documented here. What it
//! does not check is whether systems are stable: see [`crate::stability`].
//!
//! Shapes use H channels (d_model), N stored modes, M outputs a channel, R rank, S distinct systems of which
//! channel `h` uses `h % S` (S divides H). Arrays are row-major. Real weights may be stored as float32; all are
//! widened to float64 here.

use std::collections::{BTreeMap, HashMap};

use num_complex::Complex64;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::discretize::Disc;
use crate::error::{Error, Result};

/// The version of the tree that this crate reads.
pub const VERSION: u64 = 1;

const METADATA_KEY: &str = "ssmrt";
const KIND_KEY: &str = "node";
const MAX_DEPTH: usize = 100;
/// Far above any model; it bounds what nodes without arrays of their own can make a plan allocate.
const MAX_WIDTH: usize = 1 << 24;
const MAX_KERNEL_LENGTH: usize = 1 << 40;

/// A row-major array, every number of it finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T = f64> {
    /// The size of every axis, each at least 1.
    pub shape: Vec<usize>,
    /// The numbers, last axis fastest.
    pub data: Vec<T>,
}

impl<T> Array<T> {
    /// The numbers along the last axis; `i` counts the axes before it as one.
    pub fn row(&self, i: usize) -> &[T] {
        let size = self.shape[self.shape.len() - 1];
        &self.data[i * size..(i + 1) * size]
    }
}

/// A complex [`Array`].
pub type ComplexArray = Array<Complex64>;

/// An element-wise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// x
    Identity,
    /// x Phi(x), by erf
    Gelu,
    /// GELU's tanh approximation
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// Slope 0.01 below zero
    LeakyRelu,
    /// x sigmoid(x)
    Silu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// tanh(x)
    Tanh,
    /// log(1 + exp(x)), linear above 20
    Softplus,
    /// x, or exp(x) - 1 below zero
    Elu,
    /// max(x, 0)^2
    Sqrelu,
    /// exp(x) / sum exp(x), over a run of channels
    Softmax,
    /// x - log sum exp(x), over a run of channels
    LogSoftmax,
}

impl Function {
    /// Whether a channel's answer depends on other channels.
    pub fn mixes_channels(self) -> bool {
        matches!(self, Function::Softmax | Function::LogSoftmax)
    }
}

/// y = weight x + bias.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Its place in the checkpoint.
    pub name: String,
    /// (d_out, d_in)
    pub weight: Array,
    /// (d_out,)
    pub bias: Option<Vec<f64>>,
}

/// y = weight\[token\]; the input is one integer a sample.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// Its place in the checkpoint.
    pub name: String,
    /// (vocabulary, d_out)
    pub weight: Array,
}

/// What a [`Norm`] does before weight and bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// (x - mean + shift) / sqrt(var + eps), var biased
    Layer,
    /// x / sqrt(mean(x^2) + eps)
    Rms,
    /// x
    Affine,
}

/// Over the channels of one sample; then times weight, plus bias.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Its place in the checkpoint.
    pub name: String,
    /// What is normalised.
    pub kind: NormKind,
    /// (d,)
    pub weight: Option<Vec<f64>>,
    /// (d,)
    pub bias: Option<Vec<f64>>,
    /// Not negative.
    pub eps: f64,
    /// Zero but for [`NormKind::Layer`].
    pub shift: f64,
}

/// An element-wise function; softmax and log-softmax go over runs of `size` channels (`None`: all).
#[derive(Debug, Clone)]
pub struct Activation {
    /// Its place in the checkpoint.
    pub name: String,
    /// The function.
    pub function: Function,
    /// Divides d.
    pub size: Option<usize>,
}

/// First half of the channels times `gate` of the second half (Dauphin et al. 2017, eq. 1).
#[derive(Debug, Clone)]
pub struct Glu {
    /// Its place in the checkpoint.
    pub name: String,
    /// One that does not mix channels.
    pub gate: Function,
}

/// Causal depthwise convolution: y\[t\] = sum_k weight\[:, K-1-k\] x\[t-k\] + bias.
#[derive(Debug, Clone)]
pub struct Conv1d {
    /// Its place in the checkpoint.
    pub name: String,
    /// (d, K)
    pub weight: Array,
    /// (d,)
    pub bias: Option<Vec<f64>>,
}

/// How a [`Pool`] makes one sample from a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// The mean over time.
    Mean,
    /// The sum over time.
    Sum,
    /// The last sample.
    Last,
    /// The first sample.
    First,
}

/// One sample from a sequence. Stands in the outermost [`Sequential`] only, once at most, and nothing that
/// remembers comes after it.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its place in the checkpoint.
    pub name: String,
    /// How.
    pub mode: PoolMode,
}

/// What [`Diagonal`], [`Dplr`] and [`Dense`] share: H independent systems with one input and M outputs each.
#[derive(Debug, Clone)]
pub struct StateSpace<T = Complex64> {
    /// Its place in the checkpoint.
    pub name: String,
    /// (M, H, N)
    pub c: Array<T>,
    /// (M, H)
    pub d: Array,
    /// (H,), positive; [`Diagonal`] also (H, N), and `None` where its disc is discrete.
    pub dt: Option<Array>,
    /// As `c`; the layer is bidirectional: y\[t\] also gets sum over j > t of K_reverse\[j-t-1\] u\[j\].
    pub c_reverse: Option<Array<T>>,
    /// Cuts the convolution kernel off after that many samples.
    pub kernel_length: Option<usize>,
    /// Outputs are flattened (H M) instead of (M H).
    pub head_major: bool,
    /// Whether eigenvalues outside the unit circle are let through.
    pub allow_unstable: bool,
}

impl<T> StateSpace<T> {
    /// M
    pub fn outputs(&self) -> usize {
        self.c.shape[0]
    }

    /// H
    pub fn channels(&self) -> usize {
        self.c.shape[1]
    }

    /// N
    pub fn modes(&self) -> usize {
        self.c.shape[2]
    }

    /// The step size of mode `n` of channel `h`; `None` where the system is discrete.
    pub fn step(&self, h: usize, n: usize) -> Option<f64> {
        let dt = self.dt.as_ref()?;
        Some(if dt.shape.len() == 2 { dt.data[h * dt.shape[1] + n] } else { dt.data[h] })
    }
}

/// S4D (Gu et al. 2022), DSS (Gupta et al. 2022): A diagonal.
///
/// y = 2 Re(C x) + D u with `conjugate_pairs`, else Re(C x) + D u. With [`Disc::Dss`] K\[l\] = Re sum_n C B
/// (e^{dt A}-1) conj(x)/(|x|^2+1e-7) e^{dt A l}, x = A (e^{dt A L}-1), whatever `conjugate_pairs` says.
#[derive(Debug, Clone)]
pub struct Diagonal {
    /// What it shares with the other kinds.
    pub ssm: StateSpace,
    /// (S, N)
    pub a: ComplexArray,
    /// (S, N)
    pub b: ComplexArray,
    /// How it is discretised.
    pub disc: Disc,
    /// In \[0, 1\], for [`Disc::Gbt`].
    pub alpha: f64,
    /// Whether each stored mode stands for itself and its conjugate.
    pub conjugate_pairs: bool,
}

impl Diagonal {
    /// S
    pub fn systems(&self) -> usize {
        self.a.shape[0]
    }
}

/// S4 (Gu et al. 2021): A_full = diag(A) - sum_r P_r Q_r^H, always bilinear.
///
/// With `conjugate_pairs` the full system has modes \[A, conj A\], vectors \[P, conj P\], ... and
/// y = 2 Re(C x) + D u over the stored half; else y = Re(C x) + D u.
#[derive(Debug, Clone)]
pub struct Dplr {
    /// What it shares with the other kinds.
    pub ssm: StateSpace,
    /// (S, N)
    pub a: ComplexArray,
    /// (R, S, N)
    pub p: ComplexArray,
    /// (S, N)
    pub b: ComplexArray,
    /// (R, S, N); `None` means P.
    pub q: Option<ComplexArray>,
    /// Whether each stored mode stands for itself and its conjugate.
    pub conjugate_pairs: bool,
}

impl Dplr {
    /// S
    pub fn systems(&self) -> usize {
        self.a.shape[0]
    }

    /// R
    pub fn rank(&self) -> usize {
        self.p.shape[0]
    }

    /// P of system `s`: R rows of N.
    pub fn p_of(&self, s: usize) -> Vec<&[Complex64]> {
        self.rows_of(&self.p, s)
    }

    /// Q of system `s`, which is P where there is none: R rows of N.
    pub fn q_of(&self, s: usize) -> Vec<&[Complex64]> {
        self.rows_of(self.q.as_ref().unwrap_or(&self.p), s)
    }

    fn rows_of<'a>(&self, array: &'a ComplexArray, s: usize) -> Vec<&'a [Complex64]> {
        (0..self.rank()).map(|r| array.row(r * self.systems() + s)).collect()
    }
}

/// LSSL (Gu et al. 2021b): a full real matrix, generalised bilinear transform with `alpha`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// What it shares with the other kinds.
    pub ssm: StateSpace<f64>,
    /// (S, N, N)
    pub a: Array,
    /// (S, N)
    pub b: Array,
    /// In \[0, 1\].
    pub alpha: f64,
}

impl Dense {
    /// S
    pub fn systems(&self) -> usize {
        self.a.shape[0]
    }

    /// A of system `s`, (N, N) row-major.
    pub fn a_of(&self, s: usize) -> &[f64] {
        let size = self.a.data.len() / self.systems();
        &self.a.data[s * size..(s + 1) * size]
    }
}

/// S5 (Smith et al. 2023), LRU (Orvieto et al. 2023): one diagonal system, all inputs to all outputs.
///
/// y = (2 if `conjugate_pairs` else 1) Re(C x + C_reverse z) + D u, where z runs backwards from the end:
/// z\[t\] = Abar z\[t+1\] + Bbar u\[t\].
#[derive(Debug, Clone)]
pub struct DiagonalMimo {
    /// Its place in the checkpoint.
    pub name: String,
    /// (N,)
    pub a: Vec<Complex64>,
    /// (N, d_in)
    pub b: ComplexArray,
    /// (d_out, N)
    pub c: ComplexArray,
    /// (d_out,), where d_out == d_in
    pub d: Option<Vec<f64>>,
    /// (N,), positive; `None` where the disc is discrete.
    pub dt: Option<Vec<f64>>,
    /// Any but [`Disc::Dss`].
    pub disc: Disc,
    /// In \[0, 1\], for [`Disc::Gbt`].
    pub alpha: f64,
    /// Whether each stored mode stands for itself and its conjugate.
    pub conjugate_pairs: bool,
    /// (d_out, N)
    pub c_reverse: Option<ComplexArray>,
    /// Whether the backward pass starts at the end of the padding.
    pub reverse_over_padding: bool,
    /// Whether eigenvalues outside the unit circle are let through.
    pub allow_unstable: bool,
}

impl DiagonalMimo {
    /// N
    pub fn modes(&self) -> usize {
        self.a.len()
    }
}

/// Mamba's S6 (Gu & Dao 2023, alg. 2): the input chooses dt, B and C at each sample.
///
/// (r, B, C) = split(x_proj x); dt = softplus(dt_proj r + dt_bias); h = exp(dt A) h + dt B x; y = C h + D x.
#[derive(Debug, Clone)]
pub struct Selective {
    /// Its place in the checkpoint.
    pub name: String,
    /// (d, N), never positive
    pub a: Array,
    /// (R + 2 N, d)
    pub x_proj: Array,
    /// (d, R)
    pub dt_proj: Array,
    /// (d,)
    pub dt_bias: Vec<f64>,
    /// (d,)
    pub d: Vec<f64>,
}

impl Selective {
    /// d
    pub fn channels(&self) -> usize {
        self.a.shape[0]
    }

    /// N
    pub fn modes(&self) -> usize {
        self.a.shape[1]
    }

    /// R
    pub fn rank(&self) -> usize {
        self.dt_proj.shape[1]
    }
}

/// One after the other; an empty one is the identity.
#[derive(Debug, Clone)]
pub struct Sequential {
    /// Its place in the checkpoint.
    pub name: String,
    /// In the order in which they run.
    pub children: Vec<Node>,
}

/// One factor, or one a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Factor {
    /// For every channel.
    All(f64),
    /// (d,)
    Each(Vec<f64>),
}

/// y = alpha skip(x) + beta child(x).
#[derive(Debug, Clone)]
pub struct Residual {
    /// Its place in the checkpoint.
    pub name: String,
    /// The branch.
    pub child: Box<Node>,
    /// `None` is the identity.
    pub skip: Option<Box<Node>>,
    /// The factor of skip(x).
    pub alpha: f64,
    /// The factor of child(x).
    pub beta: Factor,
}

/// y = left(x) * right(x), element by element.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Its place in the checkpoint.
    pub name: String,
    /// One factor.
    pub left: Box<Node>,
    /// The other.
    pub right: Box<Node>,
}

/// A layer: maps (..., d_in) to (..., d_out) at each sample; those that remember do so along time.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant is documented at the struct of the same name")]
pub enum Node {
    Linear(Linear),
    Embedding(Embedding),
    Norm(Norm),
    Activation(Activation),
    Glu(Glu),
    Conv1d(Conv1d),
    Pool(Pool),
    Diagonal(Diagonal),
    Dplr(Dplr),
    Dense(Dense),
    DiagonalMimo(DiagonalMimo),
    Selective(Selective),
    Sequential(Sequential),
    Residual(Residual),
    Gate(Gate),
}

/// A whole model.
#[derive(Debug, Clone)]
pub struct Document {
    /// The outermost node.
    pub root: Node,
    /// Numbers in one input sample; 1 for tokens.
    pub d_input: usize,
    /// Numbers in one output sample.
    pub d_output: usize,
    /// Whether the input is integer tokens: the first node is an [`Embedding`].
    pub tokens: bool,
    /// Where the model came from; never needed to run it.
    pub meta: BTreeMap<String, String>,
    /// A hash of the buffer: tells models apart.
    pub fingerprint: u64,
}

/// A hash after Fowler, Noll and Vo, of words instead of bytes. One changed word always changes it.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).chain(rest.iter().map(|&byte| byte.into()));
    words.fold(0xcbf2_9ce4_8422_2325, |h: u64, word| (h.rotate_left(29) ^ word).wrapping_mul(0x0100_0000_01b3))
}

impl Document {
    /// The Document in a buffer that `Document.to_bytes` of the Python package or an equal program wrote.
    ///
    /// # Errors
    /// [`Error::Document`], which names the node, what was expected and what was found, where
    /// * the buffer is no safetensors buffer, or its tree is missing, damaged, or nested more than 100 deep;
    /// * a node's kind, field, string or number is unknown, missing or outside its range;
    /// * a tensor is missing, unused, used twice, not finite, or has the wrong dtype or shape;
    /// * the width that one node gives is not the width that the next takes.
    pub fn parse(buffer: &[u8]) -> Result<Document> {
        let (_, metadata) = SafeTensors::read_metadata(buffer)
            .map_err(|error| Error::Document(format!("expected a safetensors buffer, found: {error}")))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).ok_or_else(|| {
            Error::Document("expected ssmrt's own format, found a safetensors buffer without its header".into())
        })?;
        let damaged = |error: serde_json::Error| Error::Document(format!("the model's tree is damaged: {error}"));
        let tree: Value = serde_json::from_str(text).map_err(damaged)?;
        let version = tree.get("version").unwrap_or(&Value::Null);
        if version.as_u64() != Some(VERSION) {
            return Err(Error::Document(format!(
                "expected format version {VERSION}, found {version}; install a newer ssmrt"
            )));
        }
        let tree: Tree = serde_json::from_value(tree).map_err(damaged)?;

        let tensors = SafeTensors::deserialize(buffer)
            .map_err(|error| Error::Document(format!("expected a safetensors buffer, found: {error}")))?;
        let mut reader = Reader { unused: tensors.tensors().into_iter().collect() };
        let root = reader.node(tree.root, "root", 0)?;
        if let Some(name) = reader.unused.keys().min() {
            return Err(Error::Document(format!("expected every tensor to belong to a node, found {name:?}")));
        }
        if !(1..=MAX_WIDTH).contains(&tree.d_input) {
            return Err(Error::Document(format!("d_input: expected 1 to {MAX_WIDTH}, found {}", tree.d_input)));
        }
        check_places(&root)?;
        let tokens = matches!(root.first(), Node::Embedding(_));
        let d_output = root.d_out_at(tree.d_input, "root")?;
        if d_output != tree.d_output {
            return Err(Error::Document(format!(
                "d_output: expected {d_output}, which the last node gives, found {}",
                tree.d_output
            )));
        }
        Ok(Document { root, d_input: tree.d_input, d_output, tokens, meta: tree.meta, fingerprint: hash(buffer) })
    }
}

impl Node {
    /// Its place in the checkpoint, which may be empty.
    pub fn name(&self) -> &str {
        match self {
            Node::Linear(n) => &n.name,
            Node::Embedding(n) => &n.name,
            Node::Norm(n) => &n.name,
            Node::Activation(n) => &n.name,
            Node::Glu(n) => &n.name,
            Node::Conv1d(n) => &n.name,
            Node::Pool(n) => &n.name,
            Node::Diagonal(n) => &n.ssm.name,
            Node::Dplr(n) => &n.ssm.name,
            Node::Dense(n) => &n.ssm.name,
            Node::DiagonalMimo(n) => &n.name,
            Node::Selective(n) => &n.name,
            Node::Sequential(n) => &n.name,
            Node::Residual(n) => &n.name,
            Node::Gate(n) => &n.name,
        }
    }

    /// What the tree calls its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Linear(_) => "linear",
            Node::Embedding(_) => "embedding",
            Node::Norm(_) => "norm",
            Node::Activation(_) => "activation",
            Node::Glu(_) => "glu",
            Node::Conv1d(_) => "conv1d",
            Node::Pool(_) => "pool",
            Node::Diagonal(_) => "diagonal",
            Node::Dplr(_) => "dplr",
            Node::Dense(_) => "dense",
            Node::DiagonalMimo(_) => "diagonal_mimo",
            Node::Selective(_) => "selective",
            Node::Sequential(_) => "sequential",
            Node::Residual(_) => "residual",
            Node::Gate(_) => "gate",
        }
    }

    /// How errors call it: its kind and name.
    pub fn label(&self) -> String {
        label(self.kind(), self.name(), "")
    }

    /// The nodes directly below it.
    pub fn branches(&self) -> Vec<&Node> {
        match self {
            Node::Sequential(n) => n.children.iter().collect(),
            Node::Residual(n) => std::iter::once(&*n.child).chain(n.skip.as_deref()).collect(),
            Node::Gate(n) => vec![&*n.left, &*n.right],
            _ => Vec::new(),
        }
    }

    /// Whether it remembers anything from one sample to the next.
    pub fn remembers(&self) -> bool {
        match self {
            Node::Conv1d(_) | Node::Pool(_) | Node::Selective(_) => true,
            Node::Diagonal(_) | Node::Dplr(_) | Node::Dense(_) | Node::DiagonalMimo(_) => true,
            _ => self.branches().into_iter().any(Node::remembers),
        }
    }

    /// The width of what it gives for an input of width `d_in`.
    ///
    /// # Errors
    /// [`Error::Document`] where it, or a node below it, does not take that width; never for the widths that
    /// a parsed Document's nodes meet.
    pub fn d_out(&self, d_in: usize) -> Result<usize> {
        self.d_out_at(d_in, "")
    }

    fn d_out_at(&self, d_in: usize, path: &str) -> Result<usize> {
        let fail = |what: String| Error::Document(format!("{}: {what}", label(self.kind(), self.name(), path)));
        let takes = |expected: usize| {
            if expected == d_in {
                Ok(())
            } else {
                Err(fail(format!("expected an input of width {expected}, found {d_in}")))
            }
        };
        let siso = |outputs: usize, channels: usize| takes(channels).map(|()| outputs * channels);
        match self {
            Node::Linear(n) => takes(n.weight.shape[1]).map(|()| n.weight.shape[0]),
            Node::Embedding(n) => takes(1).map(|()| n.weight.shape[1]),
            Node::Norm(n) => {
                n.weight.iter().chain(&n.bias).try_for_each(|v| takes(v.len()))?;
                Ok(d_in)
            }
            Node::Activation(n) => match n.size {
                Some(size) if !d_in.is_multiple_of(size) => {
                    Err(fail(format!("expected an input whose width is a multiple of {size}, found {d_in}")))
                }
                _ => Ok(d_in),
            },
            Node::Glu(_) if !d_in.is_multiple_of(2) => {
                Err(fail(format!("expected an input of even width, found {d_in}")))
            }
            Node::Glu(_) => Ok(d_in / 2),
            Node::Conv1d(n) => takes(n.weight.shape[0]).map(|()| d_in),
            Node::Pool(_) => Ok(d_in),
            Node::Diagonal(n) => siso(n.ssm.outputs(), n.ssm.channels()),
            Node::Dplr(n) => siso(n.ssm.outputs(), n.ssm.channels()),
            Node::Dense(n) => siso(n.ssm.outputs(), n.ssm.channels()),
            Node::DiagonalMimo(n) => takes(n.b.shape[1]).map(|()| n.c.shape[0]),
            Node::Selective(n) => takes(n.channels()).map(|()| d_in),
            Node::Sequential(n) => {
                let mut children = n.children.iter().enumerate();
                children.try_fold(d_in, |width, (i, child)| child.d_out_at(width, &format!("{path}.children.{i}")))
            }
            Node::Residual(n) => {
                let skip = match &n.skip {
                    Some(skip) => skip.d_out_at(d_in, &format!("{path}.skip"))?,
                    None => d_in,
                };
                let child = n.child.d_out_at(d_in, &format!("{path}.child"))?;
                if skip != child {
                    return Err(fail(format!("expected branches of equal width, found skip {skip}, child {child}")));
                }
                match &n.beta {
                    Factor::Each(beta) if beta.len() != child => {
                        Err(fail(format!("beta: expected shape ({child},), found ({},)", beta.len())))
                    }
                    _ => Ok(child),
                }
            }
            Node::Gate(n) => {
                let left = n.left.d_out_at(d_in, &format!("{path}.left"))?;
                let right = n.right.d_out_at(d_in, &format!("{path}.right"))?;
                if left != right {
                    return Err(fail(format!("expected branches of equal width, found left {left}, right {right}")));
                }
                Ok(left)
            }
        }
    }

    /// The node that meets the input.
    fn first(&self) -> &Node {
        match self {
            Node::Sequential(n) if !n.children.is_empty() => n.children[0].first(),
            _ => self,
        }
    }
}

/// Embedding only first; Pool only in the outermost Sequential, once, with nothing behind it that remembers.
fn check_places(root: &Node) -> Result<()> {
    fn walk(root: &Node, node: &Node, outermost: bool, path: &str) -> Result<()> {
        let fail = |what: &str| Err(Error::Document(format!("{}: {what}", label(node.kind(), node.name(), path))));
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
            let place = label(node.kind(), node.name(), &format!("root.children.{i}"));
            return Err(Error::Document(format!(
                "{place}: expected nothing that runs along time behind a pool, found this node"
            )));
        }
    }
    Ok(())
}

fn label(kind: &str, name: &str, path: &str) -> String {
    match (name, path) {
        ("", "") => kind.to_string(),
        ("", path) => format!("{kind} at {path}"),
        (name, _) => format!("{kind} {name:?}"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    #[serde(rename = "version")]
    _version: u64,
    d_input: usize,
    d_output: usize,
    #[serde(default)]
    meta: BTreeMap<String, String>,
    root: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum TensorReference {
    Real(String),
    Complex(String),
}

/// Makes nodes, each tensor used by one of them.
struct Reader<'d> {
    unused: HashMap<String, TensorView<'d>>,
}

impl Reader<'_> {
    fn node(&mut self, value: Value, path: &str, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(Error::Document(format!("{path}: the model's tree is nested more than {MAX_DEPTH} deep")));
        }
        let Value::Object(mut values) = value else {
            return Err(Error::Document(format!("{path}: expected a node, found {value}")));
        };
        let Some(Value::String(kind)) = values.remove(KIND_KEY) else {
            return Err(Error::Document(format!(
                "{path}: expected a node with its kind under {KIND_KEY:?}, found none"
            )));
        };
        let mut fields = Fields { label: format!("{kind} at {path}"), values, sizes: Vec::new(), reader: self };
        let name: String = fields.or("name", String::new())?;
        fields.label = label(&kind, &name, path);
        let f = &mut fields;
        let node = match kind.as_str() {
            "linear" => Node::Linear(Linear {
                name,
                weight: f.real("weight", "d_out d_in")?,
                bias: f.optional("bias", "d_out")?,
            }),
            "embedding" => Node::Embedding(Embedding { name, weight: f.real("weight", "vocabulary d_out")? }),
            "norm" => Node::Norm(Norm {
                name,
                kind: f.required("kind")?,
                weight: f.optional("weight", "d")?,
                bias: f.optional("bias", "d")?,
                eps: f.number("eps", 1e-5, 0.0, f64::MAX)?,
                shift: f.number("shift", 0.0, f64::MIN, f64::MAX)?,
            }),
            "activation" => Node::Activation(Activation {
                name,
                function: f.required("function")?,
                size: f.count("size", MAX_WIDTH)?,
            }),
            "glu" => Node::Glu(Glu { name, gate: f.gate()? }),
            "conv1d" => Node::Conv1d(Conv1d { name, weight: f.real("weight", "d K")?, bias: f.optional("bias", "d")? }),
            "pool" => Node::Pool(Pool { name, mode: f.required("mode")? }),
            "diagonal" => {
                let disc = f.or("disc", Disc::Zoh)?;
                Node::Diagonal(Diagonal {
                    ssm: f.state_space(
                        name,
                        Fields::complex,
                        if disc == Disc::Discrete { Step::None } else { Step::Any },
                    )?,
                    a: f.complex("A", "S N")?,
                    b: f.complex("B", "S N")?,
                    disc,
                    alpha: f.number("alpha", 0.5, 0.0, 1.0)?,
                    conjugate_pairs: f.or("conjugate_pairs", true)?,
                })
            }
            "dplr" => Node::Dplr(Dplr {
                ssm: f.state_space(name, Fields::complex, Step::Channel)?,
                a: f.complex("A", "S N")?,
                p: f.complex("P", "R S N")?,
                b: f.complex("B", "S N")?,
                q: f.maybe("Q", |f| f.complex("Q", "R S N"))?,
                conjugate_pairs: f.or("conjugate_pairs", true)?,
            }),
            "dense" => Node::Dense(Dense {
                ssm: f.state_space(name, Fields::real, Step::Channel)?,
                a: f.real("A", "S N N")?,
                b: f.real("B", "S N")?,
                alpha: f.number("alpha", 0.5, 0.0, 1.0)?,
            }),
            "diagonal_mimo" => f.diagonal_mimo(name)?,
            "selective" => f.selective(name)?,
            "sequential" => {
                let children: Vec<Value> = f.required("children")?;
                let children = children.into_iter().enumerate();
                let children = children.map(|(i, v)| f.reader.node(v, &format!("{path}.children.{i}"), depth + 1));
                Node::Sequential(Sequential { name, children: children.collect::<Result<_>>()? })
            }
            "residual" => Node::Residual(Residual {
                name,
                child: f.branch("child", path, depth)?,
                skip: f.maybe("skip", |f| f.branch("skip", path, depth))?,
                alpha: f.number("alpha", 1.0, f64::MIN, f64::MAX)?,
                beta: if f.values.get("beta").is_some_and(Value::is_object) {
                    Factor::Each(f.real("beta", "d")?.data)
                } else {
                    Factor::All(f.number("beta", 1.0, f64::MIN, f64::MAX)?)
                },
            }),
            "gate" => {
                Node::Gate(Gate { name, left: f.branch("left", path, depth)?, right: f.branch("right", path, depth)? })
            }
            _ => return Err(Error::Document(format!("{path}: unknown node kind {kind:?}"))),
        };
        fields.sizes_divide()?;
        match fields.values.keys().next() {
            Some(key) => Err(fields.fail(key, "expected no such field")),
            None => Ok(node),
        }
    }
}

/// Which step sizes a state-space node takes.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    None,
    Channel,
    Any,
}

/// The fields of one node, each taken once. `sizes` are its axes' names, bound by the first array that has them.
struct Fields<'r, 'd> {
    label: String,
    values: Map<String, Value>,
    sizes: Vec<(&'static str, usize)>,
    reader: &'r mut Reader<'d>,
}

impl Fields<'_, '_> {
    fn fail(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::Document(format!("{}: {key}: {what}", self.label))
    }

    fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|v| !v.is_null())
    }

    /// What `read` makes of the field, or `None` where it is null or absent.
    fn maybe<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.has(key) {
            return read(self).map(Some);
        }
        self.values.remove(key);
        Ok(None)
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T> {
        match self.values.remove(key) {
            Some(value) => serde_json::from_value(value).map_err(|error| self.fail(key, error)),
            None => Err(self.fail(key, "expected this field, found none")),
        }
    }

    fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T> {
        if self.values.contains_key(key) { self.required(key) } else { Ok(default) }
    }

    fn number(&mut self, key: &str, default: f64, low: f64, high: f64) -> Result<f64> {
        let value: f64 = self.or(key, default)?;
        if (low..=high).contains(&value) {
            return Ok(value);
        }
        let range = if high == f64::MAX { format!("a finite number >= {low}") } else { format!("{low} to {high}") };
        Err(self.fail(key, format!("expected {range}, found {value}")))
    }

    fn count(&mut self, key: &str, most: usize) -> Result<Option<usize>> {
        match self.or(key, None)? {
            Some(value) if !(1..=most).contains(&value) => {
                Err(self.fail(key, format!("expected 1 to {most}, found {value}")))
            }
            value => Ok(value),
        }
    }

    fn branch(&mut self, key: &str, path: &str, depth: usize) -> Result<Box<Node>> {
        let value = self.required(key)?;
        self.reader.node(value, &format!("{path}.{key}"), depth + 1).map(Box::new)
    }

    fn gate(&mut self) -> Result<Function> {
        let gate: Function = self.or("gate", Function::Sigmoid)?;
        if gate.mixes_channels() {
            return Err(self.fail("gate", format!("expected a function of one channel, found {gate:?}")));
        }
        Ok(gate)
    }

    fn tensor(&mut self, name: &str, key: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let Some(view) = self.reader.unused.remove(name) else {
            return Err(self.fail(key, format!("expected a tensor {name:?} that no other field uses, found none")));
        };
        let data: Vec<f64> = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            other => return Err(self.fail(key, format!("expected dtype F32 or F64, found {other:?}"))),
        };
        if let Some(i) = data.iter().position(|x| !x.is_finite()) {
            return Err(self.fail(key, format!("expected finite numbers, found {} at flat index {i}", data[i])));
        }
        Ok((view.shape().to_vec(), data))
    }

    /// A real array whose axes are the words of `axes`.
    fn real(&mut self, key: &str, axes: &'static str) -> Result<Array> {
        let TensorReference::Real(name) = self.required(key)? else {
            return Err(self.fail(key, "expected a real array, found a complex one"));
        };
        let (shape, data) = self.tensor(&name, key)?;
        self.bind(key, axes, &shape)?;
        Ok(Array { shape, data })
    }

    fn optional(&mut self, key: &str, axes: &'static str) -> Result<Option<Vec<f64>>> {
        self.maybe(key, |f| f.real(key, axes)).map(|array| array.map(|array| array.data))
    }

    /// A complex array whose axes are the words of `axes`; stored as float64 with a last axis (re, im).
    fn complex(&mut self, key: &str, axes: &'static str) -> Result<ComplexArray> {
        let TensorReference::Complex(name) = self.required(key)? else {
            return Err(self.fail(key, "expected a complex array, found a real one"));
        };
        let (mut shape, data) = self.tensor(&name, key)?;
        if shape.pop() != Some(2) {
            return Err(self.fail(key, "expected a last axis of 2, real and imaginary, found another"));
        }
        self.bind(key, axes, &shape)?;
        Ok(Array { shape, data: data.as_chunks().0.iter().map(|&[re, im]| Complex64::new(re, im)).collect() })
    }

    fn size(&self, axis: &str) -> Option<usize> {
        self.sizes.iter().find(|(name, _)| *name == axis).map(|(_, size)| *size)
    }

    fn bind(&mut self, key: &str, axes: &'static str, shape: &[usize]) -> Result<()> {
        if shape.contains(&0) {
            return Err(self.fail(key, format!("expected no empty axis, found {shape:?}")));
        }
        let expected: Vec<_> = axes.split(' ').map(|axis| (axis, self.size(axis))).collect();
        let mut fits = expected.len() == shape.len();
        for (&axis, &size) in expected.iter().map(|(axis, _)| axis).zip(shape) {
            match self.size(axis) {
                Some(known) => fits &= known == size,
                None => self.sizes.push((axis, size)),
            }
        }
        if fits {
            return Ok(());
        }
        let sizes: Vec<_> = expected
            .iter()
            .map(|(axis, size)| size.map_or_else(|| (*axis).to_string(), |size| format!("{axis}={size}")))
            .collect();
        Err(self.fail(key, format!("expected shape ({}), found {shape:?}", sizes.join(", "))))
    }

    fn sizes_divide(&self) -> Result<()> {
        match (self.size("S"), self.size("H")) {
            (Some(s), Some(h)) if !h.is_multiple_of(s) => {
                Err(self.fail("A", format!("expected a number of systems that divides the {h} channels, found {s}")))
            }
            _ => Ok(()),
        }
    }

    fn steps(&mut self, step: Step, axes: &'static str) -> Result<Option<Array>> {
        if step == Step::None {
            let what = "expected null, for the system is discrete as it stands, found an array";
            return self.maybe("dt", |f| Err(f.fail("dt", what)));
        }
        if !self.has("dt") {
            return Err(self.fail("dt", "expected an array, found null"));
        }
        let TensorReference::Real(name) = self.required("dt")? else {
            return Err(self.fail("dt", "expected a real array, found a complex one"));
        };
        let (shape, data) = self.tensor(&name, "dt")?;
        self.bind("dt", if step == Step::Any && shape.len() == 2 { "H N" } else { axes }, &shape)?;
        match data.iter().position(|&dt| dt <= 0.0) {
            Some(i) => {
                Err(self.fail("dt", format!("expected positive step sizes, found {} at flat index {i}", data[i])))
            }
            None => Ok(Some(Array { shape, data })),
        }
    }

    fn state_space<T>(
        &mut self,
        name: String,
        array: impl Fn(&mut Self, &str, &'static str) -> Result<Array<T>>,
        step: Step,
    ) -> Result<StateSpace<T>> {
        Ok(StateSpace {
            name,
            c: array(self, "C", "M H N")?,
            d: self.real("D", "M H")?,
            dt: self.steps(step, "H")?,
            c_reverse: self.maybe("C_reverse", |f| array(f, "C_reverse", "M H N"))?,
            kernel_length: self.count("kernel_length", MAX_KERNEL_LENGTH)?,
            head_major: self.or("head_major", false)?,
            allow_unstable: self.or("allow_unstable", false)?,
        })
    }

    fn diagonal_mimo(&mut self, name: String) -> Result<Node> {
        let disc = self.or("disc", Disc::Zoh)?;
        if disc == Disc::Dss {
            return Err(self.fail("disc", "expected one that is a recurrence, found \"dss\""));
        }
        let node = DiagonalMimo {
            name,
            a: self.complex("A", "N")?.data,
            b: self.complex("B", "N d_in")?,
            c: self.complex("C", "d_out N")?,
            d: self.optional("D", "d_out")?,
            dt: self.steps(if disc == Disc::Discrete { Step::None } else { Step::Channel }, "N")?.map(|dt| dt.data),
            disc,
            alpha: self.number("alpha", 0.5, 0.0, 1.0)?,
            conjugate_pairs: self.or("conjugate_pairs", true)?,
            c_reverse: self.maybe("C_reverse", |f| f.complex("C_reverse", "d_out N"))?,
            reverse_over_padding: self.or("reverse_over_padding", false)?,
            allow_unstable: self.or("allow_unstable", false)?,
        };
        if node.d.is_some() && node.b.shape[1] != node.c.shape[0] {
            let (d_in, d_out) = (node.b.shape[1], node.c.shape[0]);
            return Err(
                self.fail("D", format!("expected null, for {d_in} inputs are not {d_out} outputs, found an array"))
            );
        }
        Ok(Node::DiagonalMimo(node))
    }

    fn selective(&mut self, name: String) -> Result<Node> {
        let a = self.real("A", "d N")?;
        if let Some(i) = a.data.iter().position(|&a| a > 0.0) {
            return Err(self.fail("A", format!("expected no positive number, found {} at flat index {i}", a.data[i])));
        }
        let dt_proj = self.real("dt_proj", "d R")?;
        self.sizes.push(("R+2N", dt_proj.shape[1] + 2 * a.shape[1]));
        Ok(Node::Selective(Selective {
            name,
            x_proj: self.real("x_proj", "R+2N d")?,
            dt_bias: self.real("dt_bias", "d")?.data,
            d: self.real("D", "d")?.data,
            a,
            dt_proj,
        }))
    }
}

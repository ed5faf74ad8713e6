//! Random Documents for the engine's tests.
#![allow(dead_code, reason = "each test file uses some of it")]

use num_complex::Complex64;
use ssmrt_core::discretize::Disc;
use ssmrt_core::document::{
    Activation, Array, Conv1d, Dense, Diagonal, DiagonalMimo, Document, Dplr, Embedding, Factor, Function, Gate, Glu,
    Linear, Node, Norm, NormKind, Pool, PoolMode, Residual, Selective, Sequential, StateSpace,
};

/// Numbers that look random, the same for the same seed (Vigna's splitmix64).
pub struct Random(pub u64);

impl Random {
    /// In [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn real(&mut self, shape: &[usize], low: f64, high: f64) -> Array {
        Array { shape: shape.to_vec(), data: (0..shape.iter().product()).map(|_| self.uniform(low, high)).collect() }
    }

    pub fn complex(&mut self, shape: &[usize], re: (f64, f64), im: (f64, f64)) -> Array<Complex64> {
        let n = shape.iter().product();
        let data = (0..n).map(|_| Complex64::new(self.uniform(re.0, re.1), self.uniform(im.0, im.1))).collect();
        Array { shape: shape.to_vec(), data }
    }

    pub fn samples(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.uniform(-1.0, 1.0)).collect()
    }

    fn steps(&mut self, h: usize) -> Array {
        Array { shape: vec![h], data: (0..h).map(|_| 10f64.powf(self.uniform(-3.0, -1.0))).collect() }
    }
}

/// A layer's sizes: channels, modes, outputs a channel.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub h: usize,
    pub n: usize,
    pub m: usize,
}

fn ssm<T>(r: &mut Random, s: Sizes, c: Array<T>) -> StateSpace<T> {
    StateSpace {
        name: "layer".into(),
        c,
        d: r.real(&[s.m, s.h], -1.0, 1.0),
        dt: Some(r.steps(s.h)),
        c_reverse: None,
        kernel_length: None,
        head_major: s.m.is_multiple_of(2),
        allow_unstable: false,
    }
}

pub fn diagonal(seed: u64, s: Sizes, disc: Disc, conjugate_pairs: bool) -> Node {
    let mut r = Random(seed);
    let c = r.complex(&[s.m, s.h, s.n], (-1.0, 1.0), (-1.0, 1.0));
    Node::Diagonal(Diagonal {
        ssm: ssm(&mut r, s, c),
        a: r.complex(&[s.h, s.n], (-3.0, -0.2), (-30.0, 30.0)),
        b: r.complex(&[s.h, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        disc,
        alpha: 0.5,
        conjugate_pairs,
    })
}

pub fn dplr(seed: u64, s: Sizes, rank: usize, conjugate_pairs: bool) -> Node {
    let mut r = Random(seed);
    let c = r.complex(&[s.m, s.h, s.n], (-1.0, 1.0), (-1.0, 1.0));
    Node::Dplr(Dplr {
        ssm: ssm(&mut r, s, c),
        a: r.complex(&[1, s.n], (-3.0, -0.2), (-30.0, 30.0)),
        p: r.complex(&[rank, 1, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        b: r.complex(&[1, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        q: None,
        conjugate_pairs,
    })
}

pub fn dense(seed: u64, s: Sizes, alpha: f64) -> Node {
    let mut r = Random(seed);
    let c = r.real(&[s.m, s.h, s.n], -1.0, 1.0);
    let mut a = r.real(&[1, s.n, s.n], -2.0, 2.0);
    for i in 0..s.n {
        for j in 0..i {
            a.data[i * s.n + j] = -a.data[j * s.n + i];
        }
        a.data[i * s.n + i] = r.uniform(-3.0, -1.0);
    }
    Node::Dense(Dense { ssm: ssm(&mut r, s, c), a, b: r.real(&[1, s.n], -1.0, 1.0), alpha })
}

pub fn mimo(seed: u64, s: Sizes, disc: Disc) -> Node {
    let mut r = Random(seed);
    Node::DiagonalMimo(DiagonalMimo {
        name: "layer".into(),
        a: r.complex(&[s.n], (-3.0, -0.2), (-30.0, 30.0)).data,
        b: r.complex(&[s.n, s.h], (-1.0, 1.0), (-1.0, 1.0)),
        c: r.complex(&[s.h, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        d: Some(r.samples(s.h)),
        dt: Some(r.steps(s.n).data),
        disc,
        alpha: 0.5,
        conjugate_pairs: true,
        c_reverse: None,
        reverse_over_padding: false,
        allow_unstable: false,
    })
}

pub fn selective(seed: u64, h: usize, n: usize) -> Node {
    let mut r = Random(seed);
    Node::Selective(Selective {
        name: "layer".into(),
        a: r.real(&[h, n], -5.0, -0.2),
        x_proj: r.real(&[2 + 2 * n, h], -0.5, 0.5),
        dt_proj: r.real(&[h, 2], -0.5, 0.5),
        dt_bias: r.real(&[h], -5.0, -2.0).data,
        d: r.samples(h),
    })
}

pub fn linear(seed: u64, d_in: usize, d_out: usize) -> Node {
    let mut r = Random(seed);
    let scale = 1.0 / (d_in as f64).sqrt();
    Node::Linear(Linear {
        name: String::new(),
        weight: r.real(&[d_out, d_in], -scale, scale),
        bias: Some(r.samples(d_out)),
    })
}

pub fn sequential(children: Vec<Node>) -> Node {
    Node::Sequential(Sequential { name: String::new(), children })
}

pub fn activation(function: Function) -> Node {
    Node::Activation(Activation { name: String::new(), function, size: None })
}

/// One layer alone.
pub fn alone(node: Node, s: Sizes) -> Document {
    let outputs = if matches!(node, Node::DiagonalMimo(_) | Node::Selective(_)) { s.h } else { s.m * s.h };
    document(node, s.h, outputs, false)
}

fn document(root: Node, d_input: usize, d_output: usize, tokens: bool) -> Document {
    Document { root, d_input, d_output, tokens, meta: Default::default(), fingerprint: 1 }
}

/// A model with every kind of node, of samples or of tokens.
pub fn everything(h: usize, tokens: bool) -> Document {
    let sizes = Sizes { h, n: 4, m: 1 };
    let norm = |kind| {
        let mut r = Random(7);
        let (weight, bias) = (Some(r.samples(h)), Some(r.samples(h)));
        Node::Norm(Norm { name: String::new(), kind, weight, bias, eps: 1e-5, shift: 0.0 })
    };
    let residual = |children| {
        let (child, skip) = (Box::new(sequential(children)), Some(Box::new(linear(3, h, h))));
        Node::Residual(Residual { name: String::new(), child, skip, alpha: 0.5, beta: Factor::All(1.0) })
    };
    let glu = || Node::Glu(Glu { name: String::new(), gate: Function::Sigmoid });
    let conv = Node::Conv1d(Conv1d { name: String::new(), weight: Random(9).real(&[h, 4], -1.0, 1.0), bias: None });
    let mut cut = diagonal(5, sizes, Disc::Bilinear, false);
    if let Node::Diagonal(node) = &mut cut {
        node.ssm.kernel_length = Some(9);
    }
    let first = if tokens {
        Node::Embedding(Embedding { name: String::new(), weight: Random(1).real(&[5, h], -1.0, 1.0) })
    } else {
        linear(1, 2, h)
    };
    let mamba = Node::Gate(Gate {
        name: String::new(),
        left: Box::new(sequential(vec![conv, activation(Function::Silu), selective(6, h, 4)])),
        right: Box::new(sequential(vec![linear(8, h, h), activation(Function::Silu)])),
    });
    let root = sequential(vec![
        first,
        residual(vec![
            norm(NormKind::Layer),
            diagonal(2, sizes, Disc::Zoh, true),
            activation(Function::Gelu),
            linear(4, h, 2 * h),
            glu(),
        ]),
        residual(vec![dplr(3, sizes, 2, true), activation(Function::Tanh), norm(NormKind::Rms)]),
        residual(vec![dense(4, sizes, 0.5), norm(NormKind::Affine), cut]),
        residual(vec![mimo(5, sizes, Disc::Zoh), mamba]),
        Node::Pool(Pool { name: String::new(), mode: PoolMode::Mean }),
        linear(10, h, 3),
        activation(Function::LogSoftmax),
    ]);
    document(root, if tokens { 1 } else { 2 }, 3, tokens)
}

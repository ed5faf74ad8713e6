//! Random Documents for the engine's tests.

use num_complex::Complex64;
use ssmrt_core::internals::discretize::Scheme;
use ssmrt_core::internals::document::{
    Activation, ActivationFunction, Array, Conv1d, Dense, Diagonal, DiagonalMimo, Dplr, Embedding, Factor, Gate, Glu,
    Linear, Linoss, Matrix, Node, Norm, Pool, PoolMode, Residual, Selective, Sequential, Ssd, StateSpace,
};
use ssmrt_core::internals::kernels::norm::NormKind;
use ssmrt_core::internals::kernels::pointwise::Function;
use ssmrt_core::{Disc, Document, Facts, Isa, Model, Plan, Precision, Team};
use std::sync::Arc;

/// The plan of a Document for rate 1.
pub fn plan<E: Precision>(document: &Document, isa: Isa) -> Arc<Plan<E>> {
    Model::new(document.clone(), isa, &Team::ALONE).unwrap().plan(1.0, &Team::ALONE).unwrap()
}

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
        Array::new(shape, (0..shape.iter().product()).map(|_| self.uniform(low, high)).collect())
    }

    pub fn complex(&mut self, shape: &[usize], re: (f64, f64), im: (f64, f64)) -> Array<Complex64> {
        let n = shape.iter().product();
        Array::new(shape, (0..n).map(|_| Complex64::new(self.uniform(re.0, re.1), self.uniform(im.0, im.1))).collect())
    }

    pub fn samples(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.uniform(-1.0, 1.0)).collect()
    }

    pub fn matrix(&mut self, shape: [usize; 2], low: f64, high: f64) -> Matrix {
        Matrix::of(shape, &self.real(&shape, low, high).data)
    }

    fn vector(&mut self, n: usize) -> Array {
        Array::new(&[n], self.samples(n))
    }

    fn steps(&mut self, h: usize) -> Array {
        Array::new(&[h], (0..h).map(|_| 10f64.powf(self.uniform(-3.0, -1.0))).collect())
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
        name: "layer".into(),
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
        name: "layer".into(),
        ssm: ssm(&mut r, s, c),
        a: r.complex(&[1, s.n], (-3.0, -0.2), (-30.0, 30.0)),
        p: r.complex(&[rank, 1, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        b: r.complex(&[1, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        q: None,
        conjugate_pairs,
        spectra: Default::default(),
    })
}

pub fn dense(seed: u64, s: Sizes, alpha: f64) -> Node {
    let mut r = Random(seed);
    let c = r.real(&[s.m, s.h, s.n], -1.0, 1.0);
    let mut a = r.real(&[1, s.n, s.n], -2.0, 2.0).data.to_vec();
    for i in 0..s.n {
        for j in 0..i {
            a[i * s.n + j] = -a[j * s.n + i];
        }
        a[i * s.n + i] = r.uniform(-3.0, -1.0);
    }
    let (ssm, a) = (ssm(&mut r, s, c), Array::new(&[1, s.n, s.n], a));
    let schur = Default::default();
    Node::Dense(Dense {
        name: "layer".into(),
        ssm,
        a,
        b: r.real(&[1, s.n], -1.0, 1.0),
        disc: Disc::Gbt,
        alpha,
        x0: None,
        schur,
    })
}

pub fn mimo(seed: u64, s: Sizes, disc: Disc) -> Node {
    let mut r = Random(seed);
    Node::DiagonalMimo(DiagonalMimo {
        name: "layer".into(),
        a: r.complex(&[s.n], (-3.0, -0.2), (-30.0, 30.0)),
        b: r.complex(&[s.n, s.h], (-1.0, 1.0), (-1.0, 1.0)),
        c: r.complex(&[s.h, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        d: Some(r.vector(s.h)),
        dt: Some(r.steps(s.n)),
        disc,
        alpha: 0.5,
        conjugate_pairs: true,
        c_reverse: None,
        reverse_over_padding: false,
        allow_unstable: false,
        x0: None,
    })
}

/// Oscillators with damping, or without.
pub fn linoss(seed: u64, s: Sizes, disc: Scheme) -> Node {
    let mut r = Random(seed);
    Node::Linoss(Linoss {
        name: "layer".into(),
        a: r.real(&[s.n], 0.0, 300.0),
        b: r.complex(&[s.n, s.h], (-1.0, 1.0), (-1.0, 1.0)),
        c: r.complex(&[s.h, s.n], (-1.0, 1.0), (-1.0, 1.0)),
        d: Some(r.vector(s.h)),
        dt: r.steps(s.n),
        g: (disc == Scheme::Imex).then(|| r.real(&[s.n], 0.2, 9.0)),
        disc,
        allow_unstable: false,
    })
}

pub fn selective(seed: u64, h: usize, n: usize) -> Node {
    let mut r = Random(seed);
    Node::Selective(Selective {
        name: "layer".into(),
        a: r.real(&[h, n], -5.0, -0.2),
        x_proj: r.matrix([2 + 2 * n, h], -0.5, 0.5),
        dt_proj: r.matrix([h, 2], -0.5, 0.5),
        dt_bias: r.real(&[h], -5.0, -2.0),
        d: r.vector(h),
        norm_eps: seed.is_multiple_of(2).then_some(1e-3),
        dt_norm: None,
        b_norm: seed.is_multiple_of(4).then(|| r.vector(n)),
        c_norm: None,
        x0: None,
    })
}

/// Heads of one channel, or of several where there is an even number; groups of one head or two.
pub fn ssd(seed: u64, h: usize, n: usize) -> Node {
    let mut r = Random(seed);
    let heads = if h.is_multiple_of(2) { h / 2 } else { h };
    let groups = if heads.is_multiple_of(2) { heads / 2 } else { heads };
    Node::Ssd(Ssd {
        name: "layer".into(),
        xbc: Box::new(linear(seed + 1, h, h + 2 * groups * n)),
        dt: Box::new(linear(seed + 2, h, heads)),
        a: r.real(&[heads], -5.0, -0.2),
        dt_bias: r.real(&[heads], -5.0, -2.0),
        d: r.vector(h),
        d_state: n,
        groups,
        dt_min: 0.001,
        dt_max: seed.is_multiple_of(2).then_some(0.1),
        disc: if seed.is_multiple_of(3) { Disc::Zoh } else { Disc::Euler },
        x0: None,
    })
}

pub fn linear(seed: u64, d_in: usize, d_out: usize) -> Node {
    let mut r = Random(seed);
    let scale = 1.0 / (d_in as f64).sqrt();
    Node::Linear(Linear {
        name: String::new(),
        weight: r.matrix([d_out, d_in], -scale, scale),
        bias: Some(r.vector(d_out)),
    })
}

pub fn sequential(children: Vec<Node>) -> Node {
    Node::Sequential(Sequential { name: String::new(), children })
}

pub fn activation(function: Function) -> Node {
    activation_of(ActivationFunction::Pointwise(function))
}

fn activation_of(function: ActivationFunction) -> Node {
    Node::Activation(Activation { name: String::new(), function, size: None })
}

/// One layer alone.
pub fn alone(node: Node, s: Sizes) -> Document {
    Document::new(node, s.h, Facts::default()).unwrap()
}

/// A model with every kind of node, of samples or of tokens.
pub fn everything(h: usize, tokens: bool) -> Document {
    let sizes = Sizes { h, n: 4, m: 1 };
    let norm = |kind| {
        let mut r = Random(7);
        let (weight, bias) = (Some(r.vector(h)), Some(r.vector(h)));
        Node::Norm(Norm { name: String::new(), kind, weight, bias, eps: 1e-5, shift: 0.0, size: None })
    };
    let residual = |children| {
        let (child, skip) = (Box::new(sequential(children)), Some(Box::new(linear(3, h, h))));
        Node::Residual(Residual { name: String::new(), child, skip, alpha: 0.5, beta: Factor::All(1.0) })
    };
    let glu = || Node::Glu(Glu { name: String::new(), gate: Function::Sigmoid });
    let conv =
        Node::Conv1d(Conv1d { name: String::new(), weight: Random(9).real(&[h, 4], -1.0, 1.0), bias: None, x0: None });
    let mut cut = diagonal(5, sizes, Disc::Bilinear, false);
    if let Node::Diagonal(node) = &mut cut {
        node.ssm.kernel_length = Some(9);
    }
    let first = if tokens {
        Node::Embedding(Embedding { name: String::new(), weight: Random(1).matrix([5, h], -1.0, 1.0) })
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
        residual(vec![mimo(5, sizes, Disc::Zoh), mamba, ssd(11, h, 4)]),
        Node::Pool(Pool { name: String::new(), mode: PoolMode::Mean }),
        linear(10, h, 3),
        activation_of(ActivationFunction::LogSoftmax),
    ]);
    Document::new(root, if tokens { 1 } else { 2 }, Facts::default()).unwrap()
}

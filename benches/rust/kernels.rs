//! The kernels one by one, at the sizes of a whole model: `cargo bench -p ssmrt-core`.
//!
//! Throughput is in multiply-adds where a kernel is made of them (compare with `--example fma_peak`, which counts
//! each as two operations), else in elements.

// The macros of criterion make undocumented functions.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use num_complex::Complex64;
use ssmrt_core::kernels::diagonal::{DiagonalModes, Mode};
use ssmrt_core::kernels::linear::{Epilogue, Linear};
use ssmrt_core::kernels::modal::Modal;
use ssmrt_core::kernels::norm::{Norm, NormKind, Residual};
use ssmrt_core::kernels::pointwise::{self, Function};
use ssmrt_core::kernels::{Aligned, GROUP, Isa, padded};
use std::hint::black_box;

const D: usize = 64;
const MODES: usize = 32;
/// One sample, and a block of a sequence.
const ROWS: [usize; 2] = [1, 512];

/// Numbers between -1 and 1 that no kernel can guess.
fn numbers(n: usize) -> Vec<f64> {
    (0..n).map(|i| (i as f64 * 12.9898).sin()).collect()
}

fn aligned(n: usize) -> Aligned<f32> {
    numbers(n).into_iter().map(|x| x as f32).collect()
}

fn diagonal(c: &mut Criterion) {
    let mut group = c.benchmark_group("diagonal");
    let modes = DiagonalModes::<f32>::new(MODES, true, |lane, n| Mode {
        delta: Complex64::new(-0.01, 0.1 * (n + lane) as f64).exp() - 1.0,
        c: Complex64::new(0.3, 0.2),
        gain: Complex64::new(1.0, 0.0),
    });
    let mut state = Aligned::zeros(modes.state_len());
    for rows in ROWS {
        let (u, mut y) = (aligned(rows * GROUP), Aligned::zeros(rows * GROUP));
        group.throughput(Throughput::Elements((rows * GROUP * MODES * 6) as u64));
        for isa in Isa::all() {
            group.bench_function(format!("{} x{rows}", isa.name()), |b| {
                b.iter(|| modes.scan(isa, 0, rows, black_box(&u), &mut y, &mut state));
            });
        }
    }
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear and glu");
    let (weight, bias) = (numbers(2 * D * D), numbers(2 * D));
    let linear = Linear::<f32>::new(D, D, |row, k| weight[row * D + k], Some(&bias), Epilogue::Glu(Function::Sigmoid));
    for rows in ROWS {
        let (x, mut y) = (aligned(rows * padded(D)), Aligned::zeros(rows * padded(D)));
        group.throughput(Throughput::Elements((rows * 2 * D * D) as u64));
        for isa in Isa::all() {
            group.bench_function(format!("{} x{rows}", isa.name()), |b| {
                b.iter(|| linear.run(isa, rows, black_box(&x), &mut y));
            });
        }
    }
}

fn norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("residual and norm");
    let scale = numbers(D);
    let norm = Norm::<f32>::new(NormKind::Layer, D, Some(&scale), Some(&scale), 1e-5, 0.0);
    let residual = Residual::new(D, 1.0, &[1.0], Some(norm));
    for rows in ROWS {
        let (x, z) = (aligned(rows * padded(D)), aligned(rows * padded(D)));
        let mut y = Aligned::zeros(rows * padded(D));
        group.throughput(Throughput::Elements((rows * D) as u64));
        for isa in Isa::all() {
            group.bench_function(format!("{} x{rows}", isa.name()), |b| {
                b.iter(|| residual.run(isa, rows, black_box(&x), &z, &mut y));
            });
        }
    }
}

fn functions(c: &mut Criterion) {
    let mut group = c.benchmark_group("function");
    let rows = ROWS[1];
    let x = aligned(rows * padded(D));
    let mut y = Aligned::zeros(x.len());
    group.throughput(Throughput::Elements((rows * D) as u64));
    let isa = Isa::all()[0];
    for &function in Function::ALL {
        group.bench_function(function.name(), |b| {
            b.iter(|| {
                y.copy_from_slice(black_box(&x));
                pointwise::run(isa, function, rows, D, &mut y);
            });
        });
    }
}

criterion_group!(kernels, diagonal, linear, norm, functions);
criterion_main!(kernels);

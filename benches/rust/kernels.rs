//! The kernels one by one, at the sizes of a whole model: `cargo bench -p ssmrt-core`.
//!
//! Throughput is in multiply-adds where a kernel is made of them (compare with `--example fma_peak`, which counts
//! each as two operations), else in elements.

// The macros of criterion make undocumented functions.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use num_complex::Complex64;
use ssmrt_core::internals::Named;
use ssmrt_core::internals::kernels::diagonal::{DiagonalModes, Mode};
use ssmrt_core::internals::kernels::linear::{Epilogue, Linear};
use ssmrt_core::internals::kernels::modal::Modal;
use ssmrt_core::internals::kernels::norm::{Norm, NormKind, Residual};
use ssmrt_core::internals::kernels::pointwise::{self, Function};
use ssmrt_core::internals::kernels::selective::Selective;
use ssmrt_core::internals::kernels::ssd::{Sizes, Ssd, Steps};
use ssmrt_core::internals::kernels::{Aligned, GROUP, Isa, padded};
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
    let linear =
        Linear::<f32>::new(D, D, |row, k| weight[row * D + k], Some(&bias), Epilogue::Glu(Function::Sigmoid)).unwrap();
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
    for &(name, function) in Function::NAMES {
        group.bench_function(name, |b| {
            b.iter(|| {
                y.copy_from_slice(black_box(&x));
                pointwise::run(isa, function, rows, D, &mut y);
            });
        });
    }
}

/// A layer of mamba-130m's shape, either generation.
fn mamba(c: &mut Criterion) {
    const CHANNELS: usize = 1536;
    let d = numbers(CHANNELS);
    let a: Vec<f64> = (0..CHANNELS * 16).map(|i| -1.0 - (i % 16) as f64).collect();
    let first = Selective::<f32>::new(&a, &d, 1.0);
    let second = Ssd::<f32>::new(Sizes { channels: CHANNELS, heads: 24, groups: 1, modes: 128 }, &d);
    let steps = Steps::<f32>::new(&a[..24], &a[..24], (0.0, f64::INFINITY), 1.0, false);
    let mut group = c.benchmark_group("mamba");
    for rows in ROWS {
        let (x, mut y) = (aligned(rows * CHANNELS), Aligned::zeros(rows * CHANNELS));
        let dt: Aligned<f32> = x.iter().map(|x| 0.05 + 0.04 * x).collect();
        let bc = aligned(rows * padded(2 * 16));
        let mut state = Aligned::zeros(first.groups() * first.group_state_len());
        let (xbc, mut made) =
            (aligned(rows * padded(second.input_width())), Aligned::zeros(rows * Steps::<f32>::width(24)));
        steps.run(Isa::all()[0], rows, 1.0, &x, &mut made);
        let mut states = Aligned::zeros(second.tiles() * second.tile_state_len());
        group.throughput(Throughput::Elements((rows * CHANNELS) as u64));
        for isa in Isa::all() {
            group.bench_function(format!("selective {} x{rows}", isa.name()), |b| {
                // SAFETY: y has so many rows.
                b.iter(|| unsafe {
                    first.run(isa, rows, 1.0, 0..first.groups(), [black_box(&x), &dt, &bc], &mut state, y.as_mut_ptr());
                });
            });
            group.bench_function(format!("ssd {} x{rows}", isa.name()), |b| {
                // SAFETY: y has so many rows.
                b.iter(|| unsafe {
                    second.run(isa, rows, 0..second.tiles(), black_box(&xbc), &made, &mut states, y.as_mut_ptr());
                });
            });
        }
    }
}

criterion_group!(kernels, diagonal, linear, norm, functions, mamba);
criterion_main!(kernels);

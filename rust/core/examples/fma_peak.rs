//! The float32 multiply-adds that this machine can do, measured: registers only, no memory.
//!
//! `cargo run --release --example fma_peak [-- THREADS]` prints one line of JSON. A multiply-add counts as two
//! operations, as is usual for GFLOP/s. On more than one thread the figure is the sum.

#![allow(clippy::print_stdout)]

use ssmrt_core::Isa;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Independent chains: more than latency times issue width, and with two constants within 16 registers.
const CHAINS: usize = 12;
const STEPS: usize = 200_000;
const ROUNDS: usize = 40;

/// Multiply-adds a second of each of `ROUNDS` short runs.
fn rates(isa: Isa) -> Vec<f64> {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let fma = chains(isa);
            fma as f64 / start.elapsed().as_secs_f64()
        })
        .collect()
}

/// Runs the chains and says how many multiply-adds that was.
fn chains(isa: Isa) -> usize {
    match isa {
        // SAFETY: `Isa::all` names what the machine has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => unsafe { avx512() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => unsafe { avx2() },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) => unsafe { neon() },
        _ => scalar(),
    }
}

macro_rules! chains {
    ($name:ident, $features:literal, $lanes:literal, $splat:path, $fma:expr) => {
        #[target_feature(enable = $features)]
        fn $name() -> usize {
            let mut sums = [$splat(black_box(1.0)); CHAINS];
            let (a, b) = ($splat(black_box(0.999_9)), $splat(black_box(1e-4)));
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = $fma(*sum, a, b);
                }
            }
            black_box(sums);
            STEPS * CHAINS * $lanes
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;
#[cfg(target_arch = "x86_64")]
chains!(avx512, "avx512f", 16, x86::_mm512_set1_ps, |x, a, b| x86::_mm512_fmadd_ps(x, a, b));
#[cfg(target_arch = "x86_64")]
chains!(avx2, "avx2,fma", 8, x86::_mm256_set1_ps, |x, a, b| x86::_mm256_fmadd_ps(x, a, b));
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64 as arm;
#[cfg(target_arch = "aarch64")]
chains!(neon, "neon", 4, arm::vdupq_n_f32, |x, a, b| arm::vfmaq_f32(b, x, a));

fn scalar() -> usize {
    let mut sums = [black_box(1.0f32); CHAINS];
    let (a, b) = (black_box(0.999_9f32), black_box(1e-4f32));
    for _ in 0..STEPS / 16 {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    STEPS / 16 * CHAINS
}

fn main() {
    let threads: usize = std::env::args().nth(1).map_or(1, |n| n.parse().expect("a number of threads"));
    let all = Isa::all();
    let lines: Vec<String> = all
        .iter()
        .map(|&isa| {
            let barrier = Barrier::new(threads);
            let sums = std::thread::scope(|scope| {
                let run = || {
                    barrier.wait();
                    rates(isa)
                };
                let started: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                started
                    .into_iter()
                    .map(|t| t.join().expect("a thread"))
                    .reduce(|sum, more| sum.iter().zip(more).map(|(x, y)| x + y).collect::<Vec<f64>>())
            });
            let mut rates = sums.expect("at least one thread");
            rates.sort_by(f64::total_cmp);
            let gflops = |rate: f64| 2e-9 * rate;
            let (best, median) = (gflops(rates[ROUNDS - 1]), gflops(rates[ROUNDS / 2]));
            format!("\"{}\": {{\"best\": {best:.2}, \"median\": {median:.2}}}", isa.name())
        })
        .collect();
    println!("{{\"unit\": \"GFLOP/s\", \"threads\": {threads}, {}}}", lines.join(", "));
}

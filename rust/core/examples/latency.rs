//! How long one sample, or one block of samples, takes in a process without Python.
//!
//! `cargo run --release --example latency -- MODEL.ssm.safetensors [--steps N] [--streams S] [--block B]
//! [--silence] [--raw FILE]` prints one line of JSON: nanoseconds a call. `--raw` writes each call's time as a
//! little-endian u32; `--silence` feeds a second of sound and then zeros, so that the states decay. The "floor"
//! is the p99.9 of a loop in registers that lasts as long as the median call: what the machine itself interrupts.

#![allow(clippy::print_stdout)]

use ssmrt_core::{Document, Input, Isa, Model, Stream, Team};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

struct Options {
    model: String,
    steps: usize,
    streams: usize,
    block: usize,
    silence: bool,
    raw: Option<String>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("expected the path of a .ssm.safetensors file")?;
    let mut o = Options { model, steps: 100_000, streams: 1, block: 1, silence: false, raw: None };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag}: expected a value"));
        match flag.as_str() {
            "--steps" => o.steps = value()?.parse()?,
            "--streams" => o.streams = value()?.parse()?,
            "--block" => o.block = value()?.parse()?,
            "--silence" => o.silence = true,
            "--raw" => o.raw = Some(value()?),
            _ => return Err(format!("{flag}: no such option").into()),
        }
    }
    if o.steps == 0 || o.streams == 0 || o.block == 0 {
        return Err("--steps, --streams, --block: expected at least one".into());
    }
    Ok(o)
}

/// Noise between -0.1 and 0.1, the same in every run (Numerical Recipes' generator).
fn noise(n: usize) -> Vec<f32> {
    let mut seed = 1u32;
    (0..n)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / 8_388_608.0 * 0.1 - 0.1
        })
        .collect()
}

/// Arithmetic in registers for `turns` turns.
fn spin(turns: usize) {
    let mut x = black_box(1u64);
    for _ in 0..turns {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    black_box(x);
}

/// Nanoseconds of `times.len()` spins that last about `wanted` each, sorted.
fn floor(times: &mut [u32], wanted: u32) {
    let turns = 1 << 20;
    let quickest = (0..8).map(|_| {
        let start = Instant::now();
        spin(turns);
        start.elapsed().as_nanos()
    });
    let turns = turns * wanted as usize / quickest.min().expect("eight").max(1) as usize;
    for time in &mut *times {
        let start = Instant::now();
        spin(turns);
        *time = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
    }
    times.sort_unstable();
}

fn quantile(sorted: &[u32], q: f64) -> u32 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn main() -> Result<(), Box<dyn Error>> {
    let o = options()?;
    let started = Instant::now();
    let team = Team::all()?;
    let model = Model::<f32>::new(Document::parse(std::fs::read(&o.model)?)?, Isa::choose()?, &team)?;
    let plan = model.plan(1.0, &team)?;
    let mut stream = Stream::new(Arc::clone(&plan), o.streams)?;
    let a_call = o.streams * o.block * plan.d_input();
    let mut y = vec![0.0; o.streams * o.block * plan.d_output()];
    let sound = noise(a_call.max(16_000).next_multiple_of(a_call));
    let zeros = vec![0.0; a_call];
    let mut times = vec![0u32; o.steps];
    stream.push(Input::Real(&sound[..a_call]), o.block, None, &mut y)?;
    let load = started.elapsed().as_secs_f64();

    let pieces = sound.len() / a_call;
    for i in 0..pieces.min(1000) {
        stream.push(Input::Real(&sound[i * a_call..][..a_call]), o.block, None, &mut y)?;
    }
    for (i, time) in times.iter_mut().enumerate() {
        let silent = o.silence && i * o.block > 16_000;
        let at = i % pieces * a_call;
        let x = if silent { &zeros[..] } else { &sound[at..at + a_call] };
        let start = Instant::now();
        stream.push(Input::Real(black_box(x)), o.block, None, &mut y)?;
        *time = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
        black_box(&y);
    }

    if let Some(path) = &o.raw {
        std::fs::write(path, times.iter().flat_map(|t| t.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    times.sort_unstable();
    let figures =
        [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)]
            .map(|(name, q)| format!("\"{name}\": {}", quantile(&times, q)))
            .join(", ");
    let median = quantile(&times, 0.5);
    floor(&mut times, median);
    println!(
        "{{\"isa\": \"{}\", \"streams\": {}, \"block\": {}, \"calls\": {}, \"load_s\": {load:.4}, {figures}, \
         \"floor_p50\": {}, \"floor_p99.9\": {}, \"finite\": {}}}",
        plan.isa().name(),
        o.streams,
        o.block,
        o.steps,
        quantile(&times, 0.5),
        quantile(&times, 0.999),
        y.iter().all(|y| y.is_finite()),
    );
    Ok(())
}

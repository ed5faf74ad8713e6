#!/usr/bin/env bash
# Guess: serde_json reads the shortest decimal text of an f64 back to the same f64, as str::parse does.
# What happens: with default features about one in ten random numbers between 0 and 1 comes back as the
# f64 next to it. The feature "float_roundtrip" cures it.
# For readers of trained models: parameters that go through JSON in Rust change in the last bit,
# so a model read twice by different routes is not equal to itself.
# Crate: serde_json 1.0.154. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR="$work/target"
mkdir "$work/src"

cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
serde_json = "=1.0.154"
TOML

cat >"$work/src/main.rs" <<'RS'
fn main() {
    let mut state = 1u64;
    let (count, mut differ, mut farthest, mut example) = (100_000, 0, 0, String::new());
    for _ in 0..count {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let number = (state >> 11) as f64 / (1u64 << 53) as f64;
        let text = format!("{number:?}");
        assert_eq!(text.parse::<f64>().unwrap(), number);
        let read: f64 = serde_json::from_str(&text).unwrap();
        if read != number {
            differ += 1;
            farthest = farthest.max(read.to_bits().abs_diff(number.to_bits()));
            example = format!("{text} read as {read:?}");
        }
    }
    println!("serde_json 1.0.154: {differ} of {count} numbers differ, by {farthest} in the last place");
    println!("{example}");
    if differ < count / 20 || farthest != 1 {
        eprintln!("the behaviour has changed");
        std::process::exit(1);
    }
}
RS

cargo run --quiet --manifest-path "$work/Cargo.toml"

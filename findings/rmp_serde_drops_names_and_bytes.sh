#!/usr/bin/env bash
# Guess: rmp_serde::to_vec writes a struct as a MessagePack map with its field names, and Vec<u8> as bytes.
# What happens: the struct is an array without names, and the Vec<u8> an array of integers, up to two
# bytes for each. to_vec_named keeps the names.
# For readers of trained models: such a file is a list of lists to any other MessagePack reader;
# the names have to come from the Rust source.
# Crates: rmp-serde 1.3.0, serde 1.0.228. Date: 2026-11-28.

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
rmp-serde = "=1.3.0"
serde = { version = "=1.0.228", features = ["derive"] }
TOML

cat >"$work/src/main.rs" <<'RS'
#[derive(serde::Serialize)]
struct Layer {
    rank: u32,
    data: Vec<u8>,
}

fn main() {
    let layer = Layer { rank: 1, data: vec![7, 200] };
    let plain = rmp_serde::to_vec(&layer).unwrap();
    let named = rmp_serde::to_vec_named(&layer).unwrap();
    println!("rmp-serde 1.3.0: to_vec {plain:02x?}, to_vec_named {named:02x?}");
    // 0x92: array of two, 0x82: map of two; bytes would start with 0xc4.
    if plain != [0x92, 1, 0x92, 7, 0xcc, 200] || named[0] != 0x82 || named.contains(&0xc4) {
        eprintln!("the behaviour has changed");
        std::process::exit(1);
    }
}
RS

cargo run --quiet --manifest-path "$work/Cargo.toml"

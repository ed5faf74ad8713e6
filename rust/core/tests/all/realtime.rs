//! What a real-time thread may call does not allocate, and silence does not slow it down.

use crate::counting::allocations;
use crate::systems::{self, Random, Sizes};
use ssmrt_core::internals::discretize::Scheme;
use ssmrt_core::internals::document::Node;
use ssmrt_core::{Disc, Document, Input, Isa, Precision, Stream};

fn layers() -> Vec<(&'static str, Document)> {
    let mut all = Vec::new();
    for h in [1, 8, 40] {
        for m in [1, 2] {
            let s = Sizes { h, n: 6, m };
            for (name, node) in [
                ("diagonal", systems::diagonal(1, s, Disc::Zoh, true)),
                ("dplr", systems::dplr(2, s, 2, true)),
                ("dense", systems::dense(3, s, 0.5)),
                ("mimo", systems::mimo(4, s, Disc::Zoh)),
                ("linoss", systems::linoss(7, s, Scheme::Imex)),
                ("linoss", systems::linoss(7, s, Scheme::Imex)),
                ("selective", systems::selective(5, h, 6)),
                ("ssd", systems::ssd(6, h, 6)),
            ] {
                all.push((name, systems::alone(node, s)));
            }
        }
    }
    let mut cut = systems::diagonal(6, Sizes { h: 8, n: 6, m: 1 }, Disc::Zoh, true);
    if let Node::Diagonal(node) = &mut cut {
        node.ssm.kernel_length = Some(20);
    }
    all.push(("cut", systems::alone(cut, Sizes { h: 8, n: 6, m: 1 })));
    all.push(("everything", systems::everything(17, false)));
    all
}

/// No chunk here is so large that it wakes the pool, whose queue grows now and then.
fn stream<E: Precision>(document: &Document, streams: usize) -> Stream<E> {
    Stream::new(systems::plan(document, Isa::all()[0]), streams).unwrap()
}

fn steps_do_not_allocate<E: Precision>(name: &str, document: &Document) {
    for streams in [1, 3] {
        let mut stream = stream::<E>(document, streams);
        let u: Vec<E> = Random(1).samples(streams * document.d_input()).iter().map(|&x| E::of(x)).collect();
        let mut y = vec![E::ZERO; streams * document.d_output()];
        stream.step(Input::Real(&u), None, &mut y).unwrap();
        let n = allocations(|| {
            for _ in 0..300 {
                stream.step(Input::Real(&u), None, &mut y).unwrap();
            }
            stream.reset(None).unwrap();
        });
        assert_eq!(n, 0, "{name}: {streams} streams of {}", E::NAME);
    }
}

fn pushes_do_not_allocate<E: Precision>(name: &str, document: &Document) {
    for (streams, rows) in [(1, 5), (1, 64), (2, 100), (1, 300)] {
        let mut stream = stream::<E>(document, streams);
        let u: Vec<E> = Random(1).samples(streams * rows * document.d_input()).iter().map(|&x| E::of(x)).collect();
        let mut y = vec![E::ZERO; streams * rows * document.d_output()];
        stream.push(Input::Real(&u), rows, None, &mut y).unwrap();
        let n = allocations(|| {
            for _ in 0..5 {
                stream.push(Input::Real(&u), rows, None, &mut y).unwrap();
            }
            // A shorter chunk, and single samples, have room as well.
            let part = streams * (rows / 2);
            let (x, z) = (&u[..part * document.d_input()], &mut y[..part * document.d_output()]);
            stream.push(Input::Real(x), rows / 2, None, z).unwrap();
            let (x, z) = (&u[..streams * document.d_input()], &mut y[..streams * document.d_output()]);
            stream.step(Input::Real(x), None, z).unwrap();
        });
        assert_eq!(n, 0, "{name}: {streams} streams of {}, {rows} samples", E::NAME);
    }
}

#[test]
fn steps_and_chunks_do_not_allocate() {
    for (name, document) in layers() {
        steps_do_not_allocate::<f32>(name, &document);
        steps_do_not_allocate::<f64>(name, &document);
        pushes_do_not_allocate::<f32>(name, &document);
        pushes_do_not_allocate::<f64>(name, &document);
    }
}

#[test]
fn tokens_do_not_allocate() {
    let mut stream = stream::<f32>(&systems::everything(8, true), 2);
    let mut y = vec![0.0; 6];
    stream.step(Input::Tokens(&[1, 4]), None, &mut y).unwrap();
    let n = allocations(|| {
        for t in 0..100 {
            stream.step(Input::Tokens(&[t % 5, (t + 3) % 5]), None, &mut y).unwrap();
        }
    });
    assert_eq!(n, 0);
}

/// What rounding left over of a real part, which is 0, and of an imaginary part, which is a normal bfloat16, in one word.
fn halves(x: f32) -> bool {
    x.to_bits() << 1 >> 17 == 0 && x.to_bits() & 0x7f80 != 0
}

/// Denormal numbers cost a hundred times a number's time on some processors: states skip them.
fn decays<E: Precision>(name: &str, document: &Document, steps: usize) {
    let denormal = |x: E| match E::NAME {
        "float32" => x != E::ZERO && x.f64().abs() < 1.2e-38 && !halves(x.f64() as f32),
        _ => x != E::ZERO && x.f64().abs() < 2.3e-308,
    };
    let mut stream = stream::<E>(document, 1);
    let mut y = vec![E::ZERO; document.d_output()];
    for t in 0..200 {
        let u: Vec<E> = Random(t).samples(document.d_input()).iter().map(|&x| E::of(x)).collect();
        stream.step(Input::Real(&u), None, &mut y).unwrap();
    }
    let silence = vec![E::ZERO; document.d_input()];
    let mut before = Vec::new();
    for t in 0..steps {
        stream.step(Input::Real(&silence), None, &mut y).unwrap();
        // Some number is always on its way down: none may stay there.
        if t % 1000 == 900 || t % 1000 == 999 {
            let state = stream.snapshot();
            // The states are at its end.
            let size = size_of::<E>();
            let numbers = state[state.len() - stream.plan().state_len() * size..].chunks_exact(size).map(|b| {
                let mut bits = [0; 8];
                bits[..size].copy_from_slice(b);
                E::from_bits(u64::from_le_bytes(bits))
            });
            let found: Vec<usize> = numbers.enumerate().filter(|&(_, x)| denormal(x)).map(|(i, _)| i).collect();
            if t % 1000 == 999 {
                let stayed: Vec<_> = found.iter().filter(|i| before.contains(*i)).collect();
                assert!(stayed.is_empty(), "{name}: denormal after {t} samples of {}: {stayed:?}", E::NAME);
            }
            before = found;
        }
    }
    assert!(!y.iter().any(|&y| denormal(y)), "{name}: denormal answers after {steps} samples of {}", E::NAME);
}

#[test]
fn states_decay_past_the_denormals() {
    let steps = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let s = Sizes { h: 2, n: 3, m: 1 };
    let many = Sizes { h: 17, ..s };
    let document = systems::alone(systems::diagonal(7, many, Disc::Zoh, true), many);
    decays::<f32>("diagonal, many channels", &document, steps);
    for (name, node) in [
        ("diagonal", systems::diagonal(1, s, Disc::Zoh, true)),
        ("dplr", systems::dplr(2, s, 1, true)),
        ("dense", systems::dense(3, s, 0.5)),
        ("mimo", systems::mimo(4, s, Disc::Zoh)),
        ("linoss", systems::linoss(7, s, Scheme::Imex)),
        ("selective", systems::selective(5, 2, 3)),
        ("ssd", systems::ssd(5, 2, 3)),
    ] {
        let document = systems::alone(node, s);
        decays::<f32>(name, &document, steps);
        decays::<f64>(name, &document, steps / 4);
    }
}

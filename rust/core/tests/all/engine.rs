//! Identities of the engine on random systems: every way of running is the recurrence, on every instruction set.

use crate::systems::{self, Random, Sizes};
use proptest::prelude::*;
use ssmrt_core::internals::discretize::Scheme;
use ssmrt_core::{Disc, Document, Elem, Input, Isa, Method, Precision, Sequences, Stream, Team, Timing};
use std::sync::Arc;

/// The largest difference from the reference, by the largest number of the reference.
fn error<E: Elem>(y: &[E], reference: &[f64]) -> f64 {
    assert_eq!(y.len(), reference.len());
    let scale = reference.iter().fold(1e-300, |m: f64, x| m.max(x.abs()));
    // fold and not max: a NaN must come through.
    y.iter().zip(reference).map(|(y, x)| (y.f64() - x).abs()).fold(0.0, |m, x| if x <= m { m } else { x }) / scale
}

fn bits<E: Elem>(values: &[E]) -> Vec<u64> {
    values.iter().map(|x| x.f64().to_bits()).collect()
}

fn converted<E: Elem>(u: &[f64]) -> Vec<E> {
    u.iter().map(|&x| E::of(x)).collect()
}

fn forward<E: Precision>(document: &Document, isa: Isa, method: Method, streams: usize, u: &[f64]) -> Vec<E> {
    let plan = systems::plan::<E>(document, isa);
    let (u, length) = (converted::<E>(u), u.len() / streams / plan.d_input());
    let mut states = plan.default_state(streams);
    let mut y = vec![E::ZERO; streams * plan.d_output() * if plan.pooled() { 1 } else { length }];
    let call = Sequences { input: Input::Real(&u), streams, length, timing: Timing::default(), method, stop: None };
    plan.forward(&Team::ALONE, &call, &mut states, &mut y).unwrap();
    y
}

/// The answers (streams, length, d_output) to chunks that end at each of `cuts`.
fn pushed<E: Precision>(document: &Document, isa: Isa, streams: usize, u: &[f64], cuts: &[usize]) -> Vec<E> {
    let plan = systems::plan::<E>(document, isa);
    let (d_in, d_out) = (plan.d_input(), plan.d_output());
    let length = u.len() / streams / d_in;
    let mut stream = Stream::new(plan, streams).unwrap();
    let mut y = vec![E::ZERO; streams * length * d_out];
    let mut from = 0;
    for &to in cuts.iter().chain([&length]) {
        let rows = to - from;
        let chunk: Vec<f64> =
            (0..streams).flat_map(|s| &u[(s * length + from) * d_in..(s * length + to) * d_in]).copied().collect();
        let mut part = vec![E::ZERO; streams * rows * d_out];
        stream.push(Input::Real(&converted::<E>(&chunk)), rows, None, &mut part).unwrap();
        for s in 0..streams {
            y[(s * length + from) * d_out..(s * length + to) * d_out]
                .copy_from_slice(&part[s * rows * d_out..(s + 1) * rows * d_out]);
        }
        from = to;
    }
    y
}

#[derive(Clone, Debug)]
struct Case {
    document: Document,
    streams: usize,
    u: Vec<f64>,
    cuts: Vec<usize>,
}

fn layer() -> impl Strategy<Value = Document> {
    // Modes from 32 on are visited at other samples than fewer.
    let modes = prop_oneof![3 => 1usize..8, 1 => 31usize..35];
    let sizes = (prop::sample::select(vec![1usize, 3, 8, 15, 16, 17, 24]), modes, 1usize..4);
    (sizes, any::<u64>(), 0..8u8, any::<bool>()).prop_map(|((h, n, m), seed, kind, pairs)| {
        let sizes = Sizes { h, n, m };
        let node = match kind {
            0 => systems::diagonal(seed, sizes, Disc::Zoh, pairs),
            1 => systems::diagonal(seed, sizes, Disc::Bilinear, pairs),
            2 => systems::dplr(seed, sizes, m, pairs),
            3 => systems::dense(seed, sizes, if pairs { 0.5 } else { 1.0 }),
            4 => systems::mimo(seed, sizes, Disc::Zoh),
            5 => systems::linoss(seed, sizes, if pairs { Scheme::Im } else { Scheme::Imex }),
            6 => systems::selective(seed, h, n),
            _ => systems::ssd(seed, h, n),
        };
        systems::alone(node, sizes)
    })
}

fn case() -> impl Strategy<Value = Case> {
    let length = prop_oneof![1usize..200, prop::sample::select(vec![31usize, 32, 33, 63, 64, 65, 128, 129])];
    (layer(), 1usize..4, length, any::<u64>()).prop_flat_map(|(document, streams, length, seed)| {
        let u = Random(seed).samples(streams * length * document.d_input());
        prop::collection::vec(0..=length, 0..6).prop_map(move |mut cuts| {
            cuts.sort_unstable();
            Case { document: document.clone(), streams, u: u.clone(), cuts }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_method_is_the_recurrence(Case { document, streams, u, .. } in case()) {
        let isa = Isa::all()[0];
        let scan = forward::<f64>(&document, isa, Method::Scan, streams, &u);
        for method in [Method::Scan, Method::Chunk, Method::Fft { states: true }, Method::Auto] {
            let double = error(&forward::<f64>(&document, isa, method, streams, &u), &scan);
            prop_assert!(double < 1e-11, "float64 {method:?}: {double}");
            let single = error(&forward::<f32>(&document, isa, method, streams, &u), &scan);
            prop_assert!(single < 2e-6, "float32 {method:?}: {single}");
        }
    }

    #[test]
    fn any_chunking_is_the_sequence(Case { document, streams, u, cuts } in case()) {
        let isa = Isa::all()[0];
        let whole = forward::<f64>(&document, isa, Method::Scan, streams, &u);
        let double = error(&pushed::<f64>(&document, isa, streams, &u, &cuts), &whole);
        prop_assert!(double < 1e-11, "float64: {double}");
        let single = error(&pushed::<f32>(&document, isa, streams, &u, &cuts), &whole);
        prop_assert!(single < 2e-6, "float32: {single}");
        let length = u.len() / streams / document.d_input();
        let steps: Vec<usize> = (1..length).collect();
        let single = error(&pushed::<f32>(&document, isa, streams, &u, &steps), &whole);
        prop_assert!(single < 2e-6, "float32 by steps: {single}");
        let mixed: Vec<usize> = (1..length).filter(|t| t / 21 % 2 == 0 || cuts.contains(t)).collect();
        let double = error(&pushed::<f64>(&document, isa, streams, &u, &mixed), &whole);
        prop_assert!(double < 1e-11, "float64 by steps and blocks: {double}");
        let single = error(&pushed::<f32>(&document, isa, streams, &u, &mixed), &whole);
        prop_assert!(single < 2e-6, "float32 by steps and blocks: {single}");
    }

    #[test]
    fn every_instruction_set_computes_the_same(Case { document, streams, u, cuts } in case()) {
        let whole = forward::<f64>(&document, Isa::Scalar, Method::Scan, streams, &u);
        for isa in Isa::all() {
            for method in [Method::Scan, Method::Chunk, Method::Fft { states: true }] {
                let double = error(&forward::<f64>(&document, isa, method, streams, &u), &whole);
                prop_assert!(double < 1e-11, "float64 {method:?} {isa:?}: {double}");
                let single = error(&forward::<f32>(&document, isa, method, streams, &u), &whole);
                prop_assert!(single < 2e-6, "float32 {method:?} {isa:?}: {single}");
            }
            let single = error(&pushed::<f32>(&document, isa, streams, &u, &cuts), &whole);
            prop_assert!(single < 2e-6, "float32 pushed {isa:?}: {single}");
            let steps: Vec<usize> = (1..u.len() / streams / document.d_input()).collect();
            let double = error(&pushed::<f64>(&document, isa, streams, &u, &steps), &whole);
            prop_assert!(double < 1e-11, "float64 by steps {isa:?}: {double}");
        }
    }

    #[test]
    fn a_step_without_a_stream_is_the_streams(Case { document, streams, u, .. } in case()) {
        let plan = systems::plan::<f32>(&document, Isa::all()[0]);
        let mut stream = Stream::new(Arc::clone(&plan), streams).unwrap();
        let mut states = plan.default_state(streams);
        let n = streams * plan.d_input();
        for row in converted::<f32>(&u).chunks_exact(n).take(20) {
            let (mut y, mut z) = (vec![0.0; streams * plan.d_output()], vec![0.0; streams * plan.d_output()]);
            plan.step(&mut states, streams, Input::Real(row), None, &mut y).unwrap();
            stream.step(Input::Real(row), None, &mut z).unwrap();
            prop_assert_eq!(bits(&y), bits(&z));
        }
    }
}

#[test]
fn a_model_of_every_node_is_the_same_in_every_way() {
    for h in [8, 17] {
        let document = systems::everything(h, false);
        let (streams, length) = (3, 150);
        let u = Random(h as u64).samples(streams * length * 2);
        let last = forward::<f64>(&document, Isa::Scalar, Method::Scan, streams, &u);
        let each = pushed::<f64>(&document, Isa::Scalar, streams, &u, &[]);
        for s in 0..streams {
            let end = &each[((s + 1) * length - 1) * 3..(s + 1) * length * 3];
            assert!(error(end, &last[s * 3..(s + 1) * 3]) < 1e-11);
        }
        for isa in Isa::all() {
            for cuts in [vec![], vec![1, 2, 40, 104], (1..length).collect()] {
                assert!(error(&pushed::<f64>(&document, isa, streams, &u, &cuts), &each) < 1e-11);
                assert!(error(&pushed::<f32>(&document, isa, streams, &u, &cuts), &each) < 2e-6);
            }
        }
    }
}

#[test]
fn neither_the_batch_nor_the_team_is_heard() {
    let document = systems::everything(17, false);
    let (streams, length) = (5, 150);
    let u = Random(3).samples(streams * length * 2);
    let isa = Isa::all()[0];
    let plan = systems::plan::<f32>(&document, isa);
    let input = converted::<f32>(&u);
    let mut y = vec![0.0; streams * 3];
    let call = Sequences {
        input: Input::Real(&input),
        streams,
        length,
        timing: Timing::default(),
        method: Method::Auto,
        stop: None,
    };
    plan.forward(&Team::all().unwrap(), &call, &mut plan.default_state(streams), &mut y).unwrap();
    for s in 0..streams {
        let one = forward::<f32>(&document, isa, Method::Auto, 1, &u[s * length * 2..(s + 1) * length * 2]);
        assert_eq!(bits(&one), bits(&y[s * 3..(s + 1) * 3]));
    }
}

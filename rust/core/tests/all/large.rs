//! A model whose samples are shared out to threads: no allocation, and the answers of one thread.

use crate::counting::allocations;
use ssmrt_core::internals::document::{Linear, Matrix, Node, Sequential};
use ssmrt_core::{Document, Facts, Input, Isa, Model, Stream, Team, Weights};
use std::sync::Arc;

/// Two linear maps, of more weights than one core's caches hold.
fn document() -> Document {
    let matrix = |rows: usize, columns: usize| {
        let weight = |i: usize| ((i as f64 * 12.9898).sin() * 43758.5453).fract() / (columns as f64).sqrt();
        Matrix::of([rows, columns], &(0..rows * columns).map(weight).collect::<Vec<_>>())
    };
    let linear = |name: &str, rows, columns| {
        Node::Linear(Linear { name: name.into(), weight: matrix(rows, columns), bias: None })
    };
    let children = vec![linear("up", 3000, 800), linear("down", 800, 3000)];
    let root = Node::Sequential(Sequential { name: String::new(), children });
    Document::new(root, 800, Facts::default()).unwrap()
}

#[test]
fn threads_share_a_sample_without_allocating() {
    let team = Team::of(3);
    for weights in [Weights::AsGiven, Weights::Bfloat16, Weights::Int8] {
        let answers = |team: &Team| {
            let model = Model::<f32>::with_weights(document(), weights, Isa::choose().unwrap(), team).unwrap();
            let mut stream = Stream::new(Arc::clone(&model.plan(1.0, team).unwrap()), 2).unwrap();
            let u: Vec<f32> = (0..2 * 4 * 800).map(|i| (i as f32 * 0.37).cos()).collect();
            let mut y = vec![0.0; u.len()];
            stream.push(Input::Real(&u), 4, None, &mut y).unwrap();
            let n = allocations(|| {
                for _ in 0..100 {
                    stream.push(Input::Real(&u), 4, None, &mut y).unwrap();
                    stream.step(Input::Real(&u[..1600]), None, &mut y[..1600]).unwrap();
                }
                stream.push(Input::Real(&u), 4, None, &mut y).unwrap();
            });
            // Without a crew a block of so much work wakes the pool, whose queue grows now and then.
            assert!(n == 0 || team.size() == 1, "{weights:?}: {n} allocations");
            y
        };
        assert!(answers(&team) == answers(&Team::ALONE), "{weights:?}");
    }
}

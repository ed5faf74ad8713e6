//! What a caller without `unsafe` can do: arrays of wrong sizes are errors, and nothing is read or written beyond them.
//! CI runs it under AddressSanitizer.
#![forbid(unsafe_code)]

use crate::systems::{self, Random, Sizes};
use proptest::prelude::*;
use ssmrt_core::{
    Disc, Document, Error, Input, Isa, Method, Model, Plan, Sequences, Stream, Team, Timing, causal_conv, krylov,
};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Models of small and of large states, of narrow and of wide rows.
fn models() -> [Document; 3] {
    let (small, large) = (Sizes { h: 1, n: 1, m: 1 }, Sizes { h: 40, n: 9, m: 2 });
    [
        systems::alone(systems::diagonal(1, small, Disc::Zoh, true), small),
        systems::alone(systems::dplr(2, large, 2, true), large),
        systems::everything(17, false),
    ]
}

fn forward(plan: &Plan<f32>, streams: usize, length: usize, sizes: [usize; 3], team: &Team) -> Result<(), Error> {
    let [input, states, output] = sizes;
    let u: Vec<f32> = Random(1).samples(input).iter().map(|&x| x as f32).collect();
    let (mut states, mut y) = (vec![0.0; states], vec![0.0; output]);
    let (timing, method) = (Timing::default(), Method::Auto);
    let call = Sequences { input: Input::Real(&u), streams, length, timing, method, stop: None };
    plan.forward(team, &call, &mut states, &mut y)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arrays_of_wrong_sizes_are_errors(which in 0usize..3, streams in 0usize..4, length in 1usize..80,
                                        less in 0usize..3, by in 1usize..20) {
        let plan = systems::plan::<f32>(&models()[which], Isa::all()[0]);
        let answers = if plan.pooled() { streams } else { streams * length };
        let right = [streams * length * plan.d_input(), streams * plan.state_len(), answers * plan.d_output()];
        prop_assert!(forward(&plan, streams, length, right, &Team::all().unwrap()).is_ok());
        for change in [-(by as isize), by as isize] {
            let mut wrong = right;
            let Some(size) = wrong[less].checked_add_signed(change) else { continue };
            wrong[less] = size;
            let found = forward(&plan, streams, length, wrong, &Team::ALONE);
            prop_assert!(matches!(found, Err(Error::Value(_))), "{found:?}");
        }
    }

    #[test]
    fn a_state_of_another_model_is_an_error(one in 0usize..3, other in 0usize..3, streams in 1usize..4) {
        let documents = models();
        let (plan, stranger) = (
            systems::plan::<f32>(&documents[one], Isa::all()[0]),
            systems::plan::<f32>(&documents[other], Isa::all()[0]),
        );
        let u = vec![0.5; streams * plan.d_input()];
        let mut y = vec![0.0; streams * plan.d_output()];
        let mut states = stranger.default_state(streams);
        let stepped = plan.step(&mut states, streams, Input::Real(&u), None, &mut y);
        prop_assert_eq!(stepped.is_ok(), one == other);
        let mut stream = Stream::new(Arc::clone(&plan), streams).unwrap();
        let snapshot = Stream::new(stranger, streams).unwrap().snapshot();
        prop_assert_eq!(stream.restore(&snapshot).is_ok(), one == other);
    }

    #[test]
    fn streams_take_their_own_sizes_only(which in 0usize..3, streams in 1usize..4, rows in 0usize..70, by in 1usize..9) {
        let plan = systems::plan::<f32>(&models()[which], Isa::all()[0]);
        let (d_in, d_out) = (plan.d_input(), plan.d_output());
        let mut stream = Stream::new(plan, streams).unwrap();
        let mut push = |input: usize, rows: usize, output: usize, dt: Option<usize>| {
            let dt = dt.map(|n| vec![1.5; n]);
            let mut y = vec![0.0; output];
            stream.push(Input::Real(&vec![0.1; input]), rows, dt.as_deref(), &mut y)
        };
        let (input, output) = (streams * rows * d_in, streams * rows * d_out);
        prop_assert!(push(input, rows, output, None).is_ok());
        prop_assert!(push(input + by, rows, output, None).is_err());
        prop_assert!(push(input, rows, output + by, None).is_err());
        prop_assert!(push(input, rows + by, output, None).is_err());
        prop_assert!(push(input, rows, output, Some(streams * rows + by)).is_err());
        prop_assert!(push(input, usize::MAX, output, None).is_err());
        // With two channels, a product that wraps would be 0.
        prop_assert!(push(0, 1 << 63, 0, None).is_err());
        prop_assert!(stream.step_active(&[0, streams], Input::Real(&vec![0.0; 2 * d_in]), None, &mut vec![0.0; 2 * d_out]).is_err());
        prop_assert!(stream.step_active(&[0], Input::Real(&[]), None, &mut vec![0.0; d_out]).is_err());
        prop_assert!(stream.reset(Some(&vec![true; streams + by])).is_err());
    }
}

#[test]
fn a_call_that_is_stopped_says_so_and_leaves_the_stream() {
    let plan = systems::plan::<f32>(&models()[1], Isa::all()[0]);
    let (d_in, d_out) = (plan.d_input(), plan.d_output());
    let mut stream = Stream::new(Arc::clone(&plan), 1).unwrap();
    let (u, mut y) = (vec![0.5; 5000 * d_in], vec![0.0; 5000 * d_out]);
    stream.push(Input::Real(&u[..7 * d_in]), 7, None, &mut y[..7 * d_out]).unwrap();
    let before = stream.snapshot();
    let stop = AtomicBool::new(true);
    let stopped = stream.push_until(&stop, Input::Real(&u), 5000, None, Some(&mut y));
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert_eq!(stream.snapshot(), before);
    let (timing, method) = (Timing::default(), Method::Auto);
    let call = Sequences { input: Input::Real(&u), streams: 1, length: 5000, timing, method, stop: Some(&stop) };
    let stopped = plan.forward(&Team::all().unwrap(), &call, &mut plan.default_state(1), &mut y);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
}

#[test]
fn kernels_have_the_length_that_was_asked_for() {
    for document in models() {
        let model = Model::<f32>::new(document, Isa::all()[0], &Team::ALONE).unwrap();
        let layers = model.document().layers(1.0).unwrap();
        for (number, layer) in
            layers.iter().enumerate().filter(|(_, layer)| !["selective", "ssd"].contains(&layer.kind))
        {
            for length in [0, 1, 15, 300] {
                let (shape, numbers) =
                    model.document().convolution_kernel(number, length, 1.0, Isa::all()[0], &Team::ALONE).unwrap();
                assert_eq!(shape.iter().product::<usize>(), numbers.len(), "{}", layer.kind);
                assert_eq!(shape[2], length);
            }
        }
        let absent = model.document().convolution_kernel(layers.len(), 1, 1.0, Isa::Scalar, &Team::ALONE);
        assert!(matches!(absent, Err(Error::Value(_))));
    }
}

#[test]
fn functions_on_plain_arrays_take_whole_rows() {
    let y = causal_conv(&Team::ALONE, 3, &[1.0, 2.0, 3.0, 0.0, 1.0, 0.0], &[1.0, 1.0, 0.0, 2.0, 0.0, 0.0]).unwrap();
    let expected = [1.0, 3.0, 5.0, 0.0, 2.0, 0.0];
    assert!(y.iter().zip(expected).all(|(y, x)| (y - x).abs() < 1e-12), "{y:?}");
    assert!(krylov(Isa::Scalar, &Team::ALONE, 1, 2, &[0.0; 4], &[1.0; 2], usize::MAX).is_err());
}

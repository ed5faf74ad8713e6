//! Whatever bytes say that they are a Document, they are refused, or planned and run; and what was read is written and read
//! again as the same.

use ssmrt_core::{Document, Error, Input, Isa, Method, Model, Sequences, Stream, Team, Timing};

/// Samples of a whole sequence.
const LENGTH: usize = 9;
/// Numbers that a run may take: what is larger is a valid file that asks for much work.
const MOST: usize = 1 << 22;

fn run(document: Document) -> Result<(), Error> {
    let team = Team::ALONE;
    let model = Model::<f64>::new(document, Isa::all()[0], &team)?;
    let plan = model.plan(1.0, &team)?;
    if (plan.state_len() + plan.d_input() + plan.d_output()).saturating_mul(LENGTH) > MOST {
        return Ok(());
    }
    let (u, tokens) = (vec![0.5; plan.d_input() * LENGTH], [0; LENGTH]);
    let input = |n: usize| match plan.vocabulary() {
        Some(_) => Input::Tokens(&tokens[..n]),
        None => Input::Real(&u[..n * plan.d_input()]),
    };
    let mut y = vec![0.0; plan.d_output() * LENGTH];
    if plan.streamable().is_ok() {
        let mut stream = Stream::new(plan.clone(), 1)?;
        for _ in 0..3 {
            stream.step(input(1), None, &mut y[..plan.d_output()])?;
        }
        stream.push(input(LENGTH), LENGTH, None, &mut y)?;
        stream.snapshot();
        return Ok(());
    }
    let call = Sequences {
        input: input(LENGTH),
        streams: 1,
        length: LENGTH,
        timing: Timing::default(),
        method: Method::Auto,
        stop: None,
    };
    let answers = if plan.pooled() { 1 } else { LENGTH };
    let mut states = vec![0.0; plan.state_len()];
    plan.start(&mut states);
    plan.forward(&team, &call, &mut states, &mut y[..answers * plan.d_output()])
}

/// Whatever bytes.
pub fn target(data: &[u8]) {
    let Ok(document) = Document::parse(data.to_vec()) else { return };
    let again = Document::parse(document.to_bytes().expect("memory")).expect("what was read can be read again");
    assert_eq!(document.outline(), again.outline());
    if let Err(error) = run(document) {
        assert!(
            matches!(error, Error::Document(_) | Error::Unsupported(_) | Error::Value(_) | Error::Memory(_)),
            "{error}"
        );
    }
}

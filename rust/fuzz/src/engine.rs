//! Random models, and random calls of their streams: each stream answers as its samples since its start, replayed alone: in
//! the same pieces to the last bit, and all at once but for rounding. Calls that are refused change nothing.

use libfuzzer_sys::Corpus;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use ssmrt_core::internals::Named;
use ssmrt_core::internals::discretize::Scheme;
use ssmrt_core::internals::document::{Conv1d, Factor, Gate, Glu, Node, Norm, Pool, PoolMode, Residual};
use ssmrt_core::internals::kernels::norm::NormKind;
use ssmrt_core::internals::kernels::pointwise::Function;
use ssmrt_core::{Disc, Document, Facts, Input, Isa, Model, Plan, Stream, Team};
use std::sync::Arc;

use crate::systems::{self, Random, Sizes};

/// A model, and what is done with its streams.
#[derive(Arbitrary, Debug)]
pub struct Session {
    parts: Vec<Part>,
    width: u8,
    pool: Option<u8>,
    isa: u8,
    streams: u8,
    rate: u8,
    calls: Vec<Call>,
}

/// A node, from a few numbers each.
#[derive(Arbitrary, Debug)]
enum Part {
    Diagonal { n: u8, m: u8, disc: u8, pairs: bool, cut: Option<u8>, seed: u16 },
    Dplr { n: u8, rank: u8, pairs: bool, seed: u16 },
    Dense { n: u8, m: u8, alpha: u8, seed: u16 },
    Mimo { n: u8, disc: u8, seed: u16 },
    Linoss { n: u8, damped: bool, seed: u16 },
    Selective { n: u8, seed: u16 },
    Ssd { n: u8, seed: u16 },
    Conv { taps: u8, seed: u16 },
    Linear { out: u8, seed: u16 },
    Activation(u8),
    Norm { kind: u8, seed: u16 },
    Glu(u8),
    Residual(Vec<Part>),
    Gate(Vec<Part>, Vec<Part>),
}

#[derive(Arbitrary, Debug)]
enum Call {
    Step { seed: u16, dt: Option<u16> },
    Active { which: u8, seed: u16, dt: Option<u16> },
    Push { rows: u8, seed: u16, dt: Option<u16> },
    Reset { mask: Option<u8> },
    Snapshot,
    Restore { anew: bool },
    Refused(u8),
    Damaged { at: u16, bit: u8 },
}

/// Nodes of a model at most, and levels.
const NODES: usize = 12;
const LEVELS: usize = 3;
/// Channels from which on a node does not widen the signal.
const WIDE: usize = 40;
/// Samples of a session at most, of all streams.
const SAMPLES: usize = 2000;

fn size(x: u8, most: u8) -> usize {
    1 + (x % most) as usize
}

fn one_of<T: Named>(which: u8) -> T {
    T::NAMES[which as usize % T::NAMES.len()].1
}

/// The nodes of `parts` from a width on, and the width behind them.
fn nodes(parts: &[Part], mut h: usize, level: usize, left: &mut usize) -> (Vec<Node>, usize) {
    let mut made = Vec::new();
    for part in parts {
        if *left == 0 {
            break;
        }
        *left -= 1;
        // Several outputs a channel widen the signal each time.
        let sizes = |n: u8, m: u8| Sizes { h, n: size(n, 20), m: if h > WIDE { 1 } else { size(m, 2) } };
        let vector = |seed: u16, n: usize| Random(seed as u64).real(&[n], -1.0, 1.0);
        let node = match *part {
            Part::Diagonal { n, m, disc, pairs, cut, seed } => {
                let mut node = systems::diagonal(seed as u64, sizes(n, m), one_of::<Disc>(disc), pairs);
                if let (Node::Diagonal(node), Some(cut)) = (&mut node, cut) {
                    node.ssm.kernel_length = Some(cut as usize);
                }
                node
            }
            Part::Dplr { n, rank, pairs, seed } => systems::dplr(seed as u64, sizes(n, 0), size(rank, 3), pairs),
            Part::Dense { n, m, alpha, seed } => {
                systems::dense(seed as u64, sizes(n % 9, m), f64::from(alpha % 3) / 2.0)
            }
            Part::Mimo { n, disc, seed } => systems::mimo(seed as u64, sizes(n, 0), one_of::<Disc>(disc)),
            Part::Linoss { n, damped, seed } => {
                systems::linoss(seed as u64, sizes(n, 0), if damped { Scheme::Imex } else { Scheme::Im })
            }
            Part::Selective { n, seed } => systems::selective(seed as u64, h, size(n, 20)),
            Part::Ssd { n, seed } => systems::ssd(seed as u64, h, size(n, 20)),
            Part::Conv { taps, seed } => Node::Conv1d(Conv1d {
                name: String::new(),
                weight: Random(seed as u64).real(&[h, size(taps, 6)], -1.0, 1.0),
                bias: seed.is_multiple_of(2).then(|| vector(seed, h)),
                x0: None,
            }),
            Part::Linear { out, seed } => systems::linear(seed as u64, h, size(out, 40)),
            Part::Activation(function) => systems::activation(one_of::<Function>(function)),
            Part::Norm { kind, seed } => Node::Norm(Norm {
                name: String::new(),
                kind: one_of::<NormKind>(kind),
                weight: Some(vector(seed, h)),
                bias: seed.is_multiple_of(2).then(|| vector(seed, h)),
                eps: 1e-5,
                shift: 0.0,
                size: None,
            }),
            Part::Glu(gate) => Node::Glu(Glu { name: String::new(), gate: one_of::<Function>(gate) }),
            Part::Residual(_) | Part::Gate(..) if level == LEVELS => continue,
            Part::Residual(ref inner) => {
                let (mut inner, width) = nodes(inner, h, level + 1, left);
                inner.extend((width != h).then(|| systems::linear(1, width, h)));
                let child = Box::new(systems::sequential(inner));
                Node::Residual(Residual { name: String::new(), child, skip: None, alpha: 1.0, beta: Factor::All(0.5) })
            }
            Part::Gate(ref left_parts, ref right_parts) => {
                let branch = |parts: &[Part], left: &mut usize| {
                    let (mut inner, width) = nodes(parts, h, level + 1, left);
                    inner.extend((width != h).then(|| systems::linear(2, width, h)));
                    Box::new(systems::sequential(inner))
                };
                let (name, gate) = (String::new(), branch(right_parts, left));
                Node::Gate(Gate { name, left: branch(left_parts, left), right: gate })
            }
        };
        // What does not fit here, as a GLU of an odd width, is left out.
        if let Ok(document) = Document::new(node.clone(), h, Facts::default()) {
            h = document.d_output();
            made.push(node);
        }
    }
    (made, h)
}

fn document(session: &Session) -> Document {
    let (h, mut left) = (size(session.width, 40), NODES);
    let (mut made, width) = nodes(&session.parts, h, 0, &mut left);
    if let Some(mode) = session.pool {
        made.push(Node::Pool(Pool { name: String::new(), mode: one_of::<PoolMode>(mode) }));
        made.push(systems::linear(3, width, 3));
    }
    Document::new(systems::sequential(made), h, Facts::default()).expect("every node fits where it was put")
}

/// A piece of what a stream has met: samples, their step sizes, and whether they came as irregular ones.
#[derive(Clone)]
struct Piece {
    u: Vec<f64>,
    dt: Option<Vec<f64>>,
    y: Vec<f64>,
}

type Met = Vec<Piece>;

struct Streams {
    plan: Arc<Plan<f64>>,
    stream: Stream<f64>,
    met: Vec<Met>,
    saved: Option<(Vec<u8>, Vec<Met>)>,
}

impl Streams {
    fn factors(dt: Option<u16>, n: usize) -> Option<Vec<f64>> {
        let mut r = Random(dt? as u64);
        Some((0..n).map(|_| [0.5, 1.0, 1.5][r.uniform(0.0, 3.0) as usize]).collect())
    }

    /// Samples of the streams `which`, `rows` each.
    fn samples(&mut self, which: &[usize], all: bool, rows: usize, seed: u16, dt: Option<u16>) {
        let (d_in, d_out) = (self.plan.d_input(), self.plan.d_output());
        let u = Random(seed as u64).samples(which.len() * rows * d_in);
        let dt = Self::factors(dt, which.len() * rows);
        let (input, mut y) = (Input::Real(&u), vec![0.0; which.len() * rows * d_out]);
        let before = dt.is_some().then(|| self.stream.snapshot());
        let done = match all {
            true => self.stream.push(input, rows, dt.as_deref(), &mut y),
            false => self.stream.step_active(which, input, dt.as_deref(), &mut y),
        };
        if let Err(error) = done {
            let before = before.unwrap_or_else(|| panic!("samples were refused: {error}"));
            assert!(before == self.stream.snapshot(), "a refused call changed the state");
            return;
        }
        for (at, &s) in which.iter().enumerate() {
            let part = |x: &[f64], width: usize| x[at * rows * width..][..rows * width].to_vec();
            let (u, y, dt) = (part(&u, d_in), part(&y, d_out), dt.as_deref().map(|dt| part(dt, 1)));
            self.met[s].push(Piece { u, dt, y });
        }
    }

    fn call(&mut self, call: &Call) {
        let (streams, everyone) = (self.met.len(), (0..self.met.len()).collect::<Vec<_>>());
        match *call {
            Call::Step { seed, dt } => self.samples(&everyone, true, 1, seed, dt),
            Call::Active { which, seed, dt } => {
                let which: Vec<_> = everyone.into_iter().filter(|s| which >> s & 1 == 1).collect();
                self.samples(&which, false, 1, seed, dt);
            }
            Call::Push { rows, seed, dt } => self.samples(&everyone, true, rows as usize, seed, dt),
            Call::Reset { mask } => {
                let mask = mask.map(|mask| everyone.iter().map(|s| mask >> s & 1 == 1).collect::<Vec<_>>());
                self.stream.reset(mask.as_deref()).expect("a flag a stream");
                for s in everyone {
                    if mask.as_ref().is_none_or(|mask| mask[s]) {
                        self.met[s].clear();
                    }
                }
            }
            Call::Snapshot => self.saved = Some((self.stream.snapshot(), self.met.clone())),
            Call::Restore { anew } => {
                if let Some((bytes, met)) = &self.saved {
                    if anew {
                        self.stream = Stream::new(Arc::clone(&self.plan), streams).expect("a stream");
                    }
                    self.stream.restore(bytes).expect("its own snapshot");
                    self.met.clone_from(met);
                }
            }
            Call::Refused(which) => {
                let (before, d_out) = (self.stream.snapshot(), self.plan.d_output());
                let (u, mut y) = (vec![0.5; 3 * streams * self.plan.d_input()], vec![0.0; 3 * streams * d_out]);
                let refused = match which % 5 {
                    0 => self.stream.push(Input::Real(&u[1..]), 3, None, &mut y),
                    1 => self.stream.push(Input::Real(&u), 3, None, &mut y[1..]),
                    2 => self.stream.push(Input::Real(&u), 3, Some(&vec![0.0; 3 * streams]), &mut y),
                    3 => self.stream.step_active(&[streams], Input::Real(&u), None, &mut y),
                    _ => self.stream.reset(Some(&vec![true; streams + 1])),
                };
                assert!(refused.is_err(), "bad call {which} was not refused");
                assert!(before == self.stream.snapshot(), "a refused call changed the state");
            }
            Call::Damaged { at, bit } => {
                let before = self.stream.snapshot();
                let mut bytes = before.clone();
                let at = at as usize % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
                assert!(self.stream.restore(&bytes).is_err(), "a damaged snapshot was restored");
                assert!(before == self.stream.snapshot(), "a refused call changed the state");
            }
        }
        for (s, met) in self.met.iter().enumerate() {
            let samples: usize = met.iter().map(|piece| piece.u.len() / self.plan.d_input()).sum();
            assert_eq!(self.stream.position(s), samples as u64);
        }
    }

    /// Each stream alone, from its start.
    fn replay(&self) {
        let d_in = self.plan.d_input();
        for met in &self.met {
            let mut alone = Stream::new(Arc::clone(&self.plan), 1).expect("a stream");
            for piece in met {
                let mut y = vec![0.0; piece.y.len()];
                let rows = piece.u.len() / d_in;
                alone.push(Input::Real(&piece.u), rows, piece.dt.as_deref(), &mut y).expect("as before");
                let same = y.iter().zip(&piece.y).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "a stream alone answers otherwise: {y:?}, not {:?}", piece.y);
            }
            let u: Vec<f64> = met.iter().flat_map(|piece| &piece.u).copied().collect();
            let given: Vec<f64> = met.iter().flat_map(|piece| &piece.y).copied().collect();
            let regular = met.iter().all(|piece| piece.dt.is_none());
            let ones = |piece: &Piece| piece.dt.clone().unwrap_or_else(|| vec![1.0; piece.u.len() / d_in]);
            let dt: Vec<f64> = met.iter().flat_map(ones).collect();
            let mut y = vec![0.0; given.len()];
            alone.reset(None).expect("all");
            let dt = (!regular).then_some(&dt[..]);
            alone.push(Input::Real(&u), u.len() / d_in, dt, &mut y).expect("as before");
            // An unstable model's answers overflow, and then say nothing more.
            let finite = y.iter().zip(&given).take_while(|(a, b)| a.is_finite() && b.is_finite()).count();
            let scale = given[..finite].iter().fold(1.0f64, |most, y| most.max(y.abs()));
            for (t, (a, b)) in y.iter().zip(&given).take(finite).enumerate() {
                assert!((a - b).abs() <= 1e-7 * scale, "number {t} of all at once: {a}, not {b}, of {scale}");
            }
        }
    }
}

/// Any session.
pub fn target(session: &Session) -> Corpus {
    let isas = Isa::all();
    let isa = isas[session.isa as usize % isas.len()];
    let model = document(session);
    let model = Model::<f64>::new(model, isa, &Team::ALONE);
    let rate = [1.0, 0.5, 2.0][session.rate as usize % 3];
    // Some discretisations are not stable at every step size, some layers have none.
    let Ok(plan) = model.and_then(|model| model.plan(rate, &Team::ALONE)) else { return Corpus::Reject };
    let streams = size(session.streams, 4);
    let Ok(stream) = Stream::new(Arc::clone(&plan), streams) else { return Corpus::Reject };
    let mut streams = Streams { plan, stream, met: vec![Met::new(); streams], saved: None };
    for call in &session.calls {
        streams.call(call);
        if streams.met.iter().flatten().map(|piece| piece.u.len()).sum::<usize>() > SAMPLES * streams.plan.d_input() {
            break;
        }
    }
    streams.replay();
    Corpus::Keep
}

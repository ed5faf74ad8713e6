//! State-space models on plain CPUs: the engine of ssmrt, without Python.
//!
//! A trained model is a [`Document`]: a tree of layers over plain arrays, which the Python package `ssmrt` writes from
//! PyTorch and JAX checkpoints (`ssmrt convert`). A [`Model`] holds its weights as the kernels read them. A [`Plan`] is the
//! model at one rate, ready to run: a list of operations with all their memory laid out. Whole sequences go through
//! [`Plan::forward`]; a [`Stream`] keeps the states of some streams between calls, for one sample at a time
//! ([`Stream::step`]) or blocks of them ([`Stream::push`]). All three compute the same function.
//!
//! # Shapes
//! Arrays are flat slices, row-major, of `f32` or `f64` ([`Elem`]):
//!
//! | array | shape |
//! |---|---|
//! | input | (streams, length, [`Plan::d_input`]), or integer tokens (streams, length) |
//! | output | (streams, length, [`Plan::d_output`]); of a pooled model's `forward` (streams, d_output) |
//! | states | (streams, [`Plan::state_len`]); [`Plan::default_state`] is the start |
//! | dt | (streams, length): multiplies the step size sample by sample |
//!
//! # Conventions
//! * Everything is decided and allocated when a model is planned and a stream is made. A step allocates nothing, takes no
//!   lock and wakes no thread.
//! * A stream's answers are the same bits alone or in a batch, on one thread or many.
//! * The instruction set is chosen at run time ([`Isa::choose`]); the environment variable `SSMRT_ISA` forces one,
//!   `SSMRT_NUM_THREADS` limits [`Team::all`].
//! * No function panics for what a file or a call says: it fails with an [`Error`] that says what was expected and found.
//!
//! # Example
//! ```
//! use ssmrt_core::{Document, Input, Isa, Model, Stream, Team};
//!
//! # fn main() -> ssmrt_core::Result<()> {
//! # let tree = r#"{"version": 1, "d_input": 1, "d_output": 1, "root": {
//! #     "node": "diagonal", "A": {"complex": "A"}, "B": {"complex": "B"}, "C": {"complex": "C"},
//! #     "D": {"real": "D"}, "dt": {"real": "dt"}}}"#;
//! # let tensor = |name: &str, shape: &[usize], numbers: &[f64]| ssmrt_core::Buffer {
//! #     name: name.into(),
//! #     shape: shape.to_vec(),
//! #     stored: ssmrt_core::Stored::F64,
//! #     bytes: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
//! # };
//! # let file = Document::from_parts(tree, [
//! #     tensor("A", &[1, 1, 2], &[-0.5, 3.0]),
//! #     tensor("B", &[1, 1, 2], &[1.0, 0.0]),
//! #     tensor("C", &[1, 1, 1, 2], &[1.0, 0.0]),
//! #     tensor("D", &[1, 1], &[0.0]),
//! #     tensor("dt", &[1], &[0.1]),
//! # ])?
//! # .to_bytes()?;
//! // let file = std::fs::read("model.ssm.safetensors")?;
//! let team = Team::all()?;
//! let model = Model::<f32>::new(Document::parse(file)?, Isa::choose()?, &team)?;
//! let plan = model.plan(1.0, &team)?;
//!
//! let mut stream = Stream::new(plan, 1)?; // one stream: a microphone, a sensor
//! let mut y = vec![0.0; stream.plan().d_output()];
//! for sample in [[0.0], [1.0], [0.5]] {
//!     stream.step(Input::Real(&sample), None, &mut y)?;
//! }
//! assert_eq!(stream.position(0), 3);
//! assert!(y[0] > 0.0);
//! # Ok(())
//! # }
//! ```

//!
//! What a plan needs to run is its own: a workspace is no name of this crate's, so that none can come from another plan.
//! ```compile_fail
//! use ssmrt_core::plan::Workspace;
//! ```
//! ```compile_fail
//! use ssmrt_core::threads::Shared;
//! ```

#![cfg_attr(test, allow(dead_code, reason = "what `precision` compiles, its own tests do not"))]

#[cfg(target_endian = "big")]
compile_error!("ssmrt is for little-endian processors: nothing of it has ever been tested on a big-endian one");

#[macro_use]
mod names;
mod checksum;
mod conv;
mod convolution_kernel;
mod crew;
mod denormals;
mod discretize;
mod document;
mod error;
mod hippo;
mod inspect;
mod kernels;
mod krylov;
mod layers;
mod lower;
mod memory;
mod model;
mod ops;
mod packed;
mod plan;
mod precision;
mod run;
mod sequence;
mod shared;
mod stream;
mod threads;
mod turn;
mod workspace;

pub use conv::causal_conv;
pub use discretize::{Disc, discretize_matrix};
pub use document::{Array, Buffer, ComplexArray, Discrete, Document, Facts, Stored};
pub use error::{Error, Result};
pub use hippo::hippo;
pub use inspect::Layer;
pub use kernels::{Elem, Isa};
pub use krylov::krylov;
pub use layers::lti::Method;
pub use model::Model;
pub use packed::Weights;
pub use plan::{Input, NotCausal, Plan};
pub use precision::Precision;
pub use sequence::{Sequences, Timing};
pub use stream::Stream;
pub use threads::Team;

/// What benches and tests look into. Nothing here is stable.
#[doc(hidden)]
pub mod internals {
    pub use crate::names::Named;

    pub mod discretize {
        pub use crate::discretize::*;
    }
    pub mod document {
        pub use crate::document::*;
    }
    pub mod kernels {
        pub use crate::kernels::*;
    }
    pub mod threads {
        pub use crate::threads::*;
        pub use crate::turn::{STEPS, Turn};
    }
}

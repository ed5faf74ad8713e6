//! The inner loops: the only SIMD of ssmrt, and its one dispatch.
//!
//! A kernel is one body, generic over [`Lanes`], that [`Isa::run`] compiles for every instruction set. Channels
//! are the lanes: arrays are rows of [`GROUP`] neighbouring channels, so that no kernel shuffles and every
//! instruction set reads the same layout.

/// Runs a body with a number as a constant, where it is one of those listed.
macro_rules! compiled_for {
    ($n:expr, $name:ident, $body:expr, $($k:literal)*) => {
        match $n {
            $($k => { const $name: usize = $k; $body })*
            _ => unreachable!(),
        }
    };
}

pub mod aligned;
pub mod chunk;
pub mod columns;
pub mod conv1d;
pub mod dense;
pub mod diagonal;
pub mod dplr;
pub mod fft;
mod isa;
pub mod lanes;
mod layout;
pub mod linear;
pub mod lookahead;
pub mod mimo;
pub mod modal;
pub mod mode_state;
pub mod norm;
pub mod oscillators;
pub mod pointwise;
pub mod pooling;
pub mod selective;
pub mod softmax;
pub mod ssd;
pub mod step;
mod transpose;
pub mod window;

pub use aligned::Aligned;
pub use isa::Isa;
pub use lanes::{Elem, Kernel, Lanes};
pub use layout::{GROUP, padded};

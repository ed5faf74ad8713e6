//! The layers that hold state.

pub mod convolution;
mod delay;
pub mod lti;
pub mod mimo;
pub mod system;

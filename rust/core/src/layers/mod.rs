//! The layers that hold state.

pub mod convolution;
pub mod impulse;
pub mod lti;
pub mod spectrum;
pub mod system;

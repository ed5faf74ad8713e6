//! The layers that hold state.

pub mod convolution;
pub mod lti;
pub mod spectrum;
pub mod system;

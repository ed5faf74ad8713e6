//! State-space models on plain CPUs: the engine of ssmrt, without Python.

pub mod discretize;
pub mod document;
pub mod error;
pub mod hippo;
pub mod kernels;
pub mod stability;

//! State-space models on plain CPUs: the engine of ssmrt, without Python.

pub mod conv;
pub mod discretize;
pub mod document;
pub mod error;
pub mod hippo;
pub mod kernel;
pub mod kernels;
pub mod layers;
mod lower;
mod ops;
pub mod plan;
pub mod sequence;
pub mod stability;
pub mod stream;
pub mod threads;
mod walk;

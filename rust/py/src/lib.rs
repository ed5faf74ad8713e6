//! The Python face of ssmrt-core: arrays in and out, errors in one match, the GIL released around work.

mod arrays;
mod errors;
mod interrupt;
mod model;
mod ops;
mod plan;
mod precision;
mod reserve;
mod stream;

use pyo3::prelude::*;

/// The engine of ssmrt.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::model::{Document, Model, schema};
    #[pymodule_export]
    use super::ops::{causal_conv, discretize, hippo, krylov};
    #[pymodule_export]
    use super::plan::Plan;
    #[pymodule_export]
    use super::stream::Stream;
    /// The version of the whole package.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

//! The one place where the engine's errors become Python's.

use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use ssmrt_core::Error;

fn class(py: Python<'_>, name: &'static str, cell: &'static PyOnceLock<Py<PyType>>) -> PyResult<Py<PyType>> {
    let class = cell.get_or_try_init(py, || {
        py.import("ssmrt.errors")?.getattr(name)?.cast_into::<PyType>().map(Bound::unbind).map_err(PyErr::from)
    })?;
    Ok(class.clone_ref(py))
}

/// The Python exception of an engine's error.
pub fn raise(error: Error) -> PyErr {
    static CHECKPOINT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static UNSUPPORTED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static NOT_STREAMABLE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let text = error.to_string();
    Python::attach(|py| {
        let class = match error {
            Error::Document(_) => class(py, "CheckpointError", &CHECKPOINT),
            Error::Unsupported(_) => class(py, "UnsupportedError", &UNSUPPORTED),
            Error::NotStreamable(_) => class(py, "NotStreamable", &NOT_STREAMABLE),
            Error::Value(_) => return PyValueError::new_err(text),
            Error::Memory(_) => return PyMemoryError::new_err(text),
            // A signal asked for the stop, and its handler's exception is raised in place of this one.
            Error::Stopped => return PyKeyboardInterrupt::new_err(text),
        };
        class.map_or_else(|e| e, |class| PyErr::from_type(class.into_bound(py), text))
    })
}

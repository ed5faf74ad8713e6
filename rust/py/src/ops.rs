//! Functions on plain arrays.

use crate::arrays::{contiguous, expect_shape, shape_text, vector};
use crate::errors::raise;
use crate::interrupt::abandonable;
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use ssmrt_core::{Disc, Isa, Team};

/// (A, B) of a HiPPO measure: float64 (n, n) and (n,).
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn hippo<'py>(
    py: Python<'py>,
    measure: &str,
    n: usize,
) -> PyResult<(Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>)> {
    let (a, b) = ssmrt_core::hippo(measure, n).map_err(raise)?;
    Ok((PyArray1::from_vec(py, a).reshape([n, n])?, PyArray1::from_vec(py, b)))
}

/// (Abar, Bbar) of a full real system.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn discretize<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    dt: f64,
    method: &str,
    alpha: f64,
) -> PyResult<(Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>)> {
    let a = contiguous::<f64>("A", a, "fiu", "real numbers")?;
    let b = vector("B", b)?;
    let n = b.len();
    expect_shape("A", &[n, n], a.shape())?;
    let disc = Disc::transform(method).map_err(raise)?;
    let (a, b) = (a.as_slice()?.to_vec(), b.as_slice()?.to_vec());
    let work = move || ssmrt_core::discretize_matrix(disc, alpha, &a, &b, n, dt);
    let (a, b) = abandonable(py, work)?.map_err(raise)?;
    Ok((PyArray1::from_vec(py, a).reshape([n, n])?, PyArray1::from_vec(py, b)))
}

/// The causal convolution of the rows of u (rows, length) with those of k (rows, length).
#[pyfunction]
pub fn causal_conv<'py>(
    py: Python<'py>,
    u: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
    let u = contiguous::<f64>("u", u, "f", "a float dtype")?;
    let k = contiguous::<f64>("k", k, "f", "a float dtype")?;
    if u.shape() != k.shape() || u.shape().len() != 2 {
        return Err(PyValueError::new_err(format!(
            "u and k: expected the same shape, found {} and {}",
            shape_text(u.shape()),
            shape_text(k.shape())
        )));
    }
    let length = u.shape()[1];
    let (input, kernel) = (u.as_slice()?, k.as_slice()?);
    let y = py.detach(|| ssmrt_core::causal_conv(&Team::all()?, length, input, kernel)).map_err(raise)?;
    PyArray1::from_vec(py, y).reshape(u.shape().to_vec())
}

/// (b, A b, A^2 b, ...): A (systems, n, n), b (systems, n) -> (systems, n, length).
#[pyfunction]
pub fn krylov<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    length: usize,
) -> PyResult<Bound<'py, PyArray3<f64>>> {
    let a = contiguous::<f64>("A", a, "fiu", "real numbers")?;
    let b = contiguous::<f64>("b", b, "fiu", "real numbers")?;
    let &[s, n] = b.shape() else {
        return Err(PyValueError::new_err(format!("b: expected two axes, found {}", shape_text(b.shape()))));
    };
    expect_shape("A", &[s, n, n], a.shape())?;
    let (matrix, vector) = (a.as_slice()?.to_vec(), b.as_slice()?.to_vec());
    let isa = Isa::choose().map_err(raise)?;
    let work = move || ssmrt_core::krylov(isa, &Team::all()?, s, n, &matrix, &vector, length);
    let data = abandonable(py, work)?.map_err(raise)?;
    PyArray1::from_vec(py, data).reshape([s, n, length])
}

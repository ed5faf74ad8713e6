//! Models as Python sees them: immutable, shared between threads.

use crate::arrays::{Number, Samples, contiguous, expect_shape, flags, output, per_sample, sizes};
use crate::errors::raise;
use crate::interrupt::{interruptible, is_long, sample};
use crate::precision::{Any, on};
use crate::stream::Stream;
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use ssmrt_core::{Method, Plan as Core, Sequences, Team, Timing};
use std::sync::Arc;

/// A model at one rate.
#[pyclass(frozen, module = "ssmrt._native")]
pub struct Plan {
    pub any: Any,
}

#[pymethods]
impl Plan {
    #[getter]
    fn d_input(&self) -> usize {
        on!(self.any, p => p.d_input())
    }

    #[getter]
    fn d_output(&self) -> usize {
        on!(self.any, p => p.d_output())
    }

    #[getter]
    fn state_size(&self) -> usize {
        on!(self.any, p => p.state_len())
    }

    #[getter]
    fn pooled(&self) -> bool {
        on!(self.any, p => p.pooled())
    }

    #[getter]
    fn vocabulary(&self) -> Option<usize> {
        on!(self.any, p => p.vocabulary())
    }

    #[getter]
    fn isa(&self) -> &'static str {
        on!(self.any, p => p.isa().name())
    }

    /// Why the model cannot stream, or None.
    #[getter]
    fn not_streamable(&self) -> Option<String> {
        on!(self.any, p => p.streamable().err().map(|e| e.to_string()))
    }

    /// Answers (batch, length, d_input) from state (batch, state_size) on: (y, next state).
    #[pyo3(signature = (u, state=None, *, dt=None, lengths=None, resets=None, method="auto"))]
    #[allow(clippy::too_many_arguments)]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        u: &Bound<'py, PyAny>,
        state: Option<&Bound<'py, PyAny>>,
        dt: Option<&Bound<'py, PyAny>>,
        lengths: Option<&Bound<'py, PyAny>>,
        resets: Option<&Bound<'py, PyAny>>,
        method: &str,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        on!(self.any, p => forward(py, p, u, state, dt, lengths, resets, method))
    }

    /// Answers one sample (batch, d_input) from state (batch, state_size) on: (y, next state).
    #[pyo3(signature = (u, state, *, dt=None))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        u: &Bound<'py, PyAny>,
        state: &Bound<'py, PyAny>,
        dt: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        on!(self.any, p => step(py, p, u, state, dt))
    }

    /// A stream's state (state_size,) before its first sample.
    #[getter]
    fn start<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        on!(self.any, p => PyArray1::from_slice(py, &p.default_state(1)).into_any())
    }

    /// Streams at their start.
    fn stream(&self, batch: usize) -> PyResult<Stream> {
        Stream::new(&self.any, batch)
    }
}

fn method_of(name: &str) -> PyResult<Method> {
    match name {
        "auto" => Ok(Method::Auto),
        "scan" => Ok(Method::Scan),
        "chunk" => Ok(Method::Chunk),
        "fft" => Ok(Method::Fft),
        _ => Err(PyValueError::new_err(format!("method: expected 'auto', 'scan', 'chunk' or 'fft', found {name:?}"))),
    }
}

fn state_of<'py, E: Number>(
    py: Python<'py>,
    p: &Core<E>,
    batch: usize,
    state: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArrayDyn<E>>> {
    let shape = [batch, p.state_len()];
    let next = PyArrayDyn::<E>::zeros(py, &shape[..], false);
    match state.filter(|s| !s.is_none()) {
        Some(state) => {
            let given = contiguous::<E>("state", state, "f", "a state of this model")?;
            expect_shape("state", &shape, given.shape())?;
            next.try_readwrite()?.as_slice_mut()?.copy_from_slice(given.as_slice()?);
        }
        None => p.start(next.try_readwrite()?.as_slice_mut()?),
    }
    Ok(next)
}

#[allow(clippy::too_many_arguments)]
fn forward<'py, E: Number>(
    py: Python<'py>,
    p: &Arc<Core<E>>,
    u: &Bound<'py, PyAny>,
    state: Option<&Bound<'py, PyAny>>,
    dt: Option<&Bound<'py, PyAny>>,
    lengths: Option<&Bound<'py, PyAny>>,
    resets: Option<&Bound<'py, PyAny>>,
    method: &str,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let u = Samples::<E>::of(u, p.vocabulary().is_some())?;
    let (streams, length) = sizes(p, &u, "batch, length")?;
    let dt = per_sample::<f64>("dt", dt, "fiu", "real numbers", &[streams, length])?;
    let resets = flags("resets", resets, &[streams, length])?;
    let lengths = per_sample::<i64>("lengths", lengths, "iu", "integers", &[streams])?;
    let lengths = match &lengths {
        Some(l) => Some(
            l.as_slice()?
                .iter()
                .map(|&n| {
                    usize::try_from(n)
                        .map_err(|_| PyValueError::new_err(format!("lengths: expected 1 to {length}, found {n}")))
                })
                .collect::<PyResult<Vec<_>>>()?,
        ),
        None => None,
    };
    let next = state_of(py, p, streams, state)?;
    let shape: &[usize] = if p.pooled() { &[streams, p.d_output()] } else { &[streams, length, p.d_output()] };
    let y = output::<E>(py, None, shape)?;
    {
        let (mut states, mut answers) = (next.try_readwrite()?, y.try_readwrite()?);
        let (states, answers) = (states.as_slice_mut()?, answers.as_slice_mut()?);
        let timing = Timing {
            dt: dt.as_ref().map(|a| a.as_slice()).transpose()?,
            resets: resets.as_deref(),
            lengths: lengths.as_deref(),
        };
        let call = Sequences { input: u.input()?, streams, length, timing, method: method_of(method)?, stop: None };
        let long = is_long(streams * length, p.cost());
        let forward = |stop: &_| p.forward(&Team::all()?, &Sequences { stop: Some(stop), ..call }, states, answers);
        interruptible(py, long, forward)?.map_err(raise)?;
    }
    Ok((y.into_any(), next.into_any()))
}

fn step<'py, E: Number>(
    py: Python<'py>,
    p: &Arc<Core<E>>,
    u: &Bound<'py, PyAny>,
    state: &Bound<'py, PyAny>,
    dt: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    p.streamable().map_err(raise)?;
    let u = Samples::<E>::of(u, p.vocabulary().is_some())?;
    let (streams, _) = sizes(p, &u, "batch")?;
    let dt = per_sample::<f64>("dt", dt, "fiu", "real numbers", &[streams])?;
    let next = state_of(py, p, streams, Some(state))?;
    let y = output::<E>(py, None, &[streams, p.d_output()])?;
    {
        let (mut states, mut answers) = (next.try_readwrite()?, y.try_readwrite()?);
        let (states, answers) = (states.as_slice_mut()?, answers.as_slice_mut()?);
        let (dt, input) = (dt.as_ref().map(|a| a.as_slice()).transpose()?, u.input()?);
        sample(py, streams, || p.step(states, streams, input, dt, answers)).map_err(raise)?;
    }
    Ok((y.into_any(), next.into_any()))
}

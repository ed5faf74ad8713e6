//! Models as Python sees them: immutable, shared between threads.

use crate::arrays::{
    Number, Samples, contiguous_array, copy, expect_shape, flags, new_array, output, own, per_sample, shape_text, sizes,
};
use crate::errors::raise;
use crate::interrupt::{interruptible, is_long, sample};
use crate::precision::{Any, on};
use crate::stream::Stream;
use numpy::{PyArrayDyn, PyUntypedArrayMethods};
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

    /// Bytes of the matrices that every sample is multiplied with.
    #[getter]
    fn weight_bytes(&self) -> usize {
        on!(self.any, p => p.weight_bytes())
    }

    /// Of weights that were rounded, in decibels; None where none was.
    #[getter]
    fn signal_to_noise(&self) -> Option<f64> {
        on!(self.any, p => p.signal_to_noise())
    }

    /// Why the model cannot stream, or None.
    #[getter]
    fn not_streamable(&self) -> Option<String> {
        on!(self.any, p => p.streamable().err().map(|e| e.to_string()))
    }

    /// Answers (batch, length, d_input) from state (batch, state_size) on: (y, next state), without the state where it is not
    /// to be returned.
    #[pyo3(signature = (u, state=None, *, dt=None, lengths=None, resets=None, method="auto", return_state=true))]
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
        return_state: bool,
    ) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
        on!(self.any, p => forward(py, p, u, state, dt, lengths, resets, method, return_state))
    }

    /// Answers one sample (*batch_shape, d_input) from state (*batch_shape, state_size) on: (y, next state).
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
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        on!(self.any, p => {
            let mut start = new_array(py, &[p.state_len()])?;
            p.start(own(&mut start)?);
            Ok(start.into_any())
        })
    }

    /// Streams at their start, of the Python model that this is the plan of at a rate.
    #[pyo3(signature = (batch, model, rate, threads=None))]
    fn stream(&self, batch: usize, model: Py<PyAny>, rate: f64, threads: Option<usize>) -> PyResult<Stream> {
        Stream::new(&self.any, batch, model, rate, threads)
    }
}

fn method_of(name: &str, states: bool) -> PyResult<Method> {
    match name {
        "auto" => Ok(Method::Auto),
        "scan" => Ok(Method::Scan),
        "chunk" => Ok(Method::Chunk),
        "fft" => Ok(Method::Fft { states }),
        _ => Err(PyValueError::new_err(format!("method: expected 'auto', 'scan', 'chunk' or 'fft', found {name:?}"))),
    }
}

const STATE: &str = "a state of this model";

fn state_of<'py, E: Number>(
    py: Python<'py>,
    p: &Core<E>,
    batch: usize,
    state: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArrayDyn<E>>> {
    let shape = [batch, p.state_len()];
    let Some(state) = state.filter(|s| !s.is_none()) else {
        let mut next = new_array::<E>(py, &shape)?;
        p.start(own(&mut next)?);
        return Ok(next);
    };
    let given = contiguous_array::<E>("state", state, "f", STATE)?;
    expect_shape("state", &shape, given.shape())?;
    copy(&given)
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
    return_state: bool,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
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
    let mut next = state_of(py, p, streams, state)?;
    let shape: &[usize] = if p.pooled() { &[streams, p.d_output()] } else { &[streams, length, p.d_output()] };
    let mut y = output::<E>(py, None, shape)?;
    {
        let (states, answers) = (own(&mut next)?, own(&mut y)?);
        let timing = Timing {
            dt: dt.as_ref().map(|a| a.as_slice()).transpose()?,
            resets: resets.as_deref(),
            lengths: lengths.as_deref(),
        };
        let call = Sequences {
            input: u.input()?,
            streams,
            length,
            timing,
            method: method_of(method, return_state)?,
            stop: None,
        };
        let long = is_long(streams * length, p.cost());
        let forward = |stop: &_| p.forward(&Team::all()?, &Sequences { stop: Some(stop), ..call }, states, answers);
        interruptible(py, long, forward)?.map_err(raise)?;
    }
    Ok((y.into_any(), return_state.then(|| next.into_any())))
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
    let given = contiguous_array::<E>("state", state, "f", STATE)?;
    let Some((_, batch)) = given.shape().split_last().filter(|(width, _)| **width == p.state_len()) else {
        let found = shape_text(given.shape());
        return Err(PyValueError::new_err(format!("state: expected (*batch_shape, {}), found {found}", p.state_len())));
    };
    let whole = u.shape().split_last().is_some_and(|(&width, rest)| width == p.d_input() && rest == batch);
    // A last axis of one may be left out: tokens have none.
    let bare = p.d_input() == 1 && u.shape() == batch;
    if !(whole || bare) {
        let wanted = if p.vocabulary().is_some() { batch.to_vec() } else { [batch, &[p.d_input()]].concat() };
        let (wanted, state, found) = (shape_text(&wanted), shape_text(given.shape()), shape_text(u.shape()));
        let text = format!("u: expected shape {wanted} with a state of shape {state}, found {found}");
        return Err(PyValueError::new_err(text));
    }
    let streams: usize = batch.iter().product();
    let dt = per_sample::<f64>("dt", dt, "fiu", "real numbers", batch)?;
    let (mut next, mut y) = (copy(&given)?, output::<E>(py, None, &[batch, &[p.d_output()]].concat())?);
    {
        let (states, answers) = (own(&mut next)?, own(&mut y)?);
        let (input, dt) = (u.input()?, dt.as_ref().map(|a| a.as_slice()).transpose()?);
        sample(py, streams, || p.step(states, streams, input, dt, answers)).map_err(raise)?;
    }
    Ok((y.into_any(), next.into_any()))
}

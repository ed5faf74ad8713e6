//! Streams as Python sees them: one thread's, states kept inside.

use crate::arrays::{Number, Samples, contiguous, flags, output, per_sample, sizes, writable};
use crate::errors::raise;
use crate::interrupt::{interruptible, is_long_with_states, sample};
use crate::precision::Any;
use numpy::PyArray1;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ssmrt_core::Stream as Core;
use std::sync::Arc;

enum Inner {
    F32(Core<f32>),
    F64(Core<f64>),
}

macro_rules! on {
    ($inner:expr, $stream:ident => $body:expr) => {
        match $inner {
            Inner::F32($stream) => $body,
            Inner::F64($stream) => $body,
        }
    };
}

/// Streams of one model, each with its own state. Belongs to one thread at a time.
#[pyclass(module = "ssmrt._native")]
pub struct Stream {
    inner: Inner,
}

impl Stream {
    pub fn new(plan: &Any, batch: usize) -> PyResult<Self> {
        let inner = match plan {
            Any::F32(p) => Core::new(Arc::clone(p), batch).map(Inner::F32),
            Any::F64(p) => Core::new(Arc::clone(p), batch).map(Inner::F64),
        };
        Ok(Self { inner: inner.map_err(raise)? })
    }
}

#[pymethods]
impl Stream {
    /// One sample of each stream: u (batch, d_input) -> y (batch, d_output).
    ///
    /// A single stream takes u (d_input,), too, and then y is (d_output,), and dt a number.
    /// ``dt`` (batch,) multiplies the step size for this sample. ``out`` takes the answer. A pooled model
    /// answers as if the sequence ended here. ``active`` (rising stream numbers) steps those streams only;
    /// then ``batch`` above is their number.
    #[pyo3(signature = (u, *, dt=None, out=None, active=None))]
    fn step<'py>(
        &mut self,
        py: Python<'py>,
        u: &Bound<'py, PyAny>,
        dt: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
        active: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        on!(&mut self.inner, s => step(py, s, u, dt, out, active))
    }

    /// A chunk of each stream: u (batch, length, d_input) -> y (batch, length, d_output), any length.
    ///
    /// A single stream takes u (length, d_input), too, and then y is (length, d_output), and dt (length,).
    /// ``dt`` (batch, length) multiplies the step size sample by sample. ``out`` takes the answer. A pooled
    /// model answers as if the sequence ended with each sample.
    #[pyo3(signature = (u, *, dt=None, out=None))]
    fn push<'py>(
        &mut self,
        py: Python<'py>,
        u: &Bound<'py, PyAny>,
        dt: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        on!(&mut self.inner, s => push(py, s, u, dt, out))
    }

    /// Starts anew: every stream, or those for which ``mask`` (batch,) is true.
    #[pyo3(signature = (mask=None))]
    fn reset(&mut self, mask: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let batch = self.batch();
        let mask = flags("mask", mask, &[batch])?;
        on!(&mut self.inner, s => s.reset(mask.as_deref())).map_err(raise)
    }

    /// Samples that each stream has met since its start or last reset (batch,).
    #[getter]
    fn position<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        let at = |i| on!(&self.inner, s => s.position(i)) as i64;
        PyArray1::from_iter(py, (0..self.batch()).map(at))
    }

    /// Streams.
    #[getter]
    fn batch(&self) -> usize {
        on!(&self.inner, s => s.streams())
    }

    /// The states as bytes.
    fn snapshot<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &on!(&self.inner, s => s.snapshot()))
    }

    /// Goes on from a snapshot of a stream of the same model, rate, dtype and batch.
    fn restore(&mut self, blob: &Bound<'_, PyAny>) -> PyResult<()> {
        let blob = blob
            .cast::<PyBytes>()
            .map_err(|_| PyTypeError::new_err(format!("blob: expected bytes, found {}", blob.get_type())))?;
        on!(&mut self.inner, s => s.restore(blob.as_bytes())).map_err(raise)
    }
}

fn step<'py, E: Number>(
    py: Python<'py>,
    s: &mut Core<E>,
    u: &Bound<'py, PyAny>,
    dt: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
    active: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let u = Samples::<E>::of(u, s.plan().vocabulary().is_some())?;
    let active = match active.filter(|a| !a.is_none()) {
        Some(active) => Some(stream_numbers(active)?),
        None => None,
    };
    let alone = s.streams() == 1 && active.is_none() && u.is_alone(s.plan().d_input(), false);
    let batch = if alone { 1 } else { sizes(s.plan(), &u, "batch")?.0 };
    expect_batch(batch, active.as_ref().map_or(s.streams(), Vec::len))?;
    // Without the axis of streams in, without it out.
    let axes = usize::from(alone)..;
    let dt = per_sample::<f64>("dt", dt, "fiu", "real numbers", &[batch][axes.clone()])?;
    let mut y = output::<E>(py, out, &[batch, s.plan().d_output()][axes])?;
    {
        let (answers, input) = (writable(&mut y, &u, dt.as_ref())?, u.input()?);
        let dt = dt.as_ref().map(|a| a.as_slice()).transpose()?;
        let step = || match &active {
            None => s.step(input, dt, answers),
            Some(active) => s.step_active(active, input, dt, answers),
        };
        sample(py, batch, step).map_err(raise)?;
    }
    Ok(y.into_any())
}

fn push<'py, E: Number>(
    py: Python<'py>,
    s: &mut Core<E>,
    u: &Bound<'py, PyAny>,
    dt: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let u = Samples::<E>::of(u, s.plan().vocabulary().is_some())?;
    let alone = s.streams() == 1 && u.is_alone(s.plan().d_input(), true);
    let (batch, length) = if alone { (1, u.shape()[0]) } else { sizes(s.plan(), &u, "batch, length")? };
    expect_batch(batch, s.streams())?;
    let axes = usize::from(alone)..;
    let dt = per_sample::<f64>("dt", dt, "fiu", "real numbers", &[batch, length][axes.clone()])?;
    let mut y = output::<E>(py, out, &[batch, length, s.plan().d_output()][axes])?;
    {
        let (answers, input) = (writable(&mut y, &u, dt.as_ref())?, u.input()?);
        let dt = dt.as_ref().map(|a| a.as_slice()).transpose()?;
        let long = is_long_with_states(batch * length, s.plan().cost());
        if long {
            interruptible(py, long, |stop| s.push_until(stop, input, length, dt, answers))?.map_err(raise)?;
        } else {
            py.detach(|| s.push(input, length, dt, answers)).map_err(raise)?;
        }
    }
    Ok(y.into_any())
}

fn stream_numbers(active: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let numbers = contiguous::<i64>("active", active, "iu", "integers")?;
    let number = |&n: &i64| {
        usize::try_from(n).map_err(|_| PyValueError::new_err(format!("active: expected stream numbers, found {n}")))
    };
    numbers.as_slice()?.iter().map(number).collect()
}

fn expect_batch(found: usize, expected: usize) -> PyResult<()> {
    if found == expected {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("u: expected {expected} streams, found {found}")))
}

//! Streams as Python sees them: one thread's, states kept inside.

use crate::arrays::{Number, Samples, contiguous, flags, new_array, output, per_sample, sizes, writable};
use crate::errors::raise;
use crate::interrupt::{interruptible, is_long_with_states, sample};
use crate::precision::Any;
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView};
use ssmrt_core::Stream as Core;
use std::sync::Arc;

/// What a stream goes on from: how many there are, their rate, their snapshot and their threads.
type Resumed<'py> = (usize, f64, Bound<'py, PyBytes>, Option<usize>);

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
    /// The Python model, of which a copy or a pickle of the stream needs to know.
    model: Py<PyAny>,
    rate: f64,
    threads: Option<usize>,
}

impl Stream {
    pub fn new(plan: &Any, batch: usize, model: Py<PyAny>, rate: f64, threads: Option<usize>) -> PyResult<Self> {
        let limit = threads.unwrap_or(usize::MAX);
        let inner = match plan {
            Any::F32(p) => Core::with_threads(Arc::clone(p), batch, limit).map(Inner::F32),
            Any::F64(p) => Core::with_threads(Arc::clone(p), batch, limit).map(Inner::F64),
        };
        Ok(Self { inner: inner.map_err(raise)?, model, rate, threads })
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
    /// model answers as if the sequence ended with each sample. ``active`` are the streams that u is for, and that move
    /// on: rising numbers; None: all.
    #[pyo3(signature = (u, *, dt=None, out=None, active=None))]
    fn push<'py>(
        &mut self,
        py: Python<'py>,
        u: &Bound<'py, PyAny>,
        dt: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
        active: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        on!(&mut self.inner, s => push(py, s, u, dt, out, active))
    }

    /// As :meth:`push`, without answers: the streams go on from behind ``u``. What only answers need, the head of a language
    /// model, is left out.
    #[pyo3(signature = (u, *, dt=None, active=None))]
    fn prefill<'py>(
        &mut self,
        py: Python<'py>,
        u: &Bound<'py, PyAny>,
        dt: Option<&Bound<'py, PyAny>>,
        active: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        on!(&mut self.inner, s => Block::of(s, u, dt, active)?.run(py, s, None))
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
    fn position<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        let positions = new_array::<i64>(py, &[self.batch()])?;
        // SAFETY: it is new, so that nobody else has it.
        for (i, position) in unsafe { positions.as_slice_mut()? }.iter_mut().enumerate() {
            *position = on!(&self.inner, s => s.position(i)) as i64;
        }
        Ok(positions)
    }

    /// Streams.
    #[getter]
    fn batch(&self) -> usize {
        on!(&self.inner, s => s.streams())
    }

    /// The model whose streams these are.
    #[getter]
    fn model(&self, py: Python<'_>) -> Py<PyAny> {
        self.model.clone_ref(py)
    }

    /// What multiplies every step size.
    #[getter]
    fn rate(&self) -> f64 {
        self.rate
    }

    /// Threads that work for them at most; None: as many as for everything else.
    #[getter]
    fn threads(&self) -> Option<usize> {
        self.threads
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let model = self.model.bind(py).repr()?;
        let batch = self.batch();
        let heard = (0..batch).map(|i| on!(&self.inner, s => s.position(i)));
        let (least, most) = (heard.clone().min().unwrap_or(0), heard.max().unwrap_or(0));
        let heard = if least == most { most.to_string() } else { format!("{least} to {most}") };
        let streams = if batch == 1 { "stream" } else { "streams" };
        Ok(format!("<ssmrt.Stream: {batch} {streams} at rate {}, {heard} samples heard, of {model}>", self.rate))
    }

    /// As its model and its snapshot: pickles and copies go on from where it is.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Resumed<'py>)> {
        let resume = self.model.bind(py).getattr("_resume")?;
        Ok((resume, (self.batch(), self.rate, self.snapshot(py)?, self.threads)))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.model)
    }

    /// The states as bytes.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        on!(&self.inner, s => PyBytes::new_with(py, s.snapshot_len(), |bytes| {
            s.write_snapshot(bytes);
            Ok(())
        }))
    }

    /// Goes on from a snapshot of a stream of the same model, rate, dtype and batch.
    ///
    /// Raises ValueError where it is no such snapshot, was damaged or holds a NaN; then the states are as they were.
    fn restore(&mut self, blob: &Bound<'_, PyAny>) -> PyResult<()> {
        let blob = bytes_of("blob", blob)?;
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
    let active = active.filter(|a| !a.is_none()).map(stream_numbers).transpose()?;
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
    active: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let block = Block::of(s, u, dt, active)?;
    let shape = [block.batch, block.length, s.plan().d_output()];
    let mut y = output::<E>(py, out, &shape[usize::from(block.alone)..])?;
    block.run(py, s, Some(&mut y))?;
    Ok(y.into_any())
}

/// Several samples of streams.
struct Block<'py, E: Number> {
    u: Samples<'py, E>,
    dt: Option<PyReadonlyArrayDyn<'py, f64>>,
    active: Option<Vec<usize>>,
    /// Without the axis of streams in, without it out.
    alone: bool,
    batch: usize,
    length: usize,
}

impl<'py, E: Number> Block<'py, E> {
    fn of(
        s: &Core<E>,
        u: &Bound<'py, PyAny>,
        dt: Option<&Bound<'py, PyAny>>,
        active: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let u = Samples::<E>::of(u, s.plan().vocabulary().is_some())?;
        let active = active.filter(|a| !a.is_none()).map(stream_numbers).transpose()?;
        let alone = s.streams() == 1 && active.is_none() && u.is_alone(s.plan().d_input(), true);
        let (batch, length) = if alone { (1, u.shape()[0]) } else { sizes(s.plan(), &u, "batch, length")? };
        expect_batch(batch, active.as_ref().map_or(s.streams(), Vec::len))?;
        let shape = [batch, length];
        let dt = per_sample::<f64>("dt", dt, "fiu", "real numbers", &shape[usize::from(alone)..])?;
        Ok(Self { u, dt, active, alone, batch, length })
    }

    /// Moves the streams on; `y` takes the answers.
    fn run(self, py: Python<'py>, s: &mut Core<E>, y: Option<&mut Bound<'py, PyArrayDyn<E>>>) -> PyResult<()> {
        let Self { u, dt, active, batch, length, .. } = self;
        let (answers, input) = (y.map(|y| writable(y, &u, dt.as_ref())).transpose()?, u.input()?);
        let dt = dt.as_ref().map(|a| a.as_slice()).transpose()?;
        let long = is_long_with_states(batch * length, s.plan().cost());
        if let Some(active) = active {
            interruptible(py, long, |stop| s.push_active(stop, &active, input, length, dt, answers))?
        } else if long {
            interruptible(py, long, |stop| s.push_until(stop, input, length, dt, answers))?
        } else {
            py.detach(|| match answers {
                Some(answers) => s.push(input, length, dt, answers),
                None => s.prefill(input, length, dt),
            })
        }
        .map_err(raise)
    }
}

/// bytes, and what else Python has for them.
fn bytes_of<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
        return Ok(value.py().get_type::<PyBytes>().call1((value,))?.cast_into()?);
    }
    Err(PyTypeError::new_err(format!("{name}: expected bytes, found {}", value.get_type())))
}

fn stream_numbers(active: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    // NumPy takes an empty list for one of real numbers.
    if active.is_instance_of::<PyList>() && active.is_empty()? {
        return Ok(Vec::new());
    }
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

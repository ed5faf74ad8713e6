//! NumPy arrays in and out: dtypes and shapes are checked here, with what was expected and found.

use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use ssmrt_core::kernels::Elem;
use ssmrt_core::plan::Input;

/// The engine's numbers as NumPy has them.
pub trait Number: Elem + Element {}
impl Number for f32 {}
impl Number for f64 {}

/// An argument as an array of samples.
pub enum Samples<'py, E: Number> {
    /// Real ones, contiguous.
    Real(Bound<'py, PyArrayDyn<E>>),
    /// Tokens, contiguous.
    Tokens(Bound<'py, PyArrayDyn<i64>>),
}

/// "(batch, 3)" and the like.
pub fn shape_text(shape: &[usize]) -> String {
    match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// A Python object as a NumPy array, a list too.
pub fn array<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = value.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let array = value.py().import("numpy")?.call_method1("asarray", (value,))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// `value` as a contiguous array of T to read; only dtypes of the kinds given are converted.
pub fn contiguous<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    kinds: &str,
    expected: &str,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    Ok(contiguous_array::<T>(name, value, kinds, expected)?.try_readonly()?)
}

fn contiguous_array<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    kinds: &str,
    expected: &str,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    if let Ok(array) = value.cast::<PyArrayDyn<T>>()
        && array.is_c_contiguous()
    {
        return Ok(array.clone());
    }
    let py = value.py();
    let array = array(value)?;
    let kind = char::from(array.dtype().kind());
    if !kinds.contains(kind) {
        return Err(PyTypeError::new_err(format!("{name}: expected {expected}, found dtype {}", array.dtype())));
    }
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("dtype", T::get_dtype(py))?;
    let converted = py.import("numpy")?.call_method("ascontiguousarray", (array,), Some(&kwargs))?;
    // ascontiguousarray makes one dimension of none.
    Ok(converted.cast_into::<PyArrayDyn<T>>()?)
}

impl<'py, E: Number> Samples<'py, E> {
    /// `value` as samples of a model: tokens where it has a vocabulary.
    pub fn of(value: &Bound<'py, PyAny>, tokens: bool) -> PyResult<Self> {
        if tokens {
            contiguous_array("u", value, "iu", "integer tokens").map(Samples::Tokens)
        } else {
            contiguous_array("u", value, "f", "a float dtype").map(Samples::Real)
        }
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Samples::Real(a) => a.shape(),
            Samples::Tokens(a) => a.shape(),
        }
    }

    /// Its numbers. Looking up who borrows an array would take as long as a tenth of a sample: [`writable`] keeps
    /// answers apart from them, and whoever writes them from another thread meanwhile gets what NumPy would give.
    pub fn input(&self) -> PyResult<Input<'_, E>> {
        // SAFETY: the arrays are alive and contiguous.
        unsafe {
            Ok(match self {
                Samples::Real(a) => Input::Real(a.as_slice()?),
                Samples::Tokens(a) => Input::Tokens(a.as_slice()?),
            })
        }
    }

    /// The addresses of its first element and of what follows the last.
    fn span(&self) -> (usize, usize) {
        let (start, bytes) = match self {
            Samples::Real(a) => (a.data() as usize, a.len() * size_of::<E>()),
            Samples::Tokens(a) => (a.data() as usize, a.len() * size_of::<i64>()),
        };
        (start, start + bytes)
    }
}

/// An optional array of one number (or flag) a sample.
pub fn per_sample<'py, T: Element>(
    name: &str,
    value: Option<&Bound<'py, PyAny>>,
    kinds: &str,
    expected: &str,
    shape: &[usize],
) -> PyResult<Option<PyReadonlyArrayDyn<'py, T>>> {
    let Some(value) = value.filter(|v| !v.is_none()) else { return Ok(None) };
    let array = contiguous::<T>(name, value, kinds, expected)?;
    if array.shape() != shape {
        return Err(PyValueError::new_err(format!(
            "{name}: expected shape {}, found {}",
            shape_text(shape),
            shape_text(array.shape())
        )));
    }
    Ok(Some(array))
}

/// The array to answer into: `out`, checked, or a new one, of which every element must be written.
pub fn output<'py, E: Number>(
    py: Python<'py>,
    out: Option<&Bound<'py, PyAny>>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<E>>> {
    let Some(out) = out.filter(|v| !v.is_none()) else {
        // SAFETY: whoever asks for it writes all of it, and nobody reads it before.
        return Ok(unsafe { PyArrayDyn::new(py, shape, false) });
    };
    let wrong = |found: String| {
        PyTypeError::new_err(format!("out: expected a writeable C-contiguous {} array, found {found}", E::NAME))
    };
    let Ok(array) = out.cast::<PyArrayDyn<E>>() else {
        return Err(wrong(match out.cast::<PyUntypedArray>() {
            Ok(array) => format!("dtype {}", array.dtype()),
            Err(_) => format!("{}", out.get_type()),
        }));
    };
    if array.shape() != shape {
        return Err(PyValueError::new_err(format!(
            "out: expected shape {}, found {}",
            shape_text(shape),
            shape_text(array.shape())
        )));
    }
    if !array.is_c_contiguous() {
        return Err(wrong("one with other strides".into()));
    }
    Ok(array.clone())
}

/// What [`output`] gave, to be written while `u` is read.
pub fn writable<'a, E: Number>(y: &'a mut Bound<'_, PyArrayDyn<E>>, u: &Samples<'_, E>) -> PyResult<&'a mut [E]> {
    // SAFETY: the array is alive.
    let flags = unsafe { (*y.as_array_ptr()).fields.flags };
    if flags & numpy::npyffi::NPY_ARRAY_WRITEABLE == 0 {
        return Err(PyValueError::new_err("out: expected a writeable array, found a read-only one"));
    }
    let (from, to) = u.span();
    let start = y.data() as usize;
    if start < to && from < start + y.len() * size_of::<E>() {
        return Err(PyValueError::new_err("out: expected an array of its own, found one that shares memory with u"));
    }
    // SAFETY: it is alive, contiguous and writeable, and the samples read meanwhile are elsewhere.
    unsafe { Ok(y.as_slice_mut()?) }
}

/// A float64 vector.
pub fn vector<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<PyReadonlyArray1<'py, f64>> {
    let array = contiguous::<f64>(name, value, "fiu", "real numbers")?;
    let shape = array.shape().to_vec();
    let array: &Bound<'py, PyArrayDyn<f64>> = &array;
    Ok(array
        .cast::<PyArray1<f64>>()
        .map_err(|_| PyValueError::new_err(format!("{name}: expected one axis, found shape {}", shape_text(&shape))))?
        .try_readonly()?)
}

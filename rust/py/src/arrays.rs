//! NumPy arrays in and out: dtypes, shapes and layouts are checked here, with what was expected and found.

use bytes::Bytes;
use numpy::npyffi::{NPY_ARRAY_CARRAY_RO, NPY_ARRAY_WRITEABLE, NpyTypes, PY_ARRAY_API, get_type_object, npy_intp};
use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use ssmrt_core::{Input, Plan, Precision};
use std::ffi::c_int;
use std::ops::Range;
use std::ptr::null_mut;

/// The engine's numbers as NumPy has them.
pub trait Number: Precision + Element {}
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
fn array<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = value.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let py = value.py();
    match py.import("numpy")?.call_method1("asarray", (value,)) {
        Ok(array) => Ok(array.cast_into::<PyUntypedArray>()?),
        Err(error) if error.is_instance_of::<PyValueError>(py) => {
            Err(PyValueError::new_err(format!("{name}: expected an array, found what is none: {}", error.value(py))))
        }
        Err(error) => Err(error),
    }
}

/// Whether it is of a dtype as bfloat16, for which NumPy has no name: a kind of bytes that has a type of its own.
fn is_bfloat16(array: &Bound<'_, PyUntypedArray>) -> PyResult<bool> {
    let dtype = array.dtype();
    Ok(dtype.kind() == b'V' && !dtype.typeobj().is(&array.py().import("numpy")?.getattr("void")?))
}

/// `value` as a contiguous, aligned array of T to read; only dtypes of the kinds given are converted.
pub fn contiguous<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    kinds: &str,
    expected: &str,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    Ok(contiguous_array::<T>(name, value, kinds, expected)?.try_readonly()?)
}

/// As [`contiguous`], as the array itself.
pub fn contiguous_array<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    kinds: &str,
    expected: &str,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    if let Ok(array) = value.cast::<PyArrayDyn<T>>()
        && is(array, NPY_ARRAY_CARRAY_RO)
    {
        return Ok(array.clone());
    }
    let py = value.py();
    let array = array(name, value)?;
    let array = if is_bfloat16(&array)? { array.call_method1("astype", ("float32",))?.cast_into()? } else { array };
    let kind = char::from(array.dtype().kind());
    if !kinds.contains(kind) {
        return Err(PyTypeError::new_err(format!("{name}: expected {expected}, found dtype {}", array.dtype())));
    }
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("dtype", T::get_dtype(py))?;
    kwargs.set_item("order", "C")?;
    // A copy in any case: NumPy leaves an array that is merely misaligned as it is when it makes one contiguous.
    let converted = py.import("numpy")?.call_method("array", (array,), Some(&kwargs))?;
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

    /// Whether it is of one stream and has no axis of streams: ``(width,)``, or where `time` ``(length, width)``.
    /// The width may be left out where it is one, and tokens have none.
    pub fn is_alone(&self, width: usize, time: bool) -> bool {
        let shape = self.shape();
        let (time, tokens) = (usize::from(time), matches!(self, Samples::Tokens(_)));
        shape.len() == time && (tokens || width == 1) || !tokens && shape.len() == time + 1 && shape[time] == width
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
        // SAFETY: the arrays are alive, contiguous and aligned.
        unsafe {
            Ok(match self {
                Samples::Real(a) => Input::Real(a.as_slice()?),
                Samples::Tokens(a) => Input::Tokens(a.as_slice()?),
            })
        }
    }

    fn span(&self) -> Range<usize> {
        match self {
            Samples::Real(a) => span(a),
            Samples::Tokens(a) => span(a),
        }
    }
}

/// Whether an array has all of NumPy's flags given.
#[inline]
fn is<T: Element>(array: &Bound<'_, PyArrayDyn<T>>, flags: c_int) -> bool {
    // SAFETY: the array is alive.
    unsafe { (*array.as_array_ptr()).fields.flags & flags == flags }
}

/// The addresses of the bytes of a contiguous array.
#[inline]
fn span<T: Element>(array: &Bound<'_, PyArrayDyn<T>>) -> Range<usize> {
    let start = array.data() as usize;
    start..start + array.len() * size_of::<T>()
}

/// An optional array of one number a sample.
pub fn per_sample<'py, T: Element>(
    name: &str,
    value: Option<&Bound<'py, PyAny>>,
    kinds: &str,
    expected: &str,
    shape: &[usize],
) -> PyResult<Option<PyReadonlyArrayDyn<'py, T>>> {
    let Some(value) = value.filter(|v| !v.is_none()) else { return Ok(None) };
    let array = contiguous::<T>(name, value, kinds, expected)?;
    expect_shape(name, shape, array.shape())?;
    Ok(Some(array))
}

/// An optional array of one flag a sample. NumPy's flags are bytes of any value, of which all but zero are true.
pub fn flags(name: &str, value: Option<&Bound<'_, PyAny>>, shape: &[usize]) -> PyResult<Option<Vec<bool>>> {
    let Some(value) = value.filter(|v| !v.is_none()) else { return Ok(None) };
    let array = contiguous_array::<bool>(name, value, "b", "flags")?;
    expect_shape(name, shape, array.shape())?;
    let bytes = array.call_method1("view", (u8::get_dtype(value.py()),))?.cast_into::<PyArrayDyn<u8>>()?;
    let bytes = bytes.try_readonly()?;
    let bytes = bytes.as_slice()?;
    let mut flags = Vec::new();
    flags.try_reserve_exact(bytes.len()).map_err(|_| {
        PyMemoryError::new_err(format!("{name}: expected what fits into memory, found {}", bytes.len()))
    })?;
    flags.extend(bytes.iter().map(|&byte| byte != 0));
    Ok(Some(flags))
}

/// Fails where an array has another shape than it must.
#[inline]
pub fn expect_shape(name: &str, expected: &[usize], found: &[usize]) -> PyResult<()> {
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (shape_text(expected), shape_text(found));
    Err(PyValueError::new_err(format!("{name}: expected shape {expected}, found {found}")))
}

/// A new array, of which every element must be written before it is read.
pub fn new_array<'py, T: Element>(py: Python<'py>, shape: &[usize]) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let mut sizes: Vec<npy_intp> = shape.iter().map(|&n| n as npy_intp).collect();
    // SAFETY: the type and the dtype are NumPy's, the sizes are as many as said, and the function gives a new reference or
    // sets an exception, of which too little memory is one.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            get_type_object(py, NpyTypes::PyArray_Type),
            T::get_dtype(py).into_dtype_ptr(),
            sizes.len() as c_int,
            sizes.as_mut_ptr(),
            null_mut(),
            null_mut(),
            0,
            null_mut(),
        );
        Ok(Bound::from_owned_ptr_or_err(py, array)?.cast_into_unchecked())
    }
}

/// A new array of these numbers.
pub fn array_of<'py, T: Element + Copy>(
    py: Python<'py>,
    shape: &[usize],
    numbers: &[T],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array = new_array::<T>(py, shape)?;
    // SAFETY: it is new, so that nobody else has it.
    unsafe { array.as_slice_mut()? }.copy_from_slice(numbers);
    Ok(array)
}

/// The array to answer into: `out`, checked, or a new one, of which every element must be written.
pub fn output<'py, E: Number>(
    py: Python<'py>,
    out: Option<&Bound<'py, PyAny>>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<E>>> {
    let Some(out) = out.filter(|v| !v.is_none()) else {
        return new_array(py, shape);
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
    expect_shape("out", shape, array.shape())?;
    if !is(array, NPY_ARRAY_CARRAY_RO) {
        let strides = !array.is_c_contiguous();
        return Err(wrong(if strides { "one with other strides" } else { "a misaligned one" }.into()));
    }
    Ok(array.clone())
}

/// A copy of a contiguous array.
pub fn copy<'py, E: Number>(array: &Bound<'py, PyArrayDyn<E>>) -> PyResult<Bound<'py, PyArrayDyn<E>>> {
    // SAFETY: it is alive, contiguous and aligned.
    array_of(array.py(), array.shape(), unsafe { array.as_slice()? })
}

/// The numbers of an array that was made here, of which nobody else knows yet.
pub fn own<'a, E: Number>(array: &'a mut Bound<'_, PyArrayDyn<E>>) -> PyResult<&'a mut [E]> {
    // SAFETY: it is alive, contiguous and aligned, and has no other user.
    unsafe { Ok(array.as_slice_mut()?) }
}

/// What [`output`] gave, to be written while `u` and `dt` are read.
pub fn writable<'a, E: Number>(
    y: &'a mut Bound<'_, PyArrayDyn<E>>,
    u: &Samples<'_, E>,
    dt: Option<&PyReadonlyArrayDyn<'_, f64>>,
) -> PyResult<&'a mut [E]> {
    if !is(y, NPY_ARRAY_WRITEABLE) {
        return Err(PyValueError::new_err("out: expected a writeable array, found a read-only one"));
    }
    let written = span(y);
    let meets = |read: Range<usize>| written.start < read.end && read.start < written.end;
    let shared = |name| {
        let found = format!("out: expected an array of its own, found one that shares memory with {name}");
        Err(PyValueError::new_err(found))
    };
    if meets(u.span()) {
        return shared("u");
    }
    if dt.is_some_and(|dt| meets(span(dt))) {
        return shared("dt");
    }
    // SAFETY: it is alive, contiguous, aligned and writeable, and what is read meanwhile is elsewhere.
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

/// The number of streams and of samples of each that `u` has.
pub fn sizes<E: Number>(p: &Plan<E>, u: &Samples<'_, E>, axes: &str) -> PyResult<(usize, usize)> {
    let shape = u.shape();
    let time = axes.contains("length");
    let wanted = 1 + usize::from(time);
    // Tokens may come with a last axis of one.
    let bare = p.vocabulary().is_some() && shape.len() == wanted;
    let fits = bare || shape.len() == wanted + 1 && shape[wanted] == p.d_input();
    if !fits {
        let d = if p.vocabulary().is_some() { String::new() } else { format!(", {}", p.d_input()) };
        return Err(PyValueError::new_err(format!("u: expected ({axes}{d}), found {}", shape_text(shape))));
    }
    Ok((shape[0], if time { shape[1] } else { 1 }))
}

/// Python's memory as bytes that the engine reads: it lives as long as they do.
pub struct Held<T> {
    _owner: T,
    start: *const u8,
    len: usize,
}

// SAFETY: the owner is a reference to a Python object, which any thread may hold and drop; the memory is only read.
unsafe impl<T: Send> Send for Held<T> {}

impl<T> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the owner keeps the memory alive and in its place.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Held<Py<PyAny>> {
    /// The bytes of a contiguous array. Whoever writes them from another thread meanwhile gets what NumPy would give.
    pub fn array<N: Element>(array: &Bound<'_, PyArrayDyn<N>>) -> Bytes {
        let range = span(array);
        let owner = array.clone().into_any().unbind();
        Bytes::from_owner(Held { _owner: owner, start: array.data().cast(), len: range.len() })
    }
}

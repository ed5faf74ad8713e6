//! Documents and models as Python sees them: immutable, shared between threads.

use crate::arrays::{Held, shape_text};
use crate::errors::raise;
use crate::plan::Plan;
use bytes::Bytes;
use numpy::{Complex64, Element, PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use ssmrt_core::{Array, Buffer, Discrete, Document as Core, Isa, Layer, Model as CoreModel, Stored, Team};

/// A tensor's name, shape and dtype.
type TensorOutline = (String, Vec<usize>, &'static str);

/// A model of either precision.
enum Any {
    F32(CoreModel<f32>),
    F64(CoreModel<f64>),
}

/// Calls the same code on a model of either precision.
macro_rules! on {
    ($any:expr, $model:ident => $body:expr) => {
        match &$any {
            Any::F32($model) => $body,
            Any::F64($model) => $body,
        }
    };
}

/// A Document as the engine holds it.
#[pyclass(frozen, module = "ssmrt._native")]
pub struct Document {
    core: Core,
}

/// A model of a Document: what its plans for all rates share.
#[pyclass(frozen, module = "ssmrt._native")]
pub struct Model {
    any: Any,
}

#[pymethods]
impl Model {
    /// In a precision, with weights in the same or in bfloat16. From then on the Document holds the matrices of mixing layers
    /// packed.
    #[new]
    fn new(py: Python<'_>, document: &Document, dtype: &str, weights: &str) -> PyResult<Self> {
        let (document, isa) = (document.core.clone(), Isa::choose().map_err(raise)?);
        let made = py.detach(|| {
            let team = Team::all()?;
            Ok(match (dtype, weights) {
                ("float64", "bfloat16") => Any::F64(CoreModel::with_bfloat16_weights(document, isa, &team)?),
                (_, "bfloat16") => Any::F32(CoreModel::with_bfloat16_weights(document, isa, &team)?),
                ("float64", _) => Any::F64(CoreModel::new(document, isa, &team)?),
                _ => Any::F32(CoreModel::new(document, isa, &team)?),
            })
        });
        Ok(Self { any: made.map_err(raise)? })
    }

    /// The model at a rate.
    fn plan(&self, py: Python<'_>, rate: f64) -> PyResult<Plan> {
        let plan = || Ok(on!(self.any, m => m.plan(rate, &Team::all()?)?.into()));
        // At rate 1 there is nothing to plan.
        let any = if rate == 1.0 { plan() } else { py.detach(plan) };
        Ok(Plan { any: any.map_err(raise)? })
    }
}

#[pymethods]
impl Document {
    /// Of a tree as JSON and its tensors, (name, array) each: float32 or float64, C-contiguous.
    #[new]
    fn new(tree: &str, tensors: Vec<(String, Bound<'_, PyUntypedArray>)>) -> PyResult<Self> {
        let tensors = tensors.into_iter().map(|(name, array)| buffer(name, &array)).collect::<PyResult<Vec<_>>>()?;
        Ok(Self { core: Core::from_parts(tree, tensors).map_err(raise)? })
    }

    /// Of ssmrt's own format.
    #[staticmethod]
    fn parse(py: Python<'_>, data: PyBackedBytes) -> PyResult<Self> {
        Ok(Self { core: py.detach(|| Core::parse(Bytes::from_owner(data))).map_err(raise)? })
    }

    /// Numbers a sample; 1 for tokens.
    #[getter]
    fn d_input(&self) -> usize {
        self.core.d_input()
    }

    /// Numbers an answer.
    #[getter]
    fn d_output(&self) -> usize {
        self.core.d_output()
    }

    /// The tree as JSON, and of every tensor that it refers to its name, shape and dtype.
    fn outline(&self) -> (String, Vec<TensorOutline>) {
        let (tree, tensors) = self.core.outline();
        let dtype = |stored| if stored == Stored::F32 { "float32" } else { "float64" };
        (tree, tensors.into_iter().map(|(name, shape, stored)| (name, shape, dtype(stored))).collect())
    }

    /// ssmrt's own format: every number exactly as it was.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = py.detach(|| self.core.to_bytes());
        PyBytes::new(py, &bytes)
    }

    /// The state-space layers at a rate, a dict each.
    fn layers<'py>(&self, py: Python<'py>, rate: f64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let layers = py.detach(|| self.core.layers(rate)).map_err(raise)?;
        layers.into_iter().map(|layer| dict_of(py, layer)).collect()
    }

    /// The discrete systems of a state-space layer at a rate.
    fn discrete<'py>(&self, py: Python<'py>, layer: usize, rate: f64) -> PyResult<Bound<'py, PyDict>> {
        let systems = py.detach(|| self.core.discrete(layer, rate)).map_err(raise)?;
        let dict = PyDict::new(py);
        match systems {
            Discrete::Modes { a_minus_one, b, c, w, v, d } => {
                for (key, array) in [("a_minus_one", a_minus_one), ("b", b), ("c", c), ("w", w), ("v", v)] {
                    dict.set_item(key, numpy(py, &array)?)?;
                }
                dict.set_item("d", numpy(py, &d)?)?;
            }
            Discrete::Matrices { a_minus_one, b, c, d, x0 } => {
                for (key, array) in [("a_minus_one", a_minus_one), ("b", b), ("c", c), ("d", d)] {
                    dict.set_item(key, numpy(py, &array)?)?;
                }
                dict.set_item("x0", x0.map(|x0| numpy(py, &x0)).transpose()?)?;
            }
            Discrete::Mimo { a_minus_one, b, c, d } => {
                for (key, array) in [("a_minus_one", a_minus_one), ("b", b), ("c", c)] {
                    dict.set_item(key, numpy(py, &array)?)?;
                }
                dict.set_item("d", d.map(|d| numpy(py, &d)).transpose()?)?;
            }
            Discrete::Oscillators { sign, drag, spring, b, c, d } => {
                for (key, array) in [("sign", sign), ("drag", drag), ("spring", spring)] {
                    dict.set_item(key, numpy(py, &array)?)?;
                }
                for (key, array) in [("b", b), ("c", c)] {
                    dict.set_item(key, numpy(py, &array)?)?;
                }
                dict.set_item("d", d.map(|d| numpy(py, &d)).transpose()?)?;
            }
        }
        Ok(dict)
    }

    /// The discrete eigenvalues of a state-space layer at a rate, channel by channel.
    fn eigenvalues<'py>(&self, py: Python<'py>, layer: usize, rate: f64) -> PyResult<Bound<'py, PyArray1<Complex64>>> {
        let values = py.detach(|| self.core.eigenvalues(layer, rate)).map_err(raise)?;
        Ok(PyArray1::from_iter(py, values.into_iter().map(|z| Complex64::new(z.re, z.im))))
    }

    /// The convolution kernel (M, H, length) float64 of a state-space layer at a rate.
    fn kernel<'py>(
        &self,
        py: Python<'py>,
        layer: usize,
        length: usize,
        rate: f64,
    ) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        let isa = Isa::choose().map_err(raise)?;
        let kernel = || self.core.convolution_kernel(layer, length, rate, isa, &Team::all()?);
        let (shape, data) = py.detach(kernel).map_err(raise)?;
        PyArray1::from_vec(py, data).reshape(shape.to_vec())
    }

    /// The widths of the signal after each node of the outermost sequence.
    fn widths(&self) -> Vec<usize> {
        self.core.widths()
    }
}

/// Every kind of node of a Document with its fields, as JSON.
#[pyfunction]
pub fn schema() -> String {
    Core::schema()
}

/// An array's memory, not copied: the engine makes its own copy of what it keeps.
fn buffer(name: String, array: &Bound<'_, PyUntypedArray>) -> PyResult<Buffer> {
    fn of<T: Element>(array: &Bound<'_, PyUntypedArray>) -> Option<(usize, Bytes)> {
        let array = array.cast::<PyArrayDyn<T>>().ok()?;
        (array.is_c_contiguous() && array.is_aligned()).then(|| (size_of::<T>(), Held::array(array)))
    }
    let Some((size, bytes)) = of::<f32>(array).or_else(|| of::<f64>(array)) else {
        let found = format!("{} {}", array.dtype(), shape_text(array.shape()));
        return Err(PyTypeError::new_err(format!("{name}: expected contiguous float32 or float64, found {found}")));
    };
    let stored = if size == 4 { Stored::F32 } else { Stored::F64 };
    Ok(Buffer { name, shape: array.shape().to_vec(), stored, bytes })
}

fn numpy<'py, T: Element + Copy>(py: Python<'py>, array: &Array<T>) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    PyArray1::from_slice(py, &array.data).reshape(array.shape.clone())
}

fn dict_of(py: Python<'_>, layer: Layer) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("kind", layer.kind)?;
    dict.set_item("name", layer.name)?;
    dict.set_item("always_stable", layer.always_stable)?;
    dict.set_item("radius", layer.largest.map(|z| z.norm()))?;
    dict.set_item("place", layer.place.map(|(what, number)| format!("{what} {number}")))?;
    dict.set_item("unstable", layer.unstable)?;
    dict.set_item("aliased", layer.aliased)?;
    dict.set_item("modes", layer.modes)?;
    dict.set_item("cut", layer.cut)?;
    dict.set_item("bidirectional", layer.bidirectional)?;
    Ok(dict)
}

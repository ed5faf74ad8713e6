//! Documents and models as Python sees them: immutable, shared between threads.

use crate::arrays::{Held, array_of, shape_text};
use crate::errors::raise;
use crate::interrupt::abandonable;
use crate::plan::Plan;
use bytes::Bytes;
use numpy::{Complex64, Element, PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyString};
use ssmrt_core::{Array, Buffer, Discrete, Document as Core, Isa, Layer, Model as CoreModel, Stored, Team, Weights};
use std::sync::Arc;

/// A tensor's name, shape and dtype.
type TensorOutline = (String, Vec<usize>, &'static str);

/// A model of either precision.
enum Any {
    F32(Arc<CoreModel<f32>>),
    F64(Arc<CoreModel<f64>>),
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
    /// In a precision, with weights "as given", "float32", "bfloat16" or "int8". From then on the Document holds the
    /// matrices of mixing layers packed.
    #[new]
    fn new(py: Python<'_>, document: &Document, dtype: &str, weights: &str) -> PyResult<Self> {
        let (document, isa) = (document.core.clone(), Isa::choose().map_err(raise)?);
        let weights = match weights {
            "float32" => Weights::Float32,
            "bfloat16" => Weights::Bfloat16,
            "int8" => Weights::Int8,
            _ => Weights::AsGiven,
        };
        let double = dtype == "float64";
        let made = abandonable(py, move || {
            let team = Team::all()?;
            Ok(if double {
                Any::F64(Arc::new(CoreModel::with_weights(document, weights, isa, &team)?))
            } else {
                Any::F32(Arc::new(CoreModel::with_weights(document, weights, isa, &team)?))
            })
        })?;
        Ok(Self { any: made.map_err(raise)? })
    }

    /// The model at a rate.
    fn plan(&self, py: Python<'_>, rate: f64) -> PyResult<Plan> {
        let any = on!(self.any, m => {
            let m = Arc::clone(m);
            let plan = move || Ok(m.plan(rate, &Team::all()?)?.into());
            // At rate 1 there is nothing to plan.
            if rate == 1.0 { plan() } else { abandonable(py, plan)? }
        });
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
    fn outline<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyString>, Vec<TensorOutline>)> {
        let (tree, tensors) = self.core.outline();
        let dtype = |stored| if stored == Stored::F32 { "float32" } else { "float64" };
        // Long enough that there may be no memory for it.
        let tree = PyString::from_encoded_object(bytes(py, tree.as_bytes())?.as_any(), Some(c"utf-8"), None)?;
        Ok((tree, tensors.into_iter().map(|(name, shape, stored)| (name, shape, dtype(stored))).collect()))
    }

    /// ssmrt's own format: every number exactly as it was.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let written = py.detach(|| self.core.to_bytes()).map_err(raise)?;
        bytes(py, &written)
    }

    /// The state-space layers at a rate, a dict each.
    fn layers<'py>(&self, py: Python<'py>, rate: f64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let core = self.core.clone();
        let layers = abandonable(py, move || core.layers(rate))?.map_err(raise)?;
        layers.into_iter().map(|layer| dict_of(py, layer)).collect()
    }

    /// The discrete systems of a state-space layer at a rate.
    fn discrete<'py>(&self, py: Python<'py>, layer: usize, rate: f64) -> PyResult<Bound<'py, PyDict>> {
        let core = self.core.clone();
        let systems = abandonable(py, move || core.discrete(layer, rate))?.map_err(raise)?;
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
    fn eigenvalues<'py>(
        &self,
        py: Python<'py>,
        layer: usize,
        rate: f64,
    ) -> PyResult<Bound<'py, PyArrayDyn<Complex64>>> {
        let core = self.core.clone();
        let values = abandonable(py, move || core.eigenvalues(layer, rate))?.map_err(raise)?;
        array_of(py, &[values.len()], &values)
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
        let core = self.core.clone();
        let kernel = move || core.convolution_kernel(layer, length, rate, isa, &Team::all()?);
        let (shape, data) = abandonable(py, kernel)?.map_err(raise)?;
        array_of(py, &shape, &data)
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

/// A copy as Python's, or the error that there is no memory for one.
fn bytes<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, data.len(), |bytes| {
        bytes.copy_from_slice(data);
        Ok(())
    })
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
    array_of(py, &array.shape, &array.data)
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

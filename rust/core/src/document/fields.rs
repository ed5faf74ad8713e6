//! The fields of a node: how each kind of field is read from the tree, written into it, and described.

use std::collections::HashMap;

use bytes::Bytes;
use num_complex::Complex64;
use serde_json::{Map, Value, json};

use super::Node;
use super::array::{Array, ComplexArray, Matrix, Stored, Tensor, narrow, room};
use crate::error::{Error, Result};
use crate::names::Named;

/// What is left of the tensors of a buffer: each belongs to one field, but for the table of tokens, which may also be the
/// matrix of one linear map.
pub(crate) struct Tensors {
    pub left: HashMap<String, Tensor>,
    /// The table and its name, until a linear map takes it.
    pub table: Option<(String, Matrix)>,
}

/// The fields of one node as they are read, each taken once.
pub(crate) struct Fields<'r> {
    /// What errors call the node.
    pub label: String,
    /// Its place in the tree.
    pub path: String,
    pub depth: usize,
    pub values: Map<String, Value>,
    /// The axes' names, each bound by the first array that has it.
    pub sizes: Vec<(&'static str, usize)>,
    pub tensors: &'r mut Tensors,
}

impl Fields<'_> {
    /// The error that the field `key` is wrong.
    pub fn fail(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::Document(format!("{}: {key}: {what}", self.label))
    }

    /// The field, unless it is null or left out.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key).filter(|value| !value.is_null())
    }

    fn required(&mut self, key: &str) -> Result<Value> {
        self.take(key).ok_or_else(|| self.fail(key, "expected this field, found none"))
    }

    /// The name of the tensor that the field refers to, under `what`: "real" or "complex".
    fn tensor_name(&mut self, key: &str, what: &str) -> Result<String> {
        let value = self.required(key)?;
        match value.as_object().map(|object| object.iter().collect::<Vec<_>>()).as_deref() {
            Some([(found, Value::String(name))]) if found.as_str() == what => Ok(name.clone()),
            Some([(found, Value::String(_))]) if ["real", "complex"].contains(&found.as_str()) => {
                Err(self.fail(key, format!("expected a {what} array, found a {found} one")))
            }
            _ => Err(self.fail(key, format!("expected an array, found {value}"))),
        }
    }

    /// The tensor that the field refers to.
    fn tensor(&mut self, key: &str, what: &str) -> Result<Tensor> {
        let name = self.tensor_name(key, what)?;
        self.named(key, name)
    }

    /// The tensor of that name, which no other field has.
    fn named(&mut self, key: &str, name: String) -> Result<Tensor> {
        let Some(tensor) = self.tensors.left.remove(&name) else {
            return Err(self.fail(key, format!("expected a tensor {name:?} that no other field uses, found none")));
        };
        if let Some((i, x)) = tensor.not_finite() {
            return Err(self.fail(key, format!("expected finite numbers, found {x} at flat index {i}")));
        }
        Ok(tensor)
    }

    /// The size of an axis, if an array had it already.
    pub fn size(&self, axis: &str) -> Option<usize> {
        self.sizes.iter().find(|(name, _)| *name == axis).map(|(_, size)| *size)
    }

    /// Checks a shape against the names of its axes, and remembers their sizes.
    fn bind(&mut self, key: &str, axes: &'static str, shape: &[usize]) -> Result<()> {
        if shape.contains(&0) {
            return Err(self.fail(key, format!("expected no empty axis, found {shape:?}")));
        }
        let expected: Vec<_> = axes.split(' ').map(|axis| (axis, self.size(axis))).collect();
        let mut fits = expected.len() == shape.len();
        for (&(axis, _), &size) in expected.iter().zip(shape) {
            match self.size(axis) {
                Some(known) => fits &= known == size,
                None => self.sizes.push((axis, size)),
            }
        }
        if fits {
            return Ok(());
        }
        let sizes: Vec<_> = expected
            .iter()
            .map(|(axis, size)| size.map_or_else(|| (*axis).to_string(), |size| format!("{axis}={size}")))
            .collect();
        Err(self.fail(key, format!("expected shape ({}), found {shape:?}", sizes.join(", "))))
    }

    fn child(&mut self, key: &str, value: Value) -> Result<Node> {
        Node::read(value, &format!("{}.{key}", self.path), self.depth + 1, self.tensors)
    }
}

/// The tensors of a buffer as they are written.
#[derive(Default)]
pub(crate) struct Written {
    pub tensors: Vec<(String, Vec<usize>, Stored, Contents)>,
    /// The table of tokens, by its matrix' id, and its name.
    table: Option<(usize, String)>,
}

/// The bytes of a tensor, made when they are wanted.
pub(crate) enum Contents {
    Bytes(Bytes),
    Matrix(Matrix),
}

/// The fields of one node as they are written.
pub(crate) struct Writer<'w> {
    pub path: String,
    pub values: Map<String, Value>,
    pub tensors: &'w mut Written,
}

impl Writer<'_> {
    fn tensor(&mut self, key: &str, what: &str, shape: &[usize], stored: Stored, contents: Contents) {
        let name = format!("{}.{key}", self.path);
        self.values.insert(key.into(), json!({what: &name}));
        self.tensors.tensors.push((name, shape.to_vec(), stored, contents));
    }
}

/// A kind of field whose value is a `T`.
pub(crate) trait Field<T> {
    /// Takes it from the node's fields.
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<T>;

    /// Puts it among the node's fields.
    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &T);

    /// What the schema says of it: `(key, description)`, or several where it stands for several fields.
    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)>;
}

impl<T, F: Field<T>> Field<T> for &F {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<T> {
        (*self).read(fields, key)
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &T) {
        (*self).write(writer, key, value);
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        (*self).describe(key)
    }
}

/// A real array whose axes are the words of the string.
pub(crate) struct Real(pub &'static str);
/// As [`Real`], with numbers above zero, and with any of these axes.
pub(crate) struct Positive(pub &'static [&'static str]);
/// A complex array, stored as float64 with a last axis (re, im).
pub(crate) struct Complex(pub &'static str);
/// A real matrix that mixes channels: kept as it is stored.
pub(crate) struct Mixing(pub &'static str);
/// The matrix that tokens choose rows of, kept so too.
pub(crate) struct Table(pub &'static str);
/// As [`Mixing`], or the very table of the tokens.
pub(crate) struct MixingOrTable(pub &'static str);
/// A field that may be null or left out.
pub(crate) struct Optional<F>(pub F);
/// A number within a range.
pub(crate) struct Number {
    pub default: f64,
    pub least: f64,
    pub most: f64,
}
/// True or false.
pub(crate) struct Flag(pub bool);
/// A whole number from 1 to the one given, or null.
pub(crate) struct Count(pub usize);
/// A whole number from 1 to the one given.
pub(crate) struct Size(pub usize);
/// The name of a value, with its default.
pub(crate) struct Choice<T>(pub Option<T>);
/// A node.
pub(crate) struct Child;
/// A list of nodes.
pub(crate) struct Children;

impl Field<Array> for Real {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Array> {
        let tensor = fields.tensor(key, "real")?;
        fields.bind(key, self.0, &tensor.shape)?;
        tensor.array()
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Array) {
        let mut bytes = Vec::with_capacity(value.data.len() * value.stored.size());
        narrow(value.stored, &value.data, &mut bytes);
        writer.tensor(key, "real", &value.shape, value.stored, Contents::Bytes(bytes.into()));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "real", "axes": self.0}))]
    }
}

impl Field<Array> for Positive {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Array> {
        let tensor = fields.tensor(key, "real")?;
        let fits = |axes: &&&str| axes.split(' ').count() == tensor.shape.len();
        fields.bind(key, self.0.iter().find(fits).unwrap_or(&self.0[0]), &tensor.shape)?;
        let array = tensor.array()?;
        match array.data.iter().position(|&x| x <= 0.0) {
            Some(i) => {
                let found = array.data[i];
                Err(fields.fail(key, format!("expected positive numbers, found {found} at flat index {i}")))
            }
            None => Ok(array),
        }
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Array) {
        Real(self.0[0]).write(writer, key, value);
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "real", "axes": self.0.join(" | "), "above": 0.0}))]
    }
}

impl Field<ComplexArray> for Complex {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<ComplexArray> {
        let mut tensor = fields.tensor(key, "complex")?;
        if tensor.shape.pop() != Some(2) {
            return Err(fields.fail(key, "expected a last axis of 2, real and imaginary, found another"));
        }
        fields.bind(key, self.0, &tensor.shape)?;
        let numbers = tensor.widened()?;
        let mut data = room(numbers.len() / 2)?;
        data.extend(numbers.as_chunks().0.iter().map(|&[re, im]| Complex64::new(re, im)));
        Ok(Array { shape: tensor.shape, data: data.into(), stored: Stored::F64 })
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &ComplexArray) {
        let bytes: Vec<u8> = value.data.iter().flat_map(|z| [z.re, z.im]).flat_map(f64::to_le_bytes).collect();
        let shape = [&value.shape[..], &[2]].concat();
        writer.tensor(key, "complex", &shape, Stored::F64, Contents::Bytes(bytes.into()));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "complex", "axes": self.0}))]
    }
}

impl Field<Matrix> for Mixing {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Matrix> {
        let tensor = fields.tensor(key, "real")?;
        fields.bind(key, self.0, &tensor.shape)?;
        Ok(tensor.matrix())
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Matrix) {
        writer.tensor(key, "real", &value.shape, value.stored, Contents::Matrix(value.clone()));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        Real(self.0).describe(key)
    }
}

impl Field<Matrix> for Table {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Matrix> {
        let name = fields.tensor_name(key, "real")?;
        let tensor = fields.named(key, name.clone())?;
        fields.bind(key, self.0, &tensor.shape)?;
        let matrix = tensor.matrix();
        fields.tensors.table = Some((name, matrix.clone()));
        Ok(matrix)
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Matrix) {
        Mixing(self.0).write(writer, key, value);
        writer.tensors.table = Some((value.id(), format!("{}.{key}", writer.path)));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        Real(self.0).describe(key)
    }
}

impl Field<Matrix> for MixingOrTable {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Matrix> {
        let name = fields.tensor_name(key, "real")?;
        let matrix = match fields.tensors.table.take_if(|(table, _)| *table == name) {
            Some((_, matrix)) => matrix,
            None => {
                let tensor = fields.named(key, name)?;
                fields.bind(key, self.0, &tensor.shape)?;
                return Ok(tensor.matrix());
            }
        };
        fields.bind(key, self.0, &matrix.shape)?;
        Ok(matrix)
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Matrix) {
        match writer.tensors.table.take_if(|(id, _)| *id == value.id()) {
            Some((_, name)) => drop(writer.values.insert(key.into(), json!({"real": name}))),
            None => Mixing(self.0).write(writer, key, value),
        }
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        Real(self.0).describe(key)
    }
}

impl<T, F: Field<T>> Field<Option<T>> for Optional<F> {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Option<T>> {
        if fields.values.get(key).is_none_or(Value::is_null) {
            fields.values.remove(key);
            return Ok(None);
        }
        self.0.read(fields, key).map(Some)
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Option<T>) {
        match value {
            Some(value) => self.0.write(writer, key, value),
            None => drop(writer.values.insert(key.into(), Value::Null)),
        }
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        let mut fields = self.0.describe(key);
        fields.iter_mut().for_each(|(_, field)| field["default"] = Value::Null);
        fields
    }
}

impl Field<f64> for Number {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<f64> {
        let Some(value) = fields.take(key) else { return Ok(self.default) };
        match value.as_f64() {
            Some(x) if (self.least..=self.most).contains(&x) => Ok(x),
            _ if self.most == f64::MAX => {
                Err(fields.fail(key, format!("expected a finite number >= {}, found {value}", self.least)))
            }
            _ => Err(fields.fail(key, format!("expected {} to {}, found {value}", self.least, self.most))),
        }
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &f64) {
        writer.values.insert(key.into(), json!(value));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "number", "default": self.default}))]
    }
}

impl Field<bool> for Flag {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<bool> {
        let Some(value) = fields.take(key) else { return Ok(self.0) };
        value.as_bool().ok_or_else(|| fields.fail(key, format!("expected true or false, found {value}")))
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &bool) {
        writer.values.insert(key.into(), json!(value));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "flag", "default": self.0}))]
    }
}

impl Field<Option<usize>> for Count {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Option<usize>> {
        let Some(value) = fields.take(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=self.0).contains(n)) {
            Some(n) => Ok(Some(n)),
            None => Err(fields.fail(key, format!("expected 1 to {}, found {value}", self.0))),
        }
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Option<usize>) {
        writer.values.insert(key.into(), json!(value));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "count", "default": null}))]
    }
}

impl Field<usize> for Size {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<usize> {
        let count = Count(self.0).read(fields, key)?;
        count.ok_or_else(|| fields.fail(key, format!("expected 1 to {}, found none", self.0)))
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &usize) {
        Count(self.0).write(writer, key, &Some(*value));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "count"}))]
    }
}

impl<T: Named> Field<T> for Choice<T> {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<T> {
        let value = match (fields.take(key), self.0) {
            (None, Some(default)) => return Ok(default),
            (None, None) => return Err(fields.fail(key, "expected this field, found none")),
            (Some(value), _) => value,
        };
        value
            .as_str()
            .and_then(T::named)
            .ok_or_else(|| fields.fail(key, format!("expected one of {}, found {value}", T::known())))
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &T) {
        writer.values.insert(key.into(), json!(value.name()));
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        let names: Vec<_> = T::NAMES.iter().map(|(name, _)| *name).collect();
        let mut field = json!({"type": "choice", "names": names});
        if let Some(default) = self.0 {
            field["default"] = json!(default.name());
        }
        vec![(key, field)]
    }
}

impl Field<Box<Node>> for Child {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Box<Node>> {
        let value = fields.required(key)?;
        fields.child(key, value).map(Box::new)
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Box<Node>) {
        let child = value.write(&format!("{}.{key}", writer.path), writer.tensors);
        writer.values.insert(key.into(), child);
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "node"}))]
    }
}

impl Field<Vec<Node>> for Children {
    fn read(&self, fields: &mut Fields<'_>, key: &'static str) -> Result<Vec<Node>> {
        match fields.required(key)? {
            Value::Array(children) => {
                children.into_iter().enumerate().map(|(i, v)| fields.child(&format!("{key}.{i}"), v)).collect()
            }
            other => Err(fields.fail(key, format!("expected a list of nodes, found {other}"))),
        }
    }

    fn write(&self, writer: &mut Writer<'_>, key: &'static str, value: &Vec<Node>) {
        let path = format!("{}.{key}", writer.path);
        let children = value.iter().enumerate().map(|(i, node)| node.write(&format!("{path}.{i}"), writer.tensors));
        let children = children.collect();
        writer.values.insert(key.into(), children);
    }

    fn describe(&self, key: &'static str) -> Vec<(&'static str, Value)> {
        vec![(key, json!({"type": "nodes"}))]
    }
}

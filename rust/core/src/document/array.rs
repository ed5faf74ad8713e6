//! The arrays of a Document: small ones in float64, and the matrices of mixing layers as they are stored.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use num_complex::Complex64;

use crate::error::{Error, Result};

/// How a real tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// IEEE float32, little-endian.
    F32,
    /// IEEE float64, little-endian.
    F64,
}

impl Stored {
    /// Bytes a number.
    pub const fn size(self) -> usize {
        match self {
            Stored::F32 => 4,
            Stored::F64 => 8,
        }
    }
}

/// A row-major array, every number of it finite. Clones share the numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T = f64> {
    /// The size of every axis, each at least 1.
    pub shape: Vec<usize>,
    /// The numbers, last axis fastest.
    pub data: Arc<Vec<T>>,
    /// How a real one is stored, which holds its numbers exactly. Complex ones are stored as float64.
    pub stored: Stored,
}

/// A complex [`Array`].
pub type ComplexArray = Array<Complex64>;

impl<T> Array<T> {
    /// An array that is stored as float64.
    ///
    /// # Panics
    /// Where `data` has not as many numbers as `shape` says.
    pub fn new(shape: &[usize], data: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "as many numbers as the shape says");
        Self { shape: shape.to_vec(), data: data.into(), stored: Stored::F64 }
    }

    /// The numbers along the last axis; `i` counts the axes before it as one.
    pub fn row(&self, i: usize) -> &[T] {
        let size = self.shape[self.shape.len() - 1];
        &self.data[i * size..(i + 1) * size]
    }
}

/// What gives the rows of a matrix, exactly as they were stored.
pub(crate) trait Rows: Send + Sync + std::fmt::Debug {
    /// How many.
    fn count(&self) -> usize;

    /// Writes row `i` as float64.
    fn row(&self, i: usize, out: &mut [f64]);

    /// The bytes as they were stored, where it is these.
    fn bytes(&self) -> Option<Bytes> {
        None
    }
}

/// Rows as they lie in a buffer.
#[derive(Debug)]
struct Raw {
    columns: usize,
    stored: Stored,
    bytes: Bytes,
}

impl Rows for Raw {
    fn count(&self) -> usize {
        self.bytes.len() / (self.columns * self.stored.size())
    }

    fn row(&self, i: usize, out: &mut [f64]) {
        let len = self.columns * self.stored.size();
        widen(self.stored, &self.bytes[i * len..(i + 1) * len], out);
    }

    fn bytes(&self) -> Option<Bytes> {
        Some(self.bytes.clone())
    }
}

/// A real matrix (rows, columns), every number of it finite, held as it was read until a model has packed it for its
/// kernels; from then on the packed numbers alone are held. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Rows and columns, each at least 1.
    pub shape: [usize; 2],
    /// How its numbers are stored in a file.
    pub stored: Stored,
    /// Parts whose rows follow one another.
    parts: Arc<Mutex<Vec<Arc<dyn Rows>>>>,
}

impl Matrix {
    fn new(shape: [usize; 2], stored: Stored, bytes: Bytes) -> Self {
        assert_eq!(bytes.len(), shape[0] * shape[1] * stored.size(), "as many bytes as the shape says");
        let raw: Arc<dyn Rows> = Arc::new(Raw { columns: shape[1], stored, bytes });
        Self { shape, stored, parts: Arc::new(Mutex::new(vec![raw])) }
    }

    /// A matrix of float64 numbers, row-major.
    ///
    /// # Panics
    /// Where `data` has not as many numbers as `shape` says.
    pub fn of(shape: [usize; 2], data: &[f64]) -> Self {
        Self::new(shape, Stored::F64, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// What tells it from other matrices, for as long as it lives.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.parts).addr()
    }

    /// Calls `f` with each row's number and its numbers in float64, in their order.
    pub fn for_each_row(&self, mut f: impl FnMut(usize, &[f64])) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut row = vec![0.0; self.shape[1]];
        let mut first = 0;
        for part in parts {
            for i in 0..part.count() {
                part.row(i, &mut row);
                f(first + i, &row);
            }
            first += part.count();
        }
    }

    /// All numbers in float64, row-major.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn to_vec(&self) -> Result<Vec<f64>> {
        let mut out = room(self.shape[0] * self.shape[1])?;
        self.for_each_row(|_, row| out.extend_from_slice(row));
        Ok(out)
    }

    /// The bytes that it was read from, while it holds them.
    pub(crate) fn bytes(&self) -> Option<(Stored, Bytes)> {
        match &**self.parts.lock().unwrap_or_else(PoisonError::into_inner) {
            [part] => part.bytes().map(|bytes| (self.stored, bytes)),
            _ => None,
        }
    }

    /// The bytes that it is stored as.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.shape[0] * self.shape[1] * self.stored.size());
        self.for_each_row(|_, row| narrow(self.stored, row, &mut out));
        out
    }

    /// Holds a copy of its bytes from now on.
    pub(crate) fn hold_copy(&self) -> Result<()> {
        if let Some((stored, bytes)) = self.bytes() {
            let mut copy = room(bytes.len())?;
            copy.extend_from_slice(&bytes);
            self.hold(vec![Arc::new(Raw { columns: self.shape[1], stored, bytes: copy.into() })]);
        }
        Ok(())
    }

    /// Holds the numbers in `parts` from now on, whose rows follow one another: exactly these numbers, and all of them.
    pub(crate) fn hold(&self, parts: Vec<Arc<dyn Rows>>) {
        assert_eq!(parts.iter().map(|part| part.count()).sum::<usize>(), self.shape[0], "every row is held");
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = parts;
    }
}

/// An empty vector with room for so many numbers of a tensor.
pub(crate) fn room<T>(len: usize) -> Result<Vec<T>> {
    let mut out = Vec::new();
    let full = |_| Error::Memory(format!("a tensor: expected what fits into memory, found {len} numbers"));
    out.try_reserve_exact(len).map_err(full)?;
    Ok(out)
}

fn widen(stored: Stored, bytes: &[u8], out: &mut [f64]) {
    match stored {
        Stored::F32 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(x, b)| *x = f32::from_le_bytes(*b).into()),
        Stored::F64 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(x, b)| *x = f64::from_le_bytes(*b)),
    }
}

/// The bytes of numbers that `stored` holds exactly.
pub(crate) fn narrow(stored: Stored, numbers: &[f64], out: &mut Vec<u8>) {
    match stored {
        Stored::F32 => out.extend(numbers.iter().flat_map(|&x| (x as f32).to_le_bytes())),
        Stored::F64 => out.extend(numbers.iter().flat_map(|&x| x.to_le_bytes())),
    }
}

/// A real tensor as it lies in a buffer.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub shape: Vec<usize>,
    pub stored: Stored,
    pub bytes: Bytes,
}

impl Tensor {
    /// The numbers in float64.
    pub fn widened(&self) -> Result<Vec<f64>> {
        let len = self.bytes.len() / self.stored.size();
        let mut out = room(len)?;
        out.resize(len, 0.0);
        widen(self.stored, &self.bytes, &mut out);
        Ok(out)
    }

    /// The flat index of the first number that is not finite, and the number.
    pub fn not_finite(&self) -> Option<(usize, f64)> {
        // Eight at once: the exponent of a number that is not finite is all ones.
        match self.stored {
            Stored::F32 => first(self.bytes.as_chunks().0, |b| f32::from_le_bytes(b).into()),
            Stored::F64 => first(self.bytes.as_chunks().0, f64::from_le_bytes),
        }
    }

    /// It in float64.
    pub fn array(self) -> Result<Array> {
        Ok(Array { data: self.widened()?.into(), stored: self.stored, shape: self.shape })
    }

    /// It as it is stored.
    ///
    /// # Panics
    /// Where it has not two axes.
    pub fn matrix(self) -> Matrix {
        Matrix::new([self.shape[0], self.shape[1]], self.stored, self.bytes)
    }
}

fn first<const N: usize>(numbers: &[[u8; N]], number: impl Fn([u8; N]) -> f64) -> Option<(usize, f64)> {
    const BLOCK: usize = 1024;
    let blocks = numbers.chunks(BLOCK).enumerate();
    let all_finite = |block: &&[[u8; N]]| block.iter().fold(true, |all, b| all & number(*b).is_finite());
    let (at, block) = blocks.into_iter().find(|(_, block)| !all_finite(block))?;
    let i = block.iter().position(|b| !number(*b).is_finite())?;
    Some((at * BLOCK + i, number(block[i])))
}

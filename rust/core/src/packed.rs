//! The matrices of a model's mixing layers as their kernels read them: packed once, shared by the plans of all rates.

use crate::document::{Matrix, Rows, Stored};
use crate::error::Result;
use crate::kernels::linear::{Epilogue, Form, Linear};
use crate::kernels::{Aligned, Elem, padded};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// How the matrices of mixing layers are held, in memory and where they are multiplied. Sums are those of the precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As they are: in float32 those whose numbers all are of bfloat16, as those of a file in bfloat16 are, as such, and
    /// the others whole. Nothing is rounded.
    #[default]
    AsGiven,
    /// In float32.
    Float32,
    /// In bfloat16, to which they are rounded: half the memory, and half of what a sample reads.
    Bfloat16,
    /// In integers of eight bits with a scale for each output, to which they are rounded: a quarter.
    Int8,
}

/// A part of a matrix: some of its rows.
#[derive(Debug)]
enum Part<E> {
    Linear(Arc<Linear<E>>),
    Table(Arc<Table<E>>),
}

/// What tokens choose rows of.
#[derive(Debug)]
pub(crate) enum Table<E> {
    /// Rows of so many columns, each padded to whole groups.
    Rows(usize, Aligned<E>),
    /// The matrix of a linear map: that which it is tied to, or one of its own that is not as wide.
    Matrix(Arc<Linear<E>>),
}

impl<E: Elem> Table<E> {
    /// Writes row `i`, padded to whole groups.
    pub fn read(&self, i: usize, out: &mut [E]) {
        match self {
            Table::Rows(columns, rows) => out.copy_from_slice(&rows[i * padded(*columns)..][..padded(*columns)]),
            Table::Matrix(matrix) => {
                let (row, rest) = out.split_at_mut(matrix.d_in());
                matrix.unpack(i, row);
                rest.fill(E::ZERO);
            }
        }
    }
}

/// What was packed of a matrix, by the first row.
type Parts<E> = BTreeMap<usize, Part<E>>;

/// What was packed so far, by the matrix' id, which is its own as long as the matrix is kept.
#[derive(Debug)]
pub struct Packed<E> {
    weights: Weights,
    matrices: Mutex<HashMap<usize, (Matrix, Parts<E>)>>,
}

impl<E> Packed<E> {
    /// Of which nothing is packed yet. What is rounded is rounded for good: these are the model's weights from then on.
    pub fn new(weights: Weights) -> Self {
        Self { weights, matrices: Mutex::new(HashMap::new()) }
    }
}

impl<E: Elem> Packed<E> {
    /// The linear map of some rows of a matrix. The same rows always have the same bias and epilogue.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn linear(
        &self,
        matrix: &Matrix,
        rows: Range<usize>,
        bias: Option<&[f64]>,
        epilogue: Epilogue,
    ) -> Result<Arc<Linear<E>>> {
        let mut packed = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, parts) = packed.entry(matrix.id()).or_insert_with(|| (matrix.clone(), BTreeMap::new()));
        let part = match parts.entry(rows.start) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(place) => {
                let form = self.form(matrix, &rows);
                place.insert(Part::Linear(Arc::new(packed_as(form, matrix, rows, bias, epilogue)?)))
            }
        };
        let Part::Linear(linear) = part else { unreachable!("a matrix belongs to one node, but for a tied one") };
        Ok(Arc::clone(linear))
    }

    /// How some rows of a matrix are held.
    fn form(&self, matrix: &Matrix, rows: &Range<usize>) -> Form {
        match self.weights {
            Weights::AsGiven if size_of::<E>() == size_of::<f32>() && all(matrix, rows, is_bfloat16) => Form::Halved,
            Weights::AsGiven | Weights::Float32 => Form::Whole,
            Weights::Bfloat16 => Form::Halved,
            Weights::Int8 => Form::Quartered,
        }
    }

    /// The table that a matrix is: it is asked for when all linear maps have been, so that the one that is tied to it is
    /// there.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn table(&self, matrix: &Matrix) -> Result<Arc<Table<E>>> {
        let mut packed = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, parts) = packed.entry(matrix.id()).or_insert_with(|| (matrix.clone(), BTreeMap::new()));
        let part = match parts.entry(0) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(place) => place.insert(self.table_of(matrix)?),
        };
        Ok(match part {
            Part::Linear(linear) => Arc::new(Table::Matrix(Arc::clone(linear))),
            Part::Table(table) => Arc::clone(table),
        })
    }

    fn table_of(&self, matrix: &Matrix) -> Result<Part<E>> {
        let [count, columns] = matrix.shape;
        // Nobody asked for a rounded table.
        if self.weights == Weights::AsGiven && self.form(matrix, &(0..count)) == Form::Halved {
            let linear = packed_as(Form::Halved, matrix, 0..count, None, Epilogue::None)?;
            return Ok(Part::Linear(Arc::new(linear)));
        }
        let mut rows = Aligned::try_zeros("weights", count, padded(columns))?;
        matrix.for_each_row(|i, row| {
            rows[i * padded(columns)..].iter_mut().zip(row).for_each(|(y, x)| *y = E::of(*x));
        });
        Ok(Part::Table(Arc::new(Table::Rows(columns, rows))))
    }

    /// Lets the matrices that are packed as a whole, exactly or as was asked for, hold their numbers packed, so that
    /// nothing is kept twice; and all others a copy of their own, so that nothing of the file or of the caller's arrays is
    /// kept.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn replace_raw(&self) -> Result<()> {
        let packed = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        for (matrix, parts) in packed.values() {
            let rounded = parts.values().all(|part| matches!(part, Part::Linear(_)))
                && matches!(self.weights, Weights::Bfloat16 | Weights::Int8);
            let parts = parts.values().map(|part| match part {
                Part::Linear(linear) => Arc::clone(linear) as Arc<dyn Rows>,
                Part::Table(table) => Arc::clone(table) as Arc<dyn Rows>,
            });
            let parts: Vec<_> = parts.collect();
            let whole = parts.iter().map(|part| part.count()).sum::<usize>() == matrix.shape[0];
            if whole && (size_of::<E>() >= matrix.stored.size() || rounded) {
                matrix.hold(parts);
            } else {
                matrix.hold_copy()?;
            }
        }
        Ok(())
    }
}

/// Some rows of a matrix as a linear map.
fn packed_as<E: Elem>(
    form: Form,
    matrix: &Matrix,
    rows: Range<usize>,
    bias: Option<&[f64]>,
    epilogue: Epilogue,
) -> Result<Linear<E>> {
    let (d_in, d_out) = (matrix.shape[1], rows.len() / epilogue.rows());
    let at = |i: usize, j: usize| (rows.start + i) * d_in + j;
    let linear = match matrix.bytes() {
        Some((Stored::F32, bytes)) => {
            let numbers = bytes.as_chunks().0;
            Linear::new(d_in, d_out, |i, j| f32::from_le_bytes(numbers[at(i, j)]).into(), bias, epilogue)
        }
        Some((Stored::F64, bytes)) => {
            let numbers = bytes.as_chunks().0;
            Linear::new(d_in, d_out, |i, j| f64::from_le_bytes(numbers[at(i, j)]), bias, epilogue)
        }
        None => {
            let numbers = matrix.to_vec()?;
            Linear::new(d_in, d_out, |i, j| numbers[at(i, j)], bias, epilogue)
        }
    };
    linear?.rounded(form)
}

/// Whether all numbers of some rows of a matrix are such.
fn all(matrix: &Matrix, rows: &Range<usize>, such: impl Fn(f64) -> bool) -> bool {
    let numbers = rows.start * matrix.shape[1]..rows.end * matrix.shape[1];
    match matrix.bytes() {
        Some((Stored::F32, bytes)) => bytes.as_chunks().0[numbers].iter().all(|b| such(f32::from_le_bytes(*b).into())),
        Some((Stored::F64, bytes)) => bytes.as_chunks().0[numbers].iter().all(|b| such(f64::from_le_bytes(*b))),
        None => {
            let mut all = true;
            matrix.for_each_row(|i, row| all &= !rows.contains(&i) || row.iter().all(|&x| such(x)));
            all
        }
    }
}

/// Whether bfloat16 holds a number exactly.
fn is_bfloat16(x: f64) -> bool {
    let single = x as f32;
    f64::from(single) == x && single.to_bits() & 0xffff == 0
}

impl<E: Elem> Rows for Linear<E> {
    fn count(&self) -> usize {
        self.weight_rows()
    }

    fn row(&self, i: usize, out: &mut [f64]) {
        let mut row = vec![E::ZERO; out.len()];
        self.unpack(i, &mut row);
        out.iter_mut().zip(row).for_each(|(y, x)| *y = x.f64());
    }
}

impl<E: Elem> Rows for Table<E> {
    fn count(&self) -> usize {
        match self {
            Table::Rows(columns, rows) => rows.len() / padded(*columns),
            Table::Matrix(matrix) => matrix.count(),
        }
    }

    fn row(&self, i: usize, out: &mut [f64]) {
        match self {
            Table::Rows(columns, rows) => {
                out.iter_mut().zip(&rows[i * padded(*columns)..]).for_each(|(y, x)| *y = x.f64());
            }
            Table::Matrix(matrix) => matrix.row(i, out),
        }
    }
}

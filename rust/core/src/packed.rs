//! The matrices of a model's mixing layers as their kernels read them: packed once, shared by the plans of all rates.

use crate::document::{Matrix, Rows, Stored};
use crate::kernels::linear::{Epilogue, Linear};
use crate::kernels::{Aligned, Elem, padded};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A part of a matrix: some of its rows.
#[derive(Debug)]
enum Part<E> {
    Linear(Arc<Linear<E>>),
    Table(Arc<Table<E>>),
}

#[derive(Debug)]
struct Table<E> {
    columns: usize,
    rows: Arc<Aligned<E>>,
}

/// What was packed of a matrix, by the first row.
type Parts<E> = BTreeMap<usize, Part<E>>;

/// What was packed so far, by the matrix' id, which is its own as long as the matrix is kept.
#[derive(Debug)]
pub struct Packed<E> {
    /// Whether linear maps have their weights in half the bits.
    halved: bool,
    matrices: Mutex<HashMap<usize, (Matrix, Parts<E>)>>,
}

impl<E> Packed<E> {
    /// Of which nothing is packed yet. With `halved`, weights of linear maps are rounded to half their bits: from then on
    /// these are the model's.
    pub fn new(halved: bool) -> Self {
        Self { halved, matrices: Mutex::new(HashMap::new()) }
    }

    /// Whether weights are rounded.
    pub fn halved(&self) -> bool {
        self.halved
    }
}

impl<E: Elem> Packed<E> {
    /// The linear map of some rows of a matrix. The same rows always have the same bias and epilogue.
    pub fn linear(
        &self,
        matrix: &Matrix,
        rows: Range<usize>,
        bias: Option<&[f64]>,
        epilogue: Epilogue,
    ) -> Arc<Linear<E>> {
        let mut packed = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, parts) = packed.entry(matrix.id()).or_insert_with(|| (matrix.clone(), BTreeMap::new()));
        let part = parts.entry(rows.start).or_insert_with(|| {
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
                    let numbers = matrix.to_vec();
                    Linear::new(d_in, d_out, |i, j| numbers[at(i, j)], bias, epilogue)
                }
            };
            Part::Linear(Arc::new(if self.halved { linear.halved() } else { linear }))
        });
        let Part::Linear(linear) = part else { unreachable!("a matrix belongs to one node") };
        Arc::clone(linear)
    }

    /// The rows of a table, each padded to whole groups.
    pub fn table(&self, matrix: &Matrix) -> Arc<Aligned<E>> {
        let mut packed = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, parts) = packed.entry(matrix.id()).or_insert_with(|| (matrix.clone(), BTreeMap::new()));
        let part = parts.entry(0).or_insert_with(|| {
            let [count, columns] = matrix.shape;
            let mut rows = Aligned::zeros(count * padded(columns));
            matrix.for_each_row(|i, row| {
                rows[i * padded(columns)..].iter_mut().zip(row).for_each(|(y, x)| *y = E::of(*x));
            });
            Part::Table(Arc::new(Table { columns, rows: Arc::new(rows) }))
        });
        let Part::Table(table) = part else { unreachable!("a matrix belongs to one node") };
        Arc::clone(&table.rows)
    }

    /// Lets the matrices that are packed as a whole, and exactly or as they were asked to be, hold their numbers packed, so that nothing is kept twice;
    /// and all others a copy of their own, so that nothing of the file or of the caller's arrays is kept.
    pub fn replace_raw(&self) {
        let packed = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        for (matrix, parts) in packed.values() {
            let linear = parts.values().all(|part| matches!(part, Part::Linear(_)));
            let parts = parts.values().map(|part| match part {
                Part::Linear(linear) => Arc::clone(linear) as Arc<dyn Rows>,
                Part::Table(table) => Arc::clone(table) as Arc<dyn Rows>,
            });
            let parts: Vec<_> = parts.collect();
            let whole = parts.iter().map(|part| part.count()).sum::<usize>() == matrix.shape[0];
            if whole && (size_of::<E>() >= matrix.stored.size() || self.halved && linear) {
                matrix.hold(parts);
            } else {
                matrix.hold_copy();
            }
        }
    }
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
        self.rows.len() / padded(self.columns)
    }

    fn row(&self, i: usize, out: &mut [f64]) {
        out.iter_mut().zip(&self.rows[i * padded(self.columns)..]).for_each(|(y, x)| *y = x.f64());
    }
}

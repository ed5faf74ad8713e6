//! Linear time-invariant layers in chunks of T samples, as four small matrix products of the inputs U and the state X:
//! Y = K U + G X with K lower triangular Toeplitz, and X' = A^T X + W U.
//!
//! The state is rounded once a chunk instead of once a sample, and each coefficient that is read serves all chunks of
//! a tile. What that rounding leaves over is carried to the next chunk: a constant input moves a state that is close to its
//! limit by less than half its last digit a chunk, and always the same way.

/// Runs a body for all `chunks`, $c of them at once.
macro_rules! by_chunks {
    ($chunks:expr, |$chunk:ident, $c:ident| $body:expr) => {{
        let mut $chunk = 0;
        while $chunk < $chunks {
            let wide = $crate::kernels::chunk::matrices::WIDE.min($chunks - $chunk);
            compiled_for!(wide, $c, $body, 1 2 3 4 5 6);
            $chunk += wide;
        }
    }};
}

mod matrices;
mod matrix;
mod poles;
pub mod vandermonde;

pub use matrices::{Call, ChunkMatrices, Errors, In, Out, Shape, State, Transition};

use super::layout::holds;
use super::{Elem, GROUP, Isa};
use crate::turn::Turn;
use matrix::Matrix;
use poles::Poles;

/// The matrices of one group of channels, in engine precision.
#[derive(Debug)]
pub struct Chunk<E> {
    t: usize,
    form: Form<E>,
}

#[derive(Debug)]
enum Form<E> {
    Poles(Poles<E>),
    Matrix(Matrix<E>),
}

impl<E: Elem> Chunk<E> {
    /// In engine precision.
    ///
    /// # Panics
    /// Where the matrices are not of one shape, the number of states is odd, or that of samples no multiple of 4 (16
    /// where the transition is a matrix).
    pub fn new(m: &ChunkMatrices) -> Self {
        m.check();
        let form = match &m.transition {
            Transition::Poles(a) => Form::Poles(Poles::new(m, a)),
            Transition::Matrix(a) => Form::Matrix(Matrix::new(m, a)),
        };
        Self { t: m.samples(), form }
    }

    /// Elements of scratch for a run over a tile, with `n` numbers of state: the states before each chunk and after
    /// the last, and the samples.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        Poles::<E>::scratch_len(shape, n).max(Matrix::<E>::scratch_len(shape, n))
    }

    /// Runs over chunks, at most a tile, from rows to rows, moving the state on in its turn.
    ///
    /// # Safety
    /// T times `chunks` rows of GROUP elements are valid to read at `u` and to write at `y`, and nothing else accesses
    /// the latter; the state is valid, and in this turn nothing else accesses it.
    ///
    /// # Panics
    /// Where the state or the scratch has another length.
    pub unsafe fn run(&self, isa: Isa, call: Call<'_, E>) {
        // SAFETY: as this function's own caller guarantees.
        unsafe {
            match &self.form {
                Form::Poles(form) => form.run(isa, call),
                Form::Matrix(form) => form.run(isa, call),
            }
        }
    }

    /// As [`Chunk::run`] without input: writes the free response of the state to packed rows.
    ///
    /// # Safety
    /// Nothing else accesses the state.
    ///
    /// # Panics
    /// Where `y` has fewer rows, or the state or the scratch another length.
    pub unsafe fn free_response(&self, isa: Isa, chunks: usize, y: &mut [E], state: State<E>, scratch: &mut [E]) {
        assert!(holds(y.len(), chunks, self.t * GROUP), "expected {chunks} chunks of outputs");
        let y = Some((y.as_mut_ptr(), GROUP as isize));
        // SAFETY: `y` has T times `chunks` rows, as just checked, and the caller answers for the state.
        unsafe { self.run(isa, Call { chunks, u: None, y, state, turn: Turn::FREE, scratch }) };
    }

    /// As [`Chunk::run`] from packed rows, moving only the state on.
    ///
    /// # Safety
    /// Nothing else accesses the state.
    ///
    /// # Panics
    /// Where `u` has fewer rows, or the state or the scratch another length.
    pub unsafe fn advance(&self, isa: Isa, chunks: usize, u: &[E], state: State<E>, scratch: &mut [E]) {
        assert!(holds(u.len(), chunks, self.t * GROUP), "expected {chunks} chunks of inputs");
        let u = Some((u.as_ptr(), GROUP as isize));
        // SAFETY: `u` has T times `chunks` rows, as just checked, and the caller answers for the state.
        unsafe { self.run(isa, Call { chunks, u, y: None, state, turn: Turn::FREE, scratch }) };
    }

    /// The response to an impulse over one chunk, and the state after it.
    ///
    /// # Panics
    /// Where `y` has fewer than T rows, or `state` fewer than N.
    pub fn impulse_response(&self, y: &mut [E], state: &mut [E]) {
        match &self.form {
            Form::Poles(form) => form.impulse_response(y, state),
            Form::Matrix(form) => form.impulse_response(y, state),
        }
    }
}

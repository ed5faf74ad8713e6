//! Any linear time-invariant layer in chunks of T samples, as four small matrix products:
//! Y = K U + G X with K lower triangular Toeplitz, and X' = A^T X + W U.
//!
//! The state is rounded once a chunk instead of once a sample, and the products reuse each coefficient for all
//! chunks of a tile.

/// Runs a body for all `chunks`, C at once.
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

pub use matrices::{ChunkMatrices, In, Out, Shape, Transition};

use super::{Elem, GROUP, Isa};
use matrices::Call;
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
    pub fn new(m: &ChunkMatrices) -> Self {
        let form = match &m.transition {
            Transition::Poles(a) => Form::Poles(Poles::new(m, a)),
            Transition::Matrix(a) => Form::Matrix(Matrix::new(m, a)),
        };
        Self { t: m.samples(), form }
    }

    /// Elements of scratch that the runs need, for `n` numbers of state: the states before each chunk of a tile and
    /// after the last, and each lane's samples.
    pub fn scratch_len(shape: Shape, n: usize) -> usize {
        Poles::<E>::scratch_len(shape, n).max(Matrix::<E>::scratch_len(shape, n))
    }

    /// `chunks` chunks, as many as the scratch has room for, of rows `u` as rows `y`; `state` N rows, moved on.
    ///
    /// # Safety
    /// All rows of GROUP elements are valid, and no one else touches those of `y`.
    pub unsafe fn run(&self, isa: Isa, chunks: usize, u: In<E>, y: Out<E>, state: &mut [E], scratch: &mut [E]) {
        // SAFETY: as the caller's.
        unsafe { self.go(isa, Call { chunks, u: Some(u), y: Some(y), state, scratch }) };
    }

    /// As [`Chunk::run`] with packed rows, without input: what the state still says.
    pub fn echo(&self, isa: Isa, chunks: usize, y: &mut [E], state: &mut [E], scratch: &mut [E]) {
        assert!(y.len() >= chunks * self.t * GROUP);
        let y = (y.as_mut_ptr(), GROUP as isize);
        // SAFETY: just checked.
        unsafe { self.go(isa, Call { chunks, u: None, y: Some(y), state, scratch }) };
    }

    /// As [`Chunk::run`] with packed rows, moving the state on without answers.
    pub fn advance(&self, isa: Isa, chunks: usize, u: &[E], state: &mut [E], scratch: &mut [E]) {
        assert!(u.len() >= chunks * self.t * GROUP);
        let u = (u.as_ptr(), GROUP as isize);
        // SAFETY: just checked.
        unsafe { self.go(isa, Call { chunks, u: Some(u), y: None, state, scratch }) };
    }

    unsafe fn go(&self, isa: Isa, call: Call<'_, E>) {
        // SAFETY: as the caller's.
        unsafe {
            match &self.form {
                Form::Poles(form) => form.run(isa, call),
                Form::Matrix(form) => form.run(isa, call),
            }
        }
    }

    /// The answers to an impulse over one chunk, and the state after it.
    pub fn impulse(&self, y: &mut [E], state: &mut [E]) {
        match &self.form {
            Form::Poles(form) => form.impulse(y, state),
            Form::Matrix(form) => form.impulse(y, state),
        }
    }
}

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
            let wide = $crate::kernels::chunk::WIDE.min($chunks - $chunk);
            compiled_for!(wide, $c, $body, 1 2 3 4 5 6);
            $chunk += wide;
        }
    }};
}

mod matrix;
mod poles;
pub mod vandermonde;

use super::{Elem, GROUP, Isa};
use matrix::Matrix;
use poles::Poles;

/// Chunks of a register tile, where there are so many.
const WIDE: usize = 6;

/// How a run of samples is cut up.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples a chunk.
    pub samples: usize,
    /// Chunks a tile at most: each coefficient is read once for so many products.
    pub tile: usize,
}

impl Shape {
    /// Samples a tile.
    pub fn rows(self) -> usize {
        self.samples * self.tile
    }
}

/// Rows of GROUP elements to read: the first, and the distance to the next.
pub type In<E> = (*const E, isize);
/// Rows of GROUP elements to write.
pub type Out<E> = (*mut E, isize);

/// What a form is to do: without `u` there is no input, without `y` no answers are wanted.
struct Call<'a, E> {
    chunks: usize,
    u: Option<In<E>>,
    y: Option<Out<E>>,
    state: &'a mut [E],
    scratch: &'a mut [E],
}

/// How the state moves over a whole chunk.
#[derive(Clone, Debug)]
pub enum Transition {
    /// Complex poles (re, im): 2 rows a mode.
    Poles(Vec<f64>),
    /// A matrix, N x N rows.
    Matrix(Vec<f64>),
}

/// The matrices in float64, each entry a row of GROUP.
#[derive(Clone, Debug)]
pub struct ChunkMatrices {
    /// (T,)
    pub kernel: Vec<f64>,
    /// (T, N)
    pub g: Vec<f64>,
    /// (N, T), for the last sample of the chunk last.
    pub w: Vec<f64>,
    /// How the state moves.
    pub transition: Transition,
}

impl ChunkMatrices {
    /// Zeros, for T samples and N numbers of state.
    pub fn zeros(t: usize, n: usize) -> Self {
        Self {
            kernel: vec![0.0; t * GROUP],
            g: vec![0.0; t * n * GROUP],
            w: vec![0.0; t * n * GROUP],
            transition: Transition::Poles(Vec::new()),
        }
    }

    /// T
    fn samples(&self) -> usize {
        self.kernel.len() / GROUP
    }

    /// N
    fn states(&self) -> usize {
        self.g.len() / self.kernel.len()
    }
}

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

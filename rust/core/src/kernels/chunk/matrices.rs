//! The matrices of a chunk in float64, and how a run of samples is cut into chunks.

use crate::kernels::GROUP;

/// Chunks of a register tile, where there are so many.
pub const WIDE: usize = 6;

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
pub struct Call<'a, E> {
    pub chunks: usize,
    pub u: Option<In<E>>,
    pub y: Option<Out<E>>,
    pub state: &'a mut [E],
    pub scratch: &'a mut [E],
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
    pub fn samples(&self) -> usize {
        self.kernel.len() / GROUP
    }

    /// N
    pub fn states(&self) -> usize {
        self.g.len() / self.kernel.len()
    }
}

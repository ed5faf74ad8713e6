//! The matrices of a chunk in float64, and how a run of samples is cut into chunks.

use crate::kernels::GROUP;
use crate::turn::Turn;

/// The most chunks of a register tile.
pub const WIDE: usize = 6;

/// How a run of samples is cut up.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples a chunk.
    pub samples: usize,
    /// The most chunks of a tile: each coefficient is read once for all of them.
    pub tile: usize,
}

impl Shape {
    /// Samples a tile.
    pub fn rows(self) -> usize {
        self.samples * self.tile
    }
}

/// Rows of GROUP elements to read: the address of the first, and the distance to the next in elements, which may be
/// negative.
pub type In<E> = (*const E, isize);
/// Rows of GROUP elements to write, in the same way.
pub type Out<E> = (*mut E, isize);

/// A state, which is moved on in place: addresses, since other threads may move it on before and after.
#[derive(Clone, Copy, Debug)]
pub struct State<E> {
    /// N
    pub n: usize,
    /// N rows of [`GROUP`].
    pub x: *mut E,
    /// What rounding left over of it.
    pub errors: Errors<E>,
}

/// What rounding left over of N rows of state, where that is kept.
#[derive(Clone, Copy, Debug)]
pub enum Errors<E> {
    /// Nowhere.
    None,
    /// Of two rows in the [`Lanes::halves`](crate::kernels::Lanes::halves) of one, N / 2 rows.
    Halves(*mut E),
    /// N rows.
    Rows(*mut E),
}

/// A run over some chunks.
#[derive(Debug)]
pub struct Call<'a, E> {
    /// At most a tile.
    pub chunks: usize,
    /// None: the input is zero.
    pub u: Option<In<E>>,
    /// None: only the state is wanted.
    pub y: Option<Out<E>>,
    /// The state before the first chunk.
    pub state: State<E>,
    /// When it may be moved on: where that is by poles as one step, by a matrix lane by lane.
    pub turn: Turn<'a>,
    /// [`Chunk::scratch_len`](super::Chunk::scratch_len) elements.
    pub scratch: &'a mut [E],
}

/// The state transition over a whole chunk.
#[derive(Clone, Debug)]
pub enum Transition {
    /// Complex poles (re, im): 2 rows a mode.
    Poles(Vec<f64>),
    /// A matrix, N x N rows.
    Matrix(Vec<f64>),
}

/// The chunk matrices of one group of channels in float64; each entry is a row of [`GROUP`].
#[derive(Clone, Debug)]
pub struct ChunkMatrices {
    /// The impulse response, (T,): the first column of K.
    pub kernel: Vec<f64>,
    /// G, (T, N)
    pub g: Vec<f64>,
    /// W, (N, T); its last column belongs to the last sample of the chunk.
    pub w: Vec<f64>,
    /// A^T
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

    /// Panics where the matrices are not of one shape.
    pub fn check(&self) {
        let (t, n) = (self.samples(), self.states());
        let transition = match &self.transition {
            Transition::Poles(a) => a.len() == n * GROUP,
            Transition::Matrix(a) => a.len() == n * n * GROUP,
        };
        let shapes = self.kernel.len() == t * GROUP && self.g.len() == t * n * GROUP && self.w.len() == n * t * GROUP;
        assert!(
            shapes && transition && n.is_multiple_of(2),
            "expected matrices of one shape, and an even number of states"
        );
    }
}

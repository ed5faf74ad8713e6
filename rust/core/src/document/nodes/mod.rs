//! The kinds of node, a file each: parameters, width, memory, and for state-space layers their systems.

mod activation;
mod conv1d;
mod dense;
mod diagonal;
mod diagonal_mimo;
mod dplr;
mod embedding;
mod gate;
mod glu;
mod linear;
mod linoss;
mod norm;
mod pool;
mod residual;
mod selective;
mod sequential;
mod ssd;
mod state_space;

pub use activation::{Activation, ActivationFunction};
pub use conv1d::Conv1d;
pub use dense::Dense;
pub use diagonal::Diagonal;
pub use diagonal_mimo::DiagonalMimo;
pub use dplr::Dplr;
pub use embedding::Embedding;
pub use gate::Gate;
pub use glu::Glu;
pub use linear::Linear;
pub use linoss::Linoss;
pub use norm::Norm;
pub use pool::{Pool, PoolMode};
pub use residual::{Factor, Residual};
pub use selective::Selective;
pub use sequential::Sequential;
pub use ssd::Ssd;
pub use state_space::{Cache, StateSpace};

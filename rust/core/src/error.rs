//! What can go wrong, with what was expected and what was found.

/// Every failure of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The buffer is no Document, or its tree and tensors do not fit together.
    #[error("{0}")]
    Document(String),
    /// The model holds something that the engine does not run.
    #[error("{0}")]
    Unsupported(String),
    /// The model is not causal.
    #[error("{0}")]
    NotStreamable(String),
    /// An argument has the wrong shape or value.
    #[error("{0}")]
    Value(String),
    /// There is less memory than the call needs.
    #[error("{0}")]
    Memory(String),
    /// The caller asked for a stop before the answers were there.
    #[error("stopped before the answers were computed")]
    Stopped,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! What the targets do; here, so that the engine is compiled once for all of them.

pub mod document;
pub mod engine;
#[allow(dead_code, reason = "the engine's tests use all of it")]
#[path = "../../core/tests/all/systems.rs"]
mod systems;

//! The crate's tests from outside, one program: what is generic is compiled once for all of them.

mod counting;
mod discretize;
mod document;
mod engine;
mod face;
mod large;
mod realtime;
mod systems;
mod threads;

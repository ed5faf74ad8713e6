//! From continuous to discrete time, in float64.

use serde::Deserialize;

/// How a state-space system is discretised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disc {
    /// Zero-order hold: the input is constant between samples.
    Zoh,
    /// [`Disc::Gbt`] with alpha = 1/2 (Tustin).
    Bilinear,
    /// [`Disc::Gbt`] with alpha = 0.
    Euler,
    /// [`Disc::Gbt`] with alpha = 1.
    BackwardEuler,
    /// The generalised bilinear transform.
    Gbt,
    /// A and B are the discrete ones as they stand.
    Discrete,
    /// The kernel of that name, which is no recurrence.
    Dss,
}

//! What the state-space nodes have in common once they are discrete: stability, aliases, and the systems themselves.

use num_complex::Complex64;

use super::array::{Array, ComplexArray};
use crate::error::{Error, Result};
use crate::threads::Team;

/// How far outside the unit circle an eigenvalue may lie: what float64 makes of one that belongs on it, such as
/// the undamped modes of HiPPO-Fourier. Ten million steps grow by 1 % at most.
const SLACK: f64 = 1e-9;

/// The systems of a layer at one rate, in float64. Increments Abar - 1 keep the digits of a slow mode's decay, of which
/// Abar itself keeps few in float32.
#[derive(Debug, Clone)]
pub enum Discrete {
    /// S4D and S4: x' = Abar x - sum_k w_k Re(v_k . x) + b u, y = Re(c . x') + d u, for each channel.
    Modes {
        /// Abar - 1 (H, N)
        a_minus_one: ComplexArray,
        /// (H, N)
        b: ComplexArray,
        /// (M, H, N), with the factor 2 of conjugate pairs in it
        c: ComplexArray,
        /// (K, H, N)
        w: ComplexArray,
        /// (K, H, N)
        v: ComplexArray,
        /// (M, H)
        d: Array,
    },
    /// LSSL, in the real Schur basis of its A: x' = Abar x + b u, y = c . x' + d u, for each channel.
    Matrices {
        /// Abar - 1 (H, N, N)
        a_minus_one: Array,
        /// (H, N)
        b: Array,
        /// (M, H, N)
        c: Array,
        /// (M, H)
        d: Array,
        /// (H, N), x before a stream's first sample; `None`: zero.
        x0: Option<Array>,
    },
    /// S5 and LRU: x' = Abar x + b u, y = Re(c x') + d u, all inputs to all outputs.
    Mimo {
        /// Abar - 1 (N,)
        a_minus_one: ComplexArray,
        /// (N, d_in)
        b: ComplexArray,
        /// (d_out, N), with the factor 2 of conjugate pairs in it
        c: ComplexArray,
        /// (d_out,)
        d: Option<Array>,
    },
    /// LinOSS: w' = sign (w + drag w) + spring x + b u, then x' = sign x + w', y = Re(c x') + d u, of each oscillator's
    /// position x and what w it has beside it.
    Oscillators {
        /// (P,), each 1 or -1
        sign: Array,
        /// (P,)
        drag: Array,
        /// (P,)
        spring: Array,
        /// (P, d_in)
        b: ComplexArray,
        /// (d_out, P)
        c: ComplexArray,
        /// (d_out,)
        d: Option<Array>,
    },
}

/// An eigenvalue of a discrete system.
#[derive(Debug, Clone, Copy)]
pub struct Eigenvalue {
    /// The channel that it belongs to; of one system for all channels, the mode or the oscillator.
    pub place: usize,
    /// The eigenvalue.
    pub value: Complex64,
}

/// The linear time-invariant systems of a layer.
pub trait Systems: Sync {
    /// What [`Eigenvalue::place`] counts: "channel", "mode" or "oscillator".
    fn place(&self) -> &'static str;

    /// Whether eigenvalues outside the unit circle are let through.
    fn allows_unstable(&self) -> bool;

    /// Whether they are stable whatever the rate, as their parameters show.
    fn always_stable(&self) -> bool;

    /// Whether there is a step size that a rate can multiply.
    fn has_step_size(&self) -> bool;

    /// Whether a part of it runs from the last sample to the first.
    fn bidirectional(&self) -> bool;

    /// The samples at `rate` after which the kernel is cut off.
    ///
    /// # Errors
    /// [`Error::Value`] where they are more than the engine remembers.
    fn cut(&self, rate: f64) -> Result<Option<usize>>;

    /// Of the modes that reach an output, those that turn by less than half a circle a sample at rate 1 and by more at
    /// `rate`; and how many reach an output.
    fn aliased(&self, rate: f64) -> (usize, usize);

    /// Computes what all rates share, in parallel.
    ///
    /// # Errors
    /// [`Error::Value`] where a matrix has no Schur form.
    fn prepare(&self, team: &Team) -> Result<()>;

    /// The eigenvalues at `rate`, of all channels.
    ///
    /// # Errors
    /// As [`Systems::prepare`].
    fn eigenvalues(&self, rate: f64) -> Result<Vec<Eigenvalue>>;

    /// The systems at `rate`.
    ///
    /// # Errors
    /// [`Error::Value`] where the transform has a pole; [`Error::Unsupported`] where the layer is no recurrence.
    fn discrete(&self, rate: f64) -> Result<Discrete>;
}

impl dyn Systems + '_ {
    /// The eigenvalue of the largest modulus at `rate`; one that is not a number counts as the largest.
    ///
    /// # Errors
    /// As [`Systems::eigenvalues`].
    pub fn largest(&self, rate: f64) -> Result<Option<Eigenvalue>> {
        // At a pole of the transform an eigenvalue is not a number.
        let modulus = |e: &Eigenvalue| if e.value.is_finite() { e.value.norm() } else { f64::INFINITY };
        Ok(self.eigenvalues(rate)?.into_iter().max_by(|x, y| modulus(x).total_cmp(&modulus(y))))
    }

    /// The eigenvalue of the largest modulus at `rate`, if it lies outside the unit circle.
    ///
    /// # Errors
    /// As [`Systems::eigenvalues`].
    pub fn unstable(&self, rate: f64) -> Result<Option<Eigenvalue>> {
        if self.always_stable() {
            return Ok(None);
        }
        Ok(self.largest(rate)?.filter(|e| !e.value.is_finite() || e.value.norm() > 1.0 + SLACK))
    }

    /// Refuses systems with a discrete eigenvalue outside the unit circle at `rate`, unless they are let through.
    ///
    /// # Errors
    /// [`Error::Document`] at rate 1, else [`Error::Unsupported`]; they name the layer `label`, the channel and the
    /// eigenvalue.
    pub fn check_stable(&self, label: &str, rate: f64) -> Result<()> {
        if self.allows_unstable() {
            return Ok(());
        }
        let Some(Eigenvalue { place, value }) = self.unstable(rate)? else { return Ok(()) };
        let found = format!(
            "{label}: {} {place}: expected every discrete eigenvalue within the unit circle, found {value:.6} with \
             modulus {:.9}",
            self.place(),
            value.norm()
        );
        if rate == 1.0 {
            return Err(Error::Document(format!("{found}; allow_unstable lets it through")));
        }
        Err(Error::Unsupported(format!("rate={rate}: {found}; use a lower rate, or allow_unstable lets it through")))
    }
}

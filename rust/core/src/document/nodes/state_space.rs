use std::sync::{Arc, OnceLock};

use num_complex::Complex64;
use serde_json::Value;

use super::super::array::Array;
use super::super::fields::{Count, Field, Fields, Flag, Optional, Positive, Real, Writer};
use crate::discretize::Disc;
use crate::error::{Error, Result};

/// The most samples after which a kernel may be cut off: a stream remembers as many of every channel.
const MAX_KERNEL_LENGTH: usize = 1 << 24;

/// What the nodes with one input a channel share: H independent systems with M outputs each, S of them distinct;
/// channel h has system h % S.
#[derive(Debug, Clone)]
pub struct StateSpace<T = Complex64> {
    /// (M, H, N)
    pub c: Array<T>,
    /// (M, H)
    pub d: Array,
    /// (H,), positive; [`Diagonal`](super::Diagonal) also (H, N), and `None` where its disc is discrete.
    pub dt: Option<Array>,
    /// As `c`; the layer is bidirectional: y\[t\] also gets sum over j > t of K_reverse\[j-t-1\] u\[j\].
    pub c_reverse: Option<Array<T>>,
    /// Cuts the convolution kernel off after that many samples.
    pub kernel_length: Option<usize>,
    /// Outputs are flattened (H M) instead of (M H).
    pub head_major: bool,
    /// Whether eigenvalues outside the unit circle are let through.
    pub allow_unstable: bool,
}

/// What is computed of a layer's parameters once, when it is first wanted, and kept with them. Clones share it.
#[derive(Debug)]
pub struct Cache<T>(Arc<OnceLock<Result<T, String>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Arc::new(OnceLock::new()))
    }
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Cache<T> {
    /// What `make` made, at the first call.
    ///
    /// # Errors
    /// [`Error::Value`] with what it failed with.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        let made = self.0.get_or_init(|| make().map_err(|error| error.to_string()));
        made.as_ref().map_err(|error| Error::Value(error.clone()))
    }
}

impl<T> StateSpace<T> {
    /// M
    pub fn outputs(&self) -> usize {
        self.c.shape[0]
    }

    /// H
    pub fn channels(&self) -> usize {
        self.c.shape[1]
    }

    /// N
    pub fn modes(&self) -> usize {
        self.c.shape[2]
    }

    /// The step size of mode `n` of channel `h`; 1 where the system is discrete.
    pub fn step(&self, h: usize, n: usize) -> f64 {
        match &self.dt {
            Some(dt) if dt.shape.len() == 2 => dt.data[h * dt.shape[1] + n],
            Some(dt) => dt.data[h],
            None => 1.0,
        }
    }

    /// What reads the states of channel `h` for output `m`: a row of C, or of C_reverse.
    pub fn reader(&self, m: usize, h: usize, reverse: bool) -> &[T] {
        let c = if reverse { self.c_reverse.as_ref().unwrap_or(&self.c) } else { &self.c };
        c.row(m * self.channels() + h)
    }

    /// See [`Systems::cut`](crate::document::Systems::cut). A half goes to the even neighbour, as in Python, where
    /// upstream computes it.
    pub fn cut(&self, rate: f64) -> Result<Option<usize>> {
        let Some(length) = self.kernel_length else { return Ok(None) };
        let samples = (length as f64 / rate).round_ties_even().max(1.0);
        if samples > MAX_KERNEL_LENGTH as f64 {
            return Err(Error::Value(format!(
                "rate={rate}: a kernel that is cut off after {length} samples at rate 1 ends after {samples} at this \
                 rate; expected at most {MAX_KERNEL_LENGTH}, as from rate={:.2e} on",
                length as f64 / MAX_KERNEL_LENGTH as f64
            )));
        }
        Ok(Some(samples as usize))
    }

    /// Fails where the axes of arrays that are shared by channels do not divide these.
    pub(super) fn check(&self, systems: usize) -> std::result::Result<(), (&'static str, String)> {
        let h = self.channels();
        if !h.is_multiple_of(systems) {
            return Err(("A", format!("expected a number of systems that divides the {h} channels, found {systems}")));
        }
        Ok(())
    }

    /// Fails where a step size has an axis of modes.
    pub(super) fn check_step_a_channel(&self) -> std::result::Result<(), (&'static str, String)> {
        match &self.dt {
            Some(dt) if dt.shape.len() == 2 => {
                Err(("dt", format!("expected shape (H={},), found {:?}", self.channels(), dt.shape)))
            }
            _ => Ok(()),
        }
    }
}

/// Fails where a discrete system has step sizes, or a continuous one none.
pub(super) fn check_steps(disc: Disc, dt: Option<&Array>) -> std::result::Result<(), (&'static str, String)> {
    match (disc, dt) {
        (Disc::Discrete, Some(_)) => {
            Err(("dt", "expected null, for the system is discrete as it stands, found an array".into()))
        }
        (Disc::Discrete, None) | (_, Some(_)) => Ok(()),
        (_, None) => Err(("dt", "expected an array, found null".into())),
    }
}

/// Fails where a direct path leads from inputs to another number of outputs.
pub(super) fn check_direct(
    d: Option<&Array>,
    d_in: usize,
    d_out: usize,
) -> std::result::Result<(), (&'static str, String)> {
    if d.is_some() && d_in != d_out {
        return Err(("D", format!("expected null, for {d_in} inputs are not {d_out} outputs, found an array")));
    }
    Ok(())
}

/// The fields of a [`StateSpace`] among those of a node; the one given reads C.
pub(super) struct Siso<F>(pub F);

const STEPS: Optional<Positive> = Optional(Positive(&["H", "H N"]));

impl<T, F: Field<Array<T>>> Field<StateSpace<T>> for Siso<F> {
    fn read(&self, fields: &mut Fields<'_>, _: &'static str) -> Result<StateSpace<T>> {
        Ok(StateSpace {
            c: self.0.read(fields, "C")?,
            d: Real("M H").read(fields, "D")?,
            dt: STEPS.read(fields, "dt")?,
            c_reverse: Optional(&self.0).read(fields, "C_reverse")?,
            kernel_length: Count(MAX_KERNEL_LENGTH).read(fields, "kernel_length")?,
            head_major: Flag(false).read(fields, "head_major")?,
            allow_unstable: Flag(false).read(fields, "allow_unstable")?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: &'static str, value: &StateSpace<T>) {
        self.0.write(writer, "C", &value.c);
        Real("M H").write(writer, "D", &value.d);
        STEPS.write(writer, "dt", &value.dt);
        Optional(&self.0).write(writer, "C_reverse", &value.c_reverse);
        Count(MAX_KERNEL_LENGTH).write(writer, "kernel_length", &value.kernel_length);
        Flag(false).write(writer, "head_major", &value.head_major);
        Flag(false).write(writer, "allow_unstable", &value.allow_unstable);
    }

    fn describe(&self, _: &'static str) -> Vec<(&'static str, Value)> {
        [
            self.0.describe("C"),
            Real("M H").describe("D"),
            STEPS.describe("dt"),
            Optional(&self.0).describe("C_reverse"),
            Count(MAX_KERNEL_LENGTH).describe("kernel_length"),
            Flag(false).describe("head_major"),
            Flag(false).describe("allow_unstable"),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_compute_once() {
        let (cache, mut made) = (Cache::default(), 0);
        for clone in [cache.clone(), cache.clone(), cache] {
            let value = clone.get(|| {
                made += 1;
                Ok(7)
            });
            assert_eq!(*value.unwrap(), 7);
        }
        assert_eq!(made, 1);
    }
}

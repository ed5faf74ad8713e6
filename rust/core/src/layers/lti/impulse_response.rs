//! The convolution kernels of linear layers in float64: their impulse responses.

use super::super::system::{Lane, System};
use super::{Direction, Lti};
use crate::error::Result;
use crate::kernels::chunk::vandermonde::Vandermonde;
use crate::kernels::chunk::{Chunk, Errors, Shape, State};
use crate::kernels::pointwise::Function;
use crate::kernels::{Aligned, GROUP, Isa};
use crate::shared::Shared;
use crate::threads::Team;
use num_complex::Complex64;

/// The kernels (M, H, length) of a system.
///
/// # Errors
/// As [`System::recurrence`].
pub fn kernels_of(system: &System, isa: Isa, team: &Team, length: usize) -> Result<Vec<f64>> {
    let outputs = system.outputs() * system.channels();
    if let Some(mode) = system.poles() {
        let lane = |v: usize| Lane { channel: v % system.channels(), output: v / system.channels(), part: 0, parts: 1 };
        return Ok(kernels_of_modes(isa, team, (outputs, system.modes(), length), |v, n| mode(lane(v), n)));
    }
    let mut kernels = vec![0.0; outputs * length];
    let out = Shared::new(kernels.as_mut_ptr());
    let layer = Lti::<f64>::new(team, system.clone(), false, |_, _| 0.0, Function::Identity, Direction::Forward)?;
    team.each(layer.groups(), |_, group| {
        let outputs = group * GROUP..outputs.min((group + 1) * GROUP);
        // SAFETY: every output has its own row, and belongs to one group.
        let rows = outputs.map(|v| unsafe { out.part(v * length, length) }).collect();
        layer.impulse(isa, group, rows);
    });
    Ok(kernels)
}

/// The kernels (outputs, length) of sums of modes: `mode(v, n)` gives a and c of output v's mode n, which adds Re(c a^l).
pub fn kernels_of_modes(
    isa: Isa,
    team: &Team,
    (outputs, modes, length): (usize, usize, usize),
    mode: impl Fn(usize, usize) -> (Complex64, Complex64) + Sync,
) -> Vec<f64> {
    let mut kernels = vec![0.0; outputs * length];
    let out = Shared::new(kernels.as_mut_ptr());
    team.each(outputs.div_ceil(GROUP), |_, group| {
        let mut product = Vandermonde::new(modes);
        for v in group * GROUP..outputs.min((group + 1) * GROUP) {
            // SAFETY: every output has its own row.
            let kernel = unsafe { out.part(v * length, length) };
            product.run(isa, |n| mode(v, n), kernel);
        }
    });
    kernels
}

impl Lti<f64> {
    /// Writes the impulse responses of one group's outputs, a row each and all of one length.
    fn impulse(&self, isa: Isa, group: usize, mut rows: Vec<&mut [f64]>) {
        let length = rows.first().map_or(0, |row| row.len());
        // Few enough rows to stay in the first level of cache until they are turned.
        let shape = Shape { tile: 256 / self.shape.samples, ..self.shape };
        let chunk = Chunk::<f64>::new(&self.groups[group].chunk(isa, shape.samples));
        let core = self.groups[group].core_len();
        let mut state = Aligned::zeros(core);
        let mut scratch = Aligned::zeros(Chunk::<f64>::scratch_len(shape, core / GROUP));
        let mut y = Aligned::<f64>::zeros(shape.rows() * GROUP);
        let mut t = 0;
        while t < length {
            let chunks = if t == 0 {
                chunk.impulse_response(&mut y, &mut state);
                1
            } else {
                let state = State { n: core / GROUP, x: state.as_mut_ptr(), errors: Errors::None };
                // SAFETY: the state is this call's alone.
                unsafe { chunk.free_response(isa, shape.tile, &mut y, state, &mut scratch) };
                shape.tile
            };
            let n = (chunks * shape.samples).min(length - t);
            for (lane, row) in rows.iter_mut().enumerate() {
                row[t..t + n].iter_mut().zip(y[lane..].iter().step_by(GROUP)).for_each(|(k, y)| *k = *y);
            }
            t += n;
        }
    }
}

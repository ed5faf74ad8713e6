//! The kernels of linear layers in float64: their answers to an impulse.

use super::lti::{Direction, Lti};
use super::system::{Lane, System};
use crate::kernels::chunk::vandermonde::Vandermonde;
use crate::kernels::pointwise::Function;
use crate::kernels::{GROUP, Isa};
use crate::threads::{Shared, Team};

/// The kernels (M, H, length) of a system.
pub fn kernels_of(system: &System, isa: Isa, team: &Team, length: usize) -> Vec<f64> {
    let outputs = system.outputs() * system.channels();
    let mut kernels = Vec::with_capacity(outputs * length);
    let out = Shared(kernels.as_mut_ptr());
    if let Some(mode) = system.poles() {
        team.each(outputs.div_ceil(GROUP), |_, group| {
            let mut product = Vandermonde::new(system.modes());
            for v in group * GROUP..outputs.min((group + 1) * GROUP) {
                let lane = Lane { channel: v % system.channels(), output: v / system.channels(), part: 0, parts: 1 };
                // SAFETY: every output has its own row, which is written before it is read.
                let kernel = unsafe { out.part(v * length, length) };
                product.run(isa, |n| mode(lane, n), kernel);
            }
        });
    } else {
        let layer = Lti::<f64>::new(team, system.clone(), false, |_, _| 0.0, Function::Identity, Direction::Forward);
        team.each(layer.groups(), |_, group| layer.impulse(isa, group, length, &out));
    }
    // SAFETY: all rows were written.
    unsafe { kernels.set_len(outputs * length) };
    kernels
}

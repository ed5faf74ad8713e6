//! Whole sequences as convolutions with the kernel.

use super::{Direction, Lti, PLANNED, SCAN_ROWS};
use crate::conv::{CausalConv, Spectrum};
use crate::kernels::{Aligned, Elem, GROUP, Isa};
use std::sync::{Arc, PoisonError};

/// The kernels of a group's lanes, ready for convolution with sequences of one length.
#[derive(Debug)]
pub(super) struct Spectra {
    length: usize,
    conv: CausalConv,
    kernels: Vec<Spectrum>,
}

impl<E: Elem> Lti<E> {
    /// Runs a whole sequence as a convolution with the kernel, plus the free response of the state.
    ///
    /// # Safety
    /// As [`Lti::run`].
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn convolve(
        &self,
        isa: Isa,
        group: usize,
        rows: usize,
        x: &[E],
        x_stride: usize,
        y: *mut E,
        y_stride: usize,
        state: &mut [E],
        scratch: &mut [E],
    ) {
        let spectra = self.spectra(isa, group, rows);
        let (u, rest) = scratch.split_at_mut(self.shape.rows() * GROUP);
        let (z, rest) = rest.split_at_mut(self.shape.rows() * GROUP);
        let mut whole = vec![E::ZERO; rows * GROUP];
        let mut work = spectra.conv.scratch();
        for (lane, kernel) in spectra.kernels.iter().enumerate() {
            let Some(l) = self.lanes[group][lane] else { continue };
            let row = |i: usize| if self.direction == Direction::Forward { i } else { rows - 1 - i };
            let answers =
                spectra.conv.run((0..rows).map(|i| x[row(i) * x_stride + l.channel].f64()), kernel, &mut work);
            for (z, &answer) in whole.chunks_exact_mut(GROUP).zip(answers) {
                z[lane] = E::of(answer);
            }
        }
        // Moves the state on, and adds its free response: the recurrence without input.
        let silent = state.iter().all(|&x| x == E::ZERO);
        let mut echo = Aligned::<E>::zeros(state.len());
        echo.copy_from_slice(state);
        let chunk = self.chunk(isa, group);
        let mut t = 0;
        while t < rows {
            let chunks = ((rows - t) / self.shape.samples).min(self.shape.tile);
            let n = if chunks > 0 { chunks * self.shape.samples } else { (rows - t).min(SCAN_ROWS) };
            if !silent {
                if chunks > 0 {
                    chunk.free_response(isa, chunks, z, self.groups[group].chunk_state(&mut echo), rest);
                } else {
                    u[..n * GROUP].fill(E::ZERO);
                    self.groups[group].scan(isa, 0, n, u, z, &mut echo);
                }
                for (w, &z) in whole[t * GROUP..].iter_mut().zip(&z[..n * GROUP]) {
                    *w += z;
                }
            }
            self.pack(isa, group, t, n, rows, x, x_stride, u);
            if chunks > 0 {
                chunk.advance(isa, chunks, u, self.groups[group].chunk_state(state), rest);
            } else {
                self.groups[group].scan(isa, 0, n, u, z, state);
            }
            z[..n * GROUP].copy_from_slice(&whole[t * GROUP..][..n * GROUP]);
            // SAFETY: rows t to t + n of `y` are within `rows`; the caller answers for this group's columns.
            unsafe { self.unpack(isa, group, t, n, rows, u, z, y, y_stride) };
            t += n;
        }
    }

    fn spectra(&self, isa: Isa, group: usize, length: usize) -> Arc<Spectra> {
        let mut cached = self.spectra[group].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spectra) = cached.as_ref().filter(|s| s.length == length) {
            return Arc::clone(spectra);
        }
        let recurrence = self.system.recurrence::<f64>(&self.lanes[group], 1.0).expect(PLANNED);
        let mut kernel = vec![0.0; length * GROUP];
        let mut state = Aligned::<f64>::zeros(recurrence.state_len());
        let mut u = vec![0.0; length * GROUP];
        u[..GROUP].fill(1.0);
        recurrence.scan(isa, 0, length, &u, &mut kernel, &mut state);
        let conv = CausalConv::new(length);
        let mut scratch = conv.scratch();
        let lane = |lane: usize| kernel.iter().skip(lane).step_by(GROUP).copied();
        let kernels = (0..GROUP).map(|l| conv.spectrum(lane(l), &mut scratch)).collect();
        let spectra = Arc::new(Spectra { length, conv, kernels });
        *cached = Some(Arc::clone(&spectra));
        spectra
    }
}

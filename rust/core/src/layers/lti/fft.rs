//! Whole sequences as convolutions with the kernel.

use super::{Direction, Lti, PLANNED, SCAN_ROWS};
use crate::kernels::fft::{Fft, Spectra};
use crate::kernels::{Aligned, Elem, GROUP, Isa};
use std::sync::{Arc, PoisonError};

/// The kernels of a group's lanes, ready for convolution with sequences of any length of one size of transforms.
#[derive(Debug)]
pub(super) struct Convolution {
    fft: Fft,
    kernels: Spectra,
}

impl<E: Elem> Lti<E> {
    /// Runs a whole sequence as a convolution with the kernel, plus the free response of the state. Says false where an answer
    /// is no number: then those to samples before would not be either, and nothing was done.
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
        move_on: bool,
        scratch: &mut [E],
    ) -> bool {
        let convolution = self.convolution(isa, group, rows);
        let lanes = self.lanes[group].iter().flatten().count();
        let mut whole = Aligned::<f64>::zeros(convolution.fft.rows() * GROUP);
        let mut work = Aligned::<f64>::zeros(whole.len());
        for (i, whole) in whole.chunks_exact_mut(GROUP).take(rows).enumerate() {
            let row = if self.direction == Direction::Forward { i } else { rows - 1 - i };
            let x = &x[row * x_stride..];
            for (whole, lane) in whole.iter_mut().zip(&self.lanes[group]) {
                *whole = lane.map_or(0.0, |l| x[l.channel].f64());
            }
        }
        convolution.fft.convolve(isa, lanes, &mut whole, &convolution.kernels, &mut work);
        if !whole[..rows * GROUP].iter().all(|y| y.is_finite()) {
            return false;
        }
        let (u, rest) = scratch.split_at_mut(self.shape.rows() * GROUP);
        let (z, rest) = rest.split_at_mut(self.shape.rows() * GROUP);
        let silent = state.iter().all(|&x| x == E::ZERO);
        let mut echo = Aligned::<E>::zeros(if silent { 0 } else { state.len() });
        if !silent {
            echo.copy_from_slice(state);
        }
        let mut t = 0;
        while t < rows {
            let chunks = ((rows - t) / self.shape.samples).min(self.shape.tile);
            let n = if chunks > 0 { chunks * self.shape.samples } else { (rows - t).min(SCAN_ROWS) };
            self.pack(isa, group, t, n, rows, x, x_stride, u);
            if move_on {
                if chunks > 0 {
                    self.chunk(isa, group).advance(isa, chunks, u, self.groups[group].chunk_state(state), rest);
                } else {
                    self.groups[group].scan(isa, 0, n, u, z, state);
                }
            }
            // What the state before the sequence adds: the recurrence without input.
            z[..n * GROUP].fill(E::ZERO);
            if !silent && chunks > 0 {
                let echo = self.groups[group].chunk_state(&mut echo);
                self.chunk(isa, group).free_response(isa, chunks, z, echo, rest);
            } else if !silent {
                let nothing = vec![E::ZERO; n * GROUP];
                self.groups[group].scan(isa, 0, n, &nothing, z, &mut echo);
            }
            for (z, &convolved) in z.iter_mut().zip(&whole[t * GROUP..][..n * GROUP]) {
                *z += E::of(convolved);
            }
            // SAFETY: rows t to t + n of `y` are within `rows`; the caller answers for this group's columns.
            unsafe { self.unpack(isa, group, t, n, rows, u, z, y, y_stride) };
            t += n;
        }
        true
    }

    fn convolution(&self, isa: Isa, group: usize, length: usize) -> Arc<Convolution> {
        let mut cached = self.convolutions[group].lock().unwrap_or_else(PoisonError::into_inner);
        let fft = Fft::new(length);
        if let Some(found) = cached.as_ref().filter(|found| found.fft.rows() == fft.rows()) {
            return Arc::clone(found);
        }
        let recurrence = self.system.recurrence::<f64>(&self.lanes[group], 1.0).expect(PLANNED);
        let mut kernel = Aligned::<f64>::zeros(fft.rows() * GROUP);
        let mut u = Aligned::<f64>::zeros(kernel.len());
        let mut state = Aligned::<f64>::zeros(recurrence.state_len());
        u[..GROUP].fill(1.0);
        recurrence.scan(isa, 0, fft.rows(), &u, &mut kernel, &mut state);
        let lanes = self.lanes[group].iter().flatten().count();
        let kernels = fft.spectra(isa, lanes, &mut kernel, &mut u);
        let found = Arc::new(Convolution { fft, kernels });
        *cached = Some(Arc::clone(&found));
        found
    }
}

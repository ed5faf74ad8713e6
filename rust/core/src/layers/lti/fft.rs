//! Whole sequences as convolutions with the kernel.

use super::{Lti, PLANNED, SCAN_ROWS};
use crate::kernels::fft::{Fft, Spectra};
use crate::kernels::{Aligned, Elem, GROUP, Isa};
use std::sync::{Arc, PoisonError};

/// Numbers of an array for transforms that later calls find again: it stays in a core's caches.
const KEPT: usize = 1 << 18;

/// The kernels of a group's lanes, ready for convolution with sequences of any length of one size of transforms.
#[derive(Debug)]
pub(super) struct Convolution {
    fft: Fft,
    kernels: Spectra,
}

impl<E: Elem> Lti<E> {
    /// Runs a whole sequence as a convolution with the kernel, plus the free response of the state. Says false where an input
    /// is no number: then no answer would be, and nothing was done.
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
        let (u, rest) = scratch.split_at_mut(self.shape.rows() * GROUP);
        let (z, rest) = rest.split_at_mut(self.shape.rows() * GROUP);
        let Some(response) = self.response(isa, group, rows, x, x_stride, u) else { return false };
        let silent = state.iter().all(|&x| x == E::ZERO);
        let (mut echo, mut free) = (Aligned::<E>::default(), Aligned::<E>::default());
        if !silent {
            echo = Aligned::zeros(state.len());
            echo.copy_from_slice(state);
            free = Aligned::zeros(u.len());
        }
        let mut t = 0;
        while t < rows {
            let chunks = ((rows - t) / self.shape.samples).min(self.shape.tile);
            let n = if chunks > 0 { chunks * self.shape.samples } else { (rows - t).min(SCAN_ROWS) };
            self.pack(isa, group, t, n, rows, x, x_stride, u);
            if move_on && chunks > 0 {
                let state = self.groups[group].chunk_state(state.as_mut_ptr());
                // SAFETY: the state is this call's alone.
                unsafe { self.chunk(isa, group).advance(isa, chunks, u, state, rest) };
            } else if move_on {
                self.groups[group].scan(isa, 0, n, u, z, state);
            }
            // What the state before the sequence adds: the recurrence without input.
            if !silent && chunks > 0 {
                let echo = self.groups[group].chunk_state(echo.as_mut_ptr());
                // SAFETY: it is this call's alone.
                unsafe { self.chunk(isa, group).free_response(isa, chunks, &mut free, echo, rest) };
            } else if !silent {
                z[..n * GROUP].fill(E::ZERO);
                self.groups[group].scan(isa, 0, n, z, &mut free, &mut echo);
            }
            for (z, &response) in z.iter_mut().zip(&response[t * GROUP..][..n * GROUP]) {
                *z = E::of(response);
            }
            for (z, &free) in z[..n * GROUP].iter_mut().zip(&*free) {
                *z += free;
            }
            // SAFETY: rows t to t + n of `y` are within `rows`; the caller answers for this group's columns.
            unsafe { self.unpack(isa, group, t, n, rows, u, z, y, y_stride) };
            t += n;
        }
        self.give_back(response);
        true
    }

    /// The convolution of a group's inputs with its kernels, rows of the group; None where an input is no number. `u` has room
    /// for a tile of them.
    fn response(
        &self,
        isa: Isa,
        group: usize,
        rows: usize,
        x: &[E],
        x_stride: usize,
        u: &mut [E],
    ) -> Option<Aligned<f64>> {
        let convolution = self.convolution(isa, group, rows);
        let len = convolution.fft.rows() * GROUP;
        let mut room = self.rooms.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if room.len() < 2 * len {
            room = Aligned::zeros(2 * len);
        }
        let (whole, work) = room[..2 * len].split_at_mut(len);
        let mut finite = true;
        for (i, whole) in whole.chunks_mut(u.len()).enumerate() {
            let t = i * u.len() / GROUP;
            let n = rows.saturating_sub(t).min(whole.len() / GROUP);
            self.pack(isa, group, t, n, rows, x, x_stride, u);
            let (now, after) = whole.split_at_mut(n * GROUP);
            for (whole, u) in now.iter_mut().zip(&*u) {
                *whole = u.f64();
                finite &= whole.is_finite();
            }
            after.fill(0.0);
        }
        if !finite {
            self.give_back(room);
            return None;
        }
        let lanes = self.lanes[group].iter().flatten().count();
        convolution.fft.convolve(isa, lanes, whole, &convolution.kernels, work);
        Some(room)
    }

    fn give_back(&self, room: Aligned<f64>) {
        if room.len() <= KEPT {
            self.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        }
    }

    fn convolution(&self, isa: Isa, group: usize, length: usize) -> Arc<Convolution> {
        let mut cached = self.convolutions[group].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cached.as_ref().filter(|found| found.fft.is_for(length)) {
            return Arc::clone(found);
        }
        let fft = Fft::new(length);
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

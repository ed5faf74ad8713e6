//! Single samples of a recurrence over modes, which are visited once in a look-ahead block of [`BLOCK_SAMPLES`]
//! samples, or in two blocks.
//!
//! The cost of a sample is mostly the memory of its modes, which is read and written whether they move by one sample or
//! by several. From the state x\[t\] on,
//!
//! y\[t + j\] = sum Re(c a^j x\[t\]) + sum over 0 < i <= j of k\[j - i\] u\[t + i\], k\[d\] = sum Re(c a^d).
//!
//! A visit computes the first sum, the free response, for all samples until the next visit. A sample stores its input,
//! which is then pending, and adds the terms of the second sum whose inputs are in its own block; when a block is full
//! and another one follows before the next visit, its inputs are convolved into the whole of that one. The next visit
//! moves the modes on by all pending inputs at once. A run of samples takes fewer operations in this way than one by
//! one, too.
//!
//! Where modes are coupled, x' = a x + u - sum_k w_k s_k with s_k = Re(v_k . x), an inner product s_k is both an
//! output, of the state before the sample, and an input, with gain -w_k.

mod layout;
mod modes;
mod pending;
mod samples;
mod system;
mod taps;

pub use layout::{BLOCK_SAMPLES, state_len};
pub use pending::{Pending, SampleCount};
pub use samples::Sample;
pub use system::{Coupled, LookAhead};

//! How many samples and blocks stand between two visits, and in which rows of memory.

use crate::kernels::GROUP;

/// Samples of a look-ahead block.
pub const BLOCK_SAMPLES: usize = 8;

/// Elements of a block's rows.
pub const BLOCK_LEN: usize = BLOCK_SAMPLES * GROUP;

/// The most samples from one visit to the next.
pub const MOST_SAMPLES: usize = 2 * BLOCK_SAMPLES;

/// Blocks from one visit of so many modes to the next: the more memory the modes take, the more taps are worth saving
/// it.
pub const fn blocks_of(modes: usize, products: usize) -> usize {
    if products == 0 && modes >= 32 { 2 } else { 1 }
}

/// Rows of [`GROUP`] for a mode's first powers: a and a^2, each (re, im).
pub const POWER_ROWS: usize = 4;

/// Rows of a power of the pole less one, (re, im), and of their low parts. These are left out where modes are coupled,
/// because the rounding of the couplings is greater.
pub const fn pole_rows(products: usize) -> usize {
    if products == 0 { 4 } else { 2 }
}

/// The first row of a mode's readers: before them stand the first powers, and the power of the pole from one visit to
/// the next.
pub const fn reader_row(products: usize) -> usize {
    POWER_ROWS + pole_rows(products)
}

/// Rows of a reader r, and of an input's gain g: r and r a, each (re, im).
pub const READER_ROWS: usize = 4;

/// Rows of a mode: up to the readers, then c a as the first reader, each v, each -w, and where visits are two blocks
/// apart a^BLOCK_SAMPLES - 1.
pub const fn mode_rows(products: usize, blocks: usize) -> usize {
    reader_row(products) + READER_ROWS * (1 + 2 * products) + if blocks > 1 { pole_rows(products) } else { 0 }
}

/// Elements of state: rows, for each sample from one visit to the next, of the pending inputs, of the free response,
/// and of each inner product.
pub const fn state_len(modes: usize, products: usize) -> usize {
    (2 + products) * blocks_of(modes, products) * BLOCK_LEN
}

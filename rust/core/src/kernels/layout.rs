//! Rows of channels: the layout of memory that all kernels share.

/// Channels a group: the widest vector of the narrowest element. Rows of activations are padded to it.
pub const GROUP: usize = 16;

/// `n` rounded up to whole groups.
///
/// # Panics
/// Where that is no usize.
#[inline(always)]
pub const fn padded(n: usize) -> usize {
    match n.checked_add(GROUP - 1) {
        Some(n) => n / GROUP * GROUP,
        None => panic!("more channels than there are addresses"),
    }
}

/// Whether memory of `len` elements has `rows` rows of `stride` elements; false where their product is no usize.
#[inline(always)]
pub(super) const fn holds(len: usize, rows: usize, stride: usize) -> bool {
    match rows.checked_mul(stride) {
        Some(needed) => needed <= len,
        None => false,
    }
}

/// Prefetches the cache line at `p`, which need not be valid.
#[inline(always)]
pub(super) fn fetch<E>(p: *const E) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that reads nothing, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

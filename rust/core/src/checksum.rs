//! A hash that tells numbers apart that something has damaged or changed, not someone.

/// Of nothing.
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// A hash after Fowler, Noll and Vo, of words instead of bytes. One changed word always changes it.
pub fn hash(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).chain(rest.iter().map(|&byte| byte.into()));
    words.fold(start, mix)
}

/// The hash, and one word more.
pub fn mix(h: u64, word: u64) -> u64 {
    (h.rotate_left(29) ^ word).wrapping_mul(0x0100_0000_01b3)
}

//! Numbers below the least normal one are zero to the engine: to a processor they may cost a hundred times a number's time.
//!
//! Processors have a mode for it. Threads have it while they work for a plan and only then, so that no other code of theirs
//! meets it, and rounding is to nearest whatever mode the caller is in: a result depends on neither.
//!
//! Rust's compiler knows nothing of the mode. What it computes itself, of constants, may be denormal, and is zero once read.

use std::marker::PhantomData;

/// How a thread's processor rounds, and what it makes of denormal numbers.
#[derive(Clone, Copy)]
pub struct Mode(machine::Word);

/// While it lives, its thread is in a mode.
pub struct Held(Option<Mode>, PhantomData<*const ()>);

impl Mode {
    /// The engine's: round to nearest, interrupt nothing, denormal numbers are zero when read and when written.
    pub const FLUSHED: Mode = Mode(machine::FLUSHED);

    /// The calling thread's.
    #[inline]
    pub fn now() -> Mode {
        Mode(machine::read())
    }

    /// Puts the calling thread into this mode until the answer is dropped.
    #[inline]
    pub fn hold(self) -> Held {
        let before = Mode::now();
        let other = machine::control(before.0) != machine::control(self.0);
        if other {
            machine::write(self.0);
        }
        Held(other.then_some(before), PhantomData)
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            machine::write(before.0);
        }
    }
}

#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse2"))]
mod machine {
    use std::arch::asm;

    pub type Word = u32;
    /// All exceptions masked, flush to zero, denormals are zero (Intel's manual, volume 1, 10.2.3).
    pub const FLUSHED: Word = 0x1f80 | 1 << 15 | 1 << 6;

    /// Without the flags of what has happened so far.
    #[inline]
    pub fn control(word: Word) -> Word {
        word & !0x3f
    }

    #[inline]
    pub fn read() -> Word {
        let mut word: Word = 0;
        // SAFETY: the instruction writes four bytes, of a local variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub fn write(word: Word) {
        // SAFETY: the word is one of `read` or `FLUSHED`: it has no reserved bit, and masks what it masked or more.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use std::arch::asm;

    pub type Word = u64;
    /// FZ alone (Arm's manual, FPCR).
    pub const FLUSHED: Word = 1 << 24;

    #[inline]
    pub fn control(word: Word) -> Word {
        word
    }

    #[inline]
    pub fn read() -> Word {
        let word: Word;
        // SAFETY: the register may be read at any time.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub fn write(word: Word) {
        // SAFETY: the word is one of `read` or `FLUSHED`: no reserved bit of it was changed.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

/// Machines without the mode, such as WebAssembly, compute with denormal numbers as with others.
#[cfg(not(any(
    all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse2"),
    target_arch = "aarch64"
)))]
mod machine {
    pub type Word = u32;
    pub const FLUSHED: Word = 0;

    #[inline]
    pub fn control(word: Word) -> Word {
        word
    }

    #[inline]
    pub fn read() -> Word {
        FLUSHED
    }

    #[inline]
    pub fn write(_: Word) {}
}

#[cfg(test)]
mod tests {
    use super::Mode;
    use crate::threads::Team;
    use std::hint::black_box;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Whether a denormal number is zero to the calling thread.
    fn flushes() -> bool {
        black_box(black_box(1e-40_f32) * black_box(2.0)) == 0.0
    }

    const HAS_MODE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

    #[test]
    fn a_thread_is_in_the_mode_while_it_is_held_and_no_longer() {
        assert!(!flushes());
        let held = Mode::FLUSHED.hold();
        assert_eq!(flushes(), HAS_MODE);
        drop(Mode::FLUSHED.hold());
        assert_eq!(flushes(), HAS_MODE, "the inner one found the mode and left it");
        drop(held);
        assert!(!flushes());
    }

    #[test]
    fn a_panic_leaves_the_mode() {
        let panicked = std::panic::catch_unwind(|| {
            let _held = Mode::FLUSHED.hold();
            panic!("on purpose");
        });
        assert!(panicked.is_err() && !flushes());
    }

    #[test]
    fn a_team_works_in_the_mode_of_its_caller() {
        let team = Team::all().unwrap();
        let count = |flushed: bool| {
            let n = AtomicUsize::new(0);
            team.each(64, |_, _| {
                n.fetch_add(usize::from(flushes() == flushed), Ordering::Relaxed);
            });
            n.into_inner()
        };
        assert_eq!(count(false), 64);
        let held = Mode::FLUSHED.hold();
        assert_eq!(count(HAS_MODE), 64);
        drop(held);
        assert_eq!(count(false), 64);
    }
}

//! The dice of a simulation: one seed, one sequence of numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by everything that decides something at random.
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    /// A number below `limit`.
    pub(super) fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        (x >> 20) % limit.max(1)
    }
}

//! Places in a fixed array, handed out to those who ask for one.
//!
//! An event keeps the encoded frames of several doors beside its bytes. Which door has which place does not matter, as
//! long as no two have the same; so nobody numbers them by hand.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where places come from: the next number that nobody has.
#[derive(Debug, Default)]
pub struct Slots(AtomicUsize);

impl Slots {
    /// A source whose first place is 0.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
}

/// One place, the same for the life of the process from its first use on.
#[derive(Debug)]
pub struct Slot {
    from: &'static Slots,
    number: OnceLock<usize>,
}

impl Slot {
    /// A place of that source.
    #[must_use]
    pub const fn of(from: &'static Slots) -> Self {
        Self { from, number: OnceLock::new() }
    }

    /// Its number.
    pub fn number(&self) -> usize {
        *self.number.get_or_init(|| self.from.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_handed_out_once_and_kept() {
        static SLOTS: Slots = Slots::new();
        let (first, second) = (Slot::of(&SLOTS), Slot::of(&SLOTS));
        assert_eq!([second.number(), first.number(), second.number(), first.number()], [0, 1, 0, 1]);
    }
}

//! Numbered slots of a fixed array, handed out on request.
//!
//! An event keeps the encoded frames of several doors beside its bytes. Which door has which slot does not matter, as
//! long as no two doors have the same one, so the numbers are not written by hand.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A source of slots: hands out the next free number.
#[derive(Debug, Default)]
pub struct Slots(AtomicUsize);

impl Slots {
    /// A source whose first slot is 0.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
}

/// One slot, which gets its number at its first use and keeps it.
#[derive(Debug)]
pub struct Slot {
    from: &'static Slots,
    number: OnceLock<usize>,
}

impl Slot {
    /// A slot of this source.
    #[must_use]
    pub const fn of(from: &'static Slots) -> Self {
        Self { from, number: OnceLock::new() }
    }

    /// The number of the slot.
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

//! Numbers for the acknowledgements of one client. The numbers are small because some client libraries read them into
//! 32 bits.

use std::collections::BTreeMap;

/// All numbers are smaller than this.
const END: u64 = 1 << 31;
/// Least count of pending numbers at which the numbers without a waiting request are removed. The count doubles each
/// time.
const WAITING_MIN: usize = 64;

/// What the client acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors::socketio) enum AckTarget {
    /// The request of that number.
    Request(u64),
    /// The command of that number.
    Command(u64),
}

/// The numbers of one client. They begin at 0 and begin again when all have been used.
#[derive(Debug, Default)]
pub(in crate::doors::socketio) struct Acks {
    next: u64,
    waiting: BTreeMap<u64, AckTarget>,
    /// The count of pending numbers at which the next clean-up happens.
    waiting_max: usize,
}

impl Acks {
    /// Returns a number for a message. `is_awaited` tells whether an earlier message is still pending: most clients
    /// answer requests by an event, so their acknowledgements never come.
    pub(in crate::doors::socketio) fn give(&mut self, of: AckTarget, is_awaited: impl Fn(AckTarget) -> bool) -> u64 {
        if self.waiting.len() >= self.waiting_max.max(WAITING_MIN) {
            self.waiting.retain(|_, acked| is_awaited(*acked));
            self.waiting_max = self.waiting.len().saturating_mul(2);
        }
        while self.waiting.contains_key(&self.next) {
            self.step();
        }
        let number = self.next;
        self.step();
        self.waiting.insert(number, of);
        number
    }

    const fn step(&mut self) {
        self.next = self.next.wrapping_add(1) % END;
    }

    /// Takes what the client acknowledges by that number. `None` means that the number was never given or was taken
    /// before.
    pub(in crate::doors::socketio) fn take(&mut self, number: u64) -> Option<AckTarget> {
        self.waiting.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_small_and_each_is_taken_once() {
        let mut acks = Acks::default();
        let all = |_| true;
        assert_eq!(acks.give(AckTarget::Request(1 << 60), all), 0);
        assert_eq!(acks.give(AckTarget::Command(7), all), 1);
        assert_eq!((acks.take(0), acks.take(0)), (Some(AckTarget::Request(1 << 60)), None));
        assert_eq!((acks.take(1), acks.take(9)), (Some(AckTarget::Command(7)), None));
        acks.next = END - 1;
        assert_eq!(acks.give(AckTarget::Request(2), all), END - 1);
        assert_eq!(acks.give(AckTarget::Request(3), all), 0, "from the start again");
        acks.next = END - 1;
        assert_eq!(acks.give(AckTarget::Request(4), all), 1, "those that wait are passed over");
    }

    #[test]
    fn what_is_answered_otherwise_is_forgotten_and_what_waits_is_not() {
        let mut acks = Acks::default();
        let number = acks.give(AckTarget::Request(5), |_| true);
        for request in 100..10_000 {
            acks.give(AckTarget::Request(request), |acked| acked == AckTarget::Request(5));
            assert!(acks.waiting.len() <= WAITING_MIN + 1);
        }
        assert_eq!(acks.take(number), Some(AckTarget::Request(5)));
        for request in 0..1000 {
            acks.give(AckTarget::Request(request), |_| true);
        }
        assert!(acks.waiting.len() >= 1000, "however many they are");
    }
}

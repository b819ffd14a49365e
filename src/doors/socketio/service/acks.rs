//! The numbers under which a client acknowledges what it was sent: small, for client libraries read them into 32 bits.

use std::collections::BTreeMap;

/// The numbers are smaller than this.
const END: u64 = 1 << 31;
/// When more wait than this, and twice as many as the last time, those that nobody waits for any more are forgotten.
const WAITING_MIN: usize = 64;

/// What is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors::socketio) enum Acked {
    /// The request of that number.
    Request(u64),
    /// The command of that number.
    Command(u64),
}

/// The numbers of one client. They begin at 0, and begin anew when they have all been given.
#[derive(Debug, Default)]
pub(in crate::doors::socketio) struct Acks {
    next: u64,
    waiting: BTreeMap<u64, Acked>,
    /// So many are too many.
    waiting_max: usize,
}

impl Acks {
    /// A number for what is sent now. `is_awaited` tells of what was sent before whether it has no end yet: most
    /// clients answer requests by an event, and their acknowledgements never come.
    pub(in crate::doors::socketio) fn give(&mut self, of: Acked, is_awaited: impl Fn(Acked) -> bool) -> u64 {
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

    /// What the client acknowledges by that number; `None` when it was not given, or was acknowledged before.
    pub(in crate::doors::socketio) fn take(&mut self, number: u64) -> Option<Acked> {
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
        assert_eq!(acks.give(Acked::Request(1 << 60), all), 0);
        assert_eq!(acks.give(Acked::Command(7), all), 1);
        assert_eq!((acks.take(0), acks.take(0)), (Some(Acked::Request(1 << 60)), None));
        assert_eq!((acks.take(1), acks.take(9)), (Some(Acked::Command(7)), None));
        acks.next = END - 1;
        assert_eq!(acks.give(Acked::Request(2), all), END - 1);
        assert_eq!(acks.give(Acked::Request(3), all), 0, "from the start again");
        acks.next = END - 1;
        assert_eq!(acks.give(Acked::Request(4), all), 1, "those that wait are passed over");
    }

    #[test]
    fn what_is_answered_otherwise_is_forgotten_and_what_waits_is_not() {
        let mut acks = Acks::default();
        let number = acks.give(Acked::Request(5), |_| true);
        for request in 100..10_000 {
            acks.give(Acked::Request(request), |acked| acked == Acked::Request(5));
            assert!(acks.waiting.len() <= WAITING_MIN + 1);
        }
        assert_eq!(acks.take(number), Some(Acked::Request(5)));
        for request in 0..1000 {
            acks.give(Acked::Request(request), |_| true);
        }
        assert!(acks.waiting.len() >= 1000, "however many they are");
    }
}

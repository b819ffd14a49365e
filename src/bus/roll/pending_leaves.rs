//! Clients that left and must be removed from the roll: which removals to propose, and how long to look whether they
//! happened. Pure.
//!
//! Each removal is proposed once. A registration of the same client may still be on its way, so the roll is looked up a
//! few times afterwards, at intervals that double. Each client costs a handful of look-ups, however many clients leave
//! at once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rollbook_core::node::Owner;
use rollbook_core::service::{Connection, Leaving};

/// How long a client that left is looked up: longer than a registration may be on its way.
const LINGER: Duration = Duration::from_secs(60);
/// Time from the answer to the first look-up.
const GAP_MIN: Duration = Duration::from_secs(1);

/// Connection, service and instance.
type Key = (Connection, String, String);

/// One client that left.
#[derive(Debug)]
struct Left {
    /// What to propose.
    leaving: Leaving,
    /// When the last look-up is made.
    until: Instant,
    /// Time to the next look-up, which doubles.
    gap: Duration,
}

/// The clients that left. Each is in one of the two queues, or in a [`LeaveBatch`] that the caller has.
#[derive(Debug, Default)]
pub(super) struct PendingLeaves {
    /// Number of the newest client.
    number: u64,
    /// The clients, by number. A number that is in a queue and not here was forgotten.
    left: HashMap<u64, Left>,
    /// The number of each client, so that a client that registers again can be forgotten.
    numbers: HashMap<Key, u64>,
    /// Clients whose removal was not proposed yet, in the order in which they left.
    waiting: VecDeque<u64>,
    /// Clients whose removal was proposed, by the time of their next look-up.
    lookups: BTreeSet<(Instant, u64)>,
}

/// Clients that are being removed or looked up.
#[derive(Debug)]
pub(super) struct LeaveBatch {
    /// Their numbers.
    numbers: Vec<u64>,
    /// What is proposed or looked up, in the order of the numbers.
    pub(super) leaving: Vec<Leaving>,
}

/// The key of a client.
fn key(leaving: &Leaving) -> Key {
    (leaving.connection, leaving.service.clone(), leaving.instance.clone())
}

impl PendingLeaves {
    /// A client has left, or may have: a failed registration counts as well.
    pub(super) fn add(&mut self, leaving: Leaving, now: Instant) {
        let until = now + LINGER;
        // The removal is proposed once more, because the client may have registered since.
        self.forget(&leaving);
        self.number = self.number.wrapping_add(1);
        self.numbers.insert(key(&leaving), self.number);
        self.left.insert(self.number, Left { leaving, until, gap: GAP_MIN });
        self.waiting.push_back(self.number);
    }

    /// The client registers again: an earlier departure must not remove it. A removal that was proposed already is
    /// ahead of the registration.
    pub(super) fn forget(&mut self, leaving: &Leaving) {
        if let Some(number) = self.numbers.remove(&key(leaving)) {
            self.left.remove(&number);
        }
    }

    /// The next removals to propose, at most `most`. Clients of an earlier life of the node are skipped: the rules
    /// removed them with that life.
    pub(super) fn next(&mut self, owner: Owner, most: usize) -> LeaveBatch {
        let mut batch = LeaveBatch { numbers: Vec::new(), leaving: Vec::new() };
        while batch.numbers.len() < most
            && let Some(number) = self.waiting.pop_front()
        {
            let Some(leaving) = self.left.get(&number).map(|left| left.leaving.clone()) else { continue };
            if leaving.connection.owner == owner {
                batch.numbers.push(number);
                batch.leaving.push(leaving);
            } else {
                self.forget(&leaving);
            }
        }
        batch
    }

    /// The cluster has accepted the removals. `all` is false when the rules left some of them for the next step.
    pub(super) fn proposed(&mut self, batch: &LeaveBatch, all: bool, now: Instant) {
        for number in &batch.numbers {
            if let Some(left) = self.left.get(number) {
                self.lookups.insert((if all { now + left.gap } else { now }, *number));
            }
        }
    }

    /// The cluster did not accept the removals: they are proposed again first.
    pub(super) fn not_proposed(&mut self, batch: LeaveBatch) {
        batch.numbers.into_iter().rev().for_each(|number| self.waiting.push_front(number));
    }

    /// The clients to look up now, at most `most`.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> LeaveBatch {
        let mut due = LeaveBatch { numbers: Vec::new(), leaving: Vec::new() };
        while due.numbers.len() < most
            && let Some((at, number)) = self.lookups.first().copied()
            && at <= now
        {
            self.lookups.remove(&(at, number));
            if let Some(left) = self.left.get(&number) {
                due.numbers.push(number);
                due.leaving.push(left.leaving.clone());
            }
        }
        due
    }

    /// The look-up is done. Clients that are still shown on the roll are removed again, the others are looked up later.
    pub(super) fn looked_up(&mut self, due: LeaveBatch, shown: &[bool], now: Instant) {
        for ((number, leaving), shown) in due.numbers.into_iter().zip(due.leaving).zip(shown) {
            let Some(left) = self.left.get_mut(&number) else { continue };
            if *shown {
                self.waiting.push_back(number);
            } else if now < left.until {
                left.gap = left.gap.saturating_mul(2);
                self.lookups.insert((left.until.min(now + left.gap), number));
            } else {
                self.forget(&leaving);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { node: 1, incarnation: 1 };

    fn leaving(serial: u64) -> Leaving {
        let connection = Connection { owner: OWNER, serial };
        Leaving { service: "s".to_owned(), instance: serial.to_string(), connection }
    }

    fn serials(batch: &LeaveBatch) -> Vec<u64> {
        batch.leaving.iter().map(|leaving| leaving.connection.serial).collect()
    }

    #[test]
    fn each_is_asked_for_once_and_looked_for_at_longer_and_longer_intervals() {
        let (mut pending_leaves, start) = (PendingLeaves::default(), Instant::now());
        (0..10_000).for_each(|serial| pending_leaves.add(leaving(serial), start));
        let (mut batch, mut looked_up, mut seconds) = (0, 0, 0);
        while !pending_leaves.left.is_empty() {
            let now = start + Duration::from_secs(seconds);
            seconds += 1;
            loop {
                let due = pending_leaves.due(now, 256);
                if due.leaving.is_empty() {
                    break;
                }
                looked_up += due.leaving.len();
                let shown = vec![false; due.leaving.len()];
                pending_leaves.looked_up(due, &shown, now);
            }
            loop {
                let next = pending_leaves.next(OWNER, 256);
                if next.leaving.is_empty() {
                    break;
                }
                batch += next.leaving.len();
                pending_leaves.proposed(&next, true, now);
            }
        }
        assert_eq!(batch, 10_000);
        assert!((50_000..=80_000).contains(&looked_up), "{looked_up} look-ups of 10,000 in a minute");
        assert!((60..=63).contains(&seconds), "{seconds}");
        assert!(
            pending_leaves.numbers.is_empty() && pending_leaves.lookups.is_empty() && pending_leaves.waiting.is_empty()
        );
    }

    #[test]
    fn whoever_is_still_shown_is_asked_for_again_and_what_failed_comes_first() {
        let (mut pending_leaves, now) = (PendingLeaves::default(), Instant::now());
        (0..4).for_each(|serial| pending_leaves.add(leaving(serial), now));
        let two = pending_leaves.next(OWNER, 2);
        assert_eq!(serials(&two), [0, 1]);
        pending_leaves.not_proposed(two);
        let all = pending_leaves.next(OWNER, 9);
        assert_eq!(serials(&all), [0, 1, 2, 3], "in their order");
        // The rules left some for the next step: they are looked for at once.
        pending_leaves.proposed(&all, false, now);
        assert!(pending_leaves.next(OWNER, 9).leaving.is_empty());
        let due = pending_leaves.due(now, 9);
        assert_eq!(serials(&due), [0, 1, 2, 3]);
        pending_leaves.looked_up(due, &[false, false, true, true], now);
        assert_eq!(serials(&pending_leaves.next(OWNER, 9)), [2, 3]);
    }

    #[test]
    fn whoever_comes_again_is_left_alone_and_so_is_an_earlier_life() {
        let (mut pending_leaves, now) = (PendingLeaves::default(), Instant::now());
        (0..3).for_each(|serial| pending_leaves.add(leaving(serial), now));
        pending_leaves.forget(&leaving(1));
        let batch = pending_leaves.next(OWNER, 1);
        pending_leaves.forget(&leaving(0));
        pending_leaves.not_proposed(batch);
        assert_eq!(
            serials(&pending_leaves.next(OWNER, 9)),
            [2],
            "neither those that wait nor those that were batch in vain"
        );
        pending_leaves.add(leaving(7), now);
        pending_leaves.add(leaving(7), now);
        assert_eq!(serials(&pending_leaves.next(OWNER, 9)), [7], "once");
        pending_leaves.add(leaving(8), now);
        assert!(pending_leaves.next(Owner { node: 1, incarnation: 2 }, 9).leaving.is_empty());
        assert!(!pending_leaves.numbers.contains_key(&key(&leaving(8))), "forgotten for good");
    }
}

//! Clients that have left and must come off the roll: whom to ask for, and how long to look whether it happened. Pure.
//!
//! One who left is asked for once. Because a registration of it may still be on its way, it is then looked for a few
//! times, at intervals that double; each client costs a handful of look-ups, however many leave.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rollbook_core::node::Owner;
use rollbook_core::service::{Connection, Leaving};

/// How long one who left is looked for: longer than a registration may be on its way.
const LINGER: Duration = Duration::from_secs(60);
/// From the answer to the first look.
const GAP_MIN: Duration = Duration::from_secs(1);

/// Connection, service and instance.
type Key = (Connection, String, String);

#[derive(Debug)]
struct Left {
    leaving: Leaving,
    until: Instant,
    /// To the next look.
    gap: Duration,
}

/// Those who left. Each is in one of the two queues, or is just being asked for.
#[derive(Debug, Default)]
pub(super) struct PendingLeaves {
    number: u64,
    left: HashMap<u64, Left>,
    numbers: HashMap<Key, u64>,
    /// Those who were not asked for yet, in the order in which they left.
    waiting: VecDeque<u64>,
    /// Those who were, by when they are looked for.
    looks: BTreeSet<(Instant, u64)>,
}

/// Some who are being asked for.
#[derive(Debug)]
pub(super) struct Asked {
    numbers: Vec<u64>,
    /// What is asked.
    pub(super) leaving: Vec<Leaving>,
}

fn key(leaving: &Leaving) -> Key {
    (leaving.connection, leaving.service.clone(), leaving.instance.clone())
}

impl PendingLeaves {
    /// Somebody left, or may have.
    pub(super) fn add(&mut self, leaving: Leaving, now: Instant) {
        let until = now + LINGER;
        // Asked for once more: it may have come again since.
        self.forget(&leaving);
        self.number = self.number.wrapping_add(1);
        self.numbers.insert(key(&leaving), self.number);
        self.left.insert(self.number, Left { leaving, until, gap: GAP_MIN });
        self.waiting.push_back(self.number);
    }

    /// It comes again: it must not be taken off for having left before. What was asked already is ahead of it.
    pub(super) fn forget(&mut self, leaving: &Leaving) {
        if let Some(number) = self.numbers.remove(&key(leaving)) {
            self.left.remove(&number);
        }
    }

    /// The next ones to ask for, at most so many. Those of an earlier life of the node were taken off as a whole.
    pub(super) fn next(&mut self, owner: Owner, most: usize) -> Asked {
        let mut asked = Asked { numbers: Vec::new(), leaving: Vec::new() };
        while asked.numbers.len() < most
            && let Some(number) = self.waiting.pop_front()
        {
            let Some(leaving) = self.left.get(&number).map(|left| left.leaving.clone()) else { continue };
            if leaving.connection.owner == owner {
                asked.numbers.push(number);
                asked.leaving.push(leaving);
            } else {
                self.forget(&leaving);
            }
        }
        asked
    }

    /// The cluster was asked; `all`: for all of them, none was left for the next time.
    pub(super) fn asked(&mut self, asked: &Asked, all: bool, now: Instant) {
        for number in &asked.numbers {
            if let Some(left) = self.left.get(number) {
                self.looks.insert((if all { now + left.gap } else { now }, *number));
            }
        }
    }

    /// The cluster could not be asked: they are the next again.
    pub(super) fn not_asked(&mut self, asked: Asked) {
        asked.numbers.into_iter().rev().for_each(|number| self.waiting.push_front(number));
    }

    /// Those to look for now, at most so many.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> Asked {
        let mut due = Asked { numbers: Vec::new(), leaving: Vec::new() };
        while due.numbers.len() < most
            && let Some((at, number)) = self.looks.first().copied()
            && at <= now
        {
            self.looks.remove(&(at, number));
            if let Some(left) = self.left.get(&number) {
                due.numbers.push(number);
                due.leaving.push(left.leaving.clone());
            }
        }
        due
    }

    /// They were looked for: those who are still shown are asked for again, the others are looked for later.
    pub(super) fn looked(&mut self, due: Asked, shown: &[bool], now: Instant) {
        for ((number, leaving), shown) in due.numbers.into_iter().zip(due.leaving).zip(shown) {
            let Some(left) = self.left.get_mut(&number) else { continue };
            if *shown {
                self.waiting.push_back(number);
            } else if now < left.until {
                left.gap = left.gap.saturating_mul(2);
                self.looks.insert((left.until.min(now + left.gap), number));
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

    fn serials(asked: &Asked) -> Vec<u64> {
        asked.leaving.iter().map(|leaving| leaving.connection.serial).collect()
    }

    #[test]
    fn each_is_asked_for_once_and_looked_for_at_longer_and_longer_intervals() {
        let (mut leavers, start) = (PendingLeaves::default(), Instant::now());
        (0..10_000).for_each(|serial| leavers.add(leaving(serial), start));
        let (mut asked, mut looked, mut seconds) = (0, 0, 0);
        while !leavers.left.is_empty() {
            let now = start + Duration::from_secs(seconds);
            seconds += 1;
            loop {
                let due = leavers.due(now, 256);
                if due.leaving.is_empty() {
                    break;
                }
                looked += due.leaving.len();
                let shown = vec![false; due.leaving.len()];
                leavers.looked(due, &shown, now);
            }
            loop {
                let next = leavers.next(OWNER, 256);
                if next.leaving.is_empty() {
                    break;
                }
                asked += next.leaving.len();
                leavers.asked(&next, true, now);
            }
        }
        assert_eq!(asked, 10_000);
        assert!((50_000..=80_000).contains(&looked), "{looked} look-ups of 10,000 in a minute");
        assert!((60..=63).contains(&seconds), "{seconds}");
        assert!(leavers.numbers.is_empty() && leavers.looks.is_empty() && leavers.waiting.is_empty());
    }

    #[test]
    fn whoever_is_still_shown_is_asked_for_again_and_what_failed_comes_first() {
        let (mut leavers, now) = (PendingLeaves::default(), Instant::now());
        (0..4).for_each(|serial| leavers.add(leaving(serial), now));
        let two = leavers.next(OWNER, 2);
        assert_eq!(serials(&two), [0, 1]);
        leavers.not_asked(two);
        let all = leavers.next(OWNER, 9);
        assert_eq!(serials(&all), [0, 1, 2, 3], "in their order");
        // The rules left some for the next step: they are looked for at once.
        leavers.asked(&all, false, now);
        assert!(leavers.next(OWNER, 9).leaving.is_empty());
        let due = leavers.due(now, 9);
        assert_eq!(serials(&due), [0, 1, 2, 3]);
        leavers.looked(due, &[false, false, true, true], now);
        assert_eq!(serials(&leavers.next(OWNER, 9)), [2, 3]);
    }

    #[test]
    fn whoever_comes_again_is_left_alone_and_so_is_an_earlier_life() {
        let (mut leavers, now) = (PendingLeaves::default(), Instant::now());
        (0..3).for_each(|serial| leavers.add(leaving(serial), now));
        leavers.forget(&leaving(1));
        let asked = leavers.next(OWNER, 1);
        leavers.forget(&leaving(0));
        leavers.not_asked(asked);
        assert_eq!(serials(&leavers.next(OWNER, 9)), [2], "neither those that wait nor those that were asked in vain");
        leavers.add(leaving(7), now);
        leavers.add(leaving(7), now);
        assert_eq!(serials(&leavers.next(OWNER, 9)), [7], "once");
        leavers.add(leaving(8), now);
        assert!(leavers.next(Owner { node: 1, incarnation: 2 }, 9).leaving.is_empty());
        assert!(!leavers.numbers.contains_key(&key(&leaving(8))), "forgotten for good");
    }
}

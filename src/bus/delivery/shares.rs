//! What a durable consumer without acknowledgement gives to its members: a pure state machine.
//!
//! The node acknowledges for the clients. An event is done when the connection of a client has taken the event. When a
//! client leaves before that, the next member gets the event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bus::read::stored_event::StoredEvent;

/// Most events of one share.
const SHARE_EVENTS_MAX: usize = 64;
/// Most bytes of the records of one share, unless the share is a single event.
const SHARE_BYTES_MAX: usize = 64 << 10;
/// Most events that clients have taken and the replicated cursor does not cover yet. When the node dies, at most this
/// many events are delivered twice.
const AHEAD_EVENTS_MAX: usize = 1024;

/// The events between the cursor and the members.
#[derive(Debug, Default)]
pub struct Shares {
    /// Events that were read and not given to a member yet.
    waiting: BTreeMap<u64, Arc<StoredEvent>>,
    /// Positions of events that a member has and its client has not taken. The floor must stay below them.
    out: BTreeSet<u64>,
    /// Events that clients have taken since the cursor was saved last, for [`AHEAD_EVENTS_MAX`].
    ahead: usize,
}

impl Shares {
    /// Adds events that members will get.
    pub fn offer(&mut self, items: Vec<Arc<StoredEvent>>) {
        self.waiting.extend(items.into_iter().map(|item| (item.sequence(), item)));
    }

    /// Whether more events should be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next share, which [`Shares::answered`] takes back. `None` when no event waits, or when the saved cursor is
    /// too far behind.
    pub fn take(&mut self) -> Option<Vec<Arc<StoredEvent>>> {
        if self.ahead >= AHEAD_EVENTS_MAX {
            return None;
        }
        let (mut share, mut bytes) = (Vec::new(), 0_usize);
        while let Some(next) = self.waiting.first_entry() {
            bytes = bytes.saturating_add(next.get().record_len());
            if share.len() >= SHARE_EVENTS_MAX || (bytes > SHARE_BYTES_MAX && !share.is_empty()) {
                break;
            }
            let (sequence, item) = next.remove_entry();
            self.out.insert(sequence);
            share.push(item);
        }
        (!share.is_empty()).then_some(share)
    }

    /// Reports what became of a share: the connection of the client has taken it, or its events go to another member.
    pub fn answered(&mut self, share: Vec<Arc<StoredEvent>>, taken: bool) {
        for item in &share {
            self.out.remove(&item.sequence());
        }
        if taken {
            self.ahead = self.ahead.saturating_add(share.len());
        } else {
            self.offer(share);
        }
    }

    /// How many events clients have taken since the cursor was saved last.
    #[must_use]
    pub const fn ahead(&self) -> usize {
        self.ahead
    }

    /// The saved cursor covers this many more events.
    pub const fn saved(&mut self, events: usize) {
        self.ahead = self.ahead.saturating_sub(events);
    }

    /// Every event up to this position is done. All events of the pattern before position `considered` must have been
    /// offered.
    #[must_use]
    pub fn floor(&self, considered: u64) -> u64 {
        let waiting = self.waiting.keys().next();
        let first = waiting.into_iter().chain(self.out.first()).min().copied();
        first.unwrap_or(considered).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn items(range: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Arc<StoredEvent>> {
        range.map(|sequence| Arc::new(StoredEvent::stored(sequence, Bytes::from(vec![0; bytes])))).collect()
    }

    fn sequences(share: &[Arc<StoredEvent>]) -> Vec<u64> {
        share.iter().map(|item| item.sequence()).collect()
    }

    #[test]
    fn the_floor_passes_what_was_taken_and_the_rest_goes_to_the_next() {
        let mut shares = Shares::default();
        shares.offer(items(1..=100, 10));
        let (first, second) = (shares.take().unwrap(), shares.take().unwrap());
        assert_eq!((first.len(), second.len()), (64, 36));
        assert!(shares.take().is_none());
        shares.answered(second, true);
        assert_eq!(shares.floor(101), 0, "what is before it is on its way");
        shares.answered(first, false);
        assert_eq!((shares.floor(101), shares.ahead()), (0, 36));
        let again = shares.take().unwrap();
        assert_eq!(sequences(&again), (1..=64).collect::<Vec<_>>());
        shares.answered(again, true);
        assert_eq!((shares.floor(101), shares.ahead(), shares.is_empty()), (100, 100, true));
    }

    #[test]
    fn a_share_is_bounded_in_bytes_and_so_is_what_the_cluster_does_not_know() {
        let mut shares = Shares::default();
        shares.offer(items(1..=3, 30 << 10));
        shares.offer(items(4..=4, 1 << 20));
        let taken: Vec<Vec<u64>> = std::iter::from_fn(|| shares.take()).map(|share| sequences(&share)).collect();
        assert_eq!(taken, [vec![1, 2], vec![3], vec![4]]);
        let mut shares = Shares::default();
        shares.offer(items(1..=2000, 1));
        while let Some(share) = shares.take() {
            shares.answered(share, true);
        }
        assert_eq!((shares.ahead(), shares.floor(2001)), (1024, 1024), "it waits for the cluster");
        shares.saved(1024);
        assert_eq!(shares.take().map(|share| share.len()), Some(64));
    }
}

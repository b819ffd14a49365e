//! What a durable consumer without acknowledgement gives to its members: a pure state machine.
//!
//! The node acknowledges for the clients: an event is done with when the connection of a client
//! has taken it. What was not taken when a client left goes to the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bus::read::stored_event::StoredEvent;

/// Most events of a share.
const SHARE_EVENTS_MAX: usize = 64;
/// Most bytes of the records of a share, unless it is a single event.
const SHARE_BYTES_MAX: usize = 64 << 10;
/// Most events that clients have and the cluster does not know of: as many may come twice when the node dies.
const AHEAD_EVENTS_MAX: usize = 1024;

/// The events between the cursor and the members.
#[derive(Debug, Default)]
pub struct Shares {
    /// Read, but not given to a member.
    waiting: BTreeMap<u64, Arc<StoredEvent>>,
    /// Given to members, not taken by their clients so far.
    out: BTreeSet<u64>,
    /// How many clients have taken since the cluster was told.
    ahead: usize,
}

impl Shares {
    /// Events to give out.
    pub fn offer(&mut self, items: Vec<Arc<StoredEvent>>) {
        self.waiting.extend(items.into_iter().map(|item| (item.sequence(), item)));
    }

    /// Whether more should be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next share, which [`Shares::answered`] takes back; `None` when there is nothing to give, or the cluster is
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

    /// What became of a share: the client's connection has taken it, or it goes to another.
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

    /// How many events clients have taken that the cluster does not know of.
    #[must_use]
    pub const fn ahead(&self) -> usize {
        self.ahead
    }

    /// The cluster knows of so many more.
    pub const fn noted(&mut self, events: usize) {
        self.ahead = self.ahead.saturating_sub(events);
    }

    /// Everything up to here is done with, given that all events of the pattern before position `considered` were
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
        shares.noted(1024);
        assert_eq!(shares.take().map(|share| share.len()), Some(64));
    }
}

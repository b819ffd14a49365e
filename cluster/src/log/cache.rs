//! The tail cache: the newest entries in memory, shared by replication, apply and readers.
//!
//! openraft reads every entry again to apply it and to send it; without this, each
//! of them would be a read and a decode from RocksDB. Payloads are refcounted.

use std::collections::VecDeque;

use openraft::impls::EntryPayload;

use crate::types::Entry;

/// Contiguous entries, newest last.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Index of the oldest entry: entries are found by their distance from it.
    first: u64,
    entries: VecDeque<Entry>,
    /// Bytes of all entries, and their bound: when it is exceeded, the oldest entries are dropped.
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { first: 0, entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Index of the oldest entry, `None` while empty.
    pub(crate) fn first(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.first)
    }

    /// Index behind the newest entry, `None` while empty.
    fn end(&self) -> Option<u64> {
        let length = u64::try_from(self.entries.len()).ok().filter(|length| *length > 0)?;
        Some(self.first.saturating_add(length))
    }

    /// Appends an entry. A gap starts the cache anew.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.end() != Some(entry.log_id.index) {
            self.clear();
            self.first = entry.log_id.index;
        }
        self.bytes = self.bytes.saturating_add(weight(&entry));
        self.entries.push_back(entry);
    }

    /// Lets the oldest entries go while there are too many bytes, but none that only lives here:
    /// entries from `keep` on are not on the disk yet.
    pub(crate) fn evict(&mut self, keep: u64) {
        while self.bytes > self.bytes_max && self.first < keep {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(weight(&entry));
            self.first = self.first.saturating_add(1);
        }
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self.end().is_some_and(|end| end > index) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes = self.bytes.saturating_sub(weight(&entry));
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// The entry at `index`.
    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.first)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

fn weight(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(data) => data.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    payload.saturating_add(128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::log_id;
    use crate::types::EntryData;

    fn entry(index: u64) -> Entry {
        Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(EntryData(vec![0; 872].into())) }
    }

    #[test]
    fn old_entries_leave_when_they_are_on_the_disk_and_not_before() {
        let mut tail = Tail::new(3000);
        (5..15).for_each(|index| tail.push(entry(index)));
        tail.evict(7);
        assert_eq!((tail.get(6).is_some(), tail.get(7).is_some()), (false, true));
        tail.evict(100);
        assert_eq!((tail.get(11).is_some(), tail.get(12).is_some(), tail.get(15).is_some()), (false, true, false));
        tail.truncate(13);
        assert_eq!((tail.get(12).is_some(), tail.get(13).is_some()), (true, false));
        tail.push(entry(40));
        assert_eq!((tail.get(12).is_some(), tail.get(40).is_some()), (false, true));
    }
}

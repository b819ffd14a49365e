//! Keys of events: of all events of one key, one is on its way at a time, and the others wait behind it in their order.
//!
//! Invariant: an event of a key that is not held here is the oldest of its key that is not done.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::member::PendingEvent;
use crate::bus::delivery::order::OrderBy;
use crate::bus::read::stored_event::StoredEvent;

/// Most bytes of the records that wait behind others of their key. A single event may reach beyond.
const HELD_BYTES_MAX: usize = 16 << 20;

/// The events that wait for others of their key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What the key of an event is; `None`: events wait for no others.
    by: Option<OrderBy>,
    /// The events that wait, by position.
    held: BTreeMap<u64, PendingEvent>,
    /// The keys with an event on its way, and the positions that wait behind it.
    queues: HashMap<u64, VecDeque<u64>>,
    /// Bytes of the records in `held`.
    bytes: usize,
}

impl Keys {
    /// Orders events by their keys.
    pub(super) fn new(by: Option<OrderBy>) -> Self {
        Self { by, ..Self::default() }
    }

    /// The key of an event, if it has one.
    pub(super) fn of(&self, item: &StoredEvent) -> Option<u64> {
        self.by.as_ref()?.key(&item.event())
    }

    /// Whether no more may wait.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= HELD_BYTES_MAX
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The events that wait, by position.
    pub(super) const fn held(&self) -> &BTreeMap<u64, PendingEvent> {
        &self.held
    }

    /// An event comes in. It is returned when no other of its key is on its way: from now on this one is. Otherwise the
    /// event waits.
    pub(super) fn begin(&mut self, pending: PendingEvent) -> Option<PendingEvent> {
        let Some(key) = pending.key else { return Some(pending) };
        let Some(queue) = self.queues.get_mut(&key) else {
            self.queues.insert(key, VecDeque::new());
            return Some(pending);
        };
        let sequence = pending.item.sequence();
        queue.push_back(sequence);
        self.bytes = self.bytes.saturating_add(pending.item.record_len());
        self.held.insert(sequence, pending);
        None
    }

    /// The event of this key that was on its way is done. Returns the next one, which is on its way from now on.
    pub(super) fn done(&mut self, key: Option<u64>) -> Option<PendingEvent> {
        let key = key?;
        let Some(sequence) = self.queues.get_mut(&key).and_then(VecDeque::pop_front) else {
            self.queues.remove(&key);
            return None;
        };
        let next = self.held.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(next.item.record_len());
        Some(next)
    }
}

//! The effects of an entry, collected while its frames are applied.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use prost::Message as _;

use crate::namespace::Head;
use crate::rows::{self, Family, IndexRow, Writes};

/// The events that one entry appends to one namespace.
#[derive(Debug, Default)]
pub(super) struct NamespaceAppend {
    /// The index row, which grows with each frame for the namespace and is written after the last frame.
    pub(super) row: IndexRow,
    /// Sequence number of the first event of the row: the key of the row.
    pub(super) first: u64,
    /// Sequence number of the first event that the entry appended to the namespace. From feature level `TIMED` on one
    /// entry may have several rows for a namespace: events of its frames, and events that have waited.
    pub(super) entry_first: u64,
}

impl NamespaceAppend {
    /// The row that goes on with the next event of a namespace, of a frame or `made` by the rules. A row of the other
    /// kind is written, and a new row begins as `begin` says.
    pub(super) fn row_of<'a>(
        appends: &'a mut Appends,
        head: &Head,
        made: bool,
        begin: IndexRow,
        writes: &mut Writes,
    ) -> &'a mut IndexRow {
        let row = IndexRow { bytes_first: head.bytes_end, made, ..begin };
        let append = appends.entry(head.id).or_insert_with(|| Self {
            row: row.clone(),
            first: head.next,
            entry_first: head.next,
        });
        if append.row.made != made {
            append.write(head.id, writes);
            (append.row, append.first) = (row, head.next);
        }
        &mut append.row
    }

    /// Writes the row, which is complete.
    pub(super) fn write(&self, namespace: u32, writes: &mut Writes) {
        writes.put(Family::Index, rows::index_key(namespace, self.first), self.row.encode_to_vec());
    }
}

/// The appended events of an entry by number of the namespace: the newest index row of each namespace.
pub(super) type Appends = BTreeMap<u32, NamespaceAppend>;

/// The places into which a command puts its effects.
pub(super) struct Effects<'a> {
    /// Index of the entry that is being applied.
    pub(super) entry: u64,
    /// Changed rows.
    pub(super) writes: &'a mut Writes,
    /// Appended events: a command appends the roll events that describe it.
    pub(super) appends: &'a mut Appends,
}

/// Appends an event that no frame of the entry holds to a namespace: its record goes into a row. The caller saves the row
/// of the namespace.
pub(super) fn append_made(head: &mut Head, millis: u64, record: Vec<u8>, effects: &mut Effects<'_>) {
    let bytes = u64::try_from(record.len()).unwrap_or(u64::MAX);
    let begin = IndexRow { entry: effects.entry, millis, ..IndexRow::default() };
    let row = NamespaceAppend::row_of(effects.appends, head, true, begin, effects.writes);
    row.events = row.events.saturating_add(1);
    row.bytes = row.bytes.saturating_add(bytes);
    effects.writes.put(Family::Made, rows::index_key(head.id, head.next), record);
    head.next = head.next.saturating_add(1);
    head.bytes_end = head.bytes_end.saturating_add(bytes);
}

//! Chosen ids, from feature level `BOUNDED` on: an id is taken as long as its event is visible.
//!
//! Each id has two rows: one by id, and one by sequence number, which finds the ids of trimmed events without a search.
//! The rows of trimmed events are removed in bounded steps. A look-up compares sequence numbers, so the id of a trimmed
//! event is free even while its row exists.
//!
//! The id of an event that waits for its time has the row by id alone, with [`DelayedId::mark`] in place of a sequence
//! number and the due time behind.

use alloc::vec::Vec;

use crate::error::Repeated;
use crate::event::{Event, EventId};
use crate::namespace::Head;
use crate::rows::{self, Family, Rows, RowsError, Writes};
use crate::time::Timestamp;
use crate::timed::delayed::DelayedId;

/// Length of the value of a row of the first level: tells such rows apart.
pub(in crate::machine) const FIRST_LEVEL_BYTES: usize = 8;
/// Length of the sequence number and the creation time in the value of a row by id.
const TIME_BYTES: usize = 20;
/// The byte behind the sequence number in a migrated row of the first level, which has no creation time.
const CONVERTED: u8 = 1;

/// The result of a look-up of an id.
pub(in crate::machine) enum IdLookup {
    /// The id is free. `trimmed` is the sequence number of the trimmed event that had the id, if its rows still exist.
    Free { trimmed: Option<u64> },
    /// A visible event has the id.
    Taken(Repeated),
}

/// Key of the row by id.
pub(in crate::machine) fn row_key(namespace: u32, id: &str) -> Vec<u8> {
    rows::key(namespace, &[id.as_bytes()])
}

/// Value of the row by id.
fn encode(sequence: u64, created_at: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(TIME_BYTES + 8);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&created_at.seconds.to_be_bytes());
    out.extend_from_slice(&created_at.nanos.to_be_bytes());
    out
}

/// The sequence number and, unless the row is of the first level, the creation time of the event.
fn decode(value: &[u8]) -> Option<(u64, Option<Timestamp>)> {
    let (sequence, rest) = value.split_first_chunk()?;
    let time = rest.split_first_chunk().and_then(|(seconds, rest)| {
        let nanos = u32::from_be_bytes(*rest.first_chunk()?);
        Some(Timestamp { seconds: i64::from_be_bytes(*seconds), nanos })
    });
    Some((u64::from_be_bytes(*sequence), time))
}

/// Looks an id up. `entry_first` is the sequence number of the first event of the namespace in the present entry.
pub(in crate::machine) fn find(
    head: &Head,
    entry_first: u64,
    id: &str,
    row_key: &[u8],
    rows: &impl Rows,
    writes: &Writes,
) -> Result<IdLookup, RowsError> {
    let taken =
        |sequence, created_at| IdLookup::Taken(Repeated { sequence, id: id.into(), created_at, ..Repeated::default() });
    if let Some(value) = writes.get(rows, Family::Ids, row_key)? {
        let (sequence, created_at) = decode(&value).ok_or_else(|| RowsError::corrupt("ids"))?;
        if let Some(waiting) = waiting(head.id, sequence, &value) {
            return Ok(IdLookup::Taken(Repeated::of_waiting(waiting, created_at)));
        }
        if sequence >= head.first {
            return Ok(taken(sequence, created_at));
        }
        // The id of a trimmed event is free.
        return Ok(IdLookup::Free { trimmed: (value.len() > FIRST_LEVEL_BYTES).then_some(sequence) });
    }
    Ok(match EventId::parse(id) {
        // The id names an event of this very entry, which cannot be read yet. Only a client that guesses can choose
        // such an id: refuse.
        Some(own) if (entry_first..head.next).contains(&own.sequence) => IdLookup::Taken(Repeated::default()),
        Some(own)
            if (head.first..entry_first).contains(&own.sequence)
                && rows.event_id(head, own.sequence)?.as_deref() == Some(id) =>
        {
            taken(own.sequence, None)
        }
        _ => IdLookup::Free { trimmed: None },
    })
}

/// The waiting event whose chosen id has this value.
fn waiting(namespace: u32, sequence: u64, value: &[u8]) -> Option<DelayedId> {
    let due = value.get(TIME_BYTES..)?.first_chunk()?;
    let number = DelayedId::unmarked(sequence)?;
    Some(DelayedId { namespace, due: u64::from_be_bytes(*due), number })
}

/// Writes the row of the chosen id of an event that begins to wait. `trimmed` comes from [`find`].
pub(in crate::machine) fn insert_waiting(
    head: &mut Head,
    event: &Event<'_>,
    id: DelayedId,
    (row_key, trimmed): (Vec<u8>, Option<u64>),
    writes: &mut Writes,
) {
    delete_trimmed(head, trimmed, writes);
    let mut value = encode(id.mark(), event.created_at);
    value.extend_from_slice(&id.due.to_be_bytes());
    writes.put(Family::Ids, row_key, value);
}

/// Writes the two rows of the chosen id of an event that has waited and is being appended.
pub(in crate::machine) fn appended(head: &mut Head, event: &Event<'_>, sequence: u64, writes: &mut Writes) {
    insert(head, event, sequence, (row_key(head.id, event.id), None), writes);
}

/// Writes the two rows of the chosen id of an event that is being appended. `trimmed` comes from [`find`].
pub(in crate::machine) fn insert(
    head: &mut Head,
    event: &Event<'_>,
    sequence: u64,
    (row_key, trimmed): (Vec<u8>, Option<u64>),
    writes: &mut Writes,
) {
    delete_trimmed(head, trimmed, writes);
    writes.put(Family::Ids, row_key, encode(sequence, event.created_at));
    insert_order_row(head, sequence, event.id.as_bytes(), writes);
}

/// Deletes the row by sequence number of a trimmed event whose id another event gets.
fn delete_trimmed(head: &mut Head, trimmed: Option<u64>, writes: &mut Writes) {
    if let Some(trimmed) = trimmed {
        writes.delete(Family::Ids, rows::in_order(head.id, trimmed));
        let dedupe = head.dedupe.get_or_insert_default();
        dedupe.ids = dedupe.ids.saturating_sub(1);
    }
}

/// Adds the row by sequence number to an id of the first level.
pub(in crate::machine) fn add_order_row(head: &mut Head, sequence: u64, id: &[u8], writes: &mut Writes) {
    let mut value = sequence.to_be_bytes().to_vec();
    value.push(CONVERTED);
    writes.put(Family::Ids, rows::key(head.id, &[id]), value);
    insert_order_row(head, sequence, id, writes);
}

/// Writes the row by sequence number, and counts it.
fn insert_order_row(head: &mut Head, sequence: u64, id: &[u8], writes: &mut Writes) {
    let dedupe = head.dedupe.get_or_insert_default();
    if dedupe.ids == 0 {
        dedupe.ids_first = head.first;
    }
    dedupe.ids = dedupe.ids.saturating_add(1);
    writes.put(Family::Ids, rows::in_order(head.id, sequence), id.into());
}

/// Removes the ids of trimmed events, oldest first, and reads at most `limit` rows. Returns the number of rows that
/// were read.
pub(in crate::machine) fn remove_trimmed(
    head: &mut Head,
    limit: usize,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<usize, RowsError> {
    let Some(dedupe) = head.dedupe.as_mut().filter(|dedupe| dedupe.ids > 0 && dedupe.ids_first < head.first) else {
        return Ok(0);
    };
    let (from, to) = (rows::in_order(head.id, dedupe.ids_first), rows::in_order(head.id, head.first));
    let found = writes.scan(rows, Family::Ids, &from, &to, limit)?;
    dedupe.ids_first = head.first;
    if let Some((last, _)) = found.last().filter(|_| found.len() >= limit) {
        let sequence = rows::parse_in_order(last).and_then(|(_, sequence)| sequence);
        dedupe.ids_first = sequence.ok_or_else(|| RowsError::corrupt("ids"))?.saturating_add(1);
    }
    let count = found.len();
    for (row, id) in found {
        writes.delete(Family::Ids, rows::key(head.id, &[&id]));
        writes.delete(Family::Ids, row);
        dedupe.ids = dedupe.ids.saturating_sub(1);
    }
    Ok(count)
}

/// Whether trimmed events have rows to remove.
pub(in crate::machine) fn is_due(head: &Head) -> bool {
    head.dedupe.as_ref().is_some_and(|dedupe| dedupe.ids > 0 && dedupe.ids_first < head.first)
}

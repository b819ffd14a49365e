//! Chosen ids, from feature level `BOUNDED` on: they go with their events.
//!
//! Beside the row by id there is one by sequence number, so that what a trim takes away is found without a search.
//! The rows go in bounded steps; until then an id whose event is out of sight is free all the same.

use alloc::vec::Vec;

use crate::error::Repeated;
use crate::event::{Event, EventId};
use crate::namespace::Head;
use crate::rows::{self, Family, Rows, RowsError, Writes};
use crate::time::Timestamp;

/// Bytes of the value of a row that was written at the first level.
pub(in crate::machine) const FIRST_LEVEL_BYTES: usize = 8;
/// Behind the sequence number of an event of the first level that has got its row by sequence number.
const CONVERTED: u8 = 1;

/// What the rows say about an id.
pub(in crate::machine) enum Known {
    /// It may be chosen; `trimmed` is the sequence number of the event that had it, when there still is a row of it.
    Free { trimmed: Option<u64> },
    /// An event has it.
    Taken(Repeated),
}

/// Key of the row by id.
pub(in crate::machine) fn row_key(namespace: u32, id: &str) -> Vec<u8> {
    rows::key(namespace, &[id.as_bytes()])
}

fn encode(sequence: u64, created_at: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(20);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&created_at.seconds.to_be_bytes());
    out.extend_from_slice(&created_at.nanos.to_be_bytes());
    out
}

/// Sequence number and, for an event of this level, its time.
fn decode(value: &[u8]) -> Option<(u64, Option<Timestamp>)> {
    let (sequence, rest) = value.split_first_chunk()?;
    let time = rest.split_first_chunk().and_then(|(seconds, rest)| {
        let nanos = u32::from_be_bytes(*rest.first_chunk()?);
        Some(Timestamp { seconds: i64::from_be_bytes(*seconds), nanos })
    });
    Some((u64::from_be_bytes(*sequence), time))
}

/// Looks an id up; `entry_first` is the first event of the namespace in the entry that is being applied.
pub(in crate::machine) fn find(
    head: &Head,
    entry_first: u64,
    id: &str,
    row_key: &[u8],
    rows: &impl Rows,
    writes: &Writes,
) -> Result<Known, RowsError> {
    let taken = |sequence, created_at| Known::Taken(Repeated { position: 0, sequence, id: id.into(), created_at });
    if let Some(value) = writes.get(rows, Family::Ids, row_key)? {
        let (sequence, created_at) = decode(&value).ok_or_else(|| RowsError::corrupt("ids"))?;
        if sequence >= head.first {
            return Ok(taken(sequence, created_at));
        }
        // An event that retention took away gives its id free.
        return Ok(Known::Free { trimmed: (value.len() > FIRST_LEVEL_BYTES).then_some(sequence) });
    }
    Ok(match EventId::parse(id) {
        // Of this very entry: not readable yet, and only a guess could name it. Refuse.
        Some(own) if (entry_first..head.next).contains(&own.sequence) => Known::Taken(Repeated::default()),
        Some(own)
            if (head.first..entry_first).contains(&own.sequence)
                && rows.event_id(head, own.sequence)?.as_deref() == Some(id) =>
        {
            taken(own.sequence, None)
        }
        _ => Known::Free { trimmed: None },
    })
}

/// Remembers the chosen id of an event that is being appended.
pub(in crate::machine) fn remember(
    head: &mut Head,
    event: &Event<'_>,
    sequence: u64,
    (row_key, trimmed): (Vec<u8>, Option<u64>),
    writes: &mut Writes,
) {
    if let Some(trimmed) = trimmed {
        writes.delete(Family::Ids, rows::in_order(head.id, trimmed));
        let memory = head.remembered.get_or_insert_default();
        memory.ids = memory.ids.saturating_sub(1);
    }
    writes.put(Family::Ids, row_key, encode(sequence, event.created_at));
    put_in_order(head, sequence, event.id.as_bytes(), writes);
}

/// Gives the row of an event of the first level its counterpart.
pub(in crate::machine) fn convert(head: &mut Head, sequence: u64, id: &[u8], writes: &mut Writes) {
    let mut value = sequence.to_be_bytes().to_vec();
    value.push(CONVERTED);
    writes.put(Family::Ids, rows::key(head.id, &[id]), value);
    put_in_order(head, sequence, id, writes);
}

fn put_in_order(head: &mut Head, sequence: u64, id: &[u8], writes: &mut Writes) {
    let memory = head.remembered.get_or_insert_default();
    if memory.ids == 0 {
        memory.ids_first = head.first;
    }
    memory.ids = memory.ids.saturating_add(1);
    writes.put(Family::Ids, rows::in_order(head.id, sequence), id.into());
}

/// Forgets ids whose events are out of sight, oldest first: at most `limit` rows are looked at; how many were.
pub(in crate::machine) fn forget(
    head: &mut Head,
    limit: usize,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<usize, RowsError> {
    let Some(memory) = head.remembered.as_mut().filter(|memory| memory.ids > 0 && memory.ids_first < head.first) else {
        return Ok(0);
    };
    let (from, to) = (rows::in_order(head.id, memory.ids_first), rows::in_order(head.id, head.first));
    let found = writes.scan(rows, Family::Ids, &from, &to, limit)?;
    memory.ids_first = head.first;
    if let Some((last, _)) = found.last().filter(|_| found.len() >= limit) {
        let sequence = rows::parse_in_order(last).and_then(|(_, sequence)| sequence);
        memory.ids_first = sequence.ok_or_else(|| RowsError::corrupt("ids"))?.saturating_add(1);
    }
    let count = found.len();
    for (row, id) in found {
        writes.delete(Family::Ids, rows::key(head.id, &[&id]));
        writes.delete(Family::Ids, row);
        memory.ids = memory.ids.saturating_sub(1);
    }
    Ok(count)
}

/// Whether there are rows of events that are out of sight.
pub(in crate::machine) fn is_due(head: &Head) -> bool {
    head.remembered.as_ref().is_some_and(|memory| memory.ids > 0 && memory.ids_first < head.first)
}

//! Dedupe keys, from feature level `BOUNDED` on: each is remembered for a time, and at most so many.
//!
//! A key has two rows: one by its name, and one by its ordinal among the keys of its namespace. Time only grows, so
//! the ordinals are in the order of time. How far they reach is in the row of the namespace, which each publish
//! writes anyway: nothing is searched for. Look-ups decide by time; rows of expired keys go a few at a time.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::error::Repeated;
use crate::event::{Event, EventId};
use crate::limits;
use crate::namespace::{Head, Remembered};
use crate::rows::{self, Family, Rows, RowsError, Writes};
use crate::time::Timestamp;

/// Bytes of the value of a row that was written at the first level.
pub(in crate::machine) const FIRST_LEVEL_BYTES: usize = 8;
/// Expired keys, or oldest ones when there are too many, that go with each new one. More than one, so that what
/// has gathered gets less.
const FORGOTTEN_EACH: usize = 2;
/// What a key takes beside its two names, roughly.
const OVERHEAD_BYTES: usize = 96;

/// The time, as dedupe keys count it.
#[derive(Debug, Clone, Copy)]
pub(in crate::machine) struct Now {
    /// Time of the log, milliseconds since 1970.
    pub(in crate::machine) millis: u64,
    /// Until then keys count that were stored at the first level, which knew no time of keys.
    pub(in crate::machine) old_keys_until: u64,
}

/// What the rows say about a key.
pub(in crate::machine) enum Known {
    /// It may be used; `expired` is the ordinal of its row from the time before.
    Free { expired: Option<u64> },
    /// It was used within the window.
    Taken(Repeated),
}

/// Value of the row by name.
struct KeyRow {
    ordinal: u64,
    millis: u64,
    sequence: u64,
    created_at: Timestamp,
    /// Empty: it follows from time and sequence.
    id: String,
}

impl KeyRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.id.len().saturating_add(36));
        out.extend_from_slice(&self.ordinal.to_be_bytes());
        out.extend_from_slice(&self.millis.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.created_at.seconds.to_be_bytes());
        out.extend_from_slice(&self.created_at.nanos.to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (ordinal, rest) = value.split_first_chunk()?;
        let (millis, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (seconds, rest) = rest.split_first_chunk()?;
        let (nanos, id) = rest.split_first_chunk()?;
        Some(Self {
            ordinal: u64::from_be_bytes(*ordinal),
            millis: u64::from_be_bytes(*millis),
            sequence: u64::from_be_bytes(*sequence),
            created_at: Timestamp { seconds: i64::from_be_bytes(*seconds), nanos: u32::from_be_bytes(*nanos) },
            id: core::str::from_utf8(id).ok()?.into(),
        })
    }

    fn repeated(self) -> Repeated {
        let Self { sequence, created_at, id, .. } = self;
        let id = if id.is_empty() { EventId::new(created_at, sequence).to_string() } else { id };
        Repeated { position: 0, sequence, id, created_at: Some(created_at) }
    }
}

/// Key of the row by name.
pub(in crate::machine) fn row_key(namespace: u32, event: &Event<'_>) -> Vec<u8> {
    rows::key(namespace, &[event.subject.as_bytes(), &[0], event.key.as_bytes()])
}

/// What a key takes, given what its row by name has behind the number of the namespace.
fn cost(name: &[u8]) -> u64 {
    u64::try_from(name.len().saturating_mul(2).saturating_add(OVERHEAD_BYTES)).unwrap_or(u64::MAX)
}

/// Looks a key up.
pub(in crate::machine) fn find(
    head: &Head,
    now: Now,
    row_key: &[u8],
    rows: &impl Rows,
    writes: &Writes,
) -> Result<Known, RowsError> {
    let Some(value) = writes.get(rows, Family::Keys, row_key)? else { return Ok(Known::Free { expired: None }) };
    if value.len() == FIRST_LEVEL_BYTES {
        let taken = now.millis < now.old_keys_until;
        return Ok(if taken { Known::Taken(Repeated::default()) } else { Known::Free { expired: None } });
    }
    let row = KeyRow::decode(&value).ok_or_else(|| RowsError::corrupt("keys"))?;
    if row.millis.saturating_add(head.retention.dedupe_window()) <= now.millis {
        return Ok(Known::Free { expired: Some(row.ordinal) });
    }
    Ok(Known::Taken(row.repeated()))
}

/// The ordinal of a key that has a row, whether its time is over or not.
pub(in crate::machine) fn ordinal(row_key: &[u8], rows: &impl Rows, writes: &Writes) -> Result<Option<u64>, RowsError> {
    let value = writes.get(rows, Family::Keys, row_key)?.filter(|value| value.len() != FIRST_LEVEL_BYTES);
    let row = value.map(|value| KeyRow::decode(&value).ok_or_else(|| RowsError::corrupt("keys"))).transpose()?;
    Ok(row.map(|row| row.ordinal))
}

/// Remembers the key of an event that is being appended, and forgets a few of those that are over; `expired` is the
/// ordinal of the row by name that is there.
pub(in crate::machine) fn remember(
    head: &mut Head,
    millis: u64,
    event: &Event<'_>,
    sequence: u64,
    (row_key, expired): (Vec<u8>, Option<u64>),
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<(), RowsError> {
    forget_some(head, millis, 1, FORGOTTEN_EACH, rows, writes)?;
    let namespace = head.id;
    let memory = head.remembered.get_or_insert_default();
    let name = row_key.get(4..).unwrap_or_default().to_vec();
    if let Some(expired) = expired.filter(|ordinal| (memory.keys_first..memory.keys_next).contains(ordinal)) {
        // Its place stays empty: the row by name belongs to the new one.
        writes.delete(Family::KeyRing, rows::in_order(namespace, expired));
        memory.key_bytes = memory.key_bytes.saturating_sub(cost(&name));
    }
    if memory.keys() == 0 {
        memory.keys_since = millis;
    }
    let ordinal = memory.keys_next;
    memory.keys_next = ordinal.saturating_add(1);
    memory.key_bytes = memory.key_bytes.saturating_add(cost(&name));
    let row = KeyRow { ordinal, millis, sequence, created_at: event.created_at, id: event.id.into() };
    writes.put(Family::Keys, row_key, row.encode());
    let mut aged = millis.to_be_bytes().to_vec();
    aged.extend_from_slice(&name);
    writes.put(Family::KeyRing, rows::in_order(namespace, ordinal), aged);
    Ok(())
}

/// Forgets keys that are over, oldest first: at most `limit` rows are looked at; how many were.
pub(in crate::machine) fn forget(
    head: &mut Head,
    millis: u64,
    limit: usize,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<usize, RowsError> {
    forget_some(head, millis, 0, limit, rows, writes)
}

/// Whether there are too many keys when so many more come.
const fn is_crowded(memory: &Remembered, more: u64) -> bool {
    memory.keys().saturating_add(more) > limits::DEDUPE_KEYS_MAX || memory.key_bytes > limits::DEDUPE_KEY_BYTES_MAX
}

fn forget_some(
    head: &mut Head,
    millis: u64,
    more: u64,
    limit: usize,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<usize, RowsError> {
    let (namespace, window) = (head.id, head.retention.dedupe_window());
    let Some(memory) = &mut head.remembered else { return Ok(0) };
    let is_over = |since: u64| since.saturating_add(window) <= millis;
    let mut looked = 0_usize;
    while looked < limit && memory.keys() > 0 {
        let crowded = is_crowded(memory, more);
        if !crowded && !is_over(memory.keys_since) {
            break;
        }
        looked = looked.saturating_add(1);
        let oldest = rows::in_order(namespace, memory.keys_first);
        if let Some(aged) = writes.get(rows, Family::KeyRing, &oldest)? {
            let (since, name) = aged.split_first_chunk().ok_or_else(|| RowsError::corrupt("keyring"))?;
            memory.keys_since = u64::from_be_bytes(*since);
            let over = is_over(memory.keys_since);
            if !over && !crowded {
                break;
            }
            memory.keys_evicted = memory.keys_evicted.saturating_add(u64::from(!over));
            memory.key_bytes = memory.key_bytes.saturating_sub(cost(name));
            writes.delete(Family::Keys, rows::key(namespace, &[name]));
            writes.delete(Family::KeyRing, oldest);
        }
        memory.keys_first = memory.keys_first.saturating_add(1);
    }
    Ok(looked)
}

/// When the next key of a namespace may go, 0 for at once.
pub(in crate::machine) fn due(head: &Head) -> Option<u64> {
    let memory = head.remembered.as_ref().filter(|memory| memory.keys() > 0)?;
    Some(if is_crowded(memory, 0) { 0 } else { memory.keys_since.saturating_add(head.retention.dedupe_window()) })
}

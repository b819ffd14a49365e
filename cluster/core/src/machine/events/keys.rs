//! Dedupe keys, from feature level `BOUNDED` on: each key is remembered for a time, and a namespace remembers a bounded
//! number of keys.
//!
//! Each key has two rows: one by name (subject and key), and one by ordinal among the keys of the namespace. The time
//! of the log only grows, so the ordinals are in the order of time. The lowest and the next ordinal are in the row of
//! the namespace ([`DedupeState`]), which each publish writes anyway, so the oldest key is found without a search. A
//! look-up compares times, so an expired key is free even while its rows exist. Rows are removed a few at a time.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::error::Repeated;
use crate::event::{Event, EventId};
use crate::limits;
use crate::namespace::{DedupeState, Head};
use crate::rows::{self, Family, Rows, RowsError, Writes};
use crate::time::Timestamp;
use crate::timed::delayed::DelayedId;

/// Length of the value of a row of the first level: tells such rows apart.
pub(in crate::machine) const FIRST_LEVEL_BYTES: usize = 8;
/// Number of expired or surplus keys that each new key removes. More than one, so that a backlog shrinks.
const REMOVED_PER_INSERT: usize = 2;
/// Bytes that the two rows of a key take beside the two copies of its name, about.
const OVERHEAD_BYTES: usize = 96;

/// The times by which dedupe keys expire.
#[derive(Debug, Clone, Copy)]
pub(in crate::machine) struct KeyClock {
    /// Time of the log, milliseconds since 1970.
    pub(in crate::machine) millis: u64,
    /// When the keys of the first level expire: their rows have no time of their own.
    pub(in crate::machine) old_keys_until: u64,
}

/// The result of a look-up of a key.
pub(in crate::machine) enum KeyLookup {
    /// The key is free. `expired` is the ordinal of the expired key of the same name, if its rows still exist.
    Free { expired: Option<u64> },
    /// An event with the key was stored within the window.
    Taken(Repeated),
}

/// The value of the row by name: everything that the refusal of a repeated key needs.
struct KeyRow {
    /// Ordinal of the key: finds the other row.
    ordinal: u64,
    /// Time of the log when the key was stored, milliseconds since 1970: decides when the key expires.
    millis: u64,
    /// Sequence number of the event, or the mark of an event that waits: [`DelayedId::mark`].
    sequence: u64,
    /// When the event was created; makes the id when none was chosen.
    created_at: Timestamp,
    /// The chosen id of the event; empty when the id follows from time and sequence number. Of an event that waits, the
    /// id under which it waits.
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

    /// The stored event, for the refusal of a repeated key.
    fn repeated(self) -> Repeated {
        let Self { sequence, created_at, id, .. } = self;
        if DelayedId::unmarked(sequence).is_some() {
            return Repeated { id, created_at: Some(created_at), waits: true, ..Repeated::default() };
        }
        let id = if id.is_empty() { EventId::new(created_at, sequence).to_string() } else { id };
        Repeated { sequence, id, created_at: Some(created_at), ..Repeated::default() }
    }
}

/// Key of the row by name.
pub(in crate::machine) fn row_key(namespace: u32, event: &Event<'_>) -> Vec<u8> {
    rows::key(namespace, &[event.subject.as_bytes(), &[0], event.key.as_bytes()])
}

/// Bytes that the two rows of a key take, about. `name` is the key of the row by name without the number of the
/// namespace.
fn stored_bytes(name: &[u8]) -> u64 {
    u64::try_from(name.len().saturating_mul(2).saturating_add(OVERHEAD_BYTES)).unwrap_or(u64::MAX)
}

/// Looks a key up.
pub(in crate::machine) fn find(
    head: &Head,
    now: KeyClock,
    row_key: &[u8],
    rows: &impl Rows,
    writes: &Writes,
) -> Result<KeyLookup, RowsError> {
    let Some(value) = writes.get(rows, Family::Keys, row_key)? else { return Ok(KeyLookup::Free { expired: None }) };
    if value.len() == FIRST_LEVEL_BYTES {
        let taken = now.millis < now.old_keys_until;
        return Ok(if taken { KeyLookup::Taken(Repeated::default()) } else { KeyLookup::Free { expired: None } });
    }
    let row = KeyRow::decode(&value).ok_or_else(|| RowsError::corrupt("keys"))?;
    if row.millis.saturating_add(head.retention.dedupe_window()) <= now.millis {
        return Ok(KeyLookup::Free { expired: Some(row.ordinal) });
    }
    Ok(KeyLookup::Taken(row.repeated()))
}

/// The ordinal of a key, also of an expired one; `None` if the key has no rows.
pub(in crate::machine) fn ordinal(row_key: &[u8], rows: &impl Rows, writes: &Writes) -> Result<Option<u64>, RowsError> {
    let value = writes.get(rows, Family::Keys, row_key)?.filter(|value| value.len() != FIRST_LEVEL_BYTES);
    let row = value.map(|value| KeyRow::decode(&value).ok_or_else(|| RowsError::corrupt("keys"))).transpose()?;
    Ok(row.map(|row| row.ordinal))
}

/// Writes the two rows of the key of an event that is being appended, and removes a few expired keys. `expired` is the
/// ordinal of the key of the same name that the new one replaces.
pub(in crate::machine) fn insert(
    head: &mut Head,
    millis: u64,
    event: &Event<'_>,
    sequence: u64,
    (row_key, expired): (Vec<u8>, Option<u64>),
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<(), RowsError> {
    remove_oldest(head, millis, 1, REMOVED_PER_INSERT, rows, writes)?;
    let namespace = head.id;
    let dedupe = head.dedupe.get_or_insert_default();
    let name = row_key.get(4..).unwrap_or_default().to_vec();
    if let Some(expired) = expired.filter(|ordinal| (dedupe.keys_first..dedupe.keys_next).contains(ordinal)) {
        // The old ordinal stays empty, since the row by name now belongs to the new key.
        writes.delete(Family::KeyRing, rows::in_order(namespace, expired));
        dedupe.key_bytes = dedupe.key_bytes.saturating_sub(stored_bytes(&name));
    }
    if dedupe.keys() == 0 {
        dedupe.keys_since = millis;
    }
    let ordinal = dedupe.keys_next;
    dedupe.keys_next = ordinal.saturating_add(1);
    dedupe.key_bytes = dedupe.key_bytes.saturating_add(stored_bytes(&name));
    let row = KeyRow { ordinal, millis, sequence, created_at: event.created_at, id: event.id.into() };
    writes.put(Family::Keys, row_key, row.encode());
    let mut ring_row = millis.to_be_bytes().to_vec();
    ring_row.extend_from_slice(&name);
    writes.put(Family::KeyRing, rows::in_order(namespace, ordinal), ring_row);
    Ok(())
}

/// Writes the rows of the key of an event that begins to wait: see [`insert`].
pub(in crate::machine) fn insert_waiting(
    head: &mut Head,
    millis: u64,
    event: &Event<'_>,
    id: DelayedId,
    (row_key, expired): (Vec<u8>, Option<u64>),
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<(), RowsError> {
    let text = id.to_string();
    let event = Event { id: &text, ..*event };
    insert(head, millis, &event, id.mark(), (row_key, expired), rows, writes)
}

/// The row by name of the key of a waiting event, with its key; `None` when the key expired meanwhile and is gone, or
/// belongs to another event.
fn find_waiting(
    head: &Head,
    event: &Event<'_>,
    id: DelayedId,
    rows: &impl Rows,
    writes: &Writes,
) -> Result<Option<(Vec<u8>, KeyRow)>, RowsError> {
    let row_key = row_key(head.id, event);
    let Some(value) = writes.get(rows, Family::Keys, &row_key)? else { return Ok(None) };
    let row = KeyRow::decode(&value).ok_or_else(|| RowsError::corrupt("keys"))?;
    Ok((row.sequence == id.mark()).then_some((row_key, row)))
}

/// Enters the sequence number of an event that has waited and is being appended, if the key is still remembered. The
/// window of the key goes on: it began when the event was accepted.
pub(in crate::machine) fn appended(
    head: &Head,
    event: &Event<'_>,
    id: DelayedId,
    sequence: u64,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<(), RowsError> {
    if let Some((row_key, row)) = find_waiting(head, event, id, rows, writes)? {
        let row = KeyRow { sequence, id: event.id.into(), ..row };
        writes.put(Family::Keys, row_key, row.encode());
    }
    Ok(())
}

/// Forgets the key of a waiting event that is cancelled.
pub(in crate::machine) fn cancelled(
    head: &mut Head,
    event: &Event<'_>,
    id: DelayedId,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<(), RowsError> {
    let Some((row_key, row)) = find_waiting(head, event, id, rows, writes)? else { return Ok(()) };
    let namespace = head.id;
    let dedupe = head.dedupe.get_or_insert_default();
    // The ordinal stays empty, as when another event gets the key.
    writes.delete(Family::KeyRing, rows::in_order(namespace, row.ordinal));
    dedupe.key_bytes = dedupe.key_bytes.saturating_sub(stored_bytes(row_key.get(4..).unwrap_or_default()));
    writes.delete(Family::Keys, row_key);
    Ok(())
}

/// Removes expired and surplus keys, oldest first, and reads at most `limit` rows. Returns the number of rows that were
/// read.
pub(in crate::machine) fn remove_expired(
    head: &mut Head,
    millis: u64,
    limit: usize,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<usize, RowsError> {
    remove_oldest(head, millis, 0, limit, rows, writes)
}

/// Whether the namespace has too many keys, or too many bytes of keys, when `more` keys are added.
const fn is_over_limit(dedupe: &DedupeState, more: u64) -> bool {
    dedupe.keys().saturating_add(more) > limits::DEDUPE_KEYS_MAX || dedupe.key_bytes > limits::DEDUPE_KEY_BYTES_MAX
}

/// Removes the oldest keys while they are expired, or while the namespace has too many for `more` new ones.
fn remove_oldest(
    head: &mut Head,
    millis: u64,
    more: u64,
    limit: usize,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<usize, RowsError> {
    let (namespace, window) = (head.id, head.retention.dedupe_window());
    let Some(dedupe) = &mut head.dedupe else { return Ok(0) };
    let is_over = |since: u64| since.saturating_add(window) <= millis;
    let mut looked = 0_usize;
    while looked < limit && dedupe.keys() > 0 {
        let over_limit = is_over_limit(dedupe, more);
        if !over_limit && !is_over(dedupe.keys_since) {
            break;
        }
        looked = looked.saturating_add(1);
        let oldest = rows::in_order(namespace, dedupe.keys_first);
        if let Some(ring_row) = writes.get(rows, Family::KeyRing, &oldest)? {
            let (since, name) = ring_row.split_first_chunk().ok_or_else(|| RowsError::corrupt("keyring"))?;
            dedupe.keys_since = u64::from_be_bytes(*since);
            let over = is_over(dedupe.keys_since);
            if !over && !over_limit {
                break;
            }
            dedupe.keys_evicted = dedupe.keys_evicted.saturating_add(u64::from(!over));
            dedupe.key_bytes = dedupe.key_bytes.saturating_sub(stored_bytes(name));
            writes.delete(Family::Keys, rows::key(namespace, &[name]));
            writes.delete(Family::KeyRing, oldest);
        }
        dedupe.keys_first = dedupe.keys_first.saturating_add(1);
    }
    Ok(looked)
}

/// The time at which the next key of a namespace may be removed, milliseconds since 1970; 0 for at once.
pub(in crate::machine) fn due(head: &Head) -> Option<u64> {
    let dedupe = head.dedupe.as_ref().filter(|dedupe| dedupe.keys() > 0)?;
    Some(if is_over_limit(dedupe, 0) { 0 } else { dedupe.keys_since.saturating_add(head.retention.dedupe_window()) })
}

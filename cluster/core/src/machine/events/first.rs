//! Dedupe keys and chosen ids by the rules of the first feature level.
//!
//! The rules remember the newest thousand keys of each subject, without a time, and never forget an id. Nodes of
//! earlier releases do exactly this, so this file must not change.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::decode::{decode_all, is_own_id};
use crate::entry::Publish;
use crate::error::Refusal;
use crate::event::{Event, EventId};
use crate::limits;
use crate::namespace::Head;
use crate::rows::{self, Family, Rows, RowsError, Writes};

/// Decides whether all events of a frame may be appended, and if so stores their keys and ids.
///
/// The rows are written after the last check, so a refused publish never uses up a key.
pub(in crate::machine) fn admit(
    head: &Head,
    entry_first: u64,
    publish: &Publish<'_>,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<Result<(), Refusal>, RowsError> {
    let Some(events) = decode_all(publish) else {
        return Ok(Err(Refusal::Malformed("damaged record".into())));
    };
    let mut seen = BTreeSet::new();
    for (sequence, event) in (head.next..).zip(&events) {
        if !event.key.is_empty() {
            let key = dedupe_key(head.id, event);
            if !seen.insert((Family::Keys, key.clone())) || writes.get(rows, Family::Keys, &key)?.is_some() {
                return Ok(Err(Refusal::KeyProcessed(None)));
            }
        }
        if !event.id.is_empty() && !is_own_id(event, sequence) {
            let key = rows::key(head.id, &[event.id.as_bytes()]);
            if !seen.insert((Family::Ids, key.clone())) || id_exists(head, entry_first, event.id, &key, rows, writes)? {
                return Ok(Err(Refusal::EventIdExists(None)));
            }
        }
    }
    for (sequence, event) in (head.next..).zip(&events) {
        if !event.id.is_empty() && !is_own_id(event, sequence) {
            writes.put(Family::Ids, rows::key(head.id, &[event.id.as_bytes()]), sequence.to_be_bytes().into());
        }
        if !event.key.is_empty() {
            insert_key(head.id, event, rows, writes)?;
        }
    }
    Ok(Ok(()))
}

/// Whether a visible event of the namespace has the id.
fn id_exists(
    head: &Head,
    entry_first: u64,
    id: &str,
    key: &[u8],
    rows: &impl Rows,
    writes: &Writes,
) -> Result<bool, RowsError> {
    if let Some(value) = writes.get(rows, Family::Ids, key)? {
        // The id of a trimmed event is free.
        let sequence = value.first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        return Ok(sequence >= head.first);
    }
    match EventId::parse(id) {
        // The id names an event of this very entry, which cannot be read yet. Only a client that guesses can choose
        // such an id: refuse.
        Some(own) if (entry_first..head.next).contains(&own.sequence) => Ok(true),
        Some(own) if (head.first..entry_first).contains(&own.sequence) => {
            Ok(rows.event_id(head, own.sequence)?.as_deref() == Some(id))
        }
        _ => Ok(false),
    }
}

/// Key of the row of a dedupe key.
fn dedupe_key(namespace: u32, event: &Event<'_>) -> Vec<u8> {
    rows::key(namespace, &[event.subject.as_bytes(), &[0], event.key.as_bytes()])
}

/// Key of the row that holds the dedupe key of an ordinal; ordinal 0 holds both ends of the window.
fn ring_key(namespace: u32, event: &Event<'_>, ordinal: u64) -> Vec<u8> {
    rows::key(namespace, &[event.subject.as_bytes(), &[0], &ordinal.to_be_bytes()])
}

/// Adds a key to the window of its subject, and removes the oldest key when the window is full.
fn insert_key(namespace: u32, event: &Event<'_>, rows: &impl Rows, writes: &mut Writes) -> Result<(), RowsError> {
    let window_key = ring_key(namespace, event, 0);
    let (mut oldest, newest) = match writes.get(rows, Family::KeyRing, &window_key)?.as_deref().map(decode_window) {
        None => (1, 0),
        Some(Some(window)) => window,
        Some(None) => return Err(RowsError::corrupt("keyring")),
    };
    let newest = newest.saturating_add(1);
    writes.put(Family::Keys, dedupe_key(namespace, event), newest.to_be_bytes().into());
    writes.put(Family::KeyRing, ring_key(namespace, event, newest), event.key.as_bytes().into());
    while newest.saturating_sub(oldest) >= u64::from(limits::DEDUPE_KEYS_PER_SUBJECT) {
        let old_row = ring_key(namespace, event, oldest);
        if let Some(old) = writes.get(rows, Family::KeyRing, &old_row)? {
            writes.delete(Family::Keys, rows::key(namespace, &[event.subject.as_bytes(), &[0], &old]));
        }
        writes.delete(Family::KeyRing, old_row);
        oldest = oldest.saturating_add(1);
    }
    let mut value = oldest.to_be_bytes().to_vec();
    value.extend_from_slice(&newest.to_be_bytes());
    writes.put(Family::KeyRing, window_key, value);
    Ok(())
}

/// The oldest and the newest ordinal of a window.
fn decode_window(value: &[u8]) -> Option<(u64, u64)> {
    let (oldest, newest) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*oldest), u64::from_be_bytes(*newest.first_chunk()?)))
}

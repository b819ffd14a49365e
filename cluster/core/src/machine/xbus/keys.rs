//! The keys of the rows.
//!
//! Accounts, actors and pipelines are in [`Family::Meta`], which is read as a whole at the start. All others are in
//! [`Family::Ids`] under [`NAMESPACE`], a number that no namespace gets: a family of its own would keep releases before
//! the level from opening the store.

use alloc::vec::Vec;

use crate::rows::{self, Family, Rows, RowsError, Writes};
use crate::xbus::id::Id;

/// Stands where other rows of [`Family::Ids`] have the number of their namespace.
pub(in crate::machine) const NAMESPACE: u32 = u32::MAX - 1;
/// The family of all rows under [`NAMESPACE`].
pub(super) const FAMILY: Family = Family::Ids;

/// Beginning of the keys in [`Family::Meta`].
pub(super) const REVISION: &[u8] = b"xbus/revision";
pub(super) const LOGS: &[u8] = b"xbus/logs";
pub(super) const ACCOUNT: &[u8] = b"xbus/account/";
pub(super) const ACTOR: &[u8] = b"xbus/actor/";
pub(super) const PIPELINE: &[u8] = b"xbus/pipeline/";
pub(super) const SCHEMA: &[u8] = b"xbus/schema/";

/// What a row under [`NAMESPACE`] is about: the byte behind the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    /// An envelope that is coming: id. Read at the start.
    pub(super) const ENVELOPE_OPEN: Self = Self(1);
    /// A process that goes on: id. Read at the start.
    pub(super) const PROCESS_OPEN: Self = Self(2);
    /// An envelope that is complete or in error: id.
    pub(super) const ENVELOPE: Self = Self(0x20);
    /// An event of an envelope: id of the envelope, id of the event.
    pub(super) const EVENT: Self = Self(0x21);
    /// Where a fragment is in the book: id of the envelope, number of the fragment.
    pub(super) const FRAGMENT: Self = Self(0x22);
    /// An envelope by the time at which it became complete: millis, id.
    pub(super) const ENVELOPE_ENDED: Self = Self(0x23);
    /// A process that has ended: id.
    pub(super) const PROCESS: Self = Self(0x30);
    /// A process that has ended, by the time of that: millis, id.
    pub(super) const PROCESS_ENDED: Self = Self(0x31);
    /// A log entry: id of the process or envelope, millis, ordinal.
    pub(super) const LOG: Self = Self(0x40);
    /// A log entry by its time: millis, key of the entry.
    pub(super) const LOG_BY_TIME: Self = Self(0x41);
    /// What an operator makes of a process: id.
    pub(super) const ATTENTION: Self = Self(0x50);
}

/// From so many rows on they are deleted as a range.
const SINGLE_MAX: usize = 16;
/// The first kind that is not read at the start.
const NOT_OPEN: u8 = 0x10;

/// The key of a row.
pub(super) fn key(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = rows::key(NAMESPACE, &[&[kind.0]]);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// The key of the row of something with an id.
pub(super) fn of(kind: Kind, id: Id) -> Vec<u8> {
    key(kind, &[id.as_bytes()])
}

/// Keys of this kind that begin with `parts`: from the first key to the key behind the last one.
pub(super) fn bounds(kind: Kind, parts: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let from = key(kind, parts);
    let mut to = from.clone();
    // The byte of the kind is below 0xff, so the loop always ends.
    while let Some(last) = to.pop() {
        if let Some(next) = last.checked_add(1) {
            to.push(next);
            break;
        }
    }
    (from, to)
}

/// Deletes the rows of a kind that belong to an id. Few rows go one by one: a deleted range stays in the store, and
/// later reads have to pass by it.
pub(super) fn delete_all(kind: Kind, id: Id, rows: &impl Rows, writes: &mut Writes) -> Result<(), RowsError> {
    let (from, to) = bounds(kind, &[id.as_bytes()]);
    let found = writes.scan(rows, FAMILY, &from, &to, SINGLE_MAX)?;
    if found.len() < SINGLE_MAX {
        found.into_iter().for_each(|(key, _)| writes.delete(FAMILY, key));
    } else {
        writes.delete_range(FAMILY, from, to);
    }
    Ok(())
}

/// Keys of the rows that are read at the start.
#[must_use]
pub(in crate::machine) fn open_bounds() -> (Vec<u8>, Vec<u8>) {
    (rows::key(NAMESPACE, &[]), rows::key(NAMESPACE, &[&[NOT_OPEN]]))
}

/// The kind and the rest of the key of a row that is read at the start.
pub(super) fn parse_open(key: &[u8]) -> Option<(Kind, &[u8])> {
    let (namespace, rest) = key.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let kind = [Kind::ENVELOPE_OPEN, Kind::PROCESS_OPEN].into_iter().find(|known| known.0 == *kind)?;
    (u32::from_be_bytes(*namespace) == NAMESPACE).then_some((kind, rest))
}

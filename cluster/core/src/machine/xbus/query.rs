//! Where the rows are that are not in memory, and what they say: envelopes and processes that have ended, events and
//! fragments of envelopes, log entries, and what operators make of processes.
//!
//! All rows are in [`Family::Ids`](crate::rows::Family::Ids). This file has their keys and decodes them; the store is read by the caller.
//! A caller that looks for something looks in memory first: a row that is not found there is on the disk by then, or nowhere.

use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{self, Kind};
use crate::rows::RowsError;
use crate::xbus::change::{Attention, LogChange};
use crate::xbus::envelope::row::{EnvelopeRow, EventRow};
use crate::xbus::id::Id;
use crate::xbus::process::row::ProcessRow;

/// Bytes of number and kind before the rest of a key.
const HEAD: usize = 5;

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Vec<u8>,
    /// The key behind the last one.
    pub to: Vec<u8>,
}

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When the entry was stored, milliseconds since 1970.
    pub millis: u64,
    /// Its ordinal: of two entries of one time the newer one has the larger ordinal.
    pub ordinal: u64,
    /// What the actor said.
    pub log: LogChange,
}

fn corrupt() -> RowsError {
    RowsError::corrupt("xbus")
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

/// The key of a process that has ended.
#[must_use]
pub fn process_key(id: Id) -> Vec<u8> {
    keys::of(Kind::PROCESS, id)
}

/// A process that has ended.
///
/// # Errors
/// The row is damaged.
pub fn process(value: &[u8]) -> Result<ProcessRow, RowsError> {
    ProcessRow::decode(value).map_err(|_| corrupt())
}

/// The keys of processes that have ended, in the order of that time: from `from` on, milliseconds since 1970, up to what
/// ended before `before`, or before this process at that time.
#[must_use]
pub fn processes_ended(from: u64, before: (u64, Id)) -> KeyRange {
    let key = |millis: u64, id: Id| keys::key(Kind::PROCESS_ENDED, &[&millis.to_be_bytes(), id.as_bytes()]);
    KeyRange { from: key(from, Id::default()), to: key(before.0, before.1) }
}

/// When a process ended and which, by a key of [`processes_ended`].
///
/// # Errors
/// The key is damaged.
pub fn process_ended(key: &[u8]) -> Result<(u64, Id), RowsError> {
    let rest = key.get(HEAD..).ok_or_else(corrupt)?;
    let (millis, id) = rest.split_at_checked(8).ok_or_else(corrupt)?;
    let id = Id::from_slice(id).map_err(|_| corrupt())?;
    Ok((number(Some(millis)).ok_or_else(corrupt)?, id))
}

/// The key of an envelope that is complete or in error.
#[must_use]
pub fn envelope_key(id: Id) -> Vec<u8> {
    keys::of(Kind::ENVELOPE, id)
}

/// An envelope that is complete or in error.
///
/// # Errors
/// The row is damaged.
pub fn envelope(value: &[u8]) -> Result<EnvelopeRow, RowsError> {
    EnvelopeRow::decode(value).map_err(|_| corrupt())
}

/// The keys of the events of an envelope, by their ids.
#[must_use]
pub fn events(envelope: Id) -> KeyRange {
    let (from, to) = keys::bounds(Kind::EVENT, &[envelope.as_bytes()]);
    KeyRange { from, to }
}

/// An event of an envelope.
///
/// # Errors
/// The row is damaged.
pub fn event(value: &[u8]) -> Result<EventRow, RowsError> {
    EventRow::decode(value).map_err(|_| corrupt())
}

/// The keys of the fragments of an envelope, from this number on; the first fragment has number 0.
#[must_use]
pub fn fragments(envelope: Id, from: u32) -> KeyRange {
    let (_, to) = keys::bounds(Kind::FRAGMENT, &[envelope.as_bytes()]);
    KeyRange { from: keys::key(Kind::FRAGMENT, &[envelope.as_bytes(), &from.to_be_bytes()]), to }
}

/// The number of a fragment, and the sequence number of the event of the book that has its items.
///
/// # Errors
/// The row is damaged.
pub fn fragment(key: &[u8], value: &[u8]) -> Result<(u32, u64), RowsError> {
    let at = key.get(HEAD.saturating_add(16)..).and_then(|at| at.try_into().ok()).map(u32::from_be_bytes);
    at.zip(number(Some(value))).ok_or_else(corrupt)
}

/// The keys of the log entries of a process or envelope, oldest first: those behind the entry of this time and ordinal,
/// or all of them.
#[must_use]
pub fn logs(about: Id, behind: Option<(u64, u64)>) -> KeyRange {
    let (all, to) = keys::bounds(Kind::LOG, &[about.as_bytes()]);
    let from = behind.map(|(millis, ordinal)| {
        let parts: [&[u8]; 3] = [about.as_bytes(), &millis.to_be_bytes(), &ordinal.saturating_add(1).to_be_bytes()];
        keys::key(Kind::LOG, &parts)
    });
    KeyRange { from: from.unwrap_or(all), to }
}

/// A log entry.
///
/// # Errors
/// The row is damaged.
pub fn log(key: &[u8], value: &[u8]) -> Result<LogEntry, RowsError> {
    let rest = key.get(HEAD.saturating_add(16)..).ok_or_else(corrupt)?;
    let (millis, ordinal) = rest.split_at_checked(8).ok_or_else(corrupt)?;
    let (millis, ordinal) = number(Some(millis)).zip(number(Some(ordinal))).ok_or_else(corrupt)?;
    Ok(LogEntry { millis, ordinal, log: LogChange::decode(value).map_err(|_| corrupt())? })
}

/// The key of what operators make of a process.
#[must_use]
pub fn attention_key(process: Id) -> Vec<u8> {
    keys::of(Kind::ATTENTION, process)
}

/// The keys of what operators make of processes, by the ids of these: those behind this process, or all.
#[must_use]
pub fn attentions(behind: Option<Id>) -> KeyRange {
    let (all, to) = keys::bounds(Kind::ATTENTION, &[]);
    // The key of the id with one more byte is the first one behind it.
    let from = behind.map(|id| keys::key(Kind::ATTENTION, &[id.as_bytes(), &[0]]));
    KeyRange { from: from.unwrap_or(all), to }
}

/// What operators make of a process.
///
/// # Errors
/// The row is damaged.
pub fn attention(value: &[u8]) -> Result<Attention, RowsError> {
    Attention::decode(value).map_err(|_| corrupt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Id = Id::new([1; 16]);
    const TWO: Id = Id::new([2; 16]);

    fn has(range: &KeyRange, key: &[u8]) -> bool {
        key >= range.from.as_slice() && key < range.to.as_slice()
    }

    #[test]
    fn processes_that_have_ended_are_in_the_order_of_their_end() {
        let key = |millis: u64, id: Id| keys::key(Kind::PROCESS_ENDED, &[&millis.to_be_bytes(), id.as_bytes()]);
        let range = processes_ended(5, (9, TWO));
        assert!(has(&range, &key(5, Id::default())) && has(&range, &key(9, ONE)));
        assert!(!has(&range, &key(4, TWO)) && !has(&range, &key(9, TWO)) && !has(&range, &key(10, ONE)));
        assert_eq!(process_ended(&key(7, ONE)), Ok((7, ONE)));
        assert!(process_ended(&key(7, ONE)[..20]).is_err());
    }

    #[test]
    fn fragments_are_found_from_a_number_on_in_their_own_envelope_alone() {
        let key = |id: Id, number: u32| keys::key(Kind::FRAGMENT, &[id.as_bytes(), &number.to_be_bytes()]);
        let range = fragments(ONE, 3);
        assert!(has(&range, &key(ONE, 3)) && has(&range, &key(ONE, u32::MAX)));
        assert!(!has(&range, &key(ONE, 2)) && !has(&range, &key(TWO, 3)));
        assert_eq!(fragment(&key(ONE, 3), &77_u64.to_be_bytes()), Ok((3, 77)));
        assert!(fragment(&key(ONE, 3), &[0; 7]).is_err());
    }

    #[test]
    fn log_entries_go_on_behind_the_last_one_of_a_page() {
        let key = |millis: u64, ordinal: u64| {
            keys::key(Kind::LOG, &[ONE.as_bytes(), &millis.to_be_bytes(), &ordinal.to_be_bytes()])
        };
        assert!(has(&logs(ONE, None), &key(0, 0)) && !has(&logs(TWO, None), &key(0, 0)));
        let rest = logs(ONE, Some((7, 2)));
        assert!(!has(&rest, &key(7, 2)) && has(&rest, &key(7, 3)) && has(&rest, &key(8, 0)));
        let change = LogChange { node: "archive".into(), ..LogChange::default() };
        let entry = log(&key(7, 2), &change.encode_to_vec());
        assert_eq!(entry, Ok(LogEntry { millis: 7, ordinal: 2, log: change }));
    }

    #[test]
    fn what_operators_make_of_processes_goes_on_behind_a_process() {
        let rest = attentions(Some(ONE));
        assert!(!has(&rest, &attention_key(ONE)) && has(&rest, &attention_key(TWO)));
        assert!(has(&attentions(None), &attention_key(ONE)));
    }
}

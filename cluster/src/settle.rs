//! Settling: older events move from the raft log into per-namespace compressed blocks.
//!
//! Order of a step: blocks to the ledger (on the disk) -> index rows dropped -> state
//! flushed -> log purged. A crash between any two leaves an event in both places or
//! in the log, never in neither; readers ask the ledger first.

use std::ops::ControlFlow;
use std::time::Duration;

use prost::Message as _;
use rocksdb::{Direction, IteratorMode, ReadOptions, WriteBatch};
use rollbook_core::event::Event;
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, IndexRow, bounds, index_key, index_sequence};

use crate::error::ReadError;
use crate::ledger::{Block, BlockBuilder};
use crate::lock::lock;
use crate::log::LogStore;
use crate::records;
use crate::state::State;
use crate::store::{family, unlogged};

/// Compressed blocks of a namespace go to the ledger when they have about this many bytes.
const STORE_BYTES: usize = 4 << 20;
/// Settles everything that is applied now.
pub(crate) fn everything(state: &State, log: &LogStore) -> Result<(), ReadError> {
    let limit = *state.applied().borrow();
    settle(state, log, limit, Duration::ZERO)
}

/// Moves the events of all entries below `limit` to the ledger.
pub(crate) fn settle(state: &State, log: &LogStore, limit: u64, rest: Duration) -> Result<(), ReadError> {
    let _settling = lock(&state.settling);
    let heads: Vec<Head> = state.machine().heads().cloned().collect();
    let mut batch = WriteBatch::default();
    for head in &heads {
        if state.ledger().settled(head.id) < head.next {
            settle_namespace(state, log, head, limit, rest)?;
        }
        let db = state.db();
        let (from, _) = bounds(head.id);
        let to = index_key(head.id, state.ledger().settled(head.id));
        if from < to {
            for of in [Family::Index, Family::Made] {
                batch.delete_range_cf(family(&db, of.name())?, &from, &to);
            }
        }
    }
    state.db().write_opt(batch, &unlogged())?;
    Ok(())
}

fn settle_namespace(state: &State, log: &LogStore, head: &Head, limit: u64, rest: Duration) -> Result<(), ReadError> {
    let ledger = state.ledger();
    let start = ledger.settled(head.id).max(head.first);
    let mut builder = if start == ledger.settled(head.id) { ledger.reopen_last(head.id)? } else { None };
    let mut blocks: Vec<Block> = Vec::new();
    let mut bytes = 0_usize;
    for (first, row) in unsettled(state, head, start)? {
        if row.entry >= limit {
            break;
        }
        let (mut sequence, mut position) = (first, row.bytes_first);
        let found = records::visit(state, log, head, first, &row, &mut |_, records| {
            let mut records = records;
            while let Some((event, used)) = Event::decode(records) {
                let (record, after) = records.split_at(used);
                if sequence >= start {
                    let block = builder.get_or_insert_with(|| BlockBuilder::new(sequence, position));
                    block.push(event.subject, record, row.millis);
                    if block.is_full()
                        && let Some(full) = builder.take()
                    {
                        blocks.push(full.finish()?);
                        bytes = bytes.saturating_add(crate::ledger::BLOCK_BYTES);
                        std::thread::sleep(rest);
                    }
                }
                sequence = sequence.saturating_add(1);
                position = position.saturating_add(u64::try_from(used).unwrap_or_default());
                records = after;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if !found {
            return Err(ReadError(format!("entry {} of the log is missing", row.entry)));
        }
        if bytes >= STORE_BYTES.saturating_mul(4) {
            ledger.store(head.id, &blocks)?;
            blocks.clear();
            bytes = 0;
        }
    }
    if let Some(last) = builder.filter(|last| !last.is_empty()) {
        blocks.push(last.finish()?);
    }
    ledger.store(head.id, &blocks)
}

/// The index rows of a namespace that hold events from `start` on.
fn unsettled(state: &State, head: &Head, start: u64) -> Result<Vec<(u64, IndexRow)>, ReadError> {
    let db = state.db();
    let column = family(&db, Family::Index.name())?;
    let decode = |key: &[u8], value: &[u8]| {
        let first = index_sequence(head.id, key).ok_or_else(|| ReadError("index key".to_owned()))?;
        Ok((first, IndexRow::decode(value).map_err(|e| ReadError(format!("index row: {e}")))?))
    };
    let mut options = ReadOptions::default();
    let (lower, upper) = bounds(head.id);
    options.set_iterate_lower_bound(lower);
    options.set_iterate_upper_bound(upper);
    let from = index_key(head.id, start);
    // The row before may reach over `start`.
    let before = db.iterator_cf_opt(column, options, IteratorMode::From(&from, Direction::Reverse)).next();
    let from = match before.transpose()? {
        Some((key, value)) => {
            let (first, row) = decode(&key, &value)?;
            if first.saturating_add(row.events) > start { key.to_vec() } else { from }
        }
        None => from,
    };
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(bounds(head.id).1);
    let rows = db.iterator_cf_opt(column, options, IteratorMode::From(&from, Direction::Forward));
    rows.map(|row| row.map_err(ReadError::from).and_then(|(key, value)| decode(&key, &value))).collect()
}

/// The oldest event that stays when those that are too old, or too many bytes or events, go;
/// and its position on the byte axis. `None` when all stay.
pub(crate) fn trim_point(state: &State, head: &Head, now: u64) -> Result<Option<(u64, u64)>, ReadError> {
    let keep = head.retention;
    let by_count = if keep.events_max == 0 { 0 } else { head.next.saturating_sub(keep.events_max) };
    let old = if keep.age_ms_max == 0 { 0 } else { now.saturating_sub(keep.age_ms_max) };
    let excess = if keep.bytes_max == 0 { 0 } else { head.bytes_end.saturating_sub(keep.bytes_max) };
    let (mut first, mut position) = (head.first, head.bytes_first);
    let mut advance = |start: u64, events: u64, millis: u64, bytes_first: u64, bytes: u64| {
        let end = start.saturating_add(events);
        if end <= by_count || millis < old || bytes_first.saturating_add(bytes) <= excess {
            (first, position) = (end.max(first), bytes_first.saturating_add(bytes).max(position));
            return true;
        }
        if by_count > start {
            // Inside a block: its records are taken to be of equal size.
            let share = bytes.saturating_mul(by_count.saturating_sub(start)).checked_div(events).unwrap_or(0);
            (first, position) = (by_count.max(first), bytes_first.saturating_add(share).max(position));
        }
        false
    };
    let ledger = state.ledger();
    let mut going = true;
    let mut sequence = head.first;
    while going && let Some(found) = ledger.seek(head.id, sequence, None)? {
        going =
            advance(found.first, found.meta.events, found.meta.millis, found.meta.bytes_first, found.meta.raw_bytes);
        sequence = found.first.saturating_add(found.meta.events);
    }
    if going {
        for (start, row) in unsettled(state, head, sequence.max(ledger.settled(head.id)))? {
            if !advance(start, row.events, row.millis, row.bytes_first, row.bytes) {
                break;
            }
        }
    }
    Ok((first > head.first).then_some((first, position)))
}

//! Settling: older events move from the raft log into per-namespace compressed blocks.
//!
//! Order of a step: blocks to the ledger (on the disk) -> index rows dropped -> state
//! flushed -> log purged. A crash between any two leaves an event in both places or
//! in the log, never in neither; readers ask the ledger first.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use openraft::impls::EntryPayload;
use prost::Message as _;
use rocksdb::{Direction, IteratorMode, ReadOptions, WriteBatch};
use rollbook_core::entry::Entry;
use rollbook_core::event::Event;
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, IndexRow, bounds, index_key, index_sequence};
use tokio_util::sync::CancellationToken;

use crate::error::ReadError;
use crate::ledger::{Block, BlockBuilder};
use crate::log::LogStore;
use crate::state::State;
use crate::store::{family, unlogged};
use crate::types::Raft;

/// A step begins when this many bytes of entries wait, or the oldest waits this long.
const STEP_BYTES: u64 = 8 << 20;
const STEP_AGE: Duration = Duration::from_secs(5);
/// The log is purged when this many bytes were settled, or when nothing comes any more.
const PURGE_BYTES: u64 = 64 << 20;
/// Compressed blocks of a namespace go to the ledger when they have about this many bytes.
const STORE_BYTES: usize = 4 << 20;
/// With less than this waiting, the settler rests between blocks and leaves the cores to others.
const REST_BELOW_BYTES: u64 = 32 << 20;
const REST: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(200);

/// The background task of a node. Runs on a thread of its own until cancelled.
pub(crate) struct Settler {
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    pub(crate) raft: Raft,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) stop: CancellationToken,
}

#[derive(Default)]
struct Done {
    /// Bytes applied when the last step began, and when the log was last purged.
    stepped: u64,
    purged: u64,
    /// Entries below this are settled in every namespace.
    limit: u64,
    /// What was asked to be purged last.
    asked: u64,
    /// First visible event of each namespace when its blocks were last forgotten.
    forgotten: HashMap<u32, u64>,
    /// The memtables of the log were emptied after the last purge.
    idle: bool,
}

impl Settler {
    /// Settles until the token is cancelled.
    pub(crate) fn run(self) {
        // Below everything that a client waits for.
        if let Err(error) = rustix::process::nice(10) {
            tracing::debug!(%error, "the settler keeps its priority");
        }
        let mut done = Done { stepped: self.state.applied_bytes(), ..Done::default() };
        let mut since = Instant::now();
        while !self.stop.is_cancelled() {
            std::thread::sleep(TICK);
            let waiting = self.state.applied_bytes().saturating_sub(done.stepped);
            let aged = since.elapsed() >= STEP_AGE;
            if waiting < STEP_BYTES && !aged {
                continue;
            }
            since = Instant::now();
            if let Err(error) = self.step(&mut done, waiting) {
                tracing::error!(%error, "settling failed; it will be tried again");
            }
        }
    }

    fn step(&self, done: &mut Done, waiting: u64) -> Result<(), ReadError> {
        let applied_bytes = self.state.applied_bytes();
        let limit = *self.state.applied().borrow();
        let rest = if waiting < REST_BELOW_BYTES { REST } else { Duration::ZERO };
        if limit > done.limit {
            settle(&self.state, &self.log, limit, rest)?;
            done.limit = limit;
            done.idle = false;
        }
        done.stepped = applied_bytes;
        self.forget(done)?;
        let due = applied_bytes.saturating_sub(done.purged) >= PURGE_BYTES || waiting < STEP_BYTES;
        if due && done.asked < done.limit {
            done.purged = applied_bytes;
            self.purge(done.limit)?;
            done.asked = done.limit;
        } else if due && !done.idle {
            done.idle = true;
            self.runtime.block_on(self.log.flush()).map_err(|e| ReadError(e.to_string()))?;
        }
        Ok(())
    }

    /// Lets openraft purge the log below `limit`: it wants a snapshot announced first.
    fn purge(&self, limit: u64) -> Result<(), ReadError> {
        let Some(last) = limit.checked_sub(1) else { return Ok(()) };
        self.state.flush()?;
        self.runtime.block_on(async {
            let failed = |error: &dyn std::fmt::Display| ReadError(format!("raft: {error}"));
            self.raft.trigger().snapshot().await.map_err(|e| failed(&e))?;
            let wait = self.raft.wait(Some(Duration::from_secs(5)));
            let reached = |metrics: &openraft::RaftMetrics<crate::types::Types>| {
                metrics.snapshot.as_ref().is_some_and(|id| id.index >= last)
            };
            if let Err(error) = wait.metrics(reached, "snapshot reaches the settled entry").await {
                tracing::debug!(%error, "the log is purged in a later step");
            }
            self.raft.trigger().purge_log(last).await.map_err(|e| failed(&e))
        })
    }

    /// Gives back the disk of what retention or deletion took out of sight.
    fn forget(&self, done: &mut Done) -> Result<(), ReadError> {
        let heads: Vec<(u32, u64)> = self.state.machine().heads().map(|head| (head.id, head.first)).collect();
        let _settling = self.state.settling.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, first) in heads {
            if first > 1 && done.forgotten.get(&namespace) != Some(&first) {
                self.state.ledger().forget(namespace, first, false)?;
                done.forgotten.insert(namespace, first);
            }
        }
        Ok(())
    }
}

/// Settles everything that is applied now.
pub(crate) fn everything(state: &State, log: &LogStore) -> Result<(), ReadError> {
    let limit = *state.applied().borrow();
    settle(state, log, limit, Duration::ZERO)
}

/// Moves the events of all entries below `limit` to the ledger.
fn settle(state: &State, log: &LogStore, limit: u64, rest: Duration) -> Result<(), ReadError> {
    let _settling = state.settling.lock().unwrap_or_else(PoisonError::into_inner);
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
            batch.delete_range_cf(family(&db, Family::Index.name())?, from, to);
        }
    }
    state.db().write_opt(batch, &unlogged())?;
    Ok(())
}

fn settle_namespace(
    state: &State,
    log: &LogStore,
    head: &Head,
    limit: u64,
    rest: Duration,
) -> Result<(), ReadError> {
    let ledger = state.ledger();
    let start = ledger.settled(head.id).max(head.first);
    let mut builder = if start == ledger.settled(head.id) { ledger.reopen_last(head.id)? } else { None };
    let mut blocks: Vec<Block> = Vec::new();
    let mut bytes = 0_usize;
    for (first, row) in unsettled(state, head, start)? {
        if row.entry >= limit {
            break;
        }
        let Some(EntryPayload::Normal(data)) = log.entry(row.entry)?.map(|entry| entry.payload) else {
            return Err(ReadError(format!("entry {} of the log is missing", row.entry)));
        };
        let entry = Entry::parse_trusted(&data.0).map_err(|e| ReadError(format!("entry {}: {e}", row.entry)))?;
        let (mut sequence, mut position) = (first, row.bytes_first);
        for publish in row.frames(&entry, &head.name) {
            let mut records = publish.records;
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
        going = advance(found.first, found.meta.events, found.meta.millis, found.meta.bytes_first, found.meta.raw_bytes);
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

//! Settling: older events move from the raft log into per-namespace compressed blocks.
//!
//! Order of a step: blocks are synced in the ledger -> index rows are dropped -> the state is flushed -> blocks of
//! trimmed events are deleted -> the log is purged. After a crash between two of these an event is in both places or in
//! the log, never in neither; readers ask the ledger first. The types enforce the order: only [`Settled`] can be
//! flushed, and only [`Flushed`] can delete blocks or purge the log.
//!
//! The cost of a step follows the number of changes: a step reads only namespaces that have new events, and works in
//! strides, so that no reader or writer waits long for the lock.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rocksdb::{DB, Direction, IteratorMode, ReadOptions, WriteBatch};
use rollbook_core::event::Event;
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, IndexRow, bounds, index_key, index_sequence};

use crate::crash;
use crate::error::ReadError;
use crate::ledger::block::BlockBuilder;
use crate::ledger::ledger::Run;
use crate::ledger::records;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::state::state::{Databases, State};
use crate::store::layout::{family, unlogged};

/// Most namespaces and bytes of records in one stride.
const STRIDE_NAMESPACES: usize = 64;
const STRIDE_BYTES: usize = if cfg!(test) { 1 << 20 } else { 8 << 20 };
/// More rows of a namespace than this are dropped as a range: a mark of a range makes all later reads a little slower,
/// so few rows are better dropped one by one.
const KEYS_MAX: usize = 64;
/// Most namespaces whose blocks are forgotten under one hold of the lock.
const FORGET_NAMESPACES: usize = 64;
/// Bytes that an index row counts for in the limit of a stride.
const ROW_BYTES: usize = 64;
/// Longest rest between two strides.
const REST_MAX: Duration = Duration::from_millis(100);

/// Proof that the events of all entries below a limit are in the ledger, on the disk.
pub(crate) struct Settled {
    /// The databases that were settled: after an installed snapshot they are others, and the proof is void.
    databases: Arc<Databases>,
    /// Entries below this log index are settled.
    limit: u64,
    /// The first error of a namespace that could not be settled; the others went on.
    failed: Option<ReadError>,
}

/// Proof that the events are settled, and that the state without pointers into the log is on the disk too.
pub(crate) struct Flushed {
    databases: Arc<Databases>,
    limit: u64,
    /// Namespaces that were trimmed, and the first event that stays: the trims are on the disk.
    trims: Vec<(u32, u64)>,
}

/// Settles everything that is applied now.
pub(crate) fn everything(state: &State, log: &LogStore) -> Result<Settled, ReadError> {
    let limit = *state.applied().borrow();
    settle(state, log, limit, Duration::ZERO)
}

/// Moves the events of all entries below `limit` to the ledger.
pub(crate) fn settle(state: &State, log: &LogStore, limit: u64, rest: Duration) -> Result<Settled, ReadError> {
    let settled = settle_most(state, log, limit, rest)?;
    match settled.failed {
        Some(error) => Err(error),
        None => Ok(settled),
    }
}

/// Moves the events of all entries below `limit` to the ledger, except those of namespaces that are damaged: the
/// others go on, and the log is kept from the first entry that is missing in the ledger.
pub(crate) fn settle_most(state: &State, log: &LogStore, limit: u64, rest: Duration) -> Result<Settled, ReadError> {
    let mut pass = Pass { settled: Settled { databases: state.databases(), limit, failed: None }, from: 0 };
    while let Some(blocks) = pass.stride(state, log, limit)? {
        std::thread::sleep(rest.saturating_mul(blocks).min(REST_MAX));
    }
    Ok(pass.settled)
}

/// One pass over the namespaces that changed.
struct Pass {
    settled: Settled,
    /// Number of the next namespace.
    from: u32,
}

impl Pass {
    /// Settles some namespaces. How many blocks that were; `None` when none are left.
    fn stride(&mut self, state: &State, log: &LogStore, limit: u64) -> Result<Option<u32>, ReadError> {
        let _settling = lock(&state.settling);
        let databases = state.databases();
        if !Arc::ptr_eq(&databases, &self.settled.databases) {
            // A snapshot was installed: it replaced the work of this step, and its events are settled already.
            *self = Self { settled: Settled { databases: Arc::clone(&databases), limit, failed: None }, from: 0 };
        }
        let heads = lock(&state.changes).unsettled(self.from, STRIDE_NAMESPACES);
        if heads.is_empty() {
            return Ok(None);
        }
        crash::point("settle: a stride")?;
        let mut gathered = Vec::new();
        let mut bytes = 0_usize;
        for head in heads {
            if bytes >= STRIDE_BYTES {
                break;
            }
            self.from = head.id.saturating_add(1);
            crash::point("settle: a namespace")?;
            let mut gather = Gather::new(&databases, &head, limit, STRIDE_BYTES.saturating_sub(bytes));
            match gather.run(log) {
                Ok(()) => {
                    bytes = bytes.saturating_add(gather.bytes);
                    if !gather.finished {
                        self.from = head.id;
                    }
                    gathered.push(gather.finish()?);
                }
                // Trimmed or deleted meanwhile: that change is still to come.
                Err(_) if is_out_of_sight(state, &head, gather.next) => {}
                Err(error) => {
                    tracing::error!(%error, namespace = head.name, sequence = gather.next, "events cannot be settled");
                    self.settled.limit = self.settled.limit.min(gather.entry);
                    self.settled.failed.get_or_insert(error);
                }
            }
        }
        let blocks = gathered.iter().map(|gathered| gathered.run.blocks.len()).sum::<usize>();
        store(state, &databases, gathered)?;
        Ok(Some(u32::try_from(blocks).unwrap_or(u32::MAX)))
    }
}

/// Whether the event at `sequence` is not visible any more in what this node has applied by now, after its rows were
/// looked for in vain.
fn is_out_of_sight(state: &State, head: &Head, sequence: u64) -> bool {
    let machine = state.machine_behind_rows();
    machine.head(&head.name).is_none_or(|now| now.id != head.id || now.first > sequence)
}

/// Blocks to the ledger, then the index rows go.
fn store(state: &State, databases: &Databases, gathered: Vec<Gathered>) -> Result<(), ReadError> {
    let (runs, drops): (Vec<Run>, Vec<Drops>) =
        gathered.into_iter().map(|gathered| (gathered.run, gathered.drops)).unzip();
    databases.ledger.store(&runs)?;
    crash::point("settle: blocks are stored")?;
    let mut batch = WriteBatch::default();
    let moved = |drops: &&Drops| drops.end > databases.dropped(drops.namespace);
    for drops in drops.iter().filter(moved) {
        drops.put(databases, &mut batch)?;
    }
    if !batch.is_empty() {
        databases.state.write_opt(batch, &unlogged())?;
    }
    crash::point("settle: index rows are dropped")?;
    let mut changes = lock(&state.changes);
    for drops in &drops {
        if moved(&drops) {
            databases.promised(drops.namespace, drops.end);
        }
        changes.settled(drops.namespace, databases.dropped(drops.namespace));
    }
    Ok(())
}

/// The events that one stride takes from the log for one namespace.
struct Gathered {
    run: Run,
    drops: Drops,
}

/// Index rows that are not needed any more, and records that the rules made.
struct Drops {
    namespace: u32,
    /// All rows before this go.
    end: u64,
    keys: Vec<Vec<u8>>,
    made: Vec<(u64, u64)>,
    /// Whether the store may hold rows that `keys` and `made` do not list.
    unknown: bool,
}

impl Drops {
    fn put(&self, databases: &Databases, batch: &mut WriteBatch) -> Result<(), ReadError> {
        let db = &databases.state;
        let (index, made) = (family(db, Family::Index.name())?, family(db, Family::Made.name())?);
        let from = index_key(self.namespace, databases.dropped(self.namespace));
        let to = index_key(self.namespace, self.end);
        if self.unknown || self.keys.len() > KEYS_MAX {
            batch.delete_range_cf(index, &from, &to);
        } else {
            self.keys.iter().for_each(|key| batch.delete_cf(index, key));
        }
        let records: u64 = self.made.iter().map(|(first, end)| end.saturating_sub(*first)).sum();
        if self.unknown || usize::try_from(records).unwrap_or(usize::MAX) > KEYS_MAX {
            batch.delete_range_cf(made, &from, &to);
        } else {
            let sequences = self.made.iter().flat_map(|(first, end)| *first..*end);
            sequences.for_each(|sequence| batch.delete_cf(made, index_key(self.namespace, sequence)));
        }
        databases.promise(batch, self.namespace, self.end)
    }
}

struct Gather<'a> {
    databases: &'a Databases,
    head: &'a Head,
    limit: u64,
    bytes_max: usize,
    builder: Option<BlockBuilder>,
    run: Run,
    drops: Drops,
    bytes: usize,
    /// The next event to settle.
    next: u64,
    /// The entry that holds it, as far as that is known.
    entry: u64,
    /// Whether nothing below the limit is left.
    finished: bool,
}

impl<'a> Gather<'a> {
    fn new(databases: &'a Databases, head: &'a Head, limit: u64, bytes_max: usize) -> Self {
        let (namespace, visible) = (head.id, head.first);
        Self {
            databases,
            head,
            limit,
            bytes_max,
            builder: None,
            run: Run { namespace, blocks: Vec::new(), visible, replaced: None },
            drops: Drops {
                namespace,
                end: databases.dropped(namespace),
                keys: Vec::new(),
                made: Vec::new(),
                unknown: false,
            },
            bytes: 0,
            next: databases.ledger.settled(namespace).max(visible),
            entry: 0,
            finished: true,
        }
    }

    /// Goes over the index rows. The first one must hold the next event, each other one begin where the one before
    /// ended.
    fn run(&mut self, log: &LogStore) -> Result<(), ReadError> {
        let head = self.head;
        let start = self.next;
        if start >= head.next && head.first >= head.next {
            // Nothing is visible, and a namespace that was deleted has no rows any more.
            self.drops.unknown = self.drops.end.max(1) < head.next;
            self.drops.end = head.next;
            return Ok(());
        }
        let mut end = self.drops.end;
        for row in index_rows(&self.databases.state, head.id, self.drops.end, self.drops.end)? {
            let (first, row) = row?;
            end = first.saturating_add(row.events);
            if end > start {
                self.entry = row.entry;
                if row.entry >= self.limit {
                    return Ok(());
                }
                if first > self.next || (first < self.next && self.next != start) {
                    self.entry = 0;
                    return Err(self.wrong(format_args!("the next index row begins at {first}")));
                }
                self.settle_row(log, first, &row)?;
                if self.next < end {
                    // Enough for one stride, in the middle of the row.
                    self.finished = false;
                    return Ok(());
                }
            }
            self.drops.end = end;
            self.drops.keys.push(index_key(head.id, first));
            self.bytes = self.bytes.saturating_add(ROW_BYTES);
            if row.made {
                self.drops.made.push((first, end));
            }
            if self.bytes >= self.bytes_max {
                self.finished = end >= head.next;
                return Ok(());
            }
        }
        if self.next.max(end) < head.next {
            self.entry = 0;
            return Err(self.wrong(format_args!("no index row holds it, but the namespace goes up to {}", head.last())));
        }
        // Rows of entries that are still to be applied again after a crash come behind the head.
        self.drops.end = self.drops.end.max(self.next.min(head.next));
        Ok(())
    }

    fn wrong(&self, what: impl std::fmt::Display) -> ReadError {
        let (name, id) = (&self.head.name, self.head.id);
        let directory = self.databases.state.path().display();
        ReadError(format!("state {directory}: namespace {name} (number {id}), event {}: {what}", self.next))
    }

    /// Appends the events of a row from the next one on, until there are enough.
    fn settle_row(&mut self, log: &LogStore, first: u64, row: &IndexRow) -> Result<(), ReadError> {
        let (databases, head) = (self.databases, self.head);
        let (mut sequence, mut position) = (first, row.bytes_first);
        let found = records::visit(&databases.state, log, head, first, row, &mut |events, records| {
            let end = sequence.saturating_add(events);
            let mut records = records;
            while let Some((event, used)) = Event::decode(records).filter(|_| sequence < end) {
                let (record, after) = records.split_at(used);
                if sequence >= self.next && self.push(event.subject, record, row.millis, position)? {
                    return Ok(ControlFlow::Break(()));
                }
                sequence = sequence.saturating_add(1);
                position = position.saturating_add(u64::try_from(used).unwrap_or_default());
                records = after;
            }
            if sequence != end || !records.is_empty() {
                return Err(self.wrong(format_args!("entry {} has other records than its frame says", row.entry)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if !found {
            return Err(
                self.wrong(format_args!("entry {} of the log, or a record of the rules, is missing", row.entry))
            );
        }
        let end = first.saturating_add(row.events);
        if self.next > end || (self.next < end && self.bytes < self.bytes_max) {
            return Err(self.wrong(format_args!("entry {} has other events than its index row says", row.entry)));
        }
        Ok(())
    }

    /// Appends the next event. Whether that is enough for this stride: then a block has just been sealed.
    fn push(&mut self, subject: &str, record: &[u8], millis: u64, position: u64) -> Result<bool, ReadError> {
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => self.begin(position)?,
        };
        builder.push(subject, record, millis);
        self.next = self.next.saturating_add(1);
        self.bytes = self.bytes.saturating_add(record.len());
        if !builder.is_full() {
            self.builder = Some(builder);
            return Ok(false);
        }
        self.run.blocks.push(builder.finish()?);
        Ok(self.bytes >= self.bytes_max)
    }

    /// The last block when it is not full, or a new one.
    fn begin(&mut self, position: u64) -> Result<BlockBuilder, ReadError> {
        let ledger = &self.databases.ledger;
        if self.run.blocks.is_empty()
            && self.next == ledger.settled(self.head.id)
            && let Some((last, stored_bytes)) = ledger.reopen_last(self.head.id)?
        {
            self.run.replaced = Some(stored_bytes);
            return Ok(last);
        }
        Ok(BlockBuilder::new(self.head.id, self.next, position))
    }

    fn finish(mut self) -> Result<Gathered, ReadError> {
        if let Some(last) = self.builder.take().filter(|last| !last.is_empty()) {
            self.run.blocks.push(last.finish()?);
        }
        Ok(Gathered { run: self.run, drops: self.drops })
    }
}

/// The index rows of a namespace in order, from the one on that holds `from`, or from the first one behind.
/// All rows before `lower` are known to be gone: iterating over what was removed is slow.
pub(crate) fn index_rows(
    db: &DB,
    namespace: u32,
    lower: u64,
    from: u64,
) -> Result<impl Iterator<Item = Result<(u64, IndexRow), ReadError>> + '_, ReadError> {
    let column = family(db, Family::Index.name())?;
    let bounded = || {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(index_key(namespace, lower));
        options.set_iterate_upper_bound(bounds(namespace).1);
        options
    };
    let mut start = index_key(namespace, from);
    if lower < from {
        // The row before may reach over `from`.
        let before = db.iterator_cf_opt(column, bounded(), IteratorMode::From(&start, Direction::Reverse)).next();
        if let Some((key, _)) = before.transpose()? {
            start = key.to_vec();
        }
    }
    let rows = db.iterator_cf_opt(column, bounded(), IteratorMode::From(&start, Direction::Forward));
    let decode = move |key: &[u8], value: &[u8]| {
        let first = index_sequence(namespace, key).ok_or_else(|| ReadError("index key".to_owned()))?;
        Ok((first, IndexRow::decode(value).map_err(|e| ReadError(format!("index row: {e}")))?))
    };
    let rows = rows.map(move |row| row.map_err(ReadError::from).and_then(|(key, value)| decode(&key, &value)));
    Ok(rows.skip_while(move |row| {
        row.as_ref().is_ok_and(|(first, row)| first.saturating_add(row.events) <= from && lower < from)
    }))
}

impl Settled {
    /// Up to which entry all is settled.
    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Flushes the state to the disk: afterwards no stored row points into the settled part of the log, and all trims
    /// are stored.
    pub(crate) fn flush(self, state: &State) -> Result<Flushed, ReadError> {
        let flushed = self.unflushed(state);
        flushed.databases.flush()?;
        crash::point("flush: the state is on the disk")?;
        Ok(flushed)
    }

    /// What is flushed, as soon as the state of now is on the disk.
    pub(crate) fn unflushed(self, state: &State) -> Flushed {
        let Self { databases, limit, .. } = self;
        let trims = lock(&state.changes).trimmed().collect();
        Flushed { databases, limit, trims }
    }
}

impl Flushed {
    /// The log is not needed below this entry.
    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }
}

/// Whether some namespace has whole blocks that are out of sight.
pub(crate) fn is_forgettable(state: &State) -> bool {
    let ledger = state.ledger();
    lock(&state.changes).any_forgettable(|namespace, first| ledger.is_forgettable(namespace, first))
}

/// Gives back the disk of what retention or deletion took out of sight: only of trims that are on the disk. An older
/// state that came back after a crash would look for the events before, and apply entries differently.
pub(crate) fn forget(state: &State, flushed: &Flushed) -> Result<(), ReadError> {
    let ledger = &flushed.databases.ledger;
    for trims in flushed.trims.chunks(FORGET_NAMESPACES) {
        loop {
            let _settling = lock(&state.settling);
            if ledger.forget(trims)? {
                break;
            }
        }
        let mut changes = lock(&state.changes);
        trims.iter().for_each(|(namespace, first)| changes.forgotten(*namespace, *first));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

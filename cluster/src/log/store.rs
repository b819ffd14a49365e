//! The openraft log: append, truncate, purge, vote, and reading entries back.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{LogState, RaftLogReader, RaftLogStorage};
use rocksdb::{DB, Direction, IteratorMode, ReadOptions};
use tokio::sync::{mpsc, oneshot, watch};

use super::cache::Tail;
use super::page::Page;
use super::repair::{self, Known, Opened, entry_key, key_index, meta_key};
use super::writer::{self, Op, Progress, Wal};
use crate::codec;
use crate::error::{NodeError, ReadError, io_error};
use crate::lock::lock;
use crate::store::disk;
use crate::store::layout::{CF_LOG, LOG_FAMILIES, Layout, family, room_for_memtables};
use crate::types::{Entry, IoFlushed, LogId, Types, Vote};

/// Most bytes of entries that one read gives.
const READ_BYTES_MAX: usize = 1 << 20;
/// How often an entry is looked for before it counts as missing.
const MISSED_MAX: usize = 3;
/// Memory of the tail cache.
const TAIL_BYTES_MAX: usize = 64 << 20;

struct Inner {
    db: Arc<DB>,
    queue: mpsc::Sender<Op>,
    progress: Progress,
    known: Mutex<Known>,
    tail: Mutex<Tail>,
}

/// Handle of the log; clones share the log.
#[derive(Clone)]
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}

impl LogStore {
    /// Opens the log, refuses one that lost its end, and starts its writer thread. With `accept_lost_mark` a log
    /// whose mark is lost is taken as it is.
    pub(crate) fn open(
        layout: &Layout,
        accept_lost_mark: bool,
    ) -> Result<(Self, std::thread::JoinHandle<()>), NodeError> {
        let Opened { db, known, mark } = repair::open(layout, accept_lost_mark)?;
        let (db, progress) = (Arc::new(db), Progress { durable: watch::Sender::new(known.reach().next_index) });
        let Wal { queue, thread } =
            writer::start(Arc::clone(&db), mark, progress.clone(), meta_key(b'v'), meta_key(b'p'))?;
        let inner =
            Inner { db, queue, progress, known: Mutex::new(known), tail: Mutex::new(Tail::new(TAIL_BYTES_MAX)) };
        Ok((Self { inner: Arc::new(inner) }, thread))
    }

    /// Opens the log for a simulation, whose disk takes `delay` for every group.
    #[cfg(test)]
    pub(crate) fn open_simulated(layout: &Layout, delay: std::time::Duration) -> Result<Self, NodeError> {
        Self::open_until(layout, delay, tokio_util::sync::CancellationToken::new())
    }

    /// Like [`LogStore::open_simulated`], for a process whose disk takes nothing once the process is `killed`.
    #[cfg(test)]
    pub(crate) fn open_until(
        layout: &Layout,
        delay: std::time::Duration,
        killed: tokio_util::sync::CancellationToken,
    ) -> Result<Self, NodeError> {
        let Opened { db, known, mark } = repair::open(layout, false)?;
        let (db, progress) = (Arc::new(db), Progress { durable: watch::Sender::new(known.reach().next_index) });
        let keys = (meta_key(b'v'), meta_key(b'p'));
        let queue = writer::start_simulated(Arc::clone(&db), mark, progress.clone(), keys, delay, killed);
        let tail = Mutex::new(Tail::new(TAIL_BYTES_MAX));
        Ok(Self { inner: Arc::new(Inner { db, queue, progress, known: Mutex::new(known), tail }) })
    }

    /// Whether there are other handles.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    /// Index behind the last entry on the disk.
    pub(crate) fn durable(&self) -> watch::Receiver<u64> {
        self.inner.progress.durable.subscribe()
    }

    /// Index behind the last entry.
    pub(crate) fn next_index(&self) -> u64 {
        lock(&self.inner.known).last.map_or(0, |last| last.index.saturating_add(1))
    }

    /// Brings everything to the disk and empties the memtables, so that old log files can go.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.enqueue(Op::Flush { done }).await?;
        wait.await.map_err(io_error)?.map_err(io_error)
    }

    /// Whether there is room for a flush.
    pub(crate) fn has_room(&self) -> Result<(), ReadError> {
        room_for_memtables(&self.inner.db, LOG_FAMILIES.into_iter())
    }

    /// Gives back the disk of purged entries: whole files at once, the rest when `thorough`. Blocks, so
    /// not on the writer's thread.
    pub(crate) fn reclaim(&self, thorough: bool) -> Result<(), ReadError> {
        let Some(purged) = lock(&self.inner.known).purged else { return Ok(()) };
        let log = family(&self.inner.db, CF_LOG)?;
        let (from, to) = (entry_key(0), entry_key(purged.index));
        // RocksDB takes files that end with the second key along: it must be one that is purged.
        self.inner.db.delete_file_in_range_cf(log, &from, &to)?;
        if thorough {
            let files = self.inner.db.property_int_value_cf(log, "rocksdb.total-sst-files-size")?;
            disk::require(self.inner.db.path(), files.unwrap_or_default())?;
            self.inner.db.compact_range_cf(log, Some(&from), Some(&to));
        }
        Ok(())
    }

    /// Puts everything into compacted files.
    #[cfg(test)]
    pub(crate) fn compact(&self) {
        let log = family(&self.inner.db, CF_LOG).unwrap();
        self.inner.db.compact_range_cf(log, None::<&[u8]>, None::<&[u8]>);
    }

    /// Takes an entry out of the database and out of memory, as damage would.
    #[cfg(test)]
    pub(crate) fn lose(&self, index: u64) {
        self.inner.db.delete_cf(family(&self.inner.db, CF_LOG).unwrap(), entry_key(index)).unwrap();
        lock(&self.inner.tail).clear();
    }

    /// The entries that the database has.
    #[cfg(test)]
    pub(crate) fn on_disk(&self) -> Result<Vec<u64>, ReadError> {
        let rows = self.inner.db.iterator_cf(family(&self.inner.db, CF_LOG)?, IteratorMode::Start);
        rows.filter_map(|row| row.map(|(key, _)| key_index(&key)).transpose())
            .map(|row| row.map_err(Into::into))
            .collect()
    }

    async fn enqueue(&self, op: Op) -> io::Result<()> {
        self.inner.queue.send(op).await.map_err(|_| io_error("the log writer has stopped"))
    }

    /// The entry at `index`, `None` when it was purged or is not written yet.
    pub(crate) fn entry(&self, index: u64) -> Result<Option<Entry>, ReadError> {
        if let Some(entry) = lock(&self.inner.tail).get(index) {
            return Ok(Some(entry.clone()));
        }
        let log = family(&self.inner.db, CF_LOG)?;
        match self.inner.db.get_cf(log, entry_key(index))? {
            Some(value) => codec::decode_entry(index, value.into()).map(Some).map_err(|e| ReadError(e.to_string())),
            None => Ok(None),
        }
    }

    /// The part of `from .. to` that is in the log.
    fn present(&self, from: u64, to: u64) -> (u64, u64) {
        let known = lock(&self.inner.known);
        let behind = |id: Option<LogId>| id.map_or(0, |id| id.index.saturating_add(1));
        (from.max(behind(known.purged)), to.min(behind(known.last)))
    }

    /// Entries of `from .. to` in order, at most about `bytes_max` of them but at least one. An entry that should be
    /// in the log and is not is an error.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        // The tail may still hold what was purged.
        let (from, to) = self.present(from, to);
        let mut page = Page { next: from, to, bytes: 0, bytes_max, found: Vec::new() };
        let mut missed = 0;
        // What is not in the database yet is in the tail, and what leaves the tail is in the database.
        while page.wants_more() {
            let before = page.next;
            self.read_tail(&mut page);
            let found = self.read_database(&mut page)?;
            if page.next > before {
                missed = 0;
                continue;
            }
            // Entries may have been purged or truncated meanwhile, and written anew.
            let (from, to) = self.present(page.next, page.to);
            page.to = to;
            if from > page.next {
                if !page.found.is_empty() {
                    break;
                }
                page.next = from;
            } else if page.wants_more() {
                missed += 1;
                if missed == MISSED_MAX {
                    let begins = self.begins()?.filter(|begins| page.found.is_empty() && *begins > page.next);
                    page.next = begins.ok_or_else(|| self.hole(page.next, found))?;
                }
            }
        }
        Ok(page.found)
    }

    /// The first entry of a log of which nothing was purged.
    fn begins(&self) -> Result<Option<u64>, ReadError> {
        if lock(&self.inner.known).purged.is_some() {
            return Ok(None);
        }
        let rows = self.inner.db.iterator_cf(family(&self.inner.db, CF_LOG)?, IteratorMode::Start);
        let stored = rows.map(|row| row.map(|(key, _)| key_index(&key))).next().transpose()?.flatten();
        let cached = lock(&self.inner.tail).first();
        Ok(stored.into_iter().chain(cached).min())
    }

    /// An entry is not where the entries around it are.
    fn hole(&self, index: u64, found: Option<u64>) -> ReadError {
        let next =
            found.map_or_else(|| "none follows it in the database".to_owned(), |found| format!("{found} follows"));
        ReadError(format!("entry {index} of the raft log is missing, {next}: {}", self.inner.db.path().display()))
    }

    /// Takes what follows from the database; the index of the first entry there that does not.
    fn read_database(&self, page: &mut Page) -> Result<Option<u64>, ReadError> {
        if !page.wants_more() {
            return Ok(None);
        }
        let log = family(&self.inner.db, CF_LOG)?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(page.to));
        let start = entry_key(page.next);
        for row in self.inner.db.iterator_cf_opt(log, options, IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = row?;
            let Some(index) = key_index(&key) else { break };
            if index != page.next {
                return Ok(Some(index));
            }
            if !page.wants_more() {
                break;
            }
            let bytes = value.len();
            let entry = codec::decode_entry(page.next, Bytes::from(value)).map_err(|e| ReadError(e.to_string()))?;
            page.push(entry, bytes);
        }
        Ok(None)
    }

    /// Entries from exactly `from` on, one page of them; none behind the end of the log.
    fn read_from(&self, from: u64, to: u64) -> Result<Vec<Entry>, ReadError> {
        let page = self.read(from, to, READ_BYTES_MAX)?;
        match page.first().map(|first| first.log_id.index) {
            Some(first) if first != from => Err(ReadError(format!("entry {from} of the raft log was purged"))),
            _ => Ok(page),
        }
    }

    fn read_tail(&self, page: &mut Page) {
        let tail = lock(&self.inner.tail);
        while page.wants_more() {
            let Some(entry) = tail.get(page.next) else { break };
            let bytes = match &entry.payload {
                openraft::impls::EntryPayload::Normal(data) => data.0.len(),
                _ => 0,
            };
            page.push(entry.clone(), bytes);
        }
    }

    fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (from, to)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = Self::bounds(&range);
        self.read(from, to, usize::MAX).map_err(io_error)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = Self::bounds(&range);
        let log = self.clone();
        // In pages: after a restart the range may be the whole log.
        let pages = stream::unfold((log, from, to), |(log, from, to)| async move {
            if from >= to {
                return None;
            }
            let page = log.read_from(from, to).map_err(io_error);
            let next = match &page {
                Ok(entries) => entries.last().map_or(to, |last| last.log_id.index.saturating_add(1)),
                Err(_) => to,
            };
            let items: Vec<Result<Entry, io::Error>> = match page {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((stream::iter(items), (log, next, to)))
        });
        futures_util::StreamExt::flatten(pages)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(lock(&self.inner.known).vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES_MAX).map_err(io_error)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let known = lock(&self.inner.known);
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, wait) = oneshot::channel();
        self.enqueue(Op::Vote { value: codec::encode_vote(vote), term: vote.leader_id.term, done }).await?;
        wait.await.map_err(io_error)?;
        lock(&self.inner.known).vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Best effort by contract: it goes to the disk with the next append, never by an fsync of its own.
        lock(&self.inner.known).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.inner.known).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut rows = Vec::new();
        let mut last = None;
        {
            let mut tail = lock(&self.inner.tail);
            for entry in entries {
                rows.push((entry_key(entry.log_id.index), codec::encode_entry(&entry)));
                last = Some(entry.log_id);
                tail.push(entry);
            }
            tail.evict(*self.inner.progress.durable.borrow());
        }
        let committed = {
            let mut known = lock(&self.inner.known);
            known.last = last.or(known.last);
            known.committed
        };
        if let Some(committed) = committed {
            self.enqueue(Op::Lazy { key: meta_key(b'c'), value: codec::encode_log_id(&committed) }).await?;
        }
        self.enqueue(Op::Append { rows, last, done: callback }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first_removed = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        lock(&self.inner.tail).truncate(first_removed);
        let last = {
            let mut known = lock(&self.inner.known);
            known.last = known.last.min(last_log_id).max(known.purged);
            known.last
        };
        let (from, to) = (entry_key(first_removed), entry_key(u64::MAX));
        let (done, wait) = oneshot::channel();
        self.enqueue(Op::Truncate { from, to, last, done }).await?;
        // Until the truncation has happened the database has the old entries, and they count as durable: a reader
        // would take an old entry for the new one at the same index, and apply the old one.
        wait.await.map_err(io_error)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let from = {
            let mut known = lock(&self.inner.known);
            let from = known.purged.map_or(0, |purged| purged.index.saturating_add(1));
            known.purged = Some(log_id).max(known.purged);
            known.last = known.last.max(known.purged);
            from
        };
        let (from, to) = (entry_key(from), entry_key(log_id.index.saturating_add(1)));
        self.enqueue(Op::Purge { from, to, mark: codec::encode_log_id(&log_id) }).await
    }
}

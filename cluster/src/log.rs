//! The openraft log: append, truncate, purge, vote, and reading entries back.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{LogState, RaftLogReader, RaftLogStorage};
use rocksdb::{DB, Direction, IteratorMode, ReadOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::codec;
use crate::error::{NodeError, ReadError, io_error};
use crate::lock::lock;
use crate::mark::{Mark, MarkFile};
use crate::page::Page;
use crate::store::{self, CF_LOG, CF_META, GROUP, Layout, family};
use crate::tail::Tail;
use crate::types::{Entry, IoFlushed, LogId, Types, Vote};
use crate::wal::{self, Op, Progress, Wal};
use crate::walscan;

/// Most bytes of entries that one read gives.
const READ_BYTES_MAX: usize = 1 << 20;
/// Memory of the tail cache.
const TAIL_BYTES_MAX: usize = 64 << 20;

fn meta_key(kind: u8) -> Vec<u8> {
    let mut key = GROUP.to_be_bytes().to_vec();
    key.push(kind);
    key
}

fn entry_key(index: u64) -> Vec<u8> {
    let mut key = GROUP.to_be_bytes().to_vec();
    key.extend_from_slice(&index.to_be_bytes());
    key
}

fn key_index(key: &[u8]) -> Option<u64> {
    let (group, index) = key.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*group) == GROUP).then_some(())?;
    index.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// What openraft asks for at any moment, without a read.
#[derive(Debug, Default)]
struct Known {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
}

impl Known {
    /// Index behind the last entry, and the term of the vote.
    fn reach(&self) -> (u64, u64) {
        let next = self.last.map_or(0, |last| last.index.saturating_add(1));
        (next, self.vote.as_ref().map_or(0, |vote| vote.leader_id.term))
    }
}

struct Inner {
    db: Arc<DB>,
    queue: mpsc::Sender<Op>,
    progress: Progress,
    known: Mutex<Known>,
    tail: Mutex<Tail>,
}

/// Handle of the log; clones share it.
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
    /// Opens the log, refuses one that lost its end, and starts its writer thread.
    pub(crate) fn open(layout: &Layout) -> Result<(Self, std::thread::JoinHandle<()>), NodeError> {
        let mark =
            MarkFile::open(&layout.mark()).map_err(|source| NodeError::Directory { path: layout.mark(), source })?;
        let db = Arc::new(open_checked(layout, mark.get())?);
        let known = load(&db).map_err(|error| corrupt(&layout.raft(), &error.to_string()))?;
        let (next, _) = known.reach();
        let progress = Progress { durable: watch::Sender::new(next) };
        let Wal { queue, thread } =
            wal::start(Arc::clone(&db), mark, progress.clone(), meta_key(b'v'), meta_key(b'p'))?;
        let inner =
            Inner { db, queue, progress, known: Mutex::new(known), tail: Mutex::new(Tail::new(TAIL_BYTES_MAX)) };
        Ok((Self { inner: Arc::new(inner) }, thread))
    }

    /// Opens the log for a simulation, whose disk takes `delay` for every group.
    #[cfg(test)]
    pub(crate) fn open_simulated(layout: &Layout, delay: std::time::Duration) -> Result<Self, NodeError> {
        let mark =
            MarkFile::open(&layout.mark()).map_err(|source| NodeError::Directory { path: layout.mark(), source })?;
        let db = Arc::new(open_checked(layout, mark.get())?);
        let known = load(&db).map_err(|error| corrupt(&layout.raft(), &error.to_string()))?;
        let progress = Progress { durable: watch::Sender::new(known.reach().0) };
        let keys = (meta_key(b'v'), meta_key(b'p'));
        let queue = wal::start_simulated(Arc::clone(&db), mark, progress.clone(), keys, delay);
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
        wait.await.map_err(io_error)
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

    /// Entries of `from .. to` in order, at most about `bytes_max` of them but at least one.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        // The tail may still hold what was purged.
        let (from, to) = {
            let known = lock(&self.inner.known);
            let behind = |id: Option<LogId>| id.map_or(0, |id| id.index.saturating_add(1));
            (from.max(behind(known.purged)), to.min(behind(known.last)))
        };
        let mut page = Page { next: from, to, bytes: 0, bytes_max, found: Vec::new() };
        // What is not in the database yet is in the tail, and what leaves the tail is in the database.
        while page.wants_more() {
            let before = page.next;
            self.read_tail(&mut page);
            self.read_database(&mut page)?;
            if page.next == before {
                break;
            }
        }
        Ok(page.found)
    }

    fn read_database(&self, page: &mut Page) -> Result<(), ReadError> {
        if !page.wants_more() {
            return Ok(());
        }
        let log = family(&self.inner.db, CF_LOG)?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(page.to));
        let start = entry_key(page.next);
        for row in self.inner.db.iterator_cf_opt(log, options, IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = row?;
            let Some(index) = key_index(&key) else { break };
            if page.found.is_empty() {
                page.next = page.next.max(index);
            }
            if !page.wants_more() || index != page.next {
                break;
            }
            let bytes = value.len();
            let entry = codec::decode_entry(page.next, Bytes::from(value)).map_err(|e| ReadError(e.to_string()))?;
            page.push(entry, bytes);
        }
        Ok(())
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

/// Opens the database. A tail that was torn and never acknowledged is cut; anything else is refused, and a
/// refusal leaves every file as it was.
fn open_checked(layout: &Layout, promised: Mark) -> Result<DB, NodeError> {
    let path = layout.raft();
    let open = || store::open_raft(&path).map_err(|error| store::open_error("raft", layout.root(), &error));
    if !path.join("CURRENT").exists() {
        if promised.next_index > 0 {
            return Err(truncated(&path, 0, promised.next_index));
        }
        return open();
    }
    // Our own scan comes first: RocksDB's reader was seen to loop for ever on garbage behind the last record.
    if let Ok(Some(scan)) = walscan::first_damage(&path)
        && let Some(damage) = scan.damage
    {
        let newest = walscan::log_files(&path).ok().and_then(|mut files| files.pop());
        if newest.as_ref() != Some(&scan.file) {
            return Err(corrupt(&path, damage));
        }
        let cut = cut_torn_tail(&scan, promised.next_index).map_err(|_| corrupt(&path, damage))?;
        return cut.ok_or_else(|| corrupt(&path, damage));
    }
    match store::look_at_raft(&path) {
        Ok(db) => {
            let known = load(&db).map_err(|error| corrupt(&path, &error.to_string()))?;
            let (next, vote_term) = known.reach();
            if next < promised.next_index || vote_term < promised.vote_term {
                return Err(truncated(&path, next, promised.next_index));
            }
            drop(db);
            open()
        }
        // A first start that was cut short before all families were there.
        Err(error) if error.to_string().contains("olumn famil") && promised.next_index == 0 => open(),
        Err(error) if error.to_string().starts_with("Corruption") => Err(corrupt(&path, error.as_ref())),
        Err(error) => Err(store::open_error("raft", layout.root(), &error)),
    }
}

/// Tries the log without its damaged tail. The original is put back when acknowledged entries would be missing.
fn cut_torn_tail(scan: &walscan::Scan, promised: u64) -> io::Result<Option<DB>> {
    let directory = scan.file.parent().unwrap_or(Path::new("."));
    let backup = scan.file.with_extension("torn");
    let trial = directory.with_extension("trial");
    let _stale = std::fs::remove_dir_all(&trial);
    // The trial works on a copy, so that a refusal leaves everything as it was.
    std::fs::create_dir_all(&trial)?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), trial.join(entry.file_name()))?;
        }
    }
    let cut = |file: &Path| std::fs::OpenOptions::new().write(true).open(file)?.set_len(scan.valid);
    if let Some(name) = scan.file.file_name() {
        cut(&trial.join(name))?;
    }
    let keeps = store::look_at_raft(&trial).ok().and_then(|db| load(&db).ok());
    std::fs::remove_dir_all(&trial)?;
    let next = keeps.map_or(0, |known| known.reach().0);
    if next < promised {
        return Ok(None);
    }
    std::fs::copy(&scan.file, &backup)?;
    cut(&scan.file)?;
    tracing::warn!(file = %scan.file.display(), offset = scan.valid, backup = %backup.display(),
        "the raft log had a torn tail that was never acknowledged; it was cut");
    store::open_raft(directory).map(Some).map_err(io_error)
}

fn corrupt(path: &Path, detail: &str) -> NodeError {
    let (file, offset, what) = match walscan::first_damage(path) {
        Ok(Some(scan)) if scan.damage.is_some() => {
            (scan.file.display().to_string(), scan.valid, scan.damage.unwrap_or_default())
        }
        _ => (path.display().to_string(), 0, ""),
    };
    let detail = if what.is_empty() { detail.to_owned() } else { format!("{what} ({detail})") };
    NodeError::Corrupt { file, offset, detail }
}

fn truncated(path: &Path, next: u64, promised: u64) -> NodeError {
    let newest = walscan::log_files(path).ok().and_then(|mut files| files.pop());
    let scan = newest.and_then(|file| walscan::scan(&file).ok());
    NodeError::Truncated {
        found: next.saturating_sub(1),
        promised: promised.saturating_sub(1),
        file: scan.as_ref().map_or_else(|| path.display().to_string(), |scan| scan.file.display().to_string()),
        offset: scan.map_or(0, |scan| scan.valid),
    }
}

fn load(db: &DB) -> Result<Known, ReadError> {
    let wrap = |error: io::Error| ReadError(error.to_string());
    let meta = family(db, CF_META)?;
    let read = |kind| db.get_cf(meta, meta_key(kind));
    let vote = read(b'v')?.map(|bytes| codec::decode_vote(&bytes)).transpose().map_err(wrap)?;
    let purged = read(b'p')?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrap)?;
    let committed = read(b'c')?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrap)?;
    let log = family(db, CF_LOG)?;
    let newest =
        db.iterator_cf(log, IteratorMode::From(&entry_key(u64::MAX), Direction::Reverse)).next().transpose()?;
    let last = match newest.and_then(|(key, value)| Some((key_index(&key)?, value))) {
        Some((index, value)) => Some(codec::decode_entry(index, value.into()).map_err(wrap)?.log_id),
        None => purged,
    };
    Ok(Known { vote, purged, last: last.max(purged), committed })
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
            let page = log.read(from, to, READ_BYTES_MAX).map_err(io_error);
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
        let last = last.map_or(0, |last| last.index);
        self.enqueue(Op::Append { rows, last, done: callback }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first_removed = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        lock(&self.inner.tail).truncate(first_removed);
        let last = {
            let mut known = lock(&self.inner.known);
            known.last = known.last.min(last_log_id).max(known.purged);
            known.last.map(|last| last.index)
        };
        let (from, to) = (entry_key(first_removed), entry_key(u64::MAX));
        let (done, wait) = oneshot::channel();
        self.enqueue(Op::Truncate { from, to, last, done }).await?;
        // Until it has happened the database has the old entries, and says that as many are durable: a reader
        // would take an old one for the new one at its place, and apply it.
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

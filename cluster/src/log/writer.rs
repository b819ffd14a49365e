//! The one thread that writes the raft database: group commit in call order.
//!
//! All queued operations go into one write batch and one fsync, in the order in which
//! they were called, which is a safety rule of raft. While one fsync runs, the next
//! group gathers; no timers. An error of the disk ends the process: after a failed
//! fsync the stored bytes are unknown, and a second fsync may falsely succeed.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rocksdb::{DB, WriteBatch};
use tokio::sync::{mpsc, oneshot, watch};

use super::mark::{Mark, MarkFile};
use crate::error::{NodeError, ReadError};
use crate::lab_faults::Bug;
use crate::store::layout::{CF_LOG, CF_META, LOG_FAMILIES, family, journaled, room_for_memtables};
use crate::types::{IoFlushed, LogId};

/// Most operations in one group.
const GROUP_OPS_MAX: usize = 1024;
/// Most bytes in one group, so that one acknowledgement does not wait for a very large write.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// How often the mark is brought to the disk.
const MARK_SYNC: Duration = Duration::from_secs(1);

/// One operation on the raft database.
pub(crate) enum Op {
    /// Append encoded entries; `last` is the last one.
    Append { rows: Vec<(Vec<u8>, Vec<u8>)>, last: Option<LogId>, done: IoFlushed },
    /// Store the vote.
    Vote { value: Vec<u8>, term: u64, done: oneshot::Sender<()> },
    /// Remove the entries `from .. to`; `last` is the last one that stays.
    Truncate { from: Vec<u8>, to: Vec<u8>, last: Option<LogId>, done: oneshot::Sender<()> },
    /// Entries below are no longer needed.
    Purge { from: Vec<u8>, to: Vec<u8>, mark: Vec<u8> },
    /// A mark that may wait for the next group.
    Lazy { key: Vec<u8>, value: Vec<u8> },
    /// Answer when everything before is done, and let the memtables go to the disk, if there is room for them.
    Flush { done: oneshot::Sender<Result<(), ReadError>> },
}

/// The thread and its queue.
pub(crate) struct Wal {
    pub(crate) queue: mpsc::Sender<Op>,
    pub(crate) thread: JoinHandle<()>,
}

/// What the writer thread publishes for the rest of the node.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Index behind the last entry that is on the disk.
    pub(crate) durable: watch::Sender<u64>,
}

/// The state of the writer thread.
struct Writer {
    db: Arc<DB>,
    mark: MarkFile,
    progress: Progress,
    vote_key: Vec<u8>,
    purged_key: Vec<u8>,
    synced_at: Instant,
}

/// Starts the thread.
pub(crate) fn start(
    db: Arc<DB>,
    mark: MarkFile,
    progress: Progress,
    vote_key: Vec<u8>,
    purged_key: Vec<u8>,
) -> Result<Wal, NodeError> {
    let (queue, ops) = mpsc::channel(4096);
    let mut writer = Writer { db, mark, progress, vote_key, purged_key, synced_at: Instant::now() };
    let thread = std::thread::Builder::new()
        .name("raft-wal".to_owned())
        .spawn(move || writer.run(ops))
        .map_err(|error| NodeError::Store { store: "raft", detail: error.to_string() })?;
    Ok(Wal { queue, thread })
}

/// Like [`start`], as a task of a simulation: every group takes `delay` of its time, and nothing is written any more
/// once the process is `killed`.
#[cfg(test)]
pub(crate) fn start_simulated(
    db: Arc<DB>,
    mark: MarkFile,
    progress: Progress,
    keys: (Vec<u8>, Vec<u8>),
    delay: Duration,
    killed: tokio_util::sync::CancellationToken,
) -> mpsc::Sender<Op> {
    let (queue, mut ops) = mpsc::channel(4096);
    let (vote_key, purged_key) = keys;
    let mut writer = Writer { db, mark, progress, vote_key, purged_key, synced_at: Instant::now() };
    tokio::spawn(async move {
        while let Some(op) = ops.recv().await {
            let mut group = vec![op];
            tokio::time::sleep(delay).await;
            while let Ok(op) = ops.try_recv() {
                group.push(op);
            }
            if killed.is_cancelled() {
                return;
            }
            writer.write(&mut group).unwrap();
        }
    });
    queue
}

impl Writer {
    fn run(&mut self, mut ops: mpsc::Receiver<Op>) {
        let mut group = Vec::new();
        while let Some(op) = ops.blocking_recv() {
            group.push(op);
            let mut bytes = group.first().map_or(0, Op::bytes);
            while group.len() < GROUP_OPS_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(op) = ops.try_recv() else { break };
                bytes = bytes.saturating_add(op.bytes());
                group.push(op);
            }
            if let Err(error) = self.write(&mut group) {
                tracing::error!(%error, "the raft log cannot be written; the process ends, nothing more is acknowledged");
                std::process::abort();
            }
        }
        if let Err(error) = self.mark.sync() {
            tracing::error!(%error, "the mark could not be synced");
        }
    }

    fn write(&mut self, group: &mut Vec<Op>) -> Result<(), ReadError> {
        let (log, meta) = (family(&self.db, CF_LOG)?, family(&self.db, CF_META)?);
        let mut batch = WriteBatch::default();
        let mut mark = self.mark.get();
        let mut lowered = mark;
        for op in group.iter() {
            match op {
                Op::Append { rows, last, .. } => {
                    rows.iter().for_each(|(key, value)| batch.put_cf(log, key, value));
                    if last.is_some_and(|last| last.index >= mark.next_index) {
                        mark.end_with(*last);
                    }
                }
                Op::Vote { value, term, .. } => {
                    batch.put_cf(meta, &self.vote_key, value);
                    mark.vote_term = mark.vote_term.max(*term);
                }
                Op::Truncate { from, to, last, .. } => {
                    batch.delete_range_cf(log, from, to);
                    mark.end_with(*last);
                    if mark.next_index < lowered.next_index {
                        lowered.end_with(*last);
                    }
                }
                Op::Purge { from, to, mark } => {
                    batch.delete_range_cf(log, from, to);
                    batch.put_cf(meta, &self.purged_key, mark);
                }
                Op::Lazy { key, value } => batch.put_cf(meta, key, value),
                Op::Flush { .. } => {}
            }
        }
        if lowered != self.mark.get() && Bug::MarkNotLowered.is_on() {
            self.store_mark(lowered)?;
        } else if lowered != self.mark.get() {
            // On the disk before the truncation is: a crash or a power cut between must not look like a loss.
            self.mark.lower(lowered).map_err(|error| ReadError(format!("mark: {error}")))?;
            self.sync_mark()?;
        }
        if !batch.is_empty() {
            self.db.write_opt(batch, &journaled())?;
        }
        self.store_mark(mark)?;
        self.progress.durable.send_replace(mark.next_index);
        for op in group.drain(..) {
            self.complete(op)?;
        }
        if self.synced_at.elapsed() >= MARK_SYNC {
            self.sync_mark()?;
        }
        Ok(())
    }

    fn store_mark(&mut self, mark: Mark) -> Result<(), ReadError> {
        self.mark.set(mark).map_err(|error| ReadError(format!("mark: {error}")))
    }

    fn sync_mark(&mut self) -> Result<(), ReadError> {
        self.synced_at = Instant::now();
        if Bug::AckBeforeFsync.is_on() {
            // A mark that knows more than the log would give the lie away at the next start.
            return Ok(());
        }
        self.mark.sync().map_err(|error| ReadError(format!("mark: {error}")))
    }

    fn complete(&mut self, op: Op) -> Result<(), ReadError> {
        match op {
            Op::Append { done, .. } => done.io_completed(Ok(())),
            // The caller may be gone; the vote is stored all the same.
            Op::Vote { done, .. } | Op::Truncate { done, .. } => done.send(()).unwrap_or(()),
            Op::Flush { done } => {
                self.sync_mark()?;
                // The log has everything already. A flush that finds no room would stop all writes for good.
                let room = room_for_memtables(&self.db, LOG_FAMILIES.into_iter());
                if room.is_ok() {
                    for name in LOG_FAMILIES {
                        self.db.flush_cf(family(&self.db, name)?)?;
                    }
                }
                done.send(room).ok();
            }
            Op::Purge { .. } | Op::Lazy { .. } => {}
        }
        Ok(())
    }
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { rows, .. } => rows.iter().map(|(_, value)| value.len()).sum(),
            Self::Vote { .. } | Self::Truncate { .. } | Self::Purge { .. } | Self::Lazy { .. } | Self::Flush { .. } => {
                0
            }
        }
    }
}

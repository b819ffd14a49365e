//! The settler thread: decides when to settle, when to purge the log, and when to release disk space.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::book::settle::{self, Flushed};
use crate::error::ReadError;
use crate::lab_faults::Bug;
use crate::log::store::LogStore;
use crate::node::consensus::Consensus;
use crate::replicate::raft::Raft;
use crate::state::state::State;

/// A step begins when this many bytes of entries wait, or the oldest waits this long.
const STEP_BYTES: u64 = 8 << 20;
const STEP_AGE: Duration = Duration::from_secs(5);
/// The log is purged when this many bytes were settled, or when no new entries arrive.
const PURGE_BYTES: u64 = 64 << 20;
/// With fewer bytes than this to settle, the settler pauses between blocks and leaves the cores to other threads.
const REST_BELOW_BYTES: u64 = 32 << 20;
const REST: Duration = Duration::from_millis(1);
/// Longest time until blocks of trimmed events are deleted, unless a purge of the log flushes the state earlier.
const FORGET_AGE: Duration = Duration::from_secs(5);
/// Most remembered pairs of log index and applied bytes.
const MARKS_MAX: usize = 4096;
const TICK: Duration = Duration::from_millis(200);

/// The background task of a node. Runs on a thread of its own until cancelled.
pub(crate) struct Settler {
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    pub(crate) raft: Raft,
    pub(crate) consensus: Consensus,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) stop: CancellationToken,
    /// Bytes of the log that are kept for nodes that are behind.
    pub(crate) keep_bytes: u64,
}

/// What the settler has done so far: decides when the next step, flush and purge are worth their cost.
#[derive(Default)]
struct Done {
    /// Bytes applied when the last step began: the difference to now is what the next step has to settle.
    stepped: u64,
    /// Bytes applied when the log was last purged.
    purged: u64,
    /// Entries below this are settled in every namespace.
    limit: u64,
    /// The last entry of the newest purge that raft was asked for.
    purged_to: u64,
    /// When the settler last flushed the state.
    flushed: Option<Instant>,
    /// Whether the memtables of the log were flushed after the last purge, which an idle node needs only once.
    idle: bool,
    /// Log indexes with the bytes that were applied at each, oldest first: find the entry up to which a purge keeps
    /// `keep_bytes` of the log.
    marks: VecDeque<(u64, u64)>,
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
        let settled = settle::settle_most(&self.state, &self.log, limit, rest)?;
        if settled.limit() > done.limit {
            done.limit = settled.limit();
            done.idle = false;
        }
        done.stepped = applied_bytes;
        let idle = waiting < STEP_BYTES;
        let due = applied_bytes.saturating_sub(done.purged) >= PURGE_BYTES || idle;
        let limit = self.purge_limit(done, applied_bytes).min(settled.limit());
        let purge = due && done.purged_to < limit;
        let waited = done.flushed.is_none_or(|flushed| flushed.elapsed() >= FORGET_AGE);
        let forget = (purge || waited) && settle::is_forgettable(&self.state);
        if purge || forget {
            let skips = Bug::ForgetBeforeFlush.is_on() && !purge;
            let flushed = if skips { settled.unflushed(&self.state) } else { settled.flush(&self.state)? };
            done.flushed = Some(Instant::now());
            if forget {
                settle::forget(&self.state, &flushed)?;
            }
            if purge {
                done.purged = applied_bytes;
                self.purge(flushed, limit)?;
                done.purged_to = limit;
                self.log.reclaim(false)?;
            }
        }
        if !purge && due && !done.idle {
            done.idle = true;
            self.runtime.block_on(self.log.flush()).map_err(|e| ReadError(e.to_string()))?;
            self.log.reclaim(true)?;
        }
        self.state.ledger().reclaim(idle)
    }

    /// Below which entry the log may go: a node that is behind is waited for, as long as that costs no more
    /// than a bound; the receiver of a snapshot is always waited for.
    fn purge_limit(&self, done: &mut Done, applied_bytes: u64) -> u64 {
        if done.marks.back().is_none_or(|(entry, _)| *entry < done.limit) {
            done.marks.push_back((done.limit, applied_bytes));
        }
        let old = |(_, bytes): &(u64, u64)| applied_bytes.saturating_sub(*bytes) > self.keep_bytes;
        // The newest mark beyond the bound stays: all entries below that mark may go.
        while done.marks.len() > MARKS_MAX || done.marks.get(1).is_some_and(old) {
            done.marks.pop_front();
        }
        let beyond = done.marks.front().filter(|mark| old(mark)).map_or(0, |(entry, _)| *entry);
        // Unknown without a leader: then nothing is given up.
        let slowest = self.runtime.block_on(self.consensus.slowest()).unwrap_or(0);
        let limit = slowest.max(beyond).min(done.limit);
        limit.min(self.state.snapshots.needed().unwrap_or(limit))
    }

    /// Lets openraft purge the log below `limit`. openraft demands that a snapshot was announced before.
    fn purge(&self, flushed: Flushed, limit: u64) -> Result<(), ReadError> {
        let Some(last) = flushed.limit().min(limit).checked_sub(1) else { return Ok(()) };
        self.runtime.block_on(async {
            let failed = |error: &dyn std::fmt::Display| ReadError(format!("raft: {error}"));
            self.raft.trigger().snapshot().await.map_err(|e| failed(&e))?;
            let wait = self.raft.wait(Some(Duration::from_secs(1)));
            let reached = |metrics: &openraft::RaftMetrics<crate::types::Types>| {
                metrics.snapshot.as_ref().is_some_and(|id| id.index >= last)
            };
            if let Err(error) = wait.metrics(reached, "snapshot reaches the settled entry").await {
                tracing::debug!(%error, "the log is purged in a later step");
            }
            self.raft.trigger().purge_log(last).await.map_err(|e| failed(&e))
        })
    }
}

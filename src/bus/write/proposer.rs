//! Admission of writes: is there disk space, and is there room in memory?
//!
//! Batching happens behind the proposer, at the leader, where the proposals of all nodes meet. Here is only what must
//! be decided before a byte is queued.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::disk_space::DiskSpace;
use rollbook_cluster::node::proposal_client::ProposalClient;
use rollbook_cluster::store::disk;
use rollbook_core::command::{Command, Done, Reply};
use rollbook_core::error::Refusal;
use rollbook_core::security::actor::Actor;
use rollbook_core::timed::delayed::DelayedDone;
use tokio_util::sync::CancellationToken;

use crate::base::metrics::Metrics;
use crate::net::budget::Budget;

/// How often the free space of this node is checked.
const DISK_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the leader is asked whether the cluster has space.
const CLUSTER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds of the proposer.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Publishes are refused when less space is free, bytes.
    pub reserve_bytes: u64,
    /// Most bytes of publishes that wait for their answer.
    pub pending_bytes_max: usize,
    /// Most bytes of requests that are being received.
    pub receiving_bytes_max: usize,
}

/// The shared state of all clones of [`Proposer`].
#[derive(Debug)]
struct Inner {
    /// Proposes frames.
    proposals: ProposalClient,
    /// Reports the shortage of this node to the cluster, and knows that of the cluster.
    disk: DiskSpace,
    /// The bounds.
    config: Config,
    /// The counters.
    metrics: Metrics,
    /// Bytes of publishes that wait for their answer.
    pending_bytes: AtomicUsize,
    /// Bytes of requests that are being received.
    receiving: Budget,
    /// Whether publishes are refused for lack of disk space, here or elsewhere in the cluster. Read without the lock
    /// below.
    disk_low: AtomicBool,
    /// What is short.
    lacks: Mutex<Shortage>,
    /// Free bytes at the newest check, for metrics.
    free_bytes: AtomicU64,
    /// Free inodes at the newest check, for metrics.
    free_inodes: AtomicU64,
}

/// What disk space is short, as texts.
#[derive(Debug, Default)]
struct Shortage {
    /// On this node.
    here: Option<String>,
    /// On the leader, or on a majority.
    elsewhere: Option<String>,
}

/// Writes to the book. Clones share one state.
#[derive(Debug, Clone)]
pub struct Proposer {
    inner: Arc<Inner>,
}

/// The bytes of an admitted publish, given back when this is dropped.
struct Permit<'a> {
    pending: &'a AtomicUsize,
    bytes: usize,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.pending.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shortage {
    /// The shortage that publishes are refused for.
    fn reason(&self) -> Option<&str> {
        self.here.as_deref().or(self.elsewhere.as_deref())
    }
}

/// What became of the events of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// They are in their namespace.
    Published {
        /// Position of the first of them.
        first: u64,
        /// How many they are.
        events: u32,
    },
    /// They wait for their time.
    Waiting(DelayedDone),
}

impl Proposer {
    /// A proposer for this node.
    #[must_use]
    pub fn new((proposals, disk): (ProposalClient, DiskSpace), config: Config, metrics: Metrics) -> Self {
        let receiving = Budget::new(config.receiving_bytes_max);
        let inner = Inner {
            proposals,
            disk,
            config,
            metrics,
            receiving,
            pending_bytes: AtomicUsize::new(0),
            disk_low: AtomicBool::new(false),
            lacks: Mutex::default(),
            free_bytes: AtomicU64::new(u64::MAX),
            free_inodes: AtomicU64::new(u64::MAX),
        };
        let proposer = Self { inner: Arc::new(inner) };
        proposer.check_disk();
        proposer
    }

    /// Watches the free space until cancelled.
    pub async fn watch_disk(self, stop: CancellationToken) {
        let here = async {
            let mut tick = tokio::time::interval(DISK_CHECK_INTERVAL);
            loop {
                tick.tick().await;
                self.check_disk();
            }
        };
        let elsewhere = async {
            let mut tick = tokio::time::interval(CLUSTER_CHECK_INTERVAL);
            loop {
                tick.tick().await;
                let elsewhere = self.inner.disk.cluster_shortage().await;
                self.update_shortage(|lacks| lacks.elsewhere = elsewhere);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = here => {}
            () = elsewhere => {}
        }
    }

    /// Checks the free space of this node.
    fn check_disk(&self) {
        let inner = &self.inner;
        match disk::free(&inner.config.data) {
            Ok(free) => {
                inner.free_bytes.store(free.bytes, Ordering::Relaxed);
                inner.free_inodes.store(free.inodes, Ordering::Relaxed);
                let (here, full) = (free.lacks(inner.config.reserve_bytes), free.is_full(inner.config.reserve_bytes));
                inner.disk.report(here.is_some(), full);
                self.update_shortage(|lacks| lacks.here = here);
            }
            Err(error) => tracing::warn!(%error, "free disk space is unknown"),
        }
    }

    /// Changes the shortage. Logs when publishes become refused, or accepted again.
    fn update_shortage(&self, change: impl FnOnce(&mut Shortage)) {
        let inner = &self.inner;
        let mut lacks = lock(&inner.lacks);
        change(&mut lacks);
        let reason = lacks.reason();
        let low = reason.is_some();
        if inner.disk_low.swap(low, Ordering::Relaxed) != low {
            let reason = reason.unwrap_or("there is room again");
            tracing::warn!(low, reason, "free disk space crossed the reserve");
        }
    }

    /// Which disk space is short, while publishes are refused for that.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        if !self.is_disk_low() {
            return None;
        }
        lock(&self.inner.lacks).reason().map(ToOwned::to_owned)
    }

    /// The budget of requests that are being received.
    #[must_use]
    pub fn receiving(&self) -> &Budget {
        &self.inner.receiving
    }

    /// Admits a publish of this size.
    fn admit(&self, bytes: usize) -> Result<Permit<'_>, Refusal> {
        let inner = &*self.inner;
        if let Some(lacks) = self.lacks() {
            return Err(Refusal::InsufficientStorage(lacks));
        }
        let before = inner.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit { pending: &inner.pending_bytes, bytes };
        if before != 0 && before.saturating_add(bytes) > inner.config.pending_bytes_max {
            return Err(Refusal::Overloaded("too many bytes of publishes wait".to_owned()));
        }
        Ok(permit)
    }

    /// Stores the frame of a publish whose events do not wait. Returns the position of its first event, and their number.
    ///
    /// # Errors
    /// Any [`Refusal`]; after [`Refusal::OutcomeUnknown`] the events may or may not be stored.
    pub async fn publish(&self, frame: Bytes) -> Result<(u64, u32), Refusal> {
        match self.store(frame).await? {
            Stored::Published { first, events } => Ok((first, events)),
            Stored::Waiting(_) => Err(Refusal::Malformed("the events of the bus do not wait".to_owned())),
        }
    }

    /// Stores the frame of a publish.
    ///
    /// # Errors
    /// Any [`Refusal`]; after [`Refusal::OutcomeUnknown`] the events may or may not be stored.
    pub async fn store(&self, frame: Bytes) -> Result<Stored, Refusal> {
        let result = match self.admit(frame.len()) {
            Ok(_permit) => self.propose(frame).await,
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok(Done::Published { first, events }) => {
                self.inner.metrics.publishes.inc();
                self.inner.metrics.events.inc_by(u64::from(events));
                Ok(Stored::Published { first, events })
            }
            Ok(Done::Delayed(done)) => {
                self.inner.metrics.publishes.inc();
                self.inner.metrics.events.inc_by(u64::from(done.events));
                Ok(Stored::Waiting(done))
            }
            Ok(_) => Err(Refusal::Malformed("the answer is not that of a publish".to_owned())),
            Err(refusal) => {
                self.inner.metrics.refused.inc();
                Err(refusal)
            }
        }
    }

    /// Proposes any frame. The disk reserve does not apply: deletes and acknowledgements must pass until the leader has
    /// used up nearly all of the reserve.
    ///
    /// # Errors
    /// Any [`Refusal`].
    pub async fn propose(&self, frame: Bytes) -> Reply {
        // The node answers within its own timeout: one timer for each entry, not one for each publish.
        let reply = self.inner.proposals.propose(frame)?;
        reply.await.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown("node is stopping".to_owned())))
    }

    /// Proposes a command.
    ///
    /// # Errors
    /// Any [`Refusal`].
    pub async fn command(&self, command: Command) -> Reply {
        self.propose(command.frame()?.into()).await
    }

    /// Proposes a command that somebody has done, which goes into the audit.
    ///
    /// # Errors
    /// Any [`Refusal`].
    pub async fn command_of(&self, command: Command, actor: Actor) -> Reply {
        self.inner.proposals.command_of(command, actor).await
    }

    /// Free bytes of the data directory at the newest check.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.inner.free_bytes.load(Ordering::Relaxed)
    }

    /// Free inodes of the data directory at the newest check.
    #[must_use]
    pub fn free_inodes(&self) -> u64 {
        self.inner.free_inodes.load(Ordering::Relaxed)
    }

    /// Whether publishes are refused for lack of disk space.
    #[must_use]
    pub fn is_disk_low(&self) -> bool {
        self.inner.disk_low.load(Ordering::Relaxed)
    }
}

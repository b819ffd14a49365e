//! The identity of this node for other nodes: its number, its life, its cluster.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use rollbook_core::level::FeatureLevel;
use rollbook_core::node::Owner;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::NodeError;
use crate::lock::lock;
use crate::store::disk::Shortage;
use crate::store::layout::Layout;

/// Shared by everything that talks to peers.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    /// Random for each process: tells two processes of one number apart.
    pub(crate) process: u64,
    /// The address at which other nodes reach this node.
    pub(crate) address: String,
    /// The nodes that found the cluster, as the configuration lists them.
    pub(crate) founders: BTreeMap<u64, String>,
    /// The highest feature level that this node announces to others.
    pub(crate) level: FeatureLevel,
    incarnation: AtomicU64,
    cluster: RwLock<String>,
    /// Held while the id of the cluster is written to the disk.
    founding: Mutex<()>,
    layout: Layout,
    /// Why this node must not go on, once that is known.
    fatal: watch::Sender<Option<String>>,
    began: Instant,
    /// When a leader was last heard, in milliseconds since `began`, counted from 1.
    heard: AtomicU64,
    /// The disk space that this node lacks.
    pub(crate) shortage: Shortage,
}

impl Identity {
    /// Begins a new life of this node.
    pub(crate) fn begin(
        layout: &Layout,
        id: u64,
        address: String,
        founders: BTreeMap<u64, String>,
    ) -> Result<Self, NodeError> {
        let incarnation = layout.next_incarnation()?;
        let (process, _) = uuid::Uuid::new_v4().as_u64_pair();
        Ok(Self {
            id,
            process,
            address,
            founders,
            level: FeatureLevel::LATEST,
            incarnation: AtomicU64::new(incarnation),
            cluster: RwLock::new(layout.cluster_id()?.unwrap_or_default()),
            founding: Mutex::default(),
            layout: layout.clone(),
            fatal: watch::Sender::new(None),
            began: Instant::now(),
            heard: AtomicU64::new(0),
            shortage: Shortage::default(),
        })
    }

    /// The same node, of a release that knows no more than `level`.
    pub(crate) fn knowing(self, level: FeatureLevel) -> Self {
        Self { level: level.min(FeatureLevel::LATEST), ..self }
    }

    /// This life of this node.
    pub(crate) fn owner(&self) -> Owner {
        Owner { node: self.id, incarnation: self.incarnation.load(Ordering::Relaxed) }
    }

    /// Ends the present life and begins the next: the cluster had given this node up.
    pub(crate) fn live_again(&self, above: u64) -> Result<(), NodeError> {
        let mut next = self.layout.next_incarnation()?;
        while next <= above {
            next = self.layout.next_incarnation()?;
        }
        self.incarnation.store(next, Ordering::Relaxed);
        Ok(())
    }

    /// Id of the cluster, empty before it was founded.
    pub(crate) fn cluster_id(&self) -> String {
        self.cluster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this node belongs to that cluster, for good: it is on the disk when this returns.
    pub(crate) fn belong_to(&self, cluster_id: &str) -> Result<(), NodeError> {
        // A lock of its own, because readers must not wait for the disk.
        let _founding = lock(&self.founding);
        let present = self.cluster_id();
        if present == cluster_id {
            return Ok(());
        }
        if !present.is_empty() {
            return Err(NodeError::Cluster(format!("this node belongs to cluster {present}, not to {cluster_id}")));
        }
        self.layout.set_cluster_id(cluster_id)?;
        cluster_id.clone_into(&mut self.cluster.write().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// This node must not go on.
    pub(crate) fn fail(&self, why: String) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                tracing::error!(reason = %why, "this node must not go on");
                *fatal = Some(why);
            }
            first
        });
    }

    /// Follows whether this node must not go on.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Why this node must not go on, once that is known.
    pub(crate) fn failure(&self) -> Option<String> {
        self.fatal.borrow().clone()
    }

    /// Milliseconds of the life of this process, counted from 1.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A leader was heard now.
    pub(crate) fn hear_leader(&self) {
        self.heard.store(self.millis(), Ordering::Relaxed);
    }

    /// When a leader was last heard, as [`Identity::millis`] counts; 0 when never.
    pub(crate) fn leader_heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

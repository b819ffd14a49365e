//! What every room above the cluster shares: the node, the ways in and out of the book.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use actix::Recipient;
use rollbook_cluster::error::ReadError;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::consumer::Consumer;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use tokio::sync::Semaphore;

use super::delivery::messages::StreamCommand;
use super::live::reply_subjects::ReplySubjects;
use super::read::feed::Feed;
use super::write::proposer::Proposer;
use crate::base::metrics::Metrics;

/// Reads of the book from the disk at the same time; more would only wait for the same disk.
const READS_MAX: usize = 4;

/// A live subscription as others reach it.
#[derive(Debug, Clone)]
pub struct Live {
    /// Which connection has the id now; a newer one has a larger number.
    pub serial: u64,
    /// What it is told.
    pub commands: Recipient<StreamCommand>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    feed: Arc<Feed>,
    proposer: Proposer,
    reply_subjects: ReplySubjects,
    metrics: Metrics,
    reads: Semaphore,
    live: Mutex<HashMap<Box<str>, Live>>,
}

/// The bus of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

impl Bus {
    /// Puts the parts together.
    #[must_use]
    pub fn new(node: Node, feed: Arc<Feed>, proposer: Proposer, metrics: Metrics) -> Self {
        let inner = Inner {
            node,
            feed,
            proposer,
            reply_subjects: ReplySubjects::default(),
            metrics,
            reads: Semaphore::new(READS_MAX),
            live: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// The version of the rules that the cluster follows now.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        self.node().state().with_machine(Machine::level)
    }

    /// New events as they are applied.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.inner.feed
    }

    /// The way into the book.
    #[must_use]
    pub fn proposer(&self) -> &Proposer {
        &self.inner.proposer
    }

    /// Live messages.
    #[must_use]
    pub fn reply_subjects(&self) -> &ReplySubjects {
        &self.inner.reply_subjects
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// A durable consumer, as this node knows it now.
    #[must_use]
    pub fn consumer(&self, namespace: &str, name: &str) -> Option<Consumer> {
        let node = self.node();
        node.state().namespace(namespace).and_then(|head| node.state().consumer(&head, name))
    }

    /// Whether this life of this node serves the consumer, or nobody has claimed it, and the consumer was not reset
    /// since it was of this generation.
    #[must_use]
    pub fn serves(&self, namespace: &str, name: &str, generation: u64) -> bool {
        let ours = |known: &Consumer| known.owner.is_none_or(|owner| owner == self.node().owner());
        self.consumer(namespace, name).is_some_and(|known| ours(&known) && known.generation == generation)
    }

    /// Runs a read that may touch the disk, off the async threads.
    ///
    /// # Errors
    /// What the read answers; also when the node is stopping.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let stopping = |_| ReadError("node is stopping".to_owned());
        let _permit = self.inner.reads.acquire().await.map_err(|_| ReadError("node is stopping".to_owned()))?;
        tokio::task::spawn_blocking(read).await.map_err(stopping)?
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Box<str>, Live>> {
        lock(&self.inner.live)
    }

    /// Makes a subscription reachable by its consumer id; the one that had the id before is returned.
    #[must_use]
    pub fn enlist(&self, consumer_id: &str, live: Live) -> Option<Live> {
        self.inner.metrics.subscriptions.inc();
        self.live().insert(consumer_id.into(), live)
    }

    /// Takes a subscription off the list, unless another has the id by now.
    pub fn delist(&self, consumer_id: &str, serial: u64) {
        self.inner.metrics.subscriptions.dec();
        let mut live = self.live();
        if live.get(consumer_id).is_some_and(|now| now.serial == serial) {
            live.remove(consumer_id);
        }
    }

    /// The live subscription with this consumer id.
    #[must_use]
    pub fn find(&self, consumer_id: &str) -> Option<Live> {
        self.live().get(consumer_id).cloned()
    }

    /// All live subscriptions.
    #[must_use]
    pub fn all_live(&self) -> Vec<Live> {
        self.live().values().cloned().collect()
    }
}

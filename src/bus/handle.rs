//! What every room of the bus shares: the node, the ways into and out of the book, and the list of live subscriptions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use actix::Recipient;
use rollbook_cluster::error::ReadError;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::consumer::Consumer;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use rollbook_core::subjects::pattern::Pattern;
use tokio::sync::Semaphore;

use super::delivery::messages::StreamCommand;
use super::live::reply_subjects::ReplySubjects;
use super::live::subjects::LiveSubjects;
use super::read::feed::Feed;
use super::security::authority::Authority;
use super::security::identity::Identity;
use super::write::proposer::Proposer;
use crate::base::metrics::Metrics;

/// Most reads of the book from the disk at the same time. More would wait for the same disk.
const READS_MAX: usize = 4;

/// A live subscription, as other actors reach it.
#[derive(Debug, Clone)]
pub struct Live {
    /// Number of the connection. A newer connection with the same consumer id has a larger number.
    pub serial: u64,
    /// Whose subscription it is.
    pub identity: Arc<Identity>,
    /// What it subscribes to.
    pub pattern: Pattern,
    /// Where commands to the subscription go.
    pub commands: Recipient<StreamCommand>,
}

/// The shared state of all clones of [`Bus`].
#[derive(Debug)]
struct Inner {
    /// The node of the cluster.
    node: Node,
    /// Who clients are, and what they may do.
    authority: Authority,
    /// Delivers new events to streams that have caught up.
    feed: Arc<Feed>,
    /// Writes to the book.
    proposer: Proposer,
    /// Listeners of inbox subjects.
    reply_subjects: ReplySubjects,
    /// Subscriptions to live subjects.
    live_subjects: LiveSubjects,
    /// The counters.
    metrics: Metrics,
    /// Bounds the reads of the disk.
    reads: Semaphore,
    /// The live subscriptions of this node, by consumer id.
    live: Mutex<HashMap<Box<str>, Live>>,
}

/// The bus of a node. Clones share one state.
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

impl Bus {
    /// Builds the bus.
    #[must_use]
    pub fn new((node, authority): (Node, Authority), feed: Arc<Feed>, proposer: Proposer, metrics: Metrics) -> Self {
        let live_subjects = LiveSubjects::new(node.owner().incarnation);
        let inner = Inner {
            node,
            authority,
            feed,
            proposer,
            reply_subjects: ReplySubjects::default(),
            live_subjects,
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

    /// Who clients are, and what they may do.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// The feature level that the cluster follows now.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        self.node().state().with_machine(Machine::level)
    }

    /// The feed of new events.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.inner.feed
    }

    /// The proposer of writes.
    #[must_use]
    pub fn proposer(&self) -> &Proposer {
        &self.inner.proposer
    }

    /// The listeners of inbox subjects.
    #[must_use]
    pub fn reply_subjects(&self) -> &ReplySubjects {
        &self.inner.reply_subjects
    }

    /// Subscriptions to live subjects.
    #[must_use]
    pub fn live_subjects(&self) -> &LiveSubjects {
        &self.inner.live_subjects
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// A durable consumer, as this node has applied it.
    #[must_use]
    pub fn consumer(&self, namespace: &str, name: &str) -> Option<Consumer> {
        let node = self.node();
        node.state().namespace(namespace).and_then(|head| node.state().consumer(&head, name))
    }

    /// Whether this life of this node serves the consumer, or no node has claimed it, and the cursor still has this
    /// generation: a reset begins the next one.
    #[must_use]
    pub fn serves(&self, namespace: &str, name: &str, generation: u64) -> bool {
        let ours = |known: &Consumer| known.owner.is_none_or(|owner| owner == self.node().owner());
        self.consumer(namespace, name).is_some_and(|known| ours(&known) && known.generation == generation)
    }

    /// Runs a read that may touch the disk, outside the async threads.
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

    /// Lists a subscription under its consumer id. Returns the subscription that had the id before.
    #[must_use]
    pub fn enlist(&self, consumer_id: &str, live: Live) -> Option<Live> {
        self.inner.metrics.subscriptions.inc();
        self.live().insert(consumer_id.into(), live)
    }

    /// Removes a subscription from the list, unless another one has the id by now.
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

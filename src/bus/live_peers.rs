//! Live subjects between nodes: sends what waits for other nodes, and takes what they send.
//!
//! A node tells each other node its interest, in numbered changes. A node that misses a change, because a connection
//! broke, sees that from the numbers of the next batch and demands the whole. Every second there is a batch, so a node
//! does not miss the last change for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rollbook_cluster::live::Live;
use rollbook_cluster::lock::lock;
use rollbook_core::error::Refusal;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::live::exchange::{Peer, Received, encode};
use super::live::peers::PeerQueue;
use super::live::subjects::LiveSubjects;
use super::live::wire;
use super::relay::peer_client::PeerClient;
use crate::base::clock;
use crate::base::metrics::Metrics;

/// The name under which nodes send live messages to each other.
pub const NAME: &str = "live";
/// Shortest time between two looks which other nodes there are.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time without a batch, so that a node notices what it has missed.
const TICK: Duration = Duration::from_secs(1);
/// Pause before a batch is sent again to a node that is too busy.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Pause after a batch that could not be sent.
const LOST_PAUSE: Duration = Duration::from_millis(100);
/// How long a batch is tried again at a node that is too busy. Then what the node has missed is told anew.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two demands of the whole interest of a node.
const DEMAND_PAUSE: Duration = Duration::from_millis(500);

/// The live subjects of this node, as other nodes reach them.
#[derive(Debug)]
pub struct LivePeers {
    subjects: LiveSubjects,
    peers: PeerClient,
    metrics: Metrics,
    /// What is known of each node, behind a lock that whoever handles a batch of the node holds to its end: an old and a
    /// new connection of one node may be read at the same time.
    states: Mutex<HashMap<u64, Arc<Mutex<Peer>>>>,
}

impl LivePeers {
    /// The live subjects of this node.
    #[must_use]
    pub fn new(subjects: LiveSubjects, peers: PeerClient, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { subjects, peers, metrics, states: Mutex::default() })
    }

    /// Sends what waits for other nodes, until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut senders: HashMap<u64, DropGuard> = HashMap::new();
        let mut applied = self.peers.applied();
        let follow = async {
            loop {
                applied.mark_unchanged();
                let up = self.peers.others_up();
                senders.retain(|node, _| up.contains(node));
                for node in self.subjects.remote_nodes().into_iter().filter(|node| !up.contains(node)) {
                    self.forget(node);
                }
                for node in up {
                    senders.entry(node).or_insert_with(|| self.start_sender(node));
                }
                self.metrics.live_dropped.inc_by(self.subjects.peers().take_dropped());
                // Nodes come and go by entries of the log.
                tokio::time::sleep(LOOK).await;
                drop(tokio::time::timeout(TICK, applied.changed()).await);
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    fn peer(&self, node: u64) -> Arc<Mutex<Peer>> {
        Arc::clone(lock(&self.states).entry(node).or_default())
    }

    /// Nothing that a node wanted counts any more.
    fn forget(&self, node: u64) {
        let peer = self.peer(node);
        let mut peer = lock(&peer);
        peer.forget(&self.subjects, node);
    }

    /// Starts to send to a node, until the guard is dropped. A task of its own: a slow node must not delay others.
    fn start_sender(self: &Arc<Self>, node: u64) -> DropGuard {
        let (ended, live) = (CancellationToken::new(), Arc::clone(self));
        let guard = ended.clone().drop_guard();
        let queue = self.subjects.peers().open(node);
        actix_web::rt::spawn(async move {
            ended.run_until_cancelled(live.send_to(node, &queue)).await;
            live.subjects.peers().close(node, &queue);
        });
        guard
    }

    async fn send_to(&self, node: u64, queue: &PeerQueue) {
        loop {
            // With nothing to send after a second, an empty batch says which version the node should know.
            let batch = queue.take(self.subjects.peers().incarnation());
            let messages = batch.messages;
            if self.send_all(node, encode(&self.subjects, batch)).await.is_err() {
                queue.forget();
                self.subjects.peers().lose(messages);
                tokio::time::sleep(LOST_PAUSE).await;
            } else if !queue.has_more() {
                drop(tokio::time::timeout(TICK, queue.more.notified()).await);
            }
        }
    }

    async fn send_all(&self, node: u64, batches: Vec<Bytes>) -> Result<(), Refusal> {
        for batch in batches {
            self.send(node, PeerClient::door_message(NAME, batch)).await?;
        }
        Ok(())
    }

    async fn send(&self, node: u64, message: Bytes) -> Result<(), Refusal> {
        let until = clock::now() + BUSY_MAX;
        loop {
            match self.peers.tell_in_order(node, message.clone()).await {
                Err(Refusal::Overloaded(_)) if clock::now() < until => tokio::time::sleep(BUSY_PAUSE).await,
                sent => return sent,
            }
        }
    }

    /// Handles a batch of another node.
    fn receive(&self, from: u64, bytes: Bytes) {
        let peer = self.peer(from);
        let mut peer = lock(&peer);
        if peer.receive(&self.subjects, from, bytes) == Received::OutOfStep {
            self.demand(from, &mut peer);
        }
    }

    /// Demands the whole interest of a node, unless that was done just now.
    fn demand(&self, node: u64, peer: &mut Peer) {
        let now = clock::now();
        if peer.demanded.is_none_or(|at| now.saturating_duration_since(at) >= DEMAND_PAUSE) {
            peer.demanded = Some(now);
            self.peers.tell_door(node, NAME, Bytes::from_static(&[wire::TELL_ALL]));
        }
    }
}

impl Live for LivePeers {
    fn hear(&self, from: u64, mut message: Bytes) {
        match message.try_get_u8() {
            Ok(wire::BATCH) => self.receive(from, message),
            Ok(wire::TELL_ALL) => self.subjects.peers().forget(from),
            _ => tracing::warn!(from, "a live message that cannot be read"),
        }
    }

    fn answer(&self, _: u64, _: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        std::future::ready(Err(Refusal::Malformed("live messages have no answers".to_owned()))).boxed()
    }
}

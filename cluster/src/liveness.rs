//! Watches the connections to the other nodes. One that ends is a sign acted on at once: when it was the
//! leader's and nobody listens there any more, its followers need not wait for its lease to run out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use rollbook_core::command::{Command, NodeDown};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::members;
use crate::node::Node;
use crate::peer::conn::Conn;
use crate::peer::identity::Identity;
use crate::peer::link::{DialError, Links, Purpose};
use crate::raft::Raft;
use crate::types::Vote;

/// How often the list of nodes is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a call may take.
const DIAL_MAX: Duration = Duration::from_secs(1);
/// Between calls of a node that is not there.
const REDIAL: Duration = Duration::from_millis(250);
/// How often, and how long each time, a leader whose connection ended is asked whether it lives. The end of
/// a connection is seen before its listener is closed.
const PROBES: u32 = 40;
const PROBE_MAX: Duration = Duration::from_millis(100);
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// How often an election is tried before silence decides.
const ELECTIONS_MAX: u32 = 10;

/// Keeps a connection to every other node.
pub(crate) struct Liveness {
    pub(crate) node: Node,
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
}

enum Probe {
    Dead,
    Alive(Option<Conn>),
    Unknown,
}

/// A number of milliseconds at random, so that nodes do not act in the same instant.
fn between(from: u64, to: u64) -> Duration {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    Duration::from_millis(from.saturating_add(random % to.saturating_sub(from).max(1)))
}

impl Liveness {
    /// Watches until cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut keepers: BTreeMap<u64, JoinHandle<()>> = BTreeMap::new();
        while !stop.is_cancelled() {
            let nodes = this.others();
            keepers.retain(|node, keeper| {
                let stays = nodes.contains(node);
                if !stays {
                    keeper.abort();
                }
                stays
            });
            for node in nodes {
                keepers.entry(node).or_insert_with(|| tokio::spawn(Arc::clone(&this).keep(node)));
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        keepers.values().for_each(JoinHandle::abort);
    }

    fn others(&self) -> Vec<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.nodes().map(|(id, _)| *id);
        let mut nodes: Vec<u64> = members.collect();
        if nodes.is_empty() {
            nodes.extend(self.identity.founders.keys());
        }
        nodes.retain(|node| *node != self.identity.id);
        nodes
    }

    async fn keep(self: Arc<Self>, node: u64) {
        let mut next: Option<Conn> = None;
        loop {
            let dialed = match next.take() {
                Some(conn) => Ok(conn),
                None => self.links.dial(node, Purpose::Control, DIAL_MAX).await,
            };
            match dialed {
                Ok(conn) => {
                    let conn = self.links.keep(node, Purpose::Control, conn);
                    conn.closed().await;
                    next = self.lost(node, conn.process).await;
                }
                Err(error) => {
                    tracing::debug!(node, %error, "a node cannot be called");
                    tokio::time::sleep(REDIAL).await;
                }
            }
        }
    }

    fn leads(&self, node: u64) -> bool {
        self.raft.server_metrics().borrow_watched().current_leader == Some(node)
    }

    /// The connection to a node has ended. A new one, when the node lives.
    async fn lost(&self, node: u64, process: u64) -> Option<Conn> {
        let led = self.leads(node);
        if !led && !self.raft.is_leader() {
            return None;
        }
        let vote = members::vote(&self.raft);
        let life = self.node.life_of(node);
        match self.probe(node, process).await {
            Probe::Alive(conn) => return conn,
            Probe::Unknown => {
                tracing::warn!(node, "the connection to a node was lost; it may be alive");
                return None;
            }
            Probe::Dead => {}
        }
        tracing::warn!(node, leader = led, "a node is dead");
        if led {
            self.succeed(node, vote).await;
        }
        // Whoever leads now takes it off the roll, so that others serve what it served.
        if let Some(owner) = life.filter(|_| self.raft.is_leader()) {
            let down = NodeDown { id: owner.node, incarnation: owner.incarnation, reason: "lost".to_owned() };
            if let Err(refusal) = self.node.command(Command::NodeDown(down)).await {
                tracing::debug!(%refusal, "the list of nodes could not be changed; it will be tried again");
            }
        }
        None
    }

    /// Ends the lease of a leader that is dead, and sees to it that there is another.
    async fn succeed(&self, leader: u64, vote: Vote) {
        // As if it had handed over: its lease ends now. Only when it is certain: a reset under a living
        // leader would depose it.
        let request = TransferLeaderRequest::new(vote, leader, None);
        if let Err(error) = self.raft.handle_transfer_leader(request).await {
            tracing::debug!(%error, "raft has stopped");
            return;
        }
        for attempt in 0..ELECTIONS_MAX {
            let (from, to) = if attempt == 0 { (10, 80) } else { (100, 200) };
            tokio::time::sleep(between(from, to)).await;
            if !self.leads(leader) && self.raft.current_leader().await.is_some() {
                return;
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
        }
    }

    async fn probe(&self, node: u64, process: u64) -> Probe {
        for _ in 0..PROBES {
            match self.links.dial(node, Purpose::Control, PROBE_MAX).await {
                // Another process under the same number: the one that led is gone.
                Ok(conn) if conn.process != process => return Probe::Dead,
                Ok(conn) => return Probe::Alive(Some(conn)),
                Err(DialError::Gone(_)) => return Probe::Dead,
                Err(DialError::Unwelcome(_)) => return Probe::Alive(None),
                Err(DialError::Failed(_)) => tokio::time::sleep(PROBE_PAUSE).await,
            }
        }
        Probe::Unknown
    }
}

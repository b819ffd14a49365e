//! Watches the connections to the other nodes. The end of a connection is acted on at once: when the connection was the
//! leader's and no process listens there any more, the followers need not wait until the leader's lease runs out.
//!
//! A network that loses every packet ends nothing by itself. So each node is asked for signs of life all the time; two
//! that do not come end all connections to that node, and new ones are dialed until one is there. The answers also
//! say how long a round trip takes, and what the leader knows of its majority.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use prost::Message as _;
use rollbook_core::command::{Command, NodeDown};
use rollbook_core::node::Owner;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lab_faults::Bug;
use crate::lock::lock;
use crate::member::members;
use crate::node::proposal_client::ProposalClient;
use crate::peer::conn::{CallError, Conn};
use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{DialError, Links, Purpose};
use crate::peer::pulse::{Pace, Pong, RoundTrips};
use crate::replicate::contact::Contact;
use crate::replicate::raft::Raft;
use crate::state::state::State;
use crate::timing::Timing;
use crate::types::Vote;

/// How often the list of nodes is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Between calls of a node that is not there.
const REDIAL: Duration = Duration::from_millis(250);
/// Signs of life that may fail to come, one after the other.
const LATE_MAX: u32 = 2;
/// How often a leader whose connection ended is asked whether it lives. The end of a connection is seen before its
/// listener is closed.
const PROBES: u32 = 40;
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// How often an election is tried before silence decides.
const ELECTIONS_MAX: u32 = 10;

/// Keeps a connection to every other node.
pub(crate) struct Liveness {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) state: Arc<State>,
    pub(crate) proposals: ProposalClient,
    /// How long the last round trips to each node took.
    pub(crate) round_trips: Mutex<BTreeMap<u64, RoundTrips>>,
}

/// The result of a probe of a node.
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
    fn timing(&self) -> Timing {
        self.links.timing()
    }

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
                    lock(&this.round_trips).remove(node);
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
        loop {
            match self.links.conn(node, Purpose::Control, self.timing().dial()).await {
                Ok(conn) => {
                    tokio::select! {
                        () = conn.closed() => {}
                        () = self.ping(node, &conn) => {}
                    }
                    self.links.cut(node);
                    if let Some(conn) = self.lost(node, &conn).await
                        && self.links.present(node, Purpose::Control).is_none()
                    {
                        self.links.keep(node, Purpose::Control, conn);
                    }
                }
                Err(error) => {
                    tracing::debug!(node, %error, "a node cannot be called");
                    tokio::time::sleep(REDIAL).await;
                }
            }
        }
    }

    /// Asks for signs of life until they do not come any more.
    async fn ping(&self, node: u64, conn: &Arc<Conn>) {
        let timing = self.timing();
        let mut late = 0;
        while late < LATE_MAX {
            let (sent, began) = (self.identity.millis(), Instant::now());
            match conn.call(Kind::Ping, Bytes::new(), timing.ping_max()).await {
                Ok(pong) => {
                    late = 0;
                    if let Ok(pong) = Pong::decode(pong) {
                        self.contact.hear(node, sent, &pong);
                    }
                    self.note(node, began.elapsed());
                }
                Err(CallError::Late) => late += u32::from(!Bug::SilenceBelieved.is_on()),
                Err(CallError::Lost | CallError::Unreachable(_)) => return,
                // An answer all the same.
                Err(CallError::NotLeader | CallError::Refused(_) | CallError::Protocol(_)) => late = 0,
            }
            tokio::time::sleep(timing.ping()).await;
        }
        tracing::warn!(node, "no sign of life of a node; its connections are ended");
    }

    /// Says when a link is too slow for the heartbeat, or well again.
    fn note(&self, node: u64, round_trip: Duration) {
        let timing = self.timing();
        let pace = lock(&self.round_trips).entry(node).or_default().note(round_trip, timing.round_trip_max());
        match pace {
            None => {}
            Some(Pace::Slow(round_trip)) => tracing::warn!(
                node,
                "a round trip takes {} ms, more than cluster.heartbeat = {} ms allows; leaders will be replaced without need: set it to {} ms on all nodes",
                round_trip.as_millis(),
                timing.heartbeat().as_millis(),
                Timing::needed(round_trip).as_millis()
            ),
            Some(Pace::Well(round_trip)) => {
                tracing::info!(node, "a round trip takes {} ms: short enough again", round_trip.as_millis());
            }
        }
    }

    /// The longest of the usual round trips.
    fn round_trip(&self) -> Duration {
        lock(&self.round_trips).values().filter_map(RoundTrips::median).max().unwrap_or_default()
    }

    /// The present life of a node, as the cluster knows it.
    fn life_of(&self, id: u64) -> Option<Owner> {
        let machine = self.state.machine();
        machine.node(id).filter(|row| row.up).map(|row| Owner { node: id, incarnation: row.incarnation })
    }

    fn leads(&self, node: u64) -> bool {
        self.raft.server_metrics().borrow_watched().current_leader == Some(node)
    }

    /// The connection to a node has ended. A new one, when the node lives.
    async fn lost(&self, node: u64, ended: &Conn) -> Option<Conn> {
        let led = self.leads(node);
        if !led && !self.raft.is_leader() {
            return None;
        }
        let vote = members::vote(&self.raft);
        let life = self.life_of(node);
        match probe(&self.links, node, ended).await {
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
        // The leader takes the dead node off the roll, so that other nodes serve its consumers.
        if let Some(owner) = life.filter(|_| self.raft.is_leader()) {
            let down = NodeDown { id: owner.node, incarnation: owner.incarnation, reason: "lost".to_owned() };
            if let Err(refusal) = self.proposals.command(Command::NodeDown(down)).await {
                tracing::debug!(%refusal, "the list of nodes could not be changed; it will be tried again");
            }
        }
        None
    }

    /// Ends the lease of a dead leader, and calls elections until there is another leader.
    async fn succeed(&self, leader: u64, vote: Vote) {
        // As if the leader had handed over: its lease ends now. Only when the death is certain: a reset under a living
        // leader would depose that leader.
        let request = TransferLeaderRequest::new(vote, leader, None);
        if let Err(error) = self.raft.handle_transfer_leader(request).await {
            tracing::debug!(%error, "raft has stopped");
            return;
        }
        for attempt in 0..ELECTIONS_MAX {
            let (from, to) = if attempt == 0 { (10, 80) } else { (100, 200) };
            // The attempt before must have had its pre-vote and its vote.
            let rounds = if attempt == 0 { Duration::ZERO } else { self.round_trip().saturating_mul(2) };
            tokio::time::sleep(between(from, to) + rounds).await;
            if !self.leads(leader) && self.raft.current_leader().await.is_some() {
                return;
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
        }
    }
}

/// Whether the process at the other end of a connection that ended is dead. Only the address of that connection can
/// say so: at another address, where the node was once or is to be, no process may listen although the node lives.
async fn probe(links: &Links, node: u64, ended: &Conn) -> Probe {
    let timing = links.timing();
    let until = Instant::now() + timing.probe();
    for _ in 0..PROBES {
        match links.dial_at(node, Purpose::Control, &ended.address, timing.connect()).await {
            // Another process runs under the same number: the process that led has ended.
            Ok(conn) if conn.process != ended.process => return Probe::Dead,
            Ok(conn) => return Probe::Alive(Some(conn)),
            Err(DialError::Gone(_)) => return Probe::Dead,
            Err(DialError::HelloRefused(_)) => return Probe::Alive(None),
            Err(DialError::Failed(_)) => {}
        }
        if Instant::now() >= until {
            break;
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    // The node may have moved to another address.
    match links.dial(node, Purpose::Control).await {
        Ok(conn) if conn.process != ended.process => Probe::Dead,
        Ok(conn) => Probe::Alive(Some(conn)),
        Err(_) => Probe::Unknown,
    }
}

#[cfg(test)]
mod tests;

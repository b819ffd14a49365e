//! Which nodes are up: every node proposes `NodeUp` for its own life, and the leader proposes `NodeDown` for nodes that
//! were silent for too long.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use rollbook_core::command::{ClusterCreate, Command, NodeDown, NodeUp};
use rollbook_core::node::Node as Row;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::level::LevelRaiser;
use crate::node::membership::Membership;
use crate::node::proposal_client::ProposalClient;
use crate::peer::identity::Identity;
use crate::replicate::contact::Contact;
use crate::replicate::raft::Raft;
use crate::state::state::State;

const LOOK: Duration = Duration::from_millis(100);
/// How long the first leader waits for the other founders before it names the cluster.
const FOUNDERS_MAX: Duration = Duration::from_secs(2);

/// The task that keeps a node on the list of nodes.
pub(crate) struct Presence {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) state: Arc<State>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) membership: Membership,
    pub(crate) proposals: ProposalClient,
    pub(crate) level: Arc<LevelRaiser>,
    /// A node that was silent for this long counts as lost.
    pub(crate) node_timeout: Duration,
}

impl Presence {
    /// Looks until cancelled. Nothing is proposed any more when this returns.
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.look()).await;
    }

    async fn look(&self) {
        let mut led_since: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let stopped = self.raft.metrics().borrow_watched().running_state.clone();
            if let Err(fatal) = stopped {
                // Only a new start of the process brings raft back.
                return self.identity.fail(format!("raft has stopped: {fatal}"));
            }
            if self.contact.ready().is_err() {
                led_since = None;
                continue;
            }
            self.be_known().await;
            if self.raft.is_leader() {
                let since = *led_since.get_or_insert_with(Instant::now);
                self.name_cluster(since).await;
                self.membership.complete_changes();
                // A new leader hears of a node for the first time when that node answers it.
                if since.elapsed() > self.node_timeout {
                    self.miss().await;
                }
            } else {
                led_since = None;
            }
        }
    }

    /// The first leader writes the id of the cluster into the log, and any leader raises the feature level when all
    /// members know more.
    async fn name_cluster(&self, led_since: Instant) {
        let known = self.level.raise().await;
        let cluster_id = self.identity.cluster_id();
        if self.state.machine().cluster_id().is_empty() && !cluster_id.is_empty() {
            if !known && led_since.elapsed() < FOUNDERS_MAX {
                // A new cluster has the newest rules from its first event on, unless a founder is lost meanwhile.
                return;
            }
            self.propose(Command::ClusterCreate(ClusterCreate { cluster_id })).await;
        }
    }

    /// Makes this life of this node known.
    pub(crate) async fn be_known(&self) {
        let identity = &self.identity;
        let row: Row = self.state.machine().node(identity.id).cloned().unwrap_or_default();
        if row.removed {
            return identity.fail(format!("node {} was removed from the cluster", identity.id));
        }
        let life = identity.owner().incarnation;
        if row.up && row.incarnation == life && row.address == identity.address {
            return;
        }
        let ended = row.incarnation > life || (row.incarnation == life && !row.up);
        if ended {
            tracing::warn!("the cluster had given this node up; it begins a new life");
            if let Err(error) = identity.live_again(row.incarnation) {
                return identity.fail(error.to_string());
            }
        }
        let owner = identity.owner();
        let up = NodeUp { id: owner.node, incarnation: owner.incarnation, address: identity.address.clone() };
        self.propose(Command::NodeUp(up)).await;
    }

    /// Takes nodes off the list that do not answer.
    async fn miss(&self) {
        let this = self.identity.id;
        // A copy, because raft waits while a borrow of its metrics is held.
        let heartbeats = self.raft.metrics().borrow_watched().heartbeat.clone();
        let Some(heartbeats) = heartbeats else { return };
        let silent: Vec<Row> = {
            let answers = |id: u64| {
                let at = heartbeats.get(&id).copied().flatten();
                at.is_some_and(|at| at.elapsed() < self.node_timeout)
            };
            let machine = self.state.machine();
            let gone = |row: &&Row| row.up && row.id != this && !answers(row.id);
            machine.nodes().filter(gone).cloned().collect()
        };
        for row in silent {
            tracing::warn!(node = row.id, incarnation = row.incarnation, "a node is lost");
            let down = NodeDown { id: row.id, incarnation: row.incarnation, reason: "lost".to_owned() };
            self.propose(Command::NodeDown(down)).await;
        }
    }

    async fn propose(&self, command: Command) {
        if let Err(refusal) = self.proposals.command(command).await {
            tracing::debug!(%refusal, "the list of nodes could not be changed; it will be tried again");
        }
    }
}

/// Takes a node that stops off the list.
pub(crate) async fn leave(identity: &Identity, proposals: &ProposalClient) {
    let owner = identity.owner();
    let down = NodeDown { id: owner.node, incarnation: owner.incarnation, reason: "stopped".to_owned() };
    let said = tokio::time::timeout(Duration::from_millis(500), proposals.command(Command::NodeDown(down)));
    if !matches!(said.await, Ok(Ok(_))) {
        tracing::debug!("the others will notice by themselves that this node has stopped");
    }
}

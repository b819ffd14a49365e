//! Changes of the membership: one at a time, by the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::BasicNode;
use openraft::{ChangeMembers, Instant as _};
use prost::Message as _;
use rollbook_core::command::{Command, Done, NodeAllocate, NodeRemove, Reply};
use rollbook_core::error::Refusal;
use rollbook_core::node::Node;
use tokio::sync::Mutex;

use crate::peer::conn::CallError;
use crate::peer::identity::Identity;
use crate::raft::Raft;
use crate::types::{Types, Vote};

/// How long a hand-over of leadership may take.
const TRANSFER_MAX: Duration = Duration::from_secs(3);
/// How far behind a node may be to become a voter, entries.
const LAG_MAX: u64 = 1000;

/// A change that somebody wants.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Change {
    /// A new node at this address, as a learner.
    #[prost(string, tag = "1")]
    Join(String),
    /// The learner becomes a voter.
    #[prost(uint64, tag = "2")]
    Promote(u64),
    /// The node leaves for good.
    #[prost(uint64, tag = "3")]
    Remove(u64),
    /// The node becomes leader; 0 means whoever is best.
    #[prost(uint64, tag = "4")]
    Transfer(u64),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(oneof = "Change", tags = "1, 2, 3, 4")]
    change: Option<Change>,
}

impl Change {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        Envelope { change: Some(self.clone()) }.encode_to_vec()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Envelope::decode(bytes).ok()?.change
    }
}

/// Puts a command into the log.
pub(crate) type Propose = dyn Fn(Command) -> BoxFuture<'static, Reply> + Send + Sync;

/// Changes the membership, as the leader.
pub(crate) struct Members {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) turn: Mutex<()>,
}

fn membership(text: impl Into<String>) -> Refusal {
    Refusal::Membership(text.into())
}

fn write_error(error: RaftError<Types, ClientWriteError<Types>>) -> CallError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => CallError::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            CallError::Refused(Refusal::OutcomeUnknown("leadership was lost".to_owned()))
        }
        RaftError::APIError(other) => CallError::Refused(membership(other.to_string())),
        RaftError::Fatal(fatal) => CallError::Refused(Refusal::Unavailable(fatal.to_string())),
    }
}

impl Members {
    /// Carries out a change. `propose` puts a command into the log.
    ///
    /// # Errors
    /// [`CallError::NotLeader`] when nothing was done because this node does not lead; otherwise a refusal.
    pub(crate) async fn change(&self, change: Change, propose: &Propose) -> Result<Node, CallError> {
        let _turn = self.turn.lock().await;
        if !self.raft.is_leader() {
            return Err(CallError::NotLeader);
        }
        match change {
            Change::Join(address) => self.join(address, propose).await,
            Change::Promote(id) => self.promote(id).await,
            Change::Remove(id) => self.remove(id, propose).await,
            Change::Transfer(to) => self.transfer(to).await,
        }
    }

    fn known(&self, id: u64) -> Result<Node, CallError> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.get_node(&id) {
            Some(node) => Ok(Node { id, address: node.addr.clone(), ..Node::default() }),
            None => Err(CallError::Refused(Refusal::NodeNotFound(id.to_string()))),
        }
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.raft.voter_ids().collect()
    }

    async fn join(&self, address: String, propose: &Propose) -> Result<Node, CallError> {
        let above = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.nodes().map(|(id, _)| *id).max().unwrap_or(0)
        };
        let allocate = Command::NodeAllocate(NodeAllocate { address, above });
        let node = match propose(allocate).await.map_err(CallError::Refused)? {
            Done::Node(node) => node,
            _ => return Err(CallError::Protocol("an answer of another kind")),
        };
        self.raft.add_learner(node.id, BasicNode::new(&node.address), false).await.map_err(write_error)?;
        tracing::info!(node = node.id, address = %node.address, "a node joins as a learner");
        Ok(node)
    }

    async fn promote(&self, id: u64) -> Result<Node, CallError> {
        let node = self.known(id)?;
        if self.voters().contains(&id) {
            return Ok(node);
        }
        let (last, matched) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
            (metrics.last_log_index.unwrap_or(0), matched.map_or(0, |id| id.index))
        };
        let lag = last.saturating_sub(matched);
        if lag > LAG_MAX {
            let text = format!("node {id} is {lag} entries behind; it can vote when it has caught up");
            return Err(CallError::Refused(membership(text)));
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.raft.change_membership(change, true).await.map_err(write_error)?;
        tracing::info!(node = id, "a node votes from now on");
        Ok(node)
    }

    async fn remove(&self, id: u64, propose: &Propose) -> Result<Node, CallError> {
        let node = self.known(id)?;
        if id == self.identity.id {
            self.transfer(0).await?;
            // Whoever leads now carries it out.
            return Err(CallError::NotLeader);
        }
        let voters = self.voters();
        if voters.contains(&id) {
            if voters.len() == 1 {
                return Err(CallError::Refused(membership("the last voter cannot be removed")));
            }
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
            self.raft.change_membership(change, false).await.map_err(write_error)?;
        }
        if self.known(id).is_ok() {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            self.raft.change_membership(change, false).await.map_err(write_error)?;
        }
        propose(Command::NodeRemove(NodeRemove { id })).await.map_err(CallError::Refused)?;
        tracing::info!(node = id, "a node was removed");
        Ok(node)
    }

    /// Hands leadership to `to`, or to the voter that has most of the log.
    pub(crate) async fn transfer(&self, to: u64) -> Result<Node, CallError> {
        let target = if to == 0 { self.best_successor() } else { Some(to) };
        let target = target.ok_or_else(|| CallError::Refused(membership("there is no other voter")))?;
        let node = self.known(target)?;
        if !self.voters().contains(&target) {
            return Err(CallError::Refused(membership(format!("node {target} does not vote"))));
        }
        if target == self.identity.id {
            return Ok(node);
        }
        let stopped = |error: &dyn std::fmt::Display| CallError::Refused(Refusal::Unavailable(error.to_string()));
        self.raft.trigger().transfer_leader(target).await.map_err(|fatal| stopped(&fatal))?;
        let until = Instant::now() + TRANSFER_MAX;
        let mut metrics = self.raft.server_metrics();
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if leader.is_some_and(|leader| leader != self.identity.id) {
                return Ok(node);
            }
            if Instant::now() >= until {
                return Err(CallError::Refused(membership(format!("node {target} did not take over"))));
            }
            // Looked at again in any case.
            tokio::time::timeout(Duration::from_millis(20), metrics.changed()).await.ok();
        }
    }

    /// The other voter with most of the log that answered lately.
    fn best_successor(&self) -> Option<u64> {
        let voters = self.voters();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let answered = |id: &u64| {
            let at = metrics.heartbeat.as_ref().and_then(|all| all.get(id).copied().flatten());
            at.is_some_and(|at| at.elapsed() < Duration::from_millis(1000))
        };
        let replication: BTreeMap<_, _> = metrics.replication.clone().unwrap_or_default();
        let others = replication.into_iter().filter(|(id, _)| *id != self.identity.id && voters.contains(id));
        others.filter(|(id, _)| answered(id)).max_by_key(|(_, matched)| *matched).map(|(id, _)| id)
    }
}

/// The vote of a node that leads, for a reset of the lease when it is known to be dead.
pub(crate) fn vote(raft: &Raft) -> Vote {
    raft.metrics().borrow_watched().vote
}

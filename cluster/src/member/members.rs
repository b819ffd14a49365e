//! Changes of the membership: one at a time, by the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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
use tokio::time::Instant;

use super::quorum::{No, Progress, View, shortage};
use crate::lab_faults::Bug;
use crate::peer::conn::CallError;
use crate::peer::identity::Identity;
use crate::replicate::raft::Raft;
use crate::state::state::State;
use crate::types::{Types, Vote};

/// How long a hand-over of leadership may take.
const TRANSFER_MAX: Duration = Duration::from_secs(3);
/// A node that answered within this time may still be there. A node that a change needs has to answer anew: a change
/// that counts on a voter which died a moment ago would be begun and could not be completed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// How long the leader waits for what a change needs: answers of nodes that a new leader has not heard yet, the
/// end of a change that is being agreed on, the last entries of a node that is to vote.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a change waits until the change before it is complete.
const TURN_MAX: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A change of the membership.
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
    /// The node becomes leader; 0 stands for the best voter.
    #[prost(uint64, tag = "4")]
    Transfer(u64),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(oneof = "Change", tags = "1, 2, 3, 4")]
    change: Option<Change>,
    #[prost(bool, tag = "5")]
    force: bool,
}

/// A change that an operator asks for. With `force` the change is made although the cluster loses voters by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeRequest {
    pub(crate) change: Change,
    pub(crate) force: bool,
}

impl ChangeRequest {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        Envelope { change: Some(self.change.clone()), force: self.force }.encode_to_vec()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Envelope { change, force } = Envelope::decode(bytes).ok()?;
        Some(Self { change: change?, force })
    }
}

/// Puts a command into the log.
pub(crate) type Propose = dyn Fn(Command) -> BoxFuture<'static, Reply> + Send + Sync;

/// Changes the membership, as the leader.
pub(crate) struct Members {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) state: Arc<State>,
    /// The runtime of changes: a change runs to its end, also when its caller has stopped waiting.
    pub(crate) runtime: tokio::runtime::Handle,
    /// Held during a change: changes of the membership are made one after the other.
    pub(crate) turn: Mutex<()>,
}

/// The membership and its progress at one moment, from the view of the leader.
struct Look {
    view: View,
    /// The voters of each configuration; more than one in a joint configuration, between the old and the new one.
    configs: Vec<BTreeSet<u64>>,
    /// Whether the newest configuration is committed.
    agreed: bool,
    /// Index of the last committed entry.
    committed: u64,
    /// Index of the last entry that a node is known to have.
    matched: BTreeMap<u64, u64>,
}

impl Look {
    /// Whether the next change can begin.
    fn check(&self) -> Result<(), No> {
        for voters in &self.configs {
            if let Some(short) = shortage(voters, &self.view.answering) {
                return Err(No::Majority(short));
            }
        }
        let why = "the change before this one is not complete yet; try again when it is";
        if self.agreed { Ok(()) } else { Err(No::Change(why.to_owned())) }
    }

    fn progress(&self, id: u64, goal: u64) -> Progress {
        self.matched.get(&id).map_or(Progress::Unheard, |matched| Progress::Lacks(goal.saturating_sub(*matched)))
    }
}

fn membership(text: impl Into<String>) -> Refusal {
    Refusal::Membership(text.into())
}

fn refused(no: No) -> CallError {
    CallError::Refused(match no {
        No::Majority(short) => {
            Refusal::Unavailable(format!("no majority of the cluster answers, nothing was changed: {short}"))
        }
        No::Change(why) | No::Never(why) => membership(why),
    })
}

fn write_error(error: RaftError<Types, ClientWriteError<Types>>) -> CallError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_)) => {
            CallError::NotLeader
        }
        RaftError::APIError(other) => CallError::Refused(membership(other.to_string())),
        RaftError::Fatal(fatal) => CallError::Refused(Refusal::Unavailable(fatal.to_string())),
    }
}

impl Members {
    /// Carries out a change. `propose` puts a command into the log. May wait as long as there is no majority.
    ///
    /// # Errors
    /// [`CallError::NotLeader`] when the next leader can be asked for the same change, however far this one came;
    /// otherwise a refusal.
    pub(crate) async fn change(&self, request: ChangeRequest, propose: &Propose) -> Result<Node, CallError> {
        let Ok(_turn) = tokio::time::timeout(TURN_MAX, self.turn.lock()).await else {
            let why = "another change is being made; try again when `rollbook cluster status` shows what became of it";
            return Err(CallError::Refused(membership(why)));
        };
        if !self.raft.is_leader() {
            return Err(CallError::NotLeader);
        }
        let ChangeRequest { change, force } = request;
        if let Change::Transfer(to) = change {
            return self.transfer(to).await;
        }
        self.complete().await?;
        match change {
            Change::Join(address) => self.join(address, propose).await,
            Change::Promote(id) => self.promote(id, force).await,
            Change::Remove(id) => self.remove(id, force, propose).await,
            Change::Transfer(to) => self.transfer(to).await,
        }
    }

    /// Looks at the cluster. A node counts as there only when it answered after `since`.
    fn look(&self, since: Instant) -> Look {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.get_joint_config().clone();
        let heard = metrics.heartbeat.iter().flatten();
        let answering = heard.filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < since.elapsed()));
        let matched = metrics.replication.iter().flatten();
        Look {
            view: View {
                voters: configs.last().cloned().unwrap_or_default(),
                answering: answering.map(|(id, _)| *id).chain([self.identity.id]).collect(),
            },
            agreed: metrics.membership_config.log_id() == metrics.committed_membership_config.log_id(),
            committed: metrics.local_committed.as_ref().map_or(0, |id| id.index),
            matched: matched.filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index))).collect(),
            configs,
        }
    }

    /// Repeats a check until it passes, at most for [`PATIENCE`]: then returns the refusal of the last check.
    async fn until<T>(&self, mut judge: impl FnMut(&Look) -> Result<T, No>) -> Result<T, CallError> {
        let since = Instant::now();
        loop {
            if !self.raft.is_leader() {
                return Err(CallError::NotLeader);
            }
            let judged = judge(&self.look(since));
            match judged {
                Ok(judged) => return Ok(judged),
                Err(no @ No::Never(_)) => return Err(refused(no)),
                Err(no) if since.elapsed() >= PATIENCE => return Err(refused(no)),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The row of a node, and whether the node is a member.
    fn known(&self, id: u64) -> Result<(Node, bool), CallError> {
        let member = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.get_node(&id).map(|node| Node {
                id,
                address: node.addr.clone(),
                ..Node::default()
            })
        };
        let row = self.state.machine().node(id).cloned();
        let is_member = member.is_some();
        let missing = || CallError::Refused(Refusal::NodeNotFound(id.to_string()));
        Ok((row.or(member).ok_or_else(missing)?, is_member))
    }

    fn member(&self, id: u64) -> Result<Node, CallError> {
        match self.known(id)? {
            (node, true) => Ok(node),
            (_, false) => Err(CallError::Refused(Refusal::NodeNotFound(id.to_string()))),
        }
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.raft.voter_ids().collect()
    }

    async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<(), CallError> {
        // A node that loses its vote stays in the cluster as a learner.
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.raft.change_membership(change, true).await.map(drop).map_err(write_error)
    }

    async fn drop_node(&self, id: u64) -> Result<(), CallError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.raft.change_membership(change, true).await.map(drop).map_err(write_error)
    }

    /// Members whose removal lacks the last step.
    fn half_removed(&self) -> Vec<u64> {
        let learners: Vec<u64> = self.raft.learner_ids().collect();
        let machine = self.state.machine();
        learners.into_iter().filter(|id| machine.node(*id).is_some_and(|row| row.removed)).collect()
    }

    /// Whether a leader left a change between two steps.
    pub(crate) fn is_halfway(&self) -> bool {
        let (joint, agreed) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let newest = &metrics.membership_config;
            (newest.get_joint_config().len() > 1, newest.log_id() == metrics.committed_membership_config.log_id())
        };
        // A change that is being made holds `turn`.
        agreed && self.turn.try_lock().is_ok() && (joint || !self.half_removed().is_empty())
    }

    /// Completes what a leader before this one left between two steps.
    pub(crate) async fn complete_left(&self) -> Result<(), CallError> {
        let Ok(_turn) = self.turn.try_lock() else { return Ok(()) };
        self.complete().await?;
        for id in self.half_removed() {
            self.drop_node(id).await?;
            tracing::info!(node = id, "the removal of a node was completed");
        }
        Ok(())
    }

    /// Leads the cluster out of a joint configuration that a leader left when it died.
    async fn complete(&self) -> Result<(), CallError> {
        let joint = self.until(|look| look.check().map(|()| look.configs.len() > 1)).await?;
        if joint {
            let change = ChangeMembers::AddVoterIds(BTreeSet::new());
            self.raft.change_membership(change, true).await.map_err(write_error)?;
            tracing::info!("a change of the voters was completed");
        }
        Ok(())
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
        let added = self.raft.add_learner(node.id, BasicNode::new(&node.address), false).await.map_err(write_error);
        if let Err(CallError::NotLeader) = added {
            // Asked again, the next leader would give out another number.
            let why = format!(
                "the leader changed when node {} was added; `rollbook cluster status` shows whether it is a learner: if not, remove it and join again",
                node.id
            );
            return Err(CallError::Refused(Refusal::OutcomeUnknown(why)));
        }
        added?;
        tracing::info!(node = node.id, address = %node.address, "a node joins as a learner");
        Ok(node)
    }

    async fn promote(&self, id: u64, force: bool) -> Result<Node, CallError> {
        let node = self.member(id)?;
        if self.voters().contains(&id) {
            return Ok(node);
        }
        // What is committed from now on, the node gets like every voter.
        let mut goal = None;
        let voters = self
            .until(|look| {
                let goal = *goal.get_or_insert(look.committed);
                look.view.with_voter(id, look.progress(id, goal), force)
            })
            .await?;
        self.set_voters(voters).await?;
        tracing::info!(node = id, force, "a node votes from now on");
        Ok(node)
    }

    async fn remove(&self, id: u64, force: bool, propose: &Propose) -> Result<Node, CallError> {
        let (node, is_member) = self.known(id)?;
        let before = self.voters();
        if before.contains(&id) {
            let voters = self.until(|look| look.view.without_voter(id, force)).await?;
            if id == self.identity.id {
                self.transfer(0).await?;
                // The next leader carries the change out.
                return Err(CallError::NotLeader);
            }
            let silent: Vec<u64> = before.into_iter().filter(|other| *other != id && !voters.contains(other)).collect();
            // The node stays a learner until the log, and so the node itself, has the removal. A removal that is
            // interrupted leaves traces at every step, so the next leader or a repetition completes it.
            self.set_voters(voters).await?;
            if !silent.is_empty() {
                tracing::warn!(nodes = ?silent, "nodes that do not answer have lost their votes; promote them when they are back");
            }
        }
        if Bug::RemovedHalfway.is_on() {
            return Ok(node);
        }
        if !node.removed {
            propose(Command::NodeRemove(NodeRemove { id })).await.map_err(CallError::Refused)?;
        }
        if is_member {
            self.drop_node(id).await?;
        }
        tracing::info!(node = id, "a node was removed");
        Ok(node)
    }

    /// Hands leadership to `to`, or to the voter that has most of the log. The result is the node that leads then.
    pub(crate) async fn transfer(&self, to: u64) -> Result<Node, CallError> {
        let target = if to == 0 { self.best_successor() } else { Some(to) };
        let target = target.ok_or_else(|| CallError::Refused(membership("there is no other voter that answers")))?;
        let node = self.member(target)?;
        if target == self.identity.id {
            return Ok(node);
        }
        self.until(|look| match () {
            () if !look.view.voters.contains(&target) => Err(No::Never(format!("node {target} does not vote"))),
            () if !look.view.answering.contains(&target) => Err(No::Change(format!("node {target} does not answer"))),
            () => Ok(()),
        })
        .await?;
        let stopped = |error: &dyn std::fmt::Display| CallError::Refused(Refusal::Unavailable(error.to_string()));
        self.raft.trigger().transfer_leader(target).await.map_err(|fatal| stopped(&fatal))?;
        let until = Instant::now() + TRANSFER_MAX;
        let mut metrics = self.raft.server_metrics();
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if let Some(leader) = leader.filter(|leader| *leader != self.identity.id) {
                return self.member(leader);
            }
            if Instant::now() >= until {
                return Err(CallError::Refused(membership(format!("node {target} did not take over"))));
            }
            // Looked at again in any case.
            tokio::time::timeout(LOOK, metrics.changed()).await.ok();
        }
    }

    /// The other voter with most of the log that answered lately.
    fn best_successor(&self) -> Option<u64> {
        let now = Instant::now();
        let Look { view, matched, .. } = self.look(now.checked_sub(ANSWERED_WITHIN).unwrap_or(now));
        let others = view.voters.intersection(&view.answering).filter(|id| **id != self.identity.id);
        others.max_by_key(|id| matched.get(id)).copied()
    }
}

/// The vote under which the present leader leads: with it the lease is reset when that leader is dead.
pub(crate) fn vote(raft: &Raft) -> Vote {
    raft.metrics().borrow_watched().vote
}

#[cfg(test)]
mod tests;

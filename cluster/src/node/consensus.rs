//! What raft on this node knows: who leads, how fresh a read is, whether writes can be accepted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use rollbook_core::error::Refusal;

use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::peer::wire::{self, NodeFigures};
use crate::replicate::contact::Contact;
use crate::replicate::raft::Raft;
use crate::state::state::State;
use crate::status::{self, Status};
use crate::types::LogId;
use crate::wait::wait_until;

/// How long the leader may take to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a read waits until this node has seen enough.
const READ_MAX: Duration = Duration::from_secs(5);

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The newest state of the cluster: the leader asks a majority first.
    #[default]
    Linearizable,
    /// The state of the leader now, without a look whether a majority still follows.
    Leader,
    /// The state of this node, however old.
    Stale,
}

/// Answers what raft on this node knows of the cluster.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft,
    identity: Arc<Identity>,
    state: Arc<State>,
    links: Arc<Links>,
    contact: Arc<Contact>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("node", &self.identity.id).finish_non_exhaustive()
    }
}

impl Consensus {
    pub(crate) const fn new(
        raft: Raft,
        identity: Arc<Identity>,
        state: Arc<State>,
        links: Arc<Links>,
        contact: Arc<Contact>,
    ) -> Self {
        Self { raft, identity, state, links, contact }
    }

    /// Whether this node leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.is_leader()
    }

    /// How this node sees its cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        // A leader that lost its majority does not lead, even while raft still calls it the leader.
        let leader = self.contact.leader();
        // A copy, because raft waits while a borrow of its metrics is held.
        let metrics = self.raft.metrics().borrow_watched().clone();
        let machine = self.state.machine();
        Status {
            id: self.identity.id,
            cluster_id: self.identity.cluster_id(),
            leader,
            term: metrics.current_term,
            role: status::role(metrics.state),
            first_index: metrics.purged.as_ref().map_or(0, |id| id.index.saturating_add(1)),
            last_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            members: status::members(&metrics, leader, &machine, &self.identity.address),
        }
    }

    /// Whether recorded writes can be accepted, and if not, why.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] without a leader that has a majority.
    pub fn ready(&self) -> Result<(), Refusal> {
        // The node may have been removed, and is about to exit.
        if let Some(why) = self.identity.failure() {
            return Err(Refusal::Unavailable(why));
        }
        self.contact.ready()?;
        let machine = self.state.machine();
        if machine.cluster_id().is_empty() {
            return Err(Refusal::Unavailable("the cluster is being founded".to_owned()));
        }
        if machine.is_alive(self.identity.owner()) {
            Ok(())
        } else {
            Err(Refusal::Unavailable("node is joining".to_owned()))
        }
    }

    /// How long this node has had no leader with a majority, as far as it knows; `None` while it has one.
    #[must_use]
    pub fn isolated_for(&self) -> Option<Duration> {
        self.contact.lost_for()
    }

    /// Waits until a read on this node is as fresh as `consistency` asks for; the index of the last entry that the read
    /// then sees.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when that cannot be had: no leader, no majority, or this node is too far behind.
    pub async fn read_barrier(&self, consistency: Consistency) -> Result<u64, Refusal> {
        let mut applied = self.state.applied();
        let read_index = match consistency {
            Consistency::Stale => 0,
            Consistency::Leader | Consistency::Linearizable => self.read_index(consistency).await?,
        };
        let behind = |_| Refusal::Unavailable("this node is behind the leader".to_owned());
        let seen = wait_until(&mut applied, |next| *next > read_index || read_index == 0);
        let seen = tokio::time::timeout(READ_MAX, seen).await.map_err(behind)?;
        seen.map_err(|_| Refusal::Unavailable("node is stopping".to_owned()))?;
        Ok(applied.borrow().saturating_sub(1))
    }

    async fn read_index(&self, consistency: Consistency) -> Result<u64, Refusal> {
        let leader = self.contact.ready()?;
        let no_majority = || Refusal::Unavailable("no majority of the cluster answers".to_owned());
        if leader == self.identity.id {
            if consistency == Consistency::Leader {
                return Ok(0);
            }
            let read = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
            let read = tokio::time::timeout(ANSWER_MAX, read).await.map_err(|_| no_majority())?;
            return read.map(|(id, _)| id.index()).map_err(|_| no_majority());
        }
        let kind = if consistency == Consistency::Leader { Kind::Figures } else { Kind::ReadIndex };
        let body = self.links.call(leader, Purpose::Control, kind, Bytes::new(), ANSWER_MAX).await;
        let body = body.map_err(|error| Refusal::Unavailable(format!("leader: {error}")))?;
        let malformed = |what: &str| Refusal::Unavailable(what.to_owned());
        if kind == Kind::ReadIndex {
            return wire::decode_number(&body).map_err(malformed);
        }
        NodeFigures::decode(&body).map(|figures| figures.applied).map_err(malformed)
    }

    /// The first entry that some other node does not have, when this node leads.
    pub(crate) fn slowest_follower(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let next = |id: &Option<LogId>| id.map_or(0, |id| id.index.saturating_add(1));
        let others = metrics.replication.as_ref()?.iter().filter(|(id, _)| **id != self.identity.id);
        Some(others.map(|(_, matched)| next(matched)).min().unwrap_or(u64::MAX))
    }

    /// The first entry that some node does not have, from the leader's view; `None` when the leader does not answer.
    pub(crate) async fn slowest(&self) -> Option<u64> {
        let leader = self.contact.leader()?;
        if leader == self.identity.id {
            return self.slowest_follower();
        }
        let answer = self.links.call(leader, Purpose::Control, Kind::Figures, Bytes::new(), ANSWER_MAX).await;
        NodeFigures::decode(&answer.ok()?).ok().map(|figures| figures.slowest)
    }
}

//! Who leads, and whether this node is in contact with a majority.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use rollbook_core::error::Refusal;

use crate::peer::identity::Identity;
use crate::raft::Raft;

/// A leader that was not heard for this long is not taken to be there.
const SILENCE_MAX: Duration = Duration::from_millis(2500);
/// A leader whose majority did not answer for this long does not lead any more.
const QUORUM_MAX: Duration = Duration::from_millis(2500);

/// What this node knows of its leader.
pub(crate) struct Contact {
    raft: Raft,
    identity: Arc<Identity>,
}

impl Contact {
    pub(crate) const fn new(raft: Raft, identity: Arc<Identity>) -> Self {
        Self { raft, identity }
    }

    /// How many voters there are.
    pub(crate) fn voters(&self) -> usize {
        self.voter_ids().len()
    }

    /// The voters.
    pub(crate) fn voter_ids(&self) -> Vec<u64> {
        self.raft.server_metrics().borrow_watched().membership_config.voter_ids().collect()
    }

    /// The leader, as far as this node has heard of it lately.
    pub(crate) fn leader(&self) -> Option<u64> {
        let metrics = self.raft.server_metrics();
        let leader = metrics.borrow_watched().current_leader?;
        let heard = leader == self.identity.id || self.identity.leader_silence().is_some_and(|it| it < SILENCE_MAX);
        heard.then_some(leader)
    }

    /// Whether recorded writes can be accepted.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] without a leader that has a majority.
    pub(crate) fn ready(&self) -> Result<u64, Refusal> {
        let Some(leader) = self.leader() else { return Err(Refusal::Unavailable("no leader".to_owned())) };
        if leader == self.identity.id && self.voters() > 1 {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let acked = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
            if metrics.state == ServerState::Leader && acked.is_none_or(|age| age > QUORUM_MAX) {
                return Err(Refusal::Unavailable("no majority of the cluster answers".to_owned()));
            }
        }
        Ok(leader)
    }

    /// Resolves when that node does not lead any more.
    pub(crate) async fn gone(&self, leader: u64) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().current_leader == Some(leader) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Resolves when something about the leader has changed, at latest after `within`.
    pub(crate) async fn changed_within(&self, within: Duration) {
        let mut metrics = self.raft.server_metrics();
        if let Ok(Err(_)) = tokio::time::timeout(within, metrics.changed()).await {
            // Raft has stopped: nothing changes any more, and nobody may spin on that.
            tokio::time::sleep(within).await;
        }
    }
}

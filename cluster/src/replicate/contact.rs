//! Which node leads, and whether a majority follows.
//!
//! A leader knows when a majority last answered. A follower cannot see that: a leader without a majority still sends
//! heartbeats. So the leader puts the time into its answer to every ping ([`crate::peer::pulse`]). Here both become one
//! number, the time at which a majority was last known to be there, and one rule: when that is too long ago, there is
//! no leader on any node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use rollbook_core::error::Refusal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::raft::Raft;
use crate::lab_faults::Bug;
use crate::peer::identity::Identity;
use crate::peer::pulse::Pong;
use crate::timing::Timing;

/// Whether this node is in contact with a leader that has a majority.
pub(crate) struct Contact {
    raft: Raft,
    identity: Arc<Identity>,
    timing: Timing,
    /// When a majority was last known to follow a leader, as [`Identity::millis`] counts; 0 when never.
    majority: AtomicU64,
    /// The state that follows from `majority`, computed once per heartbeat, so that waiting tasks wake only on a
    /// change.
    seen: watch::Sender<Majority>,
}

/// Whether a leader with a majority is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Majority {
    Here,
    /// There is no majority, or never was. A majority may come back before clients have to be told.
    Lost,
    /// There has been no majority for so long that nothing should wait for one.
    Gone,
}

fn no_leader() -> Refusal {
    Refusal::Unavailable("no leader".to_owned())
}

impl Contact {
    pub(crate) fn new(raft: Raft, identity: Arc<Identity>, timing: Timing) -> Self {
        Self { raft, identity, timing, majority: AtomicU64::new(0), seen: watch::Sender::new(Majority::Lost) }
    }

    /// Looks for the majority until cancelled.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look();
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.timing.heartbeat()) => {}
            }
        }
    }

    fn look(&self) {
        let acked = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let acked = metrics.last_quorum_acked.as_ref().filter(|_| metrics.state == ServerState::Leader);
            acked.map(|at| at.elapsed())
        };
        if let Some(age) = acked {
            self.know(self.identity.millis(), millis(age));
        }
        self.judge();
    }

    /// Publishes whether there is a majority, when that has changed.
    fn judge(&self) {
        let now = match self.lost_for() {
            None => Majority::Here,
            Some(age) if age < self.timing.leaderless() => Majority::Lost,
            Some(_) => Majority::Gone,
        };
        let mut before = now;
        self.seen.send_if_modified(|seen| {
            before = std::mem::replace(seen, now);
            before != now
        });
        if before == Majority::Here && now != before {
            tracing::warn!("no majority of the cluster answers: nothing can be stored until one does");
        } else if before != Majority::Here && now == Majority::Here && self.voters() > 1 {
            tracing::info!("a majority of the cluster answers");
        }
    }

    /// At `at` it was known that a majority had been there `age` milliseconds ago.
    fn know(&self, at: u64, age: u64) {
        self.majority.fetch_max(at.saturating_sub(age), Ordering::Relaxed);
    }

    /// How long ago a majority was known to be there; at most how long this process lives.
    fn age(&self) -> Duration {
        Duration::from_millis(self.identity.millis().saturating_sub(self.majority.load(Ordering::Relaxed)))
    }

    /// How many voters there are.
    pub(crate) fn voters(&self) -> usize {
        self.voter_ids().len()
    }

    /// The voters.
    pub(crate) fn voter_ids(&self) -> Vec<u64> {
        self.raft.server_metrics().borrow_watched().membership_config.voter_ids().collect()
    }

    /// Whether this node is a majority by itself.
    fn is_alone(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().eq([self.identity.id])
    }

    fn has_majority(&self) -> bool {
        if Bug::ReadyWithoutMajority.is_on() {
            return true;
        }
        let known = self.majority.load(Ordering::Relaxed) > 0 && self.age() <= self.timing.quorum();
        known || self.is_alone()
    }

    /// The answer of this node to a ping.
    pub(crate) fn pong(&self) -> Pong {
        let led = || if self.is_alone() { 0 } else { millis(self.age()) };
        let known = self.raft.is_leader() && (self.majority.load(Ordering::Relaxed) > 0 || self.is_alone());
        Pong { majority_millis: Some(if known { led() } else { u64::MAX }) }
    }

    /// Notes the answer of another node to a ping that was sent at `sent`, as [`Identity::millis`] counts.
    pub(crate) fn hear(&self, node: u64, sent: u64, pong: &Pong) {
        if self.raft.server_metrics().borrow_watched().current_leader != Some(node) {
            return;
        }
        match pong.majority_millis {
            Some(age) => self.know(sent, age),
            // A leader of an earlier release sends no such field: it counts as one with a majority while it is heard.
            None => self.know(self.identity.leader_heard(), 0),
        }
        self.judge();
    }

    /// The leader that this node has heard of lately, whether a majority follows it or not.
    fn heard(&self) -> Option<u64> {
        let leader = self.raft.server_metrics().borrow_watched().current_leader?;
        let heard = self.identity.leader_heard();
        let silence = Duration::from_millis(self.identity.millis().saturating_sub(heard));
        (leader == self.identity.id || (heard > 0 && silence < self.timing.silence())).then_some(leader)
    }

    /// The leader, when a majority follows it.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.ready().ok()
    }

    /// Whether recorded writes can be accepted.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] without a leader that has a majority.
    pub(crate) fn ready(&self) -> Result<u64, Refusal> {
        let leader = self.heard().ok_or_else(no_leader)?;
        if !self.has_majority() {
            return Err(Refusal::Unavailable("no majority of the cluster answers".to_owned()));
        }
        Ok(leader)
    }

    /// How long there has been no majority, `None` while there is one.
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        (!self.has_majority()).then(|| self.age())
    }

    /// Whether there has been no leader with a majority for so long that nothing should wait for one.
    pub(crate) fn is_isolated(&self) -> bool {
        self.lost_for().is_some_and(|age| age >= self.timing.leaderless())
    }

    /// Resolves when that node does not lead any more, or has been without a majority for too long.
    pub(crate) async fn gone(&self, leader: u64) {
        let (mut metrics, mut seen) = (self.raft.server_metrics(), self.seen.subscribe());
        while metrics.borrow_watched().current_leader == Some(leader) && !self.is_isolated() {
            let changed = tokio::select! {
                changed = metrics.changed() => changed.is_ok(),
                changed = seen.changed() => changed.is_ok(),
            };
            if !changed {
                return;
            }
        }
    }

    /// Resolves when something about the leader has changed, at latest after `within`.
    pub(crate) async fn changed_within(&self, within: Duration) {
        let mut metrics = self.raft.server_metrics();
        // Raft's own receiver has seen nothing: without this, every call would find a change that is long over.
        drop(metrics.borrow_and_update());
        if let Ok(Err(_)) = tokio::time::timeout(within, metrics.changed()).await {
            // Raft has stopped: the value never changes again, and the loop must not spin.
            tokio::time::sleep(within).await;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

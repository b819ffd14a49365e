//! openraft with our state machine: its settings, and the heartbeats of a leader.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Config, SnapshotPolicy};

use super::machine::StateMachine;
use crate::error::NodeError;
use crate::timing::Timing;
use crate::types::Types;

/// The handle of raft on this node.
pub(crate) type Raft = openraft::Raft<Types, StateMachine>;

/// The settings of raft for the times of a cluster.
pub(crate) fn settings(timing: Timing) -> Result<Arc<Config>, NodeError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let settings = Config {
        cluster_name: "rollbook".to_owned(),
        // openraft uses one time both as the interval of heartbeats and as the time for an answer to one. Here the
        // time is the latter, and `beat` keeps the interval.
        heartbeat_interval: millis(timing.answer()),
        election_timeout_min: millis(timing.election_min()),
        election_timeout_max: millis(timing.election_max()),
        max_payload_entries: 64,
        max_append_entries: Some(1024),
        api_channel_size: Some(4096),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 1_000_000,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // A leader without a majority is silent every other time: the lease of those who hear it must not keep them
        // from electing another one with nodes that it cannot reach.
        quorum_loss_probe_interval: Some(millis(timing.election_max().saturating_mul(2))),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    Ok(Arc::new(settings.validate().map_err(|error| NodeError::Raft(error.to_string()))?))
}

/// Sends the heartbeats of a leader until raft stops. Between two of them a follower has time to answer, and one that
/// has not answered yet gets no other.
pub(crate) async fn beat(raft: Raft, timing: Timing) {
    while raft.metrics().borrow_watched().running_state.is_ok() {
        tokio::time::sleep(timing.heartbeat()).await;
        if raft.is_leader() && raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}

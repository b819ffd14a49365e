//! Proposes `Tidy` on the leader, step by step, while rows of expired dedupe keys and trimmed ids are due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::command::{Command, Tidy};
use tokio_util::sync::CancellationToken;

use crate::node::proposal_client::ProposalClient;
use crate::replicate::raft::Raft;
use crate::state::clock::now_millis;
use crate::state::state::State;

/// How often the leader looks when nothing is due.
const LOOK: Duration = Duration::from_secs(1);
/// Publishes with a key forget older keys themselves: those that expired in the last milliseconds are left to them.
const GRACE_MS: u64 = 5000;
/// Shortest pause between steps that depend on the time, should the log's be another than this node's.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until cancelled.
pub(crate) async fn run(raft: Raft, state: Arc<State>, proposals: ProposalClient, stop: CancellationToken) {
    let mut pause = LOOK;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = LOOK;
        if !raft.is_leader() {
            continue;
        }
        let due = state.machine().tidy_due();
        let Some(due) = due.filter(|due| due.saturating_add(GRACE_MS) <= now_millis()) else { continue };
        let began = Instant::now();
        match proposals.command(Command::Tidy(Tidy {})).await {
            // At most half of the time of the log.
            Ok(_) => pause = began.elapsed().max(if due == 0 { Duration::ZERO } else { PAUSE }),
            Err(refusal) => tracing::warn!(%refusal, "expired keys and trimmed ids were not removed"),
        }
    }
}

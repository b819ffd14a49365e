//! Proposes on the leader, step by step, that the waiting events are appended whose time has come.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::command::{Command, Done};
use rollbook_core::timed::delayed::DelayedRelease;
use tokio_util::sync::CancellationToken;

use crate::node::proposal_client::ProposalClient;
use crate::replicate::raft::Raft;
use crate::state::state::State;

/// Longest sleep: the clock of the log may be set meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a node looks again while something is due and another node leads, which may change.
const PAUSE: Duration = Duration::from_millis(50);

/// Follows when the first event is due, until cancelled.
pub(crate) async fn run(raft: Raft, state: Arc<State>, proposals: ProposalClient, stop: CancellationToken) {
    let mut changed = state.delayed_due();
    loop {
        let first = *changed.borrow_and_update();
        // Only a leader gives times to entries; the clock of another node need not be that of the log.
        let leads = raft.is_leader();
        let now = if leads { state.clock.stamp() } else { state.clock.wall() };
        let pause = match first {
            None => None,
            Some(due) if due > now => Some(Duration::from_millis(due.saturating_sub(now)).min(LOOK)),
            Some(_) if !leads => Some(PAUSE),
            Some(due) => match proposals.command(Command::DelayedRelease(DelayedRelease {})).await {
                Ok(Done::More) => continue,
                // The time of the log is behind that of this node: the leader has changed.
                Ok(_) if state.machine().delayed().due() == Some(due) => Some(PAUSE),
                Ok(_) => continue,
                Err(refusal) => {
                    tracing::warn!(%refusal, "events that are due were not published");
                    Some(LOOK)
                }
            },
        };
        let sleep = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            result = changed.changed() => if result.is_err() { return },
            () = sleep => {}
        }
    }
}

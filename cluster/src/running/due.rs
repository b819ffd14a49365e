//! What is due by the time of the log: the leader proposes it, once a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver as _;
use rollbook_core::command::{ClockSet, Command, InstanceExpire, Trim, TrimMany};
use rollbook_core::level::FeatureLevel;
use rollbook_core::limits::{ROLL_STEP_MAX, TRIMS_MAX};
use rollbook_core::service::ServiceExpire;
use tokio_util::sync::CancellationToken;

use crate::book::retain;
use crate::node::Node;
use crate::peer::frame::Kind;
use crate::peer::link::Purpose;
use crate::peer::wire::NodeFigures;

/// The leader compares the clocks of the members in one of so many rounds.
const CLOCKS_EVERY: u64 = 10;
/// How long another node may take to say what its clock shows.
const CLOCK_MAX: Duration = Duration::from_secs(2);

/// Proposes what retention takes away, and what has stayed away for too long, until cancelled. What takes more than one
/// step goes on without a pause.
pub(crate) async fn run(node: Node, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !node.leads() {
            continue;
        }
        if round.is_multiple_of(CLOCKS_EVERY) {
            compare_clocks(&node).await;
        }
        round = round.wrapping_add(1);
        let state = Arc::clone(&node.inner().state);
        if let Some(millis) = state.clock.correction()
            && state.machine().level() >= FeatureLevel::BOUNDED
        {
            tracing::warn!(log = state.machine().millis(), millis, "the time of the log is set back");
            propose_due(&node, Command::ClockSet(ClockSet { millis })).await;
        }
        while state.machine().is_expiring() && !stop.is_cancelled() {
            if !propose_due(&node, Command::InstanceExpire(InstanceExpire {})).await {
                break;
            }
        }
        let now = state.clock.stamp();
        let ids: Vec<String> = state.machine().services_due(now).map(str::to_owned).collect();
        for ids in ids.chunks(ROLL_STEP_MAX) {
            propose_due(&node, Command::ServiceExpire(ServiceExpire { ids: ids.to_vec() })).await;
        }
        let looked = tokio::task::spawn_blocking(move || retain::due(&state, state.clock.retention_now())).await;
        match looked {
            Ok(Ok(trims)) => propose_trims(&node, trims).await,
            Ok(Err(error)) => tracing::error!(%error, "retention could not look at the book"),
            Err(_) => return,
        }
    }
}

/// Asks the other members, as the leader, what their clocks say.
async fn compare_clocks(node: &Node) {
    let inner = node.inner();
    let others: Vec<u64> = {
        let metrics = inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != inner.identity.id).collect()
    };
    let ask = async |id: u64| {
        // Only those that are there: a clock is not worth a call of a node that is away.
        let Some(conn) = inner.links.present(id, Purpose::Control) else { return };
        let answer = conn.call(Kind::Standing, Bytes::new(), CLOCK_MAX).await.ok();
        // A node of the release before does not say.
        if let Some(wall) = answer.and_then(|body| NodeFigures::decode(&body).ok()?.wall) {
            inner.state.clock.hear(id, wall);
        }
    };
    join_all(others.into_iter().map(ask)).await;
}

/// Whether it was done.
async fn propose_due(node: &Node, command: Command) -> bool {
    let done = node.command(command).await;
    if let Err(refusal) = &done {
        tracing::warn!(%refusal, "what was due was refused");
    }
    done.is_ok()
}

/// Many trims are one command, where all members know such a command.
async fn propose_trims(node: &Node, commands: Vec<Command>) {
    if node.inner().state.machine().level() < FeatureLevel::BOUNDED {
        for command in commands {
            propose_due(node, command).await;
        }
        return;
    }
    let trim = |command| if let Command::Trim(trim) = command { Some(trim) } else { None };
    let trims: Vec<Trim> = commands.into_iter().filter_map(trim).collect();
    for trims in trims.chunks(TRIMS_MAX) {
        propose_due(node, Command::TrimMany(TrimMany { trims: trims.to_vec() })).await;
    }
}

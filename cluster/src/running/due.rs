//! Commands that are due by the time of the log: once a second the leader proposes trims, expiries and corrections of
//! the time.

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
use crate::node::proposal_client::ProposalClient;
use crate::peer::frame::Kind;
use crate::peer::link::{Links, Purpose};
use crate::peer::wire::NodeFigures;
use crate::replicate::raft::Raft;
use crate::state::state::State;

/// The leader compares the clocks of the members in one of so many rounds.
const CLOCKS_EVERY: u64 = 10;
/// How long another node may take to say what its clock shows.
const CLOCK_MAX: Duration = Duration::from_secs(2);

/// Proposes, as the leader, what the time of the log asks for.
pub(crate) struct DueProposer {
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    pub(crate) links: Arc<Links>,
    pub(crate) proposals: ProposalClient,
}

impl DueProposer {
    /// Proposes trims by retention and expiries on the roll, until cancelled. Work of more than one step continues
    /// without a pause.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = 0_u64;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if !self.raft.is_leader() {
                continue;
            }
            if round.is_multiple_of(CLOCKS_EVERY) {
                self.compare_clocks().await;
            }
            round = round.wrapping_add(1);
            self.set_clock().await;
            self.expire(&stop).await;
            let state = Arc::clone(&self.state);
            let trims = tokio::task::spawn_blocking(move || retain::due(&state, state.clock.retention_now())).await;
            match trims {
                Ok(Ok(trims)) => self.propose_trims(trims).await,
                Ok(Err(error)) => tracing::error!(%error, "retention could not look at the book"),
                Err(_) => return,
            }
        }
    }

    /// Sets the time of the log back when a wrong clock had taken it ahead.
    async fn set_clock(&self) {
        let Some(millis) = self.state.clock.correction() else { return };
        let (level, log) = {
            let machine = self.state.machine();
            (machine.level(), machine.millis())
        };
        if level >= FeatureLevel::BOUNDED {
            tracing::warn!(log, millis, "the time of the log is set back");
            self.propose(Command::ClockSet(ClockSet { millis })).await;
        }
    }

    /// Takes off the roll the instances of nodes that are gone, and services whose grace is over.
    async fn expire(&self, stop: &CancellationToken) {
        while self.state.machine().is_expiring() && !stop.is_cancelled() {
            if !self.propose(Command::InstanceExpire(InstanceExpire {})).await {
                break;
            }
        }
        let now = self.state.clock.stamp();
        let ids: Vec<String> = self.state.machine().services_due(now).map(str::to_owned).collect();
        for ids in ids.chunks(ROLL_STEP_MAX) {
            self.propose(Command::ServiceExpire(ServiceExpire { ids: ids.to_vec() })).await;
        }
    }

    /// Asks the other members, as the leader, what their clocks say.
    async fn compare_clocks(&self) {
        let this = *self.raft.node_id();
        let others: Vec<u64> = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != this).collect()
        };
        let ask = async |id: u64| {
            // Only those that are there: a clock is not worth a call of a node that is away.
            let Some(conn) = self.links.present(id, Purpose::Control) else { return };
            let answer = conn.call(Kind::Figures, Bytes::new(), CLOCK_MAX).await.ok();
            // A node of the release before does not say.
            if let Some(wall) = answer.and_then(|body| NodeFigures::decode(&body).ok()?.wall) {
                self.state.clock.hear(id, wall);
            }
        };
        join_all(others.into_iter().map(ask)).await;
    }

    /// Proposes a command; whether the command was carried out.
    async fn propose(&self, command: Command) -> bool {
        let done = self.proposals.command(command).await;
        if let Err(refusal) = &done {
            tracing::warn!(%refusal, "what was due was refused");
        }
        done.is_ok()
    }

    /// Many trims are one command, where all members know such a command.
    async fn propose_trims(&self, commands: Vec<Command>) {
        if self.state.machine().level() < FeatureLevel::BOUNDED {
            for command in commands {
                self.propose(command).await;
            }
            return;
        }
        let trim = |command| if let Command::Trim(trim) = command { Some(trim) } else { None };
        let trims: Vec<Trim> = commands.into_iter().filter_map(trim).collect();
        for trims in trims.chunks(TRIMS_MAX) {
            self.propose(Command::TrimMany(TrimMany { trims: trims.to_vec() })).await;
        }
    }
}

//! What the leader does for all processes: time passes, nodes are lost, actors come and go for good.

use rollbook_core::limits::ROLL_STEP_MAX;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::node::Owner;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::change::{Change, Expire};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::limits::{DETACHED_MS, STALL_MS};
use rollbook_core::xbus::process::event::{Event, Unit};

use crate::bus::error::Fault;
use crate::bus::xbus::flow::Flow;

/// How long an envelope waits for its rest, milliseconds.
const RETENTION_MS: u64 = 24 * 60 * 60 * 1000;
/// How long ended envelopes are kept beside what processes still need: as long as the book keeps their fragments.
const ENDED_MS: u64 = 7 * RETENTION_MS;
/// How long rows of what has ended are looked for no more after a look that found none.
const PURGE_ROUNDS: u32 = 240;

/// What the leader has done already.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// The revision of accounts, actors and pipelines for which processes have heard of their actors.
    revision: Option<u64>,
    rounds: u32,
}

impl Upkeep {
    /// One round. What fails is done by the next one.
    pub(super) async fn round(&mut self, flow: &Flow) {
        let result = self.steps(flow).await;
        if let Err(fault) = result {
            tracing::debug!(%fault, "processes are not looked after yet");
        }
    }

    async fn steps(&mut self, flow: &Flow) -> Result<(), Fault> {
        lost_nodes(flow).await?;
        let millis = flow.client().bus().node().state().with_machine(rollbook_core::machine::Machine::millis);
        if flow.client().look(|xbus| xbus.away_since()).is_some_and(|since| since + DETACHED_MS <= millis) {
            flow.change(Change::ProcessesExpire(Unit {})).await?;
        }
        let idle = flow.client().look(|xbus| xbus.next_stalled(STALL_MS, RETENTION_MS));
        if idle.is_some_and(|at| at <= millis) {
            flow.change(Change::EnvelopesExpire(Expire { millis: RETENTION_MS })).await?;
        }
        let revision = flow.client().look(Xbus::revision);
        if self.revision != Some(revision) {
            actors_gone(flow).await?;
            actors_changed(flow).await?;
            self.revision = Some(revision);
        }
        self.rounds = self.rounds.wrapping_add(1);
        if self.rounds.is_multiple_of(PURGE_ROUNDS) {
            let before = Expire { millis: millis.saturating_sub(ENDED_MS) };
            while flow.change(Change::EnvelopesPurge(before)).await?.more {}
        }
        Ok(())
    }
}

/// The jobs of actors that were connected to nodes whose life has ended are given back.
async fn lost_nodes(flow: &Flow) -> Result<(), Fault> {
    let state = flow.client().bus().node().state();
    let lost: Vec<Owner> =
        state.with_machine(|machine| machine.xbus().serving().filter(|owner| !machine.is_alive(*owner)).collect());
    for owner in lost {
        // Jobs that are detached stay with the owner until their actor comes back, so they do not come up again.
        let ids: Vec<Id> = flow.client().look(|xbus| xbus.losable(owner).collect());
        for part in ids.chunks(ROLL_STEP_MAX) {
            flow.advance_all(part, Event::NodeLost(owner)).await?;
        }
    }
    Ok(())
}

/// Actors that may not work any more lose their jobs.
async fn actors_gone(flow: &Flow) -> Result<(), Fault> {
    let gone: Vec<Id> = flow.client().look(|xbus| {
        let works = |actor: &ActorRow| xbus.is_enabled(actor);
        xbus.concerned().filter(|id| !xbus.actor(*id).is_some_and(works)).collect()
    });
    for actor in gone {
        let ids: Vec<Id> = flow.client().look(|xbus| xbus.processes_of(actor).collect());
        for part in ids.chunks(ROLL_STEP_MAX) {
            flow.advance_all(part, Event::ActorGone(actor.to_vec())).await?;
        }
    }
    Ok(())
}

/// Nodes that wait for the first actor of a role may have one now.
async fn actors_changed(flow: &Flow) -> Result<(), Fault> {
    let ids: Vec<Id> = flow.client().look(|xbus| xbus.without_actor().collect());
    for part in ids.chunks(ROLL_STEP_MAX) {
        flow.advance_all(part, Event::ActorsChanged(Unit {})).await?;
    }
    Ok(())
}

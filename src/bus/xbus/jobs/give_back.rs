//! Jobs that go back to the cluster, and jobs that go on because their actor is there again.

use rollbook_core::limits::ROLL_STEP_MAX;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::{ActorConnection, Event};
use rollbook_core::xbus::process::row::JobState;

use crate::bus::xbus::jobs::engine::Engine;

fn connection(engine: &Engine, actor: Id) -> ActorConnection {
    let owner = engine.flow().client().bus().node().owner();
    ActorConnection { actor: actor.to_vec(), owner: Some(owner) }
}

/// Gives the job of an actor back at once. What fails is done by the sweep.
pub async fn give_back(engine: &Engine, process: Id, actor: Id) {
    let lost = Event::ActorLost(connection(engine, actor));
    if let Err(fault) = engine.flow().advance_all(&[process], lost).await {
        tracing::debug!(%fault, %process, "a job is given back by the sweep");
    }
}

/// Detached jobs of an actor go on that is connected again.
pub async fn come_back(engine: &Engine, actor: Id) {
    let ids: Vec<Id> = engine.flow().client().look(|xbus| xbus.detached_of(actor).collect());
    for part in ids.chunks(ROLL_STEP_MAX) {
        let back = Event::ActorBack(connection(engine, actor));
        if let Err(fault) = engine.flow().advance_all(part, back).await {
            tracing::warn!(%actor, %fault, "jobs of an actor that came back may be given to others");
        }
    }
}

/// Whether the cluster counts the actor of a detached job as away.
#[must_use]
pub fn is_away(engine: &Engine, actor: Id) -> bool {
    engine.flow().client().look(|xbus| {
        let rows = xbus.detached_of(actor).filter_map(|id| xbus.open_process(id));
        let mut jobs = rows.flat_map(|row| row.nodes.iter().flat_map(|node| &node.jobs));
        jobs.any(|job| job.actor == actor.as_bytes() && job.state() == JobState::Detached && job.away_since != 0)
    })
}

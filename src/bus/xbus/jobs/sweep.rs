//! Gives back the jobs that the rules count as brought by this life of this node, and that the node does not work on:
//! their actor has disconnected, or the outcome of a proposal was never known.

use std::collections::{BTreeMap, HashSet};

use rollbook_core::limits::ROLL_STEP_MAX;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::node::Owner;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::{ActorConnection, Event};
use rollbook_core::xbus::process::row::JobState;

use crate::bus::xbus::flow::Flow;
use crate::bus::xbus::jobs::workers::{JobKey, Workers};

/// The jobs that the last round found left although their actor is connected. A job whose end was proposed a moment ago
/// is not yet ended in the state of this node: such a job is given back by the second round that finds it.
pub(super) type Suspects = HashSet<JobKey>;

/// One round.
pub(super) async fn sweep(flow: &Flow, workers: &Workers, suspects: &mut Suspects) {
    let owner = flow.client().bus().node().owner();
    let left = flow.client().look(|xbus| left(xbus, owner, workers, suspects));
    for (actor, processes) in left {
        let connection = ActorConnection { actor: actor.to_vec(), owner: Some(owner) };
        for part in processes.chunks(ROLL_STEP_MAX) {
            tracing::debug!(%actor, jobs = part.len(), "jobs are given back");
            if let Err(fault) = flow.advance_all(part, Event::ActorLost(connection.clone())).await {
                tracing::debug!(%fault, %actor, "jobs are not given back yet");
                return;
            }
        }
    }
}

/// The processes of which an actor has a job that this node should work on and does not, by actor.
fn left(xbus: &Xbus, owner: Owner, workers: &Workers, suspects: &mut Suspects) -> BTreeMap<Id, Vec<Id>> {
    let before = std::mem::take(suspects);
    let mut left: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    let served: Vec<(Id, Id)> = xbus.served_by(owner).collect();
    if served.is_empty() {
        return left;
    }
    let brought = workers.jobs();
    for (process, actor) in served {
        let Some(row) = xbus.open_process(process) else { continue };
        let graph = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id)?.graph.as_ref());
        let nodes = row.nodes.iter().zip(graph.map_or(&[][..], |graph| graph.nodes()));
        let is_left = nodes.flat_map(|(row, node)| row.jobs.iter().map(move |job| (job, node))).any(|(job, node)| {
            let mine = job.actor == actor.as_bytes() && job.owner == Some(owner);
            mine && match job.state() {
                JobState::Pending | JobState::Running => {
                    let key = (process, node.id.clone(), actor);
                    !brought.contains(&key)
                        && (!workers.is_connected(actor) || before.contains(&key) || !suspects.insert(key))
                }
                // The actor says by itself how the job ends, by any of its connections.
                JobState::Detached => job.away_since == 0 && !workers.is_connected(actor),
                _ => false,
            }
        });
        if is_left {
            left.entry(actor).or_default().push(process);
        }
    }
    left
}

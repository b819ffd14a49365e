//! Brings jobs to the actors of this node, and keeps the processes of the cluster going.
//!
//! Four loops, which run until the node stops: one brings jobs, one gives back what this node no longer works on, one
//! tells the cluster which actors were seen here, and at the leader one lets time pass and hears of lost nodes and actors.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rollbook_core::level::FeatureLevel;
use rollbook_core::limits::ROLL_STEP_MAX;
use rollbook_core::xbus::change::{Change, Ids};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::{Event, JobName, JobSend};
use tokio_util::sync::CancellationToken;

use crate::base::actors::must_tell;
use crate::base::clock;
use crate::bus::handle::Bus;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::flow::Flow;
use crate::bus::xbus::jobs::pick::{Pick, PickKey, Picker};
use crate::bus::xbus::jobs::seen::{Seen, Told};
use crate::bus::xbus::jobs::sweep;
use crate::bus::xbus::jobs::upkeep::Upkeep;
use crate::bus::xbus::jobs::workers::{Deliver, JobGuard, Workers};

/// Longest time between two looks for jobs to bring: a job that another node should have brought is found then.
const LOOK: Duration = Duration::from_millis(100);
/// How often the node gives back what it no longer works on, and the leader looks after the rest.
const SWEEP: Duration = Duration::from_secs(1);
/// How often the node looks for actors of which the cluster has to hear that they were seen.
const SEEN: Duration = Duration::from_secs(5);
/// Most jobs whose start is being proposed.
const SENDS_MAX: usize = 1024;

/// The engine of this node. Clones share one state.
#[derive(Debug, Clone)]
pub struct Engine {
    flow: Flow,
    workers: Workers,
    seen: Seen,
}

impl Engine {
    /// The engine over a bus. [`Engine::run`] must run.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self { flow: Flow::new(XbusClient::new(bus)), workers: Workers::default(), seen: Seen::default() }
    }

    /// Makes the changes of envelopes and processes.
    #[must_use]
    pub const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The actors that are connected to this node.
    #[must_use]
    pub const fn workers(&self) -> &Workers {
        &self.workers
    }

    /// The actors that did something at this node.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    fn bus(&self) -> &Bus {
        self.flow.client().bus()
    }

    /// Whether the cluster follows the rules of Xbus.
    fn is_known(&self) -> bool {
        self.bus().level() >= FeatureLevel::XBUS
    }

    /// Runs until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.bring() => {}
            () = self.sweep() => {}
            () = self.look_after() => {}
            () = self.tell_seen() => {}
        }
    }

    /// Brings jobs to the actors of this node.
    async fn bring(&self) {
        let mut applied = self.bus().node().state().applied();
        let (mut picker, mut sends) = (Picker::default(), FuturesUnordered::new());
        let mut proposing: HashSet<PickKey> = HashSet::new();
        loop {
            if sends.len() < SENDS_MAX && self.is_known() {
                for pick in self.pick(&mut picker, &proposing) {
                    let key = pick.key();
                    proposing.insert(key);
                    sends.push(async move {
                        self.send(pick).await;
                        key
                    });
                }
            }
            tokio::select! {
                Some(key) = sends.next(), if !sends.is_empty() => {
                    proposing.remove(&key);
                    // What else is ready is taken before the next look.
                    continue_ready(&mut sends, &mut proposing);
                }
                changed = applied.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.workers.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn pick(&self, picker: &mut Picker, proposing: &HashSet<PickKey>) -> Vec<Pick> {
        let free = self.workers.free();
        if free.is_empty() {
            return Vec::new();
        }
        let node = self.bus().node();
        let taken = |key: PickKey| proposing.contains(&key);
        node.state().with_machine(|machine| picker.pick(machine, (node.id(), &free), &taken, clock::now()))
    }

    /// Proposes that this node brings a job, and gives the job to the connection of its actor.
    async fn send(&self, pick: Pick) {
        let Pick { process, node, actor, .. } = pick;
        let Some((to, guard)) = self.workers.reserve((process, node.clone(), actor)) else { return };
        let send = JobSend { job: job_name(&guard), owner: Some(self.bus().node().owner()) };
        match self.flow.advance(process, Event::Send(send)).await {
            Ok(step) => {
                if let Some(job) = step.deliver {
                    must_tell(&to, Deliver { process, job, guard });
                }
            }
            // Another node was faster, or the process has ended; or the job is found and given back by the sweep.
            Err(fault) => tracing::debug!(%fault, %process, node, "a job is not brought"),
        }
    }

    /// Gives back what this node no longer works on.
    async fn sweep(&self) {
        let mut suspects = sweep::Suspects::default();
        loop {
            tokio::select! {
                () = self.workers.gone() => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
            if self.is_known() {
                sweep::sweep(&self.flow, &self.workers, &mut suspects).await;
            }
        }
    }

    /// Tells the cluster which actors were seen here.
    async fn tell_seen(&self) {
        let mut told = Told::default();
        loop {
            tokio::time::sleep(SEEN).await;
            if !self.is_known() {
                continue;
            }
            let mut seen = self.seen.take();
            seen.extend(self.workers.connected());
            for part in told.due(seen, clock::now()).chunks(ROLL_STEP_MAX) {
                let ids = part.iter().copied().map(Id::to_vec).collect();
                if let Err(fault) = self.flow.client().change(Change::ActorsSeen(Ids { ids })).await {
                    tracing::debug!(%fault, "actors are seen again in a minute");
                }
            }
        }
    }

    /// At the leader: lets time pass, and hears of lost nodes and actors.
    async fn look_after(&self) {
        let mut upkeep = Upkeep::default();
        loop {
            tokio::time::sleep(SWEEP / 4).await;
            if self.is_known() && self.bus().node().consensus().leads() {
                upkeep.round(&self.flow).await;
            } else {
                upkeep = Upkeep::default();
            }
        }
    }
}

/// Takes the outcomes that are there already.
fn continue_ready<F: Future<Output = PickKey>>(sends: &mut FuturesUnordered<F>, proposing: &mut HashSet<PickKey>) {
    use futures_util::FutureExt as _;
    while let Some(Some(key)) = sends.next().now_or_never() {
        proposing.remove(&key);
    }
}

/// The job of a guard, as events of processes name it.
#[must_use]
pub fn job_name(guard: &JobGuard) -> JobName {
    let (_, node, actor) = guard.key();
    JobName { node: node.clone(), actor: actor.to_vec() }
}

//! Which of the jobs that wait this node brings. Pure: every node decides by the same state, so that mostly one of them
//! brings a job; the rules let exactly one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::machine::Machine;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::machine::xbus::waiting::Waiting;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::pipeline::graph::Node;
use rollbook_core::xbus::process::event::Actors as _;

use crate::bus::xbus::presence;

/// Most jobs that one look picks.
pub(super) const PICKS_MAX: usize = 256;
/// Jobs of one node of a pipeline that one look reads.
const LOOKED_MAX: usize = 1024;
/// Most jobs of an actor, those included that it does without a stream.
const LOAD_MAX: usize = 1024;
/// Most nodes of pipelines whose actors are remembered.
const NAMED_MAX: usize = 4096;
/// How long a job is left to the node that should bring it.
const ELSEWHERE: Duration = Duration::from_millis(200);
/// Most jobs that are remembered as left to other nodes.
const PASSED_MAX: usize = 8192;

/// A job to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pick {
    /// The process.
    pub process: Id,
    /// Number of the node.
    pub number: u32,
    /// Name of the node.
    pub node: String,
    /// The actor.
    pub actor: Id,
}

/// A job that is picked, by what tells it apart: process, number of the node and actor.
pub(super) type PickKey = (Id, u32, Id);

impl Pick {
    /// What tells the job apart.
    pub(super) const fn key(&self) -> PickKey {
        (self.process, self.number, self.actor)
    }
}

/// A node of a version of a pipeline: version and number.
type NodeAt = (Id, u32);

/// What this node remembers between two looks.
#[derive(Debug, Default)]
pub(super) struct Picker {
    /// The actors that each node of each pipeline names, at this revision of accounts, actors and pipelines.
    named: (u64, HashMap<NodeAt, Arc<[Id]>>),
    /// Jobs that were left to other nodes, and since when.
    passed: HashMap<Waiting, Instant>,
}

/// Something that can take a job.
struct Candidate {
    actor: Id,
    /// How many jobs the actor has.
    load: u32,
    /// How many more it takes here; 0: it is at other nodes alone, or takes no more.
    free: usize,
    /// The other nodes to which it is connected.
    others: Vec<u64>,
}

impl Candidate {
    /// Whether it is this node that should bring the job of this process.
    fn is_for(&self, here: u64, process: Id) -> bool {
        if self.free == 0 || self.others.is_empty() {
            return self.free > 0;
        }
        let before = self.others.iter().filter(|other| **other < here).count();
        let nodes = self.others.len().saturating_add(1);
        let turn = usize::try_from(turn(process, self.actor)).unwrap_or_default();
        turn.checked_rem(nodes) == Some(before)
    }
}

/// A number by which two actors with the same load are told apart, other for each process.
fn turn(process: Id, actor: Id) -> u32 {
    let end = |id: Id| id.as_bytes().last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    (end(process) ^ end(actor)).wrapping_mul(0x9e37_79b9)
}

impl Picker {
    /// The jobs to bring now. `free` says how many each actor takes here; `taken` which jobs are being brought already.
    pub(super) fn pick(
        &mut self,
        machine: &Machine,
        (here, free): (u64, &HashMap<Id, usize>),
        taken: &dyn Fn(PickKey) -> bool,
        now: Instant,
    ) -> Vec<Pick> {
        let mut picks = Vec::new();
        self.passed.retain(|_, since| now.saturating_duration_since(*since) < ELSEWHERE * 8);
        if free.is_empty() {
            return picks;
        }
        let xbus = machine.xbus();
        for (pipeline, number, bound) in xbus.waiting_nodes() {
            let version = xbus.pipeline(pipeline);
            let graph = version.and_then(|version| version.graph.as_ref());
            let Some(node) = usize::try_from(number).ok().and_then(|number| graph?.node(number)) else { continue };
            let actors =
                if bound == Id::default() { self.named(xbus, (pipeline, number), node) } else { [bound].into() };
            let candidate = |actor: Id| {
                let row = xbus.actor(actor).filter(|_| xbus.may_work(node, actor))?;
                let others = presence::other_nodes(machine, row, here);
                let load = xbus.load(actor);
                let room = LOAD_MAX.saturating_sub(usize::try_from(load).unwrap_or(usize::MAX));
                let free = free.get(&actor).copied().unwrap_or_default().min(room);
                (free > 0 || !others.is_empty()).then_some(Candidate { actor, load, free, others })
            };
            let mut candidates: Vec<Candidate> = actors.iter().copied().filter_map(candidate).collect();
            if candidates.iter().all(|candidate| candidate.free == 0) {
                continue;
            }
            for job in xbus.waiting(pipeline, number, bound).take(LOOKED_MAX) {
                if picks.len() >= PICKS_MAX {
                    return picks;
                }
                if let Some(actor) = self.choose(job, here, (&mut candidates, now))
                    && !taken((job.process, number, actor))
                {
                    picks.push(Pick { process: job.process, number, node: node.id.clone(), actor });
                }
            }
        }
        picks
    }

    /// The enabled actors that a node names.
    fn named(&mut self, xbus: &Xbus, of: NodeAt, node: &Node) -> Arc<[Id]> {
        let (revision, named) = &mut self.named;
        if *revision != xbus.revision() || named.len() > NAMED_MAX {
            *revision = xbus.revision();
            named.clear();
        }
        Arc::clone(named.entry(of).or_insert_with(|| xbus.of(node).into()))
    }

    /// The actor here that gets the job; `None`: another node should bring the job, or nobody has room.
    fn choose(&mut self, job: &Waiting, here: u64, (candidates, now): (&mut [Candidate], Instant)) -> Option<Id> {
        let least = |candidate: &&mut Candidate| (candidate.load, turn(job.process, candidate.actor));
        let late = self.passed.get(job).is_some_and(|since| now.saturating_duration_since(*since) >= ELSEWHERE);
        let best = if late {
            candidates.iter_mut().filter(|candidate| candidate.free > 0).min_by_key(least)?
        } else {
            candidates.iter_mut().min_by_key(least)?
        };
        best.load = best.load.saturating_add(1);
        if !late && !best.is_for(here, job.process) {
            if self.passed.len() < PASSED_MAX {
                self.passed.entry(*job).or_insert(now);
            }
            return None;
        }
        best.free = best.free.saturating_sub(1);
        self.passed.remove(job);
        Some(best.actor)
    }
}

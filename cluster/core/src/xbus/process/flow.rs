//! Envelopes and closings go along the edges; nodes become ready, are skipped, have ended.

use alloc::format;
use alloc::vec::Vec;

use super::event::Actors;
use super::row::{JobRow, JobState, NodeState, OutputRow, OutputState, ProcessStatus};
use super::step::{JobAt, Step};
use crate::xbus::id::Id;
use crate::xbus::limits::JOBS_MAX;
use crate::xbus::pipeline::graph::Port;

impl<A: Actors> Step<'_, A> {
    /// Brings an envelope to every input that an output leads to.
    pub(super) fn pass_on(&mut self, from: Port, envelope: &[u8]) {
        let targets: Vec<Port> = self.graph.targets(from).collect();
        for to in targets {
            let Some((node, row)) = self.node(to.node) else { continue };
            let name = node.inputs.get(to.port).map(|input| format!("{}.{input}", node.id));
            let Some(input) = row.inputs.get_mut(to.port) else { continue };
            if input.envelope.is_empty() {
                input.envelope = envelope.to_vec();
            } else {
                self.fail(format!("input {} got a second envelope", name.unwrap_or_default()));
            }
        }
    }

    /// Closes the edges of an output, once.
    pub(super) fn close_edges(&mut self, from: Port) {
        let bit = u32::try_from(from.port).ok().and_then(|port| 1_u32.checked_shl(port)).unwrap_or(0);
        let Some((_, row)) = self.node(from.node) else { return };
        if row.closed_outputs & bit != 0 {
            return;
        }
        row.closed_outputs |= bit;
        let targets: Vec<Port> = self.graph.targets(from).collect();
        for to in targets {
            let input = self.node(to.node).and_then(|(_, row)| row.inputs.get_mut(to.port));
            if let Some(input) = input {
                input.closed_edges = input.closed_edges.saturating_add(1);
            }
        }
    }

    /// Closes all outputs of a node.
    pub(super) fn close_outputs(&mut self, node: usize) {
        let count = self.graph.node(node).map_or(0, |node| node.outputs.len());
        (0..count).for_each(|port| self.close_edges(Port { node, port }));
    }

    /// Looks at the jobs of a node after one of them changed: an output that no job can use any more is closed, and a
    /// node whose jobs have all ended has ended.
    pub(super) fn settle_node(&mut self, number: usize) {
        let Some((node, row)) = self.node(number) else { return };
        let outputs = node.outputs.len();
        let output = |job: &JobRow, port: usize| job.outputs.get(port).map_or(OutputState::Closed, OutputRow::state);
        let unused: Vec<usize> =
            (0..outputs).filter(|port| row.jobs.iter().all(|job| output(job, *port) == OutputState::Closed)).collect();
        let any = |state: JobState| row.jobs.iter().any(|job| job.state() == state);
        let failed = any(JobState::Error);
        if failed {
            row.set_state(NodeState::Error);
        } else if row.jobs.iter().all(|job| job.state().is_final()) {
            row.set_state(if any(JobState::Success) { NodeState::Success } else { NodeState::Skipped });
        }
        let id = node.id.clone();
        unused.into_iter().for_each(|port| self.close_edges(Port { node: number, port }));
        if failed {
            self.fail(format!("node {id} failed"));
        }
    }

    /// Makes nodes ready whose inputs are all there, and skips those to which nothing comes. Ends the process when no
    /// node is left.
    pub(super) fn settle(&mut self) {
        if self.process.status().is_final() {
            self.effects.ready.clear();
            return;
        }
        // A node stands behind all nodes that feed it, so one way through the order is enough.
        let order = self.graph.order().to_vec();
        for number in order {
            self.settle_inputs(number);
        }
        if !self.process.status().is_final() && self.process.nodes.iter().all(|node| node.state().is_well()) {
            self.set_status(ProcessStatus::Done);
        }
        if self.process.status() != ProcessStatus::Running {
            self.effects.ready.clear();
        }
    }

    fn settle_inputs(&mut self, number: usize) {
        let graph = self.graph;
        let Some((_, row)) = self.node(number) else { return };
        if row.state() != NodeState::Waiting {
            return;
        }
        let (mut nothing, mut any) = (true, false);
        for (port, input) in row.inputs.iter().enumerate() {
            let closed = usize::try_from(input.closed_edges).unwrap_or(0) >= graph.feeders(Port { node: number, port });
            nothing &= input.envelope.is_empty();
            any |= input.envelope.is_empty() && !closed;
        }
        if any {
            return;
        }
        if nothing {
            row.set_state(NodeState::Skipped);
            self.close_outputs(number);
        } else {
            row.set_state(NodeState::Ready);
            self.create_jobs(number);
        }
    }

    /// Makes the jobs of a node whose inputs are there. A node with `rolebroadcast` and without an enabled actor waits
    /// for the first one.
    pub(super) fn create_jobs(&mut self, number: usize) {
        let (graph, actors, millis) = (self.graph, self.actors, self.millis);
        let Some(node) = graph.node(number) else { return };
        let outputs = alloc::vec![OutputRow::default(); node.outputs.len()];
        let job = |actor: Option<Id>| {
            let (bound, actor) = (actor.is_some(), actor.map(Id::to_vec).unwrap_or_default());
            JobRow { actor, bound, outputs: outputs.clone(), changed: millis, ..JobRow::default() }
        };
        let jobs: Vec<JobRow> = if node.role_broadcast {
            actors.of(node).into_iter().map(|actor| job(Some(actor))).collect()
        } else {
            alloc::vec![job(None)]
        };
        let count = self.process.nodes.iter().map(|row| row.jobs.len()).sum::<usize>().saturating_add(jobs.len());
        if count > JOBS_MAX {
            self.fail(format!("node {} would have {} jobs; a process has at most {JOBS_MAX}", node.id, jobs.len()));
            return;
        }
        let made = jobs.len();
        if let Some((_, row)) = self.node(number) {
            row.jobs = jobs;
        }
        (0..made).for_each(|job| self.announce_ready(JobAt { node: number, job }));
    }
}

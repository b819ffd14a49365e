//! A process that has ended goes along again, as a new process: from the start, or from one of its nodes.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::apply::Seed;
use super::event::{Actors, Effects};
use super::row::{InputRow, JobRow, JobState, NodeRow, NodeState, OutputRow, OutputState, ProcessRow, ProcessStatus};
use super::step::Step;
use crate::xbus::id::Id;
use crate::xbus::pipeline::document::NodeKind;
use crate::xbus::pipeline::graph::{Graph, Node, Port};

/// Why a process cannot go along again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The version has no such node.
    #[error("the version of the pipeline has no node {0}")]
    NoNode(String),
    /// The old process had no such node, or one that does something else.
    #[error("the old process had no such node {0}")]
    NoOldNode(String),
    /// An emitter gets nothing.
    #[error("node {0} is an emitter; replay the process from the start")]
    Emitter(String),
    /// Not all inputs of the node had an envelope or were closed.
    #[error("the old process never came to node {0}")]
    NotReached(String),
    /// The node has lost an input.
    #[error("node {0} has no input {1} in the version of the pipeline")]
    NoInput(String, String),
    /// Two envelopes come to one input.
    #[error("input {0}.{1} gets two envelopes")]
    TwoEnvelopes(String, String),
}

/// What goes along again.
#[derive(Debug, Clone, Copy)]
pub struct Replay<'a> {
    /// The process that has ended.
    pub old: &'a ProcessRow,
    /// The graph of its version.
    pub old_graph: &'a Graph,
    /// The version along which the new process goes.
    pub pipeline: Id,
    /// The graph of that version.
    pub graph: &'a Graph,
    /// The output by which the emitter sent the envelope.
    pub output: &'a str,
}

impl Replay<'_> {
    /// The emitter nodes from which the envelope went out in the old process.
    #[must_use]
    pub fn emitters(&self) -> Vec<usize> {
        let nodes = self.old_graph.nodes().iter().zip(&self.old.nodes).enumerate();
        let sent = nodes.filter(|(_, (node, row))| node.kind == NodeKind::Emitter && row.state() == NodeState::Success);
        sent.map(|(number, _)| number).collect()
    }

    /// The new process from the start: the envelope goes out of these emitter nodes of [`Replay::graph`].
    #[must_use]
    pub fn from_start(&self, id: Id, millis: u64, emitters: &[usize], actors: &impl Actors) -> (ProcessRow, Effects) {
        self.blank(id, millis).start(self.graph, self.output, emitters, actors)
    }

    /// The new process from a node. The node gets what it got in the old process; all that stands behind the node goes
    /// along anew. All other nodes do nothing: what they sent in the old process comes to the nodes behind.
    ///
    /// # Errors
    /// The node is not there in both versions, or the old process did not come so far.
    pub fn from_node(
        &self,
        id: Id,
        millis: u64,
        name: &str,
        actors: &impl Actors,
    ) -> Result<(ProcessRow, Effects), ReplayError> {
        let start = self.graph.find(name).ok_or_else(|| ReplayError::NoNode(name.to_string()))?;
        let inputs = self.inputs_of(start, name)?;
        let behind = behind(self.graph, start);
        let mut process = self.blank(id, millis);
        let kept = |number: &usize| !behind.contains(number);
        for (number, row) in process.nodes.iter_mut().enumerate().filter(|(number, _)| kept(number)) {
            *row = self.graph.node(number).map(|node| self.kept(node)).unwrap_or_default();
        }
        let effects = Effects::default();
        let mut step = Step { graph: self.graph, actors, process, effects, millis };
        step.set_status(ProcessStatus::Running);
        for (number, node) in self.graph.nodes().iter().enumerate().filter(|(number, _)| kept(number)) {
            for (port, output) in node.outputs.iter().enumerate() {
                let (from, sent) = (Port { node: number, port }, self.sent(node, output));
                if sent.is_empty() {
                    step.close_edges(from);
                }
                let targets = || self.graph.targets(from).filter(|to| to.node != start && behind.contains(&to.node));
                for (to, envelope) in sent.iter().flat_map(|envelope| targets().map(move |to| (to, envelope))) {
                    self.put(&mut step.process, to, envelope)?;
                }
            }
        }
        if let Some((_, row)) = step.node(start) {
            row.inputs = inputs;
        }
        step.settle();
        Ok((step.process, step.effects))
    }

    fn blank(&self, id: Id, millis: u64) -> ProcessRow {
        let id_of = |bytes: &[u8]| Id::from_slice(bytes).unwrap_or_default();
        let seed = Seed { id, envelope: id_of(&self.old.envelope), millis };
        let mut process = ProcessRow::blank(seed, id_of(&self.old.emitter), self.pipeline, self.graph);
        process.replay_of.clone_from(&self.old.id);
        process
    }

    /// The node of the old process that has the name and kind of this one.
    fn old_node(&self, node: &Node) -> Option<(&Node, &NodeRow)> {
        let number = self.old_graph.find(&node.id)?;
        let old = self.old_graph.node(number).zip(self.old.nodes.get(number))?;
        (old.0.kind == node.kind).then_some(old)
    }

    /// What came to the first node in the old process.
    fn inputs_of(&self, start: usize, name: &str) -> Result<Vec<InputRow>, ReplayError> {
        let no_old = || ReplayError::NoOldNode(name.to_string());
        let node = self.graph.node(start).ok_or_else(no_old)?;
        let (old, row) = self.old_node(node).ok_or_else(no_old)?;
        if node.kind == NodeKind::Emitter {
            return Err(ReplayError::Emitter(name.to_string()));
        }
        if row.state() == NodeState::Waiting || row.inputs.iter().all(|input| input.envelope.is_empty()) {
            return Err(ReplayError::NotReached(name.to_string()));
        }
        let mut inputs: Vec<InputRow> = (0..node.inputs.len())
            // Nothing more comes to an input by its edges.
            .map(|port| u32::try_from(self.graph.feeders(Port { node: start, port })).unwrap_or(u32::MAX))
            .map(|closed_edges| InputRow { closed_edges, ..InputRow::default() })
            .collect();
        for (input, came) in old.inputs.iter().zip(&row.inputs).filter(|(_, came)| !came.envelope.is_empty()) {
            let place = node.input(input).and_then(|port| inputs.get_mut(port));
            let place = place.ok_or_else(|| ReplayError::NoInput(name.to_string(), input.clone()))?;
            place.envelope.clone_from(&came.envelope);
        }
        Ok(inputs)
    }

    /// A node that does nothing: what ended well in the old process stays, and all else is skipped.
    fn kept(&self, node: &Node) -> NodeRow {
        let mut kept = NodeRow { inputs: alloc::vec![InputRow::default(); node.inputs.len()], ..NodeRow::default() };
        kept.set_state(NodeState::Skipped);
        let Some((old, row)) = self.old_node(node).filter(|(_, row)| row.state() == NodeState::Success) else {
            return kept;
        };
        kept.set_state(NodeState::Success);
        for (input, came) in old.inputs.iter().zip(&row.inputs) {
            if let Some(place) = node.input(input).and_then(|port| kept.inputs.get_mut(port)) {
                place.envelope.clone_from(&came.envelope);
            }
        }
        let closed = || {
            let mut closed = OutputRow::default();
            closed.set_state(OutputState::Closed);
            closed
        };
        let outputs = |job: &JobRow| {
            let output = |name: &String| old.output(name).and_then(|port| job.outputs.get(port)).cloned();
            node.outputs.iter().map(|name| output(name).unwrap_or_else(closed)).collect()
        };
        // What their actors said stays with the old process.
        let job = |job: &JobRow| JobRow { outputs: outputs(job), messages: Vec::new(), owner: None, ..job.clone() };
        kept.jobs = row.jobs.iter().filter(|job| job.state().is_final()).map(job).collect();
        kept
    }

    /// The envelopes that a node sent by an output in the old process.
    fn sent(&self, node: &Node, output: &str) -> Vec<Vec<u8>> {
        let Some((old, row)) = self.old_node(node) else { return Vec::new() };
        if node.kind == NodeKind::Emitter {
            let is_it = row.state() == NodeState::Success && output == self.output;
            return is_it.then(|| self.old.envelope.clone()).into_iter().collect();
        }
        let Some(port) = old.output(output) else { return Vec::new() };
        let jobs = row.jobs.iter().filter(|job| job.state() != JobState::Dropped);
        let outputs = jobs.filter_map(|job| job.outputs.get(port));
        outputs.filter(|output| output.state() == OutputState::Sent).map(|output| output.envelope.clone()).collect()
    }

    /// Brings an envelope to an input.
    fn put(&self, process: &mut ProcessRow, to: Port, envelope: &[u8]) -> Result<(), ReplayError> {
        let place = process.nodes.get_mut(to.node).and_then(|row| row.inputs.get_mut(to.port));
        let Some((place, node)) = place.zip(self.graph.node(to.node)) else { return Ok(()) };
        if !place.envelope.is_empty() {
            let input = node.inputs.get(to.port).cloned().unwrap_or_default();
            return Err(ReplayError::TwoEnvelopes(node.id.clone(), input));
        }
        place.envelope = envelope.to_vec();
        Ok(())
    }
}

/// A node and all nodes to which something comes from it.
fn behind(graph: &Graph, start: usize) -> BTreeSet<usize> {
    let mut behind = BTreeSet::from([start]);
    // A node stands behind all nodes that feed it, so one way through the order is enough.
    for number in graph.order() {
        if graph.edges().iter().any(|edge| edge.to.node == *number && behind.contains(&edge.from.node)) {
            behind.insert(*number);
        }
    }
    behind
}

//! An event changes a process.

use alloc::vec::Vec;

use super::event::{Actors, Denied, Effects, Event};
use super::row::{InputRow, JobState, NodeRow, NodeState, ProcessRow, ProcessStatus};
use super::step::Step;
use crate::xbus::id::Id;
use crate::xbus::pipeline::document::NodeKind;
use crate::xbus::pipeline::graph::{Graph, Port, Trigger};

/// The state of a process whose envelope no pipeline takes.
pub const NO_PIPELINE: &str = "no matching pipeline";
/// The state of a process that an operator ended.
pub const CANCELED: &str = "canceled";

/// What a process is made of.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    /// The id of the process.
    pub id: Id,
    /// The complete envelope.
    pub envelope: Id,
    /// When the envelope became complete, milliseconds since 1970.
    pub millis: u64,
}

impl Seed {
    fn row(self, emitter: Id, pipeline: Vec<u8>) -> ProcessRow {
        let (id, envelope) = (self.id.to_vec(), self.envelope.to_vec());
        let (created, status_changed) = (self.millis, self.millis);
        let emitter = emitter.to_vec();
        let mut row = ProcessRow { id, pipeline, emitter, envelope, created, status_changed, ..ProcessRow::default() };
        row.set_status(ProcessStatus::Initial);
        row
    }
}

impl ProcessRow {
    /// The process of an envelope that no pipeline takes: it is in error.
    #[must_use]
    pub fn unmatched(seed: Seed, emitter: Id) -> Self {
        let mut row = seed.row(emitter, Vec::new());
        row.set_status(ProcessStatus::Error);
        row.state = NO_PIPELINE.into();
        row
    }

    /// The process of an envelope in this version of a pipeline; `None` when the pipeline does not match.
    #[must_use]
    pub fn begin(
        seed: Seed,
        pipeline: Id,
        graph: &Graph,
        trigger: Trigger<'_>,
        actors: &impl Actors,
    ) -> Option<(Self, Effects)> {
        let matching: Vec<usize> = graph.matching(trigger).collect();
        if matching.is_empty() {
            return None;
        }
        let emitter = trigger.emitter.id;
        Some(Self::blank(seed, emitter, pipeline, graph).start(graph, trigger.output, &matching, actors))
    }

    /// A process with no envelope at any node.
    pub(super) fn blank(seed: Seed, emitter: Id, pipeline: Id, graph: &Graph) -> Self {
        let mut process = seed.row(emitter, pipeline.to_vec());
        let inputs = |count: usize| alloc::vec![InputRow::default(); count];
        process.nodes = graph
            .nodes()
            .iter()
            .map(|node| NodeRow { inputs: inputs(node.inputs.len()), ..NodeRow::default() })
            .collect();
        process
    }

    /// Sends the envelope out of these emitter nodes, by this output.
    pub(super) fn start(
        self,
        graph: &Graph,
        output: &str,
        matching: &[usize],
        actors: &impl Actors,
    ) -> (Self, Effects) {
        let (millis, envelope) = (self.created, self.envelope.clone());
        let mut step = Step { graph, actors, process: self, effects: Effects::default(), millis };
        step.set_status(ProcessStatus::Running);
        for (number, node) in graph.nodes().iter().enumerate().filter(|(_, node)| node.kind == NodeKind::Emitter) {
            let matches = matching.contains(&number);
            if let Some((_, row)) = step.node(number) {
                row.set_state(if matches { NodeState::Success } else { NodeState::Skipped });
            }
            // An emitter sends on one output; nothing will come on the others.
            for (port, name) in node.outputs.iter().enumerate() {
                let from = Port { node: number, port };
                if matches && name == output {
                    step.pass_on(from, &envelope);
                } else {
                    step.close_edges(from);
                }
            }
        }
        step.settle();
        (step.process, step.effects)
    }

    /// Applies an event. `graph` is that of [`ProcessRow::pipeline`].
    ///
    /// # Errors
    /// The event cannot happen now; nothing has changed.
    pub fn apply(
        &mut self,
        graph: &Graph,
        actors: &impl Actors,
        event: &Event,
        millis: u64,
    ) -> Result<Effects, Denied> {
        let mut step = Step { graph, actors, process: self.clone(), effects: Effects::default(), millis };
        match event {
            Event::Send(send) => step.send(send)?,
            Event::Run(job) => step.run(job, JobState::Running)?,
            Event::Detach(job) => step.run(job, JobState::Detached)?,
            Event::End(end) => step.end(end)?,
            Event::OutputBegin(output) => step.output_begin(output)?,
            Event::OutputComplete(output) => step.output_complete(output)?,
            Event::OutputFail(output) => step.output_fail(output)?,
            Event::OutputClose(output) => step.output_close(output)?,
            Event::Forward(output) => step.forward(output)?,
            Event::ActorLost(connection) => step.actor_lost(connection),
            Event::ActorBack(connection) => step.actor_back(connection),
            Event::NodeLost(lost) => step.node_lost(*lost),
            Event::ActorGone(actor) => step.actor_gone(actor),
            Event::ActorsChanged(_) => step.actors_changed(),
            Event::Expire(_) => step.expire(),
            Event::Pause(_) | Event::Resume(_) | Event::Cancel(_) => step.control(event)?,
        }
        step.settle();
        *self = step.process;
        Ok(step.effects)
    }
}

impl<A: Actors> Step<'_, A> {
    /// An operator holds the process, lets it go on, or ends it.
    fn control(&mut self, event: &Event) -> Result<(), Denied> {
        match (event, self.process.status()) {
            (Event::Pause(_), ProcessStatus::Running) => self.set_status(ProcessStatus::Paused),
            (Event::Resume(_), ProcessStatus::Paused) => {
                self.set_status(ProcessStatus::Running);
                self.announce_all();
            }
            (Event::Cancel(_), ProcessStatus::Running | ProcessStatus::Paused) => self.fail(CANCELED),
            (_, ProcessStatus::Running) => return Err(Denied::NotRunning("not paused")),
            (_, ProcessStatus::Paused) => return Err(Denied::NotRunning("paused")),
            _ => return Err(Denied::NotRunning("at its end")),
        }
        Ok(())
    }
}

//! A process that has ended goes along again, as a new process.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use prost::Message as _;

use super::envelopes::Checked;
use super::keys::{self, FAMILY, Kind};
use super::processes::step;
use super::state::Pipeline;
use crate::error::Refusal;
use crate::machine::Machine;
use crate::rows::{Rows, RowsError, Writes};
use crate::subjects::subject::Namespace;
use crate::xbus::account::row::ActorRow;
use crate::xbus::change::Replay as ReplayChange;
use crate::xbus::done::XbusDone;
use crate::xbus::envelope::assembly::Needed;
use crate::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus};
use crate::xbus::id::Id;
use crate::xbus::limits::{PROCESS_BYTES_OPEN_MAX, PROCESSES_OPEN_MAX};
use crate::xbus::pipeline::graph::{Graph, Trigger};
use crate::xbus::process::event::Effects;
use crate::xbus::process::replay::Replay;
use crate::xbus::process::row::{NodeState, ProcessRow};

fn refused<T>(text: impl Into<String>) -> Checked<T> {
    Ok(Err(Refusal::Xbus(text.into())))
}

/// The version of a pipeline with its graph.
fn graph(pipeline: &Pipeline) -> Option<(Id, &Graph)> {
    Id::from_slice(&pipeline.row.id).ok().zip(pipeline.graph.as_ref())
}

/// The envelopes that nodes of a process still have to work on, and that with which it began.
fn needed(row: &ProcessRow) -> BTreeSet<Vec<u8>> {
    let open = row.nodes.iter().filter(|node| matches!(node.state(), NodeState::Waiting | NodeState::Ready));
    let inputs = open.flat_map(|node| &node.inputs).map(|input| &input.envelope);
    inputs.filter(|id| !id.is_empty()).chain([&row.envelope]).cloned().collect()
}

impl Machine {
    /// Makes a new process of one that has ended.
    pub(super) fn process_replay(
        &mut self,
        replay: &ReplayChange,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Checked<XbusDone> {
        let old = match self.ended_process(&replay.process, rows, writes)? {
            Ok(old) => old,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.xbus.processes.size() >= PROCESSES_OPEN_MAX {
            return Ok(Err(Refusal::Overloaded(format!("{PROCESSES_OPEN_MAX} processes go on"))));
        }
        if self.xbus.process_bytes >= PROCESS_BYTES_OPEN_MAX {
            return Ok(Err(Refusal::Overloaded("the processes that go on take too much memory".into())));
        }
        let envelope = match self.kept_envelope(&old.envelope, rows, writes)? {
            Ok(envelope) => envelope,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let begun = if old.pipeline.is_empty() {
            self.replay_unmatched(replay, &envelope, rows, writes)?
        } else {
            self.replay_matched(replay, &old, &envelope, rows, writes)?
        };
        let mut begun = match begun {
            Ok(begun) => begun,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for (row, _) in &mut begun {
            row.replay_of.clone_from(&old.id);
            if let Err(refusal) = self.hold(row, rows, writes)? {
                return Ok(Err(refusal));
            }
        }
        let mut done = XbusDone::default();
        for (row, effects) in begun {
            done.steps.push(step(&row, effects));
            self.save_process(row, writes);
        }
        Ok(Ok(done))
    }

    /// A process that has ended, and of which no actor has a job any more.
    fn ended_process(&self, id: &[u8], rows: &impl Rows, writes: &Writes) -> Checked<ProcessRow> {
        let Ok(id) = Id::from_slice(id) else { return Ok(Err(Refusal::Malformed("id of a process".into()))) };
        if let Some(open) = self.xbus.open_process(id) {
            let why = if open.status().is_final() { "an actor still has a job of it" } else { "the process goes on" };
            return refused(format!("process {id} cannot be replayed: {why}"));
        }
        let value = writes.get(rows, FAMILY, &keys::of(Kind::PROCESS, id))?;
        let row = value.map(|value| ProcessRow::decode(value.as_slice()).map_err(|_| RowsError::corrupt("xbus")));
        Ok(row.transpose()?.ok_or_else(|| Refusal::XbusNotFound(format!("process {id}"))))
    }

    /// A complete envelope all of whose fragments are in the book.
    fn kept_envelope(&self, id: &[u8], rows: &impl Rows, writes: &Writes) -> Checked<EnvelopeRow> {
        let id = Id::from_slice(id).unwrap_or_default();
        let Some(row) = self.ended_envelope(id, rows, writes)? else {
            return refused(format!("envelope {id} is gone: envelopes of its age were removed"));
        };
        if row.status() != EnvelopeStatus::Complete {
            return refused(format!("envelope {id} is not complete"));
        }
        let first = self.head(Namespace::XBUS).map_or(u64::MAX, |head| head.first);
        if row.first_sequence == 0 || row.first_sequence < first {
            return refused(format!("the items of envelope {id} are no longer in the book"));
        }
        Ok(Ok(row))
    }

    /// Has a process hold all that it needs of the book and of the rows of envelopes.
    fn hold(&self, row: &mut ProcessRow, rows: &impl Rows, writes: &Writes) -> Checked<()> {
        let (mut pinned, mut since) = (u64::MAX, self.millis);
        for id in needed(row) {
            match self.kept_envelope(&id, rows, writes)? {
                Ok(envelope) => {
                    pinned = pinned.min(envelope.first_sequence);
                    since = since.min(envelope.touched);
                }
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        (row.pinned, row.needs_from) = (pinned, since);
        Ok(Ok(()))
    }

    /// The types of the events of an envelope.
    fn event_types(envelope: &EnvelopeRow, rows: &impl Rows, writes: &Writes) -> Result<Vec<String>, RowsError> {
        let events = Self::event_rows(envelope.id(), &Needed::All, rows, writes)?;
        let types: BTreeSet<String> = events.into_values().map(|event| event.event_type).collect();
        Ok(types.into_iter().collect())
    }

    /// The processes of an envelope that no pipeline took: one for each active pipeline that takes it now.
    fn replay_unmatched(
        &self,
        replay: &ReplayChange,
        envelope: &EnvelopeRow,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Checked<Vec<(ProcessRow, Effects)>> {
        if !replay.active || !replay.from_node.is_empty() {
            return refused(
                "no pipeline took the envelope; replay the process from the start, with the active version",
            );
        }
        let events = Self::event_rows(envelope.id(), &Needed::All, rows, writes)?;
        Ok(self.matched_processes(envelope, &replay.ids, &events, rows, writes)?.and_then(|begun| {
            let refusal = || Refusal::Xbus("no active pipeline takes the envelope".into());
            if begun.is_empty() { Err(refusal()) } else { Ok(begun) }
        }))
    }

    /// The new process of one that went along a version of a pipeline.
    fn replay_matched(
        &self,
        replay: &ReplayChange,
        old: &ProcessRow,
        envelope: &EnvelopeRow,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Checked<Vec<(ProcessRow, Effects)>> {
        let id = match self.new_process_ids(&replay.ids, 1, rows, writes)? {
            Ok(ids) => ids.first().copied().unwrap_or_default(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let before = Id::from_slice(&old.pipeline).ok().and_then(|id| self.xbus.pipeline(id)).map(Arc::as_ref);
        let Some((before, (_, old_graph))) = before.and_then(|before| Some((before, graph(before)?))) else {
            return refused("the version of the pipeline is gone");
        };
        let active = || self.xbus.active.get(&before.row.name).and_then(|id| self.xbus.pipeline(*id));
        let target = if replay.active { active().map(Arc::as_ref) } else { Some(before) };
        let Some((pipeline, graph)) = target.and_then(graph) else {
            return refused(format!("no version of pipeline {} is active", before.row.name));
        };
        let again = Replay { old, old_graph, pipeline, graph, output: &envelope.output };
        if !replay.from_node.is_empty() {
            let begun = again.from_node(id, self.millis, &replay.from_node, &self.xbus);
            return Ok(begun.map(|begun| alloc::vec![begun]).map_err(|error| Refusal::Xbus(error.to_string())));
        }
        let emitters = if replay.active {
            let types = Self::event_types(envelope, rows, writes)?;
            let actor = Id::from_slice(&old.emitter).ok().and_then(|id| self.xbus.actor(id));
            let Some(emitter) = actor.and_then(ActorRow::view) else {
                return refused("the emitter is gone; replay the process with the same version");
            };
            graph.matching(Trigger { emitter, output: &envelope.output, event_types: &types }).collect()
        } else {
            again.emitters()
        };
        if emitters.is_empty() {
            return refused(format!("the active version of pipeline {} does not take the envelope", before.row.name));
        }
        Ok(Ok(alloc::vec![again.from_start(id, self.millis, &emitters, &self.xbus)]))
    }
}

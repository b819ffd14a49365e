//! Fragments become envelopes, and complete envelopes of emitters begin processes.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{self, FAMILY, Kind};
use super::processes::step;
use crate::command::{Done, Reply};
use crate::error::Refusal;
use crate::machine::Machine;
use crate::machine::events::ids;
use crate::rows::{Rows, RowsError, Writes};
use crate::subjects::subject::Namespace;
use crate::xbus::account::row::{ActorKind, ActorRow};
use crate::xbus::change::FragmentReceived;
use crate::xbus::done::{EnvelopeStep, FragmentDone, ProcessStep, Reception, XbusDone};
use crate::xbus::envelope::assembly::{Ack, Needed};
use crate::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus, EventRow};
use crate::xbus::id::Id;
use crate::xbus::limits::{ENVELOPES_OPEN_MAX, EVENTS_MAX, PROCESS_BYTES_OPEN_MAX, PROCESSES_OPEN_MAX};
use crate::xbus::pipeline::graph::Trigger;
use crate::xbus::process::apply::Seed;
use crate::xbus::process::event::{Denied, Event, JobOutput};
use crate::xbus::process::row::ProcessRow;

/// What a fragment is about, after its first checks.
struct Arrival {
    id: Id,
    actor: ActorRow,
    /// Of a worker: the process and what happens on its output.
    output: Option<(Id, JobOutput)>,
    /// Where the items are in the book.
    sequence: u64,
}

/// A fragment, or what the sender is told instead.
type Checked<T> = Result<Result<T, Refusal>, RowsError>;

fn xbus(denied: &Denied) -> Refusal {
    Refusal::Xbus(denied.to_string())
}

fn accepted() -> XbusDone {
    let fragment = FragmentDone { reception: Reception::Accepted.into(), ..FragmentDone::default() };
    XbusDone { fragment: Some(fragment), ..XbusDone::default() }
}

impl Machine {
    /// Takes a fragment whose items are in the book.
    pub(super) fn fragment(
        &mut self,
        received: &FragmentReceived,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<Reply, RowsError> {
        let done = match self.arrival(received, rows, writes)? {
            Ok(arrival) => self.receive(&arrival, received, rows, writes)?,
            Err(refusal) => Err(refusal),
        };
        Ok(done.map(|done| Done::Xbus(alloc::boxed::Box::new(done))))
    }

    /// Checks who sends a fragment, and that its items are in the book.
    fn arrival(&self, received: &FragmentReceived, rows: &impl Rows, writes: &Writes) -> Checked<Arrival> {
        let malformed = |what: &str| Ok(Err(Refusal::Malformed(what.into())));
        let Ok(id) = Id::from_slice(&received.envelope) else { return malformed("id of an envelope") };
        let actor = Id::from_slice(&received.actor).ok().and_then(|id| self.xbus.actor(id));
        let Some(actor) = actor.cloned() else { return Ok(Err(Refusal::XbusNotFound("actor".into()))) };
        if !self.xbus.is_enabled(&actor) {
            return Ok(Err(Refusal::Xbus("the actor is not enabled".into())));
        }
        let output = match (&received.job, actor.kind()) {
            (None, ActorKind::Emitter) => None,
            (Some(job), ActorKind::Worker) if job.actor == actor.id => {
                let Ok(process) = Id::from_slice(&received.process) else { return malformed("id of a process") };
                let (job, output, envelope) = (job.clone(), received.output.clone(), received.envelope.clone());
                Some((process, JobOutput { job, output, envelope }))
            }
            (_, ActorKind::Consumer) => return Ok(Err(Refusal::Xbus("a consumer sends no envelopes".into()))),
            (Some(_), ActorKind::Emitter) => {
                return Ok(Err(Refusal::Xbus("an emitter has no context".into())));
            }
            (_, ActorKind::Worker) => return Ok(Err(xbus(&Denied::NoLiveJob))),
        };
        let Some(head) = self.head(Namespace::XBUS) else { return Ok(Err(lost())) };
        let key = ids::row_key(head.id, &received.event);
        let found = ids::find(head, head.next, &received.event, &key, rows, writes)?;
        let ids::IdLookup::Taken(stored) = found else { return Ok(Err(lost())) };
        Ok(Ok(Arrival { id, actor, output, sequence: stored.sequence }))
    }

    /// The envelope as it is now, open or ended; a new one when none is known.
    fn envelope_of(
        &self,
        arrival: &Arrival,
        received: &FragmentReceived,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Checked<EnvelopeRow> {
        let (process, node) = match &arrival.output {
            Some((process, output)) => (process.to_vec(), output.job.node.clone()),
            None => (Vec::new(), String::new()),
        };
        let known = match self.xbus.open_envelope(arrival.id) {
            Some(open) => Some(open.clone()),
            None => self.ended_envelope(arrival.id, rows, writes)?,
        };
        let Some(row) = known else {
            if self.xbus.envelopes.size() >= ENVELOPES_OPEN_MAX {
                let text = format!("{ENVELOPES_OPEN_MAX} envelopes are coming");
                return Ok(Err(Refusal::Overloaded(text)));
            }
            let (id, actor) = (arrival.id.to_vec(), arrival.actor.id.clone());
            let (output, created, touched) = (received.output.clone(), self.millis, self.millis);
            let mut row = EnvelopeRow { id, actor, output, process, node, created, touched, ..EnvelopeRow::default() };
            row.set_status(EnvelopeStatus::Receiving);
            return Ok(Ok(row));
        };
        let same = row.actor == arrival.actor.id && row.output == received.output;
        if same && row.process == process && row.node == node {
            return Ok(Ok(row));
        }
        Ok(Err(Refusal::Xbus(format!("envelope {} was sent by another job or on another output", arrival.id))))
    }

    /// An envelope that is complete or in error.
    fn ended_envelope(&self, id: Id, rows: &impl Rows, writes: &Writes) -> Result<Option<EnvelopeRow>, RowsError> {
        let row = writes.get(rows, FAMILY, &keys::of(Kind::ENVELOPE, id))?;
        let decode = |value: Vec<u8>| EnvelopeRow::decode(value.as_slice()).map_err(|_| RowsError::corrupt("xbus"));
        row.map(decode).transpose()
    }

    /// The rows of events that `needed` names.
    fn event_rows(
        envelope: Id,
        needed: &Needed,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Result<BTreeMap<Id, EventRow>, RowsError> {
        let decode = |value: &[u8]| EventRow::decode(value).map_err(|_| RowsError::corrupt("xbus"));
        let mut found = BTreeMap::new();
        match needed {
            Needed::Some(ids) => {
                for id in ids {
                    let key = keys::key(Kind::EVENT, &[envelope.as_bytes(), id.as_bytes()]);
                    if let Some(value) = writes.get(rows, FAMILY, &key)? {
                        found.insert(*id, decode(&value)?);
                    }
                }
            }
            Needed::All => {
                let (from, to) = keys::bounds(Kind::EVENT, &[envelope.as_bytes()]);
                for (_, value) in writes.scan(rows, FAMILY, &from, &to, EVENTS_MAX)? {
                    let row = decode(&value)?;
                    found.insert(row.id(), row);
                }
            }
        }
        Ok(found)
    }

    fn receive(
        &mut self,
        arrival: &Arrival,
        received: &FragmentReceived,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Checked<XbusDone> {
        let mut envelope = match self.envelope_of(arrival, received, rows, writes)? {
            Ok(envelope) => envelope,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut steps = Vec::new();
        if let Some((process, output)) = arrival.output.as_ref().filter(|_| !envelope.is_final()) {
            match self.advance(*process, &Event::OutputBegin(output.clone()), writes) {
                Ok(step) if step.discard => return Ok(Ok(XbusDone { steps: alloc::vec![step], ..accepted() })),
                Ok(step) => steps.push(step),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let known = Self::event_rows(arrival.id, &envelope.needs(&received.fragment), rows, writes)?;
        let result = envelope.receive(&known, &received.fragment, self.millis);
        let changed: BTreeMap<Id, EventRow> = result.changed.iter().map(|row| (row.id(), row.clone())).collect();
        let ends = result.was.is_some_and(|was| was != envelope.status());
        if result.new_data && envelope.first_sequence == 0 {
            envelope.first_sequence = arrival.sequence;
        }
        if ends && envelope.status() == EnvelopeStatus::Complete && arrival.output.is_none() {
            let mut events = Self::event_rows(arrival.id, &Needed::All, rows, writes)?;
            events.extend(changed);
            match self.begin_processes(arrival, received, &envelope, &events) {
                Ok(begun) => {
                    for (row, step) in begun {
                        self.save_process(row, writes);
                        steps.push(step);
                    }
                }
                // Nothing is written yet: the sender repeats the fragment.
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        for row in &result.changed {
            writes.put(FAMILY, keys::key(Kind::EVENT, &[arrival.id.as_bytes(), &row.id]), row.encode_to_vec());
        }
        if result.new_data {
            let number = envelope.fragments.saturating_sub(1).to_be_bytes();
            let key = keys::key(Kind::FRAGMENT, &[arrival.id.as_bytes(), &number]);
            writes.put(FAMILY, key, arrival.sequence.to_be_bytes().into());
        }
        let status = envelope.status();
        if result.was.is_some() || result.new_data {
            self.save_envelope(envelope, writes);
        }
        if let Some((process, output)) = arrival.output.as_ref().filter(|_| ends) {
            let event = match status {
                EnvelopeStatus::Complete => Some(Event::OutputComplete(output.clone())),
                EnvelopeStatus::Error => Some(Event::OutputFail(output.clone())),
                _ => None,
            };
            steps.extend(event.and_then(|event| self.advance(*process, &event, writes).ok()));
        }
        let (reception, reason) = match result.ack {
            Ack::Receiving => (Reception::Receiving, String::new()),
            Ack::Accepted => (Reception::Accepted, String::new()),
            Ack::Error(reason) => (Reception::Error, reason),
        };
        let new_data = result.new_data;
        let fragment = FragmentDone { reception: reception.into(), reason, new_data };
        let envelopes = if ends || new_data {
            alloc::vec![EnvelopeStep { id: arrival.id.to_vec(), status: status.into(), new_data }]
        } else {
            Vec::new()
        };
        steps.retain(|step| step.was.is_some() || !step.ready.is_empty() || step.deliver.is_some());
        Ok(Ok(XbusDone { fragment: Some(fragment), steps, envelopes, ..XbusDone::default() }))
    }

    /// Writes the row of an envelope, and files it under those that are coming or those that have ended.
    pub(super) fn save_envelope(&mut self, row: EnvelopeRow, writes: &mut Writes) {
        let id = row.id();
        if !row.is_final() {
            writes.put(FAMILY, keys::of(Kind::ENVELOPE_OPEN, id), row.encode_to_vec());
            self.xbus.put_envelope(row);
            return;
        }
        self.xbus.remove_envelope(id);
        writes.delete(FAMILY, keys::of(Kind::ENVELOPE_OPEN, id));
        writes.put(FAMILY, keys::of(Kind::ENVELOPE, id), row.encode_to_vec());
        let ended = keys::key(Kind::ENVELOPE_ENDED, &[&row.touched.to_be_bytes(), id.as_bytes()]);
        writes.put(FAMILY, ended, Vec::new());
        if row.status() == EnvelopeStatus::Error {
            // Nothing can make it whole, and a fragment that comes again is answered by the row alone.
            for kind in [Kind::EVENT, Kind::FRAGMENT] {
                let (from, to) = keys::bounds(kind, &[id.as_bytes()]);
                writes.delete_range(FAMILY, from, to);
            }
        }
    }

    /// The processes that begin with a complete envelope of an emitter: one for each active pipeline that matches, and
    /// one in error when none does.
    fn begin_processes(
        &self,
        arrival: &Arrival,
        received: &FragmentReceived,
        envelope: &EnvelopeRow,
        events: &BTreeMap<Id, EventRow>,
    ) -> Result<Vec<(ProcessRow, ProcessStep)>, Refusal> {
        let mut types: Vec<String> = events.values().map(|event| event.event_type.clone()).collect();
        types.sort_unstable();
        types.dedup();
        let emitter = arrival.actor.view().ok_or_else(|| Refusal::Malformed("id of an actor".into()))?;
        let trigger = Trigger { emitter, output: &received.output, event_types: &types };
        let mut ids = received.process_ids.iter().filter_map(|id| Id::from_slice(id).ok());
        let mut begun = Vec::new();
        let pipelines = self.xbus.active_pipelines().filter_map(|pipeline| Some((pipeline, pipeline.graph.as_ref()?)));
        let matching: Vec<_> = pipelines.filter(|(_, graph)| graph.matching(trigger).next().is_some()).collect();
        let needed = matching.len().max(1);
        if ids.clone().count() < needed {
            return Err(Refusal::Malformed(format!("{needed} process ids needed")));
        }
        let seed = |id| Seed { id, envelope: arrival.id, millis: self.millis };
        if self.xbus.processes.size().saturating_add(matching.len()) > PROCESSES_OPEN_MAX {
            return Err(Refusal::Overloaded(format!("{PROCESSES_OPEN_MAX} processes go on")));
        }
        if self.xbus.process_bytes > PROCESS_BYTES_OPEN_MAX {
            return Err(Refusal::Overloaded("the processes that go on take too much memory".into()));
        }
        for (pipeline, graph) in matching {
            let Some(id) = ids.next() else { break };
            if self.xbus.open_process(id).is_some() {
                return Err(Refusal::Malformed("a process has that id".into()));
            }
            let version = Id::from_slice(&pipeline.row.id).unwrap_or_default();
            if let Some((mut row, effects)) = ProcessRow::begin(seed(id), version, graph, trigger, &self.xbus) {
                row.pinned = envelope.first_sequence;
                let step = step(&row, effects);
                begun.push((row, step));
            }
        }
        if begun.is_empty()
            && let Some(id) = ids.next()
        {
            let row = ProcessRow::unmatched(seed(id), emitter.id);
            let status = Some((crate::xbus::process::row::ProcessStatus::Initial, row.status()));
            let step = step(&row, crate::xbus::process::event::Effects { status, ..Default::default() });
            begun.push((row, step));
        }
        Ok(begun)
    }

    /// Applies an event to a process that goes on.
    pub(super) fn advance(&mut self, id: Id, event: &Event, writes: &mut Writes) -> Result<ProcessStep, Refusal> {
        let Some(present) = self.xbus.open_process(id).cloned() else { return Err(xbus(&Denied::NoLiveJob)) };
        let pipeline = Id::from_slice(&present.pipeline).ok().and_then(|id| self.xbus.pipeline(id)).map(Arc::clone);
        let graph = pipeline.as_ref().and_then(|pipeline| pipeline.graph.as_ref());
        let Some(graph) = graph else { return Err(Refusal::Xbus("the pipeline of the process is gone".into())) };
        let mut row = ProcessRow::clone(&present);
        let effects = row.apply(graph, &self.xbus, event, self.millis).map_err(|denied| xbus(&denied))?;
        let step = step(&row, effects);
        if row != *present {
            self.save_process(row, writes);
        }
        Ok(step)
    }
}

/// The refusal of a fragment whose items are not in the book.
fn lost() -> Refusal {
    Refusal::Unavailable("the fragment is not in the book; send it again".into())
}

//! Fragments become envelopes, and complete envelopes of emitters begin processes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{self, FAMILY, Kind};
use super::processes::{denied, step};
use crate::command::{Done, Reply};
use crate::error::Refusal;
use crate::event::EventId;
use crate::limits::EVENT_ID_BYTES_MAX;
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
use crate::xbus::limits::{
    ENVELOPES_OPEN_MAX, EVENTS_MAX, NAME_BYTES_MAX, PROCESS_BYTES_OPEN_MAX, PROCESSES_OPEN_MAX,
    PROCESSES_PER_ENVELOPE_MAX,
};
use crate::xbus::pipeline::graph::Trigger;
use crate::xbus::process::apply::Seed;
use crate::xbus::process::event::{Denied, Effects, Event, JobOutput};
use crate::xbus::process::row::{ProcessRow, ProcessStatus};

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
pub(super) type Checked<T> = Result<Result<T, Refusal>, RowsError>;

fn received(reception: Reception, reason: String, new_data: bool) -> XbusDone {
    let fragment = FragmentDone { reception: reception.into(), reason, new_data };
    XbusDone { fragment: Some(fragment), ..XbusDone::default() }
}

impl Arrival {
    /// Whether the fragment comes from where the others of the envelope came from.
    fn continues(&self, row: &EnvelopeRow, output: &str) -> bool {
        let (process, node) = self.job();
        row.actor == self.actor.id && row.output == output && row.process == process && row.node == node
    }

    /// Process and node of the job of a worker; both empty for an emitter.
    fn job(&self) -> (Vec<u8>, String) {
        let job = self.output.as_ref();
        job.map(|(process, output)| (process.to_vec(), output.job.node.clone())).unwrap_or_default()
    }

    /// The envelope before its first fragment.
    fn begin(&self, output: String, millis: u64) -> EnvelopeRow {
        let ((process, node), id, actor) = (self.job(), self.id.to_vec(), self.actor.id.clone());
        let (created, touched) = (millis, millis);
        let mut row = EnvelopeRow { id, actor, output, process, node, created, touched, ..EnvelopeRow::default() };
        row.set_status(EnvelopeStatus::Receiving);
        row
    }
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
        if received.output.len() > NAME_BYTES_MAX {
            return malformed("name of an output");
        }
        // An id that the book gave stands for an event that may not be readable yet.
        if received.event.len() > EVENT_ID_BYTES_MAX || EventId::parse(&received.event).is_some() {
            return malformed("id of the event of a fragment");
        }
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
            (_, ActorKind::Worker) => return Ok(Err(denied(&Denied::NoLiveJob))),
        };
        let Some(head) = self.head(Namespace::XBUS) else { return Ok(Err(lost())) };
        let key = ids::row_key(head.id, &received.event);
        let found = ids::find(head, head.next, &received.event, &key, rows, writes)?;
        let ids::IdLookup::Taken(stored) = found else { return Ok(Err(lost())) };
        Ok(Ok(Arrival { id, actor, output, sequence: stored.sequence }))
    }

    /// The envelope as it is now, open or ended.
    fn envelope_of(&self, id: Id, rows: &impl Rows, writes: &Writes) -> Result<Option<EnvelopeRow>, RowsError> {
        match self.xbus.open_envelope(id) {
            Some(open) => Ok(Some(open.clone())),
            None => self.ended_envelope(id, rows, writes),
        }
    }

    /// An envelope that is complete or in error.
    pub(super) fn ended_envelope(
        &self,
        id: Id,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Result<Option<EnvelopeRow>, RowsError> {
        let row = writes.get(rows, FAMILY, &keys::of(Kind::ENVELOPE, id))?;
        let decode = |value: Vec<u8>| EnvelopeRow::decode(value.as_slice()).map_err(|_| RowsError::corrupt("xbus"));
        row.map(decode).transpose()
    }

    /// The rows of events that `needed` names.
    pub(super) fn event_rows(
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
        fragment: &FragmentReceived,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Checked<XbusDone> {
        let present = self.envelope_of(arrival.id, rows, writes)?;
        let is_new = present.is_none();
        if present.as_ref().is_some_and(|row| !arrival.continues(row, &fragment.output)) {
            let reason = format!("id reused: envelope {} came from another actor, job or output", arrival.id);
            return Ok(Ok(received(Reception::Error, reason, false)));
        }
        if is_new && self.xbus.envelopes.size() >= ENVELOPES_OPEN_MAX {
            return Ok(Err(Refusal::Overloaded(format!("{ENVELOPES_OPEN_MAX} envelopes are coming"))));
        }
        let mut envelope = present.unwrap_or_else(|| arrival.begin(fragment.output.clone(), self.millis));
        let mut steps = Vec::new();
        // Nothing is refused behind this for a worker, whose process is written here.
        if let Some((process, output)) = arrival.output.as_ref().filter(|_| !envelope.is_final()) {
            match self.advance(*process, &Event::OutputBegin(output.clone()), writes) {
                Ok(step) if step.discard => {
                    let done = received(Reception::Accepted, String::new(), false);
                    return Ok(Ok(XbusDone { steps: alloc::vec![step], ..done }));
                }
                Ok(step) => steps.push(step),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        // An envelope that begins has no rows of events, and most have all their events in their only fragment.
        let known = if is_new {
            BTreeMap::new()
        } else {
            Self::event_rows(arrival.id, &envelope.needs(&fragment.fragment), rows, writes)?
        };
        let result = envelope.receive(&known, &fragment.fragment, self.millis);
        let changed: BTreeMap<Id, EventRow> = result.changed.iter().map(|row| (row.id(), row.clone())).collect();
        let ends = result.was.is_some_and(|was| was != envelope.status());
        // Two fragments may come in another order than they were stored.
        let first = envelope.first_sequence;
        if result.new_data && (first == 0 || arrival.sequence < first) {
            envelope.first_sequence = arrival.sequence;
        }
        if ends && envelope.status() == EnvelopeStatus::Complete && arrival.output.is_none() {
            let mut events =
                if is_new { BTreeMap::new() } else { Self::event_rows(arrival.id, &Needed::All, rows, writes)? };
            events.extend(changed);
            // Nothing is written yet when this is refused: the sender repeats the fragment.
            let begun = match self.begin_processes(&envelope, &fragment.process_ids, &events, rows, writes)? {
                Ok(begun) => begun,
                Err(refusal) => return Ok(Err(refusal)),
            };
            for (row, step) in begun {
                self.save_process(row, writes);
                steps.push(step);
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
        // An envelope that holds an output is kept even when nothing of it came yet, so that it ends some day.
        if result.was.is_some() || result.new_data || is_new && arrival.output.is_some() {
            self.save_envelope(envelope, rows, writes)?;
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
        let envelopes = if ends || new_data {
            alloc::vec![EnvelopeStep { id: arrival.id.to_vec(), status: status.into(), new_data }]
        } else {
            Vec::new()
        };
        steps.retain(|step| step.was.is_some() || !step.ready.is_empty() || step.deliver.is_some());
        Ok(Ok(XbusDone { steps, envelopes, ..received(reception, reason, new_data) }))
    }

    /// Writes the row of an envelope, and files it under those that are coming or those that have ended.
    pub(super) fn save_envelope(
        &mut self,
        row: EnvelopeRow,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<(), RowsError> {
        let id = row.id();
        if !row.is_final() {
            writes.put(FAMILY, keys::of(Kind::ENVELOPE_OPEN, id), row.encode_to_vec());
            self.xbus.put_envelope(row);
            return Ok(());
        }
        if self.xbus.open_envelope(id).is_some() {
            self.xbus.remove_envelope(id);
            writes.delete(FAMILY, keys::of(Kind::ENVELOPE_OPEN, id));
        }
        writes.put(FAMILY, keys::of(Kind::ENVELOPE, id), row.encode_to_vec());
        let ended = keys::key(Kind::ENVELOPE_ENDED, &[&row.touched.to_be_bytes(), id.as_bytes()]);
        writes.put(FAMILY, ended, Vec::new());
        if row.status() == EnvelopeStatus::Error {
            // Nothing can make it whole, and a fragment that comes again is answered by the row alone.
            for kind in [Kind::EVENT, Kind::FRAGMENT] {
                keys::delete_all(kind, id, rows, writes)?;
            }
        }
        Ok(())
    }

    /// The ids that new processes get: the first of a proposal, as long as no process has or had one of them.
    pub(super) fn new_process_ids(
        &self,
        ids: &[Vec<u8>],
        needed: usize,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Checked<Vec<Id>> {
        let mut new = Vec::new();
        for id in ids.iter().take(needed) {
            let Ok(id) = Id::from_slice(id) else { return Ok(Err(Refusal::Malformed("id of a process".into()))) };
            let ended = writes.get(rows, FAMILY, &keys::of(Kind::PROCESS, id))?;
            if new.contains(&id) || self.xbus.open_process(id).is_some() || ended.is_some() {
                return Ok(Err(Refusal::Malformed("a process has that id".into())));
            }
            new.push(id);
        }
        Ok(if new.len() < needed { Err(Refusal::Malformed(format!("{needed} process ids needed"))) } else { Ok(new) })
    }

    /// The processes that begin with a complete envelope of an emitter: one for each active pipeline that matches, and
    /// one in error when none does.
    fn begin_processes(
        &self,
        envelope: &EnvelopeRow,
        ids: &[Vec<u8>],
        events: &BTreeMap<Id, EventRow>,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Checked<Vec<(ProcessRow, ProcessStep)>> {
        let mut begun = match self.matched_processes(envelope, ids, events, rows, writes)? {
            Ok(begun) => begun,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if begun.is_empty() {
            let ids = match self.new_process_ids(ids, 1, rows, writes)? {
                Ok(ids) => ids,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let seed = |id| Seed { id, envelope: envelope.id(), millis: self.millis };
            let emitter = Id::from_slice(&envelope.actor).unwrap_or_default();
            begun = ids.into_iter().map(|id| unmatched(seed(id), emitter)).collect();
        }
        let with_step = |(row, effects)| {
            let step = step(&row, effects);
            (row, step)
        };
        Ok(Ok(begun.into_iter().map(with_step).collect()))
    }

    /// A process for each active pipeline that matches a complete envelope of an emitter.
    pub(super) fn matched_processes(
        &self,
        envelope: &EnvelopeRow,
        ids: &[Vec<u8>],
        events: &BTreeMap<Id, EventRow>,
        rows: &impl Rows,
        writes: &Writes,
    ) -> Checked<Vec<(ProcessRow, Effects)>> {
        let types: BTreeSet<&String> = events.values().map(|event| &event.event_type).collect();
        let types: Vec<String> = types.into_iter().cloned().collect();
        let emitter = Id::from_slice(&envelope.actor).ok().and_then(|id| self.xbus.actor(id)).and_then(ActorRow::view);
        let Some(emitter) = emitter else { return Ok(Err(Refusal::XbusNotFound("actor".into()))) };
        let trigger = Trigger { emitter, output: &envelope.output, event_types: &types };
        let pipelines = self.xbus.active_pipelines().filter_map(|pipeline| Some((pipeline, pipeline.graph.as_ref()?)));
        let matching: Vec<_> = pipelines.filter(|(_, graph)| graph.matching(trigger).next().is_some()).collect();
        if matching.len() > PROCESSES_PER_ENVELOPE_MAX {
            let (count, most) = (matching.len(), PROCESSES_PER_ENVELOPE_MAX);
            return Ok(Err(Refusal::Xbus(format!("{count} pipelines match the envelope; at most {most} may"))));
        }
        let ids = match self.new_process_ids(ids, matching.len(), rows, writes)? {
            Ok(ids) => ids,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.xbus.processes.size().saturating_add(matching.len()) > PROCESSES_OPEN_MAX {
            return Ok(Err(Refusal::Overloaded(format!("{PROCESSES_OPEN_MAX} processes go on"))));
        }
        let (mut begun, mut bytes) = (Vec::new(), self.xbus.process_bytes);
        for ((pipeline, graph), id) in matching.into_iter().zip(ids) {
            if bytes >= PROCESS_BYTES_OPEN_MAX {
                return Ok(Err(Refusal::Overloaded("the processes that go on take too much memory".into())));
            }
            let version = Id::from_slice(&pipeline.row.id).unwrap_or_default();
            let seed = Seed { id, envelope: envelope.id(), millis: self.millis };
            if let Some((mut row, effects)) = ProcessRow::begin(seed, version, graph, trigger, &self.xbus) {
                row.pinned = envelope.first_sequence;
                bytes = bytes.saturating_add(row.encoded_len());
                begun.push((row, effects));
            }
        }
        Ok(Ok(begun))
    }
}

/// The process of an envelope that no pipeline takes.
fn unmatched(seed: Seed, emitter: Id) -> (ProcessRow, Effects) {
    let row = ProcessRow::unmatched(seed, emitter);
    let status = Some((ProcessStatus::Initial, row.status()));
    (row, Effects { status, ..Effects::default() })
}

/// The refusal of a fragment whose items are not in the book.
fn lost() -> Refusal {
    Refusal::Unavailable("the fragment is not in the book; send it again".into())
}

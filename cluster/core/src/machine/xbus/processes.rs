//! Events of processes, their rows, and what actors log.

use alloc::format;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{self, FAMILY, Kind};
use crate::error::Refusal;
use crate::limits::ROLL_STEP_MAX;
use crate::machine::Machine;
use crate::machine::expire::Budget;
use crate::node::Owner;
use crate::rows::{Rows, RowsError, Writes};
use crate::xbus::change::{Attention, AttentionStatus, LogChange, ProcessChange, ProcessesChange};
use crate::xbus::done::{JobDelivery, JobInput, JobReady, ProcessStep, XbusDone};
use crate::xbus::id::Id;
use crate::xbus::limits::{DETACHED_MS, JOB_MESSAGES_MAX, PROCESS_BYTES_OPEN_MAX};
use crate::xbus::log::{LogLevel, LogLine, bounded, cut};
use crate::xbus::process::event::{Denied, Effects, Event, JobEnd, JobSend, Unit};
use crate::xbus::process::row::{JobState, ProcessRow, ProcessStatus};

/// The refusal of an event that cannot happen.
pub(super) fn denied(denied: &Denied) -> Refusal {
    Refusal::Xbus(denied.to_string())
}

/// What a change did to a process, for the reply.
pub(super) fn step(row: &ProcessRow, effects: Effects) -> ProcessStep {
    let id = |id: Option<Id>| id.map(Id::to_vec).unwrap_or_default();
    let deliver = effects.deliver.map(|job| JobDelivery {
        node: job.node,
        actor: job.actor.to_vec(),
        inputs: job.inputs.into_iter().map(|(name, envelope)| JobInput { name, envelope: id(envelope) }).collect(),
    });
    let ready = effects.ready.into_iter().map(|job| JobReady { node: job.node, actor: id(job.actor) }).collect();
    let ended = effects.status.is_some_and(|(_, now)| now == ProcessStatus::Error);
    let errors = if ended { errors(row) } else { Vec::new() };
    ProcessStep {
        id: row.id.clone(),
        pipeline: row.pipeline.clone(),
        emitter: row.emitter.clone(),
        envelope: row.envelope.clone(),
        was: effects.status.map(|(was, _)| was.into()),
        status: row.status,
        state: row.state.clone(),
        errors,
        deliver,
        ready,
        discard: effects.discard,
    }
}

/// What the actors of failed jobs had to say.
fn errors(row: &ProcessRow) -> Vec<LogLine> {
    let jobs = row.nodes.iter().flat_map(|node| &node.jobs);
    let failed = jobs.filter(|job| job.state() == JobState::Error);
    failed.flat_map(|job| job.messages.iter().cloned()).take(JOB_MESSAGES_MAX).collect()
}

impl Machine {
    /// Writes the row of a process, and files it under those that go on or those that have ended.
    pub(super) fn save_process(&mut self, row: ProcessRow, writes: &mut Writes) {
        let id = row.id();
        let failed = row.status() == ProcessStatus::Error
            && self.xbus.open_process(id).is_none_or(|was| was.status() != ProcessStatus::Error);
        if failed {
            let (process, status, level) = (row.id.clone(), AttentionStatus::New, LogLevel::Error);
            let mut attention = Attention { process, ..Attention::default() };
            attention.set_status(status);
            attention.set_level(level);
            writes.put(FAMILY, keys::of(Kind::ATTENTION, id), attention.encode_to_vec());
        }
        if row.status().is_final() && !row.has_live_jobs() {
            if self.xbus.open_process(id).is_some() {
                self.xbus.remove_process(id);
                writes.delete(FAMILY, keys::of(Kind::PROCESS_OPEN, id));
            }
            writes.put(FAMILY, keys::of(Kind::PROCESS, id), row.encode_to_vec());
            let ended = keys::key(Kind::PROCESS_ENDED, &[&row.status_changed.to_be_bytes(), id.as_bytes()]);
            writes.put(FAMILY, ended, Vec::new());
            return;
        }
        writes.put(FAMILY, keys::of(Kind::PROCESS_OPEN, id), row.encode_to_vec());
        self.xbus.put_process(&Arc::new(row));
    }

    /// Applies an event to a process that goes on.
    pub(super) fn advance(&mut self, id: Id, event: &Event, writes: &mut Writes) -> Result<ProcessStep, Refusal> {
        let Some(present) = self.xbus.open_process(id).cloned() else { return Err(denied(&Denied::NoLiveJob)) };
        let pipeline = Id::from_slice(&present.pipeline).ok().and_then(|id| self.xbus.pipeline(id)).map(Arc::clone);
        let graph = pipeline.as_ref().and_then(|pipeline| pipeline.graph.as_ref());
        let Some(graph) = graph else { return Err(Refusal::Xbus("the pipeline of the process is gone".into())) };
        let mut row = ProcessRow::clone(&present);
        let effects = row.apply(graph, &self.xbus, event, self.millis).map_err(|error| denied(&error))?;
        let step = step(&row, effects);
        if row != *present {
            self.save_process(row, writes);
        }
        Ok(step)
    }

    /// Applies an event to one process.
    pub(super) fn process_event(&mut self, change: &ProcessChange, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let id = Id::from_slice(&change.id).map_err(|_| Refusal::Malformed("id of a process".into()))?;
        let event = change.event.event.as_ref().ok_or_else(|| Refusal::Malformed("no event".into()))?;
        match event {
            Event::Pause(_) | Event::Resume(_) | Event::Cancel(_) if self.xbus.open_process(id).is_none() => {
                return Err(Refusal::XbusNotFound(format!("a process {id} that goes on")));
            }
            // These follow from the fragments alone.
            Event::OutputBegin(_) | Event::OutputComplete(_) | Event::OutputFail(_) => {
                return Err(Refusal::Malformed("an envelope without its fragment".into()));
            }
            Event::Send(JobSend { owner, .. }) => self.check_alive(*owner)?,
            Event::ActorBack(connection) => self.check_alive(connection.owner)?,
            Event::End(end) if self.xbus.process_bytes >= PROCESS_BYTES_OPEN_MAX => {
                // The newest message is the reason of a failure; for more there is no room.
                let messages = end.messages.last().cloned().into_iter().collect();
                let event = Event::End(JobEnd { messages, ..end.clone() });
                return self.advance(id, &event, writes).map(XbusDone::step);
            }
            _ => {}
        }
        self.advance(id, event, writes).map(XbusDone::step)
    }

    /// Whether this life of a node goes on: the end of one that has ended was told already, and is not told again.
    fn check_alive(&self, owner: Option<Owner>) -> Result<(), Refusal> {
        if owner.is_some_and(|owner| self.is_alive(owner)) {
            return Ok(());
        }
        Err(Refusal::Unavailable("that life of the node has ended".into()))
    }

    /// Applies an event of an actor or node to some processes. Those that are gone are left out. The reply counts those
    /// that were looked at: when there is more, the proposer proposes the change again with the others.
    pub(super) fn processes_event(
        &mut self,
        change: &ProcessesChange,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let event = change.event.event.as_ref().ok_or_else(|| Refusal::Malformed("no event".into()))?;
        let shared = matches!(
            event,
            Event::ActorLost(_)
                | Event::ActorBack(_)
                | Event::NodeLost(_)
                | Event::ActorGone(_)
                | Event::ActorsChanged(_)
                | Event::Expire(_)
        );
        let ids: Result<Vec<Id>, _> = change.ids.iter().map(|id| Id::from_slice(id)).collect();
        let ids = ids.ok().filter(|ids| shared && ids.len() <= ROLL_STEP_MAX);
        let ids = ids.ok_or_else(|| Refusal::Malformed("processes that hear of something".into()))?;
        if let Event::ActorBack(connection) = event {
            self.check_alive(connection.owner)?;
        }
        Ok(self.advance_all(&ids, event, writes))
    }

    /// Applies an event to some processes, as far as their bytes do not take too long.
    fn advance_all(&mut self, ids: &[Id], event: &Event, writes: &mut Writes) -> XbusDone {
        let mut budget = Budget::of(self.level());
        let (mut steps, mut count) = (Vec::new(), 0_usize);
        for id in ids {
            let bytes = self.xbus.open_process(*id).map_or(0, |row| row.encoded_len());
            if !budget.spend(bytes) {
                break;
            }
            steps.extend(self.advance(*id, event, writes).ok());
            count = count.saturating_add(1);
        }
        XbusDone { steps, ..XbusDone::count(count, count < ids.len()) }
    }

    /// Gives the detached jobs back whose actor has been away for too long.
    pub(super) fn processes_expire(&mut self, writes: &mut Writes) -> XbusDone {
        let late = |since: u64| self.millis.saturating_sub(since) >= DETACHED_MS;
        let due = self.xbus.index.away.iter().take_while(|(since, _)| late(*since));
        let mut ids: Vec<Id> = due.map(|(_, id)| *id).take(ROLL_STEP_MAX).collect();
        let full = ids.len() >= ROLL_STEP_MAX;
        ids.dedup();
        let done = self.advance_all(&ids, &Event::Expire(Unit {}), writes);
        XbusDone { more: done.more || full, ..done }
    }

    /// Keeps what an actor has to say of a process or envelope.
    pub(super) fn xbus_log(&mut self, log: LogChange, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let about = if log.process.is_empty() { &log.envelope } else { &log.process };
        let about = Id::from_slice(about).map_err(|_| Refusal::Malformed("a log entry about nothing".into()))?;
        let is_id = |id: &[u8]| id.is_empty() || Id::from_slice(id).is_ok();
        if Id::from_slice(&log.actor).is_err() || !is_id(&log.envelope) || !is_id(&log.process) {
            return Err(Refusal::Malformed("an id of a log entry".into()));
        }
        let mut log = LogChange { messages: bounded(log.messages), ..log };
        cut(&mut log.node);
        let (millis, sequence) = (self.millis.to_be_bytes(), self.xbus.next_log().to_be_bytes());
        let entry = keys::key(Kind::LOG, &[about.as_bytes(), &millis, &sequence]);
        let by_time = keys::key(Kind::LOG_BY_TIME, &[&millis, about.as_bytes(), &sequence]);
        writes.put(FAMILY, by_time, Vec::new());
        writes.put(FAMILY, entry, log.encode_to_vec());
        writes.put(crate::rows::Family::Meta, keys::LOGS.into(), self.xbus.logs.to_be_bytes().into());
        Ok(XbusDone::count(1, false))
    }

    /// Keeps what an operator makes of a process.
    pub(super) fn attention(
        &self,
        attention: Attention,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<Result<XbusDone, Refusal>, RowsError> {
        let Ok(id) = Id::from_slice(&attention.process) else {
            return Ok(Err(Refusal::Malformed("id of a process".into())));
        };
        if AttentionStatus::try_from(attention.status).is_err() {
            return Ok(Err(Refusal::Malformed("status of a process that needs attention".into())));
        }
        let key = keys::of(Kind::ATTENTION, id);
        let known = writes.get(rows, FAMILY, &key)?;
        let known = known.map(|value| Attention::decode(value.as_slice()).map_err(|_| RowsError::corrupt("xbus")));
        let Some(known) = known.transpose()? else {
            return Ok(Err(Refusal::XbusNotFound(format!("a process {id} that needs attention"))));
        };
        let mut row = Attention { level: known.level, ..attention };
        cut(&mut row.comment);
        writes.put(FAMILY, key, row.encode_to_vec());
        Ok(Ok(XbusDone::count(1, false)))
    }
}

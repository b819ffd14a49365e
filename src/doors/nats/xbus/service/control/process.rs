//! Processes, for operators.

use std::sync::Arc;

use rollbook_core::limits::ROLL_STEP_MAX;
use rollbook_core::xbus::change::{Change, Ids, ProcessChange};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::{Event, ProcessEvent, Unit};
use rollbook_core::xbus::process::row::{ProcessRow, ProcessStatus};

use super::change;
use crate::bus::error::Fault;
use crate::bus::xbus::filter::ProcessFilter;
use crate::doors::nats::xbus::proto::control::{
    ProcessCommand, ProcessControlRequest, ProcessPurgeRequest, ProcessQueryReply, ProcessQueryRequest, TaskProgress,
};
use crate::doors::nats::xbus::proto::ids::required;
use crate::doors::nats::xbus::proto::log::Timestamp;
use crate::doors::nats::xbus::proto::process::ProcessFilter as Wanted;
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::rows;
use crate::doors::nats::xbus::service::shared::XbusShared;
use crate::doors::nats::xbus::service::stream::ReplyStream;

/// Processes in one message of a stream.
const PAGE: usize = 256;

/// The ids in a field of a message.
///
/// # Errors
/// One of them has not 16 bytes.
pub(super) fn ids(list: &[Vec<u8>], field: &'static str) -> Result<Vec<Id>, Fault> {
    list.iter().map(|bytes| Ok(required(bytes, field)?)).collect()
}

/// The filter of a message.
fn filter(wanted: Wanted) -> Result<ProcessFilter, Fault> {
    let status = |number: &i32| ProcessStatus::try_from(*number).map_err(|_| Fault::bad("there is no such status"));
    let pipelines = ids(&wanted.pipeline_id, "pipelineID")?;
    Ok(ProcessFilter {
        ids: ids(&wanted.id, "id")?,
        statuses: wanted.status.iter().map(status).collect::<Result<_, _>>()?,
        pipelines: (!pipelines.is_empty()).then_some(pipelines),
        emitters: ids(&wanted.trigger_emitter_id, "triggerEmitterID")?,
        triggers: ids(&wanted.trigger_envelope_id, "triggerEnvelopeID")?,
        envelopes: ids(&wanted.envelope_id, "envelopeID")?,
        changed_from: wanted.status_changed_from.map_or(0, |time: Timestamp| time.millis()),
        changed_to: wanted.status_changed_to.map(|time| time.millis()),
    })
}

fn reply(rows: &[Arc<ProcessRow>]) -> ProcessQueryReply {
    ProcessQueryReply { process_list: rows.iter().map(|row| rows::process(row)).collect() }
}

/// Streams the processes that fit, those whose status changed last first. Processes that are named come in the order of
/// their names.
pub(super) async fn query(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ProcessQueryRequest { filter: wanted } = request.read()?;
    let filter = filter(wanted.unwrap_or_default())?;
    let mut stream = ReplyStream::of(request);
    if !filter.ids.is_empty() {
        for part in filter.ids.chunks(PAGE) {
            let mut found = Vec::new();
            for id in part {
                found.extend(shared.client.process(*id).await?.filter(|row| filter.fits(row)));
            }
            if !found.is_empty() && !stream.send(&reply(&found)).await {
                return Ok(Answer::Silent);
            }
        }
        return Ok(stream.end());
    }
    let mut behind = None;
    loop {
        let page = shared.client.processes(filter.clone(), behind, PAGE).await?;
        let heard = if page.items.is_empty() { stream.keep_alive() } else { stream.send(&reply(&page.items)).await };
        if !heard {
            return Ok(Answer::Silent);
        }
        behind = page.next;
        if behind.is_none() {
            return Ok(stream.end());
        }
    }
}

/// Pauses, resumes or cancels a process.
pub(super) async fn control(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ProcessControlRequest { process_id, command } = request.read()?;
    let id = required(&process_id, "processID")?;
    let event = match ProcessCommand::try_from(command) {
        Ok(ProcessCommand::Pause) => Event::Pause(Unit {}),
        Ok(ProcessCommand::Resume) => Event::Resume(Unit {}),
        Ok(ProcessCommand::Cancel) => Event::Cancel(Unit {}),
        Ok(ProcessCommand::None) | Err(_) => return Err(Fault::bad("command: PAUSE, RESUME or CANCEL")),
    };
    let event = ProcessEvent { event: Some(event) };
    change(shared, request, Change::Process(ProcessChange { id: id.to_vec(), event })).await?;
    Ok(Answer::Void)
}

/// Removes processes that have ended, and says how far it is. Those that go on are left out.
pub(super) async fn purge(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ProcessPurgeRequest { process_ids } = request.read()?;
    let ids = ids(&process_ids, "processIDs")?;
    let of = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (mut stream, mut removed, mut looked) = (ReplyStream::of(request), 0_u64, 0_usize);
    for part in ids.chunks(ROLL_STEP_MAX) {
        let step = Ids { ids: part.iter().copied().map(Id::to_vec).collect() };
        removed = removed.saturating_add(change(shared, request, Change::ProcessesPurge(step)).await?.count);
        looked = looked.saturating_add(part.len());
        let message = format!("removed {removed} processes");
        let progress = TaskProgress { message, progression: of(looked), max_progression: of(ids.len()) };
        if !stream.send(&progress).await {
            return Ok(Answer::Silent);
        }
    }
    Ok(stream.end())
}

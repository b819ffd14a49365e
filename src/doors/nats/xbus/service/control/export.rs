//! Processes as texts, for operators: one JSON document for each process.

use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::time::Timestamp;
use rollbook_core::xbus::envelope::row::EnvelopeStatus;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use rollbook_core::xbus::process::row::{JobRow, NodeRow, ProcessRow};
use serde_json::{Value, json};

use super::check_count;
use super::process::ids;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::envelopes::json::answer::EventOut;
use crate::bus::xbus::envelopes::json::value::word;
use crate::bus::xbus::envelopes::whole::whole;
use crate::bus::xbus::flow::status_word;
use crate::doors::nats::xbus::proto::control::{Chunk, OctetStreamList, ProcessExportReply, ProcessExportRequest};
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::shared::XbusShared;
use crate::doors::nats::xbus::service::stream::ReplyStream;

/// Most bytes of an export in one message.
const EXPORT_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a chunk of a stream.
const CHUNK_BYTES: usize = 128 * 1024;
/// Most bytes of the items of an envelope in an export, and what counts when the caller says nothing.
const ENVELOPE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const ENVELOPE_BYTES: u64 = 1024 * 1024;
/// Most log entries of a process in an export.
const LOGS_MAX: usize = 1024;

/// The processes in one message.
pub(super) async fn export(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let wanted: ProcessExportRequest = request.read()?;
    let ids = ids(&wanted.process_ids, "processIDs")?;
    check_count(ids.len())?;
    let (mut process_list, mut bytes) = (Vec::new(), 0_usize);
    for id in ids {
        let text = text(shared, &wanted, id).await?;
        bytes = bytes.saturating_add(text.len());
        if bytes > EXPORT_BYTES_MAX {
            return Err(Fault::bad(
                "the export is too large for one message; use exportstream, or name fewer processes",
            ));
        }
        process_list.push(text);
    }
    Ok(request.message(&ProcessExportReply { process_list }))
}

/// The processes as a stream of bytes: a line for each.
pub(super) async fn export_stream(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let wanted: ProcessExportRequest = request.read()?;
    let ids = ids(&wanted.process_ids, "processIDs")?;
    let (mut stream, mut index) = (ReplyStream::of(request), 0_i64);
    let of = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (done, id) in (1..).zip(&ids) {
        let mut text = text(shared, &wanted, *id).await?;
        text.push('\n');
        for data in text.as_bytes().chunks(CHUNK_BYTES) {
            let chunks = vec![Chunk { data: data.to_vec(), index }];
            index = index.saturating_add(of(data.len()));
            let message = OctetStreamList { chunks, progression: of(done), max_progression: of(ids.len()) };
            if !stream.send(&message).await {
                return Ok(Answer::Silent);
            }
        }
    }
    Ok(stream.end())
}

/// One process.
async fn text(shared: &XbusShared, wanted: &ProcessExportRequest, id: Id) -> Result<String, Fault> {
    let (client, full) = (&shared.client, wanted.export_full);
    let row = client.process(id).await?;
    let row = row.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no process {id}")))?;
    let mut told = client.look(|xbus| head(xbus, &row));
    let mut add = |name: &str, value: Value| {
        if let Some(told) = told.as_object_mut() {
            told.insert(name.to_owned(), value);
        }
    };
    if full || wanted.export_jobs || wanted.export_process_logs {
        let messages = full || wanted.export_process_logs;
        add("nodes", client.look(|xbus| nodes(xbus, &row, messages.then_some(wanted.log_level))));
    }
    if full || wanted.export_logs {
        let entries = client.logs(id, None, LOGS_MAX).await?;
        let entry = |entry: &rollbook_core::machine::xbus::query::LogEntry| {
            json!({
                "actor_id": shown(&entry.log.actor), "envelope_id": shown(&entry.log.envelope), "node_id": entry.log.node,
                "messages": lines(&entry.log.messages, wanted.log_level),
            })
        };
        add("logs", entries.iter().map(entry).collect());
    }
    if full || wanted.export_envelope {
        let limit = u64::try_from(wanted.envelope_size_limit).unwrap_or_default();
        let limit = if limit == 0 { ENVELOPE_BYTES } else { limit.min(ENVELOPE_BYTES_MAX) };
        add("envelopes", envelopes(shared, &row, limit).await?);
    }
    Ok(told.to_string())
}

/// An id as text; null when there is none.
fn shown(bytes: &[u8]) -> Value {
    Id::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
}

fn time(millis: u64) -> Value {
    if millis == 0 { Value::Null } else { Timestamp::from_millis(millis).to_string().into() }
}

fn lines(lines: &[LogLine], level: i32) -> Value {
    let line = |line: &LogLine| {
        let level = LogLevel::try_from(line.level).unwrap_or(LogLevel::Notice);
        json!({ "time": time(line.millis), "level": word(level), "text": line.text })
    };
    lines.iter().filter(|line| line.level >= level).map(line).collect()
}

fn head(xbus: &Xbus, row: &ProcessRow) -> Value {
    let pipeline = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id));
    let pipeline = pipeline.map(|of| json!({ "name": of.row.name, "version": of.row.version }));
    json!({
        "id": shown(&row.id), "status": status_word(row.status()), "state": row.state,
        "pipeline_id": shown(&row.pipeline), "pipeline": pipeline, "trigger_emitter_id": shown(&row.emitter),
        "trigger_envelope_id": shown(&row.envelope), "created": time(row.created),
        "status_changed": time(row.status_changed),
    })
}

/// The nodes with their jobs, and with messages from this level on.
fn nodes(xbus: &Xbus, row: &ProcessRow, level: Option<i32>) -> Value {
    let graph = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id)?.graph.as_ref());
    let name = |number: usize| {
        let named = graph.and_then(|graph| graph.node(number)).map(|node| node.id.clone());
        named.unwrap_or_else(|| number.to_string())
    };
    let job = |job: &JobRow| {
        let outputs: Value = job.outputs.iter().map(|output| shown(&output.envelope)).collect();
        let messages = level.map(|level| lines(&job.messages, level));
        json!({
            "actor_id": shown(&job.actor), "state": format!("{:?}", job.state()).to_lowercase(), "outputs": outputs,
            "messages": messages, "changed": time(job.changed),
        })
    };
    let node = |(number, node): (usize, &NodeRow)| {
        let inputs: Value = node.inputs.iter().map(|input| shown(&input.envelope)).collect();
        let jobs: Value = node.jobs.iter().map(job).collect();
        let state = format!("{:?}", node.state()).to_lowercase();
        json!({ "id": name(number), "state": state, "inputs": inputs, "jobs": jobs })
    };
    row.nodes.iter().enumerate().map(node).collect()
}

/// The envelopes along the process, each once. One with more bytes than the limit is named alone.
async fn envelopes(shared: &XbusShared, row: &ProcessRow, limit: u64) -> Result<Value, Fault> {
    let inputs = row.nodes.iter().flat_map(|node| &node.inputs).map(|input| input.envelope.as_slice());
    let outputs = row.nodes.iter().flat_map(|node| &node.jobs).flat_map(|job| &job.outputs);
    let outputs = outputs.map(|output| output.envelope.as_slice());
    let all = std::iter::once(row.envelope.as_slice()).chain(inputs).chain(outputs);
    let all: std::collections::BTreeSet<Id> = all.filter_map(|bytes| Id::from_slice(bytes).ok()).collect();
    let (mut told, mut left) = (Vec::with_capacity(all.len()), ENVELOPE_BYTES_MAX);
    for id in all {
        let Some(envelope) = shared.client.envelope(id).await? else { continue };
        let bytes = envelope.bytes;
        if envelope.status() != EnvelopeStatus::Complete || bytes > limit.min(left) {
            told.push(json!({ "id": id.to_string(), "bytes": bytes }));
            continue;
        }
        left = left.saturating_sub(bytes);
        let Some(whole) = whole(&shared.client, id, limit).await? else { continue };
        let events: Vec<EventOut<'_>> = whole.events.iter().map(EventOut::of).collect();
        told.push(json!({ "id": id.to_string(), "bytes": bytes, "events": events }));
    }
    Ok(told.into())
}

//! The control API of processes, envelopes and logs in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rollbook_core::time::Timestamp as Time3339;
use rollbook_core::xbus::change::AttentionStatus;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::LogLevel;
use rollbook_core::xbus::process::row::ProcessStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::{FromJson, ToJson};
use crate::bus::xbus::envelopes::json::body::BodyError;
use crate::bus::xbus::envelopes::json::value::{IdText, Number, Time, Word, Words, word};
use crate::doors::nats::xbus::proto::control::{
    LogsPurgeReply, LogsPurgeRequest, OctetStreamList, PMProcessQueryReply, PMProcessQueryRequest,
    PMProcessSetStatusRequest, ProcessCommand, ProcessControlRequest, ProcessExportReply, ProcessExportRequest,
    ProcessPurgeRequest, ProcessQueryReply, ProcessQueryRequest, TaskProgress,
};
use crate::doors::nats::xbus::proto::log::Timestamp;
use crate::doors::nats::xbus::proto::process::{LogEntry, PMProcess, Process, ProcessFilter};

impl Words for ProcessStatus {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("nostatus", Self::NoStatus),
        ("initial", Self::Initial),
        ("running", Self::Running),
        ("paused", Self::Paused),
        ("done", Self::Done),
        ("error", Self::Error),
    ];
}

impl Words for AttentionStatus {
    const WORDS: &'static [(&'static str, Self)] =
        &[("default", Self::Default), ("new", Self::New), ("opened", Self::Opened), ("closed", Self::Closed)];
}

impl Words for ProcessCommand {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("pause", Self::Pause), ("resume", Self::Resume), ("cancel", Self::Cancel)];
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).map_err(|error| BodyError::Json(error.to_string()))
}

fn parse_or_default<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, BodyError> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

fn bytes(ids: Vec<IdText>) -> Vec<Vec<u8>> {
    ids.into_iter().map(|id| id.id.to_vec()).collect()
}

fn time(time: Option<Time>) -> Option<Timestamp> {
    time.map(|time| Timestamp::from_millis(time.0))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawFilter {
    id: Vec<IdText>,
    #[serde(alias = "triggerEmitterID", alias = "triggerEmitterId")]
    trigger_emitter_id: Vec<IdText>,
    #[serde(alias = "triggerEnvelopeID", alias = "triggerEnvelopeId")]
    trigger_envelope_id: Vec<IdText>,
    #[serde(alias = "pipelineID", alias = "pipelineId")]
    pipeline_id: Vec<IdText>,
    #[serde(alias = "envelopeID", alias = "envelopeId")]
    envelope_id: Vec<IdText>,
    status: Vec<Word<ProcessStatus>>,
    #[serde(alias = "statusChangedFrom")]
    status_changed_from: Option<Time>,
    #[serde(alias = "statusChangedTo")]
    status_changed_to: Option<Time>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawQuery {
    filter: Option<RawFilter>,
}

#[derive(Deserialize)]
struct RawControl {
    #[serde(alias = "processID", alias = "processId")]
    process_id: IdText,
    command: Word<ProcessCommand>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawExport {
    #[serde(alias = "processIDs", alias = "processIds")]
    process_ids: Vec<IdText>,
    #[serde(alias = "exportEnvelope")]
    export_envelope: bool,
    #[serde(alias = "envelopeSizeLimit")]
    envelope_size_limit: Number,
    #[serde(alias = "exportLogs")]
    export_logs: bool,
    #[serde(alias = "exportProcessLogs")]
    export_process_logs: bool,
    #[serde(alias = "logLevel")]
    log_level: Option<Word<LogLevel>>,
    #[serde(alias = "exportFull")]
    export_full: bool,
    #[serde(alias = "exportJobs")]
    export_jobs: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAttention {
    level: Option<Word<LogLevel>>,
    #[serde(alias = "includeClosed")]
    include_closed: bool,
    #[serde(alias = "processIDs", alias = "processIds")]
    process_ids: Vec<IdText>,
    #[serde(alias = "returnLogs")]
    return_logs: bool,
}

#[derive(Deserialize)]
struct RawSetStatus {
    #[serde(alias = "processID", alias = "processId")]
    process_id: IdText,
    status: Word<AttentionStatus>,
    #[serde(default)]
    comment: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawLogsPurge {
    before: Option<Time>,
}

impl FromJson for ProcessQueryRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let filter = |raw: RawFilter| ProcessFilter {
            id: bytes(raw.id),
            trigger_emitter_id: bytes(raw.trigger_emitter_id),
            trigger_envelope_id: bytes(raw.trigger_envelope_id),
            pipeline_id: bytes(raw.pipeline_id),
            envelope_id: bytes(raw.envelope_id),
            status: raw.status.into_iter().map(|status| status.0.into()).collect(),
            status_changed_from: time(raw.status_changed_from),
            status_changed_to: time(raw.status_changed_to),
        };
        let RawQuery { filter: raw } = parse_or_default(body)?;
        Ok(Self { filter: raw.map(filter) })
    }
}

impl FromJson for ProcessControlRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawControl { process_id, command } = parse(body)?;
        Ok(Self { process_id: process_id.id.to_vec(), command: command.0.into() })
    }
}

impl FromJson for ProcessExportRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawExport = parse(body)?;
        Ok(Self {
            process_ids: bytes(raw.process_ids),
            export_envelope: raw.export_envelope,
            envelope_size_limit: i64::try_from(raw.envelope_size_limit.0).unwrap_or(i64::MAX),
            export_logs: raw.export_logs,
            export_process_logs: raw.export_process_logs,
            log_level: raw.log_level.map_or(LogLevel::Notice, |level| level.0).into(),
            export_full: raw.export_full,
            export_jobs: raw.export_jobs,
        })
    }
}

impl FromJson for ProcessPurgeRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawExport { process_ids, .. } = parse(body)?;
        Ok(Self { process_ids: bytes(process_ids) })
    }
}

impl FromJson for PMProcessQueryRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawAttention { level, include_closed, process_ids, return_logs } = parse_or_default(body)?;
        let level = level.map_or(LogLevel::Notice, |level| level.0).into();
        Ok(Self { level, include_closed, process_ids: bytes(process_ids), return_logs })
    }
}

impl FromJson for PMProcessSetStatusRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawSetStatus { process_id, status, comment } = parse(body)?;
        Ok(Self { process_id: process_id.id.to_vec(), status: status.0.into(), comment })
    }
}

impl FromJson for LogsPurgeRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawLogsPurge { before } = parse_or_default(body)?;
        Ok(Self { before: time(before) })
    }
}

/// An id; null when there is none.
fn id(bytes: &[u8]) -> Value {
    Id::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
}

fn process(process: &Process) -> Value {
    let status = ProcessStatus::try_from(process.status).unwrap_or(ProcessStatus::NoStatus);
    json!({
        "id": id(&process.id), "trigger_emitter_id": id(&process.trigger_emitter_id),
        "trigger_envelope_id": id(&process.trigger_envelope_id), "pipeline_id": id(&process.pipeline_id),
        "status": word(status), "state": process.state,
    })
}

fn level(number: i32) -> &'static str {
    word(LogLevel::try_from(number).unwrap_or(LogLevel::Notice))
}

fn log(entry: &LogEntry) -> Value {
    let message = entry.message.as_ref().map(|message| {
        let time = message.time.map(|time| Time3339::from_millis(time.millis()).to_string());
        json!({ "time": time, "level": level(message.level), "text": message.text })
    });
    json!({
        "envelope_id": id(&entry.envelope_id), "actor_id": id(&entry.actor_id), "process_id": id(&entry.process_id),
        "node_id": entry.node_id, "message": message,
    })
}

fn attention(of: &PMProcess) -> Value {
    let status = AttentionStatus::try_from(of.status).unwrap_or(AttentionStatus::Default);
    json!({
        "process": of.process.as_ref().map(process), "level": level(of.level), "status": word(status),
        "comment": of.comment, "logs": of.logs.iter().map(log).collect::<Value>(),
    })
}

impl ToJson for ProcessQueryReply {
    fn members(&self) -> Value {
        json!({ "process_list": self.process_list.iter().map(process).collect::<Value>() })
    }
}

impl ToJson for PMProcessQueryReply {
    fn members(&self) -> Value {
        json!({ "pm_process_list": self.pm_process_list.iter().map(attention).collect::<Value>() })
    }
}

impl ToJson for ProcessExportReply {
    fn members(&self) -> Value {
        json!({ "process_list": self.process_list })
    }
}

impl ToJson for TaskProgress {
    fn members(&self) -> Value {
        json!({ "message": self.message, "progression": self.progression, "max_progression": self.max_progression })
    }
}

impl ToJson for LogsPurgeReply {
    fn members(&self) -> Value {
        json!({ "count": self.count })
    }
}

impl ToJson for OctetStreamList {
    fn members(&self) -> Value {
        let chunks: Value = self
            .chunks
            .iter()
            .map(|chunk| json!({ "data": STANDARD.encode(&chunk.data), "index": chunk.index }))
            .collect();
        json!({ "chunks": chunks, "progression": self.progression, "max_progression": self.max_progression })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "53131466-4e2e-11e7-916e-af2b1e6d242d";

    fn read<T: FromJson>(body: &Value) -> Result<T, BodyError> {
        T::from_json(body.to_string().as_bytes())
    }

    #[test]
    fn processes_are_named_in_either_dialect() {
        let wanted = ID.parse::<Id>().unwrap().to_vec();
        for body in [json!({"process_id": ID, "command": "pause"}), json!({"processID": ID, "command": "PAUSE"})] {
            let read: ProcessControlRequest = read(&body).unwrap();
            assert_eq!((read.process_id, read.command), (wanted.clone(), 1));
        }
        let body = json!({"filter": {"status": ["done", "ERROR"], "triggerEmitterID": [ID], "statusChangedTo": "1970-01-01T00:00:01Z"}});
        let filter = read::<ProcessQueryRequest>(&body).unwrap().filter.unwrap();
        assert_eq!((filter.status, filter.trigger_emitter_id), (vec![4, 5], vec![wanted]));
        assert_eq!(filter.status_changed_to.map(|time| time.millis()), Some(1000));
        assert_eq!(ProcessQueryRequest::from_json(b"").unwrap().filter, None, "all processes");
        assert!(read::<ProcessControlRequest>(&json!({"process_id": ID, "command": "stop"})).is_err());
        assert!(read::<LogsPurgeRequest>(&json!({"before": "yesterday"})).is_err());
    }

    #[test]
    fn answers_are_in_the_dialect_of_the_specification_page() {
        let row = Process { id: vec![1; 16], status: 5, state: "canceled".into(), ..Process::default() };
        let told = PMProcess { process: Some(row), level: 2, status: 1, ..PMProcess::default() };
        let answer: Value =
            serde_json::from_str(&PMProcessQueryReply { pm_process_list: vec![told] }.to_json()).unwrap();
        let told = &answer["pm_process_list"][0];
        assert_eq!((&told["level"], &told["status"]), (&json!("error"), &json!("new")));
        assert_eq!(told["process"]["status"], "error");
        let answer: Value = serde_json::from_str(&LogsPurgeReply { count: 3 }.to_json()).unwrap();
        assert_eq!(answer, json!({"status": "success", "count": 3}));
    }
}

//! Rows of the state as messages.

use rollbook_core::xbus::account::row::{AccountRow, ActorRow};
use rollbook_core::xbus::change::LogChange;
use rollbook_core::xbus::log::LogLine;
use rollbook_core::xbus::pipeline::version::PipelineRow;
use rollbook_core::xbus::process::row::ProcessRow;

use crate::doors::nats::xbus::proto::account::{Account, Actor};
use crate::doors::nats::xbus::proto::log::{ConfigEntry, LogMessage, Timestamp};
use crate::doors::nats::xbus::proto::process::{LogEntry, PipelineInfo, Process};

/// An account. Its API key is not known: the state has a hash of the key alone.
#[must_use]
pub fn account(row: &AccountRow) -> Account {
    Account {
        id: row.id.clone(),
        name: row.name.clone(),
        kind: row.kind,
        status: row.status,
        csr: row.csr.clone(),
        cert: row.certificate.clone(),
        api_key: String::new(),
        csr_origin: row.origin,
    }
}

/// An actor, and whether it is connected.
#[must_use]
pub fn actor(row: &ActorRow, online: bool) -> Actor {
    let entry = |entry: &rollbook_core::xbus::account::row::ConfigEntry| ConfigEntry {
        key: entry.key.clone(),
        value: entry.value.clone(),
    };
    Actor {
        id: row.id.clone(),
        name: row.name.clone(),
        kind: row.kind,
        status: row.status,
        account_id: row.account.clone(),
        roles: row.roles.clone(),
        last_seen: (row.last_seen > 0).then(|| Timestamp::from_millis(row.last_seen)),
        online,
        unresponsive: false,
        config: row.config.iter().map(entry).collect(),
    }
}

/// A version of a pipeline.
#[must_use]
pub fn pipeline(row: &PipelineRow) -> PipelineInfo {
    PipelineInfo { id: row.id.clone(), name: row.name.clone(), version: row.version.clone(), status: row.status }
}

/// A process.
#[must_use]
pub fn process(row: &ProcessRow) -> Process {
    Process {
        id: row.id.clone(),
        trigger_emitter_id: row.emitter.clone(),
        trigger_envelope_id: row.envelope.clone(),
        pipeline_id: row.pipeline.clone(),
        status: row.status,
        state: row.state.clone(),
    }
}

/// A log message.
#[must_use]
pub fn message(line: &LogLine) -> LogMessage {
    LogMessage { time: Some(Timestamp::from_millis(line.millis)), level: line.level, text: line.text.clone() }
}

/// The messages of a log entry, each with what it is about.
pub fn log(entry: &LogChange) -> impl Iterator<Item = LogEntry> {
    entry.messages.iter().map(|line| LogEntry {
        envelope_id: entry.envelope.clone(),
        actor_id: entry.actor.clone(),
        process_id: entry.process.clone(),
        node_id: entry.node.clone(),
        message: Some(message(line)),
    })
}

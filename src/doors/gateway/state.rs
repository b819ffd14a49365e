//! What became of an envelope, for its sender.

use rollbook_core::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::LogLine;
use rollbook_core::xbus::process::row::{JobState, ProcessRow};
use serde_json::{Value, json};

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::filter::ProcessFilter;
use crate::bus::xbus::flow::status_word;

/// Most processes that are told of one envelope.
const PROCESSES_MAX: usize = 256;

const fn word(status: EnvelopeStatus) -> &'static str {
    match status {
        EnvelopeStatus::Unknown => "unknown",
        EnvelopeStatus::Receiving => "receiving",
        EnvelopeStatus::Complete => "complete",
        EnvelopeStatus::Error => "error",
        EnvelopeStatus::Stalled => "stalled",
    }
}

/// What became of an envelope of this actor, as JSON.
///
/// # Errors
/// The actor has sent no such envelope, or the store failed.
pub(super) async fn of(client: &XbusClient, actor: Id, envelope: Id) -> Result<String, Fault> {
    let row = client.envelope(envelope).await?.filter(|row| row.actor == actor.as_bytes());
    let row = row.ok_or_else(|| {
        Fault::new(FaultKind::NotFound, format!("the actor has sent no envelope {envelope}, or the envelope is gone"))
    })?;
    let filter = ProcessFilter { triggers: vec![envelope], ..ProcessFilter::default() };
    let page = client.processes(filter, None, PROCESSES_MAX).await?;
    let rows: Vec<&ProcessRow> = page.items.iter().map(AsRef::as_ref).collect();
    Ok(told(&row, &rows).to_string())
}

pub(super) fn told(row: &EnvelopeRow, processes: &[&ProcessRow]) -> Value {
    let has_ended = match row.status() {
        EnvelopeStatus::Error => true,
        EnvelopeStatus::Complete => processes.iter().all(|row| row.status().is_final()) && !processes.is_empty(),
        _ => false,
    };
    let process = |row: &&ProcessRow| {
        let jobs = row.nodes.iter().flat_map(|node| &node.jobs).filter(|job| job.state() == JobState::Error);
        let errors: Vec<&str> = jobs.flat_map(|job| &job.messages).map(|line: &LogLine| line.text.as_str()).collect();
        json!({
            "id": row.id().to_string(), "status": status_word(row.status()), "state": row.state, "errors": errors,
        })
    };
    json!({
        "id": Id::from_slice(&row.id).unwrap_or_default().to_string(), "status": word(row.status()),
        "reason": row.reason, "ended": has_ended, "processes": processes.iter().map(process).collect::<Value>(),
    })
}

//! The envelopes of a job.

use rollbook_core::xbus::done::JobDelivery;
use rollbook_core::xbus::envelope::row::EnvelopeStatus;
use rollbook_core::xbus::id::Id;

use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::storage::Fragments;
use crate::doors::nats::xbus::json::body::JsonEnvelope;
use crate::doors::nats::xbus::proto::job::JobInput;
use crate::doors::nats::xbus::stored::{self, Covered};

/// How long a node that has not applied the newest entries waits for an envelope.
const BEHIND: std::time::Duration = std::time::Duration::from_secs(5);
const LOOK: std::time::Duration = std::time::Duration::from_millis(5);

/// How many fragments a complete envelope has, also when this node has not applied yet that it is complete.
pub(super) async fn fragments(client: &XbusClient, envelope: Id) -> Result<u32, Fault> {
    let until = clock::now() + BEHIND;
    loop {
        let row = client.envelope(envelope).await?;
        if let Some(row) = row.filter(|row| row.status() == EnvelopeStatus::Complete) {
            return Ok(row.fragments);
        }
        if clock::now() >= until {
            return Err(Fault::internal(format!("envelope {envelope} is not there")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The next fragment of an envelope.
pub(super) async fn fragment(fragments: &mut Fragments) -> Result<JsonEnvelope, Fault> {
    let payload = fragments.first().await?;
    stored::decode(&payload).map_err(|error| Fault::internal(format!("a fragment cannot be read: {error}")))
}

/// The inputs of a job, each with its first fragment.
pub(super) async fn of(client: &XbusClient, job: &JobDelivery) -> Result<Vec<JobInput>, Fault> {
    let mut inputs = Vec::with_capacity(job.inputs.len());
    for input in &job.inputs {
        let name = input.name.clone();
        let Ok(envelope) = Id::from_slice(&input.envelope) else {
            inputs.push(JobInput { name, close: true, envelope: None, position: None });
            continue;
        };
        let count = fragments(client, envelope).await?;
        let first = fragment(&mut Fragments::of(client.clone(), envelope)).await?;
        let message = stored::to_message(envelope, first);
        let mut covered = Covered::nothing(envelope);
        covered.take(&message);
        let position = Some(covered.position(count <= 1));
        inputs.push(JobInput { name, close: false, envelope: Some(message), position });
    }
    Ok(inputs)
}

//! The envelopes of a job.

use rollbook_core::xbus::done::JobDelivery;
use rollbook_core::xbus::id::Id;

use crate::bus::error::Fault;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::envelopes::storage;
use crate::bus::xbus::envelopes::stored;
use crate::doors::nats::xbus::messages::{self, Covered};
use crate::doors::nats::xbus::proto::job::JobInput;

/// The inputs of a job, each with its first fragment.
pub(super) async fn of(client: &XbusClient, job: &JobDelivery) -> Result<Vec<JobInput>, Fault> {
    let mut inputs = Vec::with_capacity(job.inputs.len());
    for input in &job.inputs {
        let name = input.name.clone();
        let Ok(envelope) = Id::from_slice(&input.envelope) else {
            inputs.push(JobInput { name, close: true, envelope: None, position: None });
            continue;
        };
        let start = storage::start(client, envelope).await?;
        let message = messages::to_message(envelope, stored::fragment(&start.first)?);
        let mut covered = Covered::nothing(envelope);
        covered.take(&message);
        let position = Some(covered.position(start.fragments <= 1));
        inputs.push(JobInput { name, close: false, envelope: Some(message), position });
    }
    Ok(inputs)
}

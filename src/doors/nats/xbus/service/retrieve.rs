//! An actor asks for an envelope: its fragments are streamed.

use std::time::Duration;

use prost::Message as _;
use rollbook_core::xbus::id::Id;

use super::reply::Answer;
use super::request::Request;
use super::shared::XbusShared;
use crate::bus::error::Fault;
use crate::bus::xbus::storage::Fragments;
use crate::doors::nats::xbus::proto::envelope::{EnvelopeFragmentAndPosition, EnvelopePosition};
use crate::doors::nats::xbus::proto::ids::required;
use crate::doors::nats::xbus::proto::nrpc;
use crate::doors::nats::xbus::stored::{self, Covered};
use rollbook_core::xbus::envelope::row::EnvelopeStatus;

/// Bytes that wait for the client before a stream pauses.
const BACKLOG_MAX: usize = 4 * 1024 * 1024;
/// Such a pause.
const PAUSE: Duration = Duration::from_millis(5);

/// Streams the fragments behind the position that the actor names.
///
/// # Errors
/// The request is malformed; there is no such envelope, or the actor has nothing to do with it; the store failed.
pub(super) async fn retrieve(shared: &XbusShared, request: &Request, actor: Id) -> Result<Answer, Fault> {
    if request.is_json() {
        return Err(Fault::bad("envelopes in JSON come as messages; there is nothing to retrieve"));
    }
    let position: EnvelopePosition = request.proto()?;
    let envelope = required(&position.envelope_id, "envelope_id")?;
    let row = shared.client.envelope(envelope).await?;
    let unknown = || Fault::new(crate::base::fault::FaultKind::NotFound, format!("unknown envelope {envelope}"));
    let row = row.filter(|row| row.status() == EnvelopeStatus::Complete).ok_or_else(unknown)?;
    if !may_read(shared, actor, envelope) && row.actor != actor.as_bytes() {
        return Err(unknown());
    }
    let (mut fragments, mut covered) = (Fragments::of(shared.client.clone(), envelope), Covered::nothing(envelope));
    let mut sent = 0_u32;
    for number in 1..=row.fragments {
        let Some(payload) = fragments.next().await? else { return Err(unknown()) };
        let fragment = stored::decode(&payload)?;
        let message = stored::to_message(envelope, fragment);
        covered.take(&message);
        let complete = number == row.fragments;
        if covered.is_behind(&position) && !complete {
            continue;
        }
        let position = Some(covered.position(complete));
        let message = EnvelopeFragmentAndPosition { fragment: Some(message), position };
        if !request.replies.send(message.encode_to_vec()) {
            // Nobody listens any more.
            return Ok(Answer::Silent);
        }
        sent = sent.saturating_add(1);
        while request.caller.backlog.waiting() > BACKLOG_MAX {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(Answer::Message(nrpc::end_of_stream(sent)))
}

/// Whether the actor has a job with this envelope, as far as this node knows.
fn may_read(shared: &XbusShared, actor: Id, envelope: Id) -> bool {
    shared.client.look(|xbus| {
        let mut processes = xbus.processes_of(actor).filter_map(|id| xbus.open_process(id));
        processes.any(|row| {
            let inputs = row.nodes.iter().flat_map(|node| &node.inputs);
            inputs.into_iter().any(|input| input.envelope == envelope.as_bytes())
        })
    })
}

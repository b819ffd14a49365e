//! An actor asks for an envelope: its fragments are streamed.

use prost::Message as _;
use rollbook_core::xbus::id::Id;

use super::reply::Answer;
use super::request::Request;
use super::shared::XbusShared;
use super::stream::ReplyStream;
use crate::bus::error::Fault;
use crate::bus::xbus::envelopes::storage::Fragments;
use crate::bus::xbus::envelopes::stored;
use crate::doors::nats::xbus::messages::{self, Covered};
use crate::doors::nats::xbus::proto::envelope::{EnvelopeFragmentAndPosition, EnvelopePosition};
use crate::doors::nats::xbus::proto::ids::required;
use rollbook_core::xbus::envelope::row::EnvelopeStatus;

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
    let mut stream = ReplyStream::of(request);
    for number in 1..=row.fragments {
        let Some(payload) = fragments.next().await? else { return Err(unknown()) };
        let fragment = stored::decode(&payload)?;
        let message = messages::to_message(envelope, fragment);
        covered.take(&message);
        let complete = number == row.fragments;
        if covered.is_behind(&position) && !complete {
            continue;
        }
        let position = Some(covered.position(complete));
        let message = EnvelopeFragmentAndPosition { fragment: Some(message), position };
        if !stream.send_payload(message.encode_to_vec()).await {
            return Ok(Answer::Silent);
        }
    }
    Ok(stream.end())
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

//! Envelopes, the ends of jobs and logs: calls in both dialects become what [`actor_calls`] does.

use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::LogLine;

use super::reply::Answer;
use super::request::Request;
use super::shared::XbusShared;
use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::xbus::actor_calls;
use crate::bus::xbus::envelopes::json::answer;
use crate::bus::xbus::envelopes::json::body::{BodyError, Context, EndBody, LogBody, OutputBody};
use crate::doors::nats::xbus::messages;
use crate::doors::nats::xbus::proto::envelope::{EnvelopeAck, OutputRequest, ProcessingContext, ReceptionStatus};
use crate::doors::nats::xbus::proto::ids::{IdFault, optional, required};
use crate::doors::nats::xbus::proto::job::{ActorLogRequest, ActorProcessingState, JobStatus};
use crate::doors::nats::xbus::proto::log::LogMessage;

/// The output of a client that names none.
const DEFAULT_OUTPUT: &str = "default";

impl From<IdFault> for Fault {
    fn from(fault: IdFault) -> Self {
        Self::bad(fault.to_string())
    }
}

/// The job of a context.
fn context(of: ProcessingContext) -> Result<Context, Fault> {
    Ok(Context { process: required(&of.process_id, "processID")?, node: of.node_id })
}

/// A context without a process is that of an emitter: none.
fn optional_context(of: Option<ProcessingContext>) -> Result<Option<Context>, Fault> {
    of.filter(|of| !of.process_id.is_empty()).map(context).transpose()
}

/// What the request of an output means.
fn body(request: &Request) -> Result<OutputBody, Fault> {
    if request.is_json() {
        return Ok(OutputBody::read(&request.payload)?);
    }
    let OutputRequest { context, output, close, envelope } = request.proto()?;
    let context = optional_context(context)?;
    let output = if output.is_empty() { DEFAULT_OUTPUT.to_owned() } else { output };
    let none = || Fault::from(BodyError::NoContext);
    if close {
        return Ok(OutputBody::Close { output, context: context.ok_or_else(none)? });
    }
    let envelope = envelope.ok_or_else(|| Fault::bad("the envelope is missing"))?;
    if envelope.last && envelope.events.is_empty() && envelope.event_ids.is_empty() {
        let (context, envelope) = (context.ok_or_else(none)?, required(&envelope.id, "id of the envelope")?);
        return Ok(OutputBody::Forward { output, context, envelope });
    }
    Ok(OutputBody::Send { output, context, envelope: messages::of_message(envelope)? })
}

/// An actor sends a fragment of an envelope, closes an output, or forwards what it got.
///
/// # Errors
/// The request is malformed; the rules refuse it; the cluster cannot take it now. An envelope that is itself at fault is
/// no error, but an answer.
pub(super) async fn output(shared: &XbusShared, request: &Request, actor: Id) -> Result<Answer, Fault> {
    let (id, ack) = actor_calls::output(&shared.engine, actor, body(request)?).await?;
    Ok(acknowledgement(request, id, &ack))
}

fn acknowledgement(request: &Request, id: Option<Id>, ack: &Ack) -> Answer {
    if request.is_json() {
        return Answer::json(id.map_or_else(|| answer::SUCCESS.to_owned(), |id| answer::envelope(id, ack)));
    }
    let mut message = EnvelopeAck { id: id.map(Id::to_vec).unwrap_or_default(), ..EnvelopeAck::default() };
    message.set_status(match ack {
        Ack::Receiving => ReceptionStatus::Receiving,
        Ack::Accepted => ReceptionStatus::Accepted,
        Ack::Error(_) => ReceptionStatus::Error,
    });
    if let Ack::Error(reason) = ack {
        message.reason.clone_from(reason);
    }
    Answer::proto(&message)
}

/// An actor ends a job by itself.
///
/// # Errors
/// The request is malformed; the actor has no such job; the cluster cannot take the end now.
pub(super) async fn processing_end(shared: &XbusShared, request: &Request, actor: Id) -> Result<Answer, Fault> {
    let body = if request.is_json() {
        EndBody::read(&request.payload)?
    } else {
        let state: ActorProcessingState = request.proto()?;
        let success = match state.status() {
            JobStatus::Success => true,
            JobStatus::Error => false,
            JobStatus::Pending | JobStatus::Running => {
                return Err(Fault::bad("a job ends with the status SUCCESS or ERROR"));
            }
        };
        let of = state.context.ok_or_else(|| Fault::from(BodyError::NoContext))?;
        EndBody { envelope: None, context: context(of)?, success, messages: lines(state.messages) }
    };
    actor_calls::processing_end(&shared.engine, actor, body).await?;
    Ok(Answer::Void)
}

fn lines(messages: Vec<LogMessage>) -> Vec<LogLine> {
    let line = |message: LogMessage| {
        let millis = message.time.map_or_else(clock::millis, |time| time.millis());
        LogLine { millis, level: message.level, text: message.text }
    };
    messages.into_iter().map(line).collect()
}

/// An actor logs something about a job or an envelope.
///
/// # Errors
/// The request is malformed, or about nothing; the cluster cannot take the messages now.
pub(super) async fn log(shared: &XbusShared, request: &Request, actor: Id) -> Result<Answer, Fault> {
    let body = if request.is_json() {
        LogBody::read(&request.payload)?
    } else {
        let log: ActorLogRequest = request.proto()?;
        let (envelope, context) = (optional(&log.envelope_id, "envelopeID")?, optional_context(log.context)?);
        LogBody { envelope, context, messages: lines(log.messages) }
    };
    actor_calls::log(&shared.engine, actor, body).await?;
    Ok(Answer::Void)
}

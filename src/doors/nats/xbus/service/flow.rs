//! Envelopes and the ends of jobs.

use rollbook_core::xbus::change::{Change, FragmentReceived, LogChange};
use rollbook_core::xbus::done::{FragmentDone, Reception, XbusDone};
use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use rollbook_core::xbus::process::event::{Event, JobEnd, JobName, JobOutput};
use rollbook_core::xbus::process::row::OutputState;

use super::reply::Answer;
use super::request::{Request, new_id};
use super::shared::XbusShared;
use crate::base::clock;
use crate::bus::error::Fault;
use crate::doors::nats::xbus::json::answer;
use crate::doors::nats::xbus::json::body::{BodyError, Context, EndBody, JsonEnvelope, LogBody, OutputBody};
use crate::doors::nats::xbus::proto::envelope::{EnvelopeAck, OutputRequest, ProcessingContext, ReceptionStatus};
use crate::doors::nats::xbus::proto::ids::{IdFault, optional, required};
use crate::doors::nats::xbus::proto::job::{ActorLogRequest, ActorProcessingState, JobStatus};
use crate::doors::nats::xbus::proto::log::LogMessage;
use crate::doors::nats::xbus::{measure, stored};

/// The output of a client that names none.
const DEFAULT_OUTPUT: &str = "default";

impl From<IdFault> for Fault {
    fn from(fault: IdFault) -> Self {
        Self::bad(fault.to_string())
    }
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        Self::bad(error.to_string())
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

fn job(context: &Context, actor: Id) -> JobName {
    JobName { node: context.node.clone(), actor: actor.to_vec() }
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
    Ok(OutputBody::Send { output, context, envelope: stored::of_message(envelope)? })
}

/// An actor sends a fragment of an envelope, closes an output, or forwards what it got.
///
/// # Errors
/// The request is malformed; the rules refuse it; the cluster cannot take it now. An envelope that is itself at fault is
/// no error, but an answer.
pub(super) async fn output(shared: &XbusShared, request: &Request, actor: Id) -> Result<Answer, Fault> {
    let (id, ack) = match body(request)? {
        OutputBody::Close { output, context } => {
            let output = JobOutput { job: job(&context, actor), output, envelope: Vec::new() };
            shared.engine.flow().advance(context.process, Event::OutputClose(output)).await?;
            (None, Ack::Accepted)
        }
        OutputBody::Forward { output, context, envelope } if !is_sending(shared, &context, actor, envelope) => {
            let output = JobOutput { job: job(&context, actor), output, envelope: envelope.to_vec() };
            shared.engine.flow().advance(context.process, Event::Forward(output)).await?;
            (Some(envelope), Ack::Accepted)
        }
        // The last fragment of what the job sends, which has nothing but that.
        OutputBody::Forward { output, context, envelope } => {
            let (event_ids, events) = (Vec::new(), Vec::new());
            let fragment = JsonEnvelope { id: Some(envelope), event_ids, events, last: true };
            send(shared, actor, (output, Some(context)), fragment).await?
        }
        OutputBody::Send { output, context, envelope } => send(shared, actor, (output, context), envelope).await?,
    };
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

/// Whether a job is sending this envelope, as far as this node knows.
fn is_sending(shared: &XbusShared, context: &Context, actor: Id, envelope: Id) -> bool {
    shared.client.look(|xbus| {
        let jobs =
            xbus.open_process(context.process).into_iter().flat_map(|row| row.nodes.iter().flat_map(|of| &of.jobs));
        let of_actor = jobs.into_iter().filter(|job| job.actor == actor.as_bytes());
        let mut outputs = of_actor.flat_map(|job| &job.outputs);
        outputs.any(|output| output.state() == OutputState::Sending && output.envelope == envelope.as_bytes())
    })
}

/// Stores a fragment.
async fn send(
    shared: &XbusShared,
    actor: Id,
    (output, context): (String, Option<Context>),
    mut envelope: JsonEnvelope,
) -> Result<(Option<Id>, Ack), Fault> {
    let id = envelope.id.unwrap_or_else(new_id);
    if shared.client.look(|xbus| xbus.open_envelope(id).is_none()) {
        stored::complete(id, &mut envelope);
    }
    let flow = shared.engine.flow();
    let events = envelope.events.iter().map(|event| (event.event_type.as_str(), event.items.as_slice()));
    // Before the first wait, because fragments have to keep their order.
    let verdict = flow.schemas().check(&shared.client, events);
    if let Some(reason) = verdict.refused {
        return Ok((Some(id), Ack::Error(reason)));
    }
    let warned = warning(actor, id, context.as_ref(), verdict.warnings);
    let fragment = measure::of_json(&envelope);
    let payload = stored::encode(id, &envelope);
    let process_ids = if context.is_none() { process_ids(shared, actor) } else { Vec::new() };
    let received = FragmentReceived {
        envelope: id.to_vec(),
        actor: actor.to_vec(),
        output,
        process: context.as_ref().map(|context| context.process.to_vec()).unwrap_or_default(),
        job: context.as_ref().map(|context| job(context, actor)),
        fragment,
        event: stored::event_id(&payload),
        process_ids,
    };
    let done = flow.store(&payload, received).await?;
    let is_new = done.fragment.as_ref().is_some_and(|fragment| fragment.new_data);
    if let Some(log) = warned.filter(|_| is_new)
        && let Err(fault) = flow.change(Change::Log(log)).await
    {
        tracing::warn!(%fault, envelope = %id, "items of an envelope break their schema, and no log entry says so");
    }
    Ok((Some(id), ack_of(done)))
}

/// The log entry about items of an envelope that break their schema and are taken nevertheless.
fn warning(actor: Id, envelope: Id, context: Option<&Context>, texts: Vec<String>) -> Option<LogChange> {
    let line = |text| LogLine { millis: clock::millis(), level: LogLevel::Warning.into(), text };
    let messages: Vec<LogLine> = texts.into_iter().map(line).collect();
    let node = context.map(|context| context.node.clone()).unwrap_or_default();
    let (actor, envelope) = (actor.to_vec(), envelope.to_vec());
    (!messages.is_empty()).then(|| LogChange { actor, envelope, process: Vec::new(), node, messages })
}

fn ack_of(done: XbusDone) -> Ack {
    let fragment: FragmentDone = done.fragment.unwrap_or_default();
    match fragment.reception() {
        Reception::Error => Ack::Error(fragment.reason),
        Reception::Accepted => Ack::Accepted,
        Reception::NoStatus | Reception::Receiving => Ack::Receiving,
    }
}

/// Ids for the processes that may begin: as many as pipelines name the emitter, and one for an envelope that no pipeline
/// takes.
fn process_ids(shared: &XbusShared, actor: Id) -> Vec<Vec<u8>> {
    let count = shared.client.look(|xbus| {
        let view = xbus.actor(actor).and_then(|row| row.view())?;
        let graphs = xbus.active_pipelines().filter_map(|pipeline| pipeline.graph.as_ref());
        Some(graphs.filter(|graph| graph.nodes().iter().any(|node| node.names(view))).count())
    });
    (0..count.unwrap_or_default().saturating_add(1)).map(|_| new_id().to_vec()).collect()
}

/// An actor ends a job by itself.
///
/// # Errors
/// The request is malformed; the actor has no such job; the cluster cannot take the end now.
pub(super) async fn processing_end(shared: &XbusShared, request: &Request, actor: Id) -> Result<Answer, Fault> {
    let (context, success, messages) = if request.is_json() {
        let EndBody { context, success, messages, .. } = EndBody::read(&request.payload)?;
        (context, success, messages)
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
        (context(of)?, success, lines(state.messages))
    };
    let end = JobEnd { job: job(&context, actor), success, messages };
    shared.engine.flow().advance(context.process, Event::End(end)).await?;
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
    let LogBody { envelope, context, messages } = if request.is_json() {
        LogBody::read(&request.payload)?
    } else {
        let log: ActorLogRequest = request.proto()?;
        let (envelope, context) = (optional(&log.envelope_id, "envelopeID")?, optional_context(log.context)?);
        LogBody { envelope, context, messages: lines(log.messages) }
    };
    let (process, node) = context.map(|context| (context.process.to_vec(), context.node)).unwrap_or_default();
    let envelope = envelope.map(Id::to_vec).unwrap_or_default();
    if process.is_empty() && envelope.is_empty() {
        return Err(Fault::bad("a log entry is about a process or an envelope"));
    }
    let messages = messages
        .into_iter()
        .map(|line| LogLine { millis: if line.millis == 0 { clock::millis() } else { line.millis }, ..line });
    let log = LogChange { actor: actor.to_vec(), envelope, process, node, messages: messages.collect() };
    shared.engine.flow().change(Change::Log(log)).await?;
    Ok(Answer::Void)
}

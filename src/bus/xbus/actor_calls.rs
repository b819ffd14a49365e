//! What the programs of actors do, in whichever dialect: they send envelopes, end jobs and log.

use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::xbus::account::row::{ActorKind, ActorRow};
use rollbook_core::xbus::change::{Change, FragmentReceived, LogChange};
use rollbook_core::xbus::done::{FragmentDone, Reception, XbusDone};
use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use rollbook_core::xbus::process::event::{Event, JobEnd, JobName, JobOutput};
use rollbook_core::xbus::process::row::OutputState;

use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::envelopes::json::body::{Context, EndBody, JsonEnvelope, LogBody, OutputBody};
use crate::bus::xbus::envelopes::measure;
use crate::bus::xbus::envelopes::stored;
use crate::bus::xbus::jobs::engine::Engine;

/// A new id.
#[must_use]
pub fn new_id() -> Id {
    Id::new(uuid::Uuid::new_v4().into_bytes())
}

/// Checks that an actor may send envelopes, for callers whose right does not say so.
///
/// # Errors
/// The actor waits for an operator, is shut out, or only takes envelopes.
pub fn check_sender(xbus: &Xbus, actor: &ActorRow) -> Result<(), Fault> {
    check_enabled(xbus, actor)?;
    if actor.kind() == ActorKind::Consumer {
        return Err(Fault::new(
            FaultKind::Forbidden,
            format!("actor {} is a consumer, which sends nothing", actor.name),
        ));
    }
    Ok(())
}

/// Checks that an actor may take jobs, for callers whose right does not say so.
///
/// # Errors
/// The actor waits for an operator, is shut out, or only sends envelopes.
pub fn check_taker(xbus: &Xbus, actor: &ActorRow) -> Result<(), Fault> {
    check_enabled(xbus, actor)?;
    if actor.kind() == ActorKind::Emitter {
        return Err(Fault::new(
            FaultKind::Forbidden,
            format!("actor {} is an emitter, which gets no jobs", actor.name),
        ));
    }
    Ok(())
}

fn check_enabled(xbus: &Xbus, actor: &ActorRow) -> Result<(), Fault> {
    if xbus.is_enabled(actor) {
        return Ok(());
    }
    Err(Fault::new(FaultKind::Forbidden, format!("actor {} is not enabled; see `rollbook actor accept`", actor.name)))
}

fn job(context: &Context, actor: Id) -> JobName {
    JobName { node: context.node.clone(), actor: actor.to_vec() }
}

/// An actor sends a fragment of an envelope, closes an output, or forwards what it got. Returns the id of the envelope,
/// if there is one, and what its sender is told.
///
/// # Errors
/// The rules refuse it, or the cluster cannot take it now. An envelope that is itself at fault is no error, but an
/// answer.
pub async fn output(engine: &Engine, actor: Id, body: OutputBody) -> Result<(Option<Id>, Ack), Fault> {
    engine.seen().note(actor);
    match body {
        OutputBody::Close { output, context } => {
            let output = JobOutput { job: job(&context, actor), output, envelope: Vec::new() };
            engine.flow().advance(context.process, Event::OutputClose(output)).await?;
            Ok((None, Ack::Accepted))
        }
        OutputBody::Forward { output, context, envelope } if !is_sending(engine, &context, actor, envelope) => {
            let output = JobOutput { job: job(&context, actor), output, envelope: envelope.to_vec() };
            engine.flow().advance(context.process, Event::Forward(output)).await?;
            Ok((Some(envelope), Ack::Accepted))
        }
        // The last fragment of what the job sends, which has nothing but that.
        OutputBody::Forward { output, context, envelope } => {
            let (event_ids, events) = (Vec::new(), Vec::new());
            let fragment = JsonEnvelope { id: Some(envelope), event_ids, events, last: true };
            send(engine, actor, (output, Some(context)), fragment).await
        }
        OutputBody::Send { output, context, envelope } => send(engine, actor, (output, context), envelope).await,
    }
}

/// Whether a job is sending this envelope, as far as this node knows.
fn is_sending(engine: &Engine, context: &Context, actor: Id, envelope: Id) -> bool {
    engine.flow().client().look(|xbus| {
        let jobs =
            xbus.open_process(context.process).into_iter().flat_map(|row| row.nodes.iter().flat_map(|of| &of.jobs));
        let of_actor = jobs.into_iter().filter(|job| job.actor == actor.as_bytes());
        let mut outputs = of_actor.flat_map(|job| &job.outputs);
        outputs.any(|output| output.state() == OutputState::Sending && output.envelope == envelope.as_bytes())
    })
}

/// Stores a fragment.
async fn send(
    engine: &Engine,
    actor: Id,
    (output, context): (String, Option<Context>),
    mut envelope: JsonEnvelope,
) -> Result<(Option<Id>, Ack), Fault> {
    let (client, id) = (engine.flow().client(), envelope.id.unwrap_or_else(new_id));
    if client.look(|xbus| xbus.open_envelope(id).is_none()) {
        stored::complete(id, &mut envelope);
    }
    let events = envelope.events.iter().map(|event| (event.event_type.as_str(), event.items.as_slice()));
    // Before the first wait, because fragments have to keep their order.
    let verdict = engine.flow().schemas().check(client, events);
    if let Some(reason) = verdict.refused {
        return Ok((Some(id), Ack::Error(reason)));
    }
    let warned = warning(actor, id, context.as_ref(), verdict.warnings);
    let fragment = measure::of_json(&envelope);
    let payload = stored::encode(id, &envelope);
    let process_ids = if context.is_none() { process_ids(engine, actor) } else { Vec::new() };
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
    let done = engine.flow().store(&payload, received).await?;
    let is_new = done.fragment.as_ref().is_some_and(|fragment| fragment.new_data);
    if let Some(log) = warned.filter(|_| is_new)
        && let Err(fault) = engine.flow().change(Change::Log(log)).await
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
fn process_ids(engine: &Engine, actor: Id) -> Vec<Vec<u8>> {
    let count = engine.flow().client().look(|xbus| {
        let view = xbus.actor(actor).and_then(|row| row.view())?;
        let graphs = xbus.active_pipelines().filter_map(|pipeline| pipeline.graph.as_ref());
        Some(graphs.filter(|graph| graph.nodes().iter().any(|node| node.names(view))).count())
    });
    (0..count.unwrap_or_default().saturating_add(1)).map(|_| new_id().to_vec()).collect()
}

/// An actor ends a job by itself.
///
/// # Errors
/// The actor has no such job, or the cluster cannot take the end now.
pub async fn processing_end(engine: &Engine, actor: Id, body: EndBody) -> Result<(), Fault> {
    let EndBody { context, success, messages, .. } = body;
    let end = JobEnd { job: job(&context, actor), success, messages };
    engine.flow().advance(context.process, Event::End(end)).await.map(drop)
}

/// An actor logs something about a job or an envelope.
///
/// # Errors
/// The messages are about nothing, or the cluster cannot take them now.
pub async fn log(engine: &Engine, actor: Id, body: LogBody) -> Result<(), Fault> {
    let LogBody { envelope, context, messages } = body;
    let (process, node) = context.map(|context| (context.process.to_vec(), context.node)).unwrap_or_default();
    let envelope = envelope.map(Id::to_vec).unwrap_or_default();
    if process.is_empty() && envelope.is_empty() {
        return Err(Fault::bad("a log entry is about a process or an envelope"));
    }
    let messages = messages
        .into_iter()
        .map(|line| LogLine { millis: if line.millis == 0 { clock::millis() } else { line.millis }, ..line });
    let log = LogChange { actor: actor.to_vec(), envelope, process, node, messages: messages.collect() };
    engine.flow().change(Change::Log(log)).await.map(drop)
}

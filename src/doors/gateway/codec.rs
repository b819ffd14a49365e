//! Jobs as programs get them: in one piece, detached.

use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use rollbook_core::xbus::process::event::Event;
use rollbook_core::xbus::process::row::{JobState, NodeRow, ProcessRow};

use super::session::Handover;
use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::xbus::actor_calls;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::envelopes::json::answer;
use crate::bus::xbus::envelopes::json::body::{Context, EndBody};
use crate::bus::xbus::envelopes::whole::whole;
use crate::bus::xbus::jobs::engine::{Engine, job_name};
use crate::bus::xbus::jobs::give_back::give_back;

/// The inputs of a job by name, with the envelope of each that is not closed.
type Inputs = Vec<(String, Option<Id>)>;

/// Hands a job over to a program. Returns `None` when the job is too large, and has ended in error.
///
/// # Errors
/// The envelopes cannot be read, or the cluster does not know that the program has the job. The job is given back.
pub(super) async fn hand_over(engine: &Engine, handover: Handover, bytes_max: usize) -> Result<Option<String>, Fault> {
    let deliver = &handover.deliver;
    let (process, actor) = (deliver.process, deliver.guard.key().2);
    let context = Context { process, node: deliver.job.node.clone() };
    let inputs = deliver.job.inputs.iter();
    let inputs: Inputs = inputs.map(|input| (input.name.clone(), Id::from_slice(&input.envelope).ok())).collect();
    match body(engine.flow().client(), &context, inputs, bytes_max).await {
        Ok(Some(body)) => {
            // The cluster knows before the program does, so that the program may end the job at once.
            engine.flow().advance(process, Event::Detach(job_name(&deliver.guard))).await?;
            Ok(Some(body))
        }
        Ok(None) => {
            let text = format!("the envelopes have more than {bytes_max} bytes, which is gateway.job_bytes_max");
            let mut line = LogLine { millis: clock::millis(), text, ..LogLine::default() };
            line.set_level(LogLevel::Error);
            let end = EndBody { envelope: None, context, success: false, messages: vec![line] };
            actor_calls::processing_end(engine, actor, end).await?;
            Ok(None)
        }
        Err(fault) => {
            give_back(engine, process, actor).await;
            Err(fault)
        }
    }
}

/// The body of a job; `None` when its items have more bytes.
async fn body(
    client: &XbusClient,
    context: &Context,
    inputs: Inputs,
    bytes_max: usize,
) -> Result<Option<String>, Fault> {
    let (mut read, mut left) = (Vec::with_capacity(inputs.len()), bytes_max);
    for (name, envelope) in inputs {
        let Some(id) = envelope else {
            read.push((name, None));
            continue;
        };
        let Some(envelope) = whole(client, id, u64::try_from(left).unwrap_or(u64::MAX)).await? else { return Ok(None) };
        let bytes: usize = envelope.events.iter().flat_map(|event| &event.items).map(Vec::len).sum();
        left = left.saturating_sub(bytes);
        read.push((name, Some(envelope)));
    }
    Ok(Some(answer::job(context, &read)))
}

/// A job that the actor has and has not ended, for a program that has lost it; `None` when there is none.
///
/// # Errors
/// The envelopes cannot be read.
pub(super) async fn held(client: &XbusClient, actor: Id, bytes_max: usize) -> Result<Option<String>, Fault> {
    let found = client.look(|xbus| {
        xbus.detached_of(actor).find_map(|id| {
            let row: &ProcessRow = xbus.open_process(id)?;
            let graph = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id)?.graph.as_ref())?;
            let has = |node: &NodeRow| {
                node.jobs.iter().any(|job| job.state() == JobState::Detached && job.actor == actor.as_bytes())
            };
            let (number, node) = row.nodes.iter().enumerate().find(|(_, node)| has(node))?;
            let of = graph.node(number)?;
            let envelopes = node.inputs.iter().map(|input| Id::from_slice(&input.envelope).ok());
            let inputs: Inputs = of.inputs.iter().cloned().zip(envelopes).collect();
            Some((Context { process: id, node: of.id.clone() }, inputs))
        })
    });
    match found {
        Some((context, inputs)) => body(client, &context, inputs, bytes_max).await,
        None => Ok(None),
    }
}

//! One job in the JSON of the specification page: its envelopes come as messages, and the actor says by itself how the
//! job ends.

use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::Event;

use super::end;
use super::link::Link;
use crate::bus::error::Fault;
use crate::bus::xbus::envelopes::json::answer::Delivered;
use crate::bus::xbus::envelopes::json::body::Context;
use crate::bus::xbus::envelopes::storage::{self, Fragments};
use crate::bus::xbus::envelopes::stored;
use crate::bus::xbus::jobs::engine::{Engine, job_name};
use crate::bus::xbus::jobs::give_back::give_back;
use crate::bus::xbus::jobs::workers::Deliver;

/// Brings a job to its actor.
pub(super) async fn run(engine: Engine, link: Link, deliver: Deliver) {
    let (process, actor) = (deliver.process, deliver.guard.key().2);
    match send(&engine, &link, &deliver).await {
        Ok(true) => {
            end::propose(&engine, process, Event::Detach(job_name(&deliver.guard))).await;
        }
        Ok(false) => give_back(&engine, process, actor).await,
        Err(fault) => {
            tracing::error!(%fault, %process, "the envelopes of a job cannot be sent");
            give_back(&engine, process, actor).await;
        }
    }
}

/// Sends all envelopes. Returns `false` when the client takes no more.
async fn send(engine: &Engine, link: &Link, deliver: &Deliver) -> Result<bool, Fault> {
    let (client, actor) = (engine.flow().client(), deliver.guard.key().2);
    let context = Context { process: deliver.process, node: deliver.job.node.clone() };
    for input in &deliver.job.inputs {
        // A closed input has no envelope, and the page has no message for that.
        let Ok(envelope) = Id::from_slice(&input.envelope) else { continue };
        let subject = format!("xbus.msgbox.{actor}.input.{}", input.name);
        let reply = format!("_INBOX.{actor}.srv.letter");
        let count = storage::start(client, envelope).await?.fragments;
        let mut fragments = Fragments::of(client.clone(), envelope);
        for number in 1..=count {
            let gone = || Fault::internal(format!("envelope {envelope} is gone from the book"));
            let fragment = stored::fragment(&fragments.next().await?.ok_or_else(gone)?)?;
            let (event_ids, events) = (fragment.event_ids.as_slice(), fragment.events.as_slice());
            let last = number == count;
            let body = Delivered { envelope, event_ids, events, last, context: &context }.body();
            if !link.deliver(&subject, &reply, body.into()) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

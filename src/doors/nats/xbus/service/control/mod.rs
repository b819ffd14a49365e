//! The control API, for operators with a tool of Xbus.
//!
//! ```text
//! account   list, accept, shut out, delete, keys        actor      create, change, delete, query
//! pipeline  query, save, activate, read                 process    query, pause, resume, cancel, purge
//! export    processes as texts                          attention  processes that failed, and what became of them
//! purge     envelopes and log entries that are old
//! ```
//!
//! Imports what the service shares. Invariant: every change goes into the audit with who had it done, and clients hear of
//! what the change did to processes and actors.

mod account;
mod actor;
mod attention;
mod export;
mod pipeline;
mod process;
mod purge;

use rollbook_core::xbus::change::Change;
use rollbook_core::xbus::done::XbusDone;

use super::reply::Answer;
use super::request::Request;
use super::shared::XbusShared;
use crate::bus::error::Fault;

/// Most items of one call.
const ITEMS_MAX: usize = 256;

/// Answers a call of the control API.
///
/// # Errors
/// There is no such method, the payload cannot be read, or the rules refuse the change.
pub async fn answer(shared: &XbusShared, request: &Request, service: &str, method: &str) -> Result<Answer, Fault> {
    match (service, method) {
        ("account", "list") => account::list(shared, request),
        ("account", "update") => account::update(shared, request).await,
        ("account", "delete") => account::delete(shared, request).await,
        ("account", "renew_apikey") => account::renew_api_key(shared, request).await,
        ("account", "get_apikey") => Err(Fault::bad("an API key is shown once, when it is made; renew it")),
        ("account", "set_apikey") => account::set_api_key(shared, request).await,
        ("account", "resetcert") => account::reset_certificate(shared, request).await,
        ("actor", "create") => actor::create(shared, request).await,
        ("actor", "update") => actor::update(shared, request).await,
        ("actor", "delete") => actor::delete(shared, request).await,
        ("actor", "query") => actor::query(shared, request),
        ("pipeline", "query") => pipeline::query(shared, request),
        ("pipeline", "save") => pipeline::save(shared, request).await,
        ("pipeline", "setstatus") => pipeline::set_status(shared, request).await,
        ("pipeline", "getgraph") => pipeline::graph(shared, request),
        ("process", "query") => process::query(shared, request).await,
        ("process", "control") => process::control(shared, request).await,
        ("process", "export") => export::export(shared, request).await,
        ("process", "exportstream") => export::export_stream(shared, request).await,
        ("process", "purge") => process::purge(shared, request).await,
        ("pm", "query") => attention::query(shared, request).await,
        ("pm", "setstatus") => attention::set_status(shared, request).await,
        ("envelope", "purge") => purge::envelopes(shared, request).await,
        ("logs", "purge") => purge::logs(shared, request).await,
        _ => Err(Fault::bad(format!("there is no method {method} of {service}"))),
    }
}

/// Makes a change in the name of the caller, and tells clients what it did.
async fn change(shared: &XbusShared, request: &Request, change: Change) -> Result<XbusDone, Fault> {
    let done = shared.client.change_of(None, change, request.caller.access.identity().actor("")).await?;
    shared.engine.flow().tell(&done);
    Ok(done)
}

/// Refuses what would be too much work for one call.
fn check_count(count: usize) -> Result<(), Fault> {
    if count > ITEMS_MAX {
        return Err(Fault::bad(format!("at most {ITEMS_MAX} of them in one call")));
    }
    Ok(())
}

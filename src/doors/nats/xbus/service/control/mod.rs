//! The control API: accounts, actors and pipelines, for operators with a tool of Xbus.
//!
//! ```text
//! account   list, accept, shut out, delete, keys        actor   create, change, delete, query
//! pipeline  query, save, activate, read
//! ```
//!
//! Imports what the service shares. Invariant: every change goes into the audit with who had it done.

mod account;
mod actor;
mod pipeline;

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
        _ => Err(Fault::bad(format!("there is no method {method} of {service}"))),
    }
}

/// Makes a change in the name of the caller.
async fn change(shared: &XbusShared, request: &Request, change: Change) -> Result<XbusDone, Fault> {
    shared.client.change_of(None, change, request.caller.access.identity().actor("")).await
}

/// Refuses what would be too much work for one call.
fn check_count(count: usize) -> Result<(), Fault> {
    if count > ITEMS_MAX {
        return Err(Fault::bad(format!("at most {ITEMS_MAX} of them in one call")));
    }
    Ok(())
}

//! `/api/docks`, `/api/definitions` and `/api/processes`: processes on docks.
//!
//! `docks` shows docks and what runs on them, `definitions` what should run, `control` starts and stops, `logs` follows
//! output, `builds` deploys. The right is `process` on `all/ID`, which the bus checks.

pub(in crate::admin) mod builds;
pub(in crate::admin) mod control;
pub(in crate::admin) mod definitions;
pub(in crate::admin) mod docks;
pub(in crate::admin) mod logs;

use actix_web::web;

use crate::admin::problem::Problem;
use crate::base::fault::FaultKind;
use crate::bus::docks::order::CommandError;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    docks::mount(services);
    definitions::mount(services);
    control::mount(services);
    logs::mount(services);
    builds::mount(services);
}

/// The problem of an error, with codes of its own where a program has to tell.
fn problem(id: &str, error: impl Into<CommandError>) -> Problem {
    let fault = match error.into() {
        error @ CommandError::Dock { .. } => return Problem::new(503, "dock_failed", error.to_string()),
        CommandError::Fault(fault) => fault,
    };
    match fault.kind {
        FaultKind::NotFound => Problem::new(404, "definition_not_found", format!("definition not found: {id}")),
        FaultKind::Conflict => Problem::new(409, "definition_exists", fault.text),
        _ => fault.into(),
    }
}

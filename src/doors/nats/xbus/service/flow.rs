//! Envelopes, jobs and the readiness of actors.

use rollbook_core::xbus::id::Id;

use super::reply::Answer;
use super::request::Request;
use super::shared::XbusShared;
use crate::bus::error::Fault;

fn not_yet() -> Result<Answer, Fault> {
    Err(Fault::internal("not implemented yet"))
}

/// An actor sends a fragment of an envelope.
///
/// # Errors
/// Always.
pub async fn output(_shared: &XbusShared, _request: &Request, _actor: Id) -> Result<Answer, Fault> {
    not_yet()
}

/// An actor ends a job that it had detached.
///
/// # Errors
/// Always.
pub async fn processing_end(_shared: &XbusShared, _request: &Request, _actor: Id) -> Result<Answer, Fault> {
    not_yet()
}

/// An actor logs something.
///
/// # Errors
/// Always.
pub async fn log(_shared: &XbusShared, _request: &Request, _actor: Id) -> Result<Answer, Fault> {
    not_yet()
}

/// An actor asks for an envelope.
///
/// # Errors
/// Always.
pub async fn retrieve(_shared: &XbusShared, _request: &Request, _actor: Id) -> Result<Answer, Fault> {
    not_yet()
}

/// An actor takes jobs from now on.
///
/// # Errors
/// Always.
pub async fn actor_ready(_shared: &XbusShared, _request: &Request, _actor: Id) -> Result<Answer, Fault> {
    not_yet()
}

/// An actor takes no more jobs.
///
/// # Errors
/// Always.
pub async fn actor_leaving(_shared: &XbusShared, _request: &Request, _actor: Id) -> Result<Answer, Fault> {
    not_yet()
}

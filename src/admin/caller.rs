//! Who calls an operation: authenticated before the handler runs, checked against the right that the operation needs,
//! and named in the audit.

use std::cell::Cell;
use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderValue, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use rollbook_core::command::Command;
use rollbook_core::level::FeatureLevel;
use rollbook_core::security::actor::Actor;
use rollbook_core::security::change::{AuditLine, Audited, Change};
use rollbook_core::security::right::Verb;

use super::Admin;
use super::operation::{Need, Operation, target};
use super::problem::Problem;
use super::request_log;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// Name of REST in the audit.
const DOOR: &str = "rest";

tokio::task_local! {
    /// The caller of the operation that runs now. Whatever it proposes is in its name.
    static CALLER: Caller;
}

/// The caller of an operation.
#[derive(Debug)]
struct Caller {
    identity: Arc<Identity>,
    request: String,
    /// Whether a command of the operation is in the audit.
    audited: Cell<bool>,
}

/// The identity of the caller of this operation.
pub(super) fn identity() -> Arc<Identity> {
    CALLER.try_with(|caller| Arc::clone(&caller.identity)).unwrap_or_else(|_| Identity::nobody())
}

/// The caller for the audit, which the command then is in.
pub(super) fn actor() -> Actor {
    let named = CALLER.try_with(|caller| {
        caller.audited.set(true);
        caller.identity.actor(&caller.request)
    });
    named.unwrap_or_default()
}

/// The caller for the audit, for a job that goes on behind the operation. The operation has a line of its own.
pub(super) fn actor_of_job() -> Actor {
    CALLER.try_with(|caller| caller.identity.actor(&caller.request)).unwrap_or_default()
}

/// Admits the caller of an operation and checks the right.
async fn admit(admin: &Admin, operation: Operation, request: &ServiceRequest) -> Result<Arc<Identity>, Problem> {
    if operation.need == Need::Nothing {
        return Ok(Identity::nobody());
    }
    let identity = admin.bus.authority().admit_http(DOOR, request.request()).await?;
    if let Need::Right(verb, template) = operation.need {
        identity.check(verb, &target(template, request))?;
    }
    Ok(identity)
}

/// The answer to a caller that is refused. Who shows no credential is told how to.
fn refuse(problem: Problem) -> HttpResponse {
    let mut answer = HttpResponse::from_error(problem);
    if answer.status() == actix_web::http::StatusCode::UNAUTHORIZED {
        let challenge =
            HeaderValue::from_static("Bearer realm=\"rollbook\", Basic realm=\"rollbook\", charset=\"UTF-8\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// Runs an operation for a caller that may have it done.
pub(super) async fn authorize(
    operations: &[Operation],
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let admin = request.app_data::<web::Data<Admin>>().cloned();
    let operation = Operation::of(operations, request.method());
    // Another method is refused by the path, and OPTIONS tells nothing.
    let (Some(admin), Some(operation)) = (admin, operation) else { return next.call(request).await };
    let identity = match admit(&admin, operation, &request).await {
        Ok(identity) => identity,
        Err(problem) => return Ok(request.into_response(refuse(problem))),
    };
    let about = match operation.need {
        Need::Right(_, template) => target(template, &request),
        Need::Nothing | Need::Caller => request.path().to_owned(),
    };
    let request_id = request_log::id_of(&request);
    let changes = !operation.action.is_empty() && request.method() != Method::GET;
    let caller = Caller { identity: Arc::clone(&identity), request: request_id.clone(), audited: Cell::new(false) };
    // A change of the cluster may end this very node, so it is noted before it is tried.
    let first = changes && matches!(operation.need, Need::Right(Verb::AdminCluster, _));
    if first {
        note(&admin, identity.actor(&request_id), operation.action, (about.clone(), "asked")).await;
    }
    let run = async {
        let answer = next.call(request).await;
        (answer, CALLER.with(|caller| caller.audited.get()))
    };
    let (answer, audited) = CALLER.scope(caller, run).await;
    if changes && !audited && !first {
        let done = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        let outcome = if done { "done" } else { "failed" };
        note(&admin, identity.actor(&request_id), operation.action, (about, outcome)).await;
    }
    answer
}

/// Writes an operation into the audit that is no command of the cluster, such as one to a client.
async fn note(admin: &Admin, actor: Actor, action: &str, (target, outcome): (String, &str)) {
    if admin.bus.level() < FeatureLevel::SECURED {
        return;
    }
    let (what, outcome) = (action.to_owned(), outcome.to_owned());
    let line = AuditLine { actor: Some(actor), what, target, outcome, count: 1 };
    let command = Command::security(None, Change::Audited(Audited { lines: vec![line] }));
    if let Err(refusal) = admin.bus.proposer().command(command).await {
        tracing::error!(%refusal, action, "an operation could not be written into the audit");
    }
}

/// Checks a right that depends on more than the path.
///
/// # Errors
/// The caller may not.
pub(super) fn check(verb: Verb, target: &str) -> Result<(), Problem> {
    identity().check(verb, target).map_err(Problem::from)
}

/// The fault of somebody who shows no credential where one is needed whatever the rights are.
pub(super) fn needs_credential() -> Problem {
    Fault::new(FaultKind::Unauthenticated, "this operation is for callers with a credential").into()
}

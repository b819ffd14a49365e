//! Completes all answers of the administration: HEAD is answered as GET, every error has a problem document, and
//! caches learn what an answer depends on.

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, VARY};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError as _};

use super::preconditions;
use super::problem::Problem;

/// Whether the resource has an ETag, so that its handler checks the preconditions of a change.
fn has_tag(path: &str) -> bool {
    let is_service = || path.strip_prefix("/api/services/").is_some_and(|id| !id.contains('/'));
    let is_row = |list: &&str| path.strip_prefix(*list).is_some_and(|name| !name.contains('/'));
    let rows = ["/api/schedules/", "/api/security/principals/", "/api/security/roles/", "/api/security/issuers/"];
    // What is done to a row of these has a path below that of the row.
    let xbus = ["/api/xbus/accounts/", "/api/xbus/actors/", "/api/xbus/pipelines/", "/api/xbus/schemas/"];
    path == "/api/config"
        || path == "/api/config/rollback"
        || is_service()
        || rows.iter().any(is_row)
        || xbus.iter().any(|list| path.starts_with(list))
}

/// Serves HEAD with the handler of GET (the server removes the body), and completes the answers of the handlers.
///
/// # Errors
/// The handler failed.
pub async fn complete(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    let changes = ![Method::GET, Method::OPTIONS].contains(request.method());
    let refused = if changes && !has_tag(request.path()) { preconditions::none(request.request()).err() } else { None };
    let mut answer = match refused {
        Some(problem) => request.into_response(problem.error_response()),
        None => next.call(request).await?.map_into_boxed_body(),
    };
    let status = answer.status();
    let is_mute = matches!(answer.response().body().size(), BodySize::None | BodySize::Sized(0));
    if is_mute && (status.is_client_error() || status.is_server_error()) {
        // The answer comes from a page's files or from the HTTP server, and not from a handler.
        let detail = format!("{} {}: {status}", answer.request().method(), answer.request().path());
        let document = Problem::of_status(status, detail).error_response();
        if let Some(kind) = document.headers().get(CONTENT_TYPE) {
            answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        answer = answer.map_body(|_, _| document.into_body());
    }
    // The origin of a page decides whether the page may read an answer, so no cache may give the answer of one page
    // to another.
    answer.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    Ok(answer)
}

//! Errors of the REST surface as problem+json (RFC 9457).

use actix_web::error::QueryPayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, Resource, ResponseError, web};
use rollbook_cluster::error::ReadError;
use rollbook_core::error::Refusal;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::bus::call::CallError;

/// One problem.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// `about:blank`: the code says what it is.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    /// What the provider of a call said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    error: Option<Box<RawValue>>,
}

/// Every request can fail.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Problems {
    /// The request is wrong, or not possible now.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Request(#[to_schema] Problem),
    /// The node or the cluster cannot.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Node(#[to_schema] Problem),
}

impl Problem {
    pub(super) fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self {
            r#type: "about:blank",
            title: known.unwrap_or("Error"),
            status,
            detail: detail.into(),
            code,
            error: None,
        }
    }

    /// The store failed, or did what it should not.
    pub(super) fn storage(detail: impl Into<String>) -> Self {
        Self::new(500, "storage", detail)
    }

    /// A provider did not do what it was asked; `error` is what it says, JSON.
    pub(super) fn refused_by_provider(error: &str) -> Self {
        let error = RawValue::from_string(error.to_owned()).ok();
        Self { error, ..Self::new(422, "refused", "the provider refused the call") }
    }

    /// Whether it tells of this kind of refusal.
    pub(super) fn is(&self, refusal: &Refusal) -> bool {
        self.code == refusal.code()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NamespaceNotFound(_) => 404,
            ref other => other.status(),
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Self::storage(error.to_string())
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let status = match error {
            CallError::BadRequest(_) => 400,
            CallError::Forbidden(_) => 403,
            CallError::NotRegistered => 409,
            CallError::Overloaded(_) => 429,
            CallError::ProviderLost => 502,
            CallError::NoProvider(..) | CallError::Unavailable(_) | CallError::Cancelled => 503,
            CallError::DeadlineExceeded => 504,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut builder = HttpResponse::build(self.status_code());
        if self.status == 503 || self.status == 429 {
            builder.insert_header((header::RETRY_AFTER, "1"));
        }
        let body = serde_json::to_vec(self).unwrap_or_default();
        builder.insert_header((header::CONTENT_TYPE, "application/problem+json")).body(body)
    }
}

/// The answer to a query that the endpoint does not take.
pub(super) fn query(error: QueryPayloadError, _: &HttpRequest) -> actix_web::Error {
    Problem::new(400, "bad_request", error.to_string()).into()
}

/// The answer on a path that nothing serves.
pub(super) async fn not_found(request: HttpRequest) -> Answer {
    Answer(Problem::new(404, "not_found", format!("nothing at {}", request.path())))
}

/// A path that takes these methods, and says so when it is asked for another.
pub(super) fn resource(path: &str, allowed: &'static str) -> Resource {
    let refuse = move |request: HttpRequest| async move {
        let detail = format!("{} does not take {}", request.path(), request.method());
        let mut answer = Problem::new(405, "method_not_allowed", detail).error_response();
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        answer
    };
    web::resource(path).default_service(web::to(refuse))
}

/// A problem as a plain answer.
pub(super) struct Answer(Problem);

impl actix_web::Responder for Answer {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.0.error_response()
    }
}

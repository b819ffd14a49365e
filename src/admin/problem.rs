//! Errors of the REST surface as problem+json (RFC 9457).

use actix_web::error::PathError;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError};
use rollbook_cluster::error::ReadError;
use rollbook_core::error::Refusal;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::net::http::status::status;

/// Content codings that a body may have. The refusal of another coding names them.
pub(super) const CODINGS: &str = "gzip, deflate, zstd, identity";

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
    /// The header `Retry-After`, in seconds; 1 when nobody says more.
    #[serde(skip)]
    retry_after: Option<u64>,
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
            retry_after: None,
        }
    }

    /// The request is wrong. `detail` says what is wrong and what to send instead.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(400, "bad_request", detail)
    }

    /// The problem of an answer with this status and without a text.
    pub(super) fn of_status(status: StatusCode, detail: String) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            _ if status.is_client_error() => "bad_request",
            _ => "internal",
        };
        Self::new(status.as_u16(), code, detail)
    }

    /// The store failed.
    pub(super) fn storage(detail: impl Into<String>) -> Self {
        Self::new(500, "storage", detail)
    }

    /// A provider refused a call. `error` is the provider's JSON.
    pub(super) fn refused_by_provider(error: &str) -> Self {
        let error = RawValue::from_string(error.to_owned()).ok();
        Self { error, ..Self::new(422, "refused", "the provider refused the call") }
    }

    /// Whether the problem stands for this kind of refusal.
    pub(super) fn is(&self, refusal: &Refusal) -> bool {
        self.code == refusal.code()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NamespaceNotFound(_) => 404,
            ref other => status(FaultKind::from(other)).as_u16(),
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Self::storage(error.to_string())
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let (code, retry_after) = (fault.code(), fault.retry_after);
        Self { retry_after, ..Self::new(status(fault.kind).as_u16(), code, fault.text) }
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
            builder.insert_header((header::RETRY_AFTER, self.retry_after.unwrap_or(1).to_string()));
        }
        if self.status == 415 {
            // RFC 9110, 15.5.16: the accepted content type.
            builder.insert_header((header::ACCEPT, "application/json"));
            builder.insert_header((header::ACCEPT_ENCODING, CODINGS));
        }
        let body = serde_json::to_vec(self).unwrap_or_default();
        builder.insert_header((header::CONTENT_TYPE, "application/problem+json")).body(body)
    }
}

/// The answer to a path with an invalid part, such as a node number that is not a number.
pub(super) fn path(error: PathError, request: &HttpRequest) -> Error {
    let text = error.to_string();
    let message = match text.rsplit_once(" to a ") {
        Some((_, "u64")) => "the number of a node is a whole number from 1",
        _ => text.as_str(),
    };
    Problem::bad(format!("{}: {message}", request.path())).into()
}

/// The answer on a path without a handler.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    let detail = format!("nothing at {}; GET / says what is where", request.path());
    Problem::new(404, "not_found", detail).error_response()
}

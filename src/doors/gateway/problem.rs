//! Errors of the gateway as problem+json (RFC 9457).

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde_json::json;

use crate::bus::error::Fault;
use crate::net::http::status::status;
use crate::net::http_body::BodyError;

/// The challenge of an answer 401.
const CHALLENGE: &str = "Xbus-API-Key realm=\"rollbook\"";

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<u64>,
    /// The rest of the body is not read.
    close: bool,
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let (code, retry_after) = (fault.code(), fault.retry_after);
        Self { status: status(fault.kind), code, detail: fault.text.into_owned(), retry_after, close: false }
    }
}

impl From<rollbook_cluster::error::ReadError> for Problem {
    fn from(error: rollbook_cluster::error::ReadError) -> Self {
        Fault::from(error).into()
    }
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None, close: false }
    }

    /// The problem of a body that did not come; at most `bytes_max` bytes are taken.
    pub(super) fn of_body(error: &BodyError, bytes_max: usize) -> Self {
        let new = |status, code, detail: String| Self { close: true, ..Self::new(status, code, detail) };
        match error {
            BodyError::TooLarge => new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("request body too large; at most {bytes_max} bytes, which is gateway.body_bytes_max"),
            ),
            BodyError::Late => {
                new(StatusCode::REQUEST_TIMEOUT, "bad_request", "request body did not arrive in time".to_owned())
            }
            BodyError::Crowded => new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "too many bytes of requests are being received".to_owned(),
            ),
            BodyError::Broken(error) => new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()),
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> HttpResponse {
        let mut builder = HttpResponse::build(self.status);
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            builder.insert_header((header::RETRY_AFTER, self.retry_after.unwrap_or(1).to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            builder.insert_header((header::WWW_AUTHENTICATE, CHALLENGE));
        }
        if self.close {
            builder.force_close();
        }
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail,
            "code": self.code,
        });
        builder.insert_header((header::CONTENT_TYPE, "application/problem+json")).body(body.to_string())
    }
}

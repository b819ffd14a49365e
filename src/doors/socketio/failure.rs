//! The errors that Engine.IO numbers, and the HTTP answer of each.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde_json::json;

use super::engine::steps::RequestError;

/// An Engine.IO error. Clients know the errors by their number and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineError {
    TransportUnknown,
    SidUnknown,
    BadMethod,
    BadRequest,
    Forbidden,
    BadVersion,
    Draining,
    TooMany,
    /// Too many sessions have begun and joined no namespace.
    Arriving,
    TooLarge,
    Crowded,
}

impl EngineError {
    pub(super) const fn parts(self) -> (u16, u8, &'static str) {
        match self {
            Self::TransportUnknown => (400, 0, "Transport unknown"),
            Self::SidUnknown => (400, 1, "Session ID unknown"),
            Self::BadMethod => (400, 2, "Bad handshake method"),
            Self::BadRequest => (400, 3, "Bad request"),
            Self::Forbidden => (403, 4, "Forbidden"),
            Self::BadVersion => (400, 5, "Unsupported protocol version"),
            Self::Draining => (503, 4, "Node is stopping"),
            Self::TooMany => (503, 4, "Too many connections"),
            Self::Arriving => (503, 4, "Too many sessions that have joined no namespace"),
            Self::TooLarge => (413, 3, "Payload too large"),
            Self::Crowded => (503, 4, "Too many bytes of requests are being received"),
        }
    }

    pub(super) fn answer(self, upgrade: bool) -> HttpResponse {
        let (status, code, message) = self.parts();
        let mut answer = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
        if upgrade || self == Self::TooLarge {
            answer.force_close();
        }
        if status == 503 {
            answer.insert_header((header::RETRY_AFTER, "1"));
        }
        if upgrade {
            return answer.insert_header((header::CONTENT_TYPE, "text/html")).body(message);
        }
        answer.json(json!({ "code": code, "message": message }))
    }
}

impl From<RequestError> for EngineError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unknown => Self::SidUnknown,
            RequestError::Request => Self::BadRequest,
        }
    }
}

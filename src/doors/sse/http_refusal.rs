//! The HTTP status and text of a refused request.

use std::borrow::Cow;

use actix_web::http::StatusCode;

use crate::bus::error::{Fault, First};
use crate::net::http::status::status;

/// Seconds after which a client may try again, when the bus says nothing else.
const RETRY_AFTER: u64 = 1;

/// Why a request is refused: a fault of the bus, or a fault of the HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpRefusal {
    pub(super) status: StatusCode,
    pub(super) text: Cow<'static, str>,
    /// The earlier event that the publish repeats.
    pub(super) first: Option<Box<First>>,
    /// The header `Retry-After` of an answer 429 or 503, in seconds.
    pub(super) retry_after: u64,
}

impl From<Fault> for HttpRefusal {
    fn from(Fault { kind, text, first, retry_after }: Fault) -> Self {
        Self { status: status(kind), text, first, retry_after: retry_after.unwrap_or(RETRY_AFTER) }
    }
}

impl HttpRefusal {
    pub(super) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), first: None, retry_after: RETRY_AFTER }
    }
}

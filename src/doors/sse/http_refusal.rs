//! The HTTP status and text of a refused request.

use std::borrow::Cow;

use actix_web::http::StatusCode;

use crate::bus::error::{Fault, First};
use crate::net::http::status::status;

/// Why a request is refused: a fault of the bus, or a fault of the HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpRefusal {
    pub(super) status: StatusCode,
    pub(super) text: Cow<'static, str>,
    /// The earlier event that the publish repeats.
    pub(super) first: Option<Box<First>>,
}

impl From<Fault> for HttpRefusal {
    fn from(Fault { kind, text, first }: Fault) -> Self {
        Self { status: status(kind), text, first }
    }
}

impl HttpRefusal {
    pub(super) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), first: None }
    }
}

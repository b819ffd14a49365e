//! Why a request is refused: a fault of the bus, or of the request as HTTP.

use std::borrow::Cow;

use actix_web::http::StatusCode;

use crate::bus::error::{Fault, First};
use crate::net::http::status::status;

/// Why a request is refused, as this door says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) text: Cow<'static, str>,
    /// The event that a publish repeats.
    pub(super) first: Option<Box<First>>,
}

impl From<Fault> for Refused {
    fn from(Fault { kind, text, first }: Fault) -> Self {
        Self { status: status(kind), text, first }
    }
}

impl Refused {
    pub(super) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), first: None }
    }
}

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

    /// An example of valid input, behind the error text of the protocol.
    pub(super) fn hint(&self) -> &'static str {
        hint(&self.text)
    }
}

fn hint(text: &str) -> &'static str {
    let text = text.split("; ").next().unwrap_or(text);
    let begins = |start: &str| text.starts_with(start);
    match text {
        "missing subject in query string" => {
            "; GET /?subject=app.orders follows a subject, GET /?subject=app.>&start=oldest replays a namespace, \
             POST / with {\"subject\":\"app.orders\",\"payload\":1} publishes"
        }
        "empty body" | "subject is required" => "; an event is {\"subject\":\"app.orders\",\"payload\":{\"n\":1}}",
        "invalid subject: missing namespace" => "; a subject is NAMESPACE.TOPIC, as in app.orders",
        "subject should not have * or >" => {
            "; an event goes to one subject, as app.orders; patterns are for subscriptions"
        }
        "invalid timestamp format" => "; created_at is a time of RFC 3339, as in 2026-01-31T12:00:00Z",
        "incomplete event" | "unexpected end of JSON input" => "; the body ends in the middle of the JSON",
        "invalid event id" => "; an id is 1 to 128 letters, digits, and _ . : -, as in order-17",
        "missing consumer_id in query string" | "missing event_id in query string" => {
            "; PUT /?consumer_id=c_...&event_id=e_... acknowledges an event"
        }
        "invalid consumer_id in query string" => {
            "; a consumer_id is c_ and 1 to 64 letters, digits, _ or -, as in c_tab-1"
        }
        "invalid event_id in query string" => {
            "; no event of this id is in flight: it is the member id of the event, e_..."
        }
        _ if begins("namespace not found: ") => {
            "; rollbook namespaces create makes one, rollbook namespaces list shows all"
        }
        _ if begins("subject should not start with") || begins("subject namespace") => {
            "; it begins with a namespace, as in app.orders or app.*"
        }
        _ if begins("subject should") => "; parts are separated by dots, as in app.orders or app.orders.*",
        _ if begins("invalid ack: ") => "; ack is none or manual",
        _ if begins("invalid redelivery: ") => "; redelivery is a time with its unit, as in 5s, 500ms or 1m30s",
        _ if begins("invalid redelivery_count: ") => "; redelivery_count is a whole number; 0 is for ever",
        _ if begins("invalid consumer: ") || begins("invalid group: ") => "; a name is 1 to 64 letters, digits, _ or -",
        _ => "",
    }
}

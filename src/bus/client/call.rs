//! A live request and its answer: never stored, delivered at most once, with a deadline.

use std::time::Instant;

use bytes::Bytes;
use rollbook_core::service::Connection;

use crate::bus::error::Fault;

/// JSON, and the binary parts that its placeholders stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// JSON exactly as it was sent; empty when there is none.
    pub json: Bytes,
    /// Binary parts, in the order of their numbers.
    pub attachments: Vec<Bytes>,
}

impl Payload {
    /// JSON without binary parts.
    #[must_use]
    pub fn json(json: impl Into<Bytes>) -> Self {
        Self { json: json.into(), attachments: Vec::new() }
    }

    /// The JSON text; `null` when there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.json) {
            Ok("") | Err(_) => "null",
            Ok(text) => text,
        }
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.attachments.iter().fold(self.json.len(), |sum, part| sum.saturating_add(part.len()))
    }

    /// Whether all parts are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A part that is shorter than this is copied out of its message.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// A part of a message that is kept while its request is in flight. A large part is a slice of the message. A part that
/// is small, by itself or beside the rest, is a copy: a slice would keep the whole message in memory.
#[must_use]
pub fn part_of(message: &Bytes, part: std::ops::Range<usize>) -> Bytes {
    if part.start > part.end || part.end > message.len() {
        return Bytes::new();
    }
    let cut = message.slice(part);
    let small = cut.len() < COPIED_BYTES_MAX || cut.len() < message.len() / 2;
    if small { Bytes::copy_from_slice(&cut) } else { cut }
}

/// The caller of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Id of its service; empty when it is not registered.
    pub service: String,
    /// Id of its instance; empty when it is not registered.
    pub instance: String,
    /// Its connection, so that its own request is not given to it.
    pub connection: Option<Connection>,
}

/// Who waits for the answer of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Responder {
    /// The caller.
    #[default]
    Caller,
    /// The caller, under a name that only the caller understands.
    Named(String),
    /// Nobody: the request ends as soon as a provider has it.
    Nobody,
}

/// Longest trace context that is passed on, bytes.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// A trace context in the form of W3C Trace Context; `None` for any other text, which is ignored.
#[must_use]
pub fn traceparent(text: &str) -> Option<String> {
    let shape =
        |part: &str, len: usize| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.splitn(5, '-');
    let fits = text.len() <= TRACEPARENT_BYTES_MAX
        && [2, 32, 16, 2].into_iter().all(|len| parts.next().is_some_and(|part| shape(part, len)))
        && text.is_ascii();
    fits.then(|| text.to_owned())
}

/// A request. Its payload is kept apart, because the payload is dropped earlier.
#[derive(Debug, Clone)]
pub struct Request {
    /// The id that the caller gave.
    pub id: String,
    /// A capability, or the id of a service.
    pub capability: String,
    /// The action; may be empty.
    pub action: String,
    /// The caller.
    pub from: Caller,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// How many other providers may be tried when one is lost. The caller promises that doing the work twice does no
    /// harm.
    pub retries: u32,
    /// Requests with the same key go to the same instance, when the strategy of the capability is `sticky`.
    pub key: String,
    /// Who waits for the answer.
    pub responder: Responder,
    /// The trace context, see [`traceparent`].
    pub traceparent: Option<String>,
}

/// The answer of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the provider did what was asked.
    pub success: bool,
    /// The result, or the error.
    pub body: Payload,
}

/// The answer of a request, or why there is none.
pub type Outcome = Result<Answer, Fault>;

/// A request as its provider gets it.
#[derive(Debug, Clone)]
pub struct HandedPayload {
    /// The id under which the provider answers: unique among the requests that it has.
    pub id: String,
    /// Number of the request at this node, for doors whose answers carry numbers.
    pub number: u64,
    /// The request.
    pub request: std::sync::Arc<Request>,
    /// Its payload.
    pub payload: Payload,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_passed_on_only_in_the_form_that_is_agreed_on() {
        let known = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(known).as_deref(), Some(known));
        let later = format!("{known}-what-later-versions-say");
        assert_eq!(traceparent(&later).as_deref(), Some(&*later));
        let long = format!("{known}-{}", "x".repeat(128));
        for wrong in ["", "00", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", &known[1..], &long] {
            assert_eq!(traceparent(wrong), None, "{wrong}");
        }
    }
}

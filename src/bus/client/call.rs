//! A live request and what becomes of it: never through the log, at most once, with a deadline.

use std::time::Instant;

use bytes::Bytes;
use rollbook_core::service::Connection;

use crate::bus::error::Fault;

/// JSON text, with the binary parts that its placeholders stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// JSON exactly as it came; empty when there is none.
    pub json: Bytes,
    /// In the order of their numbers.
    pub attachments: Vec<Bytes>,
}

impl Payload {
    /// JSON without binary parts.
    #[must_use]
    pub fn json(json: impl Into<Bytes>) -> Self {
        Self { json: json.into(), attachments: Vec::new() }
    }

    /// Its text; `null` when there is none.
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

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A payload that is shorter than this is copied out of the message that it came in.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// A part of a message that is kept while its request is in flight. Most of it is a slice of the message; a part that is
/// small, by itself or beside the rest, is a copy, so that what is kept is about as large as what is counted.
#[must_use]
pub fn part_of(message: &Bytes, part: std::ops::Range<usize>) -> Bytes {
    if part.start > part.end || part.end > message.len() {
        return Bytes::new();
    }
    let cut = message.slice(part);
    let small = cut.len() < COPIED_BYTES_MAX || cut.len() < message.len() / 2;
    if small { Bytes::copy_from_slice(&cut) } else { cut }
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The service it is an instance of; empty when it is none.
    pub service: String,
    /// Its instance id; empty when it is none.
    pub instance: String,
    /// Its connection, so that it is not asked itself.
    pub connection: Option<Connection>,
}

/// Who waits for the answer of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Responder {
    /// The caller, who needs no name for it.
    #[default]
    Caller,
    /// The caller, under this name, which means something only to it.
    Named(String),
    /// Nobody: the request is over as soon as a provider has it.
    Nobody,
}

/// The longest text that is passed on as the context of a trace, bytes.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// The context of a trace as W3C Trace Context writes it; `None` for anything else, which is to be ignored.
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

/// A request, as the router takes it. Its payload goes beside it, because that is not kept as long.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's own name for it.
    pub id: String,
    /// A capability, or the id of a service.
    pub capability: String,
    /// What is to be done; may be empty.
    pub action: String,
    /// Who asks.
    pub from: Caller,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// How many other providers may be tried when one is lost: the caller says that doing it twice does no harm.
    pub retries: u32,
    /// Requests with the same key go to the same instance, when the strategy of the capability is `sticky`.
    pub key: String,
    /// Who waits for the answer.
    pub responder: Responder,
    /// The context of a trace, see [`traceparent`].
    pub traceparent: Option<String>,
}

/// What a provider says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether it did what was asked.
    pub success: bool,
    /// The data, or the error when it did not.
    pub body: Payload,
}

/// What becomes of a request.
pub type Outcome = Result<Answer, Fault>;

/// What a provider gets.
#[derive(Debug, Clone)]
pub struct HandedPayload {
    /// The name under which the provider answers: unique among the requests it has.
    pub id: String,
    /// The number of the request at this node, for doors whose answers carry numbers.
    pub number: u64,
    /// What was asked.
    pub request: std::sync::Arc<Request>,
    /// With what.
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

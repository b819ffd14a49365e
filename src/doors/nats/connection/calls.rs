//! Requests to services of any door: `rollbook.call.<capability>.<action>`, answered on the reply subject.
//!
//! The answer is the JSON of the service. An answer that is an error, or that never came, has the headers of the services
//! API of NATS: `Nats-Service-Error` and `Nats-Service-Error-Code`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde_json::json;

use super::{Client, Connection, Stage};
use crate::base::clock;
use crate::bus::call::types::Requester;
use crate::bus::client::call::{Caller, Outcome, Payload, Request, Responder, traceparent};
use crate::bus::client::plain::plain;
use crate::bus::error::Fault;
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::{LiveSubjects, OwnRoutes};
use crate::doors::nats::wire::headers::{self, Headers};
use crate::net::http::status::status;

/// How the subjects of requests begin.
const PREFIX: &str = "rollbook.call.";
/// The headers of an answer that is an error.
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The code of an error that the service itself has answered.
const ANSWERED_ERROR: u16 = 500;
/// The trace context of W3C, which goes along.
const TRACE: &str = "traceparent";

/// The capability and the action that a subject asks for.
pub(super) fn asked(subject: &str) -> Option<(&str, &str)> {
    let rest = subject.strip_prefix(PREFIX)?;
    Some(rest.split_once('.').unwrap_or((rest, "")))
}

impl Connection {
    /// Asks a service.
    pub(super) fn call(&mut self, (capability, action): (&str, &str), message: &LiveMessage) {
        let Stage::Open(client) = &mut self.stage else { return };
        let services = &self.context.services;
        let config = services.router.config();
        let Client { live, handle, .. } = &**client;
        // Copies: what waits must not hold the buffer of the read.
        // An answer goes where the client itself may publish alone, and never to subjects of the book.
        let state = services.bus.node().state();
        let may = |reply: &LiveSubject| {
            live.access().identity().may_publish_live(reply.as_str()) && !state.has_namespace(reply.first_token())
        };
        let reply = LiveSubject::parse(ByteString::from(&*message.reply)).ok().filter(may);
        let trace = Headers::parse(&message.headers).ok().and_then(|block| block.get(TRACE).and_then(traceparent));
        let request = Request {
            id: message.reply.to_string(),
            capability: capability.to_owned(),
            action: action.to_owned(),
            from: Caller { service: live.access().identity().principal().name().to_owned(), ..Caller::default() },
            deadline: clock::now() + config.timeout,
            retries: 0,
            key: String::new(),
            responder: if reply.is_some() { Responder::Caller } else { Responder::Nobody },
            traceparent: trace,
        };
        let payload = Payload::json(as_json(&message.payload));
        let subjects = services.bus.live_subjects().clone();
        let answer = move |outcome| {
            if let Some(reply) = reply {
                send(&subjects, &reply, outcome);
            }
        };
        let requester = Requester::Client(handle.client().serial);
        services.router.call(live.access().identity(), requester, (request, payload), Box::new(answer));
    }
}

/// Publishes the answer, from whichever thread it comes.
fn send(subjects: &LiveSubjects, reply: &LiveSubject, outcome: Outcome) {
    let (failed, payload) = match outcome.and_then(|answer| Ok((answer.success, plain(&answer.body)?))) {
        Ok((true, json)) => (None, json),
        Ok((false, json)) => (Some((ANSWERED_ERROR, "the service answered an error".to_owned())), json),
        Err(fault) => (Some((status(fault.kind).as_u16(), text(&fault))), Bytes::new()),
    };
    let mut block = BytesMut::new();
    if let Some((code, description)) = failed {
        let code = code.to_string();
        let lines = [(ERROR, description.as_str()), (ERROR_CODE, code.as_str())];
        if let Err(error) = headers::write(&mut block, None, lines.into_iter()) {
            tracing::error!(%error, "the error of a request cannot be written as headers");
        }
    }
    let message =
        LiveMessage { subject: reply.text().clone(), headers: block.freeze(), payload, ..LiveMessage::default() };
    let mut wakes = Wakes::default();
    subjects.publish(reply, &message, (&mut OwnRoutes::default(), None), &mut wakes);
}

/// What a fault says, as the value of a header.
fn text(fault: &Fault) -> String {
    let text = format!("{}: {}", fault.code(), fault.text);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A payload as the JSON that services of other doors take: text that is no JSON is a string, other bytes are
/// `{"$base64":"..."}`, and nothing is `null`.
fn as_json(payload: &Bytes) -> Bytes {
    if payload.is_empty() {
        return Bytes::from_static(b"null");
    }
    let json = match std::str::from_utf8(payload) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            return Bytes::copy_from_slice(payload);
        }
        Ok(text) => json!(text),
        Err(_) => json!({ "$base64": BASE64.encode(payload) }),
    };
    json.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_a_capability_and_an_action() {
        assert_eq!(asked("rollbook.call.users.get"), Some(("users", "get")));
        assert_eq!(asked("rollbook.call.users.get.one"), Some(("users", "get.one")));
        assert_eq!(asked("rollbook.call.users"), Some(("users", "")));
        assert_eq!(asked("rollbook.calls.users"), None);
    }

    #[test]
    fn payloads_of_any_bytes_become_json() {
        let text = |bytes: &'static [u8]| String::from_utf8(as_json(&Bytes::from_static(bytes)).to_vec()).unwrap();
        assert_eq!(text(b"{\"a\":1}"), "{\"a\":1}");
        assert_eq!(text(b"hello"), "\"hello\"");
        assert_eq!(text(b""), "null");
        assert_eq!(text(&[0xff]), "{\"$base64\":\"/w==\"}");
    }
}

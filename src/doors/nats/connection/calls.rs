//! Requests to services of any door: `rollbook.call.<capability>.<action>`, answered on the reply subject.
//!
//! The answer is the JSON of the service. An answer that is an error, or that never came, has the headers of the services
//! API of NATS: `Nats-Service-Error` and `Nats-Service-Error-Code`.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::Value;

use super::{Client, Connection, Stage};
use crate::base::clock;
use crate::bus::call::types::Requester;
use crate::bus::client::call::{Caller, Outcome, Payload, Request, Responder, traceparent};
use crate::bus::client::plain::plain;
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::{LiveSubjects, OwnRoutes};
use crate::doors::nats::service::payload::to_json;
use crate::doors::nats::wire::headers::{self, Headers};
use crate::net::http::status::status;

/// How the subjects of requests begin.
const PREFIX: &str = "rollbook.call.";
/// The headers of an answer that is an error.
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The code of an error that the service itself has answered without a code.
const ANSWERED_ERROR: &str = "500";
/// Longest text of an error in a header.
const ERROR_CHARACTERS_MAX: usize = 1024;
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
        let payload = Payload::json(to_json(&message.payload));
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
        Ok((false, json)) => (Some(answered_error(&json)), json),
        Err(fault) => (Some((status(fault.kind).as_u16().to_string(), text(fault.code(), &fault.text))), Bytes::new()),
    };
    let mut block = BytesMut::new();
    if let Some((code, description)) = failed {
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

/// What an error looks like that says what it is.
#[derive(Deserialize)]
struct ErrorJson {
    code: Option<Value>,
    message: Option<String>,
}

/// The code and the text of an error that the service itself has answered.
fn answered_error(json: &[u8]) -> (String, String) {
    let error = serde_json::from_slice(json).unwrap_or(ErrorJson { code: None, message: None });
    let code = match error.code {
        Some(Value::String(code)) => one_line(&code),
        Some(Value::Number(code)) => code.to_string(),
        _ => String::new(),
    };
    let message = one_line(error.message.as_deref().unwrap_or_default());
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    (or(code, ANSWERED_ERROR), or(message, "the service answered an error"))
}

/// What a fault says, as the value of a header.
fn text(code: &str, says: &str) -> String {
    one_line(&format!("{code}: {says}"))
}

/// A text as the value of a header: what a header cannot have is a blank, and what is too long is cut.
fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(ERROR_CHARACTERS_MAX).collect::<String>().trim().to_owned()
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
    fn an_error_of_a_service_keeps_its_code_and_its_text() {
        let error = |json: &str| answered_error(json.as_bytes());
        let pair = |code: &str, text: &str| (code.to_owned(), text.to_owned());
        assert_eq!(error(r#"{"code":"E7","message":"no\r\nway"}"#), pair("E7", "no  way"));
        assert_eq!(error(r#"{"code":404,"message":"no such user"}"#), pair("404", "no such user"));
        for none in ["null", "7", r#"{"code":[],"message":""}"#, "{"] {
            assert_eq!(error(none), pair("500", "the service answered an error"), "{none}");
        }
    }
}

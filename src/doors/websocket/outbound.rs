//! Writes the frames for clients. Pure.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::codec::SERVICE_ERROR;
use super::error::{ErrorCode, FrameError};
use crate::base::fault::FaultKind;
use crate::base::json;
use crate::bus::client::call::{Answer, HandedPayload, Outcome, Payload, Responder};
use crate::bus::client::plain::plain;
use crate::bus::delivery::acknowledgement::Acknowledged;
use crate::bus::error::{Fault, First};
use crate::bus::read::encoder::End;
use crate::bus::read::event_json;
use crate::bus::write::draft::Published;
use crate::net::websocket::writer::FrameWriter;

/// The name of the responder for a caller of another door.
const RESPONSE: &str = "response";

/// A frame: JSON in three pieces. The middle piece is a payload as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OutboundFrame {
    pub(super) head: Vec<u8>,
    pub(super) payload: Bytes,
    pub(super) tail: &'static str,
}

impl From<serde_json::Value> for OutboundFrame {
    fn from(json: serde_json::Value) -> Self {
        Self { head: json.to_string().into(), ..Self::default() }
    }
}

impl From<&FrameError> for OutboundFrame {
    fn from(refused: &FrameError) -> Self {
        error(refused.id.as_deref(), None, refused.code, &refused.text)
    }
}

/// Writes a frame.
pub(super) fn write(sink: &FrameWriter, text: &OutboundFrame) {
    sink.text(&[&text.head, &text.payload, text.tail.as_bytes()]);
}

/// Writes a frame that comes at the pace of the client. Such a frame does not show that the client is slow.
pub(super) fn write_paced(sink: &FrameWriter, text: &OutboundFrame) {
    sink.paced(&[&text.head, &text.payload, text.tail.as_bytes()]);
}

/// Builds a frame member by member.
struct Builder(Vec<u8>);

impl Builder {
    fn new(kind: &str) -> Self {
        Self(Vec::with_capacity(128)).raw("{\"type\":\"").raw(kind).raw("\"")
    }

    /// Appends a text as it is.
    fn raw(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        let mut named = self.raw(",\"").raw(name).raw("\":");
        event_json::string(value, &mut named.0);
        named
    }

    fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    fn retryable(self, retryable: bool) -> Self {
        self.raw(if retryable { ",\"retryable\":true" } else { ",\"retryable\":false" })
    }

    /// Ends the frame with a member that is JSON already.
    fn end_with(self, name: &str, json: Bytes) -> OutboundFrame {
        let Self(head) = self.raw(",\"").raw(name).raw("\":");
        OutboundFrame { head, payload: json, tail: "}" }
    }

    fn end(self) -> OutboundFrame {
        OutboundFrame { head: self.raw("}").0, ..OutboundFrame::default() }
    }
}

/// The name of a node in frames.
pub(super) fn node_name(node: u64) -> String {
    format!("n{node}")
}

pub(super) fn connect(connection: &str, node: u64, frame_max: usize) -> OutboundFrame {
    let frame = json!({
        "type": "connect", "connection_id": connection, "node": node_name(node), "max_frame": frame_max,
    });
    frame.into()
}

/// The names of a registered client, and the node of the earlier connection of that instance.
pub(super) struct RegisteredNames<'a> {
    pub(super) name: &'a str,
    pub(super) instance: Option<&'a str>,
    pub(super) replaced: Option<&'a str>,
}

/// Tells a client that it is registered. `services` is a JSON list.
pub(super) fn registered(names: RegisteredNames<'_>, index: u64, services: Bytes) -> OutboundFrame {
    let RegisteredNames { name, instance, replaced } = names;
    let builder = Builder::new("registered").text("name", name).optional("instance_id", instance);
    let builder = builder.optional("replaced", replaced);
    builder.raw(&format!(",\"index\":{index}")).end_with("services", services)
}

/// Writes a request for its provider.
///
/// # Errors
/// The payload has binary attachments that JSON cannot hold.
pub(super) fn delivered(handed: &HandedPayload) -> Result<OutboundFrame, Fault> {
    let request = &handed.request;
    let responder = match &request.responder {
        Responder::Named(name) => Some(&**name),
        Responder::Caller => Some(RESPONSE),
        Responder::Nobody => None,
    };
    let payload = plain(&handed.payload)?;
    let message = Builder::new("message")
        .text("id", &handed.id)
        .text("destination", &format!("{}:{}", request.capability, request.action))
        .text("consumer", &request.from.service)
        .optional("responder", responder)
        .optional("traceparent", request.traceparent.as_deref());
    Ok(message.end_with("payload", payload))
}

pub(super) fn disconnect(code: u16, reason: &str) -> OutboundFrame {
    json!({ "type": "disconnect", "code": code, "reason": reason }).into()
}

pub(super) fn pong() -> OutboundFrame {
    Builder::new("pong").end()
}

pub(super) fn command(id: u64, name: &str, data: &Bytes) -> OutboundFrame {
    Builder::new("command").text("id", &id.to_string()).text("command", name).end_with("data", data.clone())
}

pub(super) fn error(id: Option<&str>, responder: Option<&str>, code: ErrorCode, text: &str) -> OutboundFrame {
    let builder = Builder::new("error").optional("id", id).optional("responder", responder);
    builder.text("code", code.name()).text("message", text).retryable(code.retryable()).end()
}

pub(super) fn published(id: &str, published: &Published) -> OutboundFrame {
    let Published { id: event, created_at, index, due } = published;
    if let Some(due) = due {
        let builder = Builder::new("published").text("id", id).text("delayed_id", event);
        return builder.text("delayed_until", &due.to_string()).end();
    }
    let builder = Builder::new("published").text("id", id).text("event_id", event);
    builder.raw(&format!(",\"index\":{index}")).text("created_at", &created_at.to_string()).end()
}

pub(super) fn subscribed(id: &str, consumer: &str) -> OutboundFrame {
    Builder::new("subscribed").text("id", id).text("consumer_id", consumer).end()
}

/// Delivers an event of a stream. `event` is JSON.
pub(super) fn delivery(id: &str, event: Bytes) -> OutboundFrame {
    Builder::new("delivery").text("id", id).end_with("event", event)
}

/// Answers an acknowledgement: of one event, or of many.
pub(super) fn acked(id: &str, event: Option<&str>, acknowledged: &Acknowledged) -> OutboundFrame {
    let builder = Builder::new("acked").text("id", id);
    match event {
        Some(event) => {
            let in_flight = if acknowledged.is_any() { ",\"in_flight\":true" } else { ",\"in_flight\":false" };
            builder.text("event_id", event).raw(in_flight).end()
        }
        None => {
            let Acknowledged { count, not_in_flight } = acknowledged;
            builder.raw(&format!(",\"count\":{count},\"not_in_flight\":{}", json!(not_in_flight))).end()
        }
    }
}

/// Tells a client that a stream has ended. `end` is the kind and the reason, when the client did not end the stream.
pub(super) fn unsubscribed(id: &str, end: Option<(End, &str)>) -> OutboundFrame {
    let builder = Builder::new("unsubscribed").text("id", id);
    match end {
        Some((end, reason)) => {
            builder.text("code", end.code()).text("reason", reason).retryable(end.is_retryable()).end()
        }
        None => builder.end(),
    }
}

/// Refuses a publish, an acknowledgement or a stream.
pub(super) fn refused(id: &str, fault: &Fault) -> OutboundFrame {
    let code = ErrorCode::from(fault.kind);
    let Some(first) = fault.first.as_deref() else {
        return error(Some(id), None, code, &fault.text);
    };
    let First { id: event, created_at, index, waits } = first;
    let (mut data, time) = if *waits {
        (json!({ "delayed_id": event }), ("delayed_until", first.due()))
    } else {
        (json!({ "event_id": event, "index": index }), ("created_at", *created_at))
    };
    if let (Some(data), (name, Some(time))) = (data.as_object_mut(), time) {
        data.insert(name.to_owned(), time.to_string().into());
    }
    let builder = Builder::new("error").text("id", id).text("code", code.name()).text("message", &fault.text);
    builder.retryable(code.retryable()).end_with("data", data.to_string().into())
}

/// A message without an outcome, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingMessage {
    pub(super) id: String,
    pub(super) destination: String,
    /// `None` means that the sender does not wait for a response.
    pub(super) responder: Option<String>,
    pub(super) timeout: Duration,
}

/// Why a message was not delivered. `None` means that the message was delivered.
pub(super) const fn unhandled_reason(fault: &Fault) -> Option<&'static str> {
    match fault.kind {
        FaultKind::NoCapability => Some("no_service"),
        FaultKind::NoAction => Some("no_method"),
        FaultKind::NoProvider => Some("unreachable"),
        FaultKind::Overloaded => Some("overloaded"),
        _ => None,
    }
}

/// The outcome of a message for its sender. `None` means that the sender gets no frame.
pub(super) fn outcome(pending: &PendingMessage, outcome: Outcome) -> Option<OutboundFrame> {
    let PendingMessage { id, destination, responder, timeout } = pending;
    let responder = responder.as_deref();
    let fault = match outcome {
        Ok(_) if responder.is_none() => return None,
        Ok(Answer { success, body }) => {
            return Some(match plain(&body) {
                Ok(json) if success => {
                    Builder::new("response").text("id", id).optional("responder", responder).end_with("payload", json)
                }
                Ok(json) => failed(id, responder, &Payload::json(json)),
                Err(fault) => failed(id, responder, &failure_payload(&fault)),
            });
        }
        Err(fault) => fault,
    };
    if let Some(reason) = unhandled_reason(&fault) {
        let builder = Builder::new("unhandled").text("id", id).optional("responder", responder);
        return Some(builder.text("destination", destination).text("reason", reason).end());
    }
    let code = ErrorCode::from(fault.kind);
    let text = match code {
        ErrorCode::Timeout => format!("no response within {} ms", timeout.as_millis()).into(),
        _ => fault.text,
    };
    Some(error(Some(id), responder, code, &text))
}

/// The payload of a failure: the response of the service could not be passed on.
fn failure_payload(fault: &Fault) -> Payload {
    Payload::json(json!({ "code": SERVICE_ERROR, "message": fault.text }).to_string())
}

/// Writes the failure of a service. A failure in another form than this door's becomes data.
fn failed(id: &str, responder: Option<&str>, body: &Payload) -> OutboundFrame {
    #[derive(Deserialize)]
    struct FailureJson<'a> {
        #[serde(borrow)]
        code: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        #[serde(default, deserialize_with = "json::or_default")]
        retryable: bool,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let body_text = body.text();
    let text = |member: Option<&'_ RawValue>| member.and_then(|raw| json::text(raw.get()).map(Cow::into_owned));
    let shaped = serde_json::from_str::<FailureJson<'_>>(body_text).ok();
    let shaped = shaped.and_then(|FailureJson { code, message, retryable, data }| {
        Some((text(code).unwrap_or_else(|| SERVICE_ERROR.to_owned()), text(message)?, retryable, data))
    });
    let (code, message, retryable, data) = shaped.unwrap_or_else(|| {
        let message = json::text(body_text).map_or_else(|| "the service failed".to_owned(), Cow::into_owned);
        (SERVICE_ERROR.to_owned(), message, false, serde_json::from_str(body_text).ok())
    });
    let builder = Builder::new("error")
        .text("id", id)
        .optional("responder", responder)
        .text("code", &code)
        .text("message", &message)
        .retryable(retryable);
    match data {
        Some(data) => builder.end_with("data", Bytes::copy_from_slice(data.get().as_bytes())),
        None => builder.end(),
    }
}

//! The frames that clients get: types to text. Pure.

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
use crate::bus::error::{Fault, First};
use crate::bus::read::encoder::End;
use crate::bus::read::event_json;
use crate::bus::write::draft::Published;
use crate::net::websocket::writer::FrameWriter;

/// How a caller of another door is called back.
const RESPONSE: &str = "response";

/// A frame to write: JSON in three pieces, of which the middle one is a payload as it came.
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
    fn from(wrong: &FrameError) -> Self {
        error(wrong.id.as_deref(), None, wrong.code, &wrong.text)
    }
}

/// Writes a frame.
pub(super) fn write(sink: &FrameWriter, text: &OutboundFrame) {
    sink.text(&[&text.head, &text.payload, text.tail.as_bytes()]);
}

/// Writes one that comes at the pace of the client: it does not count as something that is not read.
pub(super) fn write_paced(sink: &FrameWriter, text: &OutboundFrame) {
    sink.paced(&[&text.head, &text.payload, text.tail.as_bytes()]);
}

/// Builds a frame member by member.
struct Builder(Vec<u8>);

impl Builder {
    fn new(kind: &str) -> Self {
        Self(Vec::with_capacity(128)).raw("{\"type\":\"").raw(kind).raw("\"")
    }

    /// Appends this as it is.
    fn raw(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        let mut named = self.raw(",\"").raw(name).raw("\":");
        event_json::string(value, &mut named.0);
        named
    }

    fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    fn retryable(self, retryable: bool) -> Self {
        self.raw(if retryable { ",\"retryable\":true" } else { ",\"retryable\":false" })
    }

    /// Ends the frame with a member that is JSON already.
    fn ends_with(self, name: &str, json: Bytes) -> OutboundFrame {
        let Self(head) = self.raw(",\"").raw(name).raw("\":");
        OutboundFrame { head, payload: json, tail: "}" }
    }

    fn end(self) -> OutboundFrame {
        OutboundFrame { head: self.raw("}").0, ..OutboundFrame::default() }
    }
}

/// How nodes are called here.
pub(super) fn node_name(node: u64) -> String {
    format!("n{node}")
}

pub(super) fn connect(connection: &str, node: u64, frame_max: usize) -> OutboundFrame {
    let frame = json!({
        "type": "connect", "connection_id": connection, "node": node_name(node), "max_frame": frame_max,
    });
    frame.into()
}

/// Who has registered, and the node of the connection that was that instance before.
pub(super) struct RegisteredNames<'a> {
    pub(super) name: &'a str,
    pub(super) instance: Option<&'a str>,
    pub(super) replaced: Option<&'a str>,
}

/// `services` is a JSON list.
pub(super) fn registered(names: RegisteredNames<'_>, index: u64, services: Bytes) -> OutboundFrame {
    let RegisteredNames { name, instance, replaced } = names;
    let builder = Builder::new("registered").text("name", name).maybe("instance_id", instance);
    let builder = builder.maybe("replaced", replaced);
    builder.raw(&format!(",\"index\":{index}")).ends_with("services", services)
}

/// A request on its way to a service.
///
/// # Errors
/// Its payload has binary parts that cannot be passed on.
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
        .maybe("responder", responder)
        .maybe("traceparent", request.traceparent.as_deref());
    Ok(message.ends_with("payload", payload))
}

pub(super) fn disconnect(code: u16, reason: &str) -> OutboundFrame {
    json!({ "type": "disconnect", "code": code, "reason": reason }).into()
}

pub(super) fn pong() -> OutboundFrame {
    Builder::new("pong").end()
}

pub(super) fn command(id: u64, name: &str, data: &Bytes) -> OutboundFrame {
    Builder::new("command").text("id", &id.to_string()).text("command", name).ends_with("data", data.clone())
}

pub(super) fn error(id: Option<&str>, responder: Option<&str>, code: ErrorCode, text: &str) -> OutboundFrame {
    let builder = Builder::new("error").maybe("id", id).maybe("responder", responder);
    builder.text("code", code.name()).text("message", text).retryable(code.retryable()).end()
}

pub(super) fn published(id: &str, published: &Published) -> OutboundFrame {
    let Published { id: event, created_at, index } = published;
    let builder = Builder::new("published").text("id", id).text("event_id", event);
    builder.raw(&format!(",\"index\":{index}")).text("created_at", &created_at.to_string()).end()
}

pub(super) fn subscribed(id: &str, consumer: &str) -> OutboundFrame {
    Builder::new("subscribed").text("id", id).text("consumer_id", consumer).end()
}

/// `event` is JSON.
pub(super) fn delivery(id: &str, event: Bytes) -> OutboundFrame {
    Builder::new("delivery").text("id", id).ends_with("event", event)
}

pub(super) fn acked(id: &str, event: &str, in_flight: bool) -> OutboundFrame {
    let builder = Builder::new("acked").text("id", id).text("event_id", event);
    builder.raw(if in_flight { ",\"in_flight\":true" } else { ",\"in_flight\":false" }).end()
}

/// `why`: what end it is and the reason, when the stream has ended by itself.
pub(super) fn unsubscribed(id: &str, why: Option<(End, &str)>) -> OutboundFrame {
    let builder = Builder::new("unsubscribed").text("id", id);
    match why {
        Some((end, reason)) => {
            builder.text("code", end.code()).text("reason", reason).retryable(end.is_retryable()).end()
        }
        None => builder.end(),
    }
}

/// Why a publish, an acknowledgement or a stream is refused.
pub(super) fn refused(id: &str, fault: &Fault) -> OutboundFrame {
    let code = ErrorCode::from(fault.kind);
    let Some(First { id: event, created_at, index }) = fault.first.as_deref() else {
        return error(Some(id), None, code, &fault.text);
    };
    let mut data = json!({ "event_id": event, "index": index });
    if let (Some(data), Some(created_at)) = (data.as_object_mut(), created_at) {
        data.insert("created_at".to_owned(), created_at.to_string().into());
    }
    let builder = Builder::new("error").text("id", id).text("code", code.name()).text("message", &fault.text);
    builder.retryable(code.retryable()).ends_with("data", data.to_string().into())
}

/// A message that has no end yet, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingMessage {
    pub(super) id: String,
    pub(super) destination: String,
    /// `None`: nobody waits.
    pub(super) responder: Option<String>,
    pub(super) timeout: Duration,
}

/// Why a message was not delivered, if that is what happened.
pub(super) const fn unhandled_reason(fault: &Fault) -> Option<&'static str> {
    match fault.kind {
        FaultKind::NoCapability => Some("no_service"),
        FaultKind::NoAction => Some("no_method"),
        FaultKind::NoProvider => Some("unreachable"),
        FaultKind::Overloaded => Some("overloaded"),
        _ => None,
    }
}

/// What became of a message, for its sender; `None` when there is nothing to say.
pub(super) fn outcome(asked: &PendingMessage, outcome: Outcome) -> Option<OutboundFrame> {
    let PendingMessage { id, destination, responder, timeout } = asked;
    let responder = responder.as_deref();
    let fault = match outcome {
        Ok(_) if responder.is_none() => return None,
        Ok(Answer { success, body }) => {
            return Some(match plain(&body) {
                Ok(json) if success => {
                    Builder::new("response").text("id", id).maybe("responder", responder).ends_with("payload", json)
                }
                Ok(json) => failed(id, responder, &Payload::json(json)),
                Err(fault) => failed(id, responder, &said(&fault)),
            });
        }
        Err(fault) => fault,
    };
    if let Some(reason) = unhandled_reason(&fault) {
        let builder = Builder::new("unhandled").text("id", id).maybe("responder", responder);
        return Some(builder.text("destination", destination).text("reason", reason).end());
    }
    let code = ErrorCode::from(fault.kind);
    let text = match code {
        ErrorCode::Timeout => format!("no response within {} ms", timeout.as_millis()).into(),
        _ => fault.text,
    };
    Some(error(Some(id), responder, code, &text))
}

/// What a service said could not be passed on: its failure.
fn said(fault: &Fault) -> Payload {
    Payload::json(json!({ "code": SERVICE_ERROR, "message": fault.text }).to_string())
}

/// What a service says that failed: as a service of this door says it, or anything else as data.
fn failed(id: &str, responder: Option<&str>, body: &Payload) -> OutboundFrame {
    #[derive(Deserialize)]
    struct Failed<'a> {
        #[serde(borrow)]
        code: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        #[serde(default, deserialize_with = "json::or_default")]
        retryable: bool,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let said = body.text();
    let text = |member: Option<&'_ RawValue>| member.and_then(|raw| json::text(raw.get()).map(Cow::into_owned));
    let shaped = serde_json::from_str::<Failed<'_>>(said).ok();
    let shaped = shaped.and_then(|Failed { code, message, retryable, data }| {
        Some((text(code).unwrap_or_else(|| SERVICE_ERROR.to_owned()), text(message)?, retryable, data))
    });
    let (code, message, retryable, data) = shaped.unwrap_or_else(|| {
        let message = json::text(said).map_or_else(|| "the service failed".to_owned(), Cow::into_owned);
        (SERVICE_ERROR.to_owned(), message, false, serde_json::from_str(said).ok())
    });
    let builder = Builder::new("error")
        .text("id", id)
        .maybe("responder", responder)
        .text("code", &code)
        .text("message", &message)
        .retryable(retryable);
    match data {
        Some(data) => builder.ends_with("data", Bytes::copy_from_slice(data.get().as_bytes())),
        None => builder.end(),
    }
}

//! Reads the frames of clients. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::limits;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{ErrorCode, FrameError};
use super::payloads::{ClientFrame, MessagePayload, PublishPayload, RegisterPayload, SubscribePayload};
use crate::base::json::{self, Wait, Whole};
use crate::bus::client::call::{Answer, Payload, Responder, part_of, traceparent};
use crate::bus::delivery::acknowledgement::{Acknowledgement, Parameters, REASON_BYTES_MAX};
use crate::bus::subscribe::listener::{Listener, SubscribeJson};
use crate::bus::subscribe::request::{Options, Subscribe};
use crate::bus::write::headers::HeadersJson;

/// Longest id of a message, and longest name of a responder, bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest key of a message, bytes.
const KEY_BYTES_MAX: usize = 256;
/// Longest timeout of a message, milliseconds.
const TIMEOUT_MAX_MS: u64 = 600_000;
/// The types that a client may send, for texts of errors.
const TYPES: &str = "a client sends register, message, response, error, broadcast, done, publish, subscribe, ack, \
                     unsubscribe, ping or disconnect";
/// The code of a failure without a code.
pub(super) const SERVICE_ERROR: &str = "service_error";

fn bad(text: impl Into<String>) -> FrameError {
    FrameError::new(ErrorCode::BadMessage, text)
}

/// The members of all frames. `null` means the same as a missing member.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    instance: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    methods: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    listeners: Option<&'a RawValue>,
    #[serde(borrow)]
    destination: Option<&'a RawValue>,
    #[serde(borrow)]
    consumer: Option<&'a RawValue>,
    #[serde(borrow)]
    responder: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    retryable: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    handled: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    response_subject: Option<&'a RawValue>,
    #[serde(borrow)]
    trace_id: Option<&'a RawValue>,
    #[serde(borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    at: Option<&'a RawValue>,
    #[serde(borrow)]
    start: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    redelivery: Option<&'a RawValue>,
    /// The earlier name of `redelivery`; `max_deliveries` is the earlier name of `redelivery_count`.
    #[serde(borrow)]
    redelivery_ms: Option<&'a RawValue>,
    #[serde(borrow, alias = "max_deliveries")]
    redelivery_count: Option<&'a RawValue>,
    #[serde(borrow)]
    backoff: Option<&'a RawValue>,
    #[serde(borrow)]
    max_in_flight: Option<&'a RawValue>,
    #[serde(borrow)]
    since: Option<&'a RawValue>,
    #[serde(borrow)]
    dead_letter: Option<&'a RawValue>,
    #[serde(borrow)]
    order_by: Option<&'a RawValue>,
    #[serde(borrow)]
    event_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    up_to: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<&'a RawValue>,
    #[serde(borrow)]
    delay: Option<&'a RawValue>,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

type Field<'a> = Option<&'a RawValue>;

/// Reads a member that is text of at most so many bytes.
fn text<'a>(field: Field<'a>, name: &str, bytes_max: usize) -> Result<Option<Cow<'a, str>>, FrameError> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    let Some(raw) = field else { return Ok(None) };
    let Borrowed(text) = serde_json::from_str(raw.get()).map_err(|_| bad(format!("{name}: expected a string")))?;
    if text.len() > bytes_max {
        return Err(bad(format!("{name}: at most {bytes_max} bytes")));
    }
    Ok(Some(text))
}

/// Reads a member that must be there and must not be empty.
fn required<'a>(field: Field<'a>, name: &str, bytes_max: usize) -> Result<Cow<'a, str>, FrameError> {
    text(field, name, bytes_max)?.filter(|text| !text.is_empty()).ok_or_else(|| bad(format!("{name}: missing")))
}

/// Reads a frame. When the frame is the `first`, a document without a type is a registration.
pub(super) fn parse(frame: &ByteString, first: bool) -> Result<ClientFrame, FrameError> {
    let json = frame.strip_prefix('\u{feff}').unwrap_or(frame);
    if !json.trim_start().starts_with('{') {
        return Err(FrameError::new(ErrorCode::BadJson, "a frame is a JSON object, as {\"type\":\"ping\"}"));
    }
    let fields: Fields<'_> = serde_json::from_str(json).map_err(|error| {
        let code = if error.is_data() { ErrorCode::BadMessage } else { ErrorCode::BadJson };
        FrameError::new(code, error.to_string())
    })?;
    if !json::is_shallow(json.as_bytes(), json::DEPTH_MAX.saturating_add(1)) {
        let id = text(fields.id, "id", ID_BYTES_MAX).unwrap_or_default();
        return Err(FrameError { id: id.map(Cow::into_owned), ..bad(format!("a member is {}", json::TOO_DEEP)) });
    }
    let kind = text(fields.r#type, "type", ID_BYTES_MAX)?;
    match kind.as_deref() {
        None if first => parse_register(&fields).map(ClientFrame::Register),
        None => Err(bad(format!("type: missing; {TYPES}"))),
        Some("register") => parse_register(&fields).map(ClientFrame::Register),
        Some("message") => parse_message(frame, &fields).map(ClientFrame::Message),
        Some("response") => {
            let id = required(fields.id, "id", frame.len())?.into_owned();
            let body = Payload::json(member_bytes(frame, fields.payload));
            Ok(ClientFrame::Answer { id, answer: Answer { success: true, body } })
        }
        Some("error") => parse_error(&fields),
        Some("broadcast") => {
            let id = text(fields.id, "id", ID_BYTES_MAX)?.map(Cow::into_owned);
            Ok(ClientFrame::Broadcast { id, payload: member_bytes(frame, fields.payload) })
        }
        Some("done") => {
            let id = required(fields.id, "id", ID_BYTES_MAX)?;
            let id = id.parse().map_err(|_| bad("id: expected that of a frame \"command\""))?;
            Ok(ClientFrame::Done { id, handled: fields.handled.is_none_or(|raw| raw.get() != "false") })
        }
        Some("publish") => parse_publish(frame, &fields).map(|payload| ClientFrame::Publish(Box::new(payload))),
        Some("subscribe") => parse_subscribe(&fields).map(|payload| ClientFrame::Subscribe(Box::new(payload))),
        Some("ack") => {
            let id = required(fields.id, "id", ID_BYTES_MAX)?.into_owned();
            let said = acknowledgement(&fields).map_err(|error| error.of(&id))?;
            Ok(ClientFrame::Ack { said, id })
        }
        Some("unsubscribe") => {
            Ok(ClientFrame::Unsubscribe { id: required(fields.id, "id", ID_BYTES_MAX)?.into_owned() })
        }
        Some("disconnect") => Ok(ClientFrame::Disconnect),
        Some("ping") => Ok(ClientFrame::Ping),
        Some("pong") => Ok(ClientFrame::Pong),
        Some(other) => {
            let id = text(fields.id, "id", ID_BYTES_MAX).unwrap_or_default();
            Err(FrameError { id: id.map(Cow::into_owned), ..bad(format!("type: there is no \"{other}\"; {TYPES}")) })
        }
    }
}

/// The bytes of a member as they came.
fn member_bytes(frame: &ByteString, field: Field<'_>) -> Bytes {
    let place = |raw: &RawValue| {
        let start = raw.get().as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
        Some(start..start.checked_add(raw.get().len())?)
    };
    field.and_then(place).map(|range| part_of(frame.as_bytes(), range)).unwrap_or_default()
}

fn parse_register(fields: &Fields<'_>) -> Result<RegisterPayload, FrameError> {
    let as_registration = |error: FrameError| FrameError { code: ErrorCode::BadRegistration, ..error };
    let error = |text: &str| FrameError::new(ErrorCode::BadRegistration, text);
    let name = required(fields.name, "name", limits::NAME_BYTES_MAX).map_err(as_registration)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(legal) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(error("name: letters, digits, '.', '_', '-', of which the first is a letter or digit"));
    }
    let version = required(fields.version, "version", limits::VERSION_BYTES_MAX).map_err(as_registration)?;
    let instance = match text(fields.instance, "instance", limits::NAME_BYTES_MAX).map_err(as_registration)? {
        None => text(fields.id, "id", limits::NAME_BYTES_MAX).map_err(as_registration)?,
        instance => instance,
    };
    if instance.as_ref().is_some_and(|instance| instance.is_empty()) {
        return Err(error("instance: 1 to 128 bytes"));
    }
    let metadata = fields.metadata.map(|raw| raw.get().to_owned()).unwrap_or_default();
    let listeners = fields.listeners.map(|raw| serde_json::from_str::<Vec<SubscribeJson>>(raw.get())).transpose();
    let listeners = listeners.map_err(|_| error("listeners: expected a list of {subject, ...}"))?.unwrap_or_default();
    let listeners = Listener::all(&listeners).map_err(|fault| error(&fault.text))?;
    Ok(RegisterPayload {
        name: name.into_owned(),
        version: version.into_owned(),
        methods: methods(fields.methods)?,
        instance: instance.map(Cow::into_owned),
        metadata: Listener::show(&listeners, metadata),
        listeners: listeners.into_iter().map(|Listener { id, wanted }| SubscribePayload { id, wanted }).collect(),
    })
}

fn methods(field: Field<'_>) -> Result<Vec<String>, FrameError> {
    let error = |text: String| FrameError::new(ErrorCode::BadRegistration, text);
    let Some(raw) = field else { return Ok(Vec::new()) };
    let names: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| error("methods: expected a list of strings".to_owned()))?;
    let mut methods = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for method in names {
        let illegal = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if !(1..=limits::NAME_BYTES_MAX).contains(&method.len()) || method.contains(illegal) {
            let text = format!("methods: 1 to {} bytes without ':' and blanks", limits::NAME_BYTES_MAX);
            return Err(error(text));
        }
        if seen.insert(method.clone()) {
            methods.push(method);
        }
    }
    if methods.len() > limits::ACTIONS_MAX {
        return Err(error(format!("methods: at most {}", limits::ACTIONS_MAX)));
    }
    Ok(methods)
}

fn parse_message(frame: &ByteString, fields: &Fields<'_>) -> Result<MessagePayload, FrameError> {
    let id = required(fields.id, "id", ID_BYTES_MAX)?.into_owned();
    message_fields(frame, fields, &id).map_err(|error| error.of(&id))
}

fn message_fields(frame: &ByteString, fields: &Fields<'_>, id: &str) -> Result<MessagePayload, FrameError> {
    let longest = limits::NAME_BYTES_MAX.saturating_mul(2).saturating_add(1);
    let destination = required(fields.destination, "destination", longest)?;
    let named = destination.split_once(':').filter(|(service, method)| !service.is_empty() && !method.is_empty());
    let (service, method) = named.ok_or_else(|| bad("destination: expected SERVICE:METHOD, as in \"users:get\""))?;
    let responder = text(fields.responder, "responder", ID_BYTES_MAX)?.filter(|name| !name.is_empty());
    let timeout = match fields.timeout_ms {
        None => None,
        Some(raw) => match serde_json::from_str(raw.get()) {
            Ok(Whole(millis @ 1..=TIMEOUT_MAX_MS)) => Some(Duration::from_millis(millis)),
            _ => return Err(bad(format!("timeout_ms: expected a whole number from 1 to {TIMEOUT_MAX_MS}"))),
        },
    };
    // An invalid trace context is ignored, as W3C asks.
    let trace = fields.traceparent.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    Ok(MessagePayload {
        id: id.to_owned(),
        service: service.to_owned(),
        method: method.to_owned(),
        consumer: text(fields.consumer, "consumer", limits::NAME_BYTES_MAX)?.map(Cow::into_owned),
        responder: responder.map_or(Responder::Nobody, |name| Responder::Named(name.into_owned())),
        payload: member_bytes(frame, fields.payload),
        timeout,
        key: text(fields.key, "key", KEY_BYTES_MAX)?.unwrap_or_default().into_owned(),
        traceparent: trace.as_deref().and_then(traceparent),
    })
}

fn parse_publish(frame: &ByteString, fields: &Fields<'_>) -> Result<PublishPayload, FrameError> {
    let id = required(fields.id, "id", ID_BYTES_MAX)?.into_owned();
    let short = |field, name| {
        let text = text(field, name, limits::FIELD_BYTES_MAX).map_err(|error| error.of(&id))?;
        Ok(text.unwrap_or_default().into_owned())
    };
    Ok(PublishPayload {
        subject: short(fields.subject, "subject")?,
        response_subject: short(fields.response_subject, "response_subject")?,
        key: short(fields.key, "key")?,
        trace_id: short(fields.trace_id, "trace_id")?,
        event_id: short(fields.event_id, "event_id")?,
        created_at: Some(short(fields.created_at, "created_at")?).filter(|time| !time.is_empty()),
        delay: wait(fields.delay, "delay").map_err(|error| error.of(&id))?,
        at: short(fields.at, "at")?,
        headers: headers(fields.headers).map_err(|error| error.of(&id))?,
        payload: fields.payload.map(|_| member_bytes(frame, fields.payload)),
        id,
    })
}

fn headers(field: Field<'_>) -> Result<HeaderList, FrameError> {
    let Some(raw) = field else { return Ok(HeaderList::default()) };
    let HeadersJson(list) = serde_json::from_str(raw.get()).map_err(|error| {
        let text = error.to_string();
        // The position in the text is relative to the member, which the client cannot use.
        bad(format!("headers: {}", text.split(" at line").next().unwrap_or(&text)))
    })?;
    Ok(list)
}

fn parse_subscribe(fields: &Fields<'_>) -> Result<SubscribePayload, FrameError> {
    let id = required(fields.id, "id", ID_BYTES_MAX)?.into_owned();
    let wanted = subscription(fields).map_err(|error| error.of(&id))?;
    Ok(SubscribePayload { id, wanted })
}

/// Reads the subscription of a stream, with the options of the door `sse`.
fn subscription(fields: &Fields<'_>) -> Result<Subscribe, FrameError> {
    let named =
        |field, name| text(field, name, limits::FIELD_BYTES_MAX).map(|text| text.filter(|text| !text.is_empty()));
    let subject = named(fields.subject, "subject")?.ok_or_else(|| bad("subject: missing"))?;
    let start = named(fields.start, "start")?;
    let ack = named(fields.ack, "ack")?;
    let number = |field: Field<'_>, name: &str| match field {
        None => Ok(None),
        Some(raw) => match serde_json::from_str(raw.get()) {
            Ok(Whole(number)) => Ok(Some(number)),
            Err(_) => Err(bad(format!("{name}: a whole number from 0"))),
        },
    };
    let redelivery = match fields.redelivery {
        None => number(fields.redelivery_ms, "redelivery_ms")?.map(Duration::from_millis),
        some => wait(some, "redelivery")?,
    };
    let dead_letter = named(fields.dead_letter, "dead_letter")?;
    let (backoff, order_by) = (named(fields.backoff, "backoff")?, named(fields.order_by, "order_by")?);
    let headers = fields.headers.map(|raw| serde_json::from_str::<BTreeMap<String, String>>(raw.get())).transpose();
    let headers = headers.map_err(|_| bad("headers: expected an object of texts"))?;
    let headers: Vec<(String, String)> = headers.unwrap_or_default().into_iter().collect();
    let (consumer, group) = (named(fields.consumer, "consumer")?, named(fields.group, "group")?);
    let options = Options {
        subject: &subject,
        start: start.as_deref(),
        since: wait(fields.since, "since")?,
        headers: &headers,
        order_by: order_by.as_deref(),
        ack: ack.as_deref(),
        consumer: consumer.as_deref(),
        group: group.as_deref(),
        redelivery,
        backoff: backoff.as_deref(),
        redelivery_count: number(fields.redelivery_count, "redelivery_count")?,
        max_in_flight: number(fields.max_in_flight, "max_in_flight")?,
        dead_letter: dead_letter.as_deref(),
    };
    options.subscribe().map_err(|fault| bad(fault.text))
}

fn wait(field: Field<'_>, name: &str) -> Result<Option<Duration>, FrameError> {
    let Some(raw) = field else { return Ok(None) };
    let error = |_| bad(format!("{name}: expected a time, as \"5s\", \"1m30s\", or as a number of milliseconds"));
    serde_json::from_str(raw.get()).map(|Wait(time)| Some(time)).map_err(error)
}

/// Reads what a client says of events.
fn acknowledgement(fields: &Fields<'_>) -> Result<Acknowledgement, FrameError> {
    let named = |field, name| text(field, name, ID_BYTES_MAX).map(|text| text.map(Cow::into_owned));
    let ids = |raw: &RawValue| serde_json::from_str::<Vec<String>>(raw.get());
    let event_ids = fields.event_ids.map(ids).transpose().map_err(|_| bad("event_ids: expected a list of ids"))?;
    let parameters = Parameters {
        event_id: named(fields.event_id, "event_id")?.filter(|id| !id.is_empty()),
        event_ids,
        up_to: named(fields.up_to, "up_to")?,
        action: named(fields.action, "action")?,
        delay: wait(fields.delay, "delay")?,
        reason: text(fields.reason, "reason", REASON_BYTES_MAX)?.map(Cow::into_owned),
    };
    parameters.read().map_err(|fault| bad(fault.text))
}

/// Reads the failure of a request. The caller gets its code and message.
fn parse_error(fields: &Fields<'_>) -> Result<ClientFrame, FrameError> {
    let id = required(fields.id, "id", usize::MAX)?.into_owned();
    let code = text(fields.code, "code", ID_BYTES_MAX).map_err(|error| error.of(&id))?;
    // A message that was cut in the middle of a character is still passed on.
    let message = fields.message.map(|raw| json::text(raw.get()).ok_or_else(|| bad("message: expected a string")));
    let message = message.transpose().map_err(|error| error.of(&id))?;
    if message.as_ref().is_some_and(|text| text.len() > limits::TEXT_BYTES_MAX) {
        return Err(bad(format!("message: at most {} bytes", limits::TEXT_BYTES_MAX)).of(&id));
    }
    let mut out = serde_json::Map::new();
    out.insert("code".to_owned(), code.filter(|code| !code.is_empty()).unwrap_or(SERVICE_ERROR.into()).into());
    out.insert("message".to_owned(), message.unwrap_or_default().into());
    let retryable = fields.retryable.is_some_and(|raw| raw.get() == "true");
    out.insert("retryable".to_owned(), retryable.into());
    let mut body = serde_json::Value::from(out).to_string();
    if let Some(data) = fields.data {
        body.pop();
        body.push_str(",\"data\":");
        body.push_str(data.get());
        body.push('}');
    }
    Ok(ClientFrame::Answer { id, answer: Answer { success: false, body: Payload::json(body) } })
}

//! The frames that clients send: text to types. Pure.
//!
//! Size: each of many frames has its few lines.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rollbook_core::headers::HeaderList;
use rollbook_core::limits;
use rollbook_core::service::{Capability, Instance, InstanceRegister, Service};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::config::NAME;
use crate::base::json::{self, Whole};
use crate::bus::client::call::{Answer, Payload, Responder, part_of, traceparent};
use crate::bus::subscribe::request::{Options, Subscribe};
use crate::bus::write::draft::Draft;
use crate::bus::write::headers::HeadersJson;

/// Longest id of a message, name of a callback, bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest key of a message, bytes.
const KEY_BYTES_MAX: usize = 256;
/// Longest time that a message may ask for.
const TIMEOUT_MAX_MS: u64 = 600_000;
/// The code of a service that fails without saying one.
pub(super) const SERVICE_ERROR: &str = "service_error";

/// Codes of errors, see the README of this door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BadJson,
    BadMessage,
    BadRegistration,
    NotRegistered,
    AlreadyRegistered,
    Forbidden,
    ConsumerMismatch,
    DuplicateId,
    UnknownRequest,
    Timeout,
    InstanceLost,
    Overloaded,
    Unavailable,
    Conflict,
    Internal,
}

impl Code {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadMessage => "bad_message",
            Self::BadRegistration => "bad_registration",
            Self::NotRegistered => "not_registered",
            Self::AlreadyRegistered => "already_registered",
            Self::Forbidden => "forbidden",
            Self::ConsumerMismatch => "consumer_mismatch",
            Self::DuplicateId => "duplicate_id",
            Self::UnknownRequest => "unknown_request",
            Self::Timeout => "timeout",
            Self::InstanceLost => "instance_lost",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Internal => "internal",
        }
    }

    pub(super) const fn retryable(self) -> bool {
        matches!(self, Self::InstanceLost | Self::Overloaded | Self::Unavailable | Self::Internal)
    }
}

/// A frame that is refused, with the id of its message as far as it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) code: Code,
    pub(super) id: Option<String>,
    pub(super) text: String,
}

impl Wrong {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, id: None, text: text.into() }
    }

    pub(super) fn of(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }
}

fn bad(text: impl Into<String>) -> Wrong {
    Wrong::new(Code::BadMessage, text)
}

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Register(Registers),
    Message(Message),
    /// An answer, or the failure of what was asked.
    Answer {
        id: String,
        answer: Answer,
    },
    Broadcast {
        id: Option<String>,
        payload: Bytes,
    },
    /// A command of the operator was understood.
    Done {
        id: u64,
        /// Something there takes it.
        handled: bool,
    },
    Publish(Box<Publishes>),
    Subscribe(Box<Subscribes>),
    Ack {
        id: String,
        event: String,
    },
    Unsubscribe {
        id: String,
    },
    Disconnect,
    Ping,
    /// Means nothing, but is a sign of life.
    Pong,
}

impl Said {
    /// The id under which it is answered.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Message(message) => Some(&message.id),
            Self::Publish(publishes) => Some(&publishes.id),
            Self::Subscribe(subscribes) => Some(&subscribes.id),
            Self::Ack { id, .. } | Self::Unsubscribe { id } => Some(id),
            _ => None,
        }
    }
}

/// An event for the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publishes {
    pub(super) id: String,
    subject: String,
    response_subject: String,
    key: String,
    trace_id: String,
    event_id: String,
    created_at: Option<String>,
    headers: HeaderList,
    payload: Option<Bytes>,
}

impl Publishes {
    /// As the book takes it.
    pub(super) fn draft(&self) -> Draft<'_> {
        Draft {
            id: (&*self.event_id).into(),
            trace_id: (&*self.trace_id).into(),
            key: (&*self.key).into(),
            subject: (&*self.subject).into(),
            response_subject: (&*self.response_subject).into(),
            created_at: self.created_at.as_deref().map(Cow::from),
            headers: self.headers.clone(),
            payload: self
                .payload
                .as_deref()
                .and_then(|payload| serde_json::from_slice(payload).ok())
                .map(Cow::Borrowed),
        }
    }
}

/// A stream of the book.
#[derive(Debug, Clone)]
pub(super) struct Subscribes {
    pub(super) id: String,
    pub(super) wanted: Subscribe,
}

impl PartialEq for Subscribes {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// A registration: of a service, or of a consumer when there are no methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) methods: Vec<String>,
    pub(super) instance: Option<String>,
    /// JSON; empty when there is none.
    pub(super) metadata: String,
}

impl Registers {
    /// What it means: a service with one capability of its own name.
    pub(super) fn into_register(self) -> InstanceRegister {
        let Self { name, version, methods, instance, metadata } = self;
        let capability = Capability { name: name.clone(), description: String::new(), actions: methods };
        let instance = Instance {
            id: instance.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            service: name.clone(),
            door: NAME.to_owned(),
            version: version.clone(),
            capabilities: vec![capability],
            metadata,
            ..Instance::default()
        };
        // No name for people and no kind: those that the service may have stay.
        let service = Service { id: name, version, ..Service::default() };
        InstanceRegister { service, instance }
    }
}

/// A message on its way to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) method: String,
    pub(super) consumer: Option<String>,
    pub(super) responder: Responder,
    pub(super) payload: Bytes,
    pub(super) timeout: Option<Duration>,
    pub(super) key: String,
    pub(super) traceparent: Option<String>,
}

/// All members that mean something in some frame; `null` is the same as none.
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
    start: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    redelivery_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_deliveries: Option<&'a RawValue>,
}

type Field<'a> = Option<&'a RawValue>;

/// A member that is text, of so many bytes at most.
fn text<'a>(field: Field<'a>, name: &str, bytes_max: usize) -> Result<Option<Cow<'a, str>>, Wrong> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    let Some(raw) = field else { return Ok(None) };
    let Borrowed(text) = serde_json::from_str(raw.get()).map_err(|_| bad(format!("{name}: expected a string")))?;
    if text.len() > bytes_max {
        return Err(bad(format!("{name}: at most {bytes_max} bytes")));
    }
    Ok(Some(text))
}

/// One that must be there and not be empty.
fn needed<'a>(field: Field<'a>, name: &str, bytes_max: usize) -> Result<Cow<'a, str>, Wrong> {
    text(field, name, bytes_max)?.filter(|text| !text.is_empty()).ok_or_else(|| bad(format!("{name}: missing")))
}

/// Reads a frame. `first`: a document without a type is a registration.
pub(super) fn parse(frame: &ByteString, first: bool) -> Result<Said, Wrong> {
    let json = frame.strip_prefix('\u{feff}').unwrap_or(frame);
    if !json.trim_start().starts_with('{') {
        return Err(Wrong::new(Code::BadJson, "a frame is a JSON object"));
    }
    let fields: Fields<'_> = serde_json::from_str(json).map_err(|error| {
        let code = if error.is_data() { Code::BadMessage } else { Code::BadJson };
        Wrong::new(code, error.to_string())
    })?;
    if !json::is_shallow(json.as_bytes(), json::DEPTH_MAX.saturating_add(1)) {
        let id = text(fields.id, "id", ID_BYTES_MAX).unwrap_or_default();
        return Err(Wrong { id: id.map(Cow::into_owned), ..bad(format!("a member is {}", json::TOO_DEEP)) });
    }
    let kind = text(fields.r#type, "type", ID_BYTES_MAX)?;
    match kind.as_deref() {
        None if first => registers(&fields).map(Said::Register),
        None => Err(bad("type: missing")),
        Some("register") => registers(&fields).map(Said::Register),
        Some("message") => message(frame, &fields).map(Said::Message),
        Some("response") => {
            let id = needed(fields.id, "id", frame.len())?.into_owned();
            let body = Payload::json(part(frame, fields.payload));
            Ok(Said::Answer { id, answer: Answer { success: true, body } })
        }
        Some("error") => failure(&fields),
        Some("broadcast") => {
            let id = text(fields.id, "id", ID_BYTES_MAX)?.map(Cow::into_owned);
            Ok(Said::Broadcast { id, payload: part(frame, fields.payload) })
        }
        Some("done") => {
            let id = needed(fields.id, "id", ID_BYTES_MAX)?;
            let id = id.parse().map_err(|_| bad("id: not that of a command"))?;
            Ok(Said::Done { id, handled: fields.handled.is_none_or(|raw| raw.get() != "false") })
        }
        Some("publish") => publishes(frame, &fields).map(|publishes| Said::Publish(Box::new(publishes))),
        Some("subscribe") => subscribes(&fields).map(|subscribes| Said::Subscribe(Box::new(subscribes))),
        Some("ack") => {
            let id = needed(fields.id, "id", ID_BYTES_MAX)?.into_owned();
            let event = needed(fields.event_id, "event_id", ID_BYTES_MAX).map_err(|wrong| wrong.of(&id))?;
            Ok(Said::Ack { event: event.into_owned(), id })
        }
        Some("unsubscribe") => Ok(Said::Unsubscribe { id: needed(fields.id, "id", ID_BYTES_MAX)?.into_owned() }),
        Some("disconnect") => Ok(Said::Disconnect),
        Some("ping") => Ok(Said::Ping),
        Some("pong") => Ok(Said::Pong),
        Some(_) => {
            let id = text(fields.id, "id", ID_BYTES_MAX).unwrap_or_default();
            Err(Wrong { id: id.map(Cow::into_owned), ..bad("type: unknown") })
        }
    }
}

/// The bytes of a member as they came.
fn part(frame: &ByteString, field: Field<'_>) -> Bytes {
    let place = |raw: &RawValue| {
        let start = raw.get().as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
        Some(start..start.checked_add(raw.get().len())?)
    };
    field.and_then(place).map(|range| part_of(frame.as_bytes(), range)).unwrap_or_default()
}

fn registers(fields: &Fields<'_>) -> Result<Registers, Wrong> {
    let as_registration = |wrong: Wrong| Wrong { code: Code::BadRegistration, ..wrong };
    let wrong = |text: &str| Wrong::new(Code::BadRegistration, text);
    let name = needed(fields.name, "name", limits::NAME_BYTES_MAX).map_err(as_registration)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(legal) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(wrong("name: letters, digits, '.', '_', '-', of which the first is a letter or digit"));
    }
    let version = needed(fields.version, "version", limits::VERSION_BYTES_MAX).map_err(as_registration)?;
    let instance = match text(fields.instance, "instance", limits::NAME_BYTES_MAX).map_err(as_registration)? {
        None => text(fields.id, "id", limits::NAME_BYTES_MAX).map_err(as_registration)?,
        instance => instance,
    };
    if instance.as_ref().is_some_and(|instance| instance.is_empty()) {
        return Err(wrong("instance: 1 to 128 bytes"));
    }
    let metadata = fields.metadata.map(|raw| raw.get().to_owned()).unwrap_or_default();
    Ok(Registers {
        name: name.into_owned(),
        version: version.into_owned(),
        methods: methods(fields.methods)?,
        instance: instance.map(Cow::into_owned),
        metadata,
    })
}

fn methods(field: Field<'_>) -> Result<Vec<String>, Wrong> {
    let wrong = |text: String| Wrong::new(Code::BadRegistration, text);
    let Some(raw) = field else { return Ok(Vec::new()) };
    let named: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| wrong("methods: expected a list of strings".to_owned()))?;
    let mut methods = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for method in named {
        let illegal = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if !(1..=limits::NAME_BYTES_MAX).contains(&method.len()) || method.contains(illegal) {
            let text = format!("methods: 1 to {} bytes without ':' and blanks", limits::NAME_BYTES_MAX);
            return Err(wrong(text));
        }
        if seen.insert(method.clone()) {
            methods.push(method);
        }
    }
    if methods.len() > limits::ACTIONS_MAX {
        return Err(wrong(format!("methods: at most {}", limits::ACTIONS_MAX)));
    }
    Ok(methods)
}

fn message(frame: &ByteString, fields: &Fields<'_>) -> Result<Message, Wrong> {
    let id = needed(fields.id, "id", ID_BYTES_MAX)?.into_owned();
    message_of(frame, fields, &id).map_err(|wrong| wrong.of(&id))
}

fn message_of(frame: &ByteString, fields: &Fields<'_>, id: &str) -> Result<Message, Wrong> {
    let longest = limits::NAME_BYTES_MAX.saturating_mul(2).saturating_add(1);
    let destination = needed(fields.destination, "destination", longest)?;
    let named = destination.split_once(':').filter(|(service, method)| !service.is_empty() && !method.is_empty());
    let (service, method) = named.ok_or_else(|| bad("destination: expected <service>:<method>"))?;
    let responder = text(fields.responder, "responder", ID_BYTES_MAX)?.filter(|name| !name.is_empty());
    let timeout = match fields.timeout_ms {
        None => None,
        Some(raw) => match serde_json::from_str(raw.get()) {
            Ok(Whole(millis @ 1..=TIMEOUT_MAX_MS)) => Some(Duration::from_millis(millis)),
            _ => return Err(bad(format!("timeout_ms: a number from 1 to {TIMEOUT_MAX_MS}"))),
        },
    };
    // Something that is no context of a trace is ignored, as W3C asks.
    let trace = fields.traceparent.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    Ok(Message {
        id: id.to_owned(),
        service: service.to_owned(),
        method: method.to_owned(),
        consumer: text(fields.consumer, "consumer", limits::NAME_BYTES_MAX)?.map(Cow::into_owned),
        responder: responder.map_or(Responder::Nobody, |name| Responder::Named(name.into_owned())),
        payload: part(frame, fields.payload),
        timeout,
        key: text(fields.key, "key", KEY_BYTES_MAX)?.unwrap_or_default().into_owned(),
        traceparent: trace.as_deref().and_then(traceparent),
    })
}

fn publishes(frame: &ByteString, fields: &Fields<'_>) -> Result<Publishes, Wrong> {
    let id = needed(fields.id, "id", ID_BYTES_MAX)?.into_owned();
    let short = |field, name| {
        let text = text(field, name, limits::FIELD_BYTES_MAX).map_err(|wrong| wrong.of(&id))?;
        Ok(text.unwrap_or_default().into_owned())
    };
    Ok(Publishes {
        subject: short(fields.subject, "subject")?,
        response_subject: short(fields.response_subject, "response_subject")?,
        key: short(fields.key, "key")?,
        trace_id: short(fields.trace_id, "trace_id")?,
        event_id: short(fields.event_id, "event_id")?,
        created_at: Some(short(fields.created_at, "created_at")?).filter(|time| !time.is_empty()),
        headers: headers(fields.headers).map_err(|wrong| wrong.of(&id))?,
        payload: fields.payload.map(|_| part(frame, fields.payload)),
        id,
    })
}

fn headers(field: Field<'_>) -> Result<HeaderList, Wrong> {
    let Some(raw) = field else { return Ok(HeaderList::default()) };
    let HeadersJson(list) = serde_json::from_str(raw.get()).map_err(|error| {
        let text = error.to_string();
        // The place is that within the member, which nobody can look up.
        bad(format!("headers: {}", text.split(" at line").next().unwrap_or(&text)))
    })?;
    Ok(list)
}

fn subscribes(fields: &Fields<'_>) -> Result<Subscribes, Wrong> {
    let id = needed(fields.id, "id", ID_BYTES_MAX)?.into_owned();
    let wanted = subscription(fields).map_err(|wrong| wrong.of(&id))?;
    Ok(Subscribes { id, wanted })
}

/// What a stream is to deliver, in the words of the book's own protocol.
fn subscription(fields: &Fields<'_>) -> Result<Subscribe, Wrong> {
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
    let (consumer, group) = (named(fields.consumer, "consumer")?, named(fields.group, "group")?);
    let options = Options {
        subject: &subject,
        start: start.as_deref(),
        ack: ack.as_deref(),
        consumer: consumer.as_deref(),
        group: group.as_deref(),
        redelivery_ms: number(fields.redelivery_ms, "redelivery_ms")?,
        max_deliveries: number(fields.max_deliveries, "max_deliveries")?,
    };
    options.subscribe().map_err(|rejected| bad(rejected.text))
}

/// A service fails a request: what it says is for the caller.
fn failure(fields: &Fields<'_>) -> Result<Said, Wrong> {
    let id = needed(fields.id, "id", usize::MAX)?.into_owned();
    let code = text(fields.code, "code", ID_BYTES_MAX).map_err(|wrong| wrong.of(&id))?;
    // What it says for people is told even if it was cut in the middle of a character.
    let message = fields.message.map(|raw| json::text(raw.get()).ok_or_else(|| bad("message: expected a string")));
    let message = message.transpose().map_err(|wrong| wrong.of(&id))?;
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
    Ok(Said::Answer { id, answer: Answer { success: false, body: Payload::json(body) } })
}

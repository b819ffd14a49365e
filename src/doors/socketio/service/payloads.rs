//! The payloads of the events that clients send, checked field by field. Pure.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rollbook_core::limits;
use rollbook_core::service::{Capability, Instance, InstanceRegister, Service};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::json::{Whole, or_default};
use crate::base::json_error;
use crate::bus::client::announcement::AnnouncedUpTo;
use crate::bus::client::call::{Answer, Payload, part_of, traceparent};
use crate::bus::error::Fault;
use crate::bus::security::credentials::secret::Secret;
use crate::bus::subscribe::listener::{Listener, SubscribeJson};
use crate::doors::socketio::codec;

/// Longest `requestId`, bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest `key`, bytes.
const KEY_BYTES_MAX: usize = 256;
/// Most providers that a request may be given to after the first.
const RETRIES_MAX: u32 = 3;
/// The type of a service that names none.
const KIND: &str = "service";

fn bad(error: impl std::fmt::Display) -> Fault {
    Fault::bad(error.to_string())
}

/// Reads an argument of an event. The error names the field.
pub(in crate::doors::socketio) fn parse<'a, T: Deserialize<'a>>(arg: &'a str) -> Result<T, Fault> {
    if !arg.trim_start().starts_with('{') {
        return Err(bad("the argument of the event: expected an object"));
    }
    serde_json::from_str(arg).map_err(|error| bad(json_error::explain(arg, &error)))
}

/// Returns a part of the text of an argument.
pub(in crate::doors::socketio) fn part(arg: &ByteString, part: Option<std::ops::Range<usize>>) -> Bytes {
    part.map(|range| part_of(arg.as_bytes(), range)).unwrap_or_default()
}

/// The range of `part` in `whole`.
fn range(whole: &str, part: Option<&RawValue>) -> Option<std::ops::Range<usize>> {
    let part = part?.get();
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    Some(start..start.checked_add(part.len())?)
}

/// A port, as a number or as digits.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a port is a number from 0 to 65535")]
enum Port {
    #[serde(deserialize_with = "port")]
    Number(u16),
    #[serde(deserialize_with = "digits")]
    Digits(u16),
}

fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let Whole(number) = Whole::deserialize(deserializer)?;
    u16::try_from(number).map_err(serde::de::Error::custom)
}

fn digits<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl Port {
    const fn number(self) -> u16 {
        match self {
            Self::Number(port) | Self::Digits(port) => port,
        }
    }
}

/// The names that a client gave when it connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::doors::socketio) struct Auth {
    pub(in crate::doors::socketio) id: Option<String>,
    pub(in crate::doors::socketio) name: Option<String>,
    pub(in crate::doors::socketio) port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthJson {
    app_id: Option<String>,
    app_name: Option<String>,
    app_port: Option<Port>,
    token: Option<String>,
}

impl Auth {
    /// Reads the payload of CONNECT. `app` is the parameter of the first request.
    pub(in crate::doors::socketio) fn parse(auth: Option<&str>, app: Option<String>) -> Result<Self, Fault> {
        let AuthJson { app_id, app_name, app_port, .. } = match auth {
            Some(auth) => parse(auth)?,
            None => AuthJson { app_id: None, app_name: None, app_port: None, token: None },
        };
        let full = |text: &String| !text.is_empty();
        Ok(Self {
            id: app_id.filter(full),
            name: app_name.filter(full).or(app).filter(full),
            port: app_port.map(Port::number),
        })
    }

    /// The token in the payload of CONNECT. It is read for the authority alone, and kept nowhere.
    pub(in crate::doors::socketio) fn token(auth: Option<&str>) -> Option<Secret> {
        let AuthJson { token, .. } = parse(auth?).ok()?;
        token.filter(|token| !token.is_empty()).map(Secret::new)
    }
}

/// What a reconnecting client sends to recover its state: the name of the state, and the offset of the last event
/// that the client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors::socketio) struct RecoveryRequest {
    pub(in crate::doors::socketio) pid: String,
    pub(in crate::doors::socketio) offset: Option<AnnouncedUpTo>,
}

#[derive(Deserialize)]
struct RecoveryRequestJson<'a> {
    #[serde(borrow)]
    pid: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    offset: Option<std::borrow::Cow<'a, str>>,
}

impl RecoveryRequest {
    /// Reads the payload of CONNECT. `None` means that the payload asks for no recovery, or is invalid.
    pub(in crate::doors::socketio) fn parse(auth: &str) -> Option<Self> {
        let RecoveryRequestJson { pid, offset } = serde_json::from_str(auth).ok()?;
        let offset = match offset {
            Some(offset) => Some(AnnouncedUpTo::parse(&offset)?),
            None => None,
        };
        Some(Self { pid: pid.into_owned(), offset })
    }
}

/// `bus:register`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::doors::socketio) struct RegisterPayload {
    id: Option<String>,
    name: Option<String>,
    r#type: Option<String>,
    port: Option<Port>,
    version: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    capabilities: Vec<CapabilityEntry>,
    instance_id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    listeners: Vec<SubscribeJson>,
}

/// A capability, as an object or as a name alone.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a capability is {name, description, actions} or a name")]
enum CapabilityEntry {
    Name(String),
    Full {
        name: String,
        #[serde(default, deserialize_with = "or_default")]
        description: String,
        #[serde(default, deserialize_with = "or_default")]
        actions: Vec<String>,
    },
}

impl RegisterPayload {
    pub(in crate::doors::socketio) fn parse(arg: &str) -> Result<Self, Fault> {
        parse(arg)
    }

    /// What the bus subscribes to for the client.
    ///
    /// # Errors
    /// One of the listeners is wrong.
    pub(in crate::doors::socketio) fn listeners(&self) -> Result<Vec<Listener>, Fault> {
        Listener::all(&self.listeners)
    }

    /// Builds the registration. Members that the payload leaves out come from `auth`.
    pub(in crate::doors::socketio) fn into_register(self, auth: &Auth, sid: &str) -> Result<InstanceRegister, Fault> {
        let metadata = Listener::show(&self.listeners()?, String::new());
        let id = self.id.or_else(|| auth.id.clone()).ok_or_else(|| bad("id: missing"))?;
        let name = self.name.or_else(|| auth.name.clone()).unwrap_or_else(|| id.clone());
        let version = self.version.unwrap_or_default();
        let capability = |offered| match offered {
            CapabilityEntry::Name(name) => Capability { name, ..Capability::default() },
            CapabilityEntry::Full { name, description, actions } => Capability { name, description, actions },
        };
        let instance = Instance {
            id: self.instance_id.unwrap_or_else(|| sid.to_owned()),
            service: id.clone(),
            door: crate::doors::socketio::settings::NAME.to_owned(),
            port: u32::from(self.port.map(Port::number).or(auth.port).unwrap_or_default()),
            version: version.clone(),
            capabilities: self.capabilities.into_iter().map(capability).collect(),
            metadata,
            ..Instance::default()
        };
        let kind = self.r#type.unwrap_or_else(|| KIND.to_owned());
        let service = Service { id, name, version, kind, ..Service::default() };
        // The rules check again; this check gives the client its error without a round through the cluster.
        service.check().and_then(|()| instance.check()).map_err(|refusal| Fault::of_service(&refusal))?;
        Ok(InstanceRegister { service, instance })
    }
}

/// `bus:request`
#[derive(Debug)]
pub(in crate::doors::socketio) struct RequestPayload {
    pub(in crate::doors::socketio) id: String,
    pub(in crate::doors::socketio) capability: String,
    pub(in crate::doors::socketio) action: String,
    /// The range of the payload in the argument.
    pub(in crate::doors::socketio) payload: Option<std::ops::Range<usize>>,
    pub(in crate::doors::socketio) timeout: Option<Duration>,
    pub(in crate::doors::socketio) retries: u32,
    pub(in crate::doors::socketio) key: String,
    pub(in crate::doors::socketio) traceparent: Option<String>,
}

/// Why a request is invalid, with its id if the id could be read.
#[derive(Debug)]
pub(in crate::doors::socketio) struct InvalidRequest {
    pub(in crate::doors::socketio) id: Option<String>,
    pub(in crate::doors::socketio) error: Fault,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestPayloadJson<'a> {
    request_id: Option<String>,
    capability: Option<String>,
    action: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    timeout: Option<Whole>,
    retries: Option<Whole>,
    key: Option<String>,
    traceparent: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdJson {
    request_id: Option<String>,
}

impl RequestPayload {
    /// Reads the argument. With `has_ack` the client needs no `requestId`.
    pub(in crate::doors::socketio) fn parse(arg: &str, has_ack: bool) -> Result<Self, InvalidRequest> {
        let json: RequestPayloadJson<'_> = parse(arg).map_err(|error| {
            let id = serde_json::from_str::<IdJson>(arg).ok().and_then(|json| json.request_id);
            InvalidRequest { id, error }
        })?;
        let id = json.request_id.clone();
        let invalid = |error: Fault| InvalidRequest { id: id.clone(), error };
        let request_id = match json.request_id {
            Some(id) if id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX => {
                return Err(invalid(bad(format!("requestId: 1 to {REQUEST_ID_BYTES_MAX} bytes"))));
            }
            Some(id) => id,
            None if has_ack => String::new(),
            None => return Err(invalid(bad("requestId: missing"))),
        };
        let capability = json.capability.filter(|name| !name.is_empty());
        let capability = capability.ok_or_else(|| invalid(bad("capability: missing")))?;
        let action = json.action.unwrap_or_default();
        for (name, text) in [("capability", &capability), ("action", &action)] {
            // No provider can offer a longer name.
            if text.len() > limits::NAME_BYTES_MAX {
                return Err(invalid(bad(format!("{name}: at most {} bytes", limits::NAME_BYTES_MAX))));
            }
        }
        if json.timeout == Some(Whole(0)) {
            return Err(invalid(bad("timeout: at least 1 ms")));
        }
        let Whole(retries) = json.retries.unwrap_or(Whole(0));
        let retries = u32::try_from(retries).unwrap_or(u32::MAX);
        if retries > RETRIES_MAX {
            return Err(invalid(bad(format!("retries: at most {RETRIES_MAX}"))));
        }
        let key = json.key.unwrap_or_default();
        if key.len() > KEY_BYTES_MAX {
            return Err(invalid(bad(format!("key: at most {KEY_BYTES_MAX} bytes"))));
        }
        Ok(Self {
            id: request_id,
            capability,
            action,
            payload: range(arg, json.payload),
            timeout: json.timeout.map(|Whole(millis)| Duration::from_millis(millis)),
            retries,
            key,
            traceparent: json.traceparent.as_deref().and_then(traceparent),
        })
    }
}

/// `bus:request` as the provider gets it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::doors::socketio) struct RequestJson<'a> {
    pub(in crate::doors::socketio) request_id: &'a str,
    pub(in crate::doors::socketio) capability: &'a str,
    pub(in crate::doors::socketio) action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::doors::socketio) payload: Option<&'a RawValue>,
    pub(in crate::doors::socketio) from: serde_json::Value,
    /// Milliseconds until the caller stops to wait.
    pub(in crate::doors::socketio) timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::doors::socketio) traceparent: Option<&'a str>,
}

/// `bus:response`
#[derive(Debug)]
pub(in crate::doors::socketio) struct ResponsePayload {
    pub(in crate::doors::socketio) id: Option<String>,
    success: bool,
    body: Option<std::ops::Range<usize>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponsePayloadJson<'a> {
    request_id: Option<String>,
    success: bool,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl ResponsePayload {
    pub(in crate::doors::socketio) fn parse(arg: &str) -> Result<Self, Fault> {
        let ResponsePayloadJson { request_id, success, data, error } = parse(arg)?;
        let body = range(arg, if success { data } else { error });
        Ok(Self { id: request_id, success, body })
    }

    /// Builds the answer from the arguments that the payload was read from.
    pub(in crate::doors::socketio) fn answer(&self, args: &[ByteString], attachments: &[Bytes]) -> Answer {
        let json = args.first().map(|arg| part(arg, self.body.clone())).unwrap_or_default();
        Answer { success: self.success, body: Payload { json, attachments: attachments.to_vec() } }
    }
}

/// Whether the acknowledgement of a command says that the program takes the command. `{handled: false}` says no.
pub(in crate::doors::socketio) fn is_handled(arg: &str) -> bool {
    #[derive(Deserialize)]
    struct ReplyJson {
        handled: Option<bool>,
    }
    parse::<ReplyJson>(arg).ok().and_then(|reply| reply.handled).unwrap_or(true)
}

/// `bus:notify`
#[derive(Debug, Deserialize)]
pub(in crate::doors::socketio) struct NotifyPayload {
    pub(in crate::doors::socketio) event: String,
    pub(in crate::doors::socketio) data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::doors::socketio) volatile: bool,
}

impl NotifyPayload {
    pub(in crate::doors::socketio) fn parse(arg: &str) -> Result<Self, Fault> {
        let payload: Self = parse(arg)?;
        if is_reserved_event(&payload.event) {
            return Err(bad(format!("event: {} is reserved", payload.event)));
        }
        Ok(payload)
    }
}

/// Whether only the client library or the bus may use this name of an event.
pub(in crate::doors::socketio) fn is_reserved_event(event: &str) -> bool {
    let prefixes = ["bus:", "book:", "config:", "service:"];
    event.is_empty() || codec::is_reserved(event) || prefixes.iter().any(|prefix| event.starts_with(prefix))
}
